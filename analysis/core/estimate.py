"""The type of every number stated: a value with its uncertainty, its data and its method, or a refusal."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import Any

from bocb_tune.core.types import Direction, Objective

LEVEL = 0.95
"""Level of every interval of a report."""


class Reason(StrEnum):
    """Why a value, or its interval, is missing. Members are only ever added: reports on disk hold them."""

    TOO_FEW_TRIALS = "TOO_FEW_TRIALS"
    TOO_FEW_COMPLETED = "TOO_FEW_COMPLETED"
    TOO_FEW_REPLICATES = "TOO_FEW_REPLICATES"
    SURROGATE_POOR = "SURROGATE_POOR"
    OPTIMUM_AT_EDGE = "OPTIMUM_AT_EDGE"
    OPTIMUM_AT_WD0 = "OPTIMUM_AT_WD0"
    ISOTROPIC = "ISOTROPIC"
    EPS_BELOW_NOISE = "EPS_BELOW_NOISE"
    ALL_DIVERGED = "ALL_DIVERGED"
    NO_DIVERGENCE = "NO_DIVERGENCE"
    NOT_IID = "NOT_IID"
    PRIOR_MISMATCH = "PRIOR_MISMATCH"
    INCOMPLETE_MATRIX = "INCOMPLETE_MATRIX"
    DISCONNECTED = "DISCONNECTED"
    DEGENERATE_VARIANCE = "DEGENERATE_VARIANCE"
    BUDGET_EXCEEDS_DATA = "BUDGET_EXCEEDS_DATA"
    TOO_FEW_BACKBONES = "TOO_FEW_BACKBONES"
    TOO_FEW_OPTIMIZERS = "TOO_FEW_OPTIMIZERS"
    TOO_FEW_EIGS = "TOO_FEW_EIGS"
    NOT_POWER_LAW = "NOT_POWER_LAW"
    NO_SHARED_SUPPORT = "NO_SHARED_SUPPORT"
    NO_SPACE = "NO_SPACE"
    NOT_SEARCHED = "NOT_SEARCHED"
    TOO_COSTLY = "TOO_COSTLY"
    NOT_IN_POINTS = "NOT_IN_POINTS"
    NO_SETTINGS = "NO_SETTINGS"
    NOT_MEASURED = "NOT_MEASURED"
    NOT_REFINED = "NOT_REFINED"

    @property
    def sentence(self) -> str:
        """Meaning of the code, for the reader of a report."""
        return _SENTENCES[self]


_SENTENCES = {
    Reason.TOO_FEW_TRIALS: "too few trials, or too few distinct learning rates",
    Reason.TOO_FEW_COMPLETED: "too few trials reached their full budget",
    Reason.TOO_FEW_REPLICATES: "too few repeated seeds to separate noise from effect",
    Reason.SURROGATE_POOR: "the model of the landscape does not predict the trials left out of it",
    Reason.OPTIMUM_AT_EDGE: "the best point lies at an edge of the search space, so the optimum may be beyond it",
    Reason.OPTIMUM_AT_WD0: "the best weight decay is 0, which has no place on a log axis",
    Reason.ISOTROPIC: "the optimum is nearly round, so that it has no direction",
    Reason.EPS_BELOW_NOISE: "the tolerance is too small to be resolved above the noise",
    Reason.ALL_DIVERGED: "every trial diverged",
    Reason.NO_DIVERGENCE: "too few trials diverged: only a bound is known",
    Reason.NOT_IID: "the trials are not independent draws from one distribution",
    Reason.PRIOR_MISMATCH: "the cells compared were searched over different ranges",
    Reason.INCOMPLETE_MATRIX: "some cells of the grid have no value yet",
    Reason.DISCONNECTED: "the cells that have a value do not link all backbones and optimizers",
    Reason.DEGENERATE_VARIANCE: "the scores do not differ by more than noise, so there is nothing to divide",
    Reason.BUDGET_EXCEEDS_DATA: "more trials are asked about than the data can speak of",
    Reason.TOO_FEW_BACKBONES: "too few backbones",
    Reason.TOO_FEW_OPTIMIZERS: "too few optimizers",
    Reason.TOO_FEW_EIGS: "the matrix is too small for a statistic of its spectrum",
    Reason.NOT_POWER_LAW: "the spectrum does not follow a power law",
    Reason.NO_SHARED_SUPPORT: "the setting lies outside the range searched there",
    Reason.NO_SPACE: "the range the trials were drawn from is not known",
    Reason.NOT_SEARCHED: "no cell has several settings of learning rate and weight decay",
    Reason.TOO_COSTLY: "not computed: it takes too long on so many cells",
    Reason.NOT_IN_POINTS: "the scores are no points of 100, in which the rule is stated",
    Reason.NO_SETTINGS: "the learning rates and weight decays of the best trials are not known",
    Reason.NOT_MEASURED: "the source does not record it",
    Reason.NOT_REFINED: "what is the optimizer's own was not refined (search.refine is 0)",
}


def known(value: float | None) -> float | None:
    """Return the value if it is finite, else None: JSON has no NaN."""
    return None if value is None or not math.isfinite(value) else float(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """The data a number rests on."""

    n_trials: int = 0
    n_completed: int = 0
    n_stopped: int = 0
    n_diverged: int = 0
    n_seeds: int = 0
    """Seeds averaged into the value; 0 for a value that was not measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A number as it may be stated; `value` is None exactly when it was refused."""

    value: float | None
    lo: float | None = None
    hi: float | None = None
    level: float = LEVEL
    """Coverage of `lo` to `hi`."""
    unit: str = ""
    """`points` of score, or empty for a share between 0 and 1."""
    counts: Counts = Counts()
    method: str = ""
    reason: Reason | None = None
    """Why the value, or only its interval, is missing."""

    @property
    def status(self) -> str:
        return "refused" if self.value is None else "ok"

    def to_json(self) -> dict[str, Any]:
        """Return the fields as `metrics.json` holds them, with the counts beside the others."""
        own = {name: getattr(self, name) for name in _OWN}
        counts = {name: getattr(self.counts, name) for name in _COUNTED}
        return {**own, **counts, "status": self.status}


_OWN = tuple(field.name for field in fields(Estimate) if field.name != "counts")
_COUNTED = tuple(field.name for field in fields(Counts))
"""Names of fields, looked up once: a large grid has a million estimates, and `asdict` copies deeply."""


def of_metric(estimate: Estimate, objective: Objective) -> Estimate:
    """Convert a score to the metric it is made of; where less is better the ends of the interval change places."""
    if objective.is_score:
        return estimate
    ends = [None if end is None else float(objective.shown(end)) for end in (estimate.lo, estimate.hi)]
    lo, hi = ends if objective.direction is Direction.max else reversed(ends)
    value = None if estimate.value is None else float(objective.shown(estimate.value))
    return replace(estimate, value=value, lo=lo, hi=hi, unit=objective.unit)


def points(epsilon: float) -> str:
    """Write a tolerance in words."""
    return f"{epsilon:g} point{'s' * (epsilon != 1)}"
