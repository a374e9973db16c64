"""The pose task: what it measures, that a resume and more ranks change nothing, and what bad settings say."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bocb_tune.core.storage import Folder
from bocb_tune.core.types import Cell, Measurement, Phase, TrialSpec
from bocb_tune.data import resolve_options, settings_of
from bocb_tune.data.coco.dataset import load_coco
from bocb_tune.data.coco.shapes import drawn
from bocb_tune.spec.environment import PLANNED, data, models
from bocb_tune.spec.grid import plan_grid
from bocb_tune.spec.model import SpecError, load_spec
from bocb_tune.tasks import TASKS, get_task
from bocb_tune.tasks.pose.heatmaps import heat_maps
from bocb_tune.tasks.pose.joints import joints_of
from bocb_tune.tasks.pose.task import STRIDE, Figures, build_training
from bocb_tune.training.checkpoint import Checkpoints
from bocb_tune.training.context import Context, Ranks
from bocb_tune.training.recipes import Recipe, recipe_settings
from tests.data.coco.made import by_hand
from tests.support.processes.ranks import on_two_ranks

SMALL: dict[str, Any] = {"images": 8, "held_out": 6, "image_size": 64}
TIMES = ("images_per_s", "seconds", "peak_memory_gib")
OPTIONS: dict[str, Any] = {"height": 64, "width": 32, "channels": 16, "sigma": 1.5, "sigmas": [0.1] * 4}
EXPERIMENTS = Path(__file__).parents[3] / "experiments"
COCO_BACKBONES = ("vgg16_bn", "resnet50", "swin_tiny", "deit_small")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "shared"
    home.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(home))


def pose_trial(
    backbone: str = "test_resnet",
    optimizer: str = "adamw",
    *,
    lr: float = 1e-3,
    budget: int = 2,
    dataset: str = "shapes",
    data_options: dict[str, Any] | None = None,
    options: dict[str, Any] | None = None,
    **recipe: Any,
) -> TrialSpec:
    resolved = resolve_options(dataset, SMALL if data_options is None else data_options)
    chosen = replace(Recipe(batch_size=4, augment="flip"), **recipe)
    return TrialSpec(
        cell=Cell(task="pose", dataset=dataset, backbone=backbone, optimizer=optimizer),
        phase=Phase.default,
        index=0,
        hparams={"lr": lr, "weight_decay": 0.01},
        seed=0,
        budget=budget,
        settings={
            "task": {**TASKS["pose"].options, **OPTIONS, **(options or {})},
            "dataset": settings_of(dataset, resolved),
            "recipe": recipe_settings(chosen),
            "optimizer": {},
            "workers": 1,
        },
        data_options={name: value for name, value in resolved.items() if name in ("root", "loader_workers")},
    )


def run(trial: TrialSpec, context: Context | None = None) -> list[Measurement]:
    return list(get_task("pose").run(trial, context or Context()))


def without_times(curve: list[Measurement]) -> list[dict[str, float]]:
    return [{name: value for name, value in m.metrics.items() if name not in TIMES} for m in curve]


def test_a_trial_measures_what_it_promises() -> None:
    first, last = run(pose_trial())
    promised = {"score", "ap", "ap50", "ap75", "val_loss", "train_loss", "lr", "images_per_s", "seconds"}
    promised |= {"world_size", "peak_memory_gib", "optimizer_state_mib", "unreadable_images"}
    assert promised <= set(first.metrics) <= promised | {"ap_medium", "ap_large"}
    assert first.metrics["score"] == first.metrics["ap"]
    assert 0 < last.metrics["val_loss"] < 1
    assert all(math.isfinite(value) for value in last.metrics.values())
    objective = get_task("pose").objective({"name": "shapes"}, {})
    assert (objective.metric, objective.unit, objective.floor) == ("ap", "points", 0)


def test_a_plain_backbone_is_trained_in_larger_steps_of_accumulation() -> None:
    assert len(run(pose_trial("test_vit", budget=1, accumulation=2, layer_decay=0.7))) == 1


def test_a_resume_is_bitwise_equal(tmp_path: Path) -> None:
    trial = pose_trial(ema_decay=0.5)
    whole = run(trial, Context(checkpoints=Checkpoints(Folder(tmp_path / "whole"))))
    context = Context(checkpoints=Checkpoints(Folder(tmp_path / "resumed")))
    begun = get_task("pose").run(trial, context)
    next(begun)
    begun.close()
    resumed = run(trial, context)
    assert without_times(resumed) == without_times(whole)
    states = [Checkpoints(Folder(tmp_path / name)).load() for name in ("whole", "resumed")]
    assert states[0] is not None
    assert states[1] is not None
    assert all(torch.equal(states[0]["model"][name], value) for name, value in states[1]["model"].items())


def figures_of(**options: Any) -> Figures:
    dataset = load_coco("shapes", SMALL, "cpu")
    resolved = {**TASKS["pose"].options, **OPTIONS, **options}
    joints = joints_of(dataset.parts["train"].annotations, resolved)
    return Figures(dataset, joints, Recipe(batch_size=4), resolved, Context())


def test_perfect_heat_maps_score_all_points(tmp_path: Path) -> None:
    """And the score is that of pycocotools by hand on the dumped results."""
    figures = figures_of(height=256, width=256)
    plan = torch.arange(len(figures.crops("val"))).split(3)
    results = []
    for batch in figures._batches("val", plan):
        maps = heat_maps(batch[1] / STRIDE, (64, 64), 2.0) * batch[2][..., None, None]
        results += list(figures._results(maps, batch[3].tolist()))
    for result in results:
        figures._scorer._found.setdefault(result["image_id"], []).append(result)
    scores = figures._scorer.scores(Ranks())
    assert scores["ap"] == pytest.approx(100)
    (tmp_path / "results.json").write_text(json.dumps(results))
    file = figures.crops("val").images.part.annotations.path
    assert 100 * by_hand(file, tmp_path / "results.json", "keypoints", OPTIONS["sigmas"])[0] == scores["ap"]


def rank_main(ranks: Ranks, folder: Path) -> None:
    """One of two ranks: leaves the metrics of a first evaluation and of a training in `folder`."""
    import tempfile

    tempfile.tempdir = str(folder / "shared")
    context = Context(ranks=ranks)
    trial = pose_trial("test_vit", budget=1)
    training = build_training(trial, context)
    found = training.evaluate(training.model, True)
    curve = [m.metrics for m in get_task("pose").run(trial, context)]
    (folder / f"{ranks.rank}.json").write_text(json.dumps([found, *curve]))


def test_two_ranks_score_what_one_does(tmp_path: Path) -> None:
    on_two_ranks(rank_main, tmp_path)
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    training = build_training(pose_trial("test_vit", budget=1), Context())
    assert first[0] == second[0] == pytest.approx(training.evaluate(training.model, True), rel=1e-4)
    assert first[1] == second[1]


def folder_of_shapes(tmp_path: Path) -> dict[str, Any]:
    """The drawn shapes as a folder of one's own."""
    shutil.copytree(drawn(resolve_options("shapes", SMALL)), tmp_path / "own")
    places = {f"{split}_images": split for split in ("train", "val")}
    places |= {f"{split}_annotations": f"annotations/{split}.json" for split in ("train", "val")}
    return {"root": str(tmp_path / "own"), "loader_workers": 0, **places}


