"""Journals: one append-only JSON-lines file per cell, the only truth about a run. Standard library only.

A file starts with a `schema` line (version, cell, objective, settings) and goes on with `start`, `measure` and `end`
events. Only the driver writes. A measurement is flushed when it arrives, an end reaches the disk before anything is
done about it, so that a crash loses at most the last line; a torn last line is cut off when the file is next written.
Nothing here is ever unpickled.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from io import TextIOWrapper
from pathlib import Path
from types import NoneType
from typing import Any

from bocb_tune.types import Cell, Measurement, Objective, Phase, TrialRecord, TrialSpec, TrialStatus

VERSION = 1
FOLDER = "cells"


class JournalError(ValueError):
    """A journal that cannot be used as it stands; the message names file, line and remedy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A line that could not be read, and so is not part of the records."""

    file: Path
    line: int
    """Counted from 1."""
    message: str
    torn: bool
    """The last line of the file, cut short by a crash: harmless, what it would have said is done again."""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.message}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CellJournal:
    """One journal as read."""

    cell: Cell
    objective: Objective
    settings: Mapping[str, Any]
    events: tuple[Mapping[str, Any], ...]
    """In the order in which they were written."""
    problems: tuple[Problem, ...]


def header(cell: Cell, objective: Objective, settings: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "event": "schema",
        "version": VERSION,
        "cell": cell.to_json(),
        "objective": asdict(objective),
        "settings": dict(settings),
    }


def start_event(trial: TrialSpec, *, attempt: int, time: float, provenance: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "event": "start",
        "trial": trial.id,
        "phase": str(trial.phase),
        "index": trial.index,
        "hparams": dict(trial.hparams),
        "seed": trial.seed,
        "audit": trial.audit,
        "attempt": attempt,
        "max_budget": trial.budget,
        "rungs": list(trial.rungs),
        "world_size": trial.settings.get("workers", 1),
        "time": time,
        "provenance": dict(provenance),
    }


def measure_event(trial_id: str, measurement: Measurement) -> dict[str, Any]:
    return {"event": "measure", "trial": trial_id, **measurement.to_json()}


def end_event(
    trial_id: str, status: TrialStatus, *, score: float | None, budget: int, elapsed_s: float, message: str = ""
) -> dict[str, Any]:
    return {
        "event": "end",
        "trial": trial_id,
        "status": str(status),
        "score": score,
        "budget": budget,
        "elapsed_s": elapsed_s,
        "message": message,
    }


class JournalWriter:
    """Appends to the journal of one cell. The caller sees to it that there is only one."""

    def __init__(self, path: Path, first_line: Mapping[str, Any]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        _cut_torn_tail(path)
        self._file: TextIOWrapper = path.open("a", encoding="utf-8")
        if self._file.tell() == 0:
            try:
                self.append(first_line, durable=True)
            except BaseException:
                self._file.close()
                raise

    def append(self, event: Mapping[str, Any], *, durable: bool) -> None:
        """Write one line and flush it; `durable` also waits until it is on the disk."""
        self._file.write(json.dumps(_finite(event), separators=(",", ":"), allow_nan=False) + "\n")
        self._file.flush()
        if durable:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def read_journal(path: Path) -> CellJournal:
    """Read one journal; lines that cannot be read are set aside as `problems`.

    Raises:
        JournalError: if the first line is not a schema this release knows.
    """
    lines = path.read_bytes().split(b"\n")
    tail_is_torn = lines[-1] != b""
    cell, objective, settings = _read_header(path, lines[0])
    events, problems = [], []
    for number, line in enumerate(lines[1:], start=2):
        if not line:
            continue
        event = _parse(line)
        torn = tail_is_torn and number == len(lines)
        if isinstance(event, dict) and not torn and (fault := _fault(event)) is None:
            events.append(event)
        else:
            why = "cut short by a crash" if torn else fault if isinstance(event, dict) else "not a line of JSON"
            problems.append(Problem(file=path, line=number, message=why or "", torn=torn))
    return CellJournal(
        cell=cell,
        objective=objective,
        settings=settings,
        events=tuple(events),
        problems=tuple(problems),
    )


def _read_header(path: Path, line: bytes) -> tuple[Cell, Objective, Mapping[str, Any]]:
    first = _parse(line)
    version = first.get("version") if isinstance(first, dict) else None
    if isinstance(version, int) and version > VERSION:
        raise JournalError(
            f"{path}:1: written by a newer release (schema {version}, this one reads up to {VERSION});"
            " read it with that release"
        )
    with contextlib.suppress(KeyError, TypeError, ValueError):
        if first["event"] == "schema":
            return Cell(**first["cell"]), Objective(**first["objective"]), dict(first["settings"])
    raise JournalError(f"{path}:1: the first line is not a journal's schema; move the file away to start the cell anew")


def read_run(folder: Path) -> list[CellJournal]:
    """All journals of a run folder, by file name. An empty file (a crash at creation) is left out."""
    paths = sorted((folder / FOLDER).glob("*.jsonl"))
    return [read_journal(path) for path in paths if has_header(path)]


def fold(cell: Cell, events: Iterable[Mapping[str, Any]]) -> dict[str, TrialRecord]:
    """Records by trial id, in order of first start. The first measurement of a budget stands; later ones repeat it."""
    records: dict[str, TrialRecord] = {}
    for event in events:
        records.update(apply(cell, records.get(event["trial"]), event))
    return records


def apply(cell: Cell, before: TrialRecord | None, event: Mapping[str, Any]) -> dict[str, TrialRecord]:
    """The record an event leaves, by trial id; nothing if it speaks of a trial that never started."""
    if event["event"] == "start":
        return {event["trial"]: _started(cell, event, before)}
    if before is None:
        return {}
    change = _measured if event["event"] == "measure" else _ended
    return {before.id: change(before, event)}


def _started(cell: Cell, event: Mapping[str, Any], before: TrialRecord | None) -> TrialRecord:
    if before is not None:
        return replace(before, status=TrialStatus.running, attempt=event["attempt"], score=None, message="")
    return TrialRecord(
        id=event["trial"],
        cell=cell,
        phase=Phase(event["phase"]),
        index=event["index"],
        hparams=event["hparams"],
        seed=event["seed"],
        max_budget=event["max_budget"],
        audit=event["audit"],
        status=TrialStatus.running,
        attempt=event["attempt"],
        world_size=event["world_size"],
        provenance=event["provenance"],
    )


def _measured(record: TrialRecord, event: Mapping[str, Any]) -> TrialRecord:
    if event["budget"] <= record.budget:
        return record
    measurement = Measurement.from_json(event)
    return replace(
        record,
        measurements=(*record.measurements, measurement),
        budget=measurement.budget,
        elapsed_s=measurement.elapsed_s,
    )


def _ended(record: TrialRecord, event: Mapping[str, Any]) -> TrialRecord:
    return replace(
        record,
        status=TrialStatus(event["status"]),
        score=event["score"],
        budget=event["budget"],
        elapsed_s=event["elapsed_s"],
        message=event["message"],
    )


def _is(*types: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, types)


def _is_one_of(words: type[StrEnum]) -> Callable[[Any], bool]:
    return lambda value: value in list(words)


_FIELDS: dict[str, dict[str, Callable[[Any], bool]]] = {
    "start": {
        "trial": _is(str),
        "phase": _is_one_of(Phase),
        "index": _is(int),
        "hparams": _is(dict),
        "seed": _is(int),
        "audit": _is(bool),
        "attempt": _is(int),
        "max_budget": _is(int),
        "rungs": _is(list),
        "world_size": _is(int),
        "provenance": _is(dict),
    },
    "measure": {"trial": _is(str), "budget": _is(int), "metrics": _is(dict), "elapsed_s": _is(int, float)},
    "end": {
        "trial": _is(str),
        "status": _is_one_of(TrialStatus),
        "score": _is(int, float, NoneType),
        "budget": _is(int),
        "elapsed_s": _is(int, float),
        "message": _is(str),
    },
}
"""What each event says, and what each value has to be."""


def _fault(event: Mapping[str, Any]) -> str | None:
    kind = event.get("event")
    fields = _FIELDS.get(str(kind))
    if fields is None:
        return f"unknown event {kind!r}"
    missing = [name for name in fields if name not in event]
    if missing:
        return f"event {kind!r} without {', '.join(missing)}"
    wrong = [f"{name} {event[name]!r}" for name, fits in fields.items() if not fits(event[name])]
    return f"event {kind!r} with {', '.join(wrong)}, which this release cannot read" if wrong else None


def _parse(line: bytes) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None


def _finite(value: Any) -> Any:
    """JSON has no NaN or infinity: they become null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value


def has_header(path: Path) -> bool:
    """Whether the file holds a whole first line; without one (a crash at its creation) it holds nothing."""
    with path.open("rb") as file:
        return b"\n" in file.readline()


def _cut_torn_tail(path: Path) -> None:
    """Drop what a crash left behind the last line end, so that the next event starts on a line of its own."""
    if not path.exists():
        return
    with path.open("r+b") as file:
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)
