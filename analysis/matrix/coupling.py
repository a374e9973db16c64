"""Coupling of backbone and optimizer: how much of the matrix of cell values is interaction, and whose it is.

Notation as in `twoway.py`; v is the variance of a cell's value over seeds, h its leverage in the additive fit.
    share of the optimizer's effect   SS_interaction / (SS_optimizer + SS_interaction)
    coupling of a line, squared       sum of interaction^2 over the line / sum of (1 - h)  -  v
each sum of squares with its expected noise taken off where seeds were repeated, as it is otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import chndtrinc
from scipy.stats import chi2
from scipy.stats import f as fisher
from scipy.stats import norm as normal
from scipy.stats import t as student

from bocb_tune.analysis.core.arrays import Array, Flags
from bocb_tune.analysis.core.estimate import Estimate, Reason
from bocb_tune.analysis.matrix.resample import Noise, Squares, corrected_squares, interval, redraw, shrunken
from bocb_tune.analysis.matrix.twoway import (
    COMPLETE_ENOUGH,
    Decomposition,
    Matrix,
    decompose,
    fit_refusal,
    residual_maker,
    spare,
)

MIN_INDEX_SHAPE = (4, 4)
WITH_NOISE = "plug-in, includes noise"
FROM_LANDSCAPES = (
    "expected scores at the optima of the landscapes; their uncertainty taken off; interval of their draws"
)
LEVEL = 0.95
CLEAR = 1e6
"""Above this the root of a noncentral chi-square is Gaussian with sd 1 for all purposes, and its inverse overflows."""
NOTHING = 1e-12
"""Noncentralities below this are 0 to the solver."""

Lines = tuple[tuple[Estimate, ...], tuple[Estimate, ...]]
"""One estimate per backbone, one per optimizer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseTest:
    """Mean square against noise."""

    f: float
    df: int
    df_noise: int

    @property
    def p(self) -> float:
        """Chance of a ratio as large from noise alone."""
        return float(fisher.sf(self.f, self.df, self.df_noise))


@dataclass(frozen=True, slots=True, kw_only=True)
class CellTests:
    """Which cells deviate from additivity by more than noise; NaN where a cell has no value."""

    half: Matrix
    """Half width of the 95 % t interval of each interaction [backbones, optimizers], points."""
    p: Matrix
    """Two-sided, adjusted over all cells by Holm (1979) [backbones, optimizers]."""

    @property
    def significant(self) -> Flags:
        return np.nan_to_num(self.p, nan=1.0) < 1 - LEVEL


def interaction_shares(values: Matrix, noise: Noise | None, rng: np.random.Generator) -> tuple[Estimate, Estimate]:
    """Interaction as a share of the optimizer's effect and of all variation.

    With repeated seeds corrected for noise, interval by parametric bootstrap; without, plug-in and labelled so.

    Args:
        values: [backbones, optimizers], points, NaN where missing.
        noise: None if the cells were not repeated.
    """
    if reason := fit_refusal(values):
        return _twice(Estimate(value=None, reason=reason))
    parts = decompose(values)
    found = parts.share_of_optimizer_effect, parts.share_of_total
    if np.isnan(found[0]) or (noise and _nothing_but_noise(parts, noise)):
        return _twice(Estimate(value=None, reason=Reason.DEGENERATE_VARIANCE))
    if noise is None:
        method = WITH_NOISE + _about_holes(values)
        rho, total = (Estimate(value=share, method=method, reason=Reason.TOO_FEW_REPLICATES) for share in found)
        return rho, total
    return _corrected_shares(values, parts, noise, rng)


def fitted_interaction_shares(draws: Array) -> tuple[Estimate, Estimate]:
    """The same shares for what each cell would score at its optimum, from draws of that [draws, backbones, optimizers].

    A value over a few seeds at the point found is off by the seeds, by a rare divergence none of them met (or one did),
    and by how far the search was from the optimum; a landscape knows of all three (compared in docs/STATISTICS.md).
    The variance of the draws is taken off as the noise of seeds is, and the interval is that of the draws about the fit
    without it.
    """
    values, variance = draws.mean(axis=0), float(draws.var(axis=0).mean())
    if reason := fit_refusal(values):
        return _twice(Estimate(value=None, reason=reason))
    parts = decompose(values)
    df = parts.optimizer.size - 1 + parts.df_interaction
    if parts.ss_optimizer + parts.ss_interaction <= variance * chi2.ppf(LEVEL, df):
        return _twice(Estimate(value=None, reason=Reason.DEGENERATE_VARIANCE))
    point, again = (corrected_squares(each, variance) for each in (values, shrunken(parts, variance) + draws - values))
    return _with_intervals(point, again, values, FROM_LANDSCAPES)


def noise_test(parts: Decomposition, noise: Noise) -> NoiseTest:
    """F test of the interaction against the spread of seeds."""
    return NoiseTest(f=parts.rms_interaction**2 / noise.variance, df=parts.df_interaction, df_noise=noise.df)


def coupling_indices(values: Matrix, noise: Noise | None) -> Lines:
    """Root mean square deviation from additivity of each backbone and each optimizer, points.

    Double centring leaks: one bad cell shows in all other cells of its row and column. `viable.py` has the remedy.
    """
    reason = fit_refusal(values, MIN_INDEX_SHAPE)
    if reason:
        refused = Estimate(value=None, unit="points", reason=reason)
        return (refused,) * values.shape[0], (refused,) * values.shape[1]
    return line_coupling(values, noise)


