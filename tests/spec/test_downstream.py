"""Experiments on images with objects: what `check` refuses, what `plan` skips, and the published ones."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bocb_tune.backbones import BACKBONES
from bocb_tune.cli.launch import objective_of
from bocb_tune.spec.environment import LOCAL, PLANNED, PLANNED_CAUTIONS
from bocb_tune.spec.grid import plan_grid
from bocb_tune.spec.model import ExperimentSpec, SpecError, dump_resolved, load_spec
from tests.support.downstream import BUILDERS, SKIPPED, TRAINS, outcome, outcomes, written

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
TEXT = """\
name: found
task: {name: detection, shorter: 64, longer: 96, channels: 16}
dataset: {name: shapes, image_size: 64, images: 8, held_out: 4}
backbones: [test_resnet, mlp_mixer_small]
optimizers: [sgd, sophia]
recipe: {base: shapes, batch_size: 4}
budget: {epochs: 2, trials_per_cell: 1}
search: {design: 0, asha: null}
"""


def spec_of(tmp_path: Path, text: str = TEXT) -> ExperimentSpec:
    path = tmp_path / "found.yaml"
    path.write_text(text)
    return load_spec(path, checks=LOCAL)


def test_cells_of_a_backbone_without_maps_are_skipped_with_the_reason(tmp_path: Path) -> None:
    grid = plan_grid(spec_of(tmp_path))
    assert {cell.cell.backbone for cell in grid.cells} == {"test_resnet"}
    assert {skipped.cell.backbone for skipped in grid.skipped} == {"mlp_mixer_small"}
    assert "gives no feature maps of images of any size: it mixes the 14 x 14 patches" in grid.skipped[0].reason


def test_the_score_is_average_precision_in_points(tmp_path: Path) -> None:
    objective = objective_of(spec_of(tmp_path))
    assert (objective.metric, objective.unit, objective.floor) == ("ap", "points", 0.0)


def test_what_is_written_loads_to_the_same(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, TEXT.replace("batch_size: 4", "batch_size: 4, lr_steps: [1]"))
    assert spec.recipe.lr_steps == (1,)
    assert spec_of(tmp_path, dump_resolved(spec)) == spec


@pytest.mark.parametrize(
    ("old", "new", "line", "says"),
    [
        ("name: detection", "name: segmentation", 5, "'sophia' needs second derivatives, and RoIAlign of task"),
        ("shorter: 64", "shorter: 16", 2, "task.shorter: is 16; it must be at least 32"),
        ("longer: 96", "longer: 48", 2, "task.longer: is 48; it must be at least as large as shorter"),
        ("shorter: 64", "shorter: 64, shorter_from: 80", 2, "0 (no multi-scale training), or at least 32 and below"),
        ("channels: 16", "chanels: 16", 2, "unknown option of task 'detection' 'chanels'; did you mean 'channels'?"),
        ("batch_size: 4", "batch_size: 4, mixup: 0.8", 6, "is 0.8, and task 'detection' has no use for it"),
        ("batch_size: 4", "batch_size: 4, image_size: 64", 6, "is 64, and task 'detection' has no use for it"),
        ("batch_size: 4", "batch_size: 4, augment: shift", 6, "augment 'shift' does not suit dataset 'shapes'"),
        ("batch_size: 4", "batch_size: 4, lr_steps: [2]", 6, "a fall after epoch 2 is not within budget.epochs (2)"),
        ("batch_size: 4", "batch_size: 4, frozen_norm: true", 6, "would freeze random weights"),
        ("batch_size: 4", "batch_size: 16", 6, "a batch_size of 16 is more than the 8 training images"),
        ("mlp_mixer_small", "vit_small_patch32_224", 4, "are needed, or at 16 alone; it has 32"),
        ("mlp_mixer_small", "mixer_b16_224", 4, "gives no feature maps of images of any size"),
        ("name: shapes", "name: digits", 3, "task 'detection' does not take 'digits'; it takes coco, shapes"),
    ],
)
def test_errors_stand_at_their_line(tmp_path: Path, old: str, new: str, line: int, says: str) -> None:
    with pytest.raises(SpecError) as caught:
        spec_of(tmp_path, TEXT.replace(old, new))
    found = [problem for problem in caught.value.problems if says in str(problem)]
    assert [problem.line for problem in found] == [line], str(caught.value)


def test_a_backbone_without_batch_norm_has_none_to_freeze(tmp_path: Path) -> None:
    text = TEXT.replace("test_resnet", "test_convnext").replace("batch_size: 4", "batch_size: 4, frozen_norm: true")
    with pytest.raises(SpecError, match="'test_convnext' has no BatchNorm; leave it at false"):
        spec_of(tmp_path, text.replace("optimizers:", "pretrained: {scratch: scratch}\noptimizers:"))


# The published experiments


@pytest.mark.parametrize("name", ["coco_detection", "coco_segmentation"])
def test_published_experiments_plan_without_data_or_weights(name: str) -> None:
    said: list[str] = []
    spec = load_spec(EXPERIMENTS / f"{name}.yaml", checks=PLANNED, cautions=PLANNED_CAUTIONS, warn=said.append)
    grid = plan_grid(spec)
    columns = {cell.cell.row for cell in grid.cells}
    of_resnet = {f"resnet50@{start}" for start in ("sgd", "lars", "a3", "a2", "a1", "adan")}
    assert columns == of_resnet | {"swin_tiny@adamw", "convnext_tiny@adamw"}
    assert len(grid.cells) == 8 * (20 if name == "coco_detection" else 19)
    assert (spec.task.options["shorter"], spec.task.options["longer"], spec.budget.epochs) == (800, 1333, 12)
    assert spec.recipe.lr_steps == (8, 11)
    assert any("data/coco" in line for line in said)
    assert sum("is fetched when a run begins" in line for line in said) >= 1


# Every backbone


ONE_OF_EACH = [
    ("resnet50", "detection"),
    ("deit_small", "segmentation"),
    ("convnext_tiny", "segmentation"),
    ("alexnet", "pose"),
    ("deit_small", "pose"),
]


@pytest.mark.parametrize(("backbone", "task"), ONE_OF_EACH)
def test_one_backbone_of_each_kind_takes_a_step(backbone: str, task: str) -> None:
    assert outcome(backbone, task) == TRAINS


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_all_backbones_do_what_the_page_says(backbone: str) -> None:
    assert outcomes(backbone) == written()[backbone]


def test_the_page_has_every_backbone_and_task() -> None:
    page = written()
    assert list(page) == list(BACKBONES)
    assert {tuple(row) for row in page.values()} == {tuple(BUILDERS)}
    others = {outcome for row in page.values() for outcome in row.values()} - {TRAINS, SKIPPED}
    shares = [re.fullmatch(r"(\d+) of (\d+) weights move", outcome) for outcome in others]
    assert all(share and int(share[1]) > 0.98 * int(share[2]) for share in shares), others
