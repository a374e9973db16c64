"""Coupling of backbone and optimizer: the share of interaction in the matrix of cell values, by row and column too.

Notation as in `twoway.py`; v is the variance that noise gives the interactions of a row or column, h the leverage of a
cell in the additive fit.

    share of the optimizer's effect          SS_interaction / (SS_optimizer + SS_interaction)
    coupling of a row or column, squared     sum of interaction^2 over its cells / sum of (1 - h)  -  v

Computed from the true values where seeds were repeated (`posterior.py`; for a row or column, its expected noise v is
subtracted), from the values as they are otherwise.
"""

from __future__ import annotations

import numpy as np
from scipy.special import chndtrinc
from scipy.stats import chi2
from scipy.stats import norm as normal
from scipy.stats import t as student

from bocb_tune.analysis.core.arrays import Array, Flags
from bocb_tune.analysis.core.estimate import LEVEL, Estimate, Reason
from bocb_tune.analysis.coupling.interaction_test import SIGNIFICANT, InteractionTest, interaction_test
from bocb_tune.analysis.coupling.posterior import posterior_values
from bocb_tune.analysis.matrix.noise import Noise
from bocb_tune.analysis.matrix.resample import Squares, corrected_squares, interval, shrunken
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
CLEAR = 1e6
"""Value above which the root of a noncentral chi-square is practically Gaussian with sd 1, and its inverse
overflows."""
NOTHING = 1e-12
"""Noncentrality below which the solver means 0."""

Shares = tuple[Estimate, Estimate]
"""Share of the optimizer's effect, and share of all variation."""
Lines = tuple[tuple[Estimate, ...], tuple[Estimate, ...]]
"""One estimate per backbone, one per optimizer."""


def interaction_shares(values: Matrix, noise: Noise | None, rng: np.random.Generator) -> Shares:
    """Estimate interaction as a share of the optimizer's effect and of all variation.

    With repeated seeds from draws of the true values; without, plug-in and labelled so.

    Args:
        values: [backbones, optimizers], points, NaN where missing.
        noise: None if the cells were not repeated.
    """
    if reason := fit_refusal(values):
        return _twice(Estimate(value=None, reason=reason))
    if noise is None:
        return plug_in_shares(values)
    return shares_of_draws(values, posterior_values(values, noise, rng), interaction_test(values, noise, rng))


def plug_in_shares(values: Matrix) -> Shares:
    """Compute both shares, noise included, of a matrix that `fit_refusal` accepts."""
    parts = decompose(values)
    found = parts.share_of_optimizer_effect, parts.share_of_total
    if np.isnan(found[0]):
        return _twice(Estimate(value=None, reason=Reason.DEGENERATE_VARIANCE))
    method = WITH_NOISE + _about_holes(values)
    rho, total = (Estimate(value=share, method=method, reason=Reason.TOO_FEW_REPLICATES) for share in found)
    return rho, total


def shares_of_draws(values: Matrix, draws: Matrix, test: InteractionTest) -> Shares:
    """Estimate both shares, with the interval of their draws; it begins at 0 where the test does not exclude it.

    Args:
        values: [backbones, optimizers], points, NaN where missing.
        draws: of the true values [draws, backbones, optimizers].
    """
    if not test.is_significant and test.p_any > SIGNIFICANT:
        return _twice(Estimate(value=None, reason=Reason.DEGENERATE_VARIANCE))
    squares = corrected_squares(np.where(np.isfinite(values), draws, np.nan), 0.0)
    shown = f"interaction beyond noise, p = {test.p:.2g}" if test.is_significant else f"not shown, p = {test.p:.2g}"
    method = f"draws of the true values, noise by cell; {shown}{_about_holes(values)}"
    rho, total = (
        _of_draws(share, test.is_significant, method)
        for share in (squares.share_of_optimizer_effect, squares.share_of_total)
    )
    return rho, total


