"""Needs of a grid on this machine: time, memory and disk, from a few optimizer steps of each backbone. No Ray.

Timed is what one rank does alone: forward and backward pass, optimizer step, augmentation, and where images are
decoded from files that are here, reading and decoding them. Not timed are exchange of gradients between ranks, and
validation.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from statistics import median

import torch

from bocb_tune.core.groups import GroupShape
from bocb_tune.data import DATASETS, contents_of
from bocb_tune.engine.cluster.room import Machine
from bocb_tune.engine.cluster.sharing import Demand, grants
from bocb_tune.profiling.cost import Cost
from bocb_tune.profiling.dry_run import fits, images_per_s, largest_batch, load_of, state_share, weights_bytes
from bocb_tune.profiling.load import Load
from bocb_tune.profiling.loading import Loading, time_loading
from bocb_tune.profiling.packing import Packed, best_packing, packed
from bocb_tune.spec.environment import missing_data
from bocb_tune.spec.grid import Grid
from bocb_tune.spec.model import ExperimentSpec
from bocb_tune.training.recipes import Recipe

GIB = 2**30
TRIALS_AT_A_TIME = (1, 2, 4, 8)
PACKED_STEPS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Needs of one backbone."""

    backbone: str
    optimizer: str
    """The one it was measured with: of those it is paired with, the one that keeps the most state."""
    batch: int
    """Images a rank sees in one forward pass, by the recipe."""
    seconds_per_epoch: float | None
    """Seconds of training, with decoding where that is measured. None if a step ran out of memory."""
    seconds_range: tuple[float, float] | None
    """Ends of `seconds_per_epoch`: the fastest and the slowest of a few repetitions."""
    decoding_seconds: float | None
    """Seconds of one epoch, reading, decoding and augmenting alone. None where images are in memory, or not here."""
    peak_memory_gib: float | None
    """Peak of a rank. None where it was not measured: on the CPU, or out of memory."""
    largest_batch: int | None
    """Images that fit into one forward pass: `batch` by a power of two; 0 if not even two. None on the CPU: not
    measured."""
    weights_gib: float
    """Size of the model: parameters and buffers."""
    packing: tuple[Packed, ...] = ()
    """Trials at a time on one GPU; empty where nothing is to be packed: on CPUs, and for trials of several workers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Needs of the grid, without the cells of backbones that do not fit."""

    device: str
    images: int
    """Training images in an epoch."""
    counted: bool
    """Whether the images were counted; else they are the published ones less those held out."""
    device_hours: float
    """Hours of one device, training alone, with early stopping as it is expected."""
    device_hours_range: tuple[float, float]
    """The same by the fastest and by the slowest repetitions."""
    device_hours_worst: float
    """The same if nothing is ever stopped."""
    slots: int
    """Trials that this machine trains at a time; 0 if it cannot train one."""
    ranks: int
    """Ranks of these trials."""
    decoding: bool | None
    """Whether decoding is in the times; None if there is nothing to decode."""
    checkpoint_gib: float
    """Checkpoints left on disk when the grid is done: the best of each cell."""


def device_for(shape: GroupShape) -> str:
    """Choose what a backbone is measured on: a GPU where its trials ask for one and there is one."""
    return "cuda:0" if shape.gpus_per_worker and torch.cuda.is_available() else "cpu"


def device_name(device: str, threads: int) -> str:
    """Name a device for a reader."""
    return f"CPU, {threads} thread{'s' * (threads > 1)}" if device == "cpu" else torch.cuda.get_device_name(device)


