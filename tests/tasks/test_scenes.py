"""Detection and segmentation: torchvision's numbers, scores, ranks, resumes, and faults of models and data."""

from __future__ import annotations

import importlib
import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models.detection import maskrcnn_resnet50_fpn, retinanet_resnet50_fpn

from bocb_tune.backbones.features import feature_maps
from bocb_tune.backbones.weights import digest_of
from bocb_tune.core.errors import Diverged
from bocb_tune.core.types import TrialSpec
from bocb_tune.data import resolve_options
from bocb_tune.data.coco.shapes import drawn
from bocb_tune.optimizers import OPTIMIZERS
from bocb_tune.optimizers.interfaces import SecondOrder
from bocb_tune.tasks import TASKS, get_task
from bocb_tune.tasks.detection import RETINANET
from bocb_tune.tasks.scenes import Detector, Scenes, build_training
from bocb_tune.tasks.segmentation import MASK_RCNN
from bocb_tune.training.checkpoint import Checkpoints
from bocb_tune.training.context import Context, Ranks
from tests.support.kept import make_model
from tests.support.processes.ranks import on_two_ranks
from tests.tasks.drawn import FEW, scene_trial

DETECTORS: dict[str, Detector] = {"detection": RETINANET, "segmentation": MASK_RCNN}
TIMES = ("images_per_s", "seconds", "peak_memory_gib")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def measured(trial: TrialSpec, folder: Path | None = None, **context: Any) -> list[Mapping[str, float]]:
    """The metrics of each epoch, without what no training repeats."""
    checkpoints = Checkpoints(folder) if folder else None
    curve = list(get_task(trial.cell.task).run(trial, Context(checkpoints=checkpoints, **context)))
    return [{name: value for name, value in each.metrics.items() if name not in TIMES} for each in curve]


# torchvision's own models


