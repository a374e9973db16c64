"""Failures, as distinct from coupling.

A plain coupling index is dominated by the few cells where training failed, and double centring spreads each over its
row and column: a backbone that escapes a general failure even looks coupled. So failures are counted, and coupling is
measured among the cells that remain. There is never one number for both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import spearmanr

from bocb_tune.analysis.core.arrays import Flags
from bocb_tune.analysis.core.estimate import Estimate, Reason
from bocb_tune.analysis.coupling.shares import MIN_INDEX_SHAPE, Lines, line_coupling
from bocb_tune.analysis.matrix.noise import Noise
from bocb_tune.analysis.matrix.twoway import MIN_CELLS_A_LINE, Matrix, fit_refusal

DELTA = 10.0
"""Points below the best of its backbone at which a cell counts as failed; the report shows 5 and 15 beside it."""
FLOOR_DEPTH = 5.0
"""Points below the median of its backbone at which a cell is floored."""
CHANCE_PART = 0.1
"""Fraction of the way from chance to the best cell of the grid below which a cell trained no better than chance."""
SURELY_ABOVE = 3.0
"""Standard deviations of guesses that a score must lie above chance: it may be the best of many trials."""
AGREE = 0.7
"""Rank correlation below which two indices count as disagreeing."""
SETTLED, MAX_SWEEPS = 1e-9, 1000
TO_SD = 1.4826
"""Factor from median absolute deviation to sd, for Gaussian noise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Polish:
    """Additive fit by medians (Tukey, "Exploratory Data Analysis", 1977, chapter 11)."""

    backbone: Matrix
    """[backbones], points, median 0."""
    optimizer: Matrix
    """[optimizers], points, median 0."""
    residual: Matrix
    """[backbones, optimizers], points, NaN where missing."""

    @property
    def scale(self) -> float:
        """Robust sd of the residuals, points."""
        return float(TO_SD * np.nanmedian(np.abs(self.residual)))

    @property
    def row_scale(self) -> Matrix:
        """The same for each backbone [backbones]."""
        return np.asarray(TO_SD * np.nanmedian(np.abs(self.residual), axis=1))

    @property
    def l1_share(self) -> float:
        """Share of the optimizer's absolute effect that is specific to the backbone, in [0, 1]."""
        specific = np.nansum(np.abs(self.residual))
        general = np.sum(np.isfinite(self.residual) * np.abs(self.optimizer))
        return float(specific / (specific + general)) if specific + general > 0 else float("nan")


def failures(values: Matrix, diverged: Flags | None = None, delta: float = DELTA) -> Flags:
    """Find the failed cells [backbones, optimizers]: more than delta points below their backbone's best, or diverged.

    Args:
        values: [backbones, optimizers], points; a cell without a value has not failed.
        diverged: cells all of whose trials diverged.
    """
    known = np.isfinite(values)
    best = np.max(values, axis=1, keepdims=True, where=known, initial=-np.inf)
    far = known & (values < best - delta)
    return far if diverged is None else np.asarray(far | diverged)


def at_chance(values: Matrix, floor: float, num_images: float = np.inf) -> Flags:
    """Find the cells [backbones, optimizers] that trained no better than chance; none if chance is unknown (NaN).

    Args:
        values: points.
        floor: chance level, points.
        num_images: images that scores are shares of; infinite where they are not, or where it is unknown.
    """
    if np.isnan(floor) or not np.isfinite(values).any():
        return np.zeros(values.shape, bool)
    part = CHANCE_PART * (np.nanmax(values) - floor)
    luck = SURELY_ABOVE * np.sqrt(max(floor * (100 - floor), 0.0) / num_images)
    return np.asarray(np.isfinite(values) & (values < floor + max(part, luck)))


def viable_coupling(values: Matrix, failed: Flags, noise: Noise | None) -> Lines:
    """Compute the coupling of each backbone and each optimizer among the cells that did not fail, points.

    A row or column with fewer than three viable cells is refused and takes no part in the fit of the others.
    """
    viable = np.where(failed, np.nan, values)
    rows, columns = enough(np.isfinite(viable))
    kept = viable[np.ix_(rows, columns)]
    reason = Reason.INCOMPLETE_MATRIX if 0 in kept.shape else fit_refusal(kept, MIN_INDEX_SHAPE)
    if reason:
        return _refused(len(rows), reason), _refused(len(columns), reason)
    noise = noise and noise.part(rows, columns, np.isfinite(viable))
    backbone, optimizer = line_coupling(kept, noise)
    return _spread(rows, backbone), _spread(columns, optimizer)


def led_by_failures(plain: Sequence[Estimate], viable: Sequence[Estimate]) -> bool:
    """Tell whether plain coupling orders the backbones differently than coupling among viable cells does."""
    pairs = [(a.value, b.value) for a, b in zip(plain, viable, strict=True) if None not in (a.value, b.value)]
    first, second = np.array(pairs, float).reshape(-1, 2).T
    if len(pairs) < MIN_CELLS_A_LINE or min(np.ptp(first), np.ptp(second)) < SETTLED:
        return False
    return bool(spearmanr(first, second).statistic < AGREE)


def median_polish(values: Matrix) -> Polish:
    """Fit additively by alternating medians, rows first.

    Robust to failures in less than half the cells of a row or column.

    Args:
        values: [backbones, optimizers], points, NaN where missing; no row or column is empty.
    """
    residual, backbone, optimizer = values, np.zeros(values.shape[0]), np.zeros(values.shape[1])
    for _ in range(MAX_SWEEPS):
        row = np.nanmedian(residual, axis=1)
        residual, backbone = residual - row[:, None], backbone + row
        column = np.nanmedian(residual, axis=0)
        residual, optimizer = residual - column, optimizer + column
        if max(np.abs(row).max(), np.abs(column).max()) < SETTLED:
            break
    return Polish(
        backbone=backbone - np.median(backbone), optimizer=optimizer - np.median(optimizer), residual=residual
    )


def floored(values: Matrix, depth: float = FLOOR_DEPTH) -> Matrix:
    """Limit values to at most `depth` points below the median of their backbone."""
    return np.maximum(values, np.nanmedian(values, axis=1, keepdims=True) - depth)


def enough(viable: Flags) -> tuple[Flags, Flags]:
    """Select rows and columns: those with too few viable cells are removed until none is left."""
    rows, columns = (np.ones(size, bool) for size in viable.shape)
    while True:
        inside = viable & rows[:, None] & columns
        enough = [inside.sum(axis=axis) >= MIN_CELLS_A_LINE for axis in (1, 0)]
        if (enough[0] == rows).all() and (enough[1] == columns).all():
            return rows, columns
        rows, columns = enough


def _refused(count: int, reason: Reason) -> tuple[Estimate, ...]:
    return (Estimate(value=None, unit="points", reason=reason),) * count


def _spread(kept: Flags, estimates: tuple[Estimate, ...]) -> tuple[Estimate, ...]:
    """Place the estimates of the kept rows or columns, with refusals for the others."""
    ready = iter(estimates)
    refused = Estimate(value=None, unit="points", reason=Reason.INCOMPLETE_MATRIX)
    return tuple(next(ready) if keep else refused for keep in kept)