def test_a_damaged_image_is_named_and_replaced(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    options = folder_of_shapes(tmp_path)
    (tmp_path / "own" / "val" / "000001.png").write_bytes(b"no image")
    objects = json.loads((tmp_path / "own" / "annotations" / "val.json").read_text())["annotations"]
    if sum(entry["image_id"] == 1 for entry in objects) > 1:
        lone = next(entry for entry in objects if entry["image_id"] == 1)
        kept = [entry for entry in objects if entry["image_id"] != 1 or entry is lone]
        change(tmp_path / "own", "val", kept)
    (metrics,) = without_times(run(pose_trial(budget=1, dataset="coco", data_options=options)))
    assert metrics["unreadable_images"] == 1
    assert "000001.png cannot be decoded" in caplog.text


def change(root: Path, split: str, annotations: list[dict[str, Any]]) -> None:
    path = root / "annotations" / f"{split}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"annotations": annotations}))


def spec_text(**changes: str) -> str:
    lines = {
        "task": "{name: pose, height: 64, width: 64, sigmas: [.05, .05, .05, .05]}",
        "dataset": "{name: shapes, images: 6, held_out: 3, image_size: 64}",
        "recipe": "{base: shapes, batch_size: 4}",
    }
    said = "\n".join(f"{key}: {value}" for key, value in (lines | changes).items())
    return (
        f"name: x\nbackbones: [test_resnet]\noptimizers: [adamw]\nbudget: {{epochs: 4, trials_per_cell: 3}}\n{said}\n"
    )


def faults_of(tmp_path: Path, **changes: str) -> str:
    path = tmp_path / "x.yaml"
    path.write_text(spec_text(search="{design: 2}", **changes))
    try:
        load_spec(path, checks=(models, data))
    except SpecError as error:
        return str(error)
    return ""


def test_a_sound_file_passes(tmp_path: Path) -> None:
    assert faults_of(tmp_path) == ""


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "{name: pose}"}, "task 'pose' knows how exactly COCO's 17 keypoints can be placed, and not the 4"),
        ({"task": "{name: pose, height: 100}"}, "task.height: is 100; it must be a multiple of 32 pixels"),
        ({"task": "{name: pose, sigmas: [.1, 0]}"}, "it must be a list of positive numbers, one for each keypoint"),
        ({"task": "{name: pose, flip_pairs: [a, b]}"}, "it must be pairs of names of keypoints"),
        ({"dataset": "digits"}, "task 'pose' does not take 'digits'; it takes coco, shapes"),
        ({"recipe": "{base: shapes, batch_size: 60}"}, "is more than the"),
        ({"recipe": "{base: shapes, mixup: 0.2}"}, "task 'pose' has no use for it"),
    ],
)
def test_bad_settings_are_refused(tmp_path: Path, changes: dict[str, str], message: str) -> None:
    assert message in faults_of(tmp_path, **changes)


