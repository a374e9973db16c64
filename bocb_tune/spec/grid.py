"""An experiment's cells, those that are skipped and why, and what it all costs before anything has run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from bocb_tune.backbones import adapted
from bocb_tune.core.space import SearchSpace
from bocb_tune.core.types import Cell, Phase
from bocb_tune.data import image_size, settings_of
from bocb_tune.engine.policy import rung_budgets
from bocb_tune.spec.model import ExperimentSpec
from bocb_tune.training.recipes import recipe_settings


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
    """All pairs of a backbone and an optimizer; `only` is a glob on `backbone/optimizer`.

    Raises ValueError if `only` leaves nothing.
    """
    pairs = [(backbone, optimizer) for backbone in spec.backbones for optimizer in spec.optimizers]
    cells = [
        Cell(task=spec.task.name, dataset=spec.dataset.name, backbone=backbone, optimizer=optimizer)
        for backbone, optimizer in pairs
    ]
    chosen = [cell for cell in cells if fnmatchcase(cell.key, only)]
    if not chosen:
        raise ValueError(f"--only {only!r} matches no cell; there are {', '.join(cell.key for cell in cells)}")
    return Grid(
        cells=tuple(_planned(spec, cell) for cell in chosen),
        skipped=tuple(
            Skipped(cell=cell, reason=f"not matched by --only {only}") for cell in cells if cell not in chosen
        ),
    )


def _planned(spec: ExperimentSpec, cell: Cell) -> PlannedCell:
    space = spec.search_spaces[cell.optimizer]
    settings = {
        "task": dict(spec.task.options),
        "dataset": settings_of(spec.dataset.name, spec.dataset.options),
        "recipe": recipe_settings(spec.recipe_of(cell.backbone)[1]),
        "optimizer": dict(space.fixed),
        "workers": spec.resources.workers,
    }
    # Left out where nothing is changed, so that such trials keep the identity they always had.
    if change := adapted(cell.backbone, image_size(spec.dataset.name, spec.dataset.options)):
        settings["backbone"] = change
    return PlannedCell(cell=cell, space=space, settings=settings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a grid takes, from arithmetic alone."""

    cells: int
    trials: Mapping[Phase, int]
    """Trials of the whole grid by phase."""
    rungs: tuple[int, ...]
    """Budgets at which trials compete, in epochs."""
    epochs_worst: int
    """Epochs if nothing is ever stopped."""
    epochs_expected: float
    """Epochs if one in `reduction_factor` goes on at each rung; exempt trials run to the end."""
    checkpoints: int
    """Checkpoints left on disk: the best of each cell. While it runs, each running trial holds one more."""

    @property
    def total_trials(self) -> int:
        return sum(self.trials.values())


def cost(spec: ExperimentSpec, grid: Grid) -> Cost:
    """Trials and epochs of the grid, at worst and as early stopping is expected to leave them."""
    asha, epochs, cells = spec.search.asha, spec.budget.epochs, len(grid.cells)
    rungs = rung_budgets(asha.grace, asha.reduction_factor, epochs) if asha else ()
    trials = {phase: count * cells for phase, count in _trials_of_a_cell(spec).items()}
    contested = trials[Phase.design] + trials[Phase.search]
    share = competing_share(rungs, asha.reduction_factor if asha else 1, epochs)
    expected = contested * (spec.search.audit + (1 - spec.search.audit) * share)
    exempt = sum(trials.values()) - contested
    return Cost(
        cells=cells,
        trials=trials,
        rungs=rungs,
        epochs_worst=(exempt + contested) * epochs,
        epochs_expected=(exempt + expected) * epochs,
        checkpoints=cells,
    )


def _trials_of_a_cell(spec: ExperimentSpec) -> dict[Phase, int]:
    return {
        Phase.default: 1,
        Phase.design: spec.search.design,
        Phase.search: spec.num_search,
        Phase.repeat: spec.repeats.best + spec.repeats.default,
    }


def competing_share(rungs: tuple[int, ...], reduction_factor: int, epochs: int) -> float:
    """Share of the full budget that a trial competing at the rungs spends on average.

    One in `reduction_factor` of those that reach a rung goes on from it.
    """
    stages = zip((0, *rungs), (*rungs, epochs), strict=True)
    return sum((end - start) / float(reduction_factor**k) for k, (start, end) in enumerate(stages)) / epochs
