"""What a score means: direction, unit, tolerance, chance; stated, or told by names and values."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from bocb_tune.analysis.cell.modelling import scale_of
from bocb_tune.analysis.core.estimate import Estimate, of_metric
from bocb_tune.analysis.findings.collect import find
from bocb_tune.analysis.landscape.scale import Scale
from bocb_tune.analysis.sources.load import load
from bocb_tune.analysis.sources.stated import Stated
from bocb_tune.analysis.sources.table import SourceError
from bocb_tune.cli.main import app
from bocb_tune.core.journal import header
from bocb_tune.core.types import Cell, Direction, Objective
from tests.support.tables import HEADER, write

LOSSES = ["a,b,0.9", "a,c,0.8", "a,d,2.0"]


@given(
    score=st.floats(-1e6, 1e6),
    origin=st.sampled_from([0.0, 100.0]),
    point=st.floats(1e-3, 1e3),
    direction=st.sampled_from(Direction),
)
def test_the_metric_of_a_score_has_that_score(score: float, origin: float, point: float, direction: Direction) -> None:
    objective = Objective(metric="m", unit="u", floor=0, direction=direction, origin=origin, point=point)
    assert objective.score(objective.shown(score)) == pytest.approx(score, abs=1e-6)
    better = objective.shown(score + 1) - objective.shown(score)
    assert better == pytest.approx(point if direction is Direction.max else -point, rel=1e-6, abs=1e-6)


def test_a_journal_written_before_directions_still_loads() -> None:
    old = {"metric": "top1", "unit": "points", "floor": 1.0}
    objective = Objective(**old)
    assert objective.is_score
    cell = Cell(task="t", dataset="d", backbone="a", optimizer="b")
    assert Objective(**json.loads(json.dumps(header(cell, objective, {})))["objective"]) == objective


@pytest.mark.parametrize(
    "name", ["loss", "val_loss", "Validation Loss", "eval/loss", "metrics.val_loss", "perplexity", "NLL", "fid", "mse"]
)
def test_losses_are_minimised_and_counted_in_hundredths_of_the_best(tmp_path: Path, name: str) -> None:
    table = load(write(tmp_path / "t.csv", f"backbone,optimizer,{name}", *LOSSES))
    assert table.objective.direction == "min"
    assert list(table.trials["score"]) == pytest.approx([-112.5, -100, -250])
    assert table.objective.shown(table.trials["score"].to_numpy()) == pytest.approx([0.9, 0.8, 2.0])
    assert any("smaller is better; one point of score is 0.008" in caution for caution in table.cautions)
    assert find(table).best is not None
    assert find(table).best.optimizer == "c"  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["error", "top-1 err", "val_error", "test error rate", "score (error)", "error_score"])
@pytest.mark.parametrize("factor", [1.0, 0.01])
def test_an_error_rate_is_what_is_missing_from_a_hundred(tmp_path: Path, name: str, factor: float) -> None:
    rows = [f"a,b,{20 * factor}", f"a,c,{35.5 * factor}"]
    table = load(write(tmp_path / "t.csv", f"backbone,optimizer,{name}", *rows))
    assert list(table.trials["score"]) == pytest.approx([80, 64.5])
    assert table.objective.is_bounded
    assert table.objective.shown(80.0) == 20
    assert table.objective.text(64.5) == "35.50 points"
    assert any("by its name smaller is better" in caution for caution in table.cautions)


def test_percent_of_an_error_in_the_name(tmp_path: Path) -> None:
    table = load(write(tmp_path / "t.csv", "backbone,optimizer,Error (%)", "a,b,0.5", "a,c,0.9"))
    assert list(table.trials["score"]) == [99.5, 99.1]


def test_the_user_has_the_last_word_on_direction(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", HEADER, "a,b,20", "a,c,35.5")
    assert list(load(path).trials["score"]) == [20, 35.5]
    turned = load(path, stated=Stated(direction="min"))
    assert list(turned.trials["score"]) == [80, 64.5]
    assert any("as stated smaller is better" in caution for caution in turned.cautions)


@pytest.mark.parametrize("name", ["value", "objective"])
def test_a_name_that_says_no_direction_is_asked_about(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "t.csv", f"backbone,optimizer,{name}", "a,b,20", "a,c,35.5")
    with pytest.raises(SourceError, match=rf"which way column '{name}' is better; add --direction max or --direction"):
        load(path)


def test_an_accuracy_is_preferred_to_a_loss_and_training_data_are_never_selected_by(tmp_path: Path) -> None:
    columns = "backbone,optimizer,train_acc,val_loss,val_acc,auc"
    path = write(tmp_path / "t.csv", columns, "a,b,99,0.5,71,60", "a,c,98,0.4,70,61")
    table = load(path)
    assert (table.objective.metric, list(table.trials["score"])) == ("val_acc", [71, 70])
    chosen = load(path, stated=Stated(metric="VAL LOSS"))
    assert list(chosen.trials["score"]) == pytest.approx([-125, -100])
    with pytest.raises(SourceError, match=r"no column 'score' \(found: .*or say --metric COLUMN"):
        load(write(tmp_path / "u.csv", "backbone,optimizer,train_acc", "a,b,1"))


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        ("lr", r"--metric lr: the column is read as 'lr', which is no score"),
        ("acuracy", r"--metric acuracy: the table has no one column 'acuracy'; did you mean 'accuracy'\?"),
    ],
)
def test_a_metric_that_is_none_is_refused(tmp_path: Path, metric: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        load(write(tmp_path / "t.csv", "backbone,optimizer,lr,accuracy", "a,b,1,1"), stated=Stated(metric=metric))


@pytest.mark.parametrize(
    ("stated", "point", "tolerance"), [(None, 0.008, 1), ("0.02", 0.02, 1), ("5%", 0.04, 1), ("5 %", 0.04, 1)]
)
def test_the_tolerance_of_a_loss_is_a_share_of_its_best_or_as_stated(
    tmp_path: Path, stated: str | None, point: float, tolerance: float
) -> None:
    table = load(write(tmp_path / "t.csv", "backbone,optimizer,loss", *LOSSES), stated=Stated(tolerance=stated))
    assert (table.objective.point, table.objective.tolerance) == (pytest.approx(point), tolerance)


def test_the_tolerance_of_points_is_one_of_those_computed(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", HEADER, "a,b,20", "a,c,35.5")
    assert find(load(path, stated=Stated(tolerance="5"))).tolerance == 5
    assert find(load(path)).tolerance == 1
    for wrong, message in (("0.3", "give one of 1, 2, 5, 10"), ("1%", "give one of"), ("much", "no.* positive number")):
        with pytest.raises(SourceError, match=message):
            load(path, stated=Stated(tolerance=wrong))


def test_a_metric_whose_best_is_zero_needs_a_tolerance(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "backbone,optimizer,loss", "a,b,0", "a,c,2")
    with pytest.raises(SourceError, match=r"no share can be taken of the best loss, 0; say with --tolerance"):
        load(path)
    assert list(load(path, stated=Stated(tolerance="0.5")).trials["score"]) == [0, -4]


def test_chance_is_what_a_failed_run_scores(tmp_path: Path) -> None:
    points = load(write(tmp_path / "t.csv", HEADER, "a,b,20", "a,c,35.5"), stated=Stated(chance=10))
    assert points.objective.floor == 10
    shares = load(write(tmp_path / "t.csv", HEADER, "a,b,.2", "a,c,.355"), stated=Stated(chance=0.1))
    assert shares.objective.floor == pytest.approx(10)
    losses = load(write(tmp_path / "t.csv", "backbone,optimizer,loss", *LOSSES), stated=Stated(chance=2.4))
    assert losses.objective.floor == pytest.approx(-300)
    assert math.isnan(load(str(tmp_path / "t.csv")).objective.floor)
    with pytest.raises(SourceError, match="is not a finite number"):
        Stated(chance=math.inf)
    with pytest.raises(SourceError, match="'up' is neither max"):
        Stated(direction="up")


@pytest.mark.parametrize("failed", [1, 3, 40])
def test_runs_at_the_chance_of_a_thousand_classes_are_no_fractions(tmp_path: Path, failed: int) -> None:
    rng = np.random.default_rng(failed)
    good = [f"a,b,{score:.2f}" for score in rng.uniform(8, 76, 40)]
    table = load(write(tmp_path / "t.csv", HEADER, *good, *(f"a,c,0.1{number:02}" for number in range(failed))))
    assert np.sort(table.trials["score"])[:failed].max() < 0.2


def test_chance_decides_where_all_scores_are_low(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", HEADER, "a,b,0.1", "a,c,0.9")
    assert list(load(path).trials["score"]) == [10, 90]
    assert list(load(path, stated=Stated(chance=1.5)).trials["score"]) == [0.1, 0.9]


def test_losses_are_modelled_as_logarithms(tmp_path: Path) -> None:
    scale = scale_of(load(write(tmp_path / "t.csv", "backbone,optimizer,loss", *LOSSES)))
    assert scale.is_log
    scores = np.array([-100.0, -200.0, -400.0])
    assert np.diff(scale.forward(scores)) == pytest.approx([-math.log(2)] * 2)
    assert scale.backward(scale.forward(scores)) == pytest.approx(scores)
    negative = scale_of(load(write(tmp_path / "t.csv", "backbone,optimizer,loss", "a,b,-3", "a,c,1")))
    assert negative == replace(negative, is_log=False, bounded=False)
    assert isinstance(negative, Scale)


def test_an_interval_turns_over_with_the_metric() -> None:
    objective = Objective(metric="loss", unit="loss", floor=0, direction=Direction.min, point=0.01)
    shown = of_metric(Estimate(value=-100, lo=-120, hi=-90, unit="points"), objective)
    assert (shown.value, shown.lo, shown.hi, shown.unit) == (1.0, 0.9, 1.2, "loss")


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Reports of the same trials, scored by accuracy and by error."""
    folder = tmp_path_factory.mktemp("reports")
    rng = np.random.default_rng(0)
    lr, wd = 10 ** rng.uniform(-4, 0, 40), 10 ** rng.uniform(-5, -2, 40)
    accuracy = 80 - 6 * (np.log10(lr) + 2) ** 2 + rng.normal(0, 0.3, 40)
    rows = pd.DataFrame({"backbone": "a", "optimizer": "b", "lr": lr, "weight_decay": wd})
    made = {"accuracy": accuracy, "error": 100 - accuracy, "loss": np.exp(-accuracy / 50)}
    for name, values in made.items():
        rows.assign(**{name: values}).to_csv(folder / f"{name}.csv", index=False)
        told = CliRunner().invoke(app, ["analyze", str(folder / f"{name}.csv"), "-o", str(folder / name)])
        assert told.exit_code == 0, told.output
    return {name: folder / name for name in made}


