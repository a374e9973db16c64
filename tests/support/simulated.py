"""The engine without Ray's processes: real store, searcher, scheduler and rungs around trials run in this process.

What happens between the events of the journal is simulated, so a crash can be put after any of them.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ray.tune.search import Searcher

from bocb_tune.core.errors import Diverged
from bocb_tune.core.groups import GroupShape
from bocb_tune.core.storage import Folder
from bocb_tune.core.types import Cell, Objective, TrialRecord, TrialSpec
from bocb_tune.engine.asha import CellRungs
from bocb_tune.engine.policy import CellPlan, Plan, rung_budgets
from bocb_tune.engine.run import settle
from bocb_tune.engine.scheduler import GridASHA
from bocb_tune.engine.search import GridSearch
from bocb_tune.engine.store import RunStore
from bocb_tune.spec.space_file import load_space
from bocb_tune.tasks import get_task
from bocb_tune.training.checkpoint import Checkpoints
from bocb_tune.training.context import Context

OBJECTIVE = Objective(metric="score", unit="points", floor=1.0)


def make_plan(**changes: Any) -> Plan:
    values: dict[str, Any] = {
        "epochs": 9,
        "design": 4,
        "search": 5,
        "refine": 0,
        "repeats_best": 2,
        "repeats_default": 1,
        "audit": 0.1,
        "rungs": rung_budgets(1, 3, 9),
        "reduction_factor": 3,
        "sampler": "tpe",
        "seed": 0,
    }
    return Plan(**(values | changes))


def make_cells(
    plan: Plan, backbones: tuple[str, ...] = ("bowl", "cliff"), optimizers: tuple[str, ...] = ("sgd", "adamw")
) -> tuple[CellPlan, ...]:
    settings: dict[str, Any] = {
        "task": {"noise": 0.5, "epoch_s": 0.0},
        "dataset": {"name": "synthetic"},
        "recipe": {},
        "optimizer": {},
        "workers": 1,
    }
    return tuple(
        CellPlan(
            cell=Cell(task="synthetic", dataset="synthetic", backbone=backbone, optimizer=optimizer),
            space=load_space(optimizer),
            settings=settings,
            plan=plan,
        )
        for backbone in backbones
        for optimizer in optimizers
    )


ONE = GroupShape()
"""Shape of a group of one rank."""


class FakeSlot:
    """Trains the trial it is given step by step in this process, as a worker group and its mailbox would."""

    def __init__(self, name: str, checkpoints: Path | None = None) -> None:
        self.name = name
        self.shape = ONE
        self.checkpoints = checkpoints
        self.fault = ""
        self.is_ready = True
        self.is_lost = False
        self.is_leaving = False
        self.events: Iterator[dict[str, Any]] = iter(())
        self.submitted: list[tuple[str, int, int]] = []

    def submit(self, trial: TrialSpec, *, seen: int, divisor: int, patience_s: float) -> None:
        del patience_s
        self.submitted.append((trial.id, seen, divisor))
        kept = Checkpoints(self.checkpoints / trial.id) if self.checkpoints else None
        self.events = trial_events(trial, seen, Context(checkpoints=kept))

    def decide(self, trial_id: str, budget: int, *, stop: bool) -> None:
        """The simulation asks the scheduler for its answer itself."""

    def listen(self, wait_s: float = 0.0) -> None:
        """What becomes of the slot is set from outside."""


class FakeSlots:
    """Slots that neither come nor go."""

    def __init__(self, slots: Sequence[FakeSlot]) -> None:
        self.slots = slots

    def shape_of(self, backbone: str) -> GroupShape:  # noqa: ARG002
        return ONE

    def look(self, busy: Collection[str], asked: object) -> None:
        """Nothing changes by itself."""

    def free(self, busy: Collection[str]) -> dict[GroupShape, FakeSlot]:
        fit = (slot for slot in self.slots if slot.is_ready and not slot.fault and not slot.is_lost)
        return {slot.shape: slot for slot in reversed([slot for slot in fit if slot.name not in busy])}

    @property
    def faults(self) -> dict[GroupShape, str]:
        return {ONE: self.slots[0].fault} if all(slot.fault for slot in self.slots) else {}


def trial_events(trial: TrialSpec, seen: int, context: Context) -> Iterator[dict[str, Any]]:
    try:
        for measurement in get_task(trial.cell.task).run(trial, context):
            if measurement.budget > seen:
                yield {"kind": "measured", "measurement": measurement.to_json()}
    except Diverged as error:
        yield {"kind": "diverged", "budget": error.budget, "message": error.message}
        return
    yield {"kind": "completed"}


class Simulation:
    """One driver over a run folder, with `slots` trials at a time whose events interleave at random.

    With `checkpoints` trials save theirs, as those of a real run do.
    """

    def __init__(
        self,
        folder: Path,
        cells: tuple[CellPlan, ...],
        *,
        slots: int = 1,
        seed: int = 0,
        objective: Objective = OBJECTIVE,
        checkpoints: bool = False,
    ) -> None:
        self.store = RunStore(folder, cells, objective, {}, clock=lambda: 0.0)
        self.rungs = {key: CellRungs(book.plan.plan, objective.floor) for key, book in self.store.books.items()}
        resumed = settle(self.store, self.rungs)
        place = folder / "checkpoints" if checkpoints else None
        self.slots = [FakeSlot(f"slot{index}", place) for index in range(slots)]
        self.search = GridSearch(self.store, FakeSlots(self.slots), resumed)  # type: ignore[arg-type]
        self.scheduler = GridASHA(self.store, self.search, self.rungs, Folder(folder / "checkpoints"))
        self._random = random.Random(seed)
        self._controller = SimpleNamespace(_actor_cache=SimpleNamespace(increase_max=lambda *_: None))
        self._listening: dict[str, Any] = {}

    def run(self) -> dict[str, TrialRecord]:
        try:
            self._run()
        finally:
            self.store.close()
        return records_of(self.store)

    def _run(self) -> None:
        while self._start_what_can_start() or self._listening:
            slot_name = self._random.choice(sorted(self._listening))
            trial = self._listening[slot_name]
            slot = next(slot for slot in self.slots if slot.name == slot_name)
            decision = self.scheduler.on_trial_result(self._controller, trial, {"items": [next(slot.events)]})
            if decision == "STOP":
                del self._listening[slot_name]

    def _start_what_can_start(self) -> bool:
        while (config := self.search.suggest("tune-id")) not in (None, Searcher.FINISHED):
            assert isinstance(config, dict)
            trial = SimpleNamespace(config=config, placement_group_factory=None)
            self._listening[config["mailbox"]] = trial
            self.scheduler.on_trial_add(self._controller, trial)
        return bool(config != Searcher.FINISHED)


def records_of(store: RunStore) -> dict[str, TrialRecord]:
    return {record.id: record for book in store.books.values() for record in book.records.values()}


def essence(records: dict[str, TrialRecord]) -> dict[str, tuple[Any, ...]]:
    """All of a record set that a crash must not change: ids, hyperparameters, scores, outcomes, curves."""
    return {
        key: (r.cell.key, r.phase, r.index, dict(r.hparams), r.seed, r.audit, r.status, r.budget, r.score, _curve(r))
        for key, r in records.items()
    }


def _curve(record: TrialRecord) -> tuple[tuple[int, float], ...]:
    return tuple((measurement.budget, measurement.score) for measurement in record.measurements)
