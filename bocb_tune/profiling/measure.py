"""What a grid will take on this machine: time, memory and disk, from a few optimizer steps of each backbone. No Ray.

Timed is what one rank does alone: augmentation in memory, forward and backward pass, optimizer step. Not timed are
reading and decoding of files, exchange of gradients between ranks, and validation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from bocb_tune.data import DATASETS, contents_of
from bocb_tune.profiling.cost import Cost
from bocb_tune.profiling.dry_run import fits, images_per_s, largest_batch, load_of, state_share, weights_bytes
from bocb_tune.profiling.load import Load
from bocb_tune.profiling.packing import Packed, best_packing, packed
from bocb_tune.spec.environment import missing_data
from bocb_tune.spec.grid import Grid
from bocb_tune.spec.model import ExperimentSpec

GIB = 2**30
TRIALS_AT_A_TIME = (1, 2, 4, 8)
PACKED_STEPS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What one backbone takes."""

    backbone: str
    optimizer: str
    """The one it was measured with: of those it is paired with, the one that keeps the most state."""
    batch: int
    """Images a rank sees in one forward pass, by the recipe."""
    seconds_per_epoch: float | None
    """None if a step ran out of memory."""
    peak_memory_gib: float | None
    """Of a rank. None where it was not measured: on the CPU, or out of memory."""
    largest_batch: int | None
    """Images that fit into one forward pass: `batch` by a power of two; 0 if not even two. None on the CPU: not
    measured."""
    weights_gib: float
    """Of the model: parameters and buffers."""
    packing: tuple[Packed, ...] = ()
    """Trials at a time on one GPU; empty where nothing is to be packed: on CPUs, and for trials of several workers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """What the grid takes, without the cells of backbones that do not fit."""

    device: str
    images: int
    """Training images in an epoch."""
    counted: bool
    """Whether the images were counted; else they are the published ones less those held out."""
    device_hours: float
    """Hours of one device, training alone, with early stopping as it is expected."""
    device_hours_worst: float
    """The same if nothing is ever stopped."""
    checkpoint_gib: float
    """Checkpoints left on disk when the grid is done: the best of each cell."""


def device_for(spec: ExperimentSpec) -> str:
    """What is measured on: a GPU where the experiment asks for one and there is one."""
    return "cuda:0" if spec.resources.gpus_per_worker and torch.cuda.is_available() else "cpu"


def device_name(device: str) -> str:
    """For a reader."""
    return f"CPU, {torch.get_num_threads()} threads" if device == "cpu" else torch.cuda.get_device_name(device)


def measure(spec: ExperimentSpec, grid: Grid) -> Generator[Measured, None, None]:
    """Measures each backbone of the grid, one after the other.

    ValueError: its task trains no model, or the number of images is known neither from the data nor from a publication.
    """
    if spec.task.name != "classification":
        raise ValueError(f"--measure trains models, and task {spec.task.name!r} has none; leave it out")
    device, (num_images, _) = device_for(spec), train_images(spec)
    shares = state_shares(grid)
    for backbone in dict.fromkeys(planned.cell.backbone for planned in grid.cells):
        cells = [planned for planned in grid.cells if planned.cell.backbone == backbone]
        heaviest = max(cells, key=lambda planned: shares[planned.cell.optimizer])
        yield _measured(load_of(spec, heaviest), device, num_images, spec.resources.workers)


def state_shares(grid: Grid) -> dict[str, float]:
    """`state_share` of each optimizer of the grid."""
    one_of_each = {planned.cell.optimizer: planned for planned in grid.cells}
    return {optimizer: state_share(planned) for optimizer, planned in one_of_each.items()}


def _measured(load: Load, device: str, num_images: int, workers: int) -> Measured:
    recipe, on_gpu = load.recipe, device != "cpu"
    batch = recipe.batch_size // recipe.accumulation
    found = images_per_s(load, device)
    largest = largest_batch(batch, found is not None, partial(fits, load, device), num_images) if on_gpu else None
    images_of_a_rank = num_images // (recipe.batch_size * workers) * recipe.batch_size
    return Measured(
        backbone=load.backbone,
        optimizer=load.optimizer,
        batch=batch,
        seconds_per_epoch=images_of_a_rank / found[0] if found else None,
        peak_memory_gib=found[1] if found and on_gpu else None,
        largest_batch=largest,
        weights_gib=weights_bytes(load) / GIB,
        packing=tuple(_packings(load, device)) if found and on_gpu and workers == 1 else (),
    )


def _packings(load: Load, device: str) -> Iterator[Packed]:
    """More and more trials at a time, until they do not fit or bring nothing more."""
    measured: list[Packed] = []
    for trials in TRIALS_AT_A_TIME:
        measured.append(packed(load, device, trials, steps=PACKED_STEPS, epochs=2))
        yield measured[-1]
        if best_packing(measured) is not measured[-1]:
            return


def train_images(spec: ExperimentSpec) -> tuple[int, bool]:
    """Training images in an epoch, and whether they were counted: see `Totals`. ValueError: they are not known."""
    name, options = spec.dataset.name, spec.dataset.options
    missing, published = missing_data(spec), DATASETS[name].train_images
    if missing is None:
        return contents_of(name, options).count("train"), True
    if published is None:
        raise ValueError(f"--measure needs to know the number of images, but {missing}")
    kept = 1.0 if options["validate_on"] == "test" else 1 - options["val_share"]
    return round(published * kept), False


def totals(spec: ExperimentSpec, grid: Grid, cost: Cost, measured: Sequence[Measured]) -> Totals:
    """What the grid takes, by what was measured."""
    rows = {row.backbone: row for row in measured if row.seconds_per_epoch is not None}
    cells = [planned for planned in grid.cells if planned.cell.backbone in rows]
    seconds = sum(rows[planned.cell.backbone].seconds_per_epoch or 0.0 for planned in cells)
    hours_an_epoch = seconds * spec.resources.workers / cost.cells / 3600
    shares = state_shares(grid)
    checkpoints = 0.0
    for planned in cells:
        copies = 1 + shares[planned.cell.optimizer] + bool(spec.recipe_of(planned.cell.backbone)[1].ema_decay)
        checkpoints += rows[planned.cell.backbone].weights_gib * copies
    images, counted = train_images(spec)
    return Totals(
        device=device_name(device_for(spec)),
        images=images,
        counted=counted,
        device_hours=hours_an_epoch * cost.epochs_expected,
        device_hours_worst=hours_an_epoch * cost.epochs_worst,
        checkpoint_gib=checkpoints,
    )


def warnings(grid: Grid, measured: Sequence[Measured], device: str) -> Iterator[str]:
    """What to tell a user whose cells cannot run."""
    cells = Counter(planned.cell.backbone for planned in grid.cells)
    for row in measured:
        if row.seconds_per_epoch is None:
            fitting, way_out = (
                (f"{row.largest_batch} fit", "raise accumulation in its recipe, or resources.workers")
                if row.largest_batch
                else ("not even 2 fit", "take a device with more memory, or leave it out")
            )
            yield (
                f"the {cells[row.backbone]} cells of {row.backbone} do not fit into the memory of {device}: "
                f"a rank sees {row.batch} images at a time, and {fitting}; {way_out}"
            )
