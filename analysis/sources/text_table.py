"""A CSV, TSV or Parquet file -> its cells as they stand, with the file's row numbers, its header being row 1."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import pandas as pd

from bocb_tune.analysis.sources.columns import understand
from bocb_tune.analysis.sources.table import SourceError

TEXT, COMPRESSED = (".csv", ".tsv"), (".gz", ".bz2", ".xz", ".zst", ".zip")
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
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
        if path.suffix.lower() == ".parquet":
            rows = pd.read_parquet(path).astype(object)
        else:
            rows = _csv(path, notes)
    except (ValueError, OSError, EOFError, pd.errors.ParserWarning) as error:
        raise SourceError(f"{path}: not readable as a table ({' '.join(str(error).split())})") from error
    rows.index = pd.RangeIndex(2, len(rows) + 2)
    rows.columns = rows.columns.map(str)
    return rows


def _csv(path: Path, notes: list[str]) -> pd.DataFrame:
    separator = _separator(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)  # rows longer than the header would be cut
        rows = pd.read_csv(
            path, sep=separator, dtype=str, keep_default_na=False, skip_blank_lines=False, index_col=False
        ).astype(object)
    if separator == ",":
        return rows
    notes.append(f"Columns are separated by {SEPARATORS[separator]}.")
    commas = [str(name) for name in rows if rows[name].str.fullmatch(DECIMAL_COMMA).any()]
    if commas:
        notes.append(f"Decimal commas read in {', '.join(commas)}.")
    return rows.assign(**{name: rows[name].str.replace(",", ".", regex=False) for name in commas})


def _separator(path: Path) -> str:
    """Find the separator with which the header has most columns that are known, then most columns."""

    def found(separator: str) -> tuple[int, int]:
        header = pd.read_csv(path, sep=separator, nrows=0, dtype=str)
        columns = understand(map(str, header.columns))
        return sum(column.field is not None for column in columns), len(columns)

    return max(SEPARATORS, key=found)
