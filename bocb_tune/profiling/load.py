"""One rank of a cell on made-up images: what a few optimizer steps take. Knows neither experiment files nor Ray."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from bocb_tune.backbones import build_backbone
from bocb_tune.core.types import Cell, Measurement, Phase, TrialSpec
from bocb_tune.data.arrays import Arrays, Rows
from bocb_tune.data.base import Dataset
from bocb_tune.optimizers import build_optimizer
from bocb_tune.optimizers.interfaces import SecondOrder
from bocb_tune.tasks.building import placed
from bocb_tune.tasks.classification import Pictures
from bocb_tune.training.context import Context, Ranks
from bocb_tune.training.loop import Training, fit
from bocb_tune.training.recipes import Recipe
from bocb_tune.training.rng import seed_all

NOISE_IMAGES = 256
"""Made-up images there are."""


def step_alone(optimizer: Optimizer) -> None:
    """Take a step with the gradients that are there and no loss: a second-order optimizer is told ones."""
    if isinstance(optimizer, SecondOrder) and optimizer.curvature_due:
        optimizer.observe([torch.ones_like(p) for group in optimizer.param_groups for p in group["params"]])
    optimizer.step()


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Properties that decide how long a step takes and how much memory it needs."""

    backbone: str
    optimizer: str
    recipe: Recipe
    """`batch_size` is what a rank sees of a batch."""
    image_size: int
    channels: int
    num_classes: int
    hparams: Mapping[str, float] = field(default_factory=lambda: {"lr": 1e-4, "weight_decay": 1e-2})
    fixed: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the optimizer that the search does not move."""

    def model(self) -> nn.Module:
        """Build the model on the default device, always from one seed."""
        seed_all(0)
        return build_backbone(
            self.backbone,
            num_classes=self.num_classes,
            in_chans=self.channels,
            image_size=self.image_size,
            resized_to=self.recipe.image_size,
            drop_path=self.recipe.drop_path,
        )

    def images(self, device: str, count: int) -> Dataset:
        """Make up raw images of uniform noise, on the device: `count`, which repeat NOISE_IMAGES of them."""
        generator = torch.Generator().manual_seed(0)
        shape = (NOISE_IMAGES, self.channels, self.image_size, self.image_size)
        images = torch.randint(256, shape, dtype=torch.uint8, generator=generator).to(device)
        labels = torch.randint(self.num_classes, (NOISE_IMAGES,), generator=generator).to(device)
        half, rows = (0.5,) * self.channels, torch.arange(count, device=device) % NOISE_IMAGES
        return Arrays(
            num_classes=self.num_classes,
            in_chans=self.channels,
            image_size=self.image_size,
            mean=half,
            std=half,
            splits={"train": Rows(images=images, labels=labels, rows=rows)},
        )

    def training(
        self, device: str, steps: int, *, model: nn.Module | None = None, images: Dataset | None = None
    ) -> Training:
        """Build what the loop of the trials trains: `steps` optimizer steps an epoch, no warm-up, no validation.

        A `model` that is given is trained in place of a new one, on `images` in place of noise.
        """
        recipe = replace(self.recipe, warmup_epochs=0.0)
        num_images = steps * recipe.batch_size
        images = self.images(device, num_images) if images is None else images
        pictures = Pictures(images, recipe, Context(ranks=Ranks(device=device)))
        model = placed(self.model() if model is None else model, recipe, device)
        fixed = {"layer_decay": recipe.layer_decay, **self.fixed}
        return Training(
            model=model,
            optimizer=build_optimizer(model, self.optimizer, **self.hparams, **fixed),
            recipe=recipe,
            num_images=num_images,
            batches=pictures.train,
            loss=pictures.loss,
            evaluate=lambda model, last: {"score": 0.0, "val_loss": 0.0},  # noqa: ARG005
        )

    def epochs(
        self, training: Training, device: str, count: int, after_step: Callable[[], object] = lambda: None
    ) -> Generator[Measurement, None, None]:
        """Train so many epochs by the loop of the trials, on one rank. Raises what a trial does."""
        yield from fit(training, self.trial(count), Context(ranks=Ranks(device=device), after_step=after_step))

    def trial(self, epochs: int) -> TrialSpec:
        """Describe the training as the loop wants it."""
        return TrialSpec(
            cell=Cell(task="classification", dataset="noise", backbone=self.backbone, optimizer=self.optimizer),
            phase=Phase.default,
            index=0,
            hparams=self.hparams,
            seed=0,
            budget=epochs,
            settings={},
        )