def fitted_interaction_shares(draws: Array) -> tuple[Estimate, Estimate]:
    """Estimate the same shares for the scores at the optima, from draws of these [draws, backbones, optimizers].

    A value over a few seeds at the point found is off by the seeds, by a rare divergence that none of them met (or one
    did), and by the distance of the search from the optimum; a landscape accounts for all three (compared in
    docs/STATISTICS.md). The variance of the draws is subtracted as the noise of seeds is, and the interval is that of
    the draws about the corrected fit.
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


def coupling_indices(values: Matrix, noise: Noise | None) -> Lines:
    """Compute the root mean square deviation from additivity of each backbone and each optimizer, points.

    Double centring leaks: one bad cell affects all other cells of its row and column. `viable.py` has the remedy.
    """
    reason = fit_refusal(values, MIN_INDEX_SHAPE)
    if reason:
        refused = Estimate(value=None, unit="points", reason=reason)
        return (refused,) * values.shape[0], (refused,) * values.shape[1]
    return line_coupling(values, noise)


def line_coupling(values: Matrix, noise: Noise | None) -> Lines:
    """Compute the coupling of each row and column of a matrix that `fit_refusal` accepts."""
    parts, known = decompose(values), np.isfinite(values)
    squares, room = np.nan_to_num(parts.interaction) ** 2, spare(known)
    if noise is None:
        plain = [np.sqrt(squares.sum(axis=axis) / room.sum(axis=axis)) for axis in (1, 0)]
        backbone, optimizer = (tuple(_with_noise(float(value)) for value in line) for line in plain)
        return backbone, optimizer
    covariance = interaction_covariance(known, noise)
    places = np.full(known.shape, -1)
    places[known] = np.arange(known.sum())
    backbone, optimizer = (
        tuple(
            _index(squares[line].sum(), room[line].sum(), covariance[np.ix_(of_line, of_line)])
            for line in lines
            for of_line in [places[line][known[line]]]
        )
        for lines in (
            [np.s_[row, :] for row in range(known.shape[0])],
            [np.s_[:, column] for column in range(known.shape[1])],
        )
    )
    return backbone, optimizer


def line_shares(parts: Decomposition) -> tuple[Matrix, Matrix]:
    """Compute the share of each backbone and optimizer in the interaction sum of squares (Wricke's ecovalence, 1962).

    NaN without interaction.
    """
    squares = np.nan_to_num(parts.interaction) ** 2 / (np.nan if parts.is_additive else parts.ss_interaction)
    return squares.sum(axis=1), squares.sum(axis=0)


def interaction_half_width(known: Flags, noise: Noise) -> Matrix:
    """Compute the half width of the 95 % t interval of each interaction [backbones, optimizers], points.

    The variances differ by cell (Satterthwaite, Biometrics Bulletin 1946). NaN where a cell has no value.
    """
    half = np.full(known.shape, np.nan)
    parts = residual_maker(known) ** 2 * noise.cell_variance[known]
    df = parts.sum(axis=1) ** 2 / (parts**2 / (noise.expected_df + noise.cell_df)[known]).sum(axis=1)
    half[known] = student.ppf(0.5 + LEVEL / 2, df) * np.sqrt(parts.sum(axis=1))
    return half


def interaction_covariance(known: Flags, noise: Noise) -> Matrix:
    """Compute the covariance that noise gives the interactions of an additive fit [known cells, known cells]."""
    maker = residual_maker(known)
    return np.asarray(maker * noise.cell_variance[known] @ maker)


def _twice(estimate: Estimate) -> Shares:
    return estimate, estimate


def _with_intervals(point: Squares, again: Squares, values: Matrix, method: str) -> tuple[Estimate, Estimate]:
    """Combine both shares with intervals from their replicates; without intervals where too many cells are missing."""
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


def _of_draws(share: Matrix, is_shown: bool, method: str) -> Estimate:
    lo, hi = interval(share, LEVEL)
    return Estimate(value=float(np.nanmedian(share)), lo=lo if is_shown else 0.0, hi=hi, method=method)


def _with_noise(index: float) -> Estimate:
    return Estimate(value=index, unit="points", method=WITH_NOISE, reason=Reason.TOO_FEW_REPLICATES)


def _index(squares: float, room: float, covariance: Matrix) -> Estimate:
    """Compute the coupling of a row or column from its sum of squares, its sum of 1 - leverage, and its noise.

    The noise is approximated by the chi-square with the same first two moments.
    """
    trace = float(np.trace(covariance))
    v, df = trace / room, trace**2 / float(np.sum(covariance**2))
    lo, hi = _noncentral_interval(squares / room, v, df)
    method = "noise of its cells taken off; noncentral chi-square interval"
    return Estimate(value=float(np.sqrt(max(0.0, squares / room - v))), lo=lo, hi=hi, unit="points", method=method)


def _noncentral_interval(mean_square: float, v: float, df: float) -> tuple[float, float]:
    """Compute the interval of the square root of the mean square that remains without noise.

    A row's sum of squares over its noise is noncentral chi-square; the interval contains the noncentralities under
    which the observed one is not among the extreme 5 %. Exact for a complete matrix with v known. The bootstrap of the
    shares is not used here: it shrinks all rows alike, and so covers a row without interaction nearly always.
    """
    seen = df * mean_square / v
    if seen > CLEAR:
        root = np.sqrt(seen) + np.array([-1.0, 1.0]) * normal.ppf(0.5 + LEVEL / 2)
    else:
        found = np.nan_to_num(chndtrinc(seen, df, np.array([0.5 + LEVEL / 2, 0.5 - LEVEL / 2])))
        root = np.sqrt(np.where(found > NOTHING, found, 0.0))
    lo, hi = root * np.sqrt(v / df)
    return float(lo), float(hi)
