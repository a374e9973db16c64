"""The outcome of each trial of a cell at the full budget, failures included; unobserved outcomes are drawn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bocb_tune.analysis.core.arrays import Array, Flags, Index
from bocb_tune.analysis.landscape.divergence import Divergence
from bocb_tune.analysis.landscape.noise import Residuals, nearest
from bocb_tune.analysis.landscape.process import Process
from bocb_tune.analysis.landscape.scale import Scale
from bocb_tune.analysis.landscape.stack import Stack
from bocb_tune.analysis.landscape.surface import Domain
from bocb_tune.analysis.landscape.trials import CellTrials

LEAST_NOISE = 0.1
"""Least part of a squared left-out residual that is the trial's own noise; the rest is what the models do not know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcomes:
    """Outcomes at the full budget of all trials that diverged or have a record."""

    x: Array
    """[trials, 2], settings scaled to [0, 1] over the search space."""
    is_zero: Array
    """[trials], 1 where weight decay is zero."""
    value: Array
    """[trials], the score; the floor for a diverged trial, the expected score for one that was stopped."""
    is_known: Flags
    """[trials], whether the trial ran to its end."""
    diverges_later: Array
    """[trials], probability that a stopped trial would have diverged; 0 for the others."""
    p_diverging: Array
    """[trials], probability of diverging at its setting."""
    fitted: Index
    """[fitted trials], indices of the trials that the process was fitted to."""
    process: Process
    floor: float

    @classmethod
    def of(cls, trials: CellTrials, process: Process, line: Divergence, domain: Domain, scale: Scale) -> Outcomes:
        """Gather the outcomes; trials without a record that did not diverge have none."""
        has_record = np.isin(np.arange(len(trials.lr)), process.data.trial)
        kept = np.flatnonzero(trials.diverged | has_record)
        u, v = np.log10(trials.lr[kept]), domain.log_decay(trials.weight_decay[kept])
        x = domain.scaled(u, v)
        diverged = trials.diverged[kept]
        is_known = diverged | trials.completed[kept]
        fitted = np.searchsorted(kept, process.data.trial)
        d = np.clip(2 * x[:, 1] - 1, -1, 1)
        later = np.where(is_known, 0.0, line.later(u, d, trials.share[kept]))
        value = np.full(len(kept), scale.floor)
        value[fitted] = process.expected_finals()
        value = value + later * (scale.floor - value)
        completed = trials.completed[kept]
        value[completed] = trials.last[kept][completed]
        return cls(
            x=x,
            is_zero=domain.is_zero(trials.weight_decay[kept]),
            value=value,
            is_known=is_known,
            diverges_later=later,
            p_diverging=line.by(u, d, np.ones_like(u)),
            fitted=fitted,
            process=process,
            floor=scale.floor,
        )

    def drawn(self, count: int, rng: np.random.Generator) -> Array:
        """Draw outcomes [count, trials]: observed ones stay as they are, the others follow from their own records."""
        found = np.repeat(self.value[None], count, axis=0)
        if self.is_known.all():
            return found
        whole = np.full_like(found, self.floor)
        whole[:, self.fitted] = self.process.finals(count, rng)
        whole = np.where(rng.random(whole.shape) < self.diverges_later, self.floor, whole)
        return np.where(self.is_known, found, whole)

    def levels(self, count: int, rng: np.random.Generator) -> Array:
        """Draw the mean outcome over the search space [count], with random weights of the trials."""
        weights = rng.exponential(size=(count, len(self.value)))
        return np.asarray((weights * self.drawn(count, rng)).sum(axis=1) / weights.sum(axis=1))

    def residuals(self, stack: Stack, model_variance: Array) -> Residuals:
        """Compute the trials' own noise: their residuals from what the others predict, less the models' uncertainty.

        For a stopped trial it is the residual of its last record, as it would be at the full budget.

        Args:
            stack: the weighted models.
            model_variance: variance, over the models' draws, of the expected score at each trial's setting [finals].
        """
        x, found = self.x[stack.trial], stack.observed - stack.mean
        near = nearest(x, x)
        whole, known = (found**2)[near].mean(axis=1), model_variance[near].mean(axis=1)
        own = np.clip(1 - known / np.maximum(whole, 1e-18), LEAST_NOISE, 1.0)
        stopped = ~self.is_known[self.fitted]
        at, z = self.fitted[stopped], self.process.z[stopped]
        by_process = z * np.array([self.process.scale.step(float(y), self.process.noise) for y in self.value[at]])
        return Residuals(x=np.concatenate([x, self.x[at]]), value=np.append(found * np.sqrt(own), by_process))
