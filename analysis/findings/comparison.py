"""Comparison of two runs of the same grid, with another recipe or dataset: changes by cell and as a whole.

Values of cells are means of fresh seeds, their intervals from the noise of all seeds of a run, as in its report; the
landscapes of a cell, where both runs have one, are compared beside them. All differences are second minus first, over
the cells that have a value in both; the others are named. The runs are independent of one another, so that the
interval of a difference follows from the intervals of its two sides.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from bocb_tune.analysis.cell.sensitivity import EPSILON
from bocb_tune.analysis.core.estimate import Counts, Estimate, Reason
from bocb_tune.analysis.core.intervals import mean_interval
from bocb_tune.analysis.coupling.shares import interaction_shares
from bocb_tune.analysis.findings.collect import Findings, at_tolerance
from bocb_tune.analysis.matrix.best import half_width
from bocb_tune.analysis.matrix.cells import FRESH_SEEDS, ONLY_POINT, CellSummary, summarise_cells
from bocb_tune.analysis.matrix.noise import seed_noise
from bocb_tune.analysis.matrix.twoway import Matrix
from bocb_tune.analysis.sources.conditions import FINGERPRINT
from bocb_tune.analysis.sources.scores import in_points_of
from bocb_tune.analysis.sources.table import SourceError, TrialTable

Key = tuple[str, str]
"""(backbone, optimizer)"""

SCORE = "expected_score"
MIN_LINES = 3
"""Least number of backbones (or optimizers) whose differences give a useful spread."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedValue:
    """One number in both runs, and its change."""

    first: Estimate
    second: Estimate
    change: Estimate
    """Second minus first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Differences between two runs of a grid."""

    names: tuple[str, str]
    unit: str
    cells: Mapping[Key, PairedValue]
    """Value of each cell that has one in both runs, by (backbone, optimizer)."""
    only_first: tuple[str, ...]
    """Keys of the cells that only the first run's grid has."""
    only_second: tuple[str, ...]
    without_value: tuple[str, ...]
    """Keys of the cells in both grids that lack a value in one of them or in both."""
    overall: Estimate
    """Mean change over backbones of their mean over optimizers; interval over backbones."""
    backbones: Mapping[str, Estimate]
    """Mean change over the optimizers, by backbone; interval over the optimizers."""
    optimizers: Mapping[str, Estimate]
    """Mean change over the backbones, by optimizer; interval over the backbones."""
    interaction_share: PairedValue
    """Interaction share of the same cells."""
    interaction_share_total: PairedValue
    from_seeds: Estimate
    """Mean change of all cells; interval from the noise of seeds, for exactly these cells."""
    from_landscapes: Estimate
    """The same of the expected scores at the best points of the cells that have a landscape in both."""
    scores: Mapping[Key, PairedValue]
    """Expected score at the best point of the landscape, of the cells that have one in both runs."""
    decades: Mapping[Key, PairedValue]
    """Usable decades of learning rate, likewise."""
    tolerance: float
    """Points within which learning rates count as usable: the larger of both runs."""
    notes: tuple[str, ...]
    """Further differences between the runs, beside the intended one."""


def compare_findings(first: Findings, second: Findings, notes: Iterable[str] = ()) -> Comparison:
    """Compare two runs, their landscapes included.

    Args:
        first, second: findings of the runs.
        notes: further differences, in sentences, that their tables do not show.

    Raises:
        SourceError: as `compare`.
    """
    found = compare(first.table, second.table)
    tolerance = max(first.tolerance, second.tolerance)
    width = at_tolerance("usable_decades_lr", tolerance)
    scores, decades = ({key: _of_model(first, second, key, name) for key in found.cells} for name in (SCORE, width))
    known = {key: pair for key, pair in scores.items() if pair.change.value is not None}
    return replace(
        found,
        scores=known,
        decades={key: pair for key, pair in decades.items() if pair.change.value is not None},
        from_landscapes=_mean_of_independent([pair.change for pair in known.values()], "cells that have a landscape"),
        tolerance=tolerance,
        notes=(*notes, *found.notes),
    )


