"""Journals of a run become a table of trials; what cannot be read says where and what to do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bocb_tune.analysis.findings.collect import find
from bocb_tune.analysis.sources.load import load
from bocb_tune.analysis.sources.table import SourceError, TrialTable
from bocb_tune.core.files import CANNOT_BE_DECODED, LOG_FILE
from bocb_tune.core.journal import FOLDER, apply, fold, header
from bocb_tune.core.types import Cell, TrialRecord
from tests.support.fakes import OBJECTIVE, FakeRun, write_run
from tests.support.tables import HEADER, messages_of, write


def test_a_source_that_is_none_is_told_what_one_is(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"does not exist; give a run folder, .*paper:cifar100"):
        load(str(tmp_path / "absent"))
    with pytest.raises(SourceError, match=r"no journals in .*cells"):
        load(str(tmp_path))
    with pytest.raises(SourceError, match="is neither a run folder nor"):
        load(write(tmp_path / "t.txt", HEADER))


START = {
    "event": "start",
    "trial": "a" * 16,
    "phase": "search",
    "index": 0,
    "hparams": {"lr": 0.1, "weight_decay": 0.0},
    "seed": 1,
    "audit": True,
    "attempt": 1,
    "max_budget": 9,
    "rungs": [],
    "world_size": 1,
    "provenance": {},
}
END = {
    "event": "end",
    "trial": "a" * 16,
    "status": "failed",
    "score": None,
    "budget": 0,
    "elapsed_s": 1.0,
    "message": "\udcff",
}
CELL = Cell(task="fake", dataset="none", backbone="a", optimizer="b")


def measure(budget: int, score: object) -> dict[str, object]:
    return {
        "event": "measure",
        "trial": "a" * 16,
        "budget": budget,
        "metrics": {"score": score},
        "elapsed_s": 1.0 * budget,
    }


def write_journal(folder: Path, *events: dict[str, object]) -> str:
    (folder / FOLDER).mkdir(parents=True)
    lines = [header(CELL, OBJECTIVE, {}), *events]
    write(folder / FOLDER / "a__b.jsonl", *[json.dumps(line) for line in lines])
    return str(folder)


def test_the_audit_flag_and_a_message_no_unicode_can_hold_come_out_of_a_journal(tmp_path: Path) -> None:
    table = load(write_journal(tmp_path / "run", START, measure(1, 50.0), measure(2, None), END))
    (row,) = table.trials.itertuples()
    assert (row.audit, row.elapsed_s, row.message) == (True, 1.0, "\\udcff")
    assert table.curves["score"].isna().tolist() == [False, True]
    assert table.garbled == ()


def test_images_that_were_skipped_are_counted_and_named_beside_the_answer(tmp_path: Path) -> None:
    skipped = measure(2, 51.0)
    skipped["metrics"] = {"score": 51.0, "unreadable_images": 2.0}
    run = Path(write_journal(tmp_path / "run", START, measure(1, 50.0), skipped, END | {"status": "completed"}))
    (caution,) = load(str(run)).cautions
    assert "Up to 2 image(s)" in caution
    lines = (f"(pid=7) WARNING image /d/{name}.jpg {CANNOT_BE_DECODED}: broken" for name in ("a b", "c", "a b"))
    (run / LOG_FILE).write_bytes(b"\xff\n" + "\n".join(lines).encode())
    (caution,) = load(str(run)).cautions
    assert "skipped: /d/a b.jpg, /d/c.jpg." in caution
    assert any(caution in said for said in messages_of(find(load(str(run))), "reading"))


def test_a_run_in_which_every_image_was_read_has_no_word_of_it(tmp_path: Path) -> None:
    read = measure(1, 50.0)
    read["metrics"] = {"score": 50.0, "unreadable_images": 0.0}
    assert load(write_journal(tmp_path / "run", START, read, END)).cautions == ()


def test_a_score_that_is_text_is_refused_with_its_file(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"a__b\.jsonl: a measurement's score is not a number .* mend or delete"):
        load(write_journal(tmp_path / "run", START, measure(1, "good")))


EVENTS = st.lists(
    st.one_of(
        st.builds(
            lambda trial, attempt: START | {"trial": trial, "index": "ab".index(trial), "attempt": attempt},
            st.sampled_from("ab"),
            st.integers(1, 3),
        ),
        st.builds(
            lambda trial, budget: measure(budget, 50.0) | {"trial": trial}, st.sampled_from("ab"), st.integers(1, 6)
        ),
        st.builds(
            lambda trial, budget: END | {"trial": trial, "budget": budget}, st.sampled_from("ab"), st.integers(0, 6)
        ),
    ),
    max_size=14,
)


@given(events=EVENTS)
@settings(max_examples=200, deadline=None)
def test_folding_all_events_is_folding_one_after_another(events: list[dict[str, object]]) -> None:
    records: dict[str, TrialRecord] = {}
    for event in events:
        records.update(apply(CELL, records.get(str(event["trial"])), event))
    assert list(fold(CELL, events).items()) == list(records.items())


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> TrialTable:
    return load(str(write_run(tmp_path_factory.mktemp("run"), FakeRun(trials=12))))


def test_a_run_becomes_trials_curves_rungs_and_spaces(table: TrialTable) -> None:
    assert len(table.trials) == 9 * (1 + 12 + 3)
    assert {"completed", "stopped", "diverged"} <= set(table.trials["status"])
    assert table.objective.floor == 1
    assert table.rungs["vit_tiny", "sgd"] == (1, 3)
    assert table.spaces["adamw"]["lr"].high == 0.1
    ends = table.curves.groupby(["backbone", "optimizer", "trial"])["budget"].max().rename("end")
    joined = table.trials.set_index(["backbone", "optimizer", "trial"]).join(ends, how="inner")
    assert (joined["end"] == joined["budget"]).all()


def test_a_garbled_line_is_left_out_counted_and_named(tmp_path: Path) -> None:
    run = write_run(tmp_path, FakeRun(trials=3))
    path = run / "cells" / "vit_tiny__sgd.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([*lines[:4], "{garbled", *lines[4:], '{"event": "mea']), encoding="utf-8")
    findings = find(load(str(run)))
    (message,) = messages_of(findings, "garbled_lines")
    assert "1 journal line(s) could not be read" in message
    assert "vit_tiny__sgd.jsonl:5: not a line of JSON" in message
    assert any("cut short by a crash" in note for note in findings.table.notes)
