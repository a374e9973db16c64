"""An experiment's cells, and those that are skipped and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import product
from typing import Any

from bocb_tune.backbones import BACKBONES, adapted, renamed
from bocb_tune.core.names import listed
from bocb_tune.core.space import SearchSpace
from bocb_tune.core.types import Cell
from bocb_tune.data import settings_of
from bocb_tune.spec.model import ExperimentSpec
from bocb_tune.spec.pretrained import source_for
from bocb_tune.tasks import TASKS, seen_size
from bocb_tune.training.recipes import Recipe, recipe_settings

MOST_NAMED = 12
"""Cells that an error names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedCell:
    """A cell with the space it is explored over and all else its trials depend on."""

    cell: Cell
    space: SearchSpace
    settings: Mapping[str, Any]
    """The `settings` of its trials."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """A cell of the grid that is not run."""

    cell: Cell
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Every cell of an experiment, each either planned or skipped, in the order of the file."""

    cells: tuple[PlannedCell, ...]
    skipped: tuple[Skipped, ...] = ()


def plan_grid(spec: ExperimentSpec, only: str = "*") -> Grid:
    """Pair every backbone, from each of its pre-trainings, with every optimizer; `only` is a glob on the cells' keys.

    Raises:
        ValueError: if `only` leaves nothing.
    """
    cells = list(_cells(spec))
    matched = [cell for cell in cells if fnmatchcase(cell.key, only)]
    if not matched:
        there = listed([cell.key for cell in cells], MOST_NAMED)
        raise ValueError(f"--only {only!r} matches no cell, written BACKBONE/OPTIMIZER; there are {there}")
    reasons = {cell: f"not matched by --only {only}" for cell in cells if cell not in matched}
    reasons |= {cell: reason for cell in matched if (reason := _obstacle(spec, cell))}
    chosen = [cell for cell in matched if cell not in reasons]
    return Grid(
        cells=tuple(_planned(spec, cell) for cell in chosen),
        skipped=tuple(Skipped(cell=cell, reason=reasons[cell]) for cell in cells if cell in reasons),
    )


def rows_of(spec: ExperimentSpec) -> dict[str, Cell]:
    """Return a cell of each row that starts from weights of another training or from `scratch`."""
    return {cell.row: cell for cell in _cells(spec) if cell.pretrained and not _obstacle(spec, cell)}


def _cells(spec: ExperimentSpec) -> Iterator[Cell]:
    for backbone, pretrained, optimizer in product(spec.backbones, spec.pretrained or ("",), spec.optimizers):
        names = {"backbone": backbone, "optimizer": optimizer, "pretrained": pretrained}
        yield Cell(task=spec.task.name, dataset=spec.dataset.name, **names)


def _obstacle(spec: ExperimentSpec, cell: Cell) -> str:
    """Say what keeps a cell from being trained; empty if nothing does."""
    row = BACKBONES.get(cell.backbone)
    if TASKS[cell.task].has_maps and row and row.no_maps:
        return f"gives no feature maps of images of any size: {row.no_maps}"
    if cell.pretrained and source_for(spec.pretrained[cell.pretrained], cell.backbone) is None:
        return f"no weights of {cell.pretrained!r} are named for it"
    return ""


def _planned(spec: ExperimentSpec, cell: Cell) -> PlannedCell:
    space = spec.search_spaces[cell.optimizer]
    _, recipe = spec.recipe_of(cell.backbone)
    settings = {
        "task": dict(spec.task.options),
        "dataset": settings_of(spec.dataset.name, spec.dataset.options),
        "recipe": recipe_settings(recipe),
        "optimizer": dict(space.fixed),
        "workers": spec.resources.of(cell.backbone).workers,
    }
    # Left out where nothing is changed, so that such trials keep the identity they always had.
    if change := _changed(spec, cell.backbone, recipe):
        settings["backbone"] = change
    return PlannedCell(cell=cell, space=space, settings=settings)


def _changed(spec: ExperimentSpec, backbone: str, recipe: Recipe) -> dict[str, Any]:
    """Say how a backbone differs from timm's model of that name."""
    if TASKS[spec.task.name].has_maps:
        return dict(renamed(backbone))
    size = seen_size(spec.task.name, spec.dataset.name, spec.dataset.options, recipe.image_size)
    return adapted(backbone, size, recipe.image_size)
