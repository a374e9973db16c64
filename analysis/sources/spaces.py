"""Ranges of each optimizer's trials: as files say them, else as the trials themselves show them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from bocb_tune.analysis.sources.table import Dims, SourceError, TrialTable
from bocb_tune.core.names import listed
from bocb_tune.core.space import Dim
from bocb_tune.spec.space_file import read_ranges

ENDINGS = (".yaml", ".yml")
FEWEST_LEVELS, FEWEST_DECADES = 5, 1.0
"""Distinct learning rates, and decades between the first and the last, that show what range was searched."""
MOST_LISTED = 5


def with_spaces(table: TrialTable, paths: Sequence[Path]) -> TrialTable:
    """Add to the table the ranges that files state, and of optimizers without one the range that their trials span.

    Args:
        table: of trials.
        paths: files as `read_ranges` takes, or folders of them; names are matched whatever their case.

    Raises:
        SourceError: if a file is of no optimizer of the table, or two are of the same.
    """
    stated = _stated(table, paths)
    table = replace(table, spaces={**table.spaces, **stated})
    return table if table.source.kind != "table" else _with_spans(_with_outside(table, stated))


def _stated(table: TrialTable, paths: Sequence[Path]) -> dict[str, Dims]:
    names = {name.casefold(): name for name in table.optimizers}
    found: dict[str, Dims] = {}
    for path in paths:
        ranges = {name: dims for file in _files(path) for name, dims in read_ranges(file).items()}
        ours = {names[name.casefold()]: dims for name, dims in ranges.items() if name.casefold() in names}
        if not ours:
            raise SourceError(_of_no_trial(path, list(ranges), table.optimizers))
        if twice := sorted(set(ours) & set(found)):
            raise SourceError(f"{path}: the search space of {', '.join(twice)} is given twice; keep one")
        found |= ours
    return found


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = sorted(each for each in path.iterdir() if each.suffix.lower() in ENDINGS)
    if not files:
        raise SourceError(f"{path}: no search space in it (files such as adamw.yaml)")
    return files


def _of_no_trial(path: Path, found: list[str], optimizers: tuple[str, ...]) -> str:
    of = listed([repr(name) for name in found], MOST_LISTED)
    by = "by its name " if len(found) == 1 else ""
    return f"{path}: {by}the search space of {of}, but the trials are of {', '.join(optimizers)}"


def _with_outside(table: TrialTable, stated: Mapping[str, Dims]) -> TrialTable:
    """Add cautions for trials that lie outside the range that is stated for them."""
    cautions = []
    for optimizer, dims in stated.items():
        trials = table.trials[table.trials["optimizer"] == optimizer]
        for name, dim in dims.items():
            values = trials[name].dropna()
            outside = values[~values.map(lambda value, dim=dim: dim.contains(value))]
            if len(outside):
                cautions.append(
                    f"{len(outside)} of {len(values)} trials of {optimizer} lie outside its search space: {name} "
                    f"{outside.iloc[0]:g} is not in {dim}."
                )
    return replace(table, cautions=(*table.cautions, *cautions))


def _with_spans(table: TrialTable) -> TrialTable:
    """Add ranges taken from the trials, with a caution."""
    missing = [name for name in table.optimizers if name not in table.spaces]
    found = {name: dims for name in missing if (dims := _span(table.trials[table.trials["optimizer"] == name]))}
    cautions = list(table.cautions)
    if found:
        each = "; ".join(
            f"{optimizer}: "
            + ", ".join(f"{dim.name.replace('_', ' ')} {dim.low:.2g} .. {dim.high:.2g}" for dim in dims.values())
            for optimizer, dims in found.items()
        )
        cautions.append(
            f"The range searched is not stated, so it is taken to be the one that the trials span ({each}). What is a "
            "share of the search space depends on it; --space FILE states it."
        )
    spaces = {**table.spaces, **found}
    if flat := [name for name in table.optimizers if name in spaces and "weight_decay" not in spaces[name]]:
        cautions.append(
            f"Weight decay was not varied, or is not told, for {', '.join(flat)}: only the learning rate was searched."
        )
    return replace(table, spaces=spaces, cautions=tuple(cautions))


def _span(trials: pd.DataFrame) -> Dims | None:
    """Return the range that trials show; None where they show none: too few learning rates, or too near to one
    another."""
    lr = _dim("lr", trials["lr"])
    if lr is None or trials["lr"].nunique() < FEWEST_LEVELS or lr.decades < FEWEST_DECADES:
        return None
    decay = _dim("weight_decay", trials["weight_decay"])
    return {"lr": lr} if decay is None else {"lr": lr, "weight_decay": decay}


def _dim(name: str, values: pd.Series[float]) -> Dim | None:
    """Span from the least to the largest; zero is a value of its own, as often as it was tried."""
    known = values.dropna().to_numpy(float)
    positive = known[known > 0]
    if len(np.unique(positive)) < 2:
        return None
    zero = 1 - len(positive) / len(known)
    return Dim(name=name, low=float(positive.min()), high=float(positive.max()), zero_mass=zero)
