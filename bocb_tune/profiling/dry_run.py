"""A few optimizer steps of a cell, by the loop of the trials, on made-up images: what fits, and how fast. No Ray."""

from __future__ import annotations

import io
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import replace

import torch
from torch import nn

from bocb_tune.backbones import build_backbone
from bocb_tune.core.errors import OutOfMemory
from bocb_tune.core.types import Measurement, Phase, TrialSpec
from bocb_tune.data import DATASETS, image_size, num_classes
from bocb_tune.data.arrays import Arrays, Rows
from bocb_tune.data.base import Dataset
from bocb_tune.optimizers import build_optimizer
from bocb_tune.optimizers.needs import SecondOrder
from bocb_tune.spec.grid import PlannedCell
from bocb_tune.spec.model import ExperimentSpec
from bocb_tune.tasks.classification import Pictures
from bocb_tune.training.context import Context, Ranks
from bocb_tune.training.loop import Training, catch_out_of_memory, fit
from bocb_tune.training.recipes import DEFAULTS, Recipe
from bocb_tune.training.rng import seed_all

TIMED_EPOCHS = 3
"""Of a few steps each; the spread of the times is between these."""
NOISE_IMAGES = 256
"""Made-up images there are; batches repeat them."""
DONE_BY_LOADERS = (
    *("augment", "rand_augment", "rand_augment_std", "rand_augment_layers", "erase"),
    *("crop_min_area", "color_jitter"),
)
"""Fields of a recipe that loader processes heed, where images are decoded from files."""
SIDE = 256
"""Of the square matrix by which the state of an optimizer is compared to its weights."""


class Rehearsal:
    """One rank of a cell under its recipe, for a few steps, as often as asked for."""

    def __init__(self, spec: ExperimentSpec, planned: PlannedCell, device: str) -> None:
        self.planned, self.device = planned, device
        _, recipe = spec.recipe_of(planned.cell.backbone)
        own = replace(recipe, batch_size=recipe.batch_size // spec.resources.workers)
        if DATASETS[spec.dataset.name].is_decoded:
            own = replace(own, **{name: DEFAULTS[name] for name in DONE_BY_LOADERS})
        self.recipe = own
        """`batch_size` is what a rank sees of a batch."""
        self.images = noise_images(spec, device)

    def images_per_s(self) -> tuple[tuple[float, ...], float] | None:
        """Measure images a second of this rank by the recipe, several times, and its peak memory in GiB.

        Returns:
            None if it runs out of memory.
        """
        found = self._run(self.recipe, epochs=1 + TIMED_EPOCHS)
        return (
            (tuple(m.metrics["images_per_s"] for m in found), found[-1].metrics["peak_memory_gib"]) if found else None
        )

    def fits(self, batch: int) -> bool:
        """Whether so many images at a time fit into the memory."""
        return self._run(replace(self.recipe, batch_size=batch, accumulation=1)) is not None

    def weights_bytes(self) -> int:
        """Of the parameters and buffers."""
        with torch.device("meta"):
            state = self._model().state_dict()
        return sum(value.numel() * value.element_size() for value in state.values())

    def _run(self, recipe: Recipe, epochs: int = 2) -> list[Measurement] | None:
        """Train for some epochs and return all but the first, which warms up. None: out of memory."""
        try:
            _, *later = catch_out_of_memory(self._epochs(recipe, epochs))
        except OutOfMemory:
            return None
        finally:
            if self.device != "cpu":
                torch.cuda.empty_cache()
        return later

    def _epochs(self, recipe: Recipe, epochs: int) -> Iterator[Measurement]:
        steps = 1 if self.device == "cpu" else 4
        layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
        model = self._model().to(device=self.device, memory_format=layout)  # type: ignore[call-overload]
        hparams = {"lr": self.planned.space.lr.low, "weight_decay": self.planned.space.default["weight_decay"]}
        yield from rehearse(self.planned, model, self.images, recipe, hparams, epochs=epochs, steps=steps)

    def _model(self) -> nn.Module:
        seed_all(0)
        return build_backbone(
            self.planned.cell.backbone,
            num_classes=self.images.num_classes,
            in_chans=self.images.in_chans,
            image_size=self.images.image_size,
            drop_path=self.recipe.drop_path,
        )


def noise_images(spec: ExperimentSpec, device: str) -> Dataset:
    """Made-up training images of the shape and the number of classes of the experiment's dataset."""
    name, options = spec.dataset.name, spec.dataset.options
    size, classes = image_size(name, options), num_classes(name, options)
    channels = DATASETS[name].channels
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (NOISE_IMAGES, channels, size, size), dtype=torch.uint8, generator=generator)
    labels = torch.randint(classes, (NOISE_IMAGES,), generator=generator)
    rows = Rows(images=images.to(device), labels=labels.to(device), rows=torch.arange(NOISE_IMAGES, device=device))
    half = (0.5,) * channels
    return Arrays(num_classes=classes, in_chans=channels, image_size=size, mean=half, std=half, splits={"train": rows})


def rehearse(
    planned: PlannedCell,
    model: nn.Module,
    images: Dataset,
    recipe: Recipe,
    hparams: Mapping[str, float],
    *,
    epochs: int,
    steps: int,
) -> Generator[Measurement, None, None]:
    """Trains `model`, which is changed, by the loop of the trials: `steps` optimizer steps an epoch on one rank.

    No warm-up, no validation. Raises what a trial does.
    """
    device = str(next(model.parameters()).device)
    recipe = replace(recipe, warmup_epochs=0.0)
    context = Context(ranks=Ranks(device=device))
    pictures = Pictures(images, recipe, context)
    fixed = {"layer_decay": recipe.layer_decay, **planned.space.fixed}
    training = Training(
        model=model,
        optimizer=build_optimizer(model, planned.cell.optimizer, **hparams, **fixed),
        recipe=recipe,
        num_images=steps * recipe.batch_size,
        batches=pictures.train,
        loss=pictures.loss,
        evaluate=lambda model, last: {"score": 0.0, "val_loss": 0.0},  # noqa: ARG005
    )
    trial = TrialSpec(
        cell=planned.cell,
        phase=Phase.default,
        index=0,
        hparams=hparams,
        seed=0,
        budget=epochs,
        settings=planned.settings,
    )
    yield from fit(training, trial, context)


def largest_batch(start: int, fits_start: bool, fits: Callable[[int], bool], limit: int) -> int:
    """The largest batch that fits: by doubling `start`, up to `limit`, or by halving it, to even numbers; 0 if none."""
    batch = start
    if fits_start:
        while 2 * batch <= limit and fits(2 * batch):
            batch *= 2
        return batch
    while (batch := batch // 4 * 2) >= 2:
        if fits(batch):
            return batch
    return 0


def state_share(planned: PlannedCell) -> float:
    """Bytes the optimizer of a cell keeps for each byte of weights, of a square matrix after two steps."""
    layer = nn.Linear(SIDE, SIDE, bias=False)
    optimizer = build_optimizer(layer, planned.cell.optimizer, **planned.space.default, **planned.space.fixed)
    for _ in range(2):
        layer.weight.grad = torch.ones_like(layer.weight)
        if isinstance(optimizer, SecondOrder) and optimizer.curvature_due:
            optimizer.observe([torch.ones_like(layer.weight)])
        optimizer.step()
    kept = io.BytesIO()
    torch.save(optimizer.state_dict(), kept)
    return kept.tell() / (layer.weight.numel() * layer.weight.element_size())
