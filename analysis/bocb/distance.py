"""Hyper-parameter robustness as in Figures 4 and 5 of arXiv:2410.06373: how far best settings lie from the usual one.

    distance = |place(lr) - place of the mode| + |place(wd) - place of the mode|        in steps of the values tried

By the paper's text the mode is that over the optimizers for a backbone (Figure 4) and over the backbones for an
optimizer (Figure 5); of several the smallest. Its figures fit modes over the backbones in both. Lower means more alike,
which says nothing of the score that a step costs: `drift` and half widths of the landscape do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bocb_tune.analysis.core import bootstrap as drawn
from bocb_tune.analysis.core.arrays import Array
from bocb_tune.analysis.core.estimate import Counts, Estimate, Reason
from bocb_tune.analysis.matrix.twoway import Matrix

MIN_LINE = 4
"""Settings of a line below which it has no mode to speak of."""
MOST_VALUES, USES = 32, 2
"""Values of a grid, and cells that use one on average: searches on more, or rarer, values are taken as continuous."""
NO_DECAY_PLACE = 1
"""Steps below the smallest positive weight decay at which 0 stands, on a continuous range."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeanDistances:
    """Mean distances of the lines of a grid, steps."""

    backbones: tuple[Estimate, ...]
    """Each backbone's from its mode over optimizers, as the paper's text has it."""
    backbones_drawn: tuple[Estimate, ...]
    """Each backbone's from the modes of the optimizers, which fits the paper's Figure 4 better."""
    optimizers: tuple[Estimate, ...]
    """Each optimizer's from its mode over backbones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """Best settings as places on the scale of the values tried."""

    lr: Matrix
    """[backbones, optimizers], whole steps, NaN where not known."""
    weight_decay: Matrix
    how: str
    """Meaning of one step, in words."""

    @property
    def known(self) -> int:
        """Cells whose setting is known."""
        return int(np.isfinite(self.lr + self.weight_decay).sum())


def steps_of(settings: tuple[Matrix, Matrix], tried: tuple[Array, Array] | None, step: float) -> Steps:
    """Put settings on the grid of the values tried, or on steps of equal ratio where there is no grid.

    Args:
        settings: learning rate and weight decay [backbones, optimizers], NaN where not known.
        tried: all values of each that were tried; None for a continuous search.
        step: decades, for a continuous search.
    """
    if tried is not None:
        grids = [np.unique(each[np.isfinite(each)]) for each in tried]
        how = f"steps of the {len(grids[0])} learning rates and {len(grids[1])} weight decays tried"
        places = [_on_grid(values, grid) for values, grid in zip(settings, grids, strict=True)]
    else:
        how = f"steps of {step:.2g} decades"
        places = [_on_scale(values, step) for values in settings]
    return Steps(lr=places[0], weight_decay=places[1], how=how)


def is_grid(values: Array, num_uses: int) -> bool:
    """Tell whether values tried are those of a grid: few, and used again and again.

    Args:
        values: distinct values.
        num_uses: pairs of a cell and a value that it tried.
    """
    return 1 <= len(values) <= MOST_VALUES and num_uses >= USES * len(values)


def distances(steps: Steps, axis: int) -> Matrix:
    """Measure the distance of each cell from the mode of its line [backbones, optimizers], steps.

    Args:
        axis: 0 for the mode over backbones, by optimizer; 1 for the mode over optimizers, by backbone.
    """
    known = np.isfinite(steps.lr + steps.weight_decay)
    total = np.zeros(known.shape)
    for places in (steps.lr, steps.weight_decay):
        kept = np.where(known, places, np.nan)
        modes = np.apply_along_axis(_mode, axis, kept)
        total = total + np.abs(kept - np.expand_dims(modes, axis))
    return total


def mean_distances(steps: Steps, rng: np.random.Generator) -> MeanDistances:
    """Estimate the mean distance of each backbone and optimizer, with bootstrap intervals over the cells of the line.

    The mode of the line itself is taken anew in every replicate.
    """
    lines = [(steps.lr, steps.weight_decay), (steps.lr.T, steps.weight_decay.T)]
    backbones, optimizers = (
        tuple(_line(*pair, over, rng) for pair in zip(*line, strict=True))
        for line, over in zip(lines, ("optimizers", "backbones"), strict=True)
    )
    drawn_ones = tuple(_of_known(row, rng) for row in distances(steps, 0))
    return MeanDistances(backbones=backbones, backbones_drawn=drawn_ones, optimizers=optimizers)


def resampled_mean(places: Sequence[Array], weights: Array) -> Array:
    """Average the distance from the mode in replicates of a line [replicates].

    Args:
        places: of learning rate and of weight decay, each [cells], all known.
        weights: how often each cell is in each replicate [replicates, cells].
    """
    total = np.zeros(len(weights))
    for each in places:
        values, index = np.unique(each, return_inverse=True)
        counts = weights @ (index[:, None] == np.arange(len(values)))
        modes = values[counts.argmax(axis=1)]
        total += (weights * np.abs(each - modes[:, None])).sum(axis=1) / weights.sum(axis=1)
    return total


def _line(lr: Array, decay: Array, over: str, rng: np.random.Generator) -> Estimate:
    known = np.isfinite(lr + decay)
    if refused := _too_few(int(known.sum()), over):
        return refused
    places = [lr[known], decay[known]]
    point = float(resampled_mean(places, np.ones((1, known.sum())))[0])
    draws = resampled_mean(places, drawn.resampled_backbones(int(known.sum()), rng))
    return _estimate(point, draws, int(known.sum()), over)


def _of_known(distance: Array, rng: np.random.Generator) -> Estimate:
    """Average the known distances of a backbone, the modes being those of the grid."""
    known = distance[np.isfinite(distance)]
    if refused := _too_few(len(known), "optimizers"):
        return refused
    draws = drawn.resampled_backbones(len(known), rng) @ known / len(known)
    return _estimate(float(known.mean()), draws, len(known), "optimizers")


def _too_few(count: int, over: str) -> Estimate | None:
    if count >= MIN_LINE:
        return None
    few = Reason.TOO_FEW_BACKBONES if over == "backbones" else Reason.TOO_FEW_OPTIMIZERS
    counts = Counts(n_trials=count)
    return Estimate(value=None, unit="steps", counts=counts, reason=few if count else Reason.NO_SETTINGS)


def _estimate(point: float, draws: Array, count: int, over: str) -> Estimate:
    counts, method = Counts(n_trials=count), f"bootstrap over {count} {over}"
    return drawn.estimate(point, draws, unit="steps", counts=counts, method=method)


def _mode(places: Array) -> float:
    known = places[np.isfinite(places)]
    values, counts = np.unique(known, return_counts=True)
    return float(values[counts.argmax()]) if len(known) else np.nan


def _on_grid(values: Matrix, grid: Array) -> Matrix:
    return np.where(np.isfinite(values), np.searchsorted(grid, values).astype(float), np.nan)


def _on_scale(values: Matrix, step: float) -> Matrix:
    positive = values > 0
    places = np.round(np.log10(np.where(positive, values, np.nan)) / step)
    lowest = np.nanmin(places) if np.isfinite(places).any() else 0.0
    return np.where(values == 0, lowest - NO_DECAY_PLACE, places)
