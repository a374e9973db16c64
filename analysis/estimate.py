"""The result type of every number stated: a value with its uncertainty, its data and its method, or a refusal."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Reason(StrEnum):
    """Why a value, or its interval, is not given. Values are only ever added: reports on disk hold them."""

    TOO_FEW_COMPLETED = "TOO_FEW_COMPLETED"
    TOO_FEW_REPLICATES = "TOO_FEW_REPLICATES"
    TOO_FEW_BACKBONES = "TOO_FEW_BACKBONES"
    TOO_FEW_OPTIMIZERS = "TOO_FEW_OPTIMIZERS"
    INCOMPLETE_MATRIX = "INCOMPLETE_MATRIX"
    DEGENERATE_VARIANCE = "DEGENERATE_VARIANCE"
    ALL_DIVERGED = "ALL_DIVERGED"

    @property
    def sentence(self) -> str:
        """What the code means, for the reader of a report."""
        return _SENTENCES[self]


_SENTENCES = {
    Reason.TOO_FEW_COMPLETED: "no trial has reached its full budget",
    Reason.TOO_FEW_REPLICATES: "too few repeated seeds to separate noise from effect",
    Reason.TOO_FEW_BACKBONES: "too few backbones",
    Reason.TOO_FEW_OPTIMIZERS: "too few optimizers",
    Reason.INCOMPLETE_MATRIX: "some cells of the grid have no value yet",
    Reason.DEGENERATE_VARIANCE: "the scores do not differ, so there is nothing to divide",
    Reason.ALL_DIVERGED: "every trial diverged and the table does not say what a diverged trial scores",
}


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
    level: float = 0.95
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
        """As in `metrics.json`: the counts beside the other fields."""
        fields = asdict(self)
        counts: dict[str, int] = fields.pop("counts")
        return {**fields, **counts, "status": self.status}