def batch() -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Two images that torchvision does not resize, with two objects and none."""
    generator = torch.Generator().manual_seed(1)
    images = [torch.rand(3, 96, 128, generator=generator), torch.rand(3, 96, 96, generator=generator)]
    masks = torch.zeros(2, 96, 128, dtype=torch.uint8)
    masks[0, 12:60, 10:50], masks[1, 50:90, 60:120] = 1, 1
    boxes = torch.tensor([[10.0, 12.0, 50.0, 60.0], [60.0, 50.0, 120.0, 90.0]])
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    first = {"boxes": boxes, "labels": torch.tensor([1, 3]), "masks": masks}
    return images, [first, nothing | {"masks": torch.zeros(0, 96, 96, dtype=torch.uint8)}]


@pytest.mark.parametrize("task", ["detection", "segmentation"])
def test_losses_and_detections_are_torchvisions(task: str) -> None:
    """With torchvision's state of the same architecture, on the same batch."""
    torch.manual_seed(0)
    sizes = {"min_size": 96, "max_size": 128, "weights": None, "weights_backbone": None}
    theirs = {"detection": retinanet_resnet50_fpn, "segmentation": maskrcnn_resnet50_fpn}[task](num_classes=5, **sizes)
    classes = 5 - DETECTORS[task].first_label
    data: Any = SimpleNamespace(num_classes=classes, mean=MEAN, std=STD)
    ours = DETECTORS[task].build(feature_maps("resnet50", DETECTORS[task].strides), data, TASKS[task].options)
    renamed = {name.replace(".body.", ".maps.body."): value for name, value in theirs.state_dict().items()}
    ours.load_state_dict(renamed)
    images, targets = batch()
    losses = []
    for model in (theirs, ours):
        # Mask R-CNN draws which boxes it learns from; torchvision's resizing has drawn before that
        getattr(model, "rpn", model).register_forward_pre_hook(lambda *_: torch.manual_seed(3) and None)
        losses.append(model.train()(images, targets))
    assert losses[0].keys() == losses[1].keys()
    for name, value in losses[0].items():
        torch.testing.assert_close(losses[1][name], value, rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        found = [_unthresholded(model)(images) for model in (theirs, ours)]
    assert len(found[0][0]["boxes"]) > 10
    for wanted, got in zip(*found, strict=True):
        for name in ("boxes", "labels", "scores"):
            torch.testing.assert_close(got[name], wanted[name], rtol=1e-5, atol=1e-4)


def _unthresholded(model: nn.Module) -> nn.Module:
    """In validation, and with detections of any score, but fewer, as each costs a mask."""
    heads: Any = getattr(model, "roi_heads", model)
    heads.score_thresh = 0.0
    heads.detections_per_img //= 5
    return model.eval()


# Scores


class Knowing(nn.Module):
    """Finds what is there: the boxes and labels of the images it is asked about, in their order."""

    def __init__(self, scenes: Scenes, masks: bool) -> None:
        super().__init__()
        images = scenes.dataset.images("val", masks=masks)
        self.targets = iter([images.target(index) for index in range(len(images))])
        self.options, self.first, self.masks = scenes.options, scenes.detector.first_label, masks

    def forward(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        return [self._found(image, next(self.targets)) for image in images]

    def _found(self, image: Tensor, target: dict[str, Any]) -> dict[str, Tensor]:
        scale = image.shape[-1] / 64
        count = len(target["boxes"])
        found = {"boxes": target["boxes"] * scale, "labels": target["labels"] + self.first, "scores": torch.ones(count)}
        return found | ({"masks": torch.ones(count, 1, 28, 28)} if self.masks else {})


def scenes_of(task: str, **context: Any) -> Scenes:
    evaluate: Any = build_training(scene_trial(task), Context(**context), DETECTORS[task]).evaluate
    scenes: Scenes = evaluate.__self__
    return scenes


def test_what_is_there_scores_everything() -> None:
    """Boxes are put back into the file's pixels, labels into its categories."""
    scenes = scenes_of("detection")
    metrics = scenes.evaluate(Knowing(scenes, masks=False), False)
    assert metrics["score"] == metrics["ap"] == pytest.approx(100)
    assert metrics["ap50"] == metrics["ap75"] == pytest.approx(100)
    assert metrics["unreadable_images"] == 0


def test_masks_are_put_where_their_boxes_are() -> None:
    """Masks that fill their boxes overlap those of shapes in part; the boxes are right."""
    scenes = scenes_of("segmentation")
    metrics = scenes.evaluate(Knowing(scenes, masks=True), False)
    assert metrics["bbox_ap"] == pytest.approx(100)
    assert 10 < metrics["score"] < 90
    assert metrics["ap50"] > 50


def score_of_rank(ranks: Ranks, folder: Path) -> None:
    (metrics,) = measured(scene_trial(budget=1), ranks=ranks)
    (folder / f"{ranks.rank}.json").write_text(json.dumps(dict(metrics)))


def test_two_ranks_train_and_score_together(tmp_path: Path) -> None:
    on_two_ranks(score_of_rank, tmp_path)
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    assert first["world_size"] == 2
    (alone,) = measured(scene_trial(budget=1, augment="none"))
    assert first.keys() == alone.keys()


# Trials


@pytest.mark.parametrize("task", ["detection", "segmentation"])
def test_a_trial_resumes_as_if_undisturbed(task: str, tmp_path: Path) -> None:
    trial = scene_trial(task, budget=3, warmup_epochs=1.0)
    whole = measured(trial)
    run = get_task(task).run(trial, Context(checkpoints=Checkpoints(tmp_path)))
    next(run)
    run.close()  # as when it is killed after its first epoch
    assert measured(trial, tmp_path) == whole
    assert len({each["train_loss"] for each in whole}) == 3


def test_averaged_weights_and_an_averaging_optimizer_train() -> None:
    for trial in (scene_trial(ema_decay=0.5), scene_trial(optimizer="schedulefree_adamw")):
        assert all(math.isfinite(each["score"]) for each in measured(trial))


def test_a_second_order_optimizer_trains_where_every_operator_has_second_derivatives() -> None:
    assert math.isfinite(measured(scene_trial(optimizer="sophia", budget=1))[0]["train_loss"])


def test_the_table_knows_which_optimizers_are_of_second_order() -> None:
    for name, row in OPTIMIZERS.items():
        module, attribute = row.target.split(":")
        target = getattr(importlib.import_module(module), attribute)
        assert row.second_order == (isinstance(target, type) and issubclass(target, SecondOrder)), name


@pytest.mark.parametrize("task", ["detection", "segmentation"])
def test_a_model_that_becomes_infinite_diverges(task: str) -> None:
    with pytest.raises(Diverged):
        measured(scene_trial(task, optimizer="sgd", lr=1e12, augment="none"))


def test_steps_of_the_learning_rate_are_taken() -> None:
    curve = measured(scene_trial(budget=3, lr_steps=(1, 2)))
    assert [each["lr"] for each in curve] == pytest.approx([1e-3, 1e-4, 1e-5])


@pytest.mark.parametrize("task", ["detection", "segmentation"])
def test_a_pre_training_is_in_the_backbone(task: str, tmp_path: Path) -> None:
    """All of it but the head; the stem is adapted to three channels."""
    weights = {name: value.contiguous() for name, value in make_model("test_resnet").state_dict().items()}
    save_file(weights, tmp_path / "given.safetensors")
    trial = scene_trial(task)
    settings = {**trial.settings, "pretrained": digest_of(weights)}
    trial = replace(trial, settings=settings, weights=str(tmp_path / "given.safetensors"))
    state = build_training(trial, Context(), DETECTORS[task]).model.get_submodule("backbone.maps.body").state_dict()
    same = {name for name, value in state.items() if torch.equal(value, weights[name].expand_as(value))}
    assert {name for name in weights if not name.startswith(("fc.", "conv1.0"))} <= same
    assert not any(name.startswith("fc.") for name in state)


# Data


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """A folder in COCO's format."""
    folder = tmp_path / "coco"
    shutil.copytree(drawn(resolve_options("shapes", FEW)), folder)
    return folder


def of_folder(folder: Path) -> dict[str, Any]:
    places = {f"{split}_images": split for split in ("train", "val")}
    places |= {f"{split}_annotations": f"annotations/{split}.json" for split in ("train", "val")}
    return {"name": "coco", **resolve_options("coco", {"root": str(folder), "loader_workers": 0, **places})}


def change(folder: Path, split: str, by: Any) -> None:
    path = folder / "annotations" / f"{split}.json"
    content = json.loads(path.read_text())
    by(content)
    path.write_text(json.dumps(content))


def test_a_damaged_image_is_counted_and_replaced(coco: Path) -> None:
    (coco / "train" / "000003.png").write_bytes(b"no image")
    (metrics,) = measured(scene_trial(dataset=of_folder(coco), budget=1))
    assert metrics["unreadable_images"] == 1


def test_one_class_gaps_in_ids_and_crowds_train(coco: Path) -> None:
    def by(content: dict[str, Any]) -> None:
        content["categories"] = [content["categories"][0] | {"id": 91}]
        for number, row in enumerate(content["annotations"]):
            row["category_id"] = 91
            row["iscrowd"] = int(number % 5 == 4)

    for split in ("train", "val"):
        change(coco, split, by)
    for task in ("detection", "segmentation"):
        (metrics,) = measured(scene_trial(task, dataset=of_folder(coco), budget=1))
        assert math.isfinite(metrics["train_loss"])


def test_validation_images_without_objects_are_scored(coco: Path) -> None:
    def by(content: dict[str, Any]) -> None:
        content["annotations"] = [row for row in content["annotations"] if row["image_id"] != 2]

    change(coco, "val", by)
    (metrics,) = measured(scene_trial(dataset=of_folder(coco), budget=1))
    assert metrics["score"] >= 0


# Numbers


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("task", "lr", "epochs", "options"),
    [
        ("detection", 2e-3, 30, {"channels": 64, "anchor_scale": 2.0}),
        ("segmentation", 3e-3, 20, {"channels": 32, "anchor_scale": 4.0, "rois": 16, "proposals": 100}),
    ],
)
def test_shapes_are_learnt_on_a_cpu(task: str, lr: float, epochs: int, options: dict[str, Any]) -> None:
    """In minutes, with a tiny backbone from random weights."""
    trial = scene_trial(
        task,
        lr=lr,
        budget=epochs,
        dataset={"name": "shapes", **resolve_options("shapes", {"image_size": 64, "images": 400})},
        options={"shorter": 64, "longer": 64, **options},
        batch_size=8,
        warmup_epochs=1.0,
        clip_grad=10.0,
    )
    *_, last = get_task(task).run(trial, Context())
    assert last.metrics["ap50"] >= 60
