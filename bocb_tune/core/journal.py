"""Journals: one append-only JSON-lines file per cell, the only truth about a run. No torch, no Ray, no pandas.

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
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from io import TextIOWrapper
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from types import NoneType
from typing import Any

import orjson

from bocb_tune.core.names import plain
from bocb_tune.core.types import Cell, Measurement, Objective, Phase, TrialRecord, TrialSpec, TrialStatus, is_digest

VERSION = 1
FOLDER = "cells"


class JournalError(ValueError):
    """A journal that cannot be used as it stands; the message names file, line and remedy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnreadableLine:
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
    data: Mapping[str, Any] | None
    """Fingerprint of the data (see `bocb_tune.data.contents`); None in old journals, and where the driver sees none."""
    events: tuple[Mapping[str, Any], ...]
    """Events in the order in which they were written."""
    problems: tuple[UnreadableLine, ...]


def header(
    cell: Cell, objective: Objective, settings: Mapping[str, Any], data: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    first = {
        "event": "schema",
        "version": VERSION,
        "cell": cell.to_json(),
        "objective": asdict(objective),
        "settings": dict(settings),
    }
    return first if data is None else {**first, "data": dict(data)}


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
    first, *lines = path.read_bytes().split(b"\n")
    tail = lines.pop() if lines else b""
    begun = _read_header(path, first)
    events, problems = [], []
    for number, line in enumerate(lines, start=2):
        if not line:
            continue
        event = _parse(line)
        fault = _fault(event) if isinstance(event, dict) else "not a line of JSON"
        if fault is None:
            events.append(event)
        else:
            problems.append(UnreadableLine(file=path, line=number, message=fault, torn=False))
    if tail:
        problems.append(UnreadableLine(file=path, line=len(lines) + 2, message="cut short by a crash", torn=True))
    return replace(begun, events=tuple(events), problems=tuple(problems))


def read_headers(folder: Path) -> list[CellJournal]:
    """Read the first lines of all journals of a run folder, without their events.

    Raises:
        JournalError: if a file is no journal, or that of another cell than its name says.
    """
    headers = []
    for path in sorted((folder / FOLDER).glob("*.jsonl")):
        with path.open("rb") as file:
            line = file.readline()
        if line.endswith(b"\n"):
            headers.append(_read_header(path, line))
            require_place(path, headers[-1].cell)
    return headers


def require_place(path: Path, cell: Cell) -> None:
    """Refuse a journal that stands under the name of another cell: two were swapped, or one was copied.

    Raises:
        JournalError: naming both cells.
    """
    if path.stem != cell.stem:
        named = path.stem.replace("__", "/")
        raise JournalError(
            f"{path}: holds the trials of {cell.key}, and its name is that of {named}; give it back the name"
            f" {cell.stem}.jsonl, or move it away"
        )


def _read_header(path: Path, line: bytes) -> CellJournal:
    first = _parse(line)
    version = first.get("version") if isinstance(first, dict) else None
    if isinstance(version, int) and version > VERSION:
        raise JournalError(
            f"{path}:1: written by a newer release (schema {version}, this one reads up to {VERSION});"
            " read it with that release"
        )
    with contextlib.suppress(KeyError, TypeError, ValueError, AttributeError):
        if first["event"] == "schema":
            return CellJournal(
                cell=Cell(**first["cell"]),
                objective=Objective(**first["objective"]),
                settings=dict(first["settings"]),
                data=_fingerprint(first["data"]) if "data" in first else None,
                events=(),
                problems=(),
            )
    raise JournalError(f"{path}:1: the first line is not a journal's schema; move the file away to start the cell anew")


def restate_data(path: Path, data: Mapping[str, Any]) -> None:
    """Put another fingerprint into the first line of a journal that nobody writes to, and leave the rest as it is."""
    first, rest = path.read_bytes().split(b"\n", 1)
    line = json.dumps({**_parse(first), "data": dict(data)}, separators=(",", ":"), allow_nan=False)
    draft = path.with_suffix(".part")
    draft.write_bytes(line.encode() + b"\n" + rest)
    os.replace(draft, path)


def _fingerprint(data: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"parts": {part: dict(classes) for part, classes in data["parts"].items()}, "digest": str(data["digest"])}


def read_run(folder: Path) -> list[CellJournal]:
    """Read all journals of a run folder, by file name. An empty file (a crash at creation) is left out.

    Raises:
        JournalError: if a file is no journal, or that of another cell than its name says.
    """
    read = {path: read_journal(path) for path in sorted((folder / FOLDER).glob("*.jsonl")) if has_header(path)}
    for path, journal in read.items():
        require_place(path, journal.cell)
    return list(read.values())


def fold(cell: Cell, events: Iterable[Mapping[str, Any]]) -> dict[str, TrialRecord]:
    """Fold events into records by trial id, in order of first start. The first measurement of a budget stands; later
    ones repeat it. A trial whose place another one took is left out.
    """
    told: dict[str, list[Mapping[str, Any]]] = {}
    for event in events:
        if event["event"] == "start":
            told.setdefault(event["trial"], [])
        if event["trial"] in told:
            told[event["trial"]].append(event)
    records = {trial: _folded(cell, of_trial) for trial, of_trial in told.items()}
    holders = {record.place: key for key, record in sorted(records.items(), key=lambda item: not item[1].is_owed_anew)}
    return {key: record for key, record in records.items() if not record.is_owed_anew or holders[record.place] == key}


def _folded(cell: Cell, events: Iterable[Mapping[str, Any]]) -> TrialRecord:
    """Return the record of one trial's events, the first of which is a start."""
    first, *rest = events
    record = _started(cell, first, None)
    for kind, run in groupby(rest, key=itemgetter("event")):
        if kind == "measure":
            record = _measured(record, run)
            continue
        for event in run:
            record = _started(cell, event, record) if kind == "start" else _ended(record, event)
    return record


def apply(cell: Cell, before: TrialRecord | None, event: Mapping[str, Any]) -> dict[str, TrialRecord]:
    """Return the record an event leaves, by trial id; nothing if it speaks of a trial that never started."""
    if event["event"] == "start":
        return {event["trial"]: _started(cell, event, before)}
    if before is None:
        return {}
    after = _measured(before, [event]) if event["event"] == "measure" else _ended(before, event)
    return {before.id: after}


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


def _measured(record: TrialRecord, events: Iterable[Mapping[str, Any]]) -> TrialRecord:
    """Add many measurements to a frozen record at once: a copy of it for each of millions would be slow."""
    budget, new = record.budget, []
    for event in events:
        if event["budget"] > budget:
            budget = event["budget"]
            new.append(Measurement.from_json(event))
    if not new:
        return record
    return replace(record, measurements=(*record.measurements, *new), budget=budget, elapsed_s=new[-1].elapsed_s)


def _ended(record: TrialRecord, event: Mapping[str, Any]) -> TrialRecord:
    return replace(
        record,
        status=TrialStatus(event["status"]),
        score=event["score"],
        budget=event["budget"],
        elapsed_s=event["elapsed_s"],
        message=plain(event["message"]),
    )


_WORDS: dict[str, type[StrEnum]] = {"phase": Phase, "status": TrialStatus}

_FIELDS: dict[str, dict[str, tuple[type, ...]]] = {
    "start": {
        "trial": (str,),
        "phase": (str,),
        "index": (int,),
        "hparams": (dict,),
        "seed": (int,),
        "audit": (bool,),
        "attempt": (int,),
        "max_budget": (int,),
        "rungs": (list,),
        "world_size": (int,),
        "provenance": (dict,),
    },
    "measure": {"trial": (str,), "budget": (int,), "metrics": (dict,), "elapsed_s": (int, float)},
    "end": {
        "trial": (str,),
        "status": (str,),
        "score": (int, float, NoneType),
        "budget": (int,),
        "elapsed_s": (int, float),
        "message": (str,),
    },
}
"""Fields of each event, and the types of their values."""


def _fault(event: Mapping[str, Any]) -> str | None:
    kind = event.get("event")
    fields = _FIELDS.get(str(kind))
    if fields is None:
        return f"unknown event {kind!r}"
    unfit = [name for name, types in fields.items() if type(event.get(name, ...)) not in types]
    if not unfit and kind != "measure":
        unfit = [name for name in _WORDS.keys() & fields if event[name] not in list(_WORDS[name])]
    if not unfit and not is_digest(event["trial"]):  # it names a folder of checkpoints
        unfit = ["trial"]
    if not unfit:
        return None
    if missing := [name for name in unfit if name not in event]:
        return f"event {kind!r} without {', '.join(missing)}"
    values = ", ".join(f"{name} {event[name]!r}" for name in unfit)
    return f"event {kind!r} with {values}, which this release cannot read"


def _parse(line: bytes) -> Any:
    """Read what a line says; None if it is not JSON."""
    try:
        return orjson.loads(line)
    except ValueError:
        return _parse_odd(line)


def _parse_odd(line: bytes) -> Any:
    """Parse by `json`, which also takes lone surrogates: a message holds them where it names a file that is no
    Unicode."""
    try:
        return json.loads(line)
    except ValueError:
        return None


def _finite(value: Any) -> Any:
    """Replace NaN and infinity, which JSON has not, by null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value


def has_header(path: Path) -> bool:
    """Tell whether the file holds a whole first line; without one (a crash at its creation) it holds nothing."""
    with path.open("rb") as file:
        return b"\n" in file.readline()


def _cut_torn_tail(path: Path) -> None:
    """Drop what a crash left behind the last line end, so that the next event starts on a line of its own."""
    if not path.exists():
        return
    with path.open("r+b") as file:
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)