def metrics(report: Path) -> dict[str, dict[str, float]]:
    cell: dict[str, dict[str, float]] = json.loads((report / "metrics.json").read_text())["cells"]["a/b"]
    return cell


def test_an_error_says_what_the_accuracy_says(reports: dict[str, Path]) -> None:
    accuracy, error = metrics(reports["accuracy"]), metrics(reports["error"])
    assert error["expected_score"]["value"] == pytest.approx(100 - accuracy["expected_score"]["value"], abs=0.05)
    assert error["expected_score"]["lo"] < error["expected_score"]["value"] < error["expected_score"]["hi"]
    assert error["best"]["value"] == pytest.approx(100 - accuracy["best"]["value"])
    for key in ("lr_star", "usable_decades_lr_at_5", "lr_sensitivity", "prior_mean_regret"):
        assert error[key]["value"] == pytest.approx(accuracy[key]["value"], rel=0.02), key


def test_a_loss_is_minimised_and_shown_as_it_is(reports: dict[str, Path]) -> None:
    found, whole = metrics(reports["loss"]), json.loads((reports["loss"] / "metrics.json").read_text())
    best = np.exp(-80 / 50)
    assert whole["objective"]["mode"] == "min"
    assert whole["objective"]["point"] == pytest.approx(best / 100, rel=0.05)
    assert found["expected_score"]["value"] == pytest.approx(best, rel=0.05)
    assert found["expected_score"]["unit"] == "loss"
    assert found["lr_star"]["value"] == pytest.approx(0.01, rel=0.5)
    # 5 % of the best loss is 2.4 points of this accuracy, lost .64 decades from the best: 1.27 decades wide
    assert found["usable_decades_lr_at_5"]["value"] == pytest.approx(1.27, rel=0.2)
    trials = pd.read_csv(reports["loss"] / "tables" / "trials.csv")
    assert trials["loss"].min() == pytest.approx(best, rel=0.05)
    page = (reports["loss"] / "report.html").read_text(encoding="utf-8")
    assert "smaller is better" in page


def test_a_recommendation_by_a_loss_expects_a_loss(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "backbone,optimizer,loss,lr,wd", "a,b,0.9,1,1", "a,c,0.8,1,1", "a,d,2,1,1")
    told = CliRunner().invoke(app, ["recommend", path, "--backbone", "a", "--json"])
    found = json.loads(told.stdout)
    assert (found["optimizer"], found["expected"]["value"]) == ("c", pytest.approx(0.8))
    assert any("smaller is better" in caution for caution in found["cautions"])


def test_what_is_said_of_a_table_is_refused_for_a_published_one() -> None:
    with pytest.raises(SourceError, match=r"paper:cifar100: --metric, --where: only for a table"):
        load("paper:cifar100", stated=Stated(metric="x", where=("a=b",)))
    assert load("paper:cifar100", stated=Stated(tolerance="2")).objective.tolerance == 2
