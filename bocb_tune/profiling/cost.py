"""Costs of a grid in trials and epochs, from arithmetic alone, before anything has run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bocb_tune.core.types import Phase
from bocb_tune.engine.policy import COMPETING, rung_budgets
from bocb_tune.spec.grid import Grid
from bocb_tune.spec.model import ExperimentSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Work of a grid, from arithmetic alone."""

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
    """Checkpoints left on disk: the best of each cell, and the best refined. While it runs, each running trial holds
    one more."""

    @property
    def total_trials(self) -> int:
        return sum(self.trials.values())


def cost(spec: ExperimentSpec, grid: Grid) -> Cost:
    """Count trials and epochs of the grid, at worst and as early stopping is expected to leave them."""
    asha, epochs, cells = spec.search.asha, spec.budget.epochs, len(grid.cells)
    rungs = rung_budgets(asha.grace, asha.reduction_factor, epochs) if asha else ()
    trials = {phase: count * cells for phase, count in _trials_of_a_cell(spec).items()}
    contested = sum(trials[phase] for phase in COMPETING)
    share = competing_share(rungs, asha.reduction_factor if asha else 1, epochs)
    expected = contested * (spec.search.audit + (1 - spec.search.audit) * share)
    exempt = sum(trials.values()) - contested
    return Cost(
        cells=cells,
        trials=trials,
        rungs=rungs,
        epochs_worst=(exempt + contested) * epochs,
        epochs_expected=(exempt + expected) * epochs,
        checkpoints=cells * (2 if spec.search.refine else 1),
    )


def _trials_of_a_cell(spec: ExperimentSpec) -> dict[Phase, int]:
    return {
        Phase.default: 1,
        Phase.design: spec.search.design,
        Phase.search: spec.num_search,
        Phase.refine: spec.search.refine,
        Phase.repeat: spec.repeats.best * (2 if spec.search.refine else 1) + spec.repeats.default,
    }


def competing_share(rungs: tuple[int, ...], reduction_factor: int, epochs: int) -> float:
    """Estimate the share of the full budget that a trial competing at the rungs spends on average.

    One in `reduction_factor` of those that reach a rung goes on from it.
    """
    stages = zip((0, *rungs), (*rungs, epochs), strict=True)
    return sum((end - start) / float(reduction_factor**k) for k, (start, end) in enumerate(stages)) / epochs
