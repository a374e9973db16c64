"""The values that flow through the engine: cell, trial, measurement, record. Standard library only; all frozen."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Phase(StrEnum):
    """Why a trial was run. Within a cell the phases follow one another in this order."""

    default = "default"
    """The optimizer's published setting, run to the full budget."""
    design = "design"
    """A space-filling point, the same in every cell of an optimizer."""
    search = "search"
    """A point the sampler proposed."""
    refine = "refine"
    """The best point of the phases before, with other values of what is the optimizer's own."""
    repeat = "repeat"
    """A fresh seed at the best point, at the default or at the refined best, run to the full budget."""


class TrialStatus(StrEnum):
    """State of a trial. Values are only ever added: journals on disk hold them."""

    running = "running"
    """Started and not ended: in flight, or interrupted and still owed."""
    completed = "completed"
    """Reached its full budget."""
    stopped = "stopped"
    """Ended by a rung: its score is censored at the budget it reached."""
    diverged = "diverged"
    """Loss or parameters became non-finite: a result, scored at the objective's floor."""
    failed = "failed"
    """Raised an error after its retries; run again when the experiment is run again."""
    oom = "oom"
    """Out of device memory, also at half the micro-batch."""

    @property
    def is_result(self) -> bool:
        """Whether the outcome says something about the hyperparameters (and so is never run again)."""
        return self in (TrialStatus.completed, TrialStatus.stopped, TrialStatus.diverged)


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Cell:
    """One backbone trained by one optimizer on one task and dataset."""

    task: str
    dataset: str
    backbone: str
    optimizer: str
    pretrained: str = ""
    """Name of the weights that the backbone starts from; empty in a grid where all start from random ones."""

    @property
    def row(self) -> str:
        """Row of the grid: the backbone, with its pre-training as `backbone@pretraining` where it has one."""
        return f"{self.backbone}@{self.pretrained}" if self.pretrained else self.backbone

    @property
    def key(self) -> str:
        """`backbone/optimizer` or `backbone@pretraining/optimizer`, unique within a grid."""
        return f"{self.row}/{self.optimizer}"

    @property
    def stem(self) -> str:
        """File name of the cell's journal, without the ending."""
        return f"{self.row}__{self.optimizer}"

    def to_json(self) -> dict[str, str]:
        """Return the fields; without pre-training as they were before there was any, as trial ids rest on them."""
        begins = {"pretrained": self.pretrained} if self.pretrained else {}
        cell = {"task": self.task, "dataset": self.dataset, "backbone": self.backbone, "optimizer": self.optimizer}
        return cell | begins


