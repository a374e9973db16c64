"""Images with objects under a recipe: their batches, what they cost a detector and what it scores on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from bocb_tune.augment.objects import Scene, SceneTransform
from bocb_tune.backbones.features import FeatureMaps
from bocb_tune.core.types import TrialSpec
from bocb_tune.data.coco.dataset import Coco, ObjectImages, load_coco
from bocb_tune.data.coco.scores import Kind, Result
from bocb_tune.tasks.average_precision import AveragePrecision
from bocb_tune.tasks.building import data_and_recipe, maps_of, optimizer_of, placed, validation_plan
from bocb_tune.training.context import Context
from bocb_tune.training.device import autocast, sent_ahead
from bocb_tune.training.distributed import all_reduce
from bocb_tune.training.loop import Training
from bocb_tune.training.recipes import Recipe

Batch = tuple[list[Tensor], list[dict[str, Any]]]
"""Images, float32 [3, height, width] in 0..1 and each of its own size, and their targets."""
Found = dict[str, Tensor]
"""Objects found in an image: `boxes` [n, 4] in pixels of the image as it was given, `labels`, `scores`, and perhaps
`masks` [n, 1, m, m], a map of each box."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Detector:
    """A task on scenes: how its models are built and scored."""

    strides: tuple[int, ...]
    """Strides of the maps that it takes of a backbone."""
    build: Callable[[FeatureMaps, Coco, Mapping[str, Any]], nn.Module]
    """Build the model on a backbone for a dataset and the task's options; it gives losses by name in training, and
    what it found of each image in validation."""
    kinds: tuple[Kind, ...]
    """Overlaps that are scored, the one of the score first."""
    first_label: int = 0
    """Label of the first class to the model."""
    results: Callable[[Found, tuple[int, int]], list[dict[str, Any]]]
    """Make COCO's results of what was found, given height and width of the image it is put back into."""


def build_training(trial: TrialSpec, context: Context, detector: Detector) -> Training:
    """Build model, optimizer and data of a trial.

    Raises:
        ValueError: for settings that do not go together.
    """
    name, options, recipe = data_and_recipe(trial)
    dataset = load_coco(name, options, context.ranks.device)
    model = build_model(trial, dataset, recipe, detector)
    model = placed(model, recipe, context.ranks.device)
    scenes = Scenes(dataset, recipe, trial.settings["task"], context, detector)
    return Training(
        model=model,
        optimizer=optimizer_of(model, trial, recipe),
        recipe=recipe,
        num_images=dataset.count("train"),
        batches=scenes.train,
        loss=scenes.loss,
        evaluate=scenes.evaluate,
        shapes_vary=True,
    )


def build_model(trial: TrialSpec, dataset: Coco, recipe: Recipe, detector: Detector) -> nn.Module:
    """Build the model of a trial as it is before its first step, on the CPU."""
    return detector.build(maps_of(trial, detector.strides, recipe), dataset, trial.settings["task"])


class Ready(GeneralizedRCNNTransform):  # type: ignore[misc]
    """torchvision's first and last step for images that the loader has resized: they are normalised and padded into a
    batch, and what is found stays in their coordinates."""

    def __init__(self, dataset: Coco) -> None:
        super().__init__(0, 0, dataset.mean, dataset.std)

    def resize(self, image: Tensor, target: Any = None) -> Any:
        """Leave an image as it is."""
        return image, target

    def postprocess(self, result: Any, image_shapes: Any, original_image_sizes: Any) -> Any:  # noqa: ARG002
        """Leave what was found as it is."""
        return result


@dataclass(frozen=True, slots=True)
class _Scenes:
    """Images of a split and how they are transformed; see `bocb_tune.data.loader.SampleSource`."""

    images: ObjectImages
    transform: SceneTransform

    def __len__(self) -> int:
        return len(self.images)

    def name(self, index: int) -> str:
        return self.images.name(index)

    def read(self, index: int) -> Scene:
        return self.images[index]

    def made(self, decoded: Scene, index: int) -> Scene:
        """Transform a scene; its target keeps the `size` of the file, height and width."""
        image, target = self.transform(decoded)
        return image, {**target, "size": self.images.size(index)}


def collate(scenes: Sequence[Scene]) -> Batch:
    """Put scenes into a batch, each image of its own size."""
    return [image for image, _ in scenes], [target for _, target in scenes]


