"""Fate of a trial in flight: a Ray Tune scheduler over the whole grid, with one ASHA bracket per cell."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from bocb_tune.core.storage import Storage
from bocb_tune.core.types import Measurement, TrialRecord, TrialSpec, TrialStatus
from bocb_tune.engine import policy
from bocb_tune.engine.asha import CellRungs
from bocb_tune.engine.search import GridSearch
from bocb_tune.engine.store import RunStore
from bocb_tune.engine.worker.queue import Item

HEAR_S = 5.0
"""Seconds that a slot may take to say that it is still there."""


class GridASHA(FIFOScheduler):  # type: ignore[misc]
    """Writes down what every trial says, and stops those that fall behind their cell's rungs."""

    def __init__(
        self, store: RunStore, search: GridSearch, rungs: Mapping[str, CellRungs], checkpoints: Storage
    ) -> None:
        super().__init__()
        self._listeners = 0
        self._store = store
        self._search = search
        self._rungs = rungs
        self._checkpoints = checkpoints
        self._tries: dict[str, int] = {}
        self._divisor: dict[str, int] = {}
        self._failing: list[TrialRecord] = []
        """New trials that ended since the last that has a result."""
        self._tried_again = {
            record.id
            for book in store.books.values()
            for record in book.records.values()
            if record.status in (TrialStatus.failed, TrialStatus.oom)
        }
        """Trials that had failed before this run."""
        self._finish_removing()

    def _finish_removing(self) -> None:
        """Remove the checkpoints that the driver before this one was killed before it could: of a cell's last end."""
        for book in self._store.books.values():
            ended = [event["trial"] for event in book.history if event["event"] == "end"]
            last = book.records.get(ended[-1]) if ended else None
            if last is not None:
                before = policy.worth_keeping(each for each in book.records.values() if each.id != last.id)
                self._remove_but_the_best(book.records.values(), (last, *before))

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its scheduler with the run. Nothing is ever restored from that: the journals are the state."""
        return {}

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        self._keep_listeners(tune_controller, trial)
        spec = self._spec(trial)
        self._rungs[spec.cell.key].add(spec.id, spec.phase)

    def _keep_listeners(self, tune_controller: Any, trial: Any) -> None:
        # Tune keeps at most one idle actor unless trials are waiting for it, and here none ever waits: a suggestion is
        # made when a slot is free, not before. Without this a new process starts whenever two trials end together.
        if len(self._store.in_flight) > self._listeners:
            self._listeners += 1
            tune_controller._actor_cache.increase_max(trial.placement_group_factory)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: Mapping[str, Any]) -> str:  # noqa: ARG002
        spec = self._spec(trial)
        goes_on = [self._handle(spec, item) for item in result["items"]]
        return str(TrialScheduler.CONTINUE if all(goes_on) else TrialScheduler.STOP)

    def choose_trial_to_run(self, tune_controller: Any) -> None:
        """Choose none in particular: Tune starts what is pending anyway, without a look through all that ever were."""

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:  # noqa: ARG002
        """Have another process listen to a training that goes on, or another slot take the trial if its own is lost."""
        spec = self._store.in_flight.get(trial.config["trial"])
        if spec is None:
            return
        slot = self._search.slot_of(spec)
        slot.listen(wait_s=HEAR_S)
        tries = self._tries[spec.id] = self._tries.get(spec.id, 0) + 1
        if not policy.may_retry(TrialStatus.failed, tries, crashed=True):
            slot.is_leaving = True
            self._end(spec, TrialStatus.failed, message="the process that listens to the training died again and again")
        elif slot.is_lost:
            self._search.owe(spec)
        else:
            self._search.listen_again(spec)

    def _spec(self, trial: Any) -> TrialSpec:
        return self._store.in_flight[trial.config["trial"]]

    def _handle(self, trial: TrialSpec, item: Item) -> bool:
        """Act on one thing a slot said; False if the trial is over."""
        match item["kind"]:
            case "measured":
                return self._measured(trial, Measurement.from_json(item["measurement"]))
            case "restarted":
                self._store.start(trial)
                return True
            case "completed":
                self._end(trial, TrialStatus.completed)
            case "diverged":
                self._rungs[trial.cell.key].diverged(trial.id, item["budget"])
                self._end(trial, TrialStatus.diverged, budget=item["budget"], message=item["message"])
            case "oom":
                return self._out_of_memory(trial, item["message"])
            case "failed":
                return self._failed(trial, item)
            case "left":
                self._search.owe(trial)
        return False

    def _measured(self, trial: TrialSpec, measurement: Measurement) -> bool:
        self._store.measure(trial, measurement)
        score = measurement.score if math.isfinite(measurement.score) else self._store.objective.floor
        falls = self._rungs[trial.cell.key].stops(trial.id, measurement.budget, score)
        if measurement.budget not in trial.rungs:
            return True
        self._search.slot_of(trial).decide(trial.id, measurement.budget, stop=falls)
        if falls:
            self._end(trial, TrialStatus.stopped)
        return not falls

    def _out_of_memory(self, trial: TrialSpec, message: str) -> bool:
        self._divisor[trial.id] = 2
        return self._fail_or_retry(trial, message, TrialStatus.oom)

    def _failed(self, trial: TrialSpec, item: Item) -> bool:
        if item.get("group_lost"):
            self._search.slot_of(trial).fault = item["message"]
            self._search.owe(trial)
            return False
        if item.get("final"):
            self._end(trial, TrialStatus.failed, message=item["message"])
            return False
        return self._fail_or_retry(trial, item["message"])

    def _fail_or_retry(self, trial: TrialSpec, message: str, status: TrialStatus = TrialStatus.failed) -> bool:
        tries = self._tries[trial.id] = self._tries.get(trial.id, 0) + 1
        if not policy.may_retry(status, tries, crashed=False):
            self._end(trial, status, message=message)
            return False
        self._search.submit(trial, self._divisor.get(trial.id, 1))
        return True

    def _end(self, trial: TrialSpec, status: TrialStatus, *, budget: int | None = None, message: str = "") -> None:
        """Keep the outcome, and of the checkpoints those still owed and those of the cell's best trials."""
        records = self._store.books[trial.cell.key].records
        kept_before = policy.worth_keeping(records.values())
        ended = self._store.end(trial, status, budget=budget, message=message)
        self._look_for_hope(ended)
        self._remove_but_the_best(records.values(), (ended, *kept_before))

    def _remove_but_the_best(self, records: Collection[TrialRecord], some: Iterable[TrialRecord]) -> None:
        """Remove the checkpoints of some of a cell's records, unless they are still owed or of its best trials."""
        kept = {record.id for record in policy.worth_keeping(records)}
        for record in some:
            if record.status.is_result and record.id not in kept:
                self._checkpoints.remove(record.id)

    def _look_for_hope(self, ended: TrialRecord) -> None:
        """Give the run up while its new trials fail one after another, whatever came before."""
        if ended.status.is_result:
            self._failing.clear()
        elif ended.id not in self._tried_again:
            self._failing.append(ended)
        backbones = {book.plan.cell.backbone for book in self._store.books.values()}
        self._search.given_up = policy.is_hopeless(self._failing, len(backbones))