def measure(spec: ExperimentSpec, grid: Grid) -> Generator[Measured, None, None]:
    """Measure each backbone of the grid, one after the other, on as many threads as a worker of a trial has.

    Raises:
        ValueError: if its task trains no model, or the number of images is known neither from the data nor from a
            publication.
    """
    if spec.task.name != "classification":
        raise ValueError(f"--measure trains classifiers, and the task is {spec.task.name!r}; leave it out")
    num_images, _ = train_images(spec)
    shares, is_here = state_shares(grid), missing_data(spec) is None
    loadings = dict[tuple[Recipe, str], tuple[Loading, ...]]()
    for backbone in dict.fromkeys(planned.cell.backbone for planned in grid.cells):
        cells = [planned for planned in grid.cells if planned.cell.backbone == backbone]
        heaviest = max(cells, key=lambda planned: shares[planned.cell.optimizer])
        shape = spec.resources.of(backbone)
        device = device_for(shape)
        with _threads(int(shape.cpus_per_worker)):
            _, recipe = spec.recipe_of(backbone)
            own = replace(recipe, batch_size=recipe.batch_size // shape.workers)
            if is_here and (own, device) not in loadings:
                loadings[own, device] = time_loading(spec, own, device)
            load = load_of(spec, heaviest)
            found = _measured(load, device, loadings.get((own, device), ()), num_images, shape.workers)
        yield found


@contextmanager
def _threads(number: int) -> Iterator[None]:
    """Have torch, and with it the loader, take as many threads as a worker of a trial does."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def state_shares(grid: Grid) -> dict[str, float]:
    """Measure `state_share` of each optimizer of the grid."""
    one_of_each = {planned.cell.optimizer: planned for planned in grid.cells}
    return {optimizer: state_share(planned) for optimizer, planned in one_of_each.items()}


def _measured(load: Load, device: str, loadings: Sequence[Loading], num_images: int, workers: int) -> Measured:
    recipe, on_gpu = load.recipe, device != "cpu"
    batch = recipe.batch_size // recipe.accumulation
    found = images_per_s(load, device)
    largest = largest_batch(batch, found is not None, partial(fits, load, device), num_images) if on_gpu else None
    images_of_a_rank = num_images // (recipe.batch_size * workers) * recipe.batch_size
    training = [images_of_a_rank / rate for rate in found[0]] if found else []
    decoding = [loading.epoch_s(images_of_a_rank, batch) for loading in loadings]
    times = epoch_seconds(training, decoding, on_gpu=on_gpu)
    return Measured(
        backbone=load.backbone,
        optimizer=load.optimizer,
        batch=batch,
        seconds_per_epoch=times[1] if times else None,
        seconds_range=(times[0], times[2]) if times else None,
        decoding_seconds=median(decoding) if decoding else None,
        peak_memory_gib=found[1] if found and on_gpu else None,
        largest_batch=largest,
        weights_gib=weights_bytes(load) / GIB,
        packing=tuple(_packings(load, device)) if found and on_gpu and workers == 1 else (),
    )


def _packings(load: Load, device: str) -> Iterator[Packed]:
    """Measure more and more trials at a time, until they do not fit or bring nothing more."""
    measured: list[Packed] = []
    for trials in TRIALS_AT_A_TIME:
        measured.append(packed(load, device, trials, steps=PACKED_STEPS, epochs=2))
        yield measured[-1]
        if best_packing(measured) is not measured[-1]:
            return


def epoch_seconds(
    training: Sequence[float], decoding: Sequence[float], *, on_gpu: bool
) -> tuple[float, float, float] | None:
    """Combine repetitions of two times: the least, the median and the most. None if training ran out of memory.

    On a GPU images are decoded while others are trained on, so that the slower of the two counts; on a CPU both take
    turns on the same cores.
    """
    if not training:
        return None
    others = decoding or (0.0,)
    both = [(pick(training), pick(others)) for pick in (min, median, max)]
    least, middle, most = (max(pair) if on_gpu else sum(pair) for pair in both)
    return least, middle, most


def train_images(spec: ExperimentSpec) -> tuple[int, bool]:
    """Count the training images in an epoch, and say whether they were counted: see `Totals`.

    Raises:
        ValueError: if they are not known.
    """
    name, options = spec.dataset.name, spec.dataset.options
    missing, published = missing_data(spec), DATASETS[name].train_images
    if missing is None:
        return contents_of(name, options).count("train"), True
    if published is None:
        raise ValueError(f"--measure needs to know the number of images, but {missing}")
    kept = 1.0 if options["validate_on"] == "test" else 1 - options["val_share"]
    return round(published * kept), False


def totals(spec: ExperimentSpec, grid: Grid, cost: Cost, measured: Sequence[Measured]) -> Totals:
    """Sum up what the grid takes, by what was measured."""
    rows = {row.backbone: row for row in measured if row.seconds_per_epoch is not None}
    cells = [planned for planned in grid.cells if planned.cell.backbone in rows]
    of_cells = [(rows[planned.cell.backbone], spec.resources.of(planned.cell.backbone).workers) for planned in cells]
    seconds = sum((row.seconds_per_epoch or 0.0) * workers for row, workers in of_cells)
    ranges = [[end * workers for end in row.seconds_range or (0.0, 0.0)] for row, workers in of_cells]
    hours_a_second = 1 / cost.cells / 3600
    least, most = (sum(ends[side] for ends in ranges) * hours_a_second * cost.epochs_expected for side in (0, 1))
    shares = state_shares(grid)
    checkpoints = 0.0
    for planned in cells:
        copies = 1 + shares[planned.cell.optimizer] + bool(spec.recipe_of(planned.cell.backbone)[1].ema_decay)
        checkpoints += rows[planned.cell.backbone].weights_gib * copies * cost.checkpoints / cost.cells
    images, counted = train_images(spec)
    together = groups_here(spec)
    shapes = [spec.resources.of(backbone) for backbone in spec.backbones]
    largest = max(shapes, key=lambda shape: (shape.gpus_per_worker > 0, shape.cpus_per_worker))
    return Totals(
        device=device_name(device_for(largest), int(largest.cpus_per_worker)),
        images=images,
        counted=counted,
        device_hours=seconds * hours_a_second * cost.epochs_expected,
        device_hours_range=(least, most),
        device_hours_worst=seconds * hours_a_second * cost.epochs_worst,
        slots=len(together),
        ranks=sum(shape.workers for shape in together),
        decoding=_decodes(spec, measured),
        checkpoint_gib=checkpoints,
    )


def _decodes(spec: ExperimentSpec, measured: Sequence[Measured]) -> bool | None:
    if any(row.decoding_seconds is not None for row in measured):
        return True
    return False if DATASETS[spec.dataset.name].is_decoded else None


def groups_here(spec: ExperimentSpec) -> list[GroupShape]:
    """List the worker groups that this machine trains with at a time."""
    own = {"CPU": float(os.cpu_count() or 1), "GPU": float(torch.cuda.device_count())}
    shapes = dict.fromkeys(replace(spec.resources.of(backbone), labels=()) for backbone in spec.backbones)
    demands = [Demand(shape=shape) for shape in shapes]
    together = grants(demands, [Machine(id="", name="", resources=own)], spec.resources.turns, holding={})
    return together[: spec.resources.max_slots]


def warnings(grid: Grid, measured: Sequence[Measured], device: str) -> Iterator[str]:
    """Say what to tell a user whose cells cannot run."""
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
