"""Image classification: cross-entropy to train with, top-1 accuracy to compare by."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from bocb_tune.augment import augmented, image_transform, mixed, normalise
from bocb_tune.backbones import build_backbone, list_backbones, require_batch
from bocb_tune.core.types import Measurement, Objective, TrialSpec, derive_seed
from bocb_tune.data import load_dataset, num_classes
from bocb_tune.data.base import Batch, Dataset, Transform
from bocb_tune.tasks.building import data_and_recipe, memory_format, named, optimizer_of, placed, start, validation_plan
from bocb_tune.training.context import Context, Ranks
from bocb_tune.training.device import autocast, sent_ahead
from bocb_tune.training.distributed import all_reduce
from bocb_tune.training.freeze import freeze
from bocb_tune.training.loop import Training, catch_out_of_memory, fit
from bocb_tune.training.losses import LOSSES
from bocb_tune.training.recipes import Recipe
from bocb_tune.training.rng import seed_all


class Classification:
    """The task; it has no options."""

    def training(self, trial: TrialSpec, context: Context) -> Training:
        return build_training(trial, context)

    def objective(self, dataset: Mapping[str, Any], options: Mapping[str, Any]) -> Objective:  # noqa: ARG002
        name, given = named(dataset)
        return Objective(metric="top1", unit="points", floor=100 / num_classes(name, given))

    def backbones(self) -> Sequence[str]:
        return list_backbones()

    def run(self, trial: TrialSpec, context: Context) -> Generator[Measurement, None, None]:
        """See `Task.run`. The last measurement holds `test_score` too, where there is a test split."""
        return catch_out_of_memory(_run(trial, context))


def _run(trial: TrialSpec, context: Context) -> Generator[Measurement, None, None]:
    yield from fit(build_training(trial, context), trial, context)


def build_training(trial: TrialSpec, context: Context) -> Training:
    """Build model, optimizer and data of a trial.

    Raises:
        ValueError: for settings that do not go together.
    """
    name, options, recipe = data_and_recipe(trial)
    pictures = Pictures(load_dataset(name, options, context.ranks.device), recipe, context)
    model = _build_model(trial, pictures.dataset, recipe, context.ranks)
    return Training(
        model=model,
        optimizer=optimizer_of(model, trial, recipe),
        recipe=recipe,
        num_images=pictures.dataset.count("train"),
        batches=pictures.train,
        loss=pictures.loss,
        evaluate=pictures.evaluate,
    )


def _build_model(trial: TrialSpec, dataset: Dataset, recipe: Recipe, ranks: Ranks) -> nn.Module:
    seed_all(derive_seed(trial.seed, "model"))
    model = build_backbone(
        trial.cell.backbone,
        num_classes=dataset.num_classes,
        in_chans=dataset.in_chans,
        image_size=dataset.image_size if dataset.in_memory else recipe.image_size or dataset.image_size,
        resized_to=recipe.image_size,
        drop_path=recipe.drop_path,
    )
    start(model, trial)
    freeze(model, recipe)
    require_batch(model, trial.cell.backbone, recipe.batch_size // ranks.world_size // recipe.accumulation)
    return placed(model, recipe, ranks.device)


@dataclass(frozen=True, slots=True)
class Pictures:
    """A dataset under a recipe: its batches on the device, what they cost and what they score."""

    dataset: Dataset
    recipe: Recipe
    context: Context
    faults: set[str] = field(default_factory=set)
    """Images of the epoch that could not be decoded."""

    def train(self, plan: Sequence[Tensor], seed: int, first: int = 0) -> Iterator[Batch]:
        """Yield augmented training batches on the device; labels are shares of the classes if the recipe mixes images.

        Args:
            first: place of the plan's first batch in its epoch.
        """
        batches = self._sent(self._augmented(plan, seed))
        return mixed(batches, self.recipe, self.dataset.num_classes, seed, first) if self.recipe.mixes else batches

    def _augmented(self, plan: Sequence[Tensor], seed: int) -> Iterator[Batch]:
        if self.dataset.in_memory:
            return augmented(self.dataset, plan, self.recipe, seed, torch.device(self.context.ranks.device))
        transform = self._transform(train=True)
        return self.dataset.batches("train", plan, transform=transform, seed=seed, faults=self.faults)

    def _transform(self, *, train: bool) -> Transform:
        mean, std = self.dataset.mean, self.dataset.std
        size = self.recipe.image_size or self.dataset.image_size
        return image_transform(self.recipe, size, train=train, mean=mean, std=std)

    def _sent(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        if self.dataset.in_memory:
            return map(self._to_device, batches)
        return sent_ahead(batches, self._to_device, torch.device(self.context.ranks.device))

    def _to_device(self, batch: Batch) -> Batch:
        images, labels = batch
        device = self.context.ranks.device
        if images.dtype == torch.uint8:
            images = normalise(images, self.dataset.mean, self.dataset.std)
        images = images.to(device, non_blocking=True, memory_format=memory_format(self.recipe, device))
        return images, labels.to(device, non_blocking=True)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the recipe's loss, a mean over the images."""
        images, targets = batch
        return LOSSES[self.recipe.loss](model(images), targets, self.recipe.label_smoothing)

    def evaluate(self, model: nn.Module, last: bool) -> dict[str, float]:
        """Measure `score` and `val_loss` on the validation split, and at the last epoch `test_score`."""
        score, loss = self._top1(model, "val")
        metrics = {"score": score, "val_loss": loss}
        if last and self.dataset.count("test"):
            metrics["test_score"], _ = self._top1(model, "test")
        if not self.dataset.in_memory:
            (metrics["unreadable_images"],) = all_reduce([len(self.faults)], "sum", self.context.ranks)
            self.faults.clear()
        return metrics

    @torch.no_grad()
    def _top1(self, model: nn.Module, split: str) -> tuple[float, float]:
        """Measure accuracy in points, and mean cross-entropy without smoothing; each image counts once, whatever the
        number of ranks.
        """
        ranks, count = self.context.ranks, self.dataset.count(split)
        own = torch.arange(ranks.rank, count, ranks.world_size)
        plan = validation_plan(own, self.recipe, self.context)
        sums, seen = torch.zeros(2, dtype=torch.float64, device=ranks.device), 0
        model.eval()
        transform = None if self.dataset.in_memory else self._transform(train=False)
        batches = self.dataset.batches(split, plan, transform=transform, faults=self.faults)
        for images, labels in self._sent(batches):
            with autocast(torch.device(ranks.device), self.recipe):
                logits = self._logits(model, images, len(plan[0]))
            losses = functional.cross_entropy(logits.float(), labels, reduction="sum")
            sums += torch.stack([(logits.argmax(1) == labels).sum(), losses])
            seen += len(labels)
        correct, loss, images_seen = all_reduce([*sums.tolist(), seen], "sum", ranks)
        return 100 * correct / images_seen, loss / images_seen

    def _logits(self, model: nn.Module, images: Tensor, batch: int) -> Tensor:
        """Keep a compiled model from being compiled once more for the last, shorter batch: copies fill it up."""
        if not self.recipe.compile or len(images) == batch:
            return model(images)  # type: ignore[no-any-return]
        fill = images[-1:].expand(batch - len(images), -1, -1, -1)
        return model(torch.cat([images, fill]))[: len(images)]  # type: ignore[no-any-return]
