"""What a score is turned into before it is modelled, and back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit

from bocb_tune.analysis.core.arrays import Array

SURE = 1e-6
"""Shares of score nearer to 0 or 1 than this are taken as this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How scores are turned into what the process models, and back."""

    bounded: bool
    """Scores are points of 0..100 and modelled as logits; otherwise as they are, or as below."""
    floor: float
    """Score of a diverged trial."""
    num_images: float = np.inf
    """Images a score is the share of: its binomial noise is known then."""
    is_log: bool = False
    """Scores are minus a positive loss and modelled as minus its logarithm: losses differ by factors."""

    def forward(self, score: Array) -> Array:
        """Empirical logit (Cox & Snell, "Analysis of Binary Data", 1989, section 2.1.6)."""
        if self.is_log:
            return np.asarray(-np.log(np.maximum(-np.asarray(score, float), SURE)))
        if not self.bounded:
            return np.asarray(score, float)
        share = np.clip(score / 100, 0, 1)
        if np.isfinite(self.num_images):
            share = (self.num_images * share + 0.5) / (self.num_images + 1)
        return np.asarray(logit(np.clip(share, SURE, 1 - SURE)))

    def variance(self, score: Array) -> Array:
        """Known part of the noise of `forward(score)`."""
        if not self.bounded or not np.isfinite(self.num_images):
            return np.zeros_like(score)
        share = expit(self.forward(score))
        return 1 / (self.num_images * share * (1 - share))

    def step(self, score: float, sd: float) -> float:
        """Change of the score for one sd of noise of its value, the known part included."""
        at = np.array([score])
        reach = np.sqrt(sd**2 + self.variance(at))
        value = self.forward(at)
        return float((self.backward(value + reach) - self.backward(value - reach))[0] / 2)

    def backward(self, value: Array) -> Array:
        if self.is_log:
            return -np.exp(-value)
        if not self.bounded:
            return value
        share = expit(value)
        if np.isfinite(self.num_images):
            share = np.clip((share * (self.num_images + 1) - 0.5) / self.num_images, 0, 1)
        return 100 * share
