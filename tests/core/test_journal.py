"""Journals: what is written comes back, old files stay readable, and a bad line is named instead of raised."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bocb_tune.core import journal
from bocb_tune.core.journal import JournalError, JournalWriter, fold, header, measure_event, read_journal, read_run
from bocb_tune.core.types import Cell, Measurement, Objective, Phase, TrialRecord, TrialSpec, TrialStatus
from tests.support.trials import synthetic_trial

GOLDEN = Path(__file__).parents[1] / "golden" / "journal_v1.jsonl"
"""Never changed: it stands for the journals on users' disks."""

CELL = Cell(task="synthetic", dataset="synthetic", backbone="bowl", optimizer="sgd")
OBJECTIVE = Objective(metric="top1", unit="points", floor=1.0)


def measured(*curve: tuple[float | None, float]) -> tuple[Measurement, ...]:
    """Measurements of a curve of (score, elapsed_s), as the golden journal holds them."""
    return tuple(
        Measurement(
            budget=budget,
            metrics={"score": score, "val_loss": None if score is None else 1.5},  # type: ignore[dict-item]
            elapsed_s=elapsed_s,
        )
        for budget, (score, elapsed_s) in enumerate(curve, start=1)
    )


def golden_record(trial_id: str, phase: Phase, index: int, lr: float, weight_decay: float, **rest: Any) -> TrialRecord:
    return TrialRecord(
        id=trial_id,
        cell=CELL,
        phase=phase,
        index=index,
        hparams={"lr": lr, "weight_decay": weight_decay},
        max_budget=4,
        world_size=2,
        provenance={"host": "node-1", "ray": "2.60.0"},
        **({"audit": False} | rest),
    )


GOLDEN_RECORDS = (
    golden_record(
        "746e1edbf98a5607",
        Phase.default,
        0,
        0.1,
        1e-4,
        seed=11,
        status=TrialStatus.completed,
        attempt=2,
        measurements=measured((50.25, 1.0), (60.5, 2.0), (64.0, 3.5), (66.125, 4.5)),
        budget=4,
        score=66.125,
        elapsed_s=4.5,
    ),
    golden_record(
        "451359424c486778",
        Phase.design,
        0,
        0.001,
        0.0,
        seed=12,
        status=TrialStatus.stopped,
        measurements=measured((12.75, 1.25)),
        budget=1,
        score=12.75,
        elapsed_s=1.25,
    ),
    golden_record(
        "36a81cdabba0cfed",
        Phase.design,
        1,
        0.5,
        0.01,
        seed=13,
        audit=True,
        status=TrialStatus.diverged,
        measurements=measured((None, 0.75)),
        budget=2,
        score=1.0,
        elapsed_s=1.5,
        message="loss is not finite",
    ),
    golden_record(
        "b1a1beb114edd6b8",
        Phase.search,
        0,
        0.02,
        3e-4,
        seed=14,
        status=TrialStatus.running,
        attempt=2,
        measurements=measured((55.5, 1.0), (58.0, 2.0)),
        budget=2,
        elapsed_s=2.0,
    ),
    golden_record(
        "dbb7ea97cdddda86",
        Phase.search,
        1,
        0.03,
        3e-4,
        seed=15,
        status=TrialStatus.oom,
        measurements=measured((40.0, 1.0)),
        budget=1,
        elapsed_s=1.0,
        message="out of memory at half the micro-batch",
    ),
    golden_record("be8f3cdf545450ee", Phase.repeat, 0, 0.1, 1e-4, seed=16, status=TrialStatus.running),
)


def test_the_golden_journal_folds_to_the_same_records_for_ever() -> None:
    read = read_journal(GOLDEN)
    assert (read.cell, read.objective) == (CELL, OBJECTIVE)
    assert read.settings == {
        "task": {"noise": 0.5},
        "dataset": {"name": "synthetic"},
        "recipe": {"batch_size": 256},
        "optimizer": {"momentum": 0.9},
        "workers": 2,
    }
    assert tuple(fold(read.cell, read.events).values()) == GOLDEN_RECORDS
    (problem,) = read.problems
    assert problem.torn
    assert str(problem) == f"{GOLDEN}:25: cut short by a crash"


