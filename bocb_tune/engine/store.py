"""The records of a run in memory, beside the only writer of its journals. No Ray, no Optuna."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bocb_tune.core import journal
from bocb_tune.core.journal import JournalError, JournalWriter
from bocb_tune.core.types import Cell, Measurement, Objective, TrialRecord, TrialSpec, TrialStatus
from bocb_tune.engine.policy import CellPlan


class CellStore:
    """One cell of the run: its plan, its records in order of first start, its journal."""

    def __init__(
        self, folder: Path, plan: CellPlan, objective: Objective, data: Mapping[str, Any] | None = None
    ) -> None:
        self.plan = plan
        self.records: dict[str, TrialRecord] = {}
        """Records by id, but for those that are owed anew."""
        self.history: tuple[Mapping[str, Any], ...] = ()
        """Events of earlier runs, in the order in which they were written."""
        self.changes = 0
        """Events of this run."""
        self._objective, self._data = objective, data
        self.path = folder / journal.FOLDER / f"{plan.cell.stem}.jsonl"
        self._writer: JournalWriter | None = None
        self._place: Place | None = None
        if self.path.exists() and journal.has_header(self.path):
            self._read()

    def _read(self) -> None:
        read = journal.read_journal(self.path)
        if read.cell != self.plan.cell:
            raise JournalError(
                f"{self.path}: holds the trials of {_described(read.cell)}, and its name is that of"
                f" {_described(self.plan.cell)}; give each journal its own name back, or move this one away"
            )
        garbled = [problem for problem in read.problems if not problem.torn]
        if garbled:
            lines = "\n".join(f"  {problem}" for problem in garbled)
            raise JournalError(
                f"{len(garbled)} line(s) of a journal cannot be read, so what they said would be lost:\n{lines}\n"
                "Mend the lines, or delete them to have what they recorded done again."
            )
        self.history = read.events
        records = journal.fold(self.plan.cell, read.events)
        self.records = {key: record for key, record in records.items() if not record.is_owed_anew}
        if read.data and self._data and read.data != self._data:  # mended before anything had a result
            journal.restate_data(self.path, self._data)

    def append(self, event: Mapping[str, Any], *, durable: bool) -> None:
        """Write an event down, then take it into the records.

        Raises:
            JournalError: if it cannot be written, or the journal is no longer where it was.
        """
        if self._place is not None and not self._place.is_there():
            raise _gone(self.path)
        try:
            if self._writer is None:
                first = journal.header(self.plan.cell, self._objective, self.plan.settings, self._data)
                self._writer = JournalWriter(self.path, first)
                self._place = Place(self.path)
            self._writer.append(event, durable=durable)
        except OSError as error:
            raise JournalError(
                f"{self.path}: cannot be written: {error}. Nothing before this is lost; make room,"
                " then run the same command again."
            ) from error
        self.changes += 1
        self.records.update(journal.apply(self.plan.cell, self.records.get(event["trial"]), event))

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


class RunStore:
    """Cells of the run. Journal first, memory second: what is decided upon is already written."""

    def __init__(
        self,
        folder: Path,
        cells: Sequence[CellPlan],
        objective: Objective,
        provenance: Mapping[str, Any],
        clock: Callable[[], float] = time.time,
        data: Mapping[str, Any] | None = None,
    ) -> None:
        self.objective = objective
        (folder / journal.FOLDER).mkdir(parents=True, exist_ok=True)
        self._place = Place(folder / journal.FOLDER)
        self.books = {cell.cell.key: CellStore(folder, cell, objective, data) for cell in cells}
        self.in_flight: dict[str, TrialSpec] = {}
        """Trials started by this process and not ended, by id."""
        self.on_end: Callable[[TrialRecord], None] = lambda _: None
        self._provenance = provenance
        self._clock = clock
        for book in self.books.values():
            self._require_own_trials(book)

    def _require_own_trials(self, book: CellStore) -> None:
        """Refuse a record whose values make another trial: it would count among those of this cell.

        Raises:
            JournalError: naming the journal, its cell and the cell that the trial is of.
        """
        for record in book.records.values():
            if _planned(book.plan, record).id == record.id:
                continue
            owners = (key for key, other in self.books.items() if _planned(other.plan, record).id == record.id)
            owner = next(owners, "another experiment")
            raise JournalError(
                f"{book.path}: trial {record.id} ({record.phase} {record.index}) is of {owner}, not of"
                f" {_described(book.plan.cell)} as this experiment trains it; delete its lines, or move the file away"
                " to start the cell anew"
            )

    def record(self, trial: TrialSpec) -> TrialRecord:
        return self.books[trial.cell.key].records[trial.id]

    def unfinished(self) -> list[TrialSpec]:
        """Return the trials of earlier runs that have no result: interrupted ones as they stood, failed ones to be
        tried
        again.
        """
        return [
            _planned(book.plan, record)
            for book in self.books.values()
            for record in book.records.values()
            if not record.status.is_result
        ]

    def start(self, trial: TrialSpec) -> TrialRecord:
        book = self.books[trial.cell.key]
        before = book.records.get(trial.id)
        event = journal.start_event(
            trial, attempt=before.attempt + 1 if before else 1, time=self._clock(), provenance=self._provenance
        )
        self._append(book, event, durable=False)
        self.in_flight[trial.id] = trial
        return book.records[trial.id]

    def measure(self, trial: TrialSpec, measurement: Measurement) -> bool:
        """Keep a measurement; False if one of this budget is already kept (an epoch done again after a crash)."""
        if measurement.budget <= self.record(trial).budget:
            return False
        self._append(self.books[trial.cell.key], journal.measure_event(trial.id, measurement), durable=False)
        return True

    def end(
        self, trial: TrialSpec, status: TrialStatus, *, budget: int | None = None, message: str = ""
    ) -> TrialRecord:
        """Keep a trial's outcome. A score that is not finite makes a divergence of it, whatever the trial said."""
        record = self.record(trial)
        last = record.measurements[-1].metrics.get("score") if record.measurements else None
        if status in (TrialStatus.completed, TrialStatus.stopped) and not _is_finite(last):
            status, message = TrialStatus.diverged, "the score is not finite"
        score = {
            TrialStatus.completed: last,
            TrialStatus.stopped: last,
            TrialStatus.diverged: self.objective.floor,
        }.get(status)
        event = journal.end_event(
            trial.id,
            status,
            score=score,
            budget=record.budget if budget is None else budget,
            elapsed_s=record.elapsed_s,
            message=message,
        )
        self._append(self.books[trial.cell.key], event, durable=True)
        self.in_flight.pop(trial.id, None)
        ended = self.record(trial)
        self.on_end(ended)
        return ended

    def _append(self, book: CellStore, event: Mapping[str, Any], *, durable: bool) -> None:
        """Write an event down, where the run folder is still the one that the run began in.

        Raises:
            JournalError: if it is not, or cannot be written: a file that is removed takes lines as before.
        """
        if not self._place.is_there():
            raise _gone(self._place.path)
        book.append(event, durable=durable)

    def release(self, trial: TrialSpec) -> None:
        """Let go of a trial without an outcome: it stays owed."""
        self.in_flight.pop(trial.id, None)

    def close(self) -> None:
        for book in self.books.values():
            book.close()


class Place:
    """A file or folder as it is now, told from one that later stands at its path."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._now = path.stat()

    def is_there(self) -> bool:
        """Tell whether it is still at its path."""
        try:
            return os.path.samestat(self.path.stat(), self._now)
        except OSError:
            return False


def _gone(path: Path) -> JournalError:
    return JournalError(
        f"{path}: was removed, moved or replaced while the run wrote to it, so the run was stopped: what it would"
        " record from now on would be lost. Put it back and run the same command again, or begin anew with --out."
    )


def spec_of(plan: CellPlan, record: TrialRecord) -> TrialSpec:
    """Give the trial that left a record.

    Raises:
        JournalError: if its values make another trial of this plan.
    """
    spec = _planned(plan, record)
    if spec.id != record.id:
        raise JournalError(f"trial {record.id} of {plan.cell.key} is of another experiment than the run folder's")
    return spec


def _planned(plan: CellPlan, record: TrialRecord) -> TrialSpec:
    return plan.trial(record.phase, record.index, record.hparams, seed=record.seed)


def _described(cell: Cell) -> str:
    return f"{cell.key} ({cell.task} on {cell.dataset})"


def _is_finite(score: float | None) -> bool:
    return score is not None and math.isfinite(score)
