"""Sources become the same table whatever their form; what cannot be read says where and what to do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bocb_tune.analysis.cells import FRESH_SEEDS, ONLY_POINT, SELECTED_MAXIMUM
from bocb_tune.analysis.checks import run_checks
from bocb_tune.analysis.findings import Findings, find
from bocb_tune.analysis.load import load
from bocb_tune.analysis.table import SourceError, TrialTable
from tests.fakes import FakeRun, write_run

HEADER = "backbone,optimizer,score"


def write(path: Path, *lines: str) -> str:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def remarks(findings: Findings, name: str) -> list[str]:
    return [check.message for check in run_checks(findings) if check.name == name]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["backbone,score", "a,1"], r"t\.csv: no column 'optimizer' \(found: backbone, score\)"),
        ([HEADER], r"t\.csv: the table has a header and no rows"),
        ([HEADER, "a,b,good"], r"t\.csv, row 2, column 'score': 'good' is not a number$"),
        ([HEADER, "a,b,1", "", ",b,1", ",b,2"], r"row 4, column 'backbone': '' is empty \(and 1 more such row\)"),
        ([HEADER + ",lr", "a,b,1,0"], r"row 2, column 'lr': '0' is not positive"),
        ([HEADER + ",wd", "a,b,1,-1e-4"], r"row 2, column 'weight_decay': '-1e-4' is negative"),
        ([HEADER + ",lr", "a,b,1,inf"], r"row 2, column 'lr': 'inf' is not finite"),
        ([HEADER + ",status", "a,b,1,complete"], r"row 2, column 'status': 'complete' is none of .*mean 'completed'"),
        ([HEADER + ",phase", "a,b,1,serch"], r"row 2, column 'phase': 'serch' is none of .*mean 'search'"),
        ([HEADER + ",top1", "a,b,1,1"], r"more than one column is read as 'score'"),
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
    assert len(remarks(findings, "all_diverged")) == 9


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
    assert "best lr 0.08 is 0.10 decades from the edge of its range 1e-05 .. 0.1" in message
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
