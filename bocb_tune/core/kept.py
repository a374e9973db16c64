"""The models that a run folder keeps: of each cell the checkpoint of its best trial. No torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bocb_tune.core import journal
from bocb_tune.core.files import CHECKPOINTS, LATEST
from bocb_tune.core.journal import CellJournal
from bocb_tune.core.names import unknown
from bocb_tune.core.types import TrialRecord, TrialStatus, merit


class NotKeptError(ValueError):
    """A run folder that does not hold the model that was asked for; the message says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptModel:
    """The best completed trial of a cell whose checkpoint is there."""

    record: TrialRecord
    """Record of the trial."""
    cell: CellJournal
    """Journal of its cell."""
    records: tuple[TrialRecord, ...]
    """Records of all trials of its cell."""
    journal: Path
    checkpoint: Path


def kept_models(run: Path) -> Iterator[KeptModel]:
    """Find the kept model of each cell that has one, by the names of the cells.

    Raises:
        NotKeptError: if the folder is no run folder.
        JournalError: if a journal cannot be read.
    """
    for path in journals_of(run):
        found = _kept(run, path)
        if found is not None:
            yield found


def kept_model(run: Path, key: str) -> KeptModel:
    """Find the kept model of the cell called `key` (`backbone/optimizer`).

    Raises:
        NotKeptError: if the folder is no run folder, or has no such cell, or keeps no model of it.
        JournalError: if its journal cannot be read.
    """
    paths = {path.stem.replace("__", "/"): path for path in journals_of(run)}
    if key not in paths:
        raise NotKeptError(f"{run}: {unknown('cell', key, paths)}")
    found = _kept(run, paths[key])
    if found is None:
        raise NotKeptError(f"{run}: {_why_not(run, paths[key])}")
    return found


def journals_of(run: Path) -> list[Path]:
    """List the journals of a run folder.

    Raises:
        NotKeptError: if there are none.
    """
    paths = [path for path in sorted((run / journal.FOLDER).glob("*.jsonl")) if journal.has_header(path)]
    if not paths:
        raise NotKeptError(f"{run}: no journals in {run / journal.FOLDER}; give the folder of a run")
    return paths


def _kept(run: Path, path: Path) -> KeptModel | None:
    read, records = _records(path)
    kept = [record for record in _completed(records) if _checkpoint(run, record).is_file()]
    if not kept:
        return None
    best = kept[0]
    return KeptModel(record=best, cell=read, records=records, journal=path, checkpoint=_checkpoint(run, best))


def _why_not(run: Path, path: Path) -> str:
    """Say why a cell has no kept model, and what to do about it."""
    read, records = _records(path)
    completed = _completed(records)
    if not completed:
        return (
            f"no trial of {read.cell.key} has reached its full budget, so there is no model of it; "
            "run the experiment on, or take another cell"
        )
    best = completed[0]
    return (
        f"the checkpoint of {best.id}, the best trial of {read.cell.key}, is not at {_checkpoint(run, best)}; "
        f"`bocb-tune trial --from {run} --id {best.id} --keep` trains it once more and keeps it"
    )


def _records(path: Path) -> tuple[CellJournal, tuple[TrialRecord, ...]]:
    read = journal.read_journal(path)
    journal.require_place(path, read.cell)
    return read, tuple(journal.fold(read.cell, read.events).values())


def _completed(records: tuple[TrialRecord, ...]) -> list[TrialRecord]:
    """Sort the trials at the full budget, the best first; of equals in the order in which a run chooses."""
    full = [record for record in records if record.status == TrialStatus.completed and record.score is not None]
    return sorted(full, key=merit, reverse=True)


def _checkpoint(run: Path, record: TrialRecord) -> Path:
    return run / CHECKPOINTS / record.id / LATEST
