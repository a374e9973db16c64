"""The command line: its flags, its exit codes, what goes to stdout, and how quick its help is."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import jsonschema
import pytest
import typer

from bocb_tune import __version__
from bocb_tune.backbones import BACKBONES
from bocb_tune.cli import busy, commands
from bocb_tune.cli import main as cli
from bocb_tune.cli.launch import cell_plans, claim_folder
from bocb_tune.core.types import Phase
from bocb_tune.data import DATASETS
from bocb_tune.optimizers import OPTIMIZERS
from bocb_tune.spec.experiment_file import SpecFile, schema
from bocb_tune.spec.model import dump_resolved, load_spec
from bocb_tune.spec.series import experiments_in
from bocb_tune.spec.source import read_source
from bocb_tune.tasks import TASKS, get_task
from bocb_tune.training.recipes import DEFAULTS, RECIPES
from tests.support.command import bocb
from tests.support.processes.runs import records_in
from tests.support.simulated import Simulation

FILES = sorted((Path(cli.__file__).parents[2] / "experiments").glob("*.yaml"))
EXPERIMENTS = [path for path in FILES if experiments_in(path) == (str(path),)]
"""Those that are no series."""
MEASURES = ("--gap", "--step", "--weights", "--components")
TABLE = ["--metric", "--direction", "--tolerance", "--chance", "--where"]
"""What the user says of a table."""
FLAGS = {
    "check": ["SPEC", "--images"],
    "plan": ["SPEC", "--only", "--set", "--measure", "--json"],
    "run": ["SPEC", "--out", "--address", "--only", "--set"],
    "trial": ["[SPEC]", "--cell", "--lr", "--weight-decay", "--seed", "--set", "--from", "--id", "--profile", "--keep"],
    "status": ["RUN", "--json", "--watch", "--address"],
    "export": ["RUN", "--to", "--cell", "--out"],
    "analyze": ["SOURCE", "[SOURCE]", "-o", "--out", "--space", *TABLE, "--patterns", *MEASURES, "--format"],
    "recommend": ["SOURCE", "--backbone", "--trials", "--space", *TABLE, "--json", "--format"],
    "submit": ["SPEC", "--address", "--out", "--name", "--only", "--set", "--follow"],
    "stop": ["NAME", "--address"],
    "schema": [],
    "list": ["KIND", "[PATTERN]", "--json"],
}
"""Every flag of every command. Settings of an experiment go to the spec, not here."""

TINY = """\
name: tiny
task: synthetic
dataset: synthetic
backbones: [bowl, ridge]
optimizers: [sgd, adamw]
recipe: digits
budget: {epochs: 9, trials_per_cell: 20}
"""


@pytest.fixture(autouse=True)
def _silence(monkeypatch: pytest.MonkeyPatch) -> None:
    """No signs of life, which a busy machine would give and an idle one would not."""
    monkeypatch.setattr(busy, "FIRST_LINE_S", math.inf)


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return path


def test_the_flags_are_those() -> None:
    group: Any = typer.main.get_command(cli.app)
    found = {
        name: [option for param in command.params for option in _spelling(param)]
        for name, command in group.commands.items()
    }
    assert found == FLAGS
    assert [option for param in group.params for option in param.opts] == ["--version"]


def _spelling(param: click.Parameter) -> list[str]:
    return [(param.metavar or param.name or "").upper()] if param.param_type_name == "argument" else param.opts


def test_check_of_a_good_file(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tiny: Path) -> None:
    assert bocb(monkeypatch, "check", tiny) == 0
    assert capsys.readouterr() == (f"{tiny}: fine; 4 cells\n", "")


def test_a_users_error_is_a_message_on_stderr_and_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tiny: Path
) -> None:
    tiny.write_text(TINY.replace("adamw]", "adamv]").replace("ridge", "rigde").replace("9", "0"))
    assert bocb(monkeypatch, "check", tiny) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert [line.split(": ")[:2] for line in err.splitlines()] == [
        [f"{tiny}:4", "backbones[1]"],
        [f"{tiny}:5", "optimizers[1]"],
        [f"{tiny}:7", "budget.epochs"],
    ]


@pytest.mark.parametrize(
    "args", [["chek"], ["check"], ["check", "a", "b"], ["list", "planets"], ["plan", "x", "--jsn"]]
)
def test_a_command_that_is_not_there(monkeypatch: pytest.MonkeyPatch, args: list[str]) -> None:
    assert bocb(monkeypatch, *args) == 2


def test_missing_gpus_are_a_warning(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tiny: Path
) -> None:
    tiny.write_text(TINY + "resources: {gpus_per_worker: 99}\n")
    assert bocb(monkeypatch, "check", tiny) == 0
    place = f"warning: {tiny}:8: resources.gpus_per_worker: "
    assert capsys.readouterr().err.startswith(f"{place}a trial needs 99 GPUs and this machine has ")


def test_plan_as_text(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tiny: Path) -> None:
    assert bocb(monkeypatch, "plan", tiny, "--only", "*/sgd") == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert dump_resolved(load_spec(tiny)) in out
    for piece in (
        "2 cells, 2 skipped",
        "bowl/sgd   0.0001 .. 1  1e-06 .. 0.01 or 0  0.1, 0.0001",
        "skipped, not matched by --only */sgd: bowl/adamw, ridge/adamw\n",
        "design        8        16",
        "Epochs: 432 at worst, about 204 with early stopping (rungs after epoch 1, 3; a trial runs to 9).",
    ):
        assert piece in out, out


def test_a_plan_says_what_is_changed_of_a_recipe_and_cuts_no_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tiny: Path
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)  # of whoever runs the tests
    lines = ("task: classification", "dataset: digits", "backbones: [deit_tiny_distilled_patch16_224]")
    own = "recipe: {base: digits, batch_size: 32, augment: none}\noptimizers: [schedulefree_adamw]"
    kept = [line for line in TINY.splitlines() if line.startswith(("name", "budget"))]
    tiny.write_text("\n".join([*kept, *lines, own]))
    assert bocb(monkeypatch, "plan", tiny) == 0
    out = capsys.readouterr().out
    assert "Changed here: batch_size 32, augment none\n" in out
    assert "deit_tiny_distilled_patch16_224/schedulefree_adamw " in out
    tiny.write_text(tiny.read_text().replace("{base: digits, batch_size: 32, augment: none}", "digits"))
    assert bocb(monkeypatch, "plan", tiny) == 0
    assert "Changed here" not in capsys.readouterr().out


def test_plan_of_one_cell_names_few_of_the_others(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tiny: Path
) -> None:
    assert bocb(monkeypatch, "plan", tiny, "--only", "bowl/sgd", "--set", "optimizers=[sgd, adamw, lion]") == 0
    named = "bowl/adamw, bowl/lion, ridge/sgd and 2 more"
    assert f"skipped, not matched by --only bowl/sgd: {named}\n" in capsys.readouterr().out


def test_plan_as_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tiny: Path) -> None:
    assert bocb(monkeypatch, "plan", tiny, "--json", "--set", "budget.epochs=27", "--only", "bowl/*") == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["spec"]["budget"]["epochs"] == 27
    assert [f"{cell['backbone']}/{cell['optimizer']}" for cell in plan["cells"]] == ["bowl/sgd", "bowl/adamw"]
    assert plan["skipped"][0] == {
        "task": "synthetic",
        "dataset": "synthetic",
        "backbone": "ridge",
        "optimizer": "sgd",
        "reason": "not matched by --only bowl/*",
    }
    assert plan["trials"] == {"default": 2, "design": 16, "search": 22, "refine": 0, "repeat": 8, "total": 48}
    assert (plan["rungs"], plan["epochs"]["worst"], plan["checkpoints"]) == ([1, 3, 9], 48 * 27, 2)


@pytest.mark.parametrize(
    ("kind", "names"), [("optimizers", OPTIMIZERS), ("datasets", DATASETS), ("recipes", RECIPES), ("tasks", TASKS)]
)
def test_list(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kind: str, names: dict[str, Any]
) -> None:
    assert bocb(monkeypatch, "list", kind) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[: len(names)]] == list(names)
    assert bocb(monkeypatch, "list", kind, "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == list(names)
    assert all(row["description"] for row in rows)


def test_list_backbones_names_those_of_every_task(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bocb(monkeypatch, "list", "backbones") == 0
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    tasks = {name: described.strip() for name, described in lines}
    able = [task for task in TASKS if "test_resnet" in get_task(task).backbones()]
    assert (tasks["bowl"], tasks["test_resnet"]) == ("synthetic", ", ".join(able))
    assert "classification" in able
    assert [line[0] for line in lines[: len(BACKBONES)]] == list(BACKBONES)


def test_list_backbones_like_a_pattern(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for pattern in ("ResNet50", "*resnet50*"):
        assert bocb(monkeypatch, "list", "backbones", pattern) == 0
        names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
        assert names[0] == "resnet50"
        assert len(names) > 1
        assert all("resnet50" in name for name in names)
    assert bocb(monkeypatch, "list", "backbones", "planet*") == 2


def test_list_recipes_shows_every_key_with_its_default(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bocb(monkeypatch, "list", "recipes") == 0
    _, keys = capsys.readouterr().out.split("\n\n")
    shown = dict(line.split(":")[0].split(maxsplit=1) for line in keys.splitlines()[1:])
    assert shown == {key: "required" if key == "batch_size" else str(value) for key, value in DEFAULTS.items()}


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--lr", "nan"),
        ("--lr", "inf"),
        ("--lr", "0"),
        ("--lr", "-0.1"),
        ("--weight-decay", "-1"),
        ("--weight-decay", "nan"),
    ],
)
def test_a_hyperparameter_that_cannot_be_trained_with_is_refused_by_its_option(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tiny: Path, option: str, value: str
) -> None:
    assert bocb(monkeypatch, "trial", tiny, "--cell", "bowl/sgd", f"{option}={value}") == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert f"{option} is {float(value):g}" in err


def test_a_weight_decay_of_zero_trains(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tiny: Path
) -> None:
    assert bocb(monkeypatch, "trial", tiny, "--cell", "bowl/sgd", "--weight-decay=0") == 0
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()] == [f"{n}/9" for n in range(1, 10)]


def test_each_epoch_of_a_trial_is_shown_while_it_is_trained(monkeypatch: pytest.MonkeyPatch, tiny: Path) -> None:
    shown: list[str] = []

    @contextmanager
    def busy_with(what: str) -> Iterator[None]:
        shown.append(what)
        yield

    monkeypatch.setattr(commands, "busy", busy_with)
    assert bocb(monkeypatch, "trial", tiny, "--cell", "bowl/sgd") == 0
    epochs = [what for what in shown if what.startswith("training")]
    assert epochs == [f"training epoch {min(number, 9)} of 9" for number in range(1, 11)]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--cell", "bowl/sdg"], "--cell: unknown cell 'bowl/sdg'; did you mean 'bowl/sgd'? (known: bowl/adamw, "),
        (["--cell", "bowl/sgd", "--seed=-1"], "--seed"),
        (["--cell", "bowl/sgd", f"--seed={2**31}"], "--seed"),
    ],
)
def test_a_cell_or_a_seed_that_is_none_is_refused_by_its_option(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tiny: Path, args: list[str], message: str
) -> None:
    assert bocb(monkeypatch, "trial", tiny, *args) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "args", [["SPEC"], ["--id", "a"], ["--from", "RUN"], ["SPEC", "--from", "RUN", "--id", "a"], ["--cell", "a/b"]]
)
def test_a_trial_is_given_by_a_cell_or_by_its_id(monkeypatch: pytest.MonkeyPatch, tiny: Path, args: list[str]) -> None:
    assert bocb(monkeypatch, "trial", *(str(tiny) if arg == "SPEC" else arg for arg in args)) == 2


class TestRepeatedTrial:
    @pytest.fixture
    def folder(self, tmp_path: Path, tiny: Path) -> Path:
        folder = tmp_path / "run"
        spec = load_spec(tiny)
        claim_folder(spec, folder)
        Simulation(folder, cell_plans(spec, "bowl/sgd")).run()
        return folder

    def test_it_trains_as_the_run_did(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path
    ) -> None:
        record = next(record for record in records_in(folder).values() if record.phase == Phase.search)
        assert bocb(monkeypatch, "trial", "--from", folder, "--id", record.id[:8]) == 0
        scores = [float(line.split("score ")[1].split()[0]) for line in capsys.readouterr().out.splitlines()]
        recorded = [float(f"{measurement.score:.4g}") for measurement in record.measurements]
        assert scores[: len(recorded)] == recorded

    def test_an_unknown_id_is_refused(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path
    ) -> None:
        assert bocb(monkeypatch, "trial", "--from", folder, "--id", "zz") == 2
        assert "--id zz" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argument", "meant"),
    [
        ("--out=~/runs", "--out=HOME/runs"),
        ("--set=storage=~/runs", "--set=storage=~/runs"),
        ("storage=~/runs", "storage=~/runs"),
        ("--where=a=~/b", "--where=a=~/b"),
        ("--lr=1e-3", "--lr=1e-3"),
        ("--out=~other/x", "--out=~other/x"),
    ],
)
def test_a_tilde_that_the_shell_leaves_is_the_home(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, argument: str, meant: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cli.with_home(argument) == meant.replace("HOME", str(tmp_path))


def test_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert bocb(monkeypatch, "--version") == 0
    assert capsys.readouterr().out == f"{__version__}\n"


def test_help_takes_at_most_half_a_second() -> None:
    """Processor time, the best of three: a busy machine is not the command's fault."""
    assert min(_processor_s([sys.executable, "-m", "bocb_tune", "--help"]) for _ in range(3)) <= 0.5


