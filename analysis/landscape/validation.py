"""Validation of the model of a cell on trials it has not seen, and the limits it must keep to be used."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import spearmanr

from bocb_tune.analysis.core.arrays import Array, Flags

Z90 = 1.6448536269514722
LEAST_COVERAGE, MOST_BIAS_Z, MOST_AUDIT_Z = 0.70, 4.0, 3.0
"""Limits beyond which a model is refused: share within the 90 % interval; bias and audit, in standard errors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """Results of leaving out each trial with all its records."""

    num_trials: int
    rmse: float
    """Root mean square error of the trial's last record, in the unit of the score."""
    bias: float
    """Observed minus predicted."""
    spread: float
    """sd of the last records within their rung."""
    noise: float
    """sd of the model's own noise, in the unit of the score."""
    standardised_sd: float
    """sd of the residuals in units of their predicted sd: 1 if the model knows its own uncertainty."""
    coverage90: float
    """Share of the observations within their 90 % predictive interval."""
    rank_correlation: float
    """Spearman, predicted against observed, over completed trials."""
    num_audit: int
    """Trials exempt from stopping that reached the full budget: the only view of what stopping hides."""
    audit_z: float
    """Mean standardised residual of these times the root of their number; NaN if there are none."""

    bias_z: float = 0.0
    """Mean standardised residual times the root of the number of trials."""
    predicts: bool = True
    """Whether predictions that differ by setting are better than one value for all."""
    smooth: float = 1.0
    """Weight of the smooth model; the rest is that of the trees and of the constant."""
    stepwise: float = 0.0
    """Weight of the trees."""

    @property
    def is_poor(self) -> bool:
        biased = abs(self.bias_z) > MOST_BIAS_Z or abs(self.audit_z) > MOST_AUDIT_Z
        return self.coverage90 < LEAST_COVERAGE or biased

    def __str__(self) -> str:
        return (
            f"trials left out are predicted with an error of {self.rmse:.2f} (spread {self.spread:.2f}, noise "
            f"{self.noise:.2f}), {self.coverage90:.0%} within their 90 % interval, audit z {self.audit_z:.1f}"
        )


def validate(
    observed: Array,
    predicted: Array,
    z: Array,
    *,
    rung: Array,
    noise: float,
    completed: Flags,
    audit: Flags,
    weights: Array,
    predicts: bool,
) -> Validation:
    """Summarise the results of leaving out each trial.

    Args:
        observed: last score of each trial [trials], in the unit of the score.
        predicted: prediction by the other trials [trials].
        z: residual in units of its predicted sd [trials].
        rung: group within which last scores are compared [trials].
        noise: sd of a trial about its expected score.
        completed: trials that reached the full budget [trials].
        audit: trials exempt from stopping [trials].
        weights: of the models [3].
        predicts: whether settings were shown to matter.
    """
    seen = audit & completed
    differ = np.ptp(observed[completed]) > 0
    return Validation(
        num_trials=len(z),
        rmse=float(np.sqrt(np.mean((observed - predicted) ** 2))),
        bias=float(np.mean(observed - predicted)),
        spread=_spread_within(observed, rung),
        noise=noise,
        standardised_sd=float(np.std(z)),
        coverage90=float(np.mean(np.abs(z) <= Z90)),
        rank_correlation=float(spearmanr(predicted[completed], observed[completed]).statistic) if differ else np.nan,
        num_audit=int(seen.sum()),
        audit_z=float(z[seen].mean() * np.sqrt(seen.sum())) if seen.any() else float("nan"),
        bias_z=float(z.mean() * np.sqrt(len(z))),
        predicts=predicts,
        smooth=float(weights[0]),
        stepwise=float(weights[1]),
    )


def _spread_within(values: Array, group: Array) -> float:
    """Compute the sd of the values about the mean of their group."""
    _, index = np.unique(np.round(group, 9), return_inverse=True)
    means = np.bincount(index, values) / np.bincount(index)
    return float(np.sqrt(np.mean((values - means[index]) ** 2)))
