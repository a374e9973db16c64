"""Top-down pose estimation (SimpleBaseline, arXiv:1804.06208): heat maps of the keypoints in each object's box.

Boxes are those of the annotations, in validation too. Score: average precision by object keypoint similarity.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from bocb_tune.augment import normalise
from bocb_tune.backbones import require_batch
from bocb_tune.core.types import TrialSpec
from bocb_tune.data.coco.dataset import Coco, load_coco
from bocb_tune.data.coco.scores import Result
from bocb_tune.tasks import TASKS
from bocb_tune.tasks.average_precision import AveragePrecision, PrecisionTask
from bocb_tune.tasks.building import data_and_recipe, maps_of, memory_format, optimizer_of, placed, validation_plan
from bocb_tune.tasks.pose.crops import Crops, collate
from bocb_tune.tasks.pose.heatmaps import heat_map_loss, heat_maps, in_reach, mean_of_mirrored, peaks
from bocb_tune.tasks.pose.joints import Joints, joints_of
from bocb_tune.tasks.pose.network import STRIDE, PoseNetwork
from bocb_tune.training.context import Context
from bocb_tune.training.device import autocast, sent_ahead
from bocb_tune.training.distributed import all_reduce
from bocb_tune.training.loop import Training
from bocb_tune.training.recipes import RECIPES, Recipe

STRIDES = TASKS["pose"].strides
"""Stride of the map taken of a backbone: its last."""
LEAST_PEAK = 0.2
"""Height of a peak from which on it counts in the score of an object (arXiv:1804.06208's code, `IN_VIS_THRE`)."""

Batch = list[Tensor]
"""Crops, uint8 [batch, 3, height, width]; keypoints [batch, K, 2] in pixels of the crop; whether each is labelled, bool
[batch, K]; place of each object among all [batch]."""


class Pose(PrecisionTask):
    """The task; `options` of its row say the size of the crops, the heat maps and the augmentation."""

    def training(self, trial: TrialSpec, context: Context) -> Training:
        return build_training(trial, context)


def build_training(trial: TrialSpec, context: Context) -> Training:
    """Build model, optimizer and data of a trial; what it counts its batches in are objects.

    Raises:
        ValueError: for settings that do not go together.
    """
    name, options, recipe = data_and_recipe(trial)
    dataset = load_coco(name, options, context.ranks.device)
    joints = joints_of(dataset.parts["train"].annotations, trial.settings["task"])
    figures = Figures(dataset, joints, recipe, trial.settings["task"], context)
    model = build_model(trial, len(joints.names), recipe)
    per_pass = recipe.batch_size // context.ranks.world_size // recipe.accumulation
    require_batch(model, trial.cell.backbone, per_pass)
    model = placed(model, recipe, context.ranks.device)
    return Training(
        model=model,
        optimizer=optimizer_of(model, trial, recipe),
        recipe=recipe,
        num_images=len(figures.crops("train")),
        batches=figures.train,
        loss=figures.loss,
        evaluate=figures.evaluate,
    )


def count_objects(dataset: str, options: Mapping[str, Any], task_options: Mapping[str, Any]) -> int:
    """Count the objects that are trained on.

    Raises:
        ValueError: if they have no keypoints, or the task's options do not suit these.
    """
    loaded = load_coco(dataset, options, "cpu")
    joints = joints_of(loaded.parts["train"].annotations, task_options)
    figures = Figures(loaded, joints, RECIPES["simple_baseline"], task_options, Context())
    figures.crops("val")  # must not be empty either
    return len(figures.crops("train"))


def build_model(trial: TrialSpec, keypoints: int, recipe: Recipe) -> nn.Module:
    """Build the model of a trial as it is before its first step, on the CPU."""
    return PoseNetwork(maps_of(trial, STRIDES, recipe), keypoints, trial.settings["task"]["channels"])


@dataclass(frozen=True)
class Figures:
    """Objects with keypoints under a recipe: their batches, what they cost and what they score."""

    dataset: Coco
    joints: Joints
    recipe: Recipe
    options: Mapping[str, Any]
    """Options of the task, resolved."""
    context: Context
    faults: set[str] = field(default_factory=set)
    """Images of the epoch that could not be decoded."""

    @cached_property
    def _splits(self) -> Mapping[str, Crops]:
        changes = {name: self.options[name] for name in ("scale", "turn")}
        changes["flip"] = self.recipe.augment == "flip"
        return {
            split: Crops(
                images=self.dataset.images(split, keypoints=True),
                joints=self.joints,
                size=(self.options["height"], self.options["width"]),
                changes=changes if split == "train" else None,
            )
            for split in ("train", "val")
        }

    def crops(self, split: str) -> Crops:
        """Return the objects of a split.

        Raises:
            ValueError: if none has a labelled keypoint.
        """
        crops = self._splits[split]
        if not len(crops):
            path = crops.images.part.annotations.path
            raise ValueError(f"{path}: no object has a labelled keypoint; the task 'pose' has nothing to go by")
        return crops

    @property
    def _map_size(self) -> tuple[int, int]:
        return self.options["height"] // STRIDE, self.options["width"] // STRIDE

    def train(self, plan: Sequence[Tensor], seed: int, first: int = 0) -> Iterator[Batch]:  # noqa: ARG002
        """Yield augmented training batches on the device; what is drawn does not depend on their places."""
        return self._batches("train", plan, seed)

    def _batches(self, split: str, plan: Sequence[Tensor], seed: int = 0) -> Iterator[Batch]:
        loaded = self.dataset.loader.batches(
            self.crops(split), split, plan, seed=seed, faults=self.faults, collate=collate
        )
        return sent_ahead(loaded, self._to_device, torch.device(self.context.ranks.device))

    def _to_device(self, batch: Batch) -> Batch:
        device = self.context.ranks.device
        pixels, *others = (tensor.to(device, non_blocking=True) for tensor in batch)
        images = normalise(pixels, self.dataset.mean, self.dataset.std).contiguous(
            memory_format=memory_format(self.recipe, device)
        )
        return [images, *others]

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return half the mean squared difference to the heat maps wanted, a mean over the objects."""
        return self._loss_of(model(batch[0]), batch)

    def _loss_of(self, maps: Tensor, batch: Batch) -> Tensor:
        joints, labelled = batch[1] / STRIDE, batch[2]
        sigma = self.options["sigma"]
        wanted = heat_maps(joints, self._map_size, sigma)
        return heat_map_loss(maps, wanted, labelled & in_reach(joints, self._map_size, sigma))

    @torch.no_grad()
    def evaluate(self, model: nn.Module, last: bool) -> dict[str, float]:  # noqa: ARG002
        """Measure average precision on the validation split, in points, and the loss of its heat maps."""
        ranks, crops = self.context.ranks, self.crops("val")
        own = torch.from_numpy(crops.objects[:, 1] % ranks.world_size == ranks.rank).nonzero().flatten()
        plan = validation_plan(own, self.recipe, self.context)
        model.eval()
        results: dict[int, list[Result]] = {}
        total, seen = 0.0, 0
        for batch in self._batches("val", plan):
            maps = self._maps(model, batch[0])
            total += self._loss_of(maps, batch).item() * len(maps)
            seen += len(maps)
            for result in self._results(maps, batch[3].tolist()):
                results.setdefault(result["image_id"], []).append(result)
        for image_id, of_image in results.items():
            self._scorer.add(image_id, of_image)
        metrics = self._scorer.scores(ranks)
        loss, objects, unreadable = all_reduce([total, seen, len(self.faults)], "sum", ranks)
        self.faults.clear()
        return {"score": metrics["ap"], "val_loss": loss / objects, **metrics, "unreadable_images": unreadable}

    def _maps(self, model: nn.Module, images: Tensor) -> Tensor:
        """Return heat maps, averaged with those of the mirrored images if the task's options say so."""
        with autocast(torch.device(self.context.ranks.device), self.recipe):
            maps: Tensor = model(images)
            if not self.options["flip_test"]:
                return maps.float()
            other = model(images.flip(-1))
        mirrored = torch.tensor(self.joints.mirrored, device=maps.device)
        return mean_of_mirrored(maps.float(), other.float(), mirrored)

    def _results(self, maps: Tensor, indices: Sequence[int]) -> Iterator[Result]:
        """Make COCO's results of heat maps; the score of an object is the mean of its peaks that stand out."""
        crops = self.crops("val")
        annotations = crops.images.part.annotations
        found, heights = peaks(maps)
        points = crops.to_images(found.double().cpu().numpy() * STRIDE, indices)
        stands_out = heights > LEAST_PEAK
        scores = (heights * stands_out).sum(1) / stands_out.sum(1).clamp(min=1)
        shared = zip(indices, points.tolist(), heights.tolist(), scores.tolist(), strict=True)
        for index, joints, peak_heights, score in shared:
            place, image = crops.objects[index]
            keypoints = [[x, y, height] for (x, y), height in zip(joints, peak_heights, strict=True)]
            yield {
                "image_id": int(annotations.image_ids[crops.images.part.images[image]]),
                "category_id": self.dataset.category_ids[annotations.labels[place]],
                "keypoints": [number for point in keypoints for number in point],
                "score": score,
            }

    @cached_property
    def _scorer(self) -> AveragePrecision:
        return AveragePrecision(
            part=self.crops("val").images.part,
            kinds=("keypoints",),
            category_ids=[self.dataset.category_ids[label] for label in self.joints.labels],
            sigmas=self.joints.sigmas,
        )
