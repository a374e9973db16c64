"""Any source -> `TrialTable`: a run folder's journals, a trial table of one's own, or a published table."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bocb_tune.analysis.core.cache import Cache, code, fingerprint
from bocb_tune.analysis.core.parallel import spread
from bocb_tune.analysis.sources import paper
from bocb_tune.analysis.sources.scores import recounted
from bocb_tune.analysis.sources.spaces import with_spaces
from bocb_tune.analysis.sources.stated import NOTHING_STATED, Stated
from bocb_tune.analysis.sources.table import (
    CELL,
    REFINED_COLUMNS,
    TRIAL_COLUMNS,
    Dims,
    Pretraining,
    Source,
    SourceError,
    TrialTable,
    granularity,
    make_table,
)
from bocb_tune.analysis.sources.text_table import is_table
from bocb_tune.analysis.sources.trial_file import read_trial_file
from bocb_tune.core.collector import uncollected
from bocb_tune.core.files import CANNOT_BE_DECODED, LOG_FILE
from bocb_tune.core.journal import FOLDER, CellJournal, fold, has_header, read_journal, require_place
from bocb_tune.core.names import listed
from bocb_tune.core.remote_run import fetched
from bocb_tune.core.space import Dim, own_part
from bocb_tune.core.storage import is_uri, name_of
from bocb_tune.core.types import Objective, TrialRecord
from bocb_tune.spec.source import read_source

SCRATCH = "scratch"
"""Name and source of a start from random weights (as in `bocb_tune.spec.pretrained`)."""
MOST_NAMED = 5
"""Images named of those that were skipped."""
NAMED_IMAGE = re.compile(rf"\bimage (.+?) {CANNOT_BE_DECODED}")
FEWEST_PARALLEL = 48
"""Fewer journals than this are read before other processes have started, and need not be kept as arrays."""


def load(
    source: str, spaces: Sequence[Path] = (), cache: Path | None = None, stated: Stated = NOTHING_STATED
) -> TrialTable:
    """Read a source.

    Args:
        source: a run folder or its URI, a CSV, TSV or Parquet trial table, or `paper:NAME`.
        spaces: search spaces the trials were drawn from, files or folders, for sources that do not bring their own.
        cache: folder where the journals of a large run are kept as arrays from one reading to the next.
        stated: what the user says of the scores.

    Raises:
        SourceError: if the source does not exist, is empty, or cannot be read; the message says what to do.
    """
    return with_spaces(_read(source, cache, stated), spaces)


def _read(source: str, cache: Path | None, stated: Stated) -> TrialTable:
    if is_uri(source):
        with fetched(source) as folder:
            table = _read(str(folder), None, stated)
        return replace(table, source=replace(table.source, name=name_of(source)))
    path = Path(source)
    if is_table(path) and path.is_file():
        return read_trial_file(path, stated)
    if source.startswith("paper:"):
        stated.require_table(source)
        return recounted(paper.published(source.removeprefix("paper:")), stated.tolerance)
    if path.is_dir():
        stated.require_table(source)
        return recounted(read_journals(path, cache), stated.tolerance)
    found = "is neither a run folder nor a .csv, .tsv or .parquet file" if path.exists() else "does not exist"
    known = ", ".join(f"paper:{name}" for name in paper.TABLES)
    raise SourceError(f"{source}: {found}; give a run folder, a .csv, .tsv or .parquet trial table, or one of {known}")


def read_journals(folder: Path, cache: Path | None = None) -> TrialTable:
    """Read the journals of a run folder, finished or not."""
    paths = [path for path in sorted((folder / FOLDER).glob("*.jsonl")) if has_header(path)]
    if not paths:
        raise SourceError(
            f"{folder}: no journals in {folder / FOLDER}; give the folder a run wrote (runs/NAME by default)"
        )
    whole, each = _hashes_of(paths)
    cells = _read_cells(paths, each, cache)
    trials = pd.DataFrame((row for cell in cells for row in cell.rows), columns=TRIAL_COLUMNS).astype(_DTYPES)
    curves = _curves(trials, cells)
    objective = _objective(folder, cells)
    return make_table(
        trials,
        curves,
        objective=objective,
        source=Source(kind="run", name=folder.resolve().name, sha256=whole),
        notes=_journal_notes(cells),
        cautions=_skipped_images(folder, max(cell.unreadable for cell in cells)),
        garbled=tuple(problem for cell in cells for problem in cell.garbled),
        refined=pd.DataFrame((row for cell in cells for row in cell.refined), columns=REFINED_COLUMNS).astype(_DTYPES),
        rungs={cell.key: cell.rungs for cell in cells},
        spaces=_run_spaces(folder),
        cells=tuple(cell.key for cell in cells),
        num_images=granularity(curves["score"].to_numpy()) if objective.is_bounded else math.inf,
        validated_on_test=any(cell.validated_on_test for cell in cells),
        pretrainings={row: start for row, _ in (cell.key for cell in cells) if (start := _start_of(row))},
    )


def _start_of(row: str) -> Pretraining | None:
    """Read what a row of a run starts from off its name, `backbone@pretraining` (see `bocb_tune.core.types.Cell`)."""
    backbone, at, name = row.partition("@")
    optimizer = "" if name == SCRATCH else name
    return Pretraining(backbone=backbone, name=name, optimizer=optimizer) if at else None


@dataclass(frozen=True, slots=True, kw_only=True)
class _CellRows:
    """One journal, reduced to what the tables hold: the events of a large run do not fit into memory together."""

    key: tuple[str, str]
    objective: Objective
    garbled: tuple[str, ...]
    unreadable: int
    """Images that a trial could not be given in an epoch, at most."""
    torn: int
    """Lines cut short by a crash."""
    rungs: tuple[int, ...]
    validated_on_test: bool
    rows: list[tuple[Any, ...]]
    """[trials], as `TRIAL_COLUMNS`."""
    refined: list[tuple[Any, ...]]
    """[refined trials], as `REFINED_COLUMNS`."""
    lengths: list[int]
    """[trials], measurements of each."""
    budget: NDArray[np.float64]
    """[measurements]"""
    score: NDArray[np.float64]
    """[measurements]"""


def _read_cells(paths: list[Path], hashes: list[str], cache: Path | None) -> list[_CellRows]:
    if cache is None or len(paths) < FEWEST_PARALLEL:
        return _read_all(paths)
    names = [fingerprint(code(), str(path), content) for path, content in zip(paths, hashes, strict=True)]
    kept = Cache(cache / "journals", (_CellRows, Objective))
    return kept.all(names, lambda missing: _read_all([paths[place] for place in missing]))


def _read_all(paths: list[Path]) -> list[_CellRows]:
    return spread(_read_cell, paths, fewest=FEWEST_PARALLEL)


def _read_cell(path: Path) -> _CellRows:
    with uncollected():
        return _reduced(path)


def _reduced(path: Path) -> _CellRows:
    journal = read_journal(path)
    require_place(path, journal.cell)
    everything = fold(journal.cell, journal.events).values()
    records = [record for record in everything if not own_part(record.hparams)]
    refined = [record for record in everything if own_part(record.hparams)]
    measured = [measurement for record in records for measurement in record.measurements]
    try:
        scores = np.array([measurement.metrics.get("score") for measurement in measured], dtype=float)
    except (TypeError, ValueError) as error:
        raise SourceError(
            f"{path}: a measurement's score is not a number ({error}); mend or delete its line"
        ) from error
    batch_size = journal.settings.get("recipe", {}).get("batch_size")
    return _CellRows(
        key=(journal.cell.row, journal.cell.optimizer),
        objective=journal.objective,
        garbled=tuple(str(problem) for problem in journal.problems if not problem.torn),
        unreadable=int(max((m.metrics.get("unreadable_images") or 0 for m in measured), default=0)),
        torn=sum(problem.torn for problem in journal.problems),
        rungs=_rungs(journal),
        validated_on_test=journal.settings.get("dataset", {}).get("validate_on") == "test",
        rows=[_trial_row(record, batch_size) for record in records],
        refined=[(*_trial_row(record, batch_size), json.dumps(own_part(record.hparams))) for record in refined],
        lengths=[len(record.measurements) for record in records],
        budget=np.array([measurement.budget for measurement in measured], dtype=float),
        score=scores,
    )


def _curves(trials: pd.DataFrame, cells: list[_CellRows]) -> pd.DataFrame:
    lengths = [length for cell in cells for length in cell.lengths]
    curves = trials[[*CELL, "trial"]].loc[trials.index.repeat(lengths)]
    return curves.assign(
        budget=np.concatenate([cell.budget for cell in cells]), score=np.concatenate([cell.score for cell in cells])
    )


_DTYPES: Any = {
    "lr": float,
    "weight_decay": float,
    "score": float,
    "budget": float,
    "max_budget": float,
    "seed": "Int64",
}


def _trial_row(record: TrialRecord, batch_size: int | None) -> tuple[Any, ...]:
    hparams = record.hparams
    return (
        record.cell.row,
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
        record.elapsed_s,
        record.audit,
        record.message.encode(errors="backslashreplace").decode(),  # it may name a file whose name is no Unicode
        *_measured(record, batch_size),
    )


def _measured(record: TrialRecord, batch_size: int | None) -> tuple[float, float, float]:
    """Return the numbers of `MEASURED`, NaN where a journal does not hold them."""
    metrics = [measurement.metrics for measurement in record.measurements]
    rates = [each["images_per_s"] for each in metrics if each.get("images_per_s")]
    last = metrics[-1] if metrics else {}
    return (
        last.get("train_loss", math.nan),
        batch_size / float(np.median(rates)) if rates and batch_size else math.nan,
        last.get("optimizer_state_mib", math.nan),
    )


def _objective(folder: Path, cells: list[_CellRows]) -> Objective:
    objectives = {cell.objective for cell in cells}
    if len(objectives) > 1:
        names = " and ".join(sorted(f"{o.metric} in {o.unit} with floor {o.floor:g}" for o in objectives))
        raise SourceError(f"{folder}: the journals score different things ({names}); analyse them apart")
    return cells[0].objective


def _journal_notes(cells: list[_CellRows]) -> tuple[str, ...]:
    torn = sum(cell.torn for cell in cells)
    text = (
        f"{torn} journal(s) end in a line cut short by a crash; what it would have said is done again on the next run."
    )
    return (text,) if torn else ()


def _skipped_images(folder: Path, number: int) -> tuple[str, ...]:
    """Say how many images no trial was given, and which, as the run's log names them."""
    if not number:
        return ()
    named = listed(_named_in(folder / LOG_FILE), MOST_NAMED)
    text = f"Up to {number} image(s) in an epoch could not be decoded and were skipped"
    return (f"{text}: {named}." if named else f"{text}; {LOG_FILE} is not there to name them.",)


