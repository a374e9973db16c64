"""Any source -> `TrialTable`: a run folder's journals, a trial table of one's own, or a published table."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from bocb_tune.analysis import paper
from bocb_tune.analysis.table import CURVE_COLUMNS, TRIAL_COLUMNS, Dims, Source, SourceError, TrialTable, make_table
from bocb_tune.analysis.trial_file import SUFFIXES, read_trial_file
from bocb_tune.journal import FOLDER, CellJournal, fold, read_run
from bocb_tune.space import Dim, read_space
from bocb_tune.types import Objective, TrialRecord
from bocb_tune.yaml_source import read_source


def load(source: str, space_file: Path | None = None) -> TrialTable:
    """Read a source.

    Args:
        source: a run folder, a CSV or Parquet trial table, or `paper:NAME`.
        space_file: search space the trials were drawn from, for sources that do not bring their own.

    Raises:
        SourceError: if the source does not exist, is empty, or cannot be read; the message says what to do.
    """
    table = _read(source)
    if space_file is None:
        return table
    return replace(table, spaces={**table.spaces, **_space(space_file, table)})


def _read(source: str) -> TrialTable:
    if source.startswith("paper:"):
        return paper.published(source.removeprefix("paper:"))
    path = Path(source)
    if path.is_dir():
        return read_journals(path)
    if path.suffix.lower() in SUFFIXES and path.is_file():
        return read_trial_file(path)
    found = "is neither a run folder nor a .csv or .parquet file" if path.exists() else "does not exist"
    known = ", ".join(f"paper:{name}" for name in paper.TABLES)
    raise SourceError(f"{source}: {found}; give a run folder, a .csv or .parquet trial table, or one of {known}")


def read_journals(folder: Path) -> TrialTable:
    """Read the journals of a run folder, finished or not."""
    journals = read_run(folder)
    if not journals:
        raise SourceError(
            f"{folder}: no journals in {folder / FOLDER}; give the folder a run wrote (runs/NAME by default)"
        )
    records = [record for journal in journals for record in fold(journal.cell, journal.events).values()]
    return make_table(
        pd.DataFrame((_trial_row(record) for record in records), columns=TRIAL_COLUMNS).astype(_DTYPES),
        pd.DataFrame(_curve_rows(records), columns=CURVE_COLUMNS).astype({"budget": float, "score": float}),
        objective=_objective(folder, journals),
        source=Source(kind="run", name=folder.resolve().name, sha256=_hash_of(folder)),
        notes=_journal_notes(journals),
        garbled=tuple(str(problem) for journal in journals for problem in journal.problems if not problem.torn),
        rungs={(j.cell.backbone, j.cell.optimizer): _rungs(j) for j in journals},
        spaces=_run_spaces(folder),
        cells=tuple((j.cell.backbone, j.cell.optimizer) for j in journals),
    )


_DTYPES: Any = {
    "lr": float,
    "weight_decay": float,
    "score": float,
    "budget": float,
    "max_budget": float,
    "seed": "Int64",
}


def _trial_row(record: TrialRecord) -> tuple[Any, ...]:
    hparams = record.hparams
    return (
        record.cell.backbone,
        record.cell.optimizer,
        record.id,
        str(record.phase),
        str(record.status),
        hparams.get("lr", math.nan),
        hparams.get("weight_decay", math.nan),
        record.seed,
        math.nan if record.score is None else record.score,
        record.budget,
        record.max_budget,
        record.message,
    )


def _curve_rows(records: Iterable[TrialRecord]) -> Iterator[tuple[Any, ...]]:
    for record in records:
        for measured in record.measurements:
            score = measured.metrics.get("score")
            yield (
                record.cell.backbone,
                record.cell.optimizer,
                record.id,
                measured.budget,
                math.nan if score is None else score,
            )


def _objective(folder: Path, journals: list[CellJournal]) -> Objective:
    objectives = {journal.objective for journal in journals}
    if len(objectives) > 1:
        names = " and ".join(sorted(f"{o.metric} in {o.unit} with floor {o.floor:g}" for o in objectives))
        raise SourceError(f"{folder}: the journals score different things ({names}); analyse them apart")
    return journals[0].objective


def _journal_notes(journals: list[CellJournal]) -> tuple[str, ...]:
    torn = sum(problem.torn for journal in journals for problem in journal.problems)
    text = (
        f"{torn} journal(s) end in a line cut short by a crash; what it would have said is done again on the next run."
    )
    return (text,) if torn else ()


def _rungs(journal: CellJournal) -> tuple[int, ...]:
    return tuple(sorted({rung for event in journal.events for rung in event.get("rungs", ())}))


def _hash_of(folder: Path) -> str:
    whole = hashlib.sha256()
    for path in sorted((folder / FOLDER).glob("*.jsonl")):
        whole.update(path.read_bytes())
    return whole.hexdigest()


def _space(path: Path, table: TrialTable) -> dict[str, Dims]:
    space = read_space(path)
    if space.optimizer not in table.optimizers:
        known = ", ".join(table.optimizers)
        raise SourceError(f"{path}: by its name the search space of {space.optimizer!r}, but the trials are of {known}")
    return {space.optimizer: {"lr": space.lr, "weight_decay": space.weight_decay}}


def _run_spaces(folder: Path) -> dict[str, Dims]:
    """The spaces a run's resolved spec holds; none for journals that lost their spec."""
    path = folder / "spec.yaml"
    if not path.exists():
        return {}
    return {name: _dims(space) for name, space in read_source(path).value.get("search_spaces", {}).items()}


def _dims(space: Mapping[str, Mapping[str, float]]) -> Dims:
    return {
        name: Dim(name=name, low=space[name]["low"], high=space[name]["high"], zero_mass=space[name].get("zero", 0.0))
        for name in ("lr", "weight_decay")
    }
