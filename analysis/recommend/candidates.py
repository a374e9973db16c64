"""The use of a number of trials with one optimizer on a backbone: first setting, range to search, expected score."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.special import ndtri

from bocb_tune.analysis.cell.sensitivity import EPSILON, spread
from bocb_tune.analysis.core.arrays import Array, Flags
from bocb_tune.analysis.core.estimate import Counts
from bocb_tune.analysis.landscape import surface
from bocb_tune.analysis.landscape.fit import Landscape
from bocb_tune.analysis.landscape.surface import SettingGrid
from bocb_tune.analysis.tuning.settings import Setting, at_node

CAUTIOUS = 0.1
"""Quantile of the score by which a setting is chosen if there is only a single trial."""
SEARCHES, MOST_TRIALS = 64, 256
"""Random searches simulated, and the number of trials beyond which they find nothing more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchRange:
    """Ranges to search."""

    lr: tuple[float, float]
    weight_decay: tuple[float, float] | None
    """Range of positive weight decay; None if only weight decay 0 is worth a trial, or weight decay was not varied."""
    zero: bool
    """Whether weight decay 0 is worth trials."""

    def __str__(self) -> str:
        ends = [] if self.weight_decay is None else [_ends(self.weight_decay)]
        decay = " or ".join([*ends, *(["0"] if self.zero else [])])
        return f"lr {_ends(self.lr)}" + (f", weight decay {decay}" if decay else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """The best use of the trials with one optimizer."""

    setting: Setting
    """Setting of the first trial."""
    search_range: SearchRange
    merit: float
    """Criterion of the choice, points: a low quantile of the score of one trial, or the expected score of several."""
    expected: float
    """Expected score, points."""
    draws: Array
    """Draws of the expected score [draws]."""
    found: Array
    """Draws of what the trials find on each surface [draws]: where the first setting is poor, others make it good."""
    best: Array
    """Draws of the expected score at the best point, of the same surfaces [draws]."""
    robustness: tuple[float, float]
    """Near-optimal volume and divergence margin in decades: larger is safer."""
    counts: Counts


@dataclass(frozen=True, slots=True, kw_only=True)
class Seeds:
    """Score of a cell by repeated seeds."""

    score: float
    """Mean of the seeds, points."""
    sd: float
    """Its standard error."""
    setting: Setting | None

    def draws(self, count: int, rng: np.random.Generator) -> Array:
        """Draw so many values that the mean may truly have."""
        return np.asarray(self.score + self.sd * rng.standard_normal(count))


def make_candidate(cell: Landscape, trials: int, rng: np.random.Generator, tolerance: float = EPSILON) -> Candidate:
    """Find the best use of a number of trials.

    A single trial is placed where a low quantile of its score is best, noise and divergence included. Of several the
    first is the best setting, the others are random ones of the range around it; the best score of all is selected.
    """
    near = np.asarray(cell.mean >= cell.mean.max() - tolerance)
    best = cell.best_draws
    if trials == 1:
        caution = cautious_score(cell)
        row, column = map(int, surface.argmax(caution))
        merit, expected = float(caution[row, column]), float(cell.mean[row, column])
        found = cell.draws[:, row, column].astype(float)
    else:
        row, column = cell.best_node
        smooth, *rough = _search(cell, bounding(near, cell.grid), min(trials, MOST_TRIALS), rng)
        found = np.array(rough)
        # A search finds too much on draws, which are rougher than the truth; the mean surface is smoother.
        merit = expected = float(smooth + found.mean()) / 2
    found = expected + spread(cell, found - found.mean())
    volume = float(np.sum(near * cell.grid.weights))
    margin = float(np.mean(cell.divergence_lr)) - float(cell.grid.u[cell.best_node[0]])
    return Candidate(
        setting=at_node(cell.grid, row, column),
        search_range=range_of(near, cell.grid),
        merit=merit,
        expected=expected,
        draws=found if trials == 1 else expected + spread(cell, best - best.mean()),
        found=found,
        best=spread(cell, best),
        robustness=(volume, margin),
        counts=cell.counts,
    )


def with_seeds(candidate: Candidate, cell: Landscape, seeds: Seeds, rng: np.random.Generator) -> Candidate:
    """Update a candidate by the mean of fresh seeds at the best point, as far as its score depends on the score there.

    Otherwise a recommendation could prefer an optimizer that the seeds, on which the headline rests, have shown to be
    worse. Each draw moves by the difference of its surface from a draw of the seeds' mean (Matheron's rule).
    """
    both = np.cov(candidate.found, candidate.best)
    weight = float(both[0, 1] / (both[1, 1] + seeds.sd**2)) if both[1, 1] > 0 else 0.0
    moved = weight * (seeds.score - float(cell.mean[cell.best_node]))
    return replace(
        candidate,
        merit=candidate.merit + moved,
        expected=candidate.expected + moved,
        draws=candidate.found + weight * (seeds.draws(len(candidate.best), rng) - candidate.best),
    )


def cautious_score(cell: Landscape) -> Array:
    """Compute the quantile `CAUTIOUS` of the score of one run at each node [lr, decay], points.

    A run diverges with probability p; the score of one that does not is modelled as normal about (e - p floor) / (1 -
    p), with the variance of e over the draws plus that of the noise.
    """
    p = cell.divergence
    stays = p < CAUTIOUS
    safe = np.where(stays, p, 0.0)
    score = (cell.mean - safe * cell.floor) / (1 - safe)
    sd = np.hypot(cell.draws.std(axis=0), cell.noise)
    return np.where(stays, score + sd * ndtri((CAUTIOUS - safe) / (1 - safe)), cell.floor)


def range_of(near: Flags, grid: SettingGrid) -> SearchRange:
    """Find the ranges that bound some nodes [lr, decay]."""
    rows = np.flatnonzero(near.any(axis=1))
    is_line = grid.domain.weight_decay is None
    columns = np.flatnonzero(near[:, : 0 if is_line else grid.num_decay].any(axis=0))
    low, high = (float(10 ** grid.u[row]) for row in (rows[0], rows[-1]))
    decays = [float(10 ** grid.v[column]) for column in (columns[0], columns[-1])] if len(columns) else None
    return SearchRange(
        lr=(low, high),
        weight_decay=(decays[0], decays[1]) if decays else None,
        zero=bool(near[:, grid.num_decay :].any()),
    )


def bounding(near: Flags, grid: SettingGrid) -> Flags:
    """Select all nodes within those ranges [lr, decay]."""
    rows, columns = (np.asarray(near.any(axis=axis)) for axis in (1, 0))
    zero = columns[grid.num_decay :]
    return np.outer(_span(rows), np.concatenate([_span(columns[: grid.num_decay]), zero]))


def _ends(interval: tuple[float, float]) -> str:
    return f"{interval[0]:.2g} to {interval[1]:.2g}"


def _span(flags: Flags) -> Flags:
    """Fill with True from the first to the last True."""
    return np.logical_or.accumulate(flags) & np.logical_or.accumulate(flags[::-1])[::-1]


def _search(cell: Landscape, inside: Flags, trials: int, rng: np.random.Generator) -> Array:
    """Compute the mean true score of the selected setting [1 + draws], the mean surface first, over the same
    searches."""
    weights = (cell.grid.weights * inside).ravel()
    tried = rng.choice(weights.size, size=(SEARCHES, trials), p=weights / weights.sum())
    tried[:, 0] = np.ravel_multi_index(cell.best_node, cell.mean.shape)
    noise = cell.noise * rng.standard_normal(tried.shape)
    nodes = np.unravel_index(tried, cell.mean.shape)
    true = np.concatenate([cell.mean[nodes][None], cell.surfaces.at(*nodes)])
    picked = (true + noise).argmax(axis=-1)[..., None]
    chosen: Array = np.take_along_axis(true, picked, axis=-1)[..., 0].mean(axis=-1)
    return chosen
