"""The boundary of divergence: a logistic function of log10 learning rate, with its posterior by quadrature.

    P(diverged by a share r of the budget | u, v) = sigmoid((u - c - w d - s ln(1 / r)) e^g)

with d = weight decay scaled to [-1, 1] over the search space. The nearer a trial is to the boundary, the later it
diverges (s); without this, a search that stops its worst trials early would seem to have no boundary at all. A trial
that diverged tells when it still had not and when it had; one that was stopped or completed, that it had not by then.
Leave-one-out log score decides whether the boundary may depend on weight decay (w). The four parameters are few enough
for an exact posterior on a grid: no optimiser, no normal approximation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logsumexp

from bocb_tune.analysis.core.arrays import Array

NUM_PLACE, NUM_STEEP = 61, 13
NOWHERE, MOST_ABOVE = 0.2, 0.75
"""Prior probability that nothing in the search space diverges; the boundary then lies above it, by at most this share
of its width. Otherwise it lies anywhere within: the best trial's evidence is in the likelihood, and counts once."""
STEEPNESS = (float(np.log(12.0)), 1.2)
"""Prior mean and sd of g: from 10 % to 90 % within about a third of a decade, or a few times more or less."""
DELAYS = np.array([0.0, 0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.8])
"""Grid of s, in decades."""
AT_ONCE, DELAY_MEAN = 0.15, 0.4
"""Prior of s: this probability of no delay at all, else an exponential with this mean. A trial stopped at the first
rung has often not reached its largest learning rate yet, which comes after the warm-up."""
LEANS = np.linspace(-1.0, 1.0, 7)
"""Grid of w: decades by which the boundary may move from the middle of the range of weight decay to its ends."""
LEAN_SD = 0.5
MIN_GAIN = 1.0
"""Gain in leave-one-out log score, in nats, that a boundary depending on weight decay must show."""
LEAST = 1e-12
BLOCK = 1024
"""Points of the grid whose trials fit into a processor's cache together."""
TRUST = 0.5
"""Power of the likelihood. The logistic form stands in for whatever makes trainings diverge: at full power a wrong form
is soon as sure of itself as a right one (Bissiri, Holmes and Walker, JRSS B 78, 2016; compared in docs/LOG.md)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Divergence:
    """Posterior of the boundary, on a grid of its parameters."""

    place: Array
    """[points] c, log10 lr at which half of the trials diverge, in the middle of the range of weight decay."""
    log_steepness: Array
    """[points] g"""
    lean: Array
    """[points] w"""
    delay: Array
    """[points] s"""
    weight: Array
    """[points], posterior probabilities, summing to 1."""

    def draws(self, count: int, rng: np.random.Generator) -> tuple[Array, Array, Array]:
        """Draw (c, g, w), each [count], in random order; c is spread within its grid step.

        Draws are evenly spaced along the cumulated weight, so that their quantiles vary less from seed to seed.
        """
        even = (np.arange(count) + rng.random()) / count
        picked = rng.permutation(np.searchsorted(np.cumsum(self.weight), even).clip(max=len(self.weight) - 1))
        places = np.unique(self.place)
        step = np.diff(places).min() if len(places) > 1 else 0.0
        return (
            self.place[picked] + rng.uniform(-0.5, 0.5, count) * step,
            self.log_steepness[picked],
            self.lean[picked],
        )

    def by(self, u: Array, d: Array, share: Array) -> Array:
        """Compute the probability of having diverged by a share of the budget [trials]; for u, d see
        `fit_divergence`."""
        place, lean, delay = (each[:, None] for each in (self.place, self.lean, self.delay))
        late = np.log(1 / np.clip(share, 1e-6, 1.0))
        return np.asarray(self.weight @ probability(u, d, place + delay * late, self.log_steepness[:, None], lean))

    def later(self, u: Array, d: Array, share: Array) -> Array:
        """Compute the probability that trials not diverged by a share of the budget would have by its end [trials]."""
        by_then, by_end = self.by(u, d, share), self.by(u, d, np.ones_like(share))
        return np.asarray(np.clip((by_end - by_then) / np.maximum(1 - by_then, 1e-9), 0, 1))


def probability(u: Array, d: Array, place: Array, log_steepness: Array, lean: Array) -> Array:
    """Compute the probability of diverging; it is for the full budget if `place` is. Arguments broadcast."""
    return expit((u - place - lean * d) * np.exp(log_steepness))


def fit_divergence(
    u: Array,
    d: Array,
    diverged: NDArray[np.bool_],
    share: Array,
    survived: Array,
    domain: tuple[float, float],
) -> Divergence:
    """Compute the posterior of the boundary.

    Args:
        u: log10 lr [trials].
        d: weight decay [trials], scaled to [-1, 1] over the search space.
        diverged: [trials].
        share: share of the full budget at which each trial ended [trials].
        survived: share by which it had not diverged yet [trials]; for a trial that did not diverge, the same.
        domain: range of u in the search space.
    """
    trials = (u, d, diverged, share, survived)
    straight, score = _posterior(*trials, domain, np.zeros(1))
    if not diverged.any() or diverged.all():
        return straight
    leaning, other = _posterior(*trials, domain, LEANS)
    return leaning if other > score + MIN_GAIN else straight


def _delay_weights() -> Array:
    """Compute the prior probability of each of `DELAYS`."""
    weights = np.gradient(DELAYS) * np.exp(-DELAYS / DELAY_MEAN)
    weights[0] = weights[1:].sum() * AT_ONCE / (1 - AT_ONCE)
    return np.asarray(weights / weights.sum())


def _place_prior(c: Array, domain: tuple[float, float]) -> Array:
    """Compute the log prior of the boundary's place."""
    low, high = domain
    inside = np.where((c >= low) & (c <= high), (1 - NOWHERE) / (high - low), 0.0)
    beyond = np.where(c > high, NOWHERE / (MOST_ABOVE * (high - low)), 0.0)
    return np.asarray(np.log(inside + beyond))


