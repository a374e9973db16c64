"""A CSV, TSV or Parquet file -> its cells as they stand, with the file's row numbers, its header being row 1."""

from __future__ import annotations

import csv
import re
import warnings
from pathlib import Path
from typing import Any

import pandas as pd

from bocb_tune.analysis.sources.columns import understand
from bocb_tune.analysis.sources.table import SourceError

TEXT, COMPRESSED = (".csv", ".tsv"), (".gz", ".bz2", ".xz", ".zst", ".zip")
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
SEPARATOR_LINE = re.compile(r"sep=(.)")
"""First line of files that some spreadsheets write; it is no header."""
UNNAMED = re.compile(r"Unnamed: \d+")
"""Names that pandas makes for columns without one."""
DECIMAL_COMMA = re.compile(r"\s*[-+]?\d*,\d+(?:[eE][-+]?\d+)?\s*%?\s*")


def is_table(path: Path) -> bool:
    """Tell whether the name is that of a table."""
    name = path.name.lower()
    bare = name.removesuffix(path.suffix.lower()) if path.suffix.lower() in COMPRESSED else name
    return name.endswith(".parquet") or bare.endswith(TEXT)


def read_cells(path: Path, notes: list[str]) -> pd.DataFrame:
    """Read every cell as it stands; says in `notes` what was found out about how the file is written.

    Raises:
        SourceError: if the file is no table.
    """
    try:
        return _parquet(path) if path.suffix.lower() == ".parquet" else _csv(path, notes)
    except SourceError:
        raise
    except UnicodeError as error:
        way_out = "save it as 'CSV UTF-8', or give a .parquet file"
        raise SourceError(f"{path}: not a table in UTF-8 ({error}); {way_out}") from error
    except pd.errors.EmptyDataError as error:
        raise SourceError(f"{path}: the first line is empty; it must name the columns") from error
    except pd.errors.ParserWarning as error:
        raise SourceError(
            f"{path}: rows have more cells than the first line has names: the first line must be the header, with a "
            "name for each column"
        ) from error
    except (ValueError, OSError, EOFError) as error:
        raise SourceError(f"{path}: not readable as a table ({' '.join(str(error).split())})") from error


def _parquet(path: Path) -> pd.DataFrame:
    """Read the cells; lists and mappings, which no column here holds, as text."""
    rows = pd.read_parquet(path).astype(object)
    rows.index = pd.RangeIndex(2, len(rows) + 2)
    rows.columns = rows.columns.map(str)
    nested = [str(name) for name in rows if rows[name].map(_is_nested).any()]
    return rows.assign(**{name: rows[name].map(str) for name in nested})


def _is_nested(cell: object) -> bool:
    """Tell whether a cell holds several values."""
    return not isinstance(cell, str | bytes) and hasattr(cell, "__len__")


def _csv(path: Path, notes: list[str]) -> pd.DataFrame:
    encoding = _encoding(path)
    stated = SEPARATOR_LINE.fullmatch(_first_line(path, encoding))
    options: dict[str, Any] = {"encoding": encoding, "dtype": str, "skiprows": 1 if stated else 0}
    separator = stated[1] if stated else _separator(path, encoding)
    _require_names(path, pd.read_csv(path, sep=separator, header=None, nrows=1, **options))
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)  # rows longer than the header would be cut
        rows = pd.read_csv(
            path, sep=separator, keep_default_na=False, skip_blank_lines=False, index_col=False, **options
        ).astype(object)
    first = 3 if stated else 2
    rows.index = pd.RangeIndex(first, len(rows) + first)
    rows = _without_empty_columns(rows)
    if separator == ",":
        return rows
    notes.append(f"Columns are separated by {SEPARATORS.get(separator, separator)}.")
    commas = [str(name) for name in rows if rows[name].str.fullmatch(DECIMAL_COMMA).any()]
    if commas:
        notes.append(f"Decimal commas read in {', '.join(commas)}.")
    return rows.assign(**{name: rows[name].str.replace(",", ".", regex=False) for name in commas})


def _encoding(path: Path) -> str:
    """Return UTF-16 for a file that begins with its mark, as Excel's "Unicode text" does; else UTF-8."""
    try:
        _first_line(path, "utf-16")
    except (UnicodeError, ValueError):
        return "utf-8"
    return "utf-16"


def _first_line(path: Path, encoding: str) -> str:
    options: dict[str, Any] = {"sep": "\x1f", "header": None, "nrows": 1, "dtype": str, "quoting": csv.QUOTE_NONE}
    return str(pd.read_csv(path, encoding=encoding, **options).iloc[0, 0])


def _require_names(path: Path, header: pd.DataFrame) -> None:
    """Refuse a header that names two columns alike of which one is used.

    Raises:
        SourceError: naming them by their places.
    """
    names = [str(name).strip() for name in header.iloc[0].fillna("")]
    for column in understand(dict.fromkeys(names)):
        places = [str(place) for place, name in enumerate(names, start=1) if name == column.name]
        if len(places) > 1 and (column.field or column.metric):
            raise SourceError(f"{path}: columns {' and '.join(places)} are both named {column.name!r}; keep one")


def _without_empty_columns(rows: pd.DataFrame) -> pd.DataFrame:
    """Name columns without a name by their places, and drop those that hold nothing either."""
    nameless = {name: f"column {place}" for place, name in enumerate(rows, start=1) if UNNAMED.fullmatch(str(name))}
    empty = [name for name in nameless if (rows[name].str.strip() == "").all()]
    return rows.drop(columns=empty).rename(columns=nameless)


def _separator(path: Path, encoding: str) -> str:
    """Find the separator with which the header has most columns that are known, then most columns."""

    def found(separator: str) -> tuple[int, int]:
        header = pd.read_csv(path, sep=separator, encoding=encoding, nrows=0, dtype=str)
        columns = understand(map(str, header.columns))
        return sum(column.field is not None for column in columns), len(columns)

    return max(SEPARATORS, key=found)
