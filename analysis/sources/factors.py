"""Columns beside learning rate and weight decay in which trials differ: other hyper-parameters, data sets, recipes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from bocb_tune.analysis.sources.columns import Column, one_named
from bocb_tune.analysis.sources.table import CELL, HYPERPARAMETERS, SourceError
from bocb_tune.core.names import listed

KNOWN = (
    *("dataset", "data", "batchsize", "batch", "bs", "momentum", "beta", "beta1", "beta2", "betas", "eps", "epsilon"),
    *("dropout", "droppath", "droppathrate", "labelsmoothing", "warmup", "warmupepochs", "warmupsteps", "scheduler"),
    *(
        "schedule",
        "lrschedule",
        "augment",
        "augmentation",
        "aug",
        "mixup",
        "cutmix",
        "imagesize",
        "resolution",
        "recipe",
    ),
    *("width", "depth", "pretrained", "precision", "ema", "emadecay", "gradclip", "clip", "clipgrad", "layerdecay"),
    *("nesterov", "rho", "gamma", "lrdecay", "numlayers", "hiddendim", "hiddensize", "epochs", "task", "init"),
)
"""Names of hyper-parameters and conditions, letters and digits alone."""
BOOKS = (
    *("host", "hostname", "node", "gpu", "gpus", "device", "user", "created", "date", "notes", "note", "group", "done"),
    *("id", "name", "run", "runid", "runname", "number", "pid", "ip", "version", "commit", "url", "comment"),
)
"""Names of what is written down of a run without being of it."""
MEASURED = ("train", "val", "test", "best", "time", "elapsed")
MOST_VALUES, MOST_LISTED = 10, 5


def of(raw: pd.DataFrame, columns: Sequence[Column]) -> pd.DataFrame:
    """Return the unused columns that hold what a trial was given, by their names in the file, as text."""
    unused = [column for column in columns if column.field is None]
    names = [c.name for c in unused if c.is_given or c.plain in KNOWN or _is_like_a_factor(raw[c.name], c)]
    return raw[names].astype(str)


def _is_like_a_factor(cells: pd.Series[Any], column: Column) -> bool:
    """Tell whether a column of an unknown name has few values, each more than once."""
    count = cells.astype(str).value_counts()
    is_outcome = column.metric is not None or column.plain.startswith(MEASURED)
    return not is_outcome and column.plain not in BOOKS and 2 <= len(count) <= MOST_VALUES and bool(count.min() > 1)


def differing(cells: pd.DataFrame, others: pd.DataFrame) -> list[str]:
    """Return the names of the columns in which the trials of some cell differ."""
    keys = [cells[name] for name in CELL]
    return [str(name) for name in others if (others[name].groupby(keys).nunique() > 1).any()]


def caution(others: pd.DataFrame, names: Sequence[str]) -> str:
    """Say in what the trials of some cell differ."""
    each = [f"{name} ({listed([str(v) for v in sorted(others[name].unique())], MOST_LISTED)})" for name in names]
    example = f"--where '{names[0]}={others[names[0]].mode().iloc[0]}'"
    return (
        f"Trials of one cell differ also in {', '.join(each)}: all of them are analysed together, as if that made no "
        f"difference. Keep those of one value with {example}."
    )


def settings(rows: pd.DataFrame, others: pd.DataFrame) -> pd.Series[int]:
    """Number the settings: cell, learning rate, weight decay and what else a trial was given."""
    keys = pd.concat([rows[[*CELL, *HYPERPARAMETERS]], others], axis=1)
    return keys.groupby(list(keys.columns), dropna=False, sort=False).ngroup()


def kept(raw: pd.DataFrame, columns: Sequence[Column], where: Sequence[str]) -> pd.Series[bool]:
    """Keep the rows for which every `column=value` holds.

    Raises:
        SourceError: if there is no such column or no such value.
    """
    keep = pd.Series(True, index=raw.index)
    for condition in where:
        name, equals, value = condition.partition("=")
        if not equals:
            raise SourceError(f"--where {condition!r} is not of the form column=value")
        column = one_named(name, columns, f"--where {condition}")
        cells = raw[column.name].astype(str).str.strip()
        holds = pd.Series([_is_equal(cell, value.strip()) for cell in cells], index=raw.index)
        if not holds.any():
            found = listed(sorted(cells.unique()), MOST_LISTED)
            raise SourceError(f"--where {condition}: no row has this value (column {column.name!r} has {found})")
        keep &= holds
    if not keep.any():
        raise SourceError(f"--where {' --where '.join(where)}: no row has all of these values")
    return keep


def _is_equal(cell: str, value: str) -> bool:
    """Compare as text, whatever the case, or as numbers."""
    numbers = pd.to_numeric(pd.Series([cell, value]), errors="coerce")
    return cell.casefold() == value.casefold() or bool(numbers.notna().all() and numbers[0] == numbers[1])