class Direction(StrEnum):
    """Direction in which a metric is better."""

    max = "max"
    min = "min"


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """Meaning of a score: it is counted in points of which more is better, whatever its metric's sign and unit.

    metric = origin + point * score where the metric is maximised, origin - point * score where it is minimised. A score
    of a metric in points is the metric itself; an error of e % scores 100 - e; a loss scores minus as many points as it
    has hundredths of the best loss.
    """

    metric: str
    """Name of the validation metric the score is made of, such as `top1`."""
    unit: str
    """Unit of the metric; `points` for one that lies in 0..100."""
    floor: float
    """Score of a diverged trial: chance level for classification."""
    direction: Direction = Direction.max
    """Direction in which the metric is better; a score is better the larger it is."""
    origin: float = 0.0
    """The metric where the score is 0."""
    point: float = 1.0
    """Worth of one point of the score, in the metric's unit."""
    tolerance: float = 1.0
    """Points within which settings count as equally good, at least: larger where noise hides so little."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "direction", Direction(self.direction))  # a journal holds the word

    @property
    def is_bounded(self) -> bool:
        """Whether a score lies in 0..100."""
        return self.unit == "points"

    @property
    def is_score(self) -> bool:
        """Whether the metric is the score itself."""
        return self.direction is Direction.max and self.origin == 0 and self.point == 1

    @property
    def slope(self) -> float:
        """Change of the metric by one point of score."""
        return self.point if self.direction is Direction.max else -self.point

    def shown(self, score: Any) -> Any:
        """Return the metric of a score: a number, or an array of them."""
        return score if self.is_score else self.origin + self.slope * score

    def number(self, score: float) -> str:
        """Return the metric of a score, as text."""
        return f"{self.shown(score):{'.2f' if self.is_bounded else '.4g'}}"

    def text(self, score: float) -> str:
        """Return the metric of a score, with its unit."""
        return f"{self.number(score)} {self.unit}"

    @property
    def label(self) -> str:
        """Label of an axis."""
        return f"{self.metric} [{self.unit}]"

    @property
    def heading(self) -> str:
        """The metric with its unit, and what is not the usual about it."""
        way = "smaller" if self.direction is Direction.min else "larger"
        point = "" if self.is_bounded else f", one point = {self.point:.3g}"
        return self.label if self.is_score else f"{self.label}, {way} is better{point}"

    def score(self, metric: Any) -> Any:
        """Return the score of a metric; inverse of `shown`."""
        return metric if self.is_score else (metric - self.origin) / self.slope


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """Results of one epoch of a trial, already reduced across ranks."""

    budget: int
    """Epochs done, counted from 1."""
    metrics: Mapping[str, float]
    """`score` (larger is better) and whatever else the task measures."""
    elapsed_s: float
    """Seconds of training and validation the trial has taken so far, over all its attempts."""

    @property
    def score(self) -> float:
        return self.metrics["score"]

    def to_json(self) -> dict[str, Any]:
        return {"budget": self.budget, "metrics": dict(self.metrics), "elapsed_s": self.elapsed_s}

    @classmethod
    def from_json(cls, line: Mapping[str, Any]) -> Measurement:
        return cls(budget=line["budget"], metrics=line["metrics"], elapsed_s=line["elapsed_s"])


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialSpec:
    """One training to run: everything its result depends on, and where it stands in the plan of its cell."""

    cell: Cell
    phase: Phase
    index: int
    """Place within the phase, counted from 0."""
    hparams: Mapping[str, float]
    """Tuned values: `lr` (peak of the base group at the recipe's batch size) and `weight_decay`; where refined, also
    what is the optimizer's own, in place of the value in `settings`."""
    seed: int
    """Moves initialisation, data order and augmentation alike."""
    budget: int
    """Full budget in epochs; the schedule is as long as this whatever rung ends the trial."""
    settings: Mapping[str, Any]
    """Resolved and JSON-able: `dataset`, `recipe`, `optimizer` (fixed arguments), `task` (options), `workers`
    and, where they are not the usual, `backbone` (changes to it) and `pretrained` (digest of its first weights)."""
    rungs: tuple[int, ...] = ()
    """Budgets at which the trial competes; empty when it is exempt from stopping."""
    audit: bool = False
    """Drawn, before it started, to be exempt from stopping: the only direct look into the censored region."""
    data_options: Mapping[str, Any] = field(default_factory=dict)
    """Options of the dataset that change no result, such as where it is; no part of the identity. They go before those
    of the same name in `settings`, where old journals have them."""
    weights: str = ""
    """Path of the weights it starts from, whose digest is `settings["pretrained"]`; no part of the identity."""

    id: str = field(init=False)
    """Hash of the resolved values of all that changes the result, and of nothing else.

    A value introduced later is left out of the hash while it equals what old records implicitly had, so that a new
    release keeps the identity of old trials.
    """

    def __post_init__(self) -> None:
        identity = {
            "cell": self.cell.to_json(),
            "hparams": dict(self.hparams),
            "seed": self.seed,
            "budget": self.budget,
            "settings": dict(self.settings),
        }
        object.__setattr__(self, "id", digest(identity))

    def to_json(self) -> dict[str, Any]:
        """Return everything, JSON-able; `from_json` gives the trial back."""
        return {
            "cell": self.cell.to_json(),
            "phase": str(self.phase),
            "index": self.index,
            "hparams": dict(self.hparams),
            "seed": self.seed,
            "budget": self.budget,
            "settings": dict(self.settings),
            "rungs": list(self.rungs),
            "audit": self.audit,
            "data_options": dict(self.data_options),
            "weights": self.weights,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> TrialSpec:
        return cls(
            cell=Cell(**value["cell"]),
            phase=Phase(value["phase"]),
            index=value["index"],
            hparams=value["hparams"],
            seed=value["seed"],
            budget=value["budget"],
            settings=value["settings"],
            rungs=tuple(value["rungs"]),
            audit=value["audit"],
            data_options=value["data_options"],
            weights=value["weights"],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRecord:
    """The stored outcome of one trial, folded from its journal lines. Needs no YAML, Ray or torch to read."""

    id: str
    cell: Cell
    phase: Phase
    index: int
    hparams: Mapping[str, float]
    seed: int
    max_budget: int
    """The full budget; `budget` is what was reached."""
    audit: bool
    status: TrialStatus
    attempt: int = 1
    """Number of times it was started."""
    world_size: int = 1
    measurements: tuple[Measurement, ...] = ()
    """One an epoch, by ascending budget."""
    budget: int = 0
    """Epochs reached; for a diverged trial the epoch within which it diverged."""
    score: float | None = None
    """Last score; the floor when diverged; None while running, failed or out of memory."""
    elapsed_s: float = 0.0
    message: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_owed_anew(self) -> bool:
        """Whether it failed before it measured anything, at a setting that was chosen by what others measured. They may
        have failed for the same reason, so that the setting is chosen anew.
        """
        was_chosen = self.phase in (Phase.search, Phase.refine, Phase.repeat)
        return was_chosen and self.status == TrialStatus.failed and not self.measurements

    @property
    def point(self) -> tuple[float, float]:
        """Learning rate and weight decay."""
        return self.hparams["lr"], self.hparams["weight_decay"]

    @property
    def place(self) -> tuple[Phase, int, int]:
        """Place in the plan of its cell: of two trials in one place, the later was chosen anew."""
        return self.phase, self.index, self.seed


def merit(record: TrialRecord) -> tuple[float, float, float]:
    """Return what scored trials are chosen by: of equal scores the smaller learning rate, then decay, is best."""
    assert record.score is not None, record.id
    return record.score, -record.hparams["lr"], -record.hparams["weight_decay"]


def alike(message: str) -> str:
    """Strip a trial's message of what differs from one trial to the next of the same fault: numbers and paths."""
    return re.sub(r"\S*/\S*", "PATH", re.sub(r"-?\d+(\.\d+)?(e[+-]?\d+)?", "N", message))


def digest(value: Any) -> str:
    """Return sixteen hex digits that name a JSON-able value, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def is_digest(text: str) -> bool:
    """Tell whether a text can be one of `digest`: it then names a file, and can lead nowhere else."""
    return re.fullmatch("[0-9a-f]{16}", text) is not None


def derive_seed(*parts: str | int) -> int:
    """Return a seed in [0, 2**31) that is a pure function of its parts, the same in every process and release."""
    text = "/".join(str(part) for part in parts)
    # a part may name a folder whose name is no Unicode
    return int.from_bytes(hashlib.sha256(text.encode(errors="surrogateescape")).digest()[:4], "big") >> 1
