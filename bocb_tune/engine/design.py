"""The space-filling points with which the search of a cell begins. No Ray, no Optuna."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import numpy as np
from scipy.stats import qmc

from bocb_tune.core.space import SearchSpace
from bocb_tune.core.types import Phase, TrialRecord, derive_seed
from bocb_tune.engine.policy import CellPlan

AXES = ("lr", "weight_decay")


def design_points(seed: int, optimizer: str, space: SearchSpace, count: int, first: int = 0) -> list[dict[str, float]]:
    """Return points `first` to `first + count` of the optimizer's scrambled Sobol sequence: the same in every cell, and
    a longer design continues a shorter one.
    """
    units = space_filling(derive_seed(seed, "design", optimizer), len(AXES), count, first)
    return [space.from_unit((lr, weight_decay)) for lr, weight_decay in units]


def space_filling(seed: int, axes: int, count: int, first: int = 0) -> list[list[float]]:
    """Return points `first` to `first + count` of a scrambled Sobol sequence in the unit cube of so many axes."""
    sobol = qmc.Sobol(d=axes, scramble=True, rng=np.random.default_rng(seed))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a design need not be a power of two to be continued later
        units: list[list[float]] = sobol.random(first + count)[first:].tolist()
    return units


def design_of(cell: CellPlan) -> list[dict[str, float]]:
    """Give the design of a cell."""
    return design_points(cell.plan.seed, cell.cell.optimizer, cell.space, cell.plan.design)


def superseded(cell: CellPlan, records: Mapping[str, TrialRecord]) -> int:
    """Count the design trials of an earlier, narrower range: they are kept, and those of the new range are owed too."""
    designed = {key for key, record in records.items() if record.phase == Phase.design}
    if not designed:
        return 0
    planned = {cell.trial(Phase.design, index, point).id for index, point in enumerate(design_of(cell))}
    return len(designed - planned)
