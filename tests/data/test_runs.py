"""What a command says of the data before it trains, and which data a run folder goes on with."""

from __future__ import annotations

import ast
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from bocb_tune.cli.launch import (
    FolderError,
    cell_plans,
    claim_folder,
    read_status,
    recorded_trial,
    unknown_data,
)
from bocb_tune.core import journal
from bocb_tune.core.types import Measurement, Objective, Phase, TrialSpec, TrialStatus
from bocb_tune.data import DATASETS, DatasetRow, contents_of, free_options
from bocb_tune.data.arrays import Arrays, Rows
from bocb_tune.data.contents import Contents, ImageSource, StoredPart, fingerprint_of
from bocb_tune.engine.store import RunStore
from bocb_tune.spec import environment as probes
from bocb_tune.spec.model import ExperimentSpec, SpecError, load_spec
from bocb_tune.tasks import get_task
from bocb_tune.training.context import Context
from tests.support.command import bocb
from tests.support.trials import make_folder

OBJECTIVE = Objective(metric="top1", unit="points", floor=50.0)


def write_spec(tmp_path: Path, dataset: str = "digits", recipe: str = "digits", more: str = "") -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(
        f"name: mine\ntask: classification\ndataset: {dataset}\nbackbones: [test_resnet]\noptimizers: [adamw]\n"
        f"recipe: {recipe}\nbudget: {{epochs: 3, trials_per_cell: 9}}\n{more}"
    )
    return path


def of_folder(root: Path, **options: Any) -> str:
    listed = "".join(f", {name}: {value}" for name, value in options.items())
    return f"{{name: imagefolder, root: {root}, image_size: 32, loader_workers: 0{listed}}}"


SMALL = "{base: digits, batch_size: 8, augment: none}"


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "pets", {"train/cat": 20, "train/dog": 20}, size=(8, 8))


def problems(path: Path, *checks: Any) -> list[str]:
    with pytest.raises(SpecError) as caught:
        load_spec(path, (), checks)
    return [line.strip() for line in str(caught.value).splitlines()]


# Before anything is trained


