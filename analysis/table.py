"""`TrialTable`: what every source is turned into before anything is computed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pandas as pd

from bocb_tune.analysis.style import ordered_backbones, ordered_optimizers
from bocb_tune.space import Dim
from bocb_tune.types import Objective

Dims = Mapping[str, Dim]
"""Range of `lr` and of `weight_decay`."""

CELL = ["backbone", "optimizer"]
TRIAL_COLUMNS = [
    *CELL,
    "trial",
    "phase",
    "status",
    "lr",
    "weight_decay",
    "seed",
    "score",
    "budget",
    "max_budget",
    "message",
]
CURVE_COLUMNS = [*CELL, "trial", "budget", "score"]


class SourceError(ValueError):
    """A source that cannot be analysed as it stands; the message says where, what and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where the trials came from."""

    kind: str
    """`run`, `table` or `paper`."""
    name: str
    """As shown in the report's title."""
    sha256: str
    """Of the bytes that were read."""
    citation: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialTable:
    """All trials of a grid, one row each, and their curves; sorted, so the order of the source's rows has no effect."""

    trials: pd.DataFrame
    """`TRIAL_COLUMNS`; numbers are NaN where not known, texts empty; `score` in the objective's unit."""
    curves: pd.DataFrame
    """`CURVE_COLUMNS`, one row a measurement."""
    objective: Objective
    """`floor` is NaN if the source does not say what a diverged trial scores."""
    source: Source
    backbones: tuple[str, ...]
    """Rows of the grid, also those without a trial yet."""
    optimizers: tuple[str, ...]
    """Columns of the grid."""
    notes: tuple[str, ...] = ()
    """What was detected, converted or left out while reading."""
    garbled: tuple[str, ...] = ()
    """Journal lines that could not be read, as file:line: why."""
    rungs: Mapping[tuple[str, str], tuple[int, ...]] = field(default_factory=dict)
    """Budgets at which the trials of a cell competed, by (backbone, optimizer)."""
    spaces: Mapping[str, Dims] = field(default_factory=dict)
    """Where `lr` and `weight_decay` could lie, by optimizer, where known."""


def make_table(
    trials: pd.DataFrame,
    curves: pd.DataFrame,
    *,
    objective: Objective,
    source: Source,
    notes: tuple[str, ...] = (),
    garbled: tuple[str, ...] = (),
    rungs: Mapping[tuple[str, str], tuple[int, ...]] | None = None,
    spaces: Mapping[str, Dims] | None = None,
    cells: tuple[tuple[str, str], ...] = (),
) -> TrialTable:
    """Sort the rows and name the axes; `cells` adds (backbone, optimizer) pairs that have no trial yet."""
    return TrialTable(
        trials=trials[TRIAL_COLUMNS].sort_values([*CELL, "trial"], ignore_index=True),
        curves=curves[CURVE_COLUMNS].sort_values([*CELL, "trial", "budget"], ignore_index=True),
        objective=objective,
        source=source,
        backbones=ordered_backbones([*trials["backbone"], *(backbone for backbone, _ in cells)]),
        optimizers=ordered_optimizers([*trials["optimizer"], *(optimizer for _, optimizer in cells)]),
        notes=notes,
        garbled=garbled,
        rungs=rungs or {},
        spaces=spaces or {},
    )