def compare(first: TrialTable, second: TrialTable) -> Comparison:
    """Compare two runs by their seeds.

    Raises:
        SourceError: if their scores are in different units, or no cell has a value in both.
    """
    names, unit = (first.source.name, second.source.name), "points"
    kinds = [(each.objective.unit, each.objective.direction) for each in (first, second)]
    if kinds[0] != kinds[1]:
        units = " and ".join(f"{unit} ({direction})" for unit, direction in kinds)
        raise SourceError(f"{names[0]} and {names[1]} have scores in {units}, which cannot be subtracted")
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
        from_seeds=_mean_of_independent([pair.change for pair in valued.values()], "cells"),
        from_landscapes=Estimate(value=None, unit=unit, reason=Reason.NOT_SEARCHED),
        scores={},
        decades={},
        tolerance=EPSILON,
        notes=tuple(_notes(first, second)),
    )


def difference(first: Estimate, second: Estimate) -> Estimate:
    """Subtract the first from the second of two independent estimates in the same unit.

    The interval combines the distances of their ends from their values (Zou and Donner, Statistics in Medicine 27,
    2008, equation 3), so that it is as asymmetric as they are; there is none where one of them has none.
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
    """Return the comparison as a JSON-able mapping."""
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
        "from_seeds": comparison.from_seeds.to_json(),
        "from_landscapes": comparison.from_landscapes.to_json(),
        "expected_score": {"/".join(key): _pair_to_json(pair) for key, pair in comparison.scores.items()},
        "usable_decades_lr": {"/".join(key): _pair_to_json(pair) for key, pair in comparison.decades.items()},
        "tolerance": comparison.tolerance,
        "interaction_share": _pair_to_json(comparison.interaction_share),
        "interaction_share_total": _pair_to_json(comparison.interaction_share_total),
        "notes": list(comparison.notes),
    }


def _pair_to_json(pair: PairedValue) -> dict[str, Any]:
    return {"first": pair.first.to_json(), "second": pair.second.to_json(), "change": pair.change.to_json()}


def _by_key(table: TrialTable) -> dict[Key, CellSummary]:
    """Summarise cells, with intervals from the noise of all seeds: two seeds of a cell would not give one."""
    cells = summarise_cells(table)
    shape = (len(table.backbones), len(table.optimizers))
    seeds, sd = (np.array(each, float).reshape(shape) for each in ([_seeds(c) for c in cells], [c.sd for c in cells]))
    noise = seed_noise(sd**2, seeds)
    if noise is None:
        return {(cell.backbone, cell.optimizer): cell for cell in cells}
    variance, df = noise.cell_variance.ravel(), (noise.expected_df + noise.cell_df).ravel()
    stated = [
        _with_interval(cell, half_width(float(v), float(d))) if _is_mean(cell) else cell
        for cell, v, d in zip(cells, variance, df, strict=True)
    ]
    return {(cell.backbone, cell.optimizer): cell for cell in stated}


def _seeds(cell: CellSummary) -> int:
    return max(cell.best.counts.n_seeds, 1) if cell.best.value is not None else 0


def _is_mean(cell: CellSummary) -> bool:
    return FRESH_SEEDS in cell.best.method or ONLY_POINT in cell.best.method


def _with_interval(cell: CellSummary, half: float) -> CellSummary:
    best = replace(cell.best, lo=cell.value - half, hi=cell.value + half, reason=None)
    return replace(cell, best=best)


def _of_model(first: Findings, second: Findings, key: Key, name: str) -> PairedValue:
    """Compare a metric of a cell's landscape between the runs, in the points of the first."""
    one, other = (each.models[key].estimates[name] for each in (first, second))
    scale = second.table.objective.point / first.table.objective.point
    if one.unit == "points" and scale != 1:
        ends = [None if each is None else each * scale for each in (other.value, other.lo, other.hi)]
        other = replace(other, value=ends[0], lo=ends[1], hi=ends[2])
    return _differ(one, other)


