"""The smooth model of a cell: a Gaussian process of all records, together with the boundary of divergence."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from bocb_tune.analysis.core.arrays import Array
from bocb_tune.analysis.landscape import gp
from bocb_tune.analysis.landscape.draws import ProcessDraws, coarse
from bocb_tune.analysis.landscape.scale import Scale
from bocb_tune.analysis.landscape.surface import Domain
from bocb_tune.analysis.landscape.trials import CellTrials

DRAWS_EACH = 4
"""Surfaces drawn at each draw of the hyper-parameters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standardised:
    """The records in the units of the process: y = (forward(score) - centre) / unit."""

    records: gp.Records
    trial: NDArray[np.intp]
    """[fitted trials], their indices among all trials."""
    centre: float
    unit: float

    @classmethod
    def of(cls, trials: CellTrials, domain: Domain, scale: Scale) -> Standardised:
        """Select and standardise the trials that did not diverge and have a record."""
        usable = ~trials.diverged[trials.record_trial] & np.isfinite(trials.record_score)
        trial, index = np.unique(trials.record_trial[usable], return_inverse=True)
        score, share = trials.record_score[usable], trials.record_share[usable]
        value = scale.forward(score)
        last = scale.forward(trials.last[trial])
        centre, unit = float(np.median(last)), float(np.std(last))
        decay = trials.weight_decay[trial]
        smallest = min(float(share.min()), 0.999)
        records = gp.Records(
            x=domain.scaled(np.log10(trials.lr[trial]), domain.log_decay(decay)),
            is_zero=domain.is_zero(decay),
            trial=index,
            tau=np.log(1 / share) / np.log(1 / smallest),
            y=(value - centre) / max(unit, 1e-12),
            variance=scale.variance(score) / max(unit, 1e-12) ** 2,
        )
        return cls(records=records, trial=trial, centre=centre, unit=unit)


@dataclass(frozen=True, kw_only=False)
class Process:
    """The process fitted to the trials of a cell."""

    data: Standardised
    fit: gp.Fit
    domain: Domain
    scale: Scale

    @cached_property
    def _solved(self) -> gp.Solved:
        return self.fit.likelihood.solved(self.fit.log_theta)

    @property
    def noise(self) -> float:
        """sd of a trial's value on the scale of `Scale.forward`: its seed and one measurement."""
        return self.data.unit * float(
            np.hypot(*np.exp(self.fit.log_theta[[gp.NAMES.index("st"), gp.NAMES.index("se")]]))
        )

    @cached_property
    def without_trial(self) -> tuple[Array, Array]:
        """Mean and sd of each trial's last value by the other trials [trials], on the scale of `Scale.forward`."""
        mean, variance = self._solved.without_trial()
        return self.data.centre + self.data.unit * mean, self.data.unit * np.sqrt(variance)

    @property
    def z(self) -> Array:
        """Residual of each trial's last record from the prediction by the other trials, in units of its sd [trials]."""
        records = self.data.records
        mean, sd = self.without_trial
        return (self.data.centre + self.data.unit * records.y[records.last] - mean) / sd

    def predicted(self) -> tuple[Array, Array]:
        """Predict each trial's last score from the other trials: mean and variance [trials]."""
        return self._moments(*self.without_trial)

    def predict(self, x: Array, zero: Array) -> tuple[Array, Array]:
        """Predict the score of a new trial: mean and variance [settings].

        Args:
            x: settings scaled to [0, 1] over the search space [settings, 2].
            zero: 1 where weight decay is zero [settings].
        """
        records = self.fit.likelihood.records
        among, to_trials = gp.Pairs(x, zero, x, zero), gp.Pairs(x, zero, records.x, records.is_zero)
        mean, covariance = self._solved.landscape(among, to_trials)
        sd = np.hypot(self.data.unit * np.sqrt(np.maximum(np.diag(covariance), 0)), self.noise)
        return self._moments(self.data.centre + self.data.unit * mean, sd)

    def _moments(self, value: Array, sd: Array) -> tuple[Array, Array]:
        points, weights = np.polynomial.hermite_e.hermegauss(7)
        score = self.scale.backward(value + sd * points[:, None])
        weights = weights / weights.sum()
        mean = weights @ score
        return mean, weights @ (score - mean) ** 2 + 1e-12

    def expected_finals(self) -> Array:
        """Compute the expected score of each trial at the full budget, given its own records [trials]."""
        mean, _ = self._solved.finals()
        return self.scale.backward(self.data.centre + self.data.unit * mean)

    def finals(self, count: int, rng: np.random.Generator) -> Array:
        """Draw scores of the trials at the full budget, given their own records [count, trials]."""
        n = self.data.records.num_trials
        values = []
        for log_theta in self.fit.hyper_draws(-(-count // DRAWS_EACH), rng):
            mean, covariance = self.fit.likelihood.solved(log_theta).finals()
            drawn = gp.draw_normal(mean, covariance, rng.standard_normal((DRAWS_EACH, n)))
            values.append(drawn + np.exp(log_theta[gp.NAMES.index("se")]) * rng.standard_normal(drawn.shape))
        return self.scale.backward(self.data.centre + self.data.unit * np.concatenate(values)[:count])

    def drawn(
        self, count: int, place: Array, log_steepness: Array, lean: Array, rng: np.random.Generator
    ) -> ProcessDraws:
        """Draw `count` surfaces, in mirrored pairs so that their mean is that of the process."""
        grid = coarse(self.domain)
        nodes, records = grid.nodes(), self.fit.likelihood.records
        among, to_trials = gp.Pairs(*nodes, *nodes), gp.Pairs(*nodes, records.x, records.is_zero)
        draws = []
        for log_theta in self.fit.hyper_draws(-(-count // DRAWS_EACH), rng):
            mean, covariance = self.fit.likelihood.solved(log_theta).landscape(among, to_trials)
            z = rng.standard_normal((DRAWS_EACH // 2, len(mean)))
            draws.append(gp.draw_normal(mean, covariance, np.concatenate([z, -z])))
        process = self.data.centre + self.data.unit * np.concatenate(draws)[:count].reshape(-1, *grid.shape)
        return ProcessDraws(
            domain=self.domain,
            scale=self.scale,
            process=process.astype(np.float32),
            noise=self.noise,
            place=place,
            log_steepness=log_steepness,
            lean=lean,
        )