def line_coupling(values: Matrix, noise: Noise | None) -> Lines:
    """Coupling of each line of a matrix that `fit_refusal` passes."""
    parts, room = decompose(values), spare(np.isfinite(values))
    squares = np.nan_to_num(parts.interaction) ** 2
    count = np.isfinite(values)
    backbone, optimizer = (
        tuple(
            _index(*line, noise)
            for line in zip(squares.sum(axis=axis), room.sum(axis=axis), count.sum(axis=axis), strict=True)
        )
        for axis in (1, 0)
    )
    return backbone, optimizer


def line_shares(parts: Decomposition) -> tuple[Matrix, Matrix]:
    """Each backbone's and each optimizer's share of the interaction sum of squares (Wricke's ecovalence, 1962).

    NaN without interaction.
    """
    squares = np.nan_to_num(parts.interaction) ** 2 / (np.nan if parts.is_additive else parts.ss_interaction)
    return squares.sum(axis=1), squares.sum(axis=0)


def cell_tests(parts: Decomposition, noise: Noise) -> CellTests:
    """Which cells deviate from additivity by more than the spread of seeds."""
    known = np.isfinite(parts.interaction)
    se, p = np.full(known.shape, np.nan), np.full(known.shape, np.nan)
    se[known] = np.sqrt(residual_maker(known) ** 2 @ noise.cell_variance[known])
    p[known] = _holm(2 * student.sf(np.abs(parts.interaction[known]) / se[known], noise.df))
    return CellTests(half=se * float(student.ppf(0.5 + LEVEL / 2, noise.df)), p=p)


def _twice(estimate: Estimate) -> tuple[Estimate, Estimate]:
    return estimate, estimate


def _nothing_but_noise(parts: Decomposition, noise: Noise) -> bool:
    """Whether optimizers and their interaction together are within what seeds alone would give."""
    df = parts.optimizer.size - 1 + parts.df_interaction
    squares = parts.ss_optimizer + parts.ss_interaction
    return bool(squares <= df * noise.variance * fisher.ppf(LEVEL, df, noise.df))


def _corrected_shares(
    values: Matrix, parts: Decomposition, noise: Noise, rng: np.random.Generator
) -> tuple[Estimate, Estimate]:
    point = corrected_squares(values, noise.variance)
    again = corrected_squares(*redraw(parts, noise, rng))
    test = f"F test of the interaction p = {noise_test(parts, noise).p:.2g}"
    return _with_intervals(point, again, values, f"noise taken off; parametric bootstrap; {test}")


def _with_intervals(point: Squares, again: Squares, values: Matrix, method: str) -> tuple[Estimate, Estimate]:
    """Both shares at the point, with the interval of those had again; without one where too many cells are missing."""
    reason = Reason.INCOMPLETE_MATRIX if np.isnan(values).mean() > 1 - COMPLETE_ENOUGH else None
    pairs = (
        (point.share_of_optimizer_effect, again.share_of_optimizer_effect),
        (point.share_of_total, again.share_of_total),
    )
    rho, total = (_with_interval(float(value), draws, method + _about_holes(values), reason) for value, draws in pairs)
    return rho, total


def _about_holes(values: Matrix) -> str:
    missing = int(np.isnan(values).sum())
    return f"; {missing} cells missing, type II sums of squares" if missing else ""


def _with_interval(value: float, draws: Matrix, method: str, reason: Reason | None) -> Estimate:
    lo, hi = (None, None) if reason else interval(draws, LEVEL)
    return Estimate(value=value, lo=lo, hi=hi, method=method, reason=reason)


def _index(squares: float, room: float, count: int, noise: Noise | None) -> Estimate:
    """Coupling of one line from its interaction sum of squares and its sum of 1 - leverage."""
    if noise is None:
        plug_in = float(np.sqrt(squares / room))
        return Estimate(value=plug_in, unit="points", method=WITH_NOISE, reason=Reason.TOO_FEW_REPLICATES)
    v = noise.variance
    lo, hi = _noncentral_interval(squares / room, v, count - 1)
    method = "noise taken off; noncentral chi-square interval"
    return Estimate(value=float(np.sqrt(max(0.0, squares / room - v))), lo=lo, hi=hi, unit="points", method=method)


def _noncentral_interval(mean_square: float, v: float, df: int) -> tuple[float, float]:
    """Interval of the square root of the mean square that is left without noise.

    A line's sum of squares over its noise is noncentral chi-square; the interval holds the noncentralities under which
    the one seen is not among the extreme 5 %. Exact for a complete matrix with v known. The bootstrap that serves the
    shares is not used: it shrinks all lines alike, and so covers a line without interaction nearly always.
    """
    seen = df * mean_square / v
    if seen > CLEAR:
        root = np.sqrt(seen) + np.array([-1.0, 1.0]) * normal.ppf(0.5 + LEVEL / 2)
    else:
        found = np.nan_to_num(chndtrinc(seen, df, np.array([0.5 + LEVEL / 2, 0.5 - LEVEL / 2])))
        root = np.sqrt(np.where(found > NOTHING, found, 0.0))
    lo, hi = root * np.sqrt(v / df)
    return float(lo), float(hi)


def _holm(p: Matrix) -> Matrix:
    """Step-down adjustment (Holm, Scandinavian Journal of Statistics 1979)."""
    order = np.argsort(p)
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted
