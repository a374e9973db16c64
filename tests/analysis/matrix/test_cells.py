"""What a cell of the grid is worth, and what is remarked of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bocb_tune.analysis.findings.collect import find
from bocb_tune.analysis.matrix.cells import FRESH_SEEDS, ONLY_POINT, SELECTED_MAXIMUM
from bocb_tune.analysis.sources.load import load
from bocb_tune.analysis.sources.table import SourceError, TrialTable
from tests.support.fakes import FakeRun, write_run
from tests.support.tables import HEADER, messages_of, write


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> TrialTable:
    return load(str(write_run(tmp_path_factory.mktemp("run"), FakeRun(trials=12))))


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


def test_seeds_that_a_point_was_selected_by_are_seeds(tmp_path: Path) -> None:
    """Five runs of each of two settings, without repeats: the better five say how runs differ."""
    runs = [f"a,b,{lr},.1,{score}" for lr, at in ((1, 60), (2, 64)) for score in range(at, at + 5)]
    source = write(tmp_path / "t.csv", "backbone,optimizer,lr,wd,score", *runs, "b,b,1,1,70")
    cell = find(load(source)).cells[0]
    assert (cell.value, cell.best.counts.n_seeds, cell.scores) == (66, 5, (64, 65, 66, 67, 68))
    assert cell.sd == pytest.approx(np.sqrt(2.5))
    assert (cell.best.method, cell.best.lo) == (SELECTED_MAXIMUM, None)


def test_an_all_diverged_cell_of_a_run_has_the_floor(table: TrialTable) -> None:
    ended = table.trials.assign(status="diverged", score=1.0)
    findings = find(replace(table, trials=ended))
    assert all(cell.value == 1.0 for cell in findings.cells)
    (message,) = messages_of(findings, "all_diverged")
    assert message.count("/") == 9


def test_an_unfinished_run_is_reported_and_not_decomposed(tmp_path: Path) -> None:
    run = write_run(tmp_path, FakeRun(trials=4, unfinished=("vit_tiny/lamb",)))
    findings = find(load(str(run)))
    assert findings.missing == ("vit_tiny/lamb",)
    assert findings.interaction_share.reason == "INCOMPLETE_MATRIX"
    assert "1 of 9 cells have no value yet (vit_tiny/lamb)" in messages_of(findings, "incomplete_matrix")[0]
    assert "1 trial(s) are running" in messages_of(findings, "unfinished")[0]
    assert "from 1 to 8" in messages_of(findings, "unequal_trials")[0]


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
    (message,) = messages_of(find(load(source, [space])), "edge_of_range")
    assert message.endswith("may lie beyond: a/adamw (0.08, 0.10 decades from the end of 1e-05 .. 0.1).")
    assert messages_of(find(load(source)), "edge_of_range") == []
    with pytest.raises(SourceError, match=r"search space of 'lion', but the trials are of sgd, adamw"):
        load(source, [space.rename(tmp_path / "lion.yaml")])


def test_scores_at_different_full_budgets_are_not_mixed(tmp_path: Path) -> None:
    rows = ["a,b,80,30,30,.1", "a,b,90,10,10,.2", "a,c,70,30,30,.1"]
    findings = find(load(write(tmp_path / "t.csv", HEADER + ",budget,max_budget,lr", *rows)))
    assert findings.cells[0].value == 80
    assert "1 trial(s) were planned for less" in messages_of(findings, "mixed_budgets")[0]


def test_failed_trials_are_listed_with_their_messages(tmp_path: Path) -> None:
    rows = ["a,b,70,completed,", "a,b,,failed,worker died", "c,b,,failed,worker died", "c,b,,oom,", "c,b,60,completed,"]
    findings = find(load(write(tmp_path / "t.csv", HEADER + ",status,message", *rows)))
    assert messages_of(findings, "failed_trials") == ["2 failed in a/b, c/b: worker died", "1 oom in c/b: no message"]
    assert [cell.value for cell in findings.cells] == [70, 60]