def test_the_published_experiment_plans_without_data_or_weights() -> None:
    spec = load_spec(EXPERIMENTS / "coco_pose.yaml", checks=PLANNED)
    cells = plan_grid(spec).cells
    assert {cell.cell.row for cell in cells} == {"vgg16_bn@sgd", "resnet50@sgd", "swin_tiny@adamw"}
    assert len(cells) == 3 * 20
    assert (spec.recipe.lr_steps, spec.budget.epochs) == ((170, 200), 210)
    assert (spec.task.options["height"], spec.task.options["width"]) == (256, 192)


@pytest.mark.slow
@pytest.mark.parametrize("backbone", COCO_BACKBONES)
def test_backbones_of_the_paper_take_a_step(backbone: str) -> None:
    options = {"height": 256, "width": 192, "channels": 256}
    (metrics,) = without_times(run(pose_trial(backbone, budget=1, options=options, batch_size=8)))
    assert math.isfinite(metrics["train_loss"])


@pytest.mark.slow
def test_shapes_are_learnt_on_a_cpu() -> None:
    """AP50 of at least 60 points in minutes, with a tiny backbone: the settings of `experiments/shapes_pose.yaml`."""
    trial = pose_trial(
        lr=2e-3,
        budget=8,
        data_options={"images": 200, "held_out": 50},
        options={"width": 64, "channels": 64, "turn": 10.0, "scale": 0.15, "sigmas": [0.05] * 4},
        batch_size=16,
        warmup_epochs=0.5,
    )
    assert run(trial)[-1].metrics["ap50"] >= 60