def _named_in(log: Path) -> list[str]:
    """Find the images that a log names, each once."""
    if not log.is_file():
        return []
    with log.open(encoding="utf-8", errors="replace") as lines:
        found = (NAMED_IMAGE.search(line) for line in lines if CANNOT_BE_DECODED in line)
        return list(dict.fromkeys(match[1] for match in found if match))


def _rungs(journal: CellJournal) -> tuple[int, ...]:
    return tuple(sorted({rung for event in journal.events for rung in event.get("rungs", ())}))


def _hashes_of(paths: list[Path]) -> tuple[str, list[str]]:
    """Hash all files together, and each, by SHA-256."""
    whole, each = hashlib.sha256(), []
    for path in paths:
        content = path.read_bytes()
        whole.update(content)
        each.append(hashlib.sha256(content).hexdigest())
    return whole.hexdigest(), each


def _run_spaces(folder: Path) -> dict[str, Dims]:
    """Read the spaces a run's resolved spec holds; none for journals that lost their spec."""
    path = folder / "spec.yaml"
    if not path.exists():
        return {}
    return {name: _dims(space) for name, space in read_source(path).value.get("search_spaces", {}).items()}


def _dims(space: Mapping[str, Mapping[str, float]]) -> Dims:
    return {
        name: Dim(name=name, low=space[name]["low"], high=space[name]["high"], zero_mass=space[name].get("zero", 0.0))
        for name in ("lr", "weight_decay")
    }
