"""Stacking of the models of a cell: weights by how well they predict trials that were left out.

Three models see the same trials: a smooth process (`process.py`), trees (`trees.py`) and a constant, for cells where
settings do not matter. None of them fits every real landscape, and none knows when it does not. Weighted by the
density that each gives to trials left out (stacking: Yao et al., Bayesian Analysis 2018), their draws express this
uncertainty.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import spearmanr, t

from bocb_tune.analysis.core.arrays import Array, Index

MODELS = ("smooth", "stepwise", "flat")

PRIOR = np.array([6.0, 10.0, 0.25])
"""Number of trials that each model is assumed to have predicted before any."""
DEGREES = 5.0
"""Degrees of freedom of the predictive distribution, so that one failed seed does not decide between models."""
CHANCE = 0.015
"""One-sided level of each of the two tests of whether settings matter."""
LEAST_FLAT = 0.5
"""Weight of the constant where nothing shows that settings matter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """Weights of the models, and their predictions of left-out trials whose final outcome is known."""

    weights: Array
    """[models], summing to 1, in the order of `MODELS`."""
    trial: Index
    """[finals], indices among the outcomes."""
    observed: Array
    """[finals]"""
    mean: Array
    """[finals], prediction of the weighted models without the trial."""
    sd: Array
    """[finals]"""
    predicts: bool
    """Whether predictions differ from one setting to another, and are right more often than by chance."""

    def shares(self, draws: int) -> tuple[int, int, int]:
        """Divide a number of draws among the models."""
        flat, stepwise = (round(draws * float(self.weights[k])) for k in (2, 1))
        return draws - flat - stepwise, stepwise, flat

    @property
    def z(self) -> Array:
        """Residuals in units of their predicted sd [finals]."""
        return (self.observed - self.mean) / self.sd


def stack_models(trial: Index, observed: Array, means: Array, variances: Array) -> Stack:
    """Weigh models by their predictions of trials left out.

    Args:
        trial: index of each trial among the outcomes [finals].
        observed: final outcomes [finals].
        means: predictions [models, finals].
        variances: of the outcome about the prediction [models, finals].
    """
    weights = stacking_weights(observed, means, variances)
    predicts = settings_matter(observed, means, weights)
    if not predicts and weights[2] < LEAST_FLAT:
        weights = np.append(weights[:2] * (1 - LEAST_FLAT) / weights[:2].sum(), LEAST_FLAT)
    mean = weights @ means
    variance = weights @ (variances + means**2) - mean**2
    return Stack(
        weights=weights,
        trial=trial,
        observed=observed,
        mean=mean,
        sd=np.sqrt(np.maximum(variance, 1e-18)),
        predicts=predicts,
    )


def stacking_weights(observed: Array, means: Array, variances: Array, rounds: int = 200) -> Array:
    """Compute the weights [models] that make the left-out trials most likely, by expectation maximisation."""
    spread = np.sqrt(np.maximum(variances, 1e-18) * (DEGREES - 2) / DEGREES)
    log_density = np.asarray(t.logpdf(observed, DEGREES, means, spread))
    density = np.exp(log_density - log_density.max(axis=0))
    weights = PRIOR / PRIOR.sum()
    for _ in range(rounds):
        shares = weights[:, None] * density
        weights = PRIOR + (shares / shares.sum(axis=0)).sum(axis=1)
        weights = weights / weights.sum()
    return np.asarray(weights)


def settings_matter(observed: Array, means: Array, weights: Array) -> bool:
    """Test whether predictions by setting are better than one value for all, in rank or in squared error."""
    parts = weights[:2] / weights[:2].sum()
    predicted, flat = parts @ means[:2], means[2]
    if len(observed) < 5 or np.ptp(predicted) == 0 or np.ptp(observed) == 0:
        return False
    rank = spearmanr(predicted, observed, alternative="greater").pvalue
    gain = (observed - flat) ** 2 - (observed - predicted) ** 2
    error = float(gain.std(ddof=1)) / np.sqrt(len(gain))
    better = t.sf(float(gain.mean()) / max(error, 1e-12), len(gain) - 1)
    return bool(min(rank, better) < CHANCE)
