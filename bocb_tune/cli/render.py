"""A plan as JSON and as text."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from bocb_tune.core.groups import GroupShape
from bocb_tune.core.names import listed, plain
from bocb_tune.profiling.cost import Cost
from bocb_tune.spec.grid import Grid
from bocb_tune.spec.model import ExperimentSpec, dump_resolved, resolved
from bocb_tune.training.recipes import DESCRIPTIONS, PUBLISHED_EPOCHS, RECIPES, Recipe, on_devices

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bocb_tune.data.contents import Contents
    from bocb_tune.profiling.measure import Measured, Totals
    from bocb_tune.profiling.packing import Packed

NUM_NAMED = 3
NOT_TIMED = (
    "Not in the times: validation, exchange of gradients between ranks, what trials side by side cost one another"
)
DECODING = {
    True: "decoding of the files is in the times",
    False: "nor reading and decoding of the files, which are not on this machine",
    None: "the images are in memory, so that nothing is decoded",
}


def plan_json(spec: ExperimentSpec, grid: Grid, cost: Cost) -> dict[str, Any]:
    """Return everything `bocb-tune plan` knows, JSON-able."""
    return {
        "spec": resolved(spec),
        "run_dir": spec.run_dir,
        "cells": [
            {
                **planned.cell.to_json(),
                "recipe": spec.recipe_of(planned.cell.backbone)[0],
                "workers": spec.resources.of(planned.cell.backbone).workers,
            }
            for planned in grid.cells
        ],
        "skipped": [{**skipped.cell.to_json(), "reason": skipped.reason} for skipped in grid.skipped],
        "trials": {**cost.trials, "total": cost.total_trials},
        "rungs": list(cost.rungs),
        "epochs": {"worst": cost.epochs_worst, "expected": cost.epochs_expected},
        "checkpoints": cost.checkpoints,
    }


def print_plan(console: Console, spec: ExperimentSpec, grid: Grid, cost: Cost, data: Contents | None) -> None:
    """Print the resolved spec, its data if they are here, cells, skips, trials and epochs."""
    console.rule(Text.assemble((spec.name, "bold"), ", resolved"), align="left")
    console.print(dump_resolved(spec), highlight=False, soft_wrap=True)
    if data:
        console.rule("data", align="left")
        console.print(plain("\n".join(data.lines())), highlight=False, soft_wrap=True)
    console.rule(f"{len(grid.cells)} cells, {len(grid.skipped)} skipped", align="left")
    console.print(cells_table(spec, grid))
    console.print(recipes_text(spec), highlight=False, soft_wrap=True)
    for line in skipped_lines(grid):
        console.print(line, style="dim", soft_wrap=True)
    for line in group_lines(spec, grid):
        console.print(line, highlight=False, soft_wrap=True)
    console.rule(f"{cost.total_trials} trials", align="left")
    console.print(trials_table(cost))
    console.print(epochs_line(spec, cost), soft_wrap=True)


def cells_table(spec: ExperimentSpec, grid: Grid) -> Table:
    """Make one row per cell: where it is searched, its default as lr, weight decay, and what it is trained by."""
    columns = ("lr", "weight decay", "default", "recipe", *(["refined"] if spec.search.refine else []))
    table = Table(Column("cell", overflow="fold"), *columns, box=None, header_style="bold", pad_edge=False)
    for planned in grid.cells:
        space = planned.space
        default = f"{space.default['lr']:g}, {space.default['weight_decay']:g}"
        recipe, _ = spec.recipe_of(planned.cell.backbone)
        row = [planned.cell.key, str(space.lr), str(space.weight_decay), default, recipe]
        if spec.search.refine:
            row.append(", ".join(f"{name} {dim}" for name, dim in space.own.items()))
        table.add_row(*row)
    return table


def skipped_lines(grid: Grid) -> list[str]:
    """Make one line per reason, however many cells it leaves out: the JSON names them all."""
    by_reason: dict[str, list[str]] = {}
    for skipped in grid.skipped:
        by_reason.setdefault(skipped.reason, []).append(skipped.cell.key)
    return [f"skipped, {reason}: {listed(cells, NUM_NAMED)}" for reason, cells in by_reason.items()]


def group_lines(spec: ExperimentSpec, grid: Grid) -> list[str]:
    """Make one line per shape of worker group, with the backbones that it trains; none where all are alike."""
    trained: dict[GroupShape, list[str]] = {}
    for backbone in dict.fromkeys(planned.cell.backbone for planned in grid.cells):
        trained.setdefault(spec.resources.of(backbone), []).append(backbone)
    lines = [f"A trial of {listed(backbones, NUM_NAMED)}: {shape}" for shape, backbones in trained.items()]
    return lines if len(lines) > 1 else []


def recipes_text(spec: ExperimentSpec) -> str:
    """Make one line per recipe: what it is, the epochs it was published with beside those it gets here, and what the
    experiment changes of it.
    """
    lines = (_recipe_line(spec, *spec.recipe_of(backbone)) for backbone in spec.backbones)
    return "\n".join(dict.fromkeys(lines))


def _recipe_line(spec: ExperimentSpec, name: str, recipe: Recipe) -> str:
    published = asdict(on_devices(RECIPES[name], gpus=spec.resources.gpus_per_worker > 0))
    changes = [f"{key} {value}" for key, value in asdict(recipe).items() if value != published[key]]
    told = f". Changed here: {', '.join(changes)}" * bool(changes)
    return f"Recipe {name}: {DESCRIPTIONS[name]}{_epochs(name, spec)}{told}"


def _epochs(recipe: str, spec: ExperimentSpec) -> str:
    published = PUBLISHED_EPOCHS.get(recipe)
    return f". Published with {published} epochs; here {spec.budget.epochs}" if published else ""


def trials_table(cost: Cost) -> Table:
    """Make one row per phase."""
    table = Table("phase", box=None, header_style="bold", pad_edge=False)
    table.add_column("a cell", justify="right")
    table.add_column("the grid", justify="right")
    for phase, count in cost.trials.items():
        table.add_row(phase, str(count // cost.cells), str(count))
    return table


def epochs_line(spec: ExperimentSpec, cost: Cost) -> str:
    """Say how many epochs there are at worst, and as early stopping is expected to leave them."""
    rungs = ", ".join(map(str, cost.rungs)) or "none"
    return (
        f"Epochs: {cost.epochs_worst} at worst, about {cost.epochs_expected:.0f} with early stopping "
        f"(rungs after epoch {rungs}; a trial runs to {spec.budget.epochs}).\n"
        f"Checkpoints kept: {cost.checkpoints}, and one for each trial running. Run folder: {spec.run_dir}"
    )


def measured_json(measured: Sequence[Measured], total: Totals) -> dict[str, Any]:
    """Return what was measured, JSON-able."""
    return {**asdict(total), "backbones": [asdict(row) for row in measured]}


def print_measured(console: Console, spec: ExperimentSpec, measured: Sequence[Measured], total: Totals) -> None:
    """Print one row per backbone, and what the grid takes."""
    console.rule(f"measured on {total.device}", align="left")
    console.print(measured_table(measured))
    for line in measured_lines(spec, total):
        console.print(line, highlight=False, soft_wrap=True)


def measured_table(measured: Sequence[Measured]) -> Table:
    """Make one row per backbone."""
    table = Table(Column("backbone", overflow="fold"), "measured with", box=None, header_style="bold", pad_edge=False)
    for heading in ("batch a rank", "s an epoch", "of it decoding", "peak GiB", "largest batch", "trials a GPU"):
        table.add_column(heading, justify="right", no_wrap=heading == "s an epoch")
    for row in measured:
        seconds = _spread(row.seconds_per_epoch, row.seconds_range) if row.seconds_range else "out of memory"
        decoding = "-" if row.decoding_seconds is None else f"{row.decoding_seconds:.3g}"
        peak = "-" if row.peak_memory_gib is None else f"{row.peak_memory_gib:.2f}"
        largest = "-" if row.largest_batch is None else str(row.largest_batch)
        packing = trials_a_gpu(row.packing)
        table.add_row(row.backbone, row.optimizer, str(row.batch), seconds, decoding, peak, largest, packing)
    return table


def trials_a_gpu(packing: Sequence[Packed]) -> str:
    """Say how many trials at a time get the most out of a GPU, and how much more than one alone."""
    from bocb_tune.profiling.packing import best_packing

    best = best_packing(packing)
    if best is None or best.images_per_s is None or packing[0].images_per_s is None:
        return "-"
    gain = f", {best.images_per_s / packing[0].images_per_s:.1f} times one's rate" if best.trials > 1 else ""
    return f"{best.trials} (gpus_per_worker: {1 / best.trials:g}{gain})"


def _spread(value: float | None, ends: tuple[float, float]) -> str:
    return f"{value:.3g} ({ends[0]:.3g} to {ends[1]:.3g})"


def _wall(total: Totals) -> str:
    """Say the hours by the clock, with as many trials at a time as this machine has room for."""
    if not total.slots:
        return "This machine has no room for a trial"
    least, most = (each / total.ranks for each in total.device_hours_range)
    about = _spread(total.device_hours / total.ranks, (least, most))
    return f"By the clock, with {total.slots} trials at a time here: about {about} hours"


def measured_lines(spec: ExperimentSpec, total: Totals) -> list[str]:
    """Say what the table rests on, and the grid's sums."""
    images = "counted" if total.counted else "the published number less those held out: the data are not here"
    lines = [
        f"From a few steps on random images in the shape of {spec.dataset.name}'s, with the optimizer of the grid that "
        f"keeps the most state; an epoch has {total.images} images ({images}).",
        f"{NOT_TIMED}; {DECODING[total.decoding]}.",
        f"Device-hours: about {_spread(total.device_hours, total.device_hours_range)} with early stopping, "
        f"{total.device_hours_worst:.3g} at worst. {_wall(total)}. "
        f"Checkpoints kept: about {total.checkpoint_gib:.3g} GiB.",
    ]
    if total.device.startswith("CPU"):
        lines.insert(1, "Peak memory and largest batch are not measured on a CPU.")
        if any(spec.resources.of(backbone).gpus_per_worker for backbone in spec.backbones):
            lines.insert(1, "The experiment asks for GPUs and there is none here: these times are this CPU's.")
    return lines