def _processor_s(command: list[str]) -> float:
    before = os.times()
    subprocess.run(command, capture_output=True, check=True)
    after = os.times()
    return after.children_user - before.children_user + after.children_system - before.children_system


class TestSchema:
    def test_the_file_beside_the_experiments_is_current(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert bocb(monkeypatch, "schema") == 0
        written = (EXPERIMENTS[0].parent / "schema.json").read_text(encoding="utf-8")
        assert capsys.readouterr().out == written, "run: bocb-tune schema > experiments/schema.json"

    @pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
    def test_experiments_hold_and_name_it(self, path: Path) -> None:
        assert path.read_text(encoding="utf-8").startswith("# yaml-language-server: $schema=./schema.json\n")
        jsonschema.validate(read_source(path).value, schema())

    def test_a_resolved_spec_holds(self, tiny: Path) -> None:
        path = tiny.with_name("resolved.yaml")
        path.write_text(dump_resolved(load_spec(tiny)))
        jsonschema.validate(read_source(path).value, schema())

    @pytest.mark.parametrize(
        "line",
        [
            "task: syntetic",
            "task: {name: synthetic, noisy: 1}",
            "optimizers: [adamww]",
            "recipe: {base: digit}",
            "seed: -1",
        ],
    )
    def test_what_the_program_refuses_the_schema_refuses(self, tiny: Path, line: str) -> None:
        lines = [kept for kept in TINY.splitlines() if not kept.startswith(line.split(":")[0])]
        tiny.write_text("\n".join([*lines, line]))
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(read_source(tiny).value, schema())

    def test_every_key_has_a_description(self) -> None:
        whole = schema()
        shapes = {"": whole, **whole["$defs"], "Recipe": whole["properties"]["recipe"]["anyOf"][1]}
        undescribed = [
            f"{name}.{key}"
            for name, shape in shapes.items()
            for key, field in shape["properties"].items()
            if not {**whole["$defs"].get(field.get("$ref", "").split("/")[-1], {}), **field}.get("description")
        ]
        assert undescribed == []
        assert set(whole["properties"]) == set(SpecFile.model_fields)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_experiment_that_ships_checks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], path: Path
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    assert bocb(monkeypatch, "check", path) == 0, capsys.readouterr().err