def golden_trial(record: TrialRecord) -> TrialSpec:
    return TrialSpec(
        cell=record.cell,
        phase=record.phase,
        index=record.index,
        hparams=record.hparams,
        seed=record.seed,
        budget=record.max_budget,
        settings=read_journal(GOLDEN).settings,
        audit=record.audit,
    )


@pytest.mark.parametrize("record", GOLDEN_RECORDS, ids=lambda record: record.id)
def test_the_identity_of_a_trial_is_frozen(record: TrialRecord) -> None:
    assert golden_trial(record).id == record.id


@pytest.mark.parametrize(
    ("change", "is_another"),
    [
        ({"hparams": {"lr": 0.1, "weight_decay": 2e-4}}, True),
        ({"seed": 12}, True),
        ({"budget": 5}, True),
        ({"settings": {"workers": 1}}, True),
        ({"cell": replace(CELL, backbone="ridge")}, True),
        ({"hparams": {"weight_decay": 1e-4, "lr": 0.1}}, False),  # order of keys
        ({"phase": Phase.search, "index": 7}, False),
        ({"rungs": (1, 2), "audit": True}, False),
    ],
)
def test_the_identity_is_of_what_changes_the_result_and_of_nothing_else(
    change: dict[str, Any], is_another: bool
) -> None:
    trial = golden_trial(GOLDEN_RECORDS[0])
    assert (replace(trial, **change).id != trial.id) == is_another


def golden_lines() -> list[bytes]:
    return GOLDEN.read_bytes().split(b"\n")[:-1]


def write(path: Path, *lines: bytes | dict[str, Any]) -> Path:
    whole = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    path.write_bytes(b"".join(line + b"\n" for line in whole))
    return path


def test_writing_continues_a_file_and_cuts_its_torn_tail(tmp_path: Path) -> None:
    path = tmp_path / "cells" / "bowl__sgd.jsonl"
    trial = synthetic_trial()
    started = journal.start_event(trial, attempt=1, time=1.0, provenance={})
    writer = JournalWriter(path, header(CELL, OBJECTIVE, {}))
    writer.append(started, durable=True)
    writer.close()
    with path.open("a") as file:
        file.write('{"event":"measure","trial"')
    measure = measure_event(trial.id, Measurement(budget=1, metrics={"score": 50.0}, elapsed_s=1.0))
    writer = JournalWriter(path, header(CELL, OBJECTIVE, {}))
    writer.append(measure, durable=False)
    writer.close()
    (read,) = read_run(tmp_path)
    assert (read.events, read.problems) == ((started, measure), ())


def test_an_empty_file_left_by_a_crash_is_no_journal_yet(tmp_path: Path) -> None:
    (tmp_path / "cells").mkdir()
    for name, content in [("bowl__adamw", b""), (CELL.stem, b'{"event":"sch')]:
        (tmp_path / "cells" / f"{name}.jsonl").write_bytes(content)
    assert read_run(tmp_path) == []
    JournalWriter(tmp_path / "cells" / f"{CELL.stem}.jsonl", header(CELL, OBJECTIVE, {})).close()
    assert [read.cell for read in read_run(tmp_path)] == [CELL]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_become_null(tmp_path: Path, value: float) -> None:
    path = tmp_path / "journal.jsonl"
    writer = JournalWriter(path, header(CELL, OBJECTIVE, {}))
    curve = {"score": value, "per_class": [1.0, value]}
    writer.append(
        {"event": "measure", "trial": "a" * 16, "budget": 1, "metrics": curve, "elapsed_s": 1.0}, durable=False
    )
    writer.close()
    (event,) = read_journal(path).events
    assert event["metrics"] == {"score": None, "per_class": [1.0, None]}


