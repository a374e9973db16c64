"""Anybody's CSV or Parquet table of trials -> `TrialTable`, saying aloud what was read how and what was left out."""

from __future__ import annotations

import difflib
import hashlib
import math
import warnings
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from bocb_tune.analysis.sources.columns import NUMBERS, REQUIRED, TEXTS, Column, understand, unused_note
from bocb_tune.analysis.sources.table import (
    CELL,
    CURVE_COLUMNS,
    TRIAL_COLUMNS,
    Source,
    SourceError,
    TrialTable,
    granularity,
    make_table,
)
from bocb_tune.core.types import Objective, Phase, TrialStatus

SUFFIXES = (".csv", ".parquet")
# Lines a message may name before it says "and so on".
MOST_NAMED = 5
ABSENT = ("", "nan", "na", "none", "null")
FLAGS = {"": False, "false": False, "no": False, "0": False, "true": True, "yes": True, "1": True}
# What rounding to 0 to 3 decimals looks like.
ROUND_COUNTS = (100, 1_000, 10_000, 100_000)


def read_trial_file(path: Path) -> TrialTable:
    """Read one row a trial, or one row a measurement (rows that share `trial` within a cell are its curve).

    Raises:
        SourceError: naming file, row and column of what cannot be read.
    """
    reader = _Reader(path, notes=[])
    raw, score = reader.raw()
    rows = reader.without_repetitions(reader.checked(raw))
    rows, unit = reader.in_points(rows, score.unit)
    curves = rows[CURVE_COLUMNS].dropna(subset=["budget", "score"])
    curves = curves[curves.duplicated([*CELL, "trial"], keep=False)]
    trials = reader.usable(reader.with_status(reader.one_row_a_trial(rows)))
    return make_table(
        trials,
        curves,
        objective=Objective(metric="score", unit=unit, floor=math.nan),
        source=Source(kind="table", name=path.name, sha256=hashlib.sha256(path.read_bytes()).hexdigest()),
        notes=tuple(reader.notes),
        num_images=_num_images(rows, unit),
        validated_on_test=score.is_test,
    )


