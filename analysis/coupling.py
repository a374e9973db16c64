"""Coupling of backbone and optimizer from the matrix of cell values: two-way decomposition, shares, concordance.

Notation: y[b, o] is the value of a cell in points of score; B backbones, O optimizers.
    y[b, o] = mean + backbone[b] + optimizer[o] + interaction[b, o], each effect summing to zero along each of its axes.
Definitions: Scheffe, "The Analysis of Variance" (1959), chapter 4; for concordance Friedman (1937) and Kendall and
Babington Smith (1939), with the correction for ties.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from bocb_tune.analysis.estimate import Counts, Estimate, Reason

Matrix = NDArray[np.float64]

MIN_SHARE_SHAPE = (3, 3)
MIN_CONCORDANCE_SHAPE = (4, 3)
# Sums of squares below this share of the squared scores are rounding, not effect.
NEGLIGIBLE = 1e-20


@dataclass(frozen=True, slots=True, kw_only=True)
class Decomposition:
    """Additive fit of a complete matrix and what it leaves over."""

    mean: float
    backbone: Matrix
    """Main effects [backbones], points."""
    optimizer: Matrix
    """Main effects [optimizers], points."""
    interaction: Matrix
    """[backbones, optimizers], points; positive: the optimizer is better here than the averages of both predict."""

    @property
    def ss_backbone(self) -> float:
        return float(self.optimizer.size * np.sum(self.backbone**2))

    @property
    def ss_optimizer(self) -> float:
        return float(self.backbone.size * np.sum(self.optimizer**2))

    @property
    def ss_interaction(self) -> float:
        return float(np.sum(self.interaction**2))

    @property
    def share_of_optimizer_effect(self) -> float:
        """Share of the optimizer's effect that is specific to the backbone, in [0, 1]; NaN if it has none."""
        return self._share(self.ss_optimizer + self.ss_interaction)

    @property
    def share_of_total(self) -> float:
        """Share of all variation that is interaction, in [0, 1]; NaN if nothing varies."""
        return self._share(self.ss_backbone + self.ss_optimizer + self.ss_interaction)

    def _share(self, whole: float) -> float:
        scale = self.interaction.size * self.mean**2 + self.ss_backbone + self.ss_optimizer + self.ss_interaction
        return self.ss_interaction / whole if whole > NEGLIGIBLE * scale else float("nan")


@dataclass(frozen=True, slots=True, kw_only=True)
class Concordance:
    """How far the backbones agree on the order of the optimizers."""

    w: float
    """Kendall's W in [0, 1]: 1 if all order them alike; NaN if every backbone ties them all."""
    chi2: float
    """Friedman's statistic."""
    df: int
    ranks: Matrix
    """[backbones, optimizers], 1 = best within its backbone, ties share their mean rank."""


def decompose(values: Matrix) -> Decomposition:
    """Two-way decomposition of a complete matrix.

    Args:
        values: [backbones, optimizers], finite, points.
    """
    assert np.isfinite(values).all(), "only a complete matrix can be decomposed"
    mean = values.mean()
    backbone = values.mean(axis=1) - mean
    optimizer = values.mean(axis=0) - mean
    interaction = values - mean - backbone[:, None] - optimizer[None, :]
    return Decomposition(mean=float(mean), backbone=backbone, optimizer=optimizer, interaction=interaction)


def concordance(values: Matrix) -> Concordance:
    """Kendall's W over the rows of a complete matrix.

    Args:
        values: [backbones, optimizers], finite, larger is better.
    """
    ranks = rankdata(-values, axis=1)
    m, k = values.shape
    spread = float(np.sum((ranks.sum(axis=0) - m * (k + 1) / 2) ** 2))
    ties = sum(float(np.sum(n**3 - n)) for n in (np.unique(row, return_counts=True)[1] for row in ranks))
    most = m**2 * (k**3 - k) - m * ties
    w = 12 * spread / most if most > 0 else float("nan")
    return Concordance(w=w, chi2=m * (k - 1) * w, df=k - 1, ranks=ranks)


def refusal(values: Matrix, least: tuple[int, int]) -> Reason | None:
    """Why a statistic of the whole matrix cannot be had, or None. Missing cells are NaN."""
    if values.shape[0] < least[0]:
        return Reason.TOO_FEW_BACKBONES
    if values.shape[1] < least[1]:
        return Reason.TOO_FEW_OPTIMIZERS
    return None if np.isfinite(values).all() else Reason.INCOMPLETE_MATRIX


def share_estimate(share: float, counts: Counts, replicated: bool) -> Estimate:
    """An interaction share as it may be stated: plug-in, without an interval, labelled so."""
    if np.isnan(share):
        return Estimate(value=None, reason=Reason.DEGENERATE_VARIANCE, counts=counts)
    reason = None if replicated else Reason.TOO_FEW_REPLICATES
    return Estimate(value=share, method="plug-in, includes noise", reason=reason, counts=counts)


def concordance_estimate(found: Concordance, counts: Counts) -> Estimate:
    """Kendall's W as it may be stated."""
    if np.isnan(found.w):
        return Estimate(value=None, reason=Reason.DEGENERATE_VARIANCE, counts=counts)
    method = f"Kendall's W with ties, Friedman chi2 {found.chi2:.1f} on {found.df} df"
    return Estimate(value=found.w, method=method, counts=counts)
