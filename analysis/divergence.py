"""Where trials diverge: a logistic line over log10 learning rate, its posterior by quadrature.

    P(div | u, v) = sigmoid((u - c - w d) e^g),     d = weight decay scaled to [-1, 1] over the box

Whether the line may lean with weight decay (w) is decided by leave-one-out log score. A trial that was stopped at a
share r of its budget had diverged by then with probability p F(r) only, F being the distribution of the time of
divergence.
The three parameters are few enough for an exact posterior on a grid: no optimiser, no approximation by a normal.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logsumexp

Array = NDArray[np.float64]

NUM_PLACE, NUM_STEEP, NUM_LEAN = 81, 17, 13
STEEPNESS = (float(np.log(5.0)), 0.8)
"""Prior mean and sd of g: the line is crossed within about half a decade."""
MOST_LEAN = 1.0
"""Decades by which the line may move from the middle of the box to its edge."""
MIN_GAIN = 1.0
"""Nats of leave-one-out log score that a leaning line must be better by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Divergence:
    """Posterior of the line, on a grid of its parameters."""

    place: Array
    """[points] c, log10 lr at which half of the trials diverge, at the middle of the box's weight decays."""
    log_steepness: Array
    """[points] g"""
    lean: Array
    """[points] w"""
    weight: Array
    """[points], summing to 1."""

    def draws(self, count: int, rng: np.random.Generator) -> tuple[Array, Array, Array]:
        """(c, g, w), each [count]; c is spread within its grid step."""
        picked = rng.choice(len(self.weight), size=count, p=self.weight)
        step = np.diff(np.unique(self.place)).min()
        return (
            self.place[picked] + rng.uniform(-0.5, 0.5, count) * step,
            self.log_steepness[picked],
            self.lean[picked],
        )


def probability(u: Array, d: Array, place: Array, log_steepness: Array, lean: Array) -> Array:
    """Probability of diverging within the full budget; arguments broadcast."""
    return expit((u - place - lean * d) * np.exp(log_steepness))


def fit_divergence(
    u: Array, d: Array, diverged: NDArray[np.bool_], share: Array, box: tuple[float, float]
) -> Divergence:
    """Posterior of the line.

    Args:
        u: log10 lr [trials].
        d: weight decay [trials], scaled to [-1, 1] over the box.
        diverged: [trials].
        share: share of the full budget at which each trial ended [trials].
        box: range of u that is searched.
    """
    seen = _share_seen(diverged, share)
    straight = _posterior(u, d, diverged, seen, box, np.zeros(1))
    if not diverged.any() or diverged.all():
        return straight[0]
    leaning = _posterior(u, d, diverged, seen, box, np.linspace(-MOST_LEAN, MOST_LEAN, NUM_LEAN))
    return leaning[0] if leaning[1] > straight[1] + MIN_GAIN else straight[0]


def _share_seen(diverged: NDArray[np.bool_], share: Array) -> Array:
    """F at the end of each trial [trials]: how many of those that diverge had done so by then; 1 at the full budget.

    Late divergences are seen only of trials that were not stopped before, and count for those that were.
    """
    times = np.sort(share[diverged])
    if not len(times):
        return np.ones_like(share)
    stayed = np.array([np.mean(share[~diverged] >= time) if (~diverged).any() else 1.0 for time in times])
    weight = 1 / np.maximum(stayed, 0.1)
    cumulative = np.concatenate([[0.0], np.cumsum(weight)]) / weight.sum()
    seen = cumulative[np.searchsorted(times, share, side="right")]
    return np.where(share >= 1, 1.0, seen)


def _posterior(
    u: Array, d: Array, diverged: NDArray[np.bool_], seen: Array, box: tuple[float, float], lean: Array
) -> tuple[Divergence, float]:
    """The posterior on the grid, and its leave-one-out log score."""
    width = box[1] - box[0]
    places = np.linspace(box[0] - 0.25 * width, box[1] + 0.75 * width, NUM_PLACE)
    steepness = STEEPNESS[0] + STEEPNESS[1] * np.linspace(-2.5, 2.5, NUM_STEEP)
    c, g, w = (axis.ravel() for axis in np.meshgrid(places, steepness, lean, indexing="ij"))
    prior = -0.5 * ((c - box[1]) / (0.5 * width)) ** 2 - 0.5 * ((g - STEEPNESS[0]) / STEEPNESS[1]) ** 2
    prior = prior - 0.5 * (w / (0.5 * MOST_LEAN)) ** 2
    p = probability(u, d, c[:, None], g[:, None], w[:, None])
    chance = np.where(diverged, p, 1 - p * seen)
    log_likelihood = np.log(np.maximum(chance, 1e-12))
    log_weight = prior + log_likelihood.sum(axis=1)
    weight = np.exp(log_weight - logsumexp(log_weight))
    score = float(-np.log(np.maximum(weight @ (1 / np.maximum(chance, 1e-12)), 1e-300)).sum())
    keep = weight > 1e-9
    kept = weight[keep] / weight[keep].sum()
    return Divergence(place=c[keep], log_steepness=g[keep], lean=w[keep], weight=kept), score
