"""Expected score of a cell over one hyper-parameter, averaged over the distribution of the other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bocb_tune.analysis.core.arrays import Array
from bocb_tune.analysis.core.estimate import LEVEL
from bocb_tune.analysis.landscape.fit import Landscape
from bocb_tune.analysis.landscape.surface import SettingGrid


@dataclass(frozen=True, slots=True, kw_only=True)
class Marginals:
    """Both marginals. Curves are [3, nodes]: of the mean surface, and the ends of the interval over the draws."""

    grid: SettingGrid
    lr: Array
    decay: Array
    """Curve over weight decay, 0 last where it is a choice."""


def marginals(cell: Landscape) -> Marginals:
    """Compute both marginals of a landscape."""
    weights = cell.grid.weights.sum(axis=1)
    return Marginals(
        grid=cell.grid,
        lr=with_interval(cell.mean @ cell.grid.decay_weights, cell.draws @ cell.grid.decay_weights),
        decay=with_interval(weights @ cell.mean, np.einsum("i,dij->dj", weights, cell.draws)),
    )


def with_interval(value: Array, draws: Array) -> Array:
    """Combine a curve [nodes] with its interval from draws [draws, nodes], which always contains it [3, nodes]."""
    lo, hi = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return np.array([value, np.minimum(lo, value), np.maximum(hi, value)])