def _posterior(
    u: Array,
    d: Array,
    diverged: NDArray[np.bool_],
    share: Array,
    survived: Array,
    domain: tuple[float, float],
    leans: Array,
) -> tuple[Divergence, float]:
    """Compute the posterior on the grid, and its leave-one-out log score."""
    width = domain[1] - domain[0]
    places = np.linspace(domain[0], domain[1] + MOST_ABOVE * width, NUM_PLACE)
    steepness = STEEPNESS[0] + STEEPNESS[1] * np.linspace(-2.0, 2.0, NUM_STEEP)
    c, g, s, w = (axis.ravel() for axis in np.meshgrid(places, steepness, DELAYS, leans, indexing="ij"))
    prior = _place_prior(c, domain) - 0.5 * ((g - STEEPNESS[0]) / STEEPNESS[1]) ** 2
    prior = prior + np.log(np.interp(s, DELAYS, _delay_weights())) - 0.5 * (w / LEAN_SD) ** 2
    steep = np.exp(g)
    lines = np.column_stack([steep, -steep * c, -steep * s, -steep * w])  # one product for all points and trials
    ended = np.where(diverged, 1.0, -1.0) * _seen(u, d, share)
    late = np.flatnonzero(diverged & (survived > 0))
    before = _seen(u[late], d[late], survived[late])

    def chance(lines: Array) -> Array:
        """Compute the probability of what became of each trial [points, trials]."""
        found = expit(lines @ ended)
        found[:, late] -= expit(lines @ before)
        return np.maximum(found, LEAST, out=found)

    blocks = np.array_split(lines, -(-len(lines) // BLOCK))
    log_weight = prior + TRUST * np.concatenate([np.log(chance(block)).sum(axis=1) for block in blocks])
    weight = np.exp(log_weight - logsumexp(log_weight))
    counts = weight > LEAST
    score = float(-np.log(weight[counts] @ (1 / chance(lines[counts]))).sum())
    keep = weight > 1e-7
    kept = weight[keep] / weight[keep].sum()
    return Divergence(place=c[keep], log_steepness=g[keep], lean=w[keep], delay=s[keep], weight=kept), score


def _seen(u: Array, d: Array, share: Array) -> Array:
    """Compute what the boundary's parameters are multiplied by: 1, the delay and d beside u [4, trials]."""
    return np.stack([u, np.ones_like(u), np.log(1 / np.clip(share, 1e-6, 1.0)), d])
