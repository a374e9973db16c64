"""Two runs of the same grid, another recipe or another dataset: what changed, cell by cell and as a whole.

All differences are second minus first, over the cells that have a value in both; the others are named. The runs are
independent of one another, so that the interval of a difference follows from the intervals of its two sides.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from bocb_tune.analysis.core.estimate import Counts, Estimate, Reason
from bocb_tune.analysis.core.intervals import mean_interval
from bocb_tune.analysis.coupling.shares import interaction_shares
from bocb_tune.analysis.matrix.cells import CellSummary, summarise_cells
from bocb_tune.analysis.matrix.noise import seed_noise
from bocb_tune.analysis.matrix.twoway import Matrix
from bocb_tune.analysis.sources.scores import in_points_of
from bocb_tune.analysis.sources.table import SourceError, TrialTable

Key = tuple[str, str]
"""(backbone, optimizer)"""

MIN_LINES = 3
"""Backbones (or optimizers) below which the spread of their differences says next to nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One number in both runs."""

    first: Estimate
    second: Estimate
    change: Estimate
    """Second minus first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What differs between two runs of a grid."""

    names: tuple[str, str]
    unit: str
    cells: Mapping[Key, Difference]
    """Value of each cell that has one in both runs, by (backbone, optimizer)."""
    only_first: tuple[str, ...]
    """Keys of the cells that only the first run's grid has."""
    only_second: tuple[str, ...]
    without_value: tuple[str, ...]
    """Keys of the cells in both grids that lack a value in one of them or in both."""
    overall: Estimate
    """Mean change over backbones of their mean over optimizers; interval over backbones."""
    backbones: Mapping[str, Estimate]
    """Mean change over the optimizers; interval over these."""
    optimizers: Mapping[str, Estimate]
    """Mean change over the backbones; interval over these."""
    interaction_share: Difference
    """Of the same cells."""
    interaction_share_total: Difference
    notes: tuple[str, ...]
    """What keeps the two from being alike apart from what was meant to differ."""


def compare(first: TrialTable, second: TrialTable) -> Comparison:
    """Compare two runs.

    Raises:
        SourceError: if their scores are in different units, or no cell has a value in both.
    """
    names, unit = (first.source.name, second.source.name), "points"
    kinds = [(each.objective.unit, each.objective.direction) for each in (first, second)]
    if kinds[0] != kinds[1]:
        units = " and ".join(f"{unit} ({direction})" for unit, direction in kinds)
        raise SourceError(f"{names[0]} and {names[1]} have scores in {units}: there is no difference to speak of")
    second = in_points_of(second, first.objective.point)
    sides = _by_key(first), _by_key(second)
    matched = [key for key in sides[0] if key in sides[1]]
    cells = {key: _differ(sides[0][key].best, sides[1][key].best) for key in matched}
    valued = {key: pair for key, pair in cells.items() if pair.change.value is not None}
    if not valued:
        raise SourceError(_nothing_in_common(first, second, matched))
    backbones, optimizers = _lines(valued)
    change = _matrix({key: pair.change.value for key, pair in valued.items()})
    shares = [_shares(side, list(valued)) for side in sides]
    return Comparison(
        names=names,
        unit=unit,
        cells=valued,
        only_first=_names(set(sides[0]) - set(matched)),
        only_second=_names(set(sides[1]) - set(matched)),
        without_value=_names(set(matched) - set(valued)),
        overall=_mean(np.nanmean(change, axis=1), "backbones", unit),
        backbones={name: _mean(row, "optimizers", unit) for name, row in zip(backbones, change, strict=True)},
        optimizers={name: _mean(row, "backbones", unit) for name, row in zip(optimizers, change.T, strict=True)},
        interaction_share=_differ(shares[0][0], shares[1][0]),
        interaction_share_total=_differ(shares[0][1], shares[1][1]),
        notes=tuple(_notes(first, second)),
    )


def difference(first: Estimate, second: Estimate) -> Estimate:
    """Second minus first, of two independent estimates in the same unit.

    The interval is made of the distances of theirs from their values (Zou and Donner, Statistics in Medicine 27, 2008,
    equation 3), so that it is as lopsided as they are; there is none where one of them has none.
    """
    if first.value is None or second.value is None:
        return Estimate(value=None, unit=first.unit, reason=first.reason if first.value is None else second.reason)
    assert first.unit == second.unit, (first.unit, second.unit)
    change = Estimate(
        value=second.value - first.value,
        level=min(first.level, second.level),
        unit=first.unit,
        counts=_both(first.counts, second.counts),
        method="difference of the two values",
        reason=first.reason or second.reason,
    )
    if first.lo is None or first.hi is None or second.lo is None or second.hi is None:
        return change
    below = math.hypot(second.value - second.lo, first.hi - first.value)
    above = math.hypot(second.hi - second.value, first.value - first.lo)
    value = second.value - first.value
    return replace(change, lo=value - below, hi=value + above, method=f"{change.method}, interval from theirs")


