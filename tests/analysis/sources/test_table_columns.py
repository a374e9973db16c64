"""Anybody's table becomes a table of trials, however its columns are named; what cannot be read says where."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bocb_tune.analysis.findings.collect import find
from bocb_tune.analysis.sources.load import load
from bocb_tune.analysis.sources.table import SourceError, granularity
from tests.support.fakes import FakeRun, write_run
from tests.support.tables import HEADER, write


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], r"t\.csv: the first line is empty; it must name the columns"),
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
        ([HEADER + ",status", "a,b,1,complte"], r"row 2, column 'status': 'complte' is none of .*mean 'complete'"),
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
        ([HEADER, "a,b,1,2,3"], r"t\.csv: rows have more cells than the first line has names"),
        ([HEADER, "a,b,1", "a,b,1,2,3"], r"t\.csv: not readable as a table \(.*Expected 3 fields in line 3, saw 5"),
        (["\x00\xff"], r"t\.csv"),
    ],
)
def test_a_bad_table_is_refused_where_it_is_bad(tmp_path: Path, lines: list[str], message: str) -> None:
    with pytest.raises(SourceError, match=message):
        load(write(tmp_path / "t.csv", *lines))


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


def test_runs_again_of_one_setting_of_a_cell_are_its_fresh_seeds_and_those_of_several_are_not(tmp_path: Path) -> None:
    search = [f"a,b,{70 + k},{10.0**-k}" for k in range(5)]
    seeds = [f"a,b,{score},0.0001" for score in (73, 72)]
    table = load(write(tmp_path / "t.csv", HEADER + ",lr", *search, *seeds))
    phases = table.trials.set_index("score")["phase"]
    assert list(phases[phases == "repeat"].index) == [73, 72]
    (cell,) = find(table).cells
    assert (cell.value, cell.best.counts.n_seeds, cell.selected_score) == (72.5, 2, 74)
    assert any("fresh seeds of it (2 rows)" in caution for caution in table.cautions)

    twice = [f"a,b,{score},1.0" for score in (69, 68)]
    assert (load(write(tmp_path / "twice.csv", HEADER + ",lr", *search, *twice, *seeds)).trials["phase"] == "").all()
    said = [f"{row},search" for row in (*search, *seeds)]
    assert (load(write(tmp_path / "said.csv", HEADER + ",lr,phase", *said)).trials["phase"] == "search").all()
