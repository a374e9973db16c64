"""Failures as the paper counts them: by its Eq. 1 as printed, and by the rule that gives nearly all of its grey marks.

    Eq. 1        r < max(R) - min(Q.75(R) - Q.25(R), gap)     R the results of one backbone over optimizers
    grey marks   r < median(R) - 2

On the published CIFAR-100 table Eq. 1 flags 258 of 400 cells, since the gap is small beside the spread of a row, while
50 are grey; the second rule, which is inferred from that table, flags 49 of these and 2 others.
"""

from __future__ import annotations

import numpy as np

from bocb_tune.analysis.core.arrays import Flags
from bocb_tune.analysis.core.estimate import Reason
from bocb_tune.analysis.matrix.twoway import Matrix

BELOW_MEDIAN = 2.0
"""Points below the median of its backbone at which a cell is marked grey."""
MIN_OPTIMIZERS = 4
"""Results of a backbone below which its quartiles and its median are not taken."""


def by_equation(values: Matrix, gap: float) -> Flags:
    """Tell which cells fail by Eq. 1 as printed [backbones, optimizers].

    Args:
        values: [backbones, optimizers], points, NaN where missing, which is no failure.
        gap: largest distance from the best that is no failure, points.
    """
    low, high = _over_rows(values, 0.25), _over_rows(values, 0.75)
    best = np.max(values, axis=1, keepdims=True, where=np.isfinite(values), initial=-np.inf)
    return np.asarray(values < best - np.minimum(high - low, gap))


def by_median(values: Matrix, below: float = BELOW_MEDIAN) -> Flags:
    """Tell which cells lie more than `below` points under the median of their backbone [backbones, optimizers]."""
    return np.asarray(values < _over_rows(values, 0.5) - below)


def refusal(values: Matrix, in_points: bool) -> Reason | None:
    """Say why no failures are told by these rules, or None."""
    if not in_points:
        return Reason.NOT_IN_POINTS
    enough = np.isfinite(values).sum(axis=1) >= MIN_OPTIMIZERS
    return None if enough.any() else Reason.TOO_FEW_OPTIMIZERS


def _over_rows(values: Matrix, quantile: float) -> Matrix:
    """Take a quantile of the known values of each row [backbones, 1]; NaN, below which is nothing, where they are
    few."""
    found = np.full((len(values), 1), np.nan)
    for row, line in enumerate(values):
        known = line[np.isfinite(line)]
        if len(known) >= MIN_OPTIMIZERS:
            found[row] = np.quantile(known, quantile)
    return found