@dataclass(frozen=True, slots=True)
class _Reader:
    """The steps of reading one file; row numbers are those of the file, its header being row 1."""

    path: Path
    notes: list[str]

    def raw(self) -> tuple[pd.DataFrame, Column]:
        """The columns used, called by their fields, values as they stand; and which one the score is."""
        rows = self._frame()
        rows.index = pd.RangeIndex(2, len(rows) + 2)
        columns = understand(map(str, rows.columns))
        rows.columns = pd.Index([column.field for column in columns])
        self._require_fields(columns)
        rows = rows.loc[:, rows.columns.notna()]
        rows = rows[~(rows.isna() | (rows == "")).all(axis=1)]
        if len(rows) == 0:
            raise SourceError(f"{self.path}: the table has a header and no rows")
        if note := unused_note(columns):
            self.notes.append(note)
        return rows, next(column for column in columns if column.field == "score")

    def _require_fields(self, columns: tuple[Column, ...]) -> None:
        found: dict[str, str] = {}
        for column in columns:
            if column.field in found:
                both = f"{found[column.field]!r} and {column.name!r}"
                raise SourceError(f"{self.path}: more than one column is read as {column.field!r} ({both}); keep one")
            if column.field:
                found[column.field] = column.name
        if missing := [field for field in REQUIRED if field not in found]:
            names = ", ".join(column.name for column in columns) or "none"
            raise SourceError(
                f"{self.path}: no column {' or '.join(map(repr, missing))} (found: {names}); name so what holds it"
            )

    def _frame(self) -> pd.DataFrame:
        try:
            if self.path.suffix.lower() == ".parquet":
                return pd.read_parquet(self.path).astype(object)
            return self._csv()
        except (ValueError, OSError, pd.errors.ParserWarning) as error:
            raise SourceError(f"{self.path}: not readable as a table ({' '.join(str(error).split())})") from error

    def _csv(self) -> pd.DataFrame:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # rows longer than the header would be cut
            rows = pd.read_csv(self.path, dtype=str, keep_default_na=False, skip_blank_lines=False, index_col=False)
        return rows.astype(object)

    def checked(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Every column of `TRIAL_COLUMNS`, numbers as numbers; refuses what has no meaning."""
        texts = {name: self._texts(rows, name) for name in (*CELL, *TEXTS)}
        numbers = {name: self._numbers(rows, name) for name in NUMBERS}
        clean = pd.DataFrame({**texts, **numbers}, index=rows.index)[TRIAL_COLUMNS]
        for name in CELL:
            self._refuse(clean[name] == "", rows, name, "is empty")
        self._refuse(clean["lr"] <= 0, rows, "lr", "is not positive; if it is a logarithm, give the rate itself")
        for name in ("weight_decay", "budget", "max_budget", "elapsed_s"):
            self._refuse(clean[name] < 0, rows, name, "is negative")
        self._refuse(clean["seed"] % 1 > 0, rows, "seed", "is not a whole number")
        self._refuse_unknown(clean, "status", [str(status) for status in TrialStatus])
        self._refuse_unknown(clean, "phase", [str(phase) for phase in Phase])
        self._refuse_unknown(clean, "audit", [flag for flag in FLAGS if flag])
        clean["audit"] = clean["audit"].map(FLAGS)
        unnamed = clean["trial"] == ""
        clean["trial"] = clean["trial"].where(~unnamed, "row " + clean.index.astype(str).str.zfill(6))
        return clean

    def _texts(self, rows: pd.DataFrame, name: str) -> pd.Series[str]:
        column = rows[name] if name in rows else pd.Series("", index=rows.index)
        text = column.where(column.notna(), "").astype(str).str.strip()
        return text.str.lower() if name in ("status", "phase", "audit") else text

    def _numbers(self, rows: pd.DataFrame, name: str) -> pd.Series[float]:
        if name not in rows:
            return pd.Series(math.nan, index=rows.index)
        column = rows[name]
        absent = column.isna() | column.astype(str).str.strip().str.lower().isin(ABSENT)
        number = pd.to_numeric(column.where(~absent, None), errors="coerce").astype(float)
        self._refuse(number.isna() & ~absent, rows, name, "is not a number")
        finite = ~number.isin([math.inf, -math.inf])
        if name != "score":
            self._refuse(~finite, rows, name, "is not finite")
        return number.where(finite, math.nan)

    def _refuse(self, wrong: pd.Series[bool], rows: pd.DataFrame, name: str, why: str) -> None:
        if not wrong.any():
            return
        first = rows.index[wrong][0]
        others = int(wrong.sum()) - 1
        more = f" (and {others} more such row{'s' * (others > 1)})" if others else ""
        value = rows.at[first, name]
        shown = f"{value:g}" if isinstance(value, float) else repr(value)
        raise SourceError(f"{self.path}, row {first}, column {name!r}: {shown} {why}{more}")

    def _refuse_unknown(self, clean: pd.DataFrame, name: str, known: list[str]) -> None:
        unknown = ~clean[name].isin([*known, ""])
        if unknown.any():
            value = clean.loc[unknown, name].iloc[0]
            near = difflib.get_close_matches(value, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            self._refuse(unknown, clean, name, f"is none of {', '.join(known)}{hint}")

    def without_repetitions(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Drop rows that repeat an earlier one in every column given, and say which."""
        told_apart = [name for name in rows.columns if name != "trial"] if _unnamed(rows).all() else list(rows.columns)
        repeated = rows.duplicated(told_apart)
        if repeated.any():
            self.notes.append(
                f"{int(repeated.sum())} row(s) repeat an earlier row and were left out: {_named(rows[repeated])}."
            )
        rows = rows[~repeated]
        clash = rows.duplicated([*CELL, "trial", "budget"], keep=False) & ~_unnamed(rows)
        self._refuse(clash, rows, "trial", "stands twice at the same budget with different values")
        return rows

    def in_points(self, rows: pd.DataFrame, told: str | None) -> tuple[pd.DataFrame, str]:
        """Scores as points of 0..100 if they are fractions, by the column's name or else by the scores; their unit."""
        low, high = rows["score"].min(), rows["score"].max()
        if told:
            top = 1 if told == "fraction" else 100
            outside = (rows["score"] < 0) | (rows["score"] > top)
            self._refuse(outside, rows, "score", f"lies outside 0..{top}, though its column is named after {told}")
        elif low < 0 or high > 100:
            self.notes.append(f"Scores lie in {low:g}..{high:g}: taken as they are, larger being better.")
            return rows, "units"
        elif high > 1:
            self._refuse_mixture(rows)
        if told == "points" or high > 1:
            self.notes.append("Scores read as points of 0..100.")
            return rows, "points"
        self.notes.append("All scores lie in 0..1: read as fractions and shown as points of 0..100.")
        return rows.assign(score=100 * rows["score"]), "points"

    def _refuse_mixture(self, rows: pd.DataFrame) -> None:
        """Final scores below 1 among points, where as fractions they would fit in: one cannot tell which they are."""
        final = rows["status"].isin([str(TrialStatus.completed), ""]) & ~(rows["budget"] < rows["max_budget"])
        last = ~rows.sort_values("budget", kind="stable").duplicated([*CELL, "trial"], keep="last")
        score = rows["score"].where(final & last)
        points = score[score > 1]
        fits = (score > 0) & (score < 1) & (100 * score).between(points.min(), points.max())
        why = "may be a fraction of 1, while others are points of 0..100: write all alike, or, if all are points, "
        self._refuse(fits, rows, "score", why + "name the column 'score (points)'")

    def one_row_a_trial(self, rows: pd.DataFrame) -> pd.DataFrame:
        """The last measurement of each trial; what belongs to the trial must not change along its curve."""
        rows = rows.sort_values("budget", kind="stable")
        curve = rows.groupby([*CELL, "trial"], sort=False)
        for name in ("lr", "weight_decay", "seed", "max_budget", "status", "phase"):
            changes = curve[name].transform("nunique") > 1
            self._refuse(changes, rows, name, "differs from another row of the same trial")
        return curve.tail(1)

    def with_status(self, trials: pd.DataFrame) -> pd.DataFrame:
        """Fill in a status not given: completed, or stopped if the row says it ended before its full budget."""
        unknown = trials["status"] == ""
        short = trials["budget"] < trials["max_budget"]
        if (unknown & short).any():
            self.notes.append(
                f"{int((unknown & short).sum())} trial(s) without a status ended before max_budget: read as stopped."
            )
        status = (
            trials["status"].mask(unknown, str(TrialStatus.completed)).mask(unknown & short, str(TrialStatus.stopped))
        )
        return trials.assign(status=status, seed=trials["seed"].round().astype("Int64"))

    def usable(self, trials: pd.DataFrame) -> pd.DataFrame:
        """Leave out trials said to be completed that have no score."""
        empty = (trials["status"] == TrialStatus.completed) & trials["score"].isna()
        if empty.any():
            self.notes.append(
                f"{int(empty.sum())} completed trial(s) have no finite score, left out: {_named(trials[empty])}."
            )
        if empty.all():
            raise SourceError(f"{self.path}: no row has a finite score")
        return trials[~empty]


def _num_images(rows: pd.DataFrame, unit: str) -> float:
    """Images that the scores are shares of; unknown where they may as well have been rounded."""
    found = granularity(rows["score"].to_numpy()) if unit == "points" else math.inf
    return math.inf if found in ROUND_COUNTS else found


def _unnamed(rows: pd.DataFrame) -> pd.Series[bool]:
    return rows["trial"].str.fullmatch(r"row \d{6,}")


def _named(rows: pd.DataFrame) -> str:
    first = ", ".join(f"row {number}" for number in sorted(rows.index)[:MOST_NAMED])
    return first + (" and so on" if len(rows) > MOST_NAMED else "")
