"""Concordance: do backbones agree on the order of the optimizers?

Notation: ranks[b, o], 1 = best within its backbone, ties share their mean rank; m backbones, k optimizers. Sources:
Friedman (1937) and Kendall & Babington Smith (1939), with the correction for ties; Demsar, JMLR 7 (2006), for the
critical difference. Backbones of one class are not independent judges, hence W within and without each class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import chi2, rankdata, spearmanr, studentized_range

from bocb_tune.analysis.core.arrays import Flags
from bocb_tune.analysis.core.estimate import Estimate, Reason
from bocb_tune.analysis.matrix.noise import Noise
from bocb_tune.analysis.matrix.resample import NUM_DRAWS, interval, resampled
from bocb_tune.analysis.matrix.twoway import Matrix, refusal

MIN_CONCORDANCE_SHAPE = (4, 3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Concordance:
    """Agreement of the backbones on the order of the optimizers."""

    w: float
    """Kendall's W in [0, 1]: 1 if all order them alike; NaN if every backbone ties them all."""
    chi2: float
    """Friedman's statistic."""
    df: int
    ranks: Matrix
    """[backbones, optimizers], 1 = best within its backbone, ties share their mean rank."""

    @property
    def p(self) -> float:
        """Probability of a statistic as large if no optimizer were better than another."""
        return float(chi2.sf(self.chi2, self.df))


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassAgreement:
    """Agreement within a class of backbones, and with the others.

    High `within` and low `between` mean that the order of the optimizers is shared inside the class but not across it.
    """

    within: Estimate
    """Kendall's W of the class."""
    without: Estimate
    """Kendall's W of all other backbones."""
    between: float
    """Spearman correlation of the mean ranks inside and outside, NaN if there is none."""


def concordance(values: Matrix) -> Concordance:
    """Compute Kendall's W over the rows of a complete matrix.

    Args:
        values: [backbones, optimizers], finite, larger is better.
    """
    ranks = rankdata(-values, axis=1)
    m, k = values.shape
    w = float(_kendall_w(ranks))
    return Concordance(w=w, chi2=m * (k - 1) * w, df=k - 1, ranks=ranks)


def agreement(values: Matrix, rng: np.random.Generator) -> Estimate:
    """Estimate Kendall's W, with an interval by resampling backbones."""
    if reason := refusal(values, MIN_CONCORDANCE_SHAPE):
        return Estimate(value=None, reason=reason)
    found = concordance(values)
    if np.isnan(found.w):
        return Estimate(value=None, reason=Reason.DEGENERATE_VARIANCE)
    lo, hi = interval(_kendall_w(found.ranks[resampled(len(values), rng)]))
    method = f"Kendall's W with ties, Friedman chi2 {found.chi2:.1f} on {found.df} df, p = {found.p:.2g}"
    return Estimate(value=found.w, lo=lo, hi=hi, method=f"{method}; bootstrap over backbones")


def true_agreement(values: Matrix, draws: Matrix | None, rng: np.random.Generator) -> Estimate:
    """Estimate Kendall's W of the cells without seed noise, which makes the observed one too low.

    Args:
        values: [backbones, optimizers], points.
        draws: of the true values [draws, backbones, optimizers]; None without repeated seeds.
    """
    if reason := refusal(values, MIN_CONCORDANCE_SHAPE):
        return Estimate(value=None, reason=reason)
    if draws is None:
        return Estimate(value=None, reason=Reason.TOO_FEW_REPLICATES)
    ranks = rankdata(-draws, axis=2)
    again = np.take_along_axis(ranks, rng.integers(len(values), size=ranks.shape[:2])[:, :, None], axis=1)
    lo, hi = interval(_kendall_w(again))
    value = float(np.median(_kendall_w(ranks)))
    method = "Kendall's W of draws of the true values, noise by cell; interval over backbones and draws"
    return Estimate(value=value, lo=min(lo, value), hi=max(hi, value), method=method)


def with_failures(values: Matrix, noise: Noise, draws: Matrix | None, rng: np.random.Generator) -> Matrix:
    """Complete draws of the true values [draws, backbones, optimizers], from their seeds for cells without any."""
    own = values + np.sqrt(noise.cell_variance) * rng.standard_normal((NUM_DRAWS, *values.shape))
    return own if draws is None else np.where(np.isfinite(draws[:NUM_DRAWS]), draws[:NUM_DRAWS], own[: len(draws)])


def agreement_by_class(values: Matrix, classes: Sequence[str], rng: np.random.Generator) -> dict[str, ClassAgreement]:
    """Estimate agreement within each class of backbones, among all others, and between the two."""
    kind = np.asarray(classes)
    return {name: _class_agreement(values, kind == name, rng) for name in dict.fromkeys(classes)}


def critical_difference(num_backbones: int, num_optimizers: int, alpha: float = 0.05) -> float:
    """Compute the difference of mean ranks above which two optimizers differ significantly (Nemenyi's test)."""
    q = studentized_range.ppf(1 - alpha, num_optimizers, np.inf) / np.sqrt(2)
    return float(q * np.sqrt(num_optimizers * (num_optimizers + 1) / (6 * num_backbones)))


def _kendall_w(ranks: Matrix) -> Matrix:
    """Compute W of each matrix of ranks [..., backbones, optimizers]; NaN where all are tied."""
    m, k = ranks.shape[-2:]
    spread = np.sum((ranks.sum(axis=-2) - m * (k + 1) / 2) ** 2, axis=-1)
    # The spread of a row's ranks is (k^3 - k) / 12 less (n^3 - n) / 12 for each tie of n: the correction for ties.
    most = m * np.sum((ranks - (k + 1) / 2) ** 2, axis=(-2, -1))
    return np.where(most > 0, spread / np.where(most > 0, most, 1.0), np.nan)


def _class_agreement(values: Matrix, inside: Flags, rng: np.random.Generator) -> ClassAgreement:
    within, without = agreement(values[inside], rng), agreement(values[~inside], rng)
    between = np.nan
    if within.value is not None and without.value is not None:
        means = [rankdata(-values[kept], axis=1).mean(axis=0) for kept in (inside, ~inside)]
        between = float(spearmanr(*means).statistic) if min(np.ptp(mean) for mean in means) > 0 else np.nan
    return ClassAgreement(within=within, without=without, between=between)
