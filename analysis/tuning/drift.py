"""Drift: distances, in decades, between the best settings of one optimizer on different backbones.

    du = log10 lr* - log10 lr of a reference,     dv likewise for weight decay, which counts as none below 1e-6

Drift need not be costly: it may lie inside the flat region. Where a landscape is known, du is therefore also given in
units of half the region's width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bocb_tune.analysis.cell.sensitivity import EPSILON
from bocb_tune.analysis.core import bootstrap as drawn
from bocb_tune.analysis.core.arrays import Array
from bocb_tune.analysis.core.bootstrap import Refused
from bocb_tune.analysis.core.estimate import Estimate, Reason
from bocb_tune.analysis.landscape import surface
from bocb_tune.analysis.landscape.fit import Landscape
from bocb_tune.analysis.matrix.twoway import decompose
from bocb_tune.analysis.tuning.settings import Cells, Setting, best_setting, without_common_ground

MIN_BACKBONES = 4
NO_DECAY = 1e-6
"""Weight decay up to which a published setting counts as having none."""
HALF_DECADE = 0.5
OFF = 1e-9
"""Distance in decades below which two published numbers are the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """Distances of the settings of one optimizer from a reference."""

    reference: Setting
    lr: Array
    """du [backbones], decades; NaN where no setting is known."""
    weight_decay: Array
    """dv [backbones], decades."""

    @property
    def mean_lr(self) -> float:
        """Mean |du|."""
        return float(np.nanmean(np.abs(self.lr)))

    @property
    def mean_weight_decay(self) -> float:
        """Mean |dv|; NaN where weight decay was not varied."""
        known = self.weight_decay[np.isfinite(self.weight_decay)]
        return float(np.abs(known).mean()) if known.size else np.nan

    def share_beyond(self, decades: float = HALF_DECADE) -> float:
        """Compute the share of backbones with |du| above a distance."""
        return float(np.mean(np.abs(self.lr[np.isfinite(self.lr)]) > decades + OFF))


@dataclass(frozen=True, slots=True, kw_only=True)
class CellDrift:
    """Drift of one cell that has a landscape."""

    reference: Setting
    lr: Estimate
    """du, decades."""
    weight_decay: Estimate
    """dv, decades."""
    half_widths: float
    """du in half widths of the stretch within the tolerance of the best: below 1 in size it hardly matters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LrVariance:
    """Shares of the variance of log10 lr* over a table of backbones and optimizers."""

    optimizer: float
    backbone: float
    interaction: float
    rms_interaction: float
    """Root mean square per degree of freedom, decades."""


def modal_setting(lr: Array, weight_decay: Array) -> Setting:
    """Find the most frequent value of each over backbones [backbones], ignoring NaN: a reference for papers.

    Weight decays that count as none are counted together and represented by the most frequent of them.
    """
    decay = _mode(np.where(weight_decay <= NO_DECAY, NO_DECAY, weight_decay))
    if decay == NO_DECAY:
        known, counts = np.unique(weight_decay[weight_decay <= NO_DECAY], return_counts=True)
        decay = float(known[counts.argmax()])
    return Setting(_mode(lr), decay)


def is_enough(lr: Array, weight_decay: Array) -> bool:
    """Tell whether enough backbones have a setting [backbones], NaN where unknown."""
    return bool(np.sum(np.isfinite(lr) & np.isfinite(weight_decay)) >= MIN_BACKBONES)


def drift(lr: Array, weight_decay: Array, reference: Setting) -> Drift:
    """Compute the drift of one optimizer from its settings [backbones], NaN where unknown."""
    return Drift(
        reference=reference,
        lr=np.log10(lr) - np.log10(reference.lr),
        weight_decay=np.log10(np.maximum(weight_decay, NO_DECAY)) - np.log10(max(reference.weight_decay, NO_DECAY)),
    )


def landscape_drift(cells: Cells, reference: Setting, tolerance: float = EPSILON) -> dict[str, CellDrift] | Refused:
    """Compute the drift of one optimizer from its landscapes, by backbone, with intervals over draws.

    Args:
        cells: landscapes by backbone.
        reference: the best common setting, or the published one.
        tolerance: points within which settings count as equally good; half widths are of that range.
    """
    if refused := without_common_ground(cells, MIN_BACKBONES):
        return refused
    return {name: _cell_drift(cell, reference, tolerance) for name, cell in cells.items()}


def drift_of_cells(cells: Mapping[str, CellDrift], backbones: Sequence[str]) -> Drift:
    """Convert the drifts of landscapes to that of settings [backbones], NaN where there is no landscape."""
    place = [backbones.index(name) for name in cells]
    du, dv = np.full(len(backbones), np.nan), np.full(len(backbones), np.nan)
    du[place] = [cell.lr.value for cell in cells.values()]
    dv[place] = np.array([cell.weight_decay.value for cell in cells.values()], float)  # None becomes NaN
    return Drift(reference=next(iter(cells.values())).reference, lr=du, weight_decay=dv)


def lr_variance(lr: Array) -> LrVariance:
    """Split the variance of log10 lr* by both factors, from a complete table [backbones, optimizers]."""
    parts = decompose(np.log10(lr))
    total = parts.ss_optimizer + parts.ss_backbone + parts.ss_interaction
    return LrVariance(
        optimizer=parts.ss_optimizer / total,
        backbone=parts.ss_backbone / total,
        interaction=parts.ss_interaction / total,
        rms_interaction=float(np.sqrt(parts.ss_interaction / ((lr.shape[0] - 1) * (lr.shape[1] - 1)))),
    )


def _cell_drift(cell: Landscape, reference: Setting, tolerance: float) -> CellDrift:
    grid = cell.grid
    rows, columns = cell.peaks
    decays = np.append(10 ** grid.v[: grid.num_decay], 0.0)
    best = best_setting(cell)
    all_lr = np.append(best.lr, 10 ** grid.u[rows])
    all_decay = np.append(best.weight_decay, decays[np.minimum(columns, grid.num_decay)])
    found = drift(all_lr, all_decay, reference)
    lr = _over_draws(found.lr, cell)
    decay = Estimate(value=None, unit="decades", counts=cell.counts, reason=Reason.NOT_SEARCHED)
    if grid.domain.weight_decay is not None:
        decay = _over_draws(found.weight_decay, cell)
    width = float(surface.usable_decades(surface.lr_slice(cell.mean, cell.mean), grid.u, tolerance)[0])
    return CellDrift(reference=reference, lr=lr, weight_decay=decay, half_widths=2 * float(found.lr[0]) / width)


def _over_draws(distances: Array, cell: Landscape) -> Estimate:
    """Estimate a distance [1 + draws], that of the mean surface first."""
    return drawn.estimate(
        distances[0], distances[1:], unit="decades", counts=cell.counts, method="best point of each draw"
    )


def _mode(values: Array) -> float:
    """Find the most frequent value; among several the one nearest the median in log10, then the smaller."""
    known, counts = np.unique(values[np.isfinite(values)], return_counts=True)
    tied = known[counts == counts.max()]
    median = np.median(np.log10(values[np.isfinite(values)]))
    return float(tied[np.argmin(np.round(np.abs(np.log10(tied) - median), 9))])
