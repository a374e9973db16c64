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
from bocb_tune.backbones.pretrained import start_from, verified
from bocb_tune.core.space import arguments
from bocb_tune.core.types import Measurement, Objective, TrialSpec, derive_seed
from bocb_tune.data import DATASETS, load_dataset, num_classes
from bocb_tune.data.base import Batch, Dataset, Transform
from bocb_tune.optimizers import build_optimizer
from bocb_tune.training.context import Context, Ranks
from bocb_tune.training.device import autocast, sent_ahead, set_memory_strides
from bocb_tune.training.distributed import all_reduce
from bocb_tune.training.freeze import freeze, require_own_statistics
from bocb_tune.training.loop import Training, catch_out_of_memory, fit
from bocb_tune.training.losses import LOSSES
from bocb_tune.training.recipes import Recipe, unheeded
from bocb_tune.training.rng import seed_all


class Classification:
    """The task; it has no options."""

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
    name, options = named({**trial.settings["dataset"], **trial.data_options})
    recipe = Recipe(**trial.settings["recipe"])
    require_suits(recipe, name)
    pictures = Pictures(load_dataset(name, options, context.ranks.device), recipe, context)
    model = _build_model(trial, pictures.dataset, recipe, context.ranks)
    given = {"layer_decay": recipe.layer_decay, **arguments(trial.settings["optimizer"], trial.hparams)}
    optimizer = build_optimizer(model, trial.cell.optimizer, **given)
    require_own_statistics(model, optimizer, trial.cell.optimizer, recipe)
    return Training(
        model=model,
        optimizer=optimizer,
        recipe=recipe,
        num_images=pictures.dataset.count("train"),
        batches=pictures.train,
        loss=pictures.loss,
        evaluate=pictures.evaluate,
    )


def initial_model(trial: TrialSpec) -> nn.Module:
    """Build the model of a trial as it is before its first step, on the CPU."""
    name, options = named({**trial.settings["dataset"], **trial.data_options})
    dataset = load_dataset(name, options, "cpu")
    return _build_model(trial, dataset, Recipe(**trial.settings["recipe"]), Ranks())


def require_suits(recipe: Recipe, dataset: str) -> None:
    """Check that a recipe's augmentation suits a dataset.

    Raises:
        ValueError: naming the field that does not.
    """
    augments = DATASETS[dataset].augments
    if recipe.augment not in augments:
        valid = " or ".join(repr(augment) for augment in augments)
        raise ValueError(f"recipe field 'augment' is {recipe.augment!r}; dataset {dataset!r} can take {valid}")
    for name, message in unheeded(recipe, DATASETS[dataset].is_decoded):
        raise ValueError(f"recipe field {name!r} {message}; dataset {dataset!r} is in memory")


def named(dataset: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Separate the name of a dataset from its options."""
    return dataset["name"], {option: value for option, value in dataset.items() if option != "name"}


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


def start(model: nn.Module, trial: TrialSpec) -> None:
    """Put the weights of its pre-training into a fresh model.

    Raises:
        ValueError: if they are not there, are others, or do not fit.
    """
    digest = trial.settings.get("pretrained")
    if digest is not None:
        start_from(model, verified(trial.weights, digest))


def placed(model: nn.Module, recipe: Recipe, device: str) -> nn.Module:
    """Put a model on its device, in the recipe's layout of memory.

    Raises:
        ValueError: if the recipe asks for gradient checkpointing and the model has none.
    """
    model = model.to(device=device, memory_format=_memory_format(recipe))  # type: ignore[call-overload]
    if recipe.channels_last:
        set_memory_strides(model)
    if recipe.grad_checkpointing:
        _checkpoint(model)
    return model


def _checkpoint(model: nn.Module) -> None:
    try:
        model.set_grad_checkpointing(True)  # type: ignore[operator]
    except (AttributeError, AssertionError, RuntimeError) as error:
        raise ValueError(
            f"recipe field 'grad_checkpointing' is True, but {type(model).__name__} has none; leave it at False, "
            "or give this backbone a recipe of its own"
        ) from error


def _memory_format(recipe: Recipe) -> torch.memory_format:
    return torch.channels_last if recipe.channels_last else torch.contiguous_format


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
        images = images.to(device, non_blocking=True, memory_format=_memory_format(self.recipe))
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
        per_rank = self.recipe.batch_size // ranks.world_size // self.recipe.accumulation
        own = torch.arange(ranks.rank, count, ranks.world_size)
        plan = torch.split(own, max(1, per_rank // self.context.micro_batch_divisor)) if len(own) else ()
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
