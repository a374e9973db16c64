"""Standings of the optimizers on each backbone: spread of a row, who is near the best, the regret of a choice."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from bocb_tune.analysis.core.arrays import Flags
from bocb_tune.analysis.matrix.twoway import Matrix

TOP = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Summary of each backbone's values without its worst few; comparable only between equal numbers of optimizers."""

    mean: Matrix
    """[backbones], points."""
    sd: Matrix
    """[backbones], of the population (ddof 0), points."""
    range: Matrix
    """[backbones], points."""


def spread(values: Matrix, drop: int = 1) -> Spread:
    """Compute the statistics of arXiv:2410.06373.

    Args:
        values: complete [backbones, optimizers], points.
        drop: worst values left out of each backbone.
    """
    kept = np.sort(values, axis=1)[:, drop:]
    return Spread(mean=kept.mean(axis=1), sd=kept.std(axis=1), range=np.ptp(kept, axis=1))


def top(values: Matrix, k: int = TOP) -> Flags:
    """Mark the optimizers among the k best of their backbone [..., backbones, optimizers].

    Equal values share the best rank, so that ties are all in or all out. The mean over draws of the values is the
    probability.
    """
    return np.asarray(rankdata(-values, method="min", axis=-1) <= k)


def num_near_best(values: Matrix, within: float) -> Matrix:
    """Count the optimizers within so many points of the best, per backbone [..., backbones], the best included."""
    near: Matrix = np.sum(regret(values) <= within, axis=-1)
    return near


def regret(values: Matrix) -> Matrix:
    """Subtract each value from the best of its backbone, points [..., backbones, optimizers]."""
    return np.asarray(values.max(axis=-1, keepdims=True) - values)