@pytest.mark.parametrize(
    ("first", "message"),
    [
        (b"", "the first line is not a journal's schema"),
        (b"[]", "the first line is not a journal's schema"),
        (b'{"event":"start"}', "the first line is not a journal's schema"),
        (b'{"event":"schema","version":1}', "the first line is not a journal's schema"),
        (b'{"event":"schema","version":1,"cell":{"name":"x"},"objective":{},"settings":{}}', "move the file away"),
        (
            golden_lines()[0].replace(b'"version":1', b'"version":2'),
            r"written by a newer release \(schema 2, this one reads up to 1\); read it with that release",
        ),
    ],
)
def test_a_file_without_a_schema_it_knows_is_refused(tmp_path: Path, first: bytes, message: str) -> None:
    path = write(tmp_path / "bad.jsonl", first, *golden_lines()[1:])
    with pytest.raises(JournalError, match=rf"bad\.jsonl:1: .*{message}"):
        read_journal(path)


START, MEASURE, END = (json.loads(golden_lines()[number]) for number in (1, 2, 6))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"\x00\xff garbage", "not a line of JSON"),
        (b"[1, 2]", "not a line of JSON"),
        ({"event": "pause", "trial": "a"}, "unknown event 'pause'"),
        ({"event": ["start"], "trial": "a"}, "unknown event ['start']"),
        ({"trial": "a"}, "unknown event None"),
        ({"event": "measure", "trial": "a", "budget": 1}, "event 'measure' without metrics, elapsed_s"),
        (START | {"phase": "warmup"}, "event 'start' with phase 'warmup', which this release cannot read"),
        (END | {"status": "paused"}, "event 'end' with status 'paused', which this release cannot read"),
        (END | {"status": ["failed"], "budget": "1"}, "event 'end' with status ['failed'], budget '1', which"),
        (MEASURE | {"metrics": 50.0}, "event 'measure' with metrics 50.0, which"),
        (START | {"trial": "../../victim"}, "event 'start' with trial '../../victim', which"),
    ],
)
def test_a_line_that_cannot_be_read_is_named_and_the_rest_is_kept(
    tmp_path: Path, line: bytes | dict[str, Any], message: str
) -> None:
    path = write(tmp_path / "bad.jsonl", *golden_lines()[:5], line, *golden_lines()[5:])
    read = read_journal(path)
    (problem,) = read.problems
    assert str(problem).startswith(f"{path}:6: ")
    assert message in problem.message
    assert not problem.torn
    assert tuple(fold(read.cell, read.events).values()) == GOLDEN_RECORDS


@given(line=st.integers(1, 23), place=st.integers(0, 400), byte=st.binary(min_size=0, max_size=2))
@settings(max_examples=200, deadline=None)
def test_whatever_happens_to_a_byte_reading_never_raises(
    tmp_path_factory: pytest.TempPathFactory, line: int, place: int, byte: bytes
) -> None:
    lines = golden_lines()
    place %= len(lines[line])
    lines[line] = lines[line][:place] + byte + lines[line][place + 1 :]
    read = read_journal(write(tmp_path_factory.getbasetemp() / "garbled.jsonl", *lines))
    fold(read.cell, read.events)


def test_events_of_a_trial_that_never_started_leave_nothing() -> None:
    assert fold(CELL, [MEASURE, END]) == {}


def test_the_first_measurement_of_a_budget_stands() -> None:
    again = MEASURE | {"metrics": {"score": 99.0}}
    (record,) = fold(CELL, [START, MEASURE, again]).values()
    assert [measurement.score for measurement in record.measurements] == [50.25]


def test_starting_again_forgets_the_outcome_and_keeps_the_curve() -> None:
    failed = END | {"trial": START["trial"], "status": "failed", "score": None, "message": "OSError: disk"}
    (record,) = fold(CELL, [START, MEASURE, failed, START | {"attempt": 2}]).values()
    assert (record.status, record.attempt, record.score, record.message) == (TrialStatus.running, 2, None, "")
    assert record.measurements == (Measurement.from_json(MEASURE),)
