"""Several runs of one grid that differ in one thing: what they share, and the split of their scores by it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bocb_tune.analysis.core.arrays import Array
from bocb_tune.analysis.core.bootstrap import Refused, complete_part
from bocb_tune.analysis.coupling.factor import FactorSplit, split_by_factor
from bocb_tune.analysis.matrix.cells import CellSummary, summarise_cells
from bocb_tune.analysis.matrix.noise import seed_noise
from bocb_tune.analysis.matrix.resample import SEED
from bocb_tune.analysis.sources.conditions import FINGERPRINT
from bocb_tune.analysis.sources.scores import in_points_of
from bocb_tune.analysis.sources.table import SourceError, TrialTable

EPOCHS, DATASET, UNNAMED = "epochs", "dataset", "run"
Key = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Several:
    """Runs of one grid, one level of the factor each."""

    names: tuple[str, ...]
    """Runs, as given."""
    factor: str
    """The one thing they differ in, as recorded; `run` where nothing is."""
    levels: tuple[str, ...]
    """Its value in each run, in words."""
    backbones: tuple[str, ...]
    optimizers: tuple[str, ...]
    values: Array
    """[backbones, optimizers, runs], points, of the lines that are complete in all runs."""
    left_out: tuple[str, ...]
    """Backbones and optimizers that lack a score in a run."""
    split: FactorSplit | Refused

    def to_json(self) -> dict[str, Any]:
        """Give the numbers for `metrics.json`."""
        told = {"names": self.names, "factor": self.factor, "levels": self.levels, "left_out": list(self.left_out)}
        if isinstance(self.split, Refused):
            return {**told, "status": "refused", "reason": self.split.reason, "detail": self.split.detail}
        return {
            **told,
            "status": "ok",
            "variance_shares": {name: each.to_json() for name, each in self.split.variance_shares.items()},
            "share_that_moves": self.split.share_that_moves.to_json(),
            "order_flips": self.split.order_flips.to_json(),
            "same_best": self.split.same_best.to_json(),
        }


def compare_several(tables: Sequence[TrialTable], recorded: Sequence[Mapping[str, str]]) -> Several:
    """Split the scores of several runs of a grid by the one thing that they differ in.

    Args:
        recorded: settings and data of each run by dotted name; nothing of a table.

    Raises:
        SourceError: if they differ in several things, which it names, or in the unit of their scores, or have no cell
            in common.
    """
    factor, levels = the_factor(tables, recorded)
    _require_one_unit(tables)
    tables = [in_points_of(each, tables[0].objective.point) for each in tables]
    sides = [{(cell.backbone, cell.optimizer): cell for cell in summarise_cells(table)} for table in tables]
    names = tuple(_in_all([getattr(table, axis) for table in tables]) for axis in ("backbones", "optimizers"))
    values = np.array([[[side[b, o].value for side in sides] for o in names[1]] for b in names[0]], dtype=float)
    if not values.size or not np.isfinite(values).all(axis=2).any():
        told = ", ".join(table.source.name for table in tables)
        raise SourceError(f"{told}: no cell has a score in all of them; backbones and optimizers need the same names")
    rows, columns = complete_part(np.isfinite(values).all(axis=2))
    backbones, optimizers = ([line[place] for place in kept] for line, kept in zip(names, (rows, columns), strict=True))
    variance, df = _noise([[side[b, o] for b in backbones for o in optimizers] for side in sides])
    kept = values[np.ix_(rows, columns)]
    return Several(
        names=tuple(table.source.name for table in tables),
        factor=factor,
        levels=levels,
        backbones=tuple(backbones),
        optimizers=tuple(optimizers),
        values=kept,
        left_out=tuple(sorted(_every(tables) - {*backbones, *optimizers})),
        split=split_by_factor(kept, variance, df, np.random.default_rng(SEED)),
    )


def the_factor(tables: Sequence[TrialTable], recorded: Sequence[Mapping[str, str]]) -> tuple[str, tuple[str, ...]]:
    """Find the one thing that runs differ in, and what it is in each.

    Raises:
        SourceError: if there are several, with all of their names.
    """
    names = tuple(table.source.name for table in tables)
    whole = [{**each, f"{EPOCHS}.full": _epochs(table)} for table, each in zip(tables, recorded, strict=True)]
    found: dict[str, list[str]] = {}
    for name in sorted(set().union(*whole)):
        if len({each.get(name, "not set") for each in whole}) > 1:
            found.setdefault(_thing(name), []).append(name)
    if len(found) > 1:
        told = "; ".join(f"{thing} ({', '.join(own[:4])})" for thing, own in found.items())
        raise SourceError(
            f"{', '.join(names)} differ in {len(found)} things: {told}. What changes the score could not be told "
            "apart; give runs that differ in one of them"
        )
    if not found:
        return UNNAMED, names
    ((thing, own),) = found.items()
    return thing, tuple(", ".join(f"{name} {each.get(name, 'not set')}" for name in own[:2]) for each in whole)


def _thing(name: str) -> str:
    """Name the thing that a setting belongs to: its first part, but for what tells the data."""
    if name == FINGERPRINT or name.startswith(("images in", "classes in")):
        return DATASET
    return name.split(".")[0]


def _epochs(table: TrialTable) -> str:
    return f"{table.trials['max_budget'].max():g}"


def _require_one_unit(tables: Sequence[TrialTable]) -> None:
    kinds = {(each.objective.unit, str(each.objective.direction)) for each in tables}
    if len(kinds) > 1:
        units = " and ".join(sorted(f"{unit} ({direction})" for unit, direction in kinds))
        raise SourceError(f"{', '.join(t.source.name for t in tables)} have scores in {units}: they cannot be compared")


def _in_all(lines: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(name for name in lines[0] if all(name in other for other in lines[1:]))


def _every(tables: Sequence[TrialTable]) -> set[str]:
    return {name for table in tables for name in (*table.backbones, *table.optimizers)}


def _noise(sides: Sequence[Sequence[CellSummary]]) -> tuple[float, int]:
    """Average the variance of a cell's value, and add up its degrees of freedom; NaN where a run has too few seeds."""
    found = []
    for cells in sides:
        sd = np.array([[cell.sd for cell in cells]])
        noise = seed_noise(sd**2, np.array([[max(cell.best.counts.n_seeds, 1) for cell in cells]], dtype=float))
        if noise is None:
            return float("nan"), 0
        found.append((float(noise.cell_variance.mean()), noise.df))
    return float(np.mean([variance for variance, _ in found])), sum(df for _, df in found)