def to_json(comparison: Comparison) -> dict[str, Any]:
    """Everything, JSON-able."""
    return {
        "names": list(comparison.names),
        "unit": comparison.unit,
        "cells": {"/".join(key): _pair_to_json(pair) for key, pair in comparison.cells.items()},
        "only_first": list(comparison.only_first),
        "only_second": list(comparison.only_second),
        "without_value": list(comparison.without_value),
        "overall": comparison.overall.to_json(),
        "backbones": {name: change.to_json() for name, change in comparison.backbones.items()},
        "optimizers": {name: change.to_json() for name, change in comparison.optimizers.items()},
        "interaction_share": _pair_to_json(comparison.interaction_share),
        "interaction_share_total": _pair_to_json(comparison.interaction_share_total),
        "notes": list(comparison.notes),
    }


def _pair_to_json(pair: Difference) -> dict[str, Any]:
    return {"first": pair.first.to_json(), "second": pair.second.to_json(), "change": pair.change.to_json()}


def _by_key(table: TrialTable) -> dict[Key, CellSummary]:
    return {(cell.backbone, cell.optimizer): cell for cell in summarise_cells(table)}


def _differ(first: Estimate, second: Estimate) -> Difference:
    return Difference(first=first, second=second, change=difference(first, second))


def _both(first: Counts, second: Counts) -> Counts:
    each = asdict(first), asdict(second)
    return Counts(**{name: each[0][name] + each[1][name] for name in each[0]})


def _lines(keys: Iterable[Key]) -> tuple[list[str], list[str]]:
    """Backbones and optimizers of some cells, each once, in their order."""
    backbones, optimizers = zip(*keys, strict=True)
    return list(dict.fromkeys(backbones)), list(dict.fromkeys(optimizers))


def _matrix(values: Mapping[Key, float | None]) -> Matrix:
    """[backbones, optimizers] of the lines of these cells, NaN where missing."""
    backbones, optimizers = _lines(values)
    rows = [[values.get((backbone, optimizer)) for optimizer in optimizers] for backbone in backbones]
    return np.array(rows, dtype=float)


def _shares(side: Mapping[Key, CellSummary], keys: list[Key]) -> tuple[Estimate, Estimate]:
    """Interaction shares of one run over the cells that both have."""
    sd = _matrix({key: side[key].sd for key in keys})
    seeds = np.nan_to_num(_matrix({key: side[key].best.counts.n_seeds for key in keys}))
    values = _matrix({key: side[key].best.value for key in keys})
    seeds = np.where(np.isfinite(values), np.maximum(seeds, 1), 0)
    return interaction_shares(values, seed_noise(sd**2, seeds), np.random.default_rng(0))


def _mean(changes: Matrix, lines: str, unit: str) -> Estimate:
    """Mean of paired changes, one a line, NaN left out."""
    known = changes[np.isfinite(changes)]
    value = Estimate(value=float(known.mean()), unit=unit, method=f"mean paired change over {len(known)} {lines}")
    if len(known) < MIN_LINES:
        few = Reason.TOO_FEW_BACKBONES if lines == "backbones" else Reason.TOO_FEW_OPTIMIZERS
        return replace(value, reason=few)
    lo, hi = mean_interval(known)
    return replace(value, lo=lo, hi=hi, method=f"{value.method}, t interval")


def _names(keys: Iterable[Key]) -> tuple[str, ...]:
    return tuple(sorted("/".join(key) for key in keys))


def _nothing_in_common(first: TrialTable, second: TrialTable, matched: list[Key]) -> str:
    names = f"{first.source.name} and {second.source.name}"
    if matched:
        return f"{names}: none of the {len(matched)} cells they share has a value in both; let the runs go on"
    here, there = (f"{', '.join(table.backbones)} x {', '.join(table.optimizers)}" for table in (first, second))
    return f"{names} have no cell in common ({here}; {there}): backbones and optimizers need the same names in both"


def _notes(first: TrialTable, second: TrialTable) -> Iterator[str]:
    """What else differs."""
    sides = _conditions(first), _conditions(second)
    for what in (what for what in sides[0] if what in sides[1]):
        one, other = (side[what] for side in sides)
        if one != other:
            yield f"The {what} is {one} in {first.source.name} and {other} in {second.source.name}."


def _conditions(table: TrialTable) -> dict[str, str]:
    """What a difference may be due to, as far as the table tells."""
    ranges = {
        f"range of {name} of {optimizer}": f"{dim.low:g} to {dim.high:g}" + " or 0" * (dim.zero_mass > 0)
        for optimizer, dims in table.spaces.items()
        for name, dim in dims.items()
    }
    return {
        "metric": table.objective.metric,
        "floor": f"{table.objective.shown(table.objective.floor):g}",
        "largest full budget": f"{table.trials['max_budget'].max():g}",
        "split that settings were selected on": "test" if table.validated_on_test else "validation",
        **ranges,
    }