@pytest.mark.parametrize("command", [("check",), ("plan",)])
def test_the_data_and_what_is_left_out_are_said(
    tmp_path: Path, pets: Path, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    (pets / "train/dog/notes.txt").write_text("x")
    assert bocb(monkeypatch, *command, write_spec(tmp_path, of_folder(pets), SMALL)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "train: 36 images, 18 a class" in lines
    assert "left out: 1 ending in .txt: train/dog/notes.txt" in lines


def test_a_plan_as_json_holds_the_data(
    tmp_path: Path, pets: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    assert bocb(monkeypatch, "plan", "--json", write_spec(tmp_path, of_folder(pets), SMALL)) == 0
    data = json.loads(capsys.readouterr().out)["data"]
    assert data["splits"] == {"train": {"cat": 18, "dog": 18}, "val": {"cat": 2, "dog": 2}}


def test_a_batch_beyond_the_data_is_found(tmp_path: Path, pets: Path) -> None:
    path = write_spec(tmp_path, of_folder(pets), "{base: digits, batch_size: 37, augment: none}")
    (found,) = problems(path, probes.data)
    assert "recipe.batch_size: a batch_size of 37 is more than the 36 training images" in found
    load_spec(write_spec(tmp_path, of_folder(pets), "{base: digits, batch_size: 36, augment: none}"), (), [probes.data])
    assert "1197" in problems(write_spec(tmp_path, "digits", "{base: digits, batch_size: 2000}"), probes.data)[0]


def test_fp16_without_a_gpu_is_found(tmp_path: Path) -> None:
    recipe = "{base: digits, precision: fp16}"
    for checks in (probes.PLANNED, probes.LOCAL, probes.REMOTE):
        (found,) = problems(write_spec(tmp_path, "digits", recipe), *checks)
        assert "recipe.precision: 'fp16' needs a GPU" in found
    load_spec(write_spec(tmp_path, "digits", recipe, "resources: {gpus_per_worker: 1}"), (), probes.REMOTE)


@pytest.mark.parametrize(
    ("recipe", "more", "steps"),
    [
        ("{base: digits, ema_decay: 0.9999}", "search: {asha: null}", "54 steps is 99%"),  # 18 an epoch, 3 epochs
        ("{base: digits, ema_decay: 0.95}", "search: {asha: {grace: 1}}", "18 steps is 40%"),
        ("{base: digits, ema_decay: 0.95}", "search: {asha: {grace: 2}}", "36 steps is 16%"),
        ("{base: digits, ema_decay: 0.94}", "search: {asha: null}", None),
        ("{base: digits, ema_decay: 0.9999, ema_warmup: true}", "search: {asha: null}", None),
        ("digits", "", None),
    ],
)
def test_an_average_that_is_still_random_when_judged_is_warned_of(
    tmp_path: Path, recipe: str, more: str, steps: str | None
) -> None:
    said: list[str] = []
    load_spec(write_spec(tmp_path, "digits", recipe, more), (), (), probes.CAUTIONS, said.append)
    assert len(said) == (1 if steps else 0)
    assert all("recipe.ema_decay: " in line and steps in line for line in said if steps)


def test_a_storage_below_home_is_where_the_home_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_spec(write_spec(tmp_path, more="storage: ~/x")).run_dir == str(tmp_path / "x/mine")


# Which data a run goes on with


def begun(spec: ExperimentSpec, folder: Path, score: float | None = None) -> TrialSpec:
    """Starts the default trial of the only cell, as `run` does, and ends it if there is a score."""
    there = probes.contents(spec)
    assert there is not None
    cells = cell_plans(spec, "*", folder)
    claim_folder(spec, folder, there.fingerprint())
    store = RunStore(folder, cells, OBJECTIVE, {}, data=there.fingerprint())
    (left, *_) = [*store.unfinished(), cells[0].trial(Phase.default, 0, cells[0].space.default)]
    store.start(left)
    if score is not None:
        store.measure(left, Measurement(budget=left.budget, metrics={"score": score}, elapsed_s=1.0))
        store.end(left, TrialStatus.completed)
    store.close()
    return left


def test_a_run_goes_on_where_the_same_data_lie(tmp_path: Path, pets: Path) -> None:
    run = tmp_path / "run"
    first = begun(load_spec(write_spec(tmp_path, of_folder(pets), SMALL)), run)
    moved = shutil.move(pets, tmp_path / "moved")
    again = begun(load_spec(write_spec(tmp_path, of_folder(moved), SMALL)), run)
    assert again.id == first.id
    assert again.data_options["root"] == str(moved)
    assert unknown_data(run) is None
    sent = TrialSpec.from_json(again.to_json())
    (measured, *_) = get_task("classification").run(sent, Context())
    assert 0 <= measured.score <= 100


def test_a_run_does_not_go_on_with_other_data(tmp_path: Path, pets: Path) -> None:
    run = tmp_path / "run"
    begun(load_spec(write_spec(tmp_path, of_folder(pets), SMALL)), run, score=50.0)
    other = shutil.copytree(pets, tmp_path / "other")
    (other / "train/cat/3.jpg").unlink()
    with pytest.raises(FolderError, match=r"with other data than .*other holds now:\n  train/cat: 20 images there, 19"):
        begun(load_spec(write_spec(tmp_path, of_folder(other), SMALL)), run)


def test_data_may_be_mended_until_a_trial_has_a_result(tmp_path: Path, pets: Path) -> None:
    run, specs = tmp_path / "run", []
    for number in range(3):
        root = shutil.copytree(pets, tmp_path / str(number))
        (root / f"train/cat/{number}.jpg").unlink()
        specs.append(load_spec(write_spec(tmp_path, of_folder(root), SMALL)))
    begun(specs[0], run)
    begun(specs[1], run, score=50.0)
    (header,) = journal.read_headers(run)
    assert header.data == contents_of("imagefolder", specs[1].dataset.options).fingerprint()
    assert [event["event"] for event in journal.read_run(run)[0].events] == ["start", "start", "measure", "end"]
    claim_folder(specs[1], run, contents_of("imagefolder", specs[1].dataset.options).fingerprint())
    with pytest.raises(FolderError, match="with other data"):
        begun(specs[2], run)


def test_a_run_from_before_fingerprints_keeps_its_identity_and_goes_on_with_a_word(tmp_path: Path, pets: Path) -> None:
    run = tmp_path / "run"
    spec = load_spec(write_spec(tmp_path, of_folder(tmp_path / "moved"), SMALL))
    (cell,) = cell_plans(spec)
    old = {**cell.settings, "dataset": {**cell.settings["dataset"], "root": str(pets)}}
    path = run / journal.FOLDER / f"{cell.cell.stem}.jsonl"
    hparams = cell.space.default
    trial = TrialSpec(cell=cell.cell, phase=Phase.default, index=0, hparams=hparams, seed=7, budget=3, settings=old)
    writer = journal.JournalWriter(path, journal.header(cell.cell, OBJECTIVE, old))
    writer.append(journal.start_event(trial, attempt=1, time=0.0, provenance={}), durable=False)
    writer.close()
    shutil.copy(write_spec(tmp_path, of_folder(pets), SMALL), run / "spec.yaml")
    shutil.move(pets, tmp_path / "moved")
    again = begun(spec, run)
    assert again.id == trial.id
    assert again.data_options["root"] == str(tmp_path / "moved")
    assert str(run) in (unknown_data(run) or "")
    assert recorded_trial(run, trial.id)[1] == again
    assert read_status(run).trials == cell.plan.trials([])


def test_where_data_are_is_no_part_of_a_trial(tmp_path: Path, pets: Path) -> None:
    there, elsewhere = (
        cell_plans(load_spec(write_spec(tmp_path, of_folder(root, max_pixels=pixels), SMALL)))[0]
        for root, pixels in ((pets, 10_000), (tmp_path, 20_000))
    )
    assert there.settings == elsewhere.settings
    assert there.data_options == {"root": str(pets), "max_pixels": 10_000}


# A data set is one row


class Dots:
    """Four classes of one-coloured images in memory."""

    def contents(self, options: dict[str, Any]) -> Contents:
        labels = torch.arange(options["images"]).numpy() % 4
        part = StoredPart(labels=labels, names=[b"%d" % row for row in range(len(labels))], sizes=[3] * len(labels))
        counts = tuple(int((labels == label).sum()) for label in range(4))
        return Contents(
            classes=("a", "b", "c", "d"),
            splits={"train": counts, "val": counts},
            parts={"train": "all", "val": "all"},
            fingerprint=lambda: fingerprint_of({"all": part}, "abcd"),
        )

    def sources(self, options: dict[str, Any]) -> dict[str, ImageSource]:  # noqa: ARG002
        return {}

    def load(self, options: dict[str, Any], device: str) -> Arrays:
        labels = torch.arange(options["images"], device=device) % 4
        images = (labels * 60).to(torch.uint8)[:, None, None, None].expand(-1, 2, 32, 32)
        rows = Rows(images=images, labels=labels, rows=torch.arange(len(labels), device=device))
        both = {"train": rows, "val": rows}
        half = (0.5, 0.5)
        return Arrays(num_classes=4, in_chans=2, image_size=32, mean=half, std=half, splits=both)


dots = Dots()


def test_a_dataset_is_added_by_a_row_and_a_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    row = DatasetRow(
        name="dots",
        description="dots",
        source="here",
        target="tests.data.test_runs:dots",
        channels=2,
        image_size=32,
        options={"images": 64},
    )
    monkeypatch.setitem(DATASETS, "dots", row)
    path = write_spec(tmp_path, "dots", "{base: digits, augment: none, batch_size: 16}")
    assert bocb(monkeypatch, "check", path) == 0
    assert "train: 64 images, 16 a class" in capsys.readouterr().out
    assert bocb(monkeypatch, "plan", "--measure", path) == 0
    spec = load_spec(path)
    (cell,) = cell_plans(spec)
    assert free_options("dots", spec.dataset.options) == {}
    measured = list(get_task("classification").run(cell.trial(Phase.default, 0, cell.space.default), Context()))
    assert len(measured) == 3
    assert contents_of("dots", {}).fingerprint()["parts"]["all"]["a"] == [16, 48]


def test_nothing_but_the_table_knows_a_dataset_by_name() -> None:
    package = Path(probes.__file__).parents[1]
    compared = {
        (path.name, value.value)
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Compare)
        for value in ast.walk(node)
        if isinstance(value, ast.Constant) and value.value in DATASETS
    }
    assert not compared
