"""Transformation of scores for the model, and back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit

from bocb_tune.analysis.core.arrays import Array

LEAST_LOSS = 1e-6
"""Lower limit of losses before the logarithm."""
MARGIN = 0.01
"""Share of the range by which scores at its ends are moved inwards: a validation set seldom tells 99.5 from 100."""
BLUR = 0.007
"""Standard deviation of a score whose number of images is not known, as a share of the range. It keeps scores near the
ends of the range, where small differences become large ones of logits, from being taken literally."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """The transformation of scores to the values that the process models."""

    bounded: bool
    """Whether scores lie between the floor and `top`; they are then modelled as logits of their position in that range.
    Otherwise they are modelled unchanged, or as `is_log` says."""
    floor: float
    """Score of a diverged trial, and of guessing."""
    top: float = 100.0
    num_images: float = np.inf
    """Images that a score is a share of, which gives its binomial noise."""
    is_log: bool = False
    """Whether scores are minus a positive loss, and modelled as minus its logarithm: losses differ by factors."""

    @property
    def _ends(self) -> tuple[float, float]:
        """Low end and length of the range that is mapped to (0, 1)."""
        low = min(self.floor, self.top - 1.0)
        margin = MARGIN * (self.top - low)
        return low - margin, self.top - low + 2 * margin

    def forward(self, score: Array) -> Array:
        """Transform scores: the logit of their position between floor and top, where bounded."""
        if self.is_log:
            return np.asarray(-np.log(np.maximum(-np.asarray(score, float), LEAST_LOSS)))
        if not self.bounded:
            return np.asarray(score, float)
        low, length = self._ends
        inside = np.clip(np.asarray(score, float), min(self.floor, self.top - 1.0), self.top)
        return np.asarray(logit((inside - low) / length))

    def variance(self, score: Array) -> Array:
        """Compute the known part of the noise of `forward(score)`: binomial where the number of images is known."""
        if not self.bounded:
            return np.zeros_like(score)
        low, length = self._ends
        place = expit(self.forward(score))
        share = np.clip((low + length * place) / self.top, 0.5 / 1e4, 1 - 0.5 / 1e4)
        sd = self.top * np.sqrt(share * (1 - share) / self.num_images)
        return np.asarray((np.maximum(sd, BLUR * length) / (length * place * (1 - place))) ** 2)

    def step(self, score: float, sd: float) -> float:
        """Compute the change of the score for one sd of noise of its value, the known part included."""
        at = np.array([score])
        reach = np.sqrt(sd**2 + self.variance(at))
        value = self.forward(at)
        return float((self.backward(value + reach) - self.backward(value - reach))[0] / 2)

    def backward(self, value: Array) -> Array:
        """Transform values back to scores."""
        if self.is_log:
            return np.asarray(-np.exp(-value))
        if not self.bounded:
            return value
        low, length = self._ends
        return np.asarray(np.clip(low + length * expit(value), min(self.floor, self.top), self.top))

    def expected(self, value: Array, sd: float) -> Array:
        """Compute the mean score over normal noise of the value, by Gauss-Hermite quadrature."""
        if not (self.bounded or self.is_log) or sd == 0:
            return self.backward(value)
        return np.asarray(sum(w * self.backward(value + sd * x) for x, w in zip(_POINTS, _WEIGHTS, strict=True)))


_POINTS, _WEIGHTS = np.polynomial.hermite_e.hermegauss(5)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()
