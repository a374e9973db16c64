"""Structure of the interaction without repeated seeds, and whether conclusions hold elsewhere.

A matrix without replicates mixes interaction with noise. But noise does not concentrate in one direction, follow the
product of the main effects, or persist when the scale is changed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import logit
from scipy.stats import f as fisher
from scipy.stats import rankdata

from bocb_tune.analysis.core.estimate import Estimate, Reason
from bocb_tune.analysis.coupling.viable import floored
from bocb_tune.analysis.matrix.resample import corrected_squares, interval, resampled
from bocb_tune.analysis.matrix.twoway import MIN_SHARE_SHAPE, NEGLIGIBLE, Decomposition, Matrix, decompose, refusal

NUM_NULL = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Tukey:
    """Test with one degree of freedom for a product of main effects (Tukey, Biometrics 1949)."""

    slope: float
    """Coefficient in interaction = slope * backbone * optimizer, per point; NaN without interaction or main effects."""
    ss: float
    """Sum of squares of that product."""
    f: float
    df: int
    """Degrees of freedom of the remainder."""

    @property
    def p(self) -> float:
        return float(fisher.sf(self.f, 1, self.df))


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """The matrix on one scale."""

    name: str
    parts: Decomposition
    singular: float
    """Share of the interaction in its first singular direction; NaN without interaction."""
    tukey: Tukey


def tukey_test(parts: Decomposition) -> Tukey:
    """Test whether the interaction follows the product of the main effects; without power against any other form."""
    df = parts.df_interaction - 1
    product = np.outer(parts.backbone, parts.optimizer)
    size = float(np.sum(product**2))
    if parts.is_additive or size <= NEGLIGIBLE * parts.mean**4:
        return Tukey(slope=np.nan, ss=np.nan, f=np.nan, df=df)
    slope = float(np.sum(product * parts.interaction)) / size
    ss = slope**2 * size
    left = parts.ss_interaction - ss
    # A remainder of rounding errors means that the interaction is exactly the product.
    f = ss * df / left if left > 1e-12 * parts.ss_interaction else np.inf
    return Tukey(slope=slope, ss=ss, f=float(f), df=df)


def first_singular_share(interaction: Matrix) -> Matrix:
    """Compute the share of the first singular direction in the sum of squares of [..., rows, columns], in [0, 1].

    Source: Johnson & Graybill, JASA 1972.
    """
    squares = np.linalg.svd(interaction, compute_uv=False) ** 2
    return np.asarray(squares[..., 0] / squares.sum(axis=-1))


def null_singular_share(shape: tuple[int, int], rng: np.random.Generator, level: float = 0.95) -> float:
    """Compute the bound that the first singular share of pure Gaussian noise stays below with probability `level`.

    Double centring removes one row and one column only: a smaller matrix of noise has the same singular values.
    """
    noise = rng.standard_normal((NUM_NULL, shape[0] - 1, shape[1] - 1))
    return float(np.quantile(first_singular_share(noise), level))


def versions(values: Matrix, bounded: bool) -> tuple[Version, ...]:
    """Analyse the complete matrix on the scales that a conclusion should survive.

    Args:
        values: [backbones, optimizers], finite, points.
        bounded: whether scores are points of 0..100, so that a logit exists.
    """
    scales = {"points": values, "floored": floored(values), "ranks": -rankdata(-values, axis=1)}
    if bounded and values.min() > 0 and values.max() < 100:
        scales["logit"] = logit(values / 100)
    return tuple(version(name, scaled) for name, scaled in scales.items())


def version(name: str, values: Matrix) -> Version:
    """Analyse one complete matrix."""
    parts = decompose(values)
    singular = np.nan if parts.is_additive else float(first_singular_share(parts.interaction))
    return Version(name=name, parts=parts, singular=singular, tukey=tukey_test(parts))


def generalisation(values: Matrix, rng: np.random.Generator) -> Estimate:
    """Estimate the plug-in share of the optimizer's effect, and its variation under resampling of both factors.

    The pigeonhole bootstrap (Owen, Annals of Applied Statistics 2007): it is about other backbones and optimizers like
    these, not about the share of this very matrix.
    """
    if reason := refusal(values, MIN_SHARE_SHAPE):
        return Estimate(value=None, reason=reason)
    share = decompose(values).share_of_optimizer_effect
    if np.isnan(share):
        return Estimate(value=None, reason=Reason.DEGENERATE_VARIANCE)
    rows, columns = (resampled(size, rng) for size in values.shape)
    again = corrected_squares(values[rows[:, :, None], columns[:, None, :]], 0.0)
    lo, hi = interval(again.share_of_optimizer_effect)
    return Estimate(value=share, lo=lo, hi=hi, method="plug-in; generalisation interval (pigeonhole bootstrap)")


def leave_one_out(values: Matrix) -> tuple[Matrix, Matrix]:
    """Compute the plug-in share of the optimizer's effect without each backbone, and without each optimizer."""
    rows, columns = (
        np.array([decompose(np.delete(values, i, axis)).share_of_optimizer_effect for i in range(values.shape[axis])])
        for axis in (0, 1)
    )
    return rows, columns
