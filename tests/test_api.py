"""`bocb_tune.run`, `load` and `analyze`: what the command line does, from Python."""

from __future__ import annotations

import json
from inspect import signature
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import typer

import bocb_tune
from bocb_tune.cli import commands
from bocb_tune.cli import main as cli
from bocb_tune.cli.launch import cell_plans, claim_folder
from bocb_tune.core.types import TrialRecord
from bocb_tune.engine import run as engine
from bocb_tune.spec.model import load_spec
from tests.support.simulated import Simulation

EXPERIMENT = """\
name: mine
task: synthetic
dataset: synthetic
backbones: [bowl]
optimizers: [sgd, adamw]
recipe: digits
budget: {epochs: 4, trials_per_cell: 6}
search: {design: 3}
"""


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(EXPERIMENT)
    return path


@pytest.fixture
def engine_asked(monkeypatch: pytest.MonkeyPatch) -> list[engine.RunPlan]:
    """Trials are simulated where the engine would train them; what it was asked for is kept."""
    asked: list[engine.RunPlan] = []

    def run(plan: engine.RunPlan, _: engine.Watcher) -> engine.Outcome:
        asked.append(plan)
        records: dict[str, TrialRecord] = Simulation(plan.folder, plan.cells).run()
        return engine.Outcome(interrupted=len(asked) > 1, records=tuple(records.values()))

    monkeypatch.setattr(engine, "run", run)
    return asked


def test_a_run_is_trained_read_and_reported(
    tmp_path: Path, experiment: Path, engine_asked: list[engine.RunPlan], capfd: pytest.CaptureFixture[str]
) -> None:
    folder = bocb_tune.run(experiment, out=tmp_path / "run", only="*/sgd", overrides=["budget.epochs=3"])
    assert folder == tmp_path / "run"
    (plan,) = engine_asked
    assert [(cell.cell.key, cell.plan.epochs) for cell in plan.cells] == [("bowl/sgd", 3)]
    assert capfd.readouterr().out == ""
    table = bocb_tune.load(folder)
    assert set(table.trials["optimizer"]) == {"sgd"}
    assert len(table.trials) == 10
    page = bocb_tune.analyze(folder, out=tmp_path / "report")
    assert page == tmp_path / "report" / "report.html"
    assert list(json.loads(page.with_name("metrics.json").read_text())["cells"]) == ["bowl/sgd"]


def test_a_run_that_the_user_stops_is_an_interrupt(
    tmp_path: Path, experiment: Path, engine_asked: list[engine.RunPlan]
) -> None:
    folder = bocb_tune.run(experiment, out=tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        bocb_tune.run(experiment, out=folder)
    assert len(engine_asked) == 2


def test_a_run_folder_is_read_by_its_path_as_text(tmp_path: Path, experiment: Path) -> None:
    spec = load_spec(experiment)
    claim_folder(spec, tmp_path / "run")
    Simulation(tmp_path / "run", cell_plans(spec)).run()
    assert bocb_tune.load(str(tmp_path / "run")).optimizers == bocb_tune.load(tmp_path / "run").optimizers


def test_a_table_is_read_as_it_is_stated(tmp_path: Path) -> None:
    rows = [("vit", "adamw", 10.0**-k, 30.0 + k, where) for k in range(1, 5) for where in ("here", "there")]
    frame = pd.DataFrame(rows, columns=["backbone", "optimizer", "lr", "error", "place"])
    frame.to_csv(tmp_path / "table.csv", index=False)
    (tmp_path / "space.yaml").write_text("adamw: {lr: {low: 1e-6, high: 1.0}}\n")
    table = bocb_tune.load(
        tmp_path / "table.csv", spaces=[tmp_path / "space.yaml"], metric="error", direction="min", where=["place=here"]
    )
    assert len(table.trials) == 4
    assert sorted(table.objective.shown(table.trials["score"])) == [31, 32, 33, 34]
    assert table.spaces["adamw"]["lr"].low == 1e-6


def test_one_text_is_a_sequence_of_one_and_a_tilde_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "t.csv").write_text("backbone,optimizer,score,lr,place\na,sgd,60,.1,x\na,sgd,61,.2,y\n")
    (tmp_path / "sgd.yaml").write_text("lr: {low: 1e-3, high: 1.0}\n")
    table = bocb_tune.load("~/t.csv", spaces="~/sgd.yaml", where="place=x")
    assert (len(table.trials), table.spaces["sgd"]["lr"].high) == (1, 1)
    (tmp_path / "mine.yaml").write_text(EXPERIMENT)
    with pytest.raises(ValueError, match=r"budget\.epoch"):
        bocb_tune.run("~/mine.yaml", overrides="budget.epoch=3")


def test_bad_input_is_a_value_error_that_says_what_to_do(tmp_path: Path, experiment: Path) -> None:
    with pytest.raises(ValueError, match="does not exist; give a run folder"):
        bocb_tune.load(tmp_path / "nothing")
    with pytest.raises(ValueError, match="paper:cifar100"):
        bocb_tune.analyze("paper:cifar", out=tmp_path)
    with pytest.raises(ValueError, match=r"budget\.epoch"):
        bocb_tune.run(experiment, out=tmp_path / "run", overrides=["budget.epoch=3"])


@pytest.mark.parametrize(("name", "renamed"), [("run", {"spec": "experiment"}), ("analyze", {"space": "spaces"})])
def test_a_function_takes_what_its_command_takes(name: str, renamed: dict[str, str]) -> None:
    """Several sources to compare, and the form of what is printed, are the command's alone."""
    group: Any = typer.main.get_command(cli.app)
    options = {str(renamed.get(param.name, param.name)) for param in group.commands[name].params}
    assert options - {"others", "form"} == set(signature(getattr(bocb_tune, name)).parameters)


def test_what_a_table_means_is_said_alike() -> None:
    both = [signature(getattr(bocb_tune, name)).parameters for name in ("load", "analyze")]
    assert set(both[1]) - set(both[0]) == {"out", "patterns", "gap", "step", "weights", "components"}
    assert all(both[0][name] == both[1][name] for name in both[0])


def test_the_command_trains_as_the_function_does(
    tmp_path: Path, experiment: Path, engine_asked: list[engine.RunPlan], capfd: pytest.CaptureFixture[str]
) -> None:
    assert commands.run_experiments(str(experiment), str(tmp_path / "run"), None, "*", ()) == 0
    assert len(engine_asked) == 1
    assert capfd.readouterr().out.strip() == str(tmp_path / "run")


def test_a_series_is_trained_in_its_order_until_one_is_not_complete(
    tmp_path: Path, engine_asked: list[engine.RunPlan], capfd: pytest.CaptureFixture[str]
) -> None:
    for name in "abc":
        text = EXPERIMENT.replace("name: mine", f"name: {name}\nstorage: {tmp_path / 'runs'}")
        (tmp_path / f"{name}.yaml").write_text(text)
    series = tmp_path / "series.yaml"
    series.write_text("experiments: [c.yaml, a.yaml, b.yaml]")
    assert commands.run_experiments(str(series), None, None, "*", ()) == 130  # the second is interrupted
    assert [plan.folder.name for plan in engine_asked] == ["c", "a"]
    assert f"{tmp_path / 'a.yaml'} is not complete" in capfd.readouterr().err
    with pytest.raises(ValueError, match=r"--out .* leave it out"):
        commands.run_experiments(str(series), str(tmp_path / "run"), None, "*", ())
