"""Sources become the same table whatever their form; what cannot be read says where and what to do."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bocb_tune.analysis.checks.run import run_checks
from bocb_tune.analysis.findings.collect import Findings, find
from bocb_tune.analysis.matrix.cells import FRESH_SEEDS, ONLY_POINT, SELECTED_MAXIMUM
from bocb_tune.analysis.sources.load import load
from bocb_tune.analysis.sources.table import SourceError, TrialTable, granularity
from bocb_tune.core.journal import FOLDER, apply, fold, header
from bocb_tune.core.types import Cell, TrialRecord
from tests.support.fakes import OBJECTIVE, FakeRun, write_run

HEADER = "backbone,optimizer,score"


def write(path: Path, *lines: str) -> str:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def remarks(findings: Findings, name: str) -> list[str]:
    return [check.message for check in run_checks(findings) if check.name == name]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], r"t\.csv: not readable as a table"),
        (["backbone,score", "a,1"], r"t\.csv: no column 'optimizer' \(found: backbone, score\); name so what holds it"),
        ([HEADER], r"t\.csv: the table has a header and no rows"),
        ([HEADER, "a,b,good"], r"t\.csv, row 2, column 'score': 'good' is not a number$"),
        ([HEADER, "a,b,1", "", ",b,1", ",b,2"], r"row 4, column 'backbone': '' is empty \(and 1 more such row\)"),
        ([HEADER + ",lr", "a,b,1,0"], r"row 2, column 'lr': '0' is not positive"),
        ([HEADER + ",lr", "a,b,1,0.1", "a,b,2,-3"], r"row 3, column 'lr': '-3' is not positive; if it is a logarithm"),
        ([HEADER + ",lr", "a,b,1,1e-3x"], r"row 2, column 'lr': '1e-3x' is not a number"),
        ([HEADER + ",seed", "a,b,1,1.5"], r"row 2, column 'seed': '1.5' is not a whole number"),
        ([HEADER + ",elapsed_s", "a,b,1,-1"], r"row 2, column 'elapsed_s': '-1' is negative"),
        ([HEADER + ",audit", "a,b,1,maybe"], r"row 2, column 'audit': 'maybe' is none of false, no, 0, true, yes, 1"),
        ([HEADER + ",wd", "a,b,1,-1e-4"], r"row 2, column 'weight_decay': '-1e-4' is negative"),
        ([HEADER + ",lr", "a,b,1,inf"], r"row 2, column 'lr': 'inf' is not finite"),
        ([HEADER + ",status", "a,b,1,complete"], r"row 2, column 'status': 'complete' is none of .*mean 'completed'"),
        ([HEADER + ",phase", "a,b,1,serch"], r"row 2, column 'phase': 'serch' is none of .*mean 'search'"),
        ([HEADER + ",top1", "a,b,1,1"], r"more than one column is read as 'score' \('score' and 'top1'\); keep one"),
        (
            ["model,optim,acc (%)", "a,b,101"],
            r"column 'score': 101 lies outside 0..100, though .* named after points",
        ),
        (["model,optim,acc_fraction", "a,b,60"], r"column 'score': 60 lies outside 0..1, though .* after fraction"),
        (
            [HEADER, "a,b,71", "a,c,0.78", "a,d,80"],
            r"row 3, column 'score': 0.78 may be a fraction of 1, while others",
        ),
        ([HEADER, "a,b,nan"], r"t\.csv: no row has a finite score"),
        ([HEADER + ",trial,budget", "a,b,1,x,3", "a,b,2,x,3"], r"row 2, column 'trial': 'x' stands twice"),
        ([HEADER + ",trial,budget,lr", "a,b,1,x,1,.1", "a,b,2,x,2,.2"], r"column 'lr': .* differs from another row"),
        ([HEADER, "a,b,1,2,3"], r"t\.csv: not readable as a table \(Length of header"),
        ([HEADER, "a,b,1", "a,b,1,2,3"], r"t\.csv: not readable as a table \(.*Expected 3 fields in line 3, saw 5"),
        (["\x00\xff"], r"t\.csv"),
    ],
)
def test_a_bad_table_is_refused_where_it_is_bad(tmp_path: Path, lines: list[str], message: str) -> None:
    with pytest.raises(SourceError, match=message):
        load(write(tmp_path / "t.csv", *lines))


def test_a_source_that_is_none_is_told_what_one_is(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"does not exist; give a run folder, .*paper:cifar100"):
        load(str(tmp_path / "absent"))
    with pytest.raises(SourceError, match=r"no journals in .*cells"):
        load(str(tmp_path))
    with pytest.raises(SourceError, match="is neither a run folder nor"):
        load(write(tmp_path / "t.txt", HEADER))


def test_lenient_names_and_fractions(tmp_path: Path) -> None:
    table = load(write(tmp_path / "t.csv", "Backbone, Optimizer ,Top-1,WD,colour", "a,b,0.5,0,red", "a,c,1,1e-2,blue"))
    assert list(table.trials["score"]) == [50, 100]
    assert list(table.trials["weight_decay"]) == [0, 0.01]
    assert any("fractions" in note for note in table.notes)
    assert any("not used: colour" in note for note in table.notes)


@pytest.mark.parametrize(
    "header",
    [
        "model,optim,acc@1,Learning Rate,WD,epoch,Seed,Run ID",
        "Architecture,Optimiser,Val Acc,learning-rate,weight-decay,budget,random_seed,trial",
        " BACKBONE ,Opt,val_accuracy,base_lr,Weight Decay,Epochs,seed,run",
        "network,optimizer,Top-1 Acc.,LR,weightDecay,epoch,seed,trial_id",
        "arch,optimizer,Accuracy (%),peak lr,wd,epoch,seed,trial",
    ],
)
def test_columns_are_known_however_they_are_written(tmp_path: Path, header: str) -> None:
    table = load(write(tmp_path / "t.csv", header, "a,b,71,0.1,0,9,3,x"))
    row = table.trials.iloc[0]
    assert list(row[["backbone", "optimizer", "score", "lr", "weight_decay", "budget", "seed", "trial"]]) == [
        *("a", "b", 71, 0.1, 0, 9, 3, "x")
    ]
    assert not any("not used" in note for note in table.notes)


@pytest.mark.parametrize("name", ["test_acc", "Test Accuracy (%)", "top1 test", "test score"])
def test_scores_named_after_the_test_data_are_flagged(tmp_path: Path, name: str) -> None:
    alone = load(write(tmp_path / "t.csv", f"backbone,optimizer,{name}", "a,b,71"))
    assert (list(alone.trials["score"]), alone.validated_on_test) == ([71], True)
    beside = load(write(tmp_path / "t.csv", f"backbone,optimizer,{name},val_acc", "a,b,71,69"))
    assert (list(beside.trials["score"]), beside.validated_on_test) == ([69], False)
    assert f"Columns not used: {name}." in beside.notes


def test_the_name_of_the_score_decides_where_the_scores_cannot(tmp_path: Path) -> None:
    rows = ["a,b,71", "a,c,0.78", "a,d,80"]
    table = load(write(tmp_path / "t.csv", "backbone,optimizer,score (points)", *rows))
    assert list(table.trials["score"]) == [71, 0.78, 80]
    table = load(write(tmp_path / "t.csv", "backbone,optimizer,score_points", "a,b,0.5", "a,c,0.9"))
    assert list(table.trials["score"]) == [0.5, 0.9]


@pytest.mark.parametrize(
    "rows",
    [
        ["a,b,71,completed,9", "a,c,0.1,completed,9"],  # as a fraction it would be the worst of all: chance of 1000
        ["a,b,71,completed,9", "a,c,0.72,diverged,9", "a,d,80,completed,9"],
        ["a,b,71,completed,9", "a,c,0.72,,1", "a,d,80,completed,9"],  # ended early
        ["a,b,71,completed,9", "a,c,1,completed,9", "a,d,100,completed,9"],
    ],
)
def test_low_scores_among_points_are_points_where_nothing_else_fits(tmp_path: Path, rows: list[str]) -> None:
    lines = [f"{row},9" for row in rows]
    table = load(write(tmp_path / "t.csv", HEADER + ",status,budget,max_budget", *lines))
    assert table.trials["score"].min() <= 1


def test_a_time_without_a_unit_is_asked_about(tmp_path: Path) -> None:
    table = load(write(tmp_path / "t.csv", HEADER + ",Runtime,audit", "a,b,60,12,yes", "a,c,61,13,"))
    assert any("Columns not used: Runtime ('Runtime' has no unit: call it 'elapsed_s' if" in n for n in table.notes)
    assert table.trials["elapsed_s"].isna().all()
    assert list(table.trials["audit"]) == [True, False]


def test_names_are_taken_as_they_are(tmp_path: Path) -> None:
    names = ["<script>alert('x')</script>", 'say "hi"', "two\nlines", "../../etc/passwd", "a/b", "naïve ☃", "=1+1"]
    frame = pd.DataFrame({"backbone": names, "optimizer": names[::-1], "score": range(60, 67)})
    frame.to_csv(tmp_path / "t.csv", index=False)
    table = load(str(tmp_path / "t.csv"))
    assert set(table.backbones) == set(table.optimizers) == set(names)


def test_one_score_a_cell_is_a_table(tmp_path: Path) -> None:
    table = load(write(tmp_path / "t.csv", HEADER, "a,x,60", "a,y,61", "b,x,62", "b,y,63"))
    assert table.trials[["lr", "weight_decay", "seed", "budget", "elapsed_s"]].isna().all(axis=None)
    assert set(table.trials["status"]) == {"completed"}
    assert len(find(table).cells) == 4


def test_a_run_written_as_a_table_is_read_back_as_it_was(tmp_path: Path) -> None:
    run = load(str(write_run(tmp_path / "run", FakeRun(trials=6))))
    run.trials.to_csv(tmp_path / "trials.csv", index=False)
    again = load(str(tmp_path / "trials.csv"))
    pd.testing.assert_frame_equal(again.trials, run.trials)
    assert run.trials["audit"].dtype == bool
    assert (run.trials["elapsed_s"] == run.trials["budget"]).all()  # the made-up runs take a second an epoch


@pytest.mark.parametrize("num_images", [37, 359, 10_000, 50_000])
def test_scores_tell_how_many_images_they_are_a_share_of(num_images: int) -> None:
    rng = np.random.default_rng(num_images)
    scores = 100 * rng.integers(0, num_images + 1, 1000) / num_images
    assert granularity(scores) == num_images
    assert granularity(scores.astype(np.float32).astype(float)) == num_images
    assert granularity(np.append(scores, [np.nan, np.inf])) == num_images
    assert granularity(scores / 2) in (2 * num_images, math.inf)  # beyond what is looked for


@pytest.mark.parametrize(
    "scores",
    [
        np.random.default_rng(0).uniform(0, 100, 1000),
        np.random.default_rng(0).uniform(0, 100, 10),
        np.arange(9.0),
        np.arange(-5.0, 10.0),
        np.arange(95.0, 110.0),
        np.full(100, np.nan),
        np.array([]),
    ],
)
def test_scores_that_are_no_shares_tell_nothing(scores: np.ndarray[tuple[int], np.dtype[np.float64]]) -> None:
    assert granularity(scores) == math.inf


def test_rounded_scores_of_a_table_are_not_taken_for_shares(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for scores, expected in (
        (rng.uniform(50, 90, 200).round(2), math.inf),
        (100 * rng.integers(100, 360, 200) / 359, 359),
    ):
        frame = pd.DataFrame({"backbone": "a", "optimizer": "b", "score": scores, "seed": range(200)})
        frame.to_csv(tmp_path / "t.csv", index=False)
        assert load(str(tmp_path / "t.csv")).num_images == expected


START = {
    "event": "start",
    "trial": "a",
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
    "trial": "a",
    "status": "failed",
    "score": None,
    "budget": 0,
    "elapsed_s": 1.0,
    "message": "\udcff",
}
CELL = Cell(task="fake", dataset="none", backbone="a", optimizer="b")


def measure(budget: int, score: object) -> dict[str, object]:
    return {"event": "measure", "trial": "a", "budget": budget, "metrics": {"score": score}, "elapsed_s": 1.0 * budget}


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


def test_a_score_that_is_text_is_refused_with_its_file(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"a__b\.jsonl: a measurement's score is not a number .* mend or delete"):
        load(write_journal(tmp_path / "run", START, measure(1, "good")))


EVENTS = st.lists(
    st.one_of(
        st.builds(
            lambda trial, attempt: START | {"trial": trial, "attempt": attempt},
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


def test_repeated_and_empty_rows_are_counted_not_hidden(tmp_path: Path) -> None:
    table = load(write(tmp_path / "t.csv", HEADER, "a,b,60", "a,b,60", "a,c,nan", "b,b,50"))
    assert len(table.trials) == 2
    assert any("1 row(s) repeat an earlier row and were left out: row 3" in note for note in table.notes)
    assert any("1 completed trial(s) have no finite score, left out: row 4" in note for note in table.notes)


def test_rows_that_share_a_trial_are_its_curve(tmp_path: Path) -> None:
    lines = [
        f"a,b,{score},t{trial},{budget},3,{1e-3 * trial}" for trial in (1, 2) for budget, score in ((2, 60), (1, 50))
    ]
    table = load(write(tmp_path / "t.csv", HEADER + ",trial,budget,max_budget,lr", *lines))
    assert list(table.trials["status"]) == ["stopped", "stopped"]
    assert list(table.trials["score"]) == [60, 60]
    assert list(table.curves["budget"]) == [1, 2, 1, 2]


def test_csv_and_parquet_say_the_same(tmp_path: Path) -> None:
    frame = pd.DataFrame({"backbone": ["a", "b"], "optimizer": ["x", "x"], "score": [61.5, 71.0], "lr": [1e-3, np.nan]})
    frame.to_csv(tmp_path / "t.csv", index=False)
    frame.to_parquet(tmp_path / "t.parquet")
    tables = [load(str(tmp_path / name)).trials for name in ("t.csv", "t.parquet")]
    pd.testing.assert_frame_equal(*tables)


def test_the_order_of_rows_has_no_effect(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", FakeRun(trials=6))
    rows = load(str(run)).trials
    for name, order in (("a.csv", rows), ("b.csv", rows.sample(frac=1, random_state=0))):
        order.to_csv(tmp_path / name, index=False)
    one, other = (find(load(str(tmp_path / name))) for name in ("a.csv", "b.csv"))
    assert one.cells == other.cells
    assert one.interaction_share == other.interaction_share


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


def test_a_cell_is_worth_its_fresh_seeds_at_its_best_point(table: TrialTable) -> None:
    cell = find(table).cells[0]
    mine = table.trials[(table.trials["backbone"] == cell.backbone) & (table.trials["optimizer"] == cell.optimizer)]
    repeats = mine[mine["phase"] == "repeat"]["score"]
    searched = mine[(mine["phase"] != "repeat") & (mine["status"] == "completed")]
    assert cell.value == pytest.approx(repeats.mean())
    assert cell.sd == pytest.approx(repeats.std())
    assert cell.selected_score == searched["score"].max()
    assert cell.best.counts.n_seeds == 3
    assert cell.best.lo is not None
    assert cell.best.lo < cell.value < (cell.best.hi or 0)
    assert FRESH_SEEDS in cell.best.method


@pytest.mark.parametrize(
    ("rows", "value", "method"),
    [
        (["1,.1,,,60"], 60, SELECTED_MAXIMUM),
        (["1,.1,,,60", "1,.1,,,64"], 62, ONLY_POINT),
        (["1,.1,,,60", "2,.1,,,64", "2,.1,,,62"], 63, SELECTED_MAXIMUM),
        (["1,.1,search,,60", "2,.1,search,,50", "1,.1,repeat,,58"], 58, FRESH_SEEDS),
        (["1,.1,search,,60", "2,.1,repeat,,90"], 60, SELECTED_MAXIMUM),
        (["1,.1,search,stopped,99", "2,.1,search,,50"], 50, SELECTED_MAXIMUM),
        (["1,.1,search,diverged,"], None, ""),
        (["1,.1,search,running,", "1,.1,search,failed,"], None, ""),
    ],
)
def test_where_the_value_of_a_cell_comes_from(
    tmp_path: Path, rows: list[str], value: float | None, method: str
) -> None:
    lines = [f"a,b,{row}" for row in rows]
    source = write(tmp_path / "t.csv", "backbone,optimizer,lr,wd,phase,status,score", *lines, "b,b,1,1,search,,70")
    cell = find(load(source)).cells[0]
    assert cell.best.value == (None if value is None else pytest.approx(value))
    assert cell.best.method == method


def test_an_all_diverged_cell_of_a_run_has_the_floor(table: TrialTable) -> None:
    ended = table.trials.assign(status="diverged", score=1.0)
    findings = find(replace(table, trials=ended))
    assert all(cell.value == 1.0 for cell in findings.cells)
    (message,) = remarks(findings, "all_diverged")
    assert message.count("/") == 9


def test_an_unfinished_run_is_reported_and_not_decomposed(tmp_path: Path) -> None:
    run = write_run(tmp_path, FakeRun(trials=4, unfinished=("vit_tiny/lamb",)))
    findings = find(load(str(run)))
    assert findings.missing == ("vit_tiny/lamb",)
    assert findings.interaction_share.reason == "INCOMPLETE_MATRIX"
    assert "1 of 9 cells have no value yet (vit_tiny/lamb)" in remarks(findings, "incomplete_matrix")[0]
    assert "1 trial(s) are running" in remarks(findings, "unfinished")[0]
    assert "from 1 to 8" in remarks(findings, "unequal_trials")[0]


def test_a_garbled_line_is_left_out_counted_and_named(tmp_path: Path) -> None:
    run = write_run(tmp_path, FakeRun(trials=3))
    path = run / "cells" / "vit_tiny__sgd.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([*lines[:4], "{garbled", *lines[4:], '{"event": "mea']), encoding="utf-8")
    findings = find(load(str(run)))
    (message,) = remarks(findings, "garbled_lines")
    assert "1 journal line(s) could not be read" in message
    assert "vit_tiny__sgd.jsonl:5: not a line of JSON" in message
    assert any("cut short by a crash" in note for note in findings.table.notes)


def test_a_best_point_near_the_edge_of_a_known_range_is_named_in_decades(tmp_path: Path) -> None:
    space = tmp_path / "adamw.yaml"
    write(
        space,
        "lr: {low: 1e-5, high: 1e-1}",
        "weight_decay: {low: 1e-4, high: 1.0, zero: 0.15}",
        "default: {lr: 1e-3, weight_decay: 0.05}",
        "fixed: {}",
        "decay: decoupled_times_lr",
        "source: a test",
    )
    source = write(tmp_path / "t.csv", HEADER + ",lr,wd", "a,adamw,70,0.08,0", "b,adamw,70,1e-3,1e-2", "a,sgd,70,99,99")
    (message,) = remarks(find(load(source, space)), "edge_of_range")
    assert message.endswith("may lie beyond: a/adamw (0.08, 0.10 decades from the end of 1e-05 .. 0.1).")
    assert remarks(find(load(source)), "edge_of_range") == []
    with pytest.raises(SourceError, match=r"search space of 'lion', but the trials are of sgd, adamw"):
        load(source, space.rename(tmp_path / "lion.yaml"))


def test_scores_at_different_full_budgets_are_not_mixed(tmp_path: Path) -> None:
    rows = ["a,b,80,30,30,.1", "a,b,90,10,10,.2", "a,c,70,30,30,.1"]
    findings = find(load(write(tmp_path / "t.csv", HEADER + ",budget,max_budget,lr", *rows)))
    assert findings.cells[0].value == 80
    assert "1 trial(s) were planned for less" in remarks(findings, "mixed_budgets")[0]


def test_failed_trials_are_listed_with_their_messages(tmp_path: Path) -> None:
    rows = ["a,b,70,completed,", "a,b,,failed,worker died", "c,b,,failed,worker died", "c,b,,oom,", "c,b,60,completed,"]
    findings = find(load(write(tmp_path / "t.csv", HEADER + ",status,message", *rows)))
    assert remarks(findings, "failed_trials") == ["2 failed in a/b, c/b: worker died", "1 oom in c/b: no message"]
    assert [cell.value for cell in findings.cells] == [70, 60]
