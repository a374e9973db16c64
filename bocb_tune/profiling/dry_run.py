"""Whether a cell of an experiment fits into a device, and how fast its steps are there, on made-up images. No Ray."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn

from bocb_tune.core.errors import OutOfMemory
from bocb_tune.core.types import Measurement
from bocb_tune.data import DATASETS, image_size, num_classes
from bocb_tune.optimizers import build_optimizer
from bocb_tune.profiling.load import Load, step_alone
from bocb_tune.spec.grid import PlannedCell
from bocb_tune.spec.model import ExperimentSpec
from bocb_tune.training.loop import catch_out_of_memory
from bocb_tune.training.recipes import DEFAULTS

TIMED_EPOCHS = 3
"""Epochs of a few steps each; the spread of the times is between these."""
DONE_BY_LOADERS = (
    *("augment", "rand_augment", "rand_augment_std", "rand_augment_layers", "erase"),
    *("crop_min_area", "color_jitter"),
)
"""Fields of a recipe that loader processes heed, where images are decoded from files."""
SIDE = 256
"""Side of the square matrix by which the state of an optimizer is compared to its weights."""


def load_of(spec: ExperimentSpec, planned: PlannedCell) -> Load:
    """Give one rank of a cell, without what loader processes do where images are decoded from files."""
    name, options = spec.dataset.name, spec.dataset.options
    _, recipe = spec.recipe_of(planned.cell.backbone)
    own = replace(recipe, batch_size=recipe.batch_size // spec.resources.of(planned.cell.backbone).workers)
    if DATASETS[name].is_decoded:
        own = replace(own, **{name: DEFAULTS[name] for name in DONE_BY_LOADERS})
    return Load(
        backbone=planned.cell.backbone,
        optimizer=planned.cell.optimizer,
        recipe=own,
        image_size=image_size(name, options, recipe.image_size),
        channels=DATASETS[name].channels,
        num_classes=num_classes(name, options),
        hparams={"lr": planned.space.lr.low, "weight_decay": planned.space.default["weight_decay"]},
        fixed=planned.space.fixed,
    )


def images_per_s(load: Load, device: str) -> tuple[tuple[float, ...], float] | None:
    """Measure images a second of one rank by its recipe, several times, and its peak memory in GiB.

    Returns:
        None if it runs out of memory.
    """
    found = _run(load, device, epochs=1 + TIMED_EPOCHS)
    return (tuple(m.metrics["images_per_s"] for m in found), found[-1].metrics["peak_memory_gib"]) if found else None


def fits(load: Load, device: str, batch: int) -> bool:
    """Tell whether so many images at a time fit into the memory."""
    return _run(replace(load, recipe=replace(load.recipe, batch_size=batch, accumulation=1)), device) is not None


def weights_bytes(load: Load) -> int:
    """Count the bytes of the parameters and buffers."""
    with torch.device("meta"):
        state = load.model().state_dict()
    return sum(value.numel() * value.element_size() for value in state.values())


def _run(load: Load, device: str, epochs: int = 2) -> list[Measurement] | None:
    """Train for some epochs and return all but the first, which warms up. None: out of memory."""
    steps = 1 if device == "cpu" else 4
    try:
        _, *later = catch_out_of_memory(load.epochs(load.training(device, steps), device, count=epochs))
    except OutOfMemory:
        return None
    finally:
        if device != "cpu":
            torch.cuda.empty_cache()
    return later


def largest_batch(start: int, fits_start: bool, fits: Callable[[int], bool], limit: int) -> int:
    """Find the largest batch that fits: by doubling `start` up to `limit`, or halving it to even numbers; 0 if none."""
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
    """Measure the bytes the optimizer of a cell keeps for each byte of weights, of a square matrix after two steps."""
    layer = nn.Linear(SIDE, SIDE, bias=False)
    optimizer = build_optimizer(layer, planned.cell.optimizer, **planned.space.default, **planned.space.fixed)
    for _ in range(2):
        layer.weight.grad = torch.ones_like(layer.weight)
        step_alone(optimizer)
    kept = io.BytesIO()
    torch.save(optimizer.state_dict(), kept)
    return kept.tell() / (layer.weight.numel() * layer.weight.element_size())