def _mean_of_independent(changes: Sequence[Estimate], of: str) -> Estimate:
    """Average changes whose errors are independent; without interval where one of them has none."""
    known = [each for each in changes if each.value is not None]
    if not known:
        return Estimate(value=None, unit="points", reason=Reason.TOO_FEW_COMPLETED)
    value = float(np.mean([each.value for each in known]))
    mean = Estimate(value=value, unit=known[0].unit, method=f"mean over {len(known)} {of}")
    if any(each.lo is None or each.hi is None for each in known):
        return replace(mean, reason=Reason.TOO_FEW_REPLICATES)
    below = math.hypot(*(each.value - each.lo for each in known)) / len(known)  # type: ignore[operator]
    above = math.hypot(*(each.hi - each.value for each in known)) / len(known)  # type: ignore[operator]
    return replace(mean, lo=value - below, hi=value + above)


def _differ(first: Estimate, second: Estimate) -> PairedValue:
    return PairedValue(first=first, second=second, change=difference(first, second))


def _both(first: Counts, second: Counts) -> Counts:
    each = asdict(first), asdict(second)
    return Counts(**{name: each[0][name] + each[1][name] for name in each[0]})


def _lines(keys: Iterable[Key]) -> tuple[list[str], list[str]]:
    """List the backbones and the optimizers of some cells, each once, in their order."""
    backbones, optimizers = zip(*keys, strict=True)
    return list(dict.fromkeys(backbones)), list(dict.fromkeys(optimizers))


def _matrix(values: Mapping[Key, float | None]) -> Matrix:
    """Arrange values in a matrix [backbones, optimizers] of the names in their keys, NaN where missing."""
    backbones, optimizers = _lines(values)
    rows = [[values.get((backbone, optimizer)) for optimizer in optimizers] for backbone in backbones]
    return np.array(rows, dtype=float)


def _shares(side: Mapping[Key, CellSummary], keys: list[Key]) -> tuple[Estimate, Estimate]:
    """Compute the interaction shares of one run over the cells that both have."""
    sd = _matrix({key: side[key].sd for key in keys})
    seeds = np.nan_to_num(_matrix({key: side[key].best.counts.n_seeds for key in keys}))
    values = _matrix({key: side[key].best.value for key in keys})
    seeds = np.where(np.isfinite(values), np.maximum(seeds, 1), 0)
    return interaction_shares(values, seed_noise(sd**2, seeds), np.random.default_rng(0))


def _mean(changes: Matrix, lines: str, unit: str) -> Estimate:
    """Average paired changes, one per backbone or optimizer, ignoring NaN."""
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
        return f"{names}: none of the {len(matched)} cells they share has a value in both; continue the runs"
    here, there = (f"{', '.join(table.backbones)} x {', '.join(table.optimizers)}" for table in (first, second))
    return f"{names} have no cell in common ({here}; {there}): backbones and optimizers need the same names in both"


def _notes(first: TrialTable, second: TrialTable) -> Iterator[str]:
    """Yield other differences between the runs."""
    sides = _conditions(first), _conditions(second)
    for what in (what for what in sides[0] if what in sides[1]):
        one, other = (side[what] for side in sides)
        if one != other:
            yield f"The {what} is {one} in {first.source.name} and {other} in {second.source.name}."


def differing(sides: Sequence[Findings], recorded: Sequence[Mapping[str, str]]) -> tuple[str, ...]:
    """Describe the differences between the recorded settings and data of two runs; nothing where one has no record.

    Args:
        sides: findings of each run.
        recorded: settings of each run, by dotted name.
    """
    first, second = recorded
    if not first or not second:
        return ()
    names = [each.table.source.name for each in sides]
    other_data = first.get(FINGERPRINT) != second.get(FINGERPRINT)
    data = ("The data are not the same: names, sizes or numbers of their files differ.",) * other_data
    return data + tuple(
        f"{what}: {first.get(what, 'not set')} in {names[0]}, {second.get(what, 'not set')} in {names[1]}."
        for what in sorted(first.keys() | second.keys())
        if first.get(what) != second.get(what) and what != FINGERPRINT
    )


def _conditions(table: TrialTable) -> dict[str, str]:
    """List the conditions that a difference may be due to, as far as the table shows them."""
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