@dataclass(frozen=True)
class Scenes:
    """A dataset of images with objects under a recipe."""

    dataset: Coco
    recipe: Recipe
    options: Mapping[str, Any]
    """Options of the task, resolved."""
    context: Context
    detector: Detector
    faults: set[str] = field(default_factory=set)
    """Images of the epoch that could not be decoded."""

    def train(self, plan: Sequence[Tensor], seed: int, first: int = 0) -> Iterator[Batch]:  # noqa: ARG002
        """Yield augmented training batches on the device; what is drawn does not depend on their places."""
        return self._batches("train", plan, seed)

    def _batches(self, split: str, plan: Sequence[Tensor], seed: int = 0) -> Iterator[Batch]:
        trains = split == "train"
        size = {name: self.options[name] for name in ("shorter", "longer")}
        changes = {"shorter_from": self.options["shorter_from"], "flips": self.recipe.augment == "flip"}
        transform = SceneTransform(**size, **(changes if trains else {}))
        images = self.dataset.images(split, masks=trains and "segm" in self.detector.kinds)
        loaded = self.dataset.loader.batches(
            _Scenes(images, transform), split, plan, seed=seed, faults=self.faults, collate=collate
        )
        return sent_ahead(loaded, self._to_device, torch.device(self.context.ranks.device))

    def _to_device(self, batch: Batch) -> Batch:
        device = self.context.ranks.device
        images = [image.to(device, non_blocking=True).float() / 255 for image in batch[0]]
        return images, [self._target(target) for target in batch[1]]

    def _target(self, target: Mapping[str, Any]) -> dict[str, Any]:
        """Take what the model learns from to the device, and leave the rest."""
        names = [name for name in ("boxes", "labels", "masks") if name in target]
        learnt = {name: target[name].to(self.context.ranks.device, non_blocking=True) for name in names}
        learnt["labels"] = learnt["labels"] + self.detector.first_label
        return {"image_id": target["image_id"], "size": target["size"], **learnt}

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the sum of the model's losses, each a mean over the images."""
        images, targets = batch
        names = ("boxes", "labels", "masks")
        losses = model(images, [{name: each[name] for name in names if name in each} for each in targets])
        total: Tensor = sum(losses.values())
        return total

    @cached_property
    def _scorer(self) -> AveragePrecision:
        part = self.dataset.images("val", masks="segm" in self.detector.kinds).part
        return AveragePrecision(part=part, kinds=self.detector.kinds)

    @torch.no_grad()
    def evaluate(self, model: nn.Module, last: bool) -> dict[str, float]:  # noqa: ARG002
        """Measure average precision on the validation split, in points; `score` is the first."""
        ranks, count = self.context.ranks, self.dataset.count("val")
        own = torch.arange(ranks.rank, count, ranks.world_size)
        plan = validation_plan(own, self.recipe, self.context)
        model.eval()
        for images, targets in self._batches("val", plan):
            with autocast(torch.device(ranks.device), self.recipe):
                found = model(images)
            for image, target, each in zip(images, targets, found, strict=True):
                self._scorer.add(target["image_id"], self._results(image, target, each))
        metrics = self._scorer.scores(ranks)
        (unreadable,) = all_reduce([len(self.faults)], "sum", ranks)
        self.faults.clear()
        return {"score": metrics["ap"], **metrics, "unreadable_images": unreadable}

    def _results(self, image: Tensor, target: Mapping[str, Any], found: Found) -> list[Result]:
        """Make COCO's results of what was found in an image, in pixels of its file."""
        height, width = target["size"]
        factors = torch.tensor([width / image.shape[-1], height / image.shape[-2]]).repeat(2)
        on_cpu = {name: values.detach().float().cpu() for name, values in found.items()}
        on_cpu["boxes"] = on_cpu["boxes"] * factors
        labels = on_cpu["labels"].long() - self.detector.first_label
        shared = zip(on_cpu["scores"].tolist(), labels.tolist(), strict=True)
        return [
            {"image_id": target["image_id"], "category_id": self.dataset.category_ids[label], "score": score, **form}
            for (score, label), form in zip(shared, self.detector.results(on_cpu, (height, width)), strict=True)
        ]


def boxes_of(found: Found, size: tuple[int, int]) -> list[dict[str, Any]]:  # noqa: ARG001
    """Write boxes as COCO's results have them: x, y, width, height."""
    boxes = found["boxes"]
    return [{"bbox": box} for box in torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], dim=1).tolist()]
