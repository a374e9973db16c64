"""Anybody's CSV, TSV or Parquet table of trials -> `TrialTable`, saying what was read how and what was left out."""

from __future__ import annotations

import difflib
import hashlib
import math
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from bocb_tune.analysis.names.look import backbone_key, optimizer_key
from bocb_tune.analysis.names.table import OPTIMIZERS
from bocb_tune.analysis.sources import factors
from bocb_tune.analysis.sources.columns import (
    NUMBERS,
    REQUIRED,
    SECOND,
    TEXTS,
    Column,
    lookalikes,
    named,
    understand,
    unused_note,
)
from bocb_tune.analysis.sources.scores import direction_of, read_scores
from bocb_tune.analysis.sources.stated import NOTHING_STATED, Stated
from bocb_tune.analysis.sources.states import ENDED, STATES
from bocb_tune.analysis.sources.table import (
    CELL,
    CURVE_COLUMNS,
    IN_WORDS,
    TRIAL_COLUMNS,
    Source,
    SourceError,
    TrialTable,
    granularity,
    make_table,
)
from bocb_tune.analysis.sources.text_table import read_cells
from bocb_tune.core.names import listed
from bocb_tune.core.types import Phase, TrialStatus

# Lines a message may name before it says "and so on".
MOST_NAMED = 5
ABSENT = ("", "nan", "na", "n/a", "none", "null", "-", "--", "–")
FLAGS = {"": False, "false": False, "no": False, "0": False, "true": True, "yes": True, "1": True}
# What rounding to 0 to 3 decimals looks like.
ROUND_COUNTS = (100, 1_000, 10_000, 100_000)
SETTING = "setting"
"""Column with a number for each cell, learning rate, weight decay and whatever else a trial was given."""
MOST_LINES_ABOVE = 10
"""Rows among which the header is looked for where the first line is none."""
FEWEST_EPOCHS = 3
"""Rows of one setting at rising budgets that look like the curve of one trial."""

FEWEST_OTHERS = 4
"""Settings of a cell that were run once, beside one that was run again: fewer are no search."""


def read_trial_file(path: Path, stated: Stated = NOTHING_STATED) -> TrialTable:
    """Read one row per trial, or one row per measurement (rows that share `trial` within a cell are its curve).

    Raises:
        SourceError: naming file, row and column of what cannot be read.
    """
    reader = _Reader(path=path, stated=stated, notes=[], cautions=[])
    raw, columns = reader.raw()
    column = next(column for column in columns if column.field == "score")
    direction = direction_of(column, stated, path)
    if raw[column.name].astype(str).str.contains("%").any():
        column = replace(column, unit="points")
    fields = {each.name: each.field for each in columns if each.field}
    rows = reader.checked(raw[list(fields)].rename(columns=fields))
    reader.note_spellings(rows)
    rows = reader.with_settings(rows, factors.of(raw, columns))
    rows = reader.named(reader.counted_from_one(rows), columns)

    def refuse(wrong: pd.Series[bool], why: str) -> None:
        reader.refuse(wrong, rows, "score", why)

    rows, objective, how = read_scores(rows, column, direction, stated, refuse)
    (reader.notes if objective.is_score and objective.is_bounded else reader.cautions).append(how)
    curves = rows[CURVE_COLUMNS].dropna(subset=["budget", "score"])
    curves = curves[curves.duplicated([*CELL, "trial"], keep=False)]
    trials = reader.with_seeds(reader.with_status(reader.one_row_a_trial(rows)))
    trials = reader.usable(reader.with_repeats(trials))
    return make_table(
        trials,
        curves,
        objective=objective,
        source=Source(kind="table", name=path.name, sha256=hashlib.sha256(path.read_bytes()).hexdigest()),
        notes=tuple(reader.notes),
        cautions=tuple(reader.cautions),
        num_images=_num_images(rows) if objective.is_bounded else math.inf,
        validated_on_test=column.is_test,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reader:
    """The steps of reading one file; row numbers are those of the file, its header being row 1."""

    path: Path
    stated: Stated
    notes: list[str]
    cautions: list[str]

    def raw(self) -> tuple[pd.DataFrame, tuple[Column, ...]]:
        """Read the rows that are asked for, values as they stand, and what the columns are."""
        rows = read_cells(self.path, self.notes)
        columns = understand(rows.columns, self.stated.metric)
        self._require_fields(columns, rows)
        rows = rows[~(rows.isna() | (rows == "")).all(axis=1)]
        if len(rows) == 0:
            raise SourceError(f"{self.path}: the table has a header and no rows")
        asked = {id(column) for where in self.stated.where for column in named(where.partition("=")[0], columns)}
        if note := unused_note(column for column in columns if id(column) not in asked):
            self.notes.append(note)
        for field, name in lookalikes(columns).items():
            if pd.to_numeric(rows[name], errors="coerce").isna().all():
                continue
            self.cautions.append(
                f"No column is read as the {IN_WORDS[field]}. If {name!r} holds it, name that column {field!r} (the "
                "value itself, not its logarithm)."
            )
        keep = factors.kept(rows, columns, self.stated.where)
        if not keep.all():
            conditions = ", ".join(self.stated.where)
            self.notes.append(f"{int(keep.sum())} of {len(rows)} rows are those asked for ({conditions}).")
        return self._without_repetitions(rows[keep]), columns

    def _require_fields(self, columns: tuple[Column, ...], rows: pd.DataFrame) -> None:
        found: dict[str, str] = {}
        for column in columns:
            if column.field in found:
                both = f"{found[column.field]!r} and {column.name!r}"
                more = " or choose with --metric" if column.field == "score" else ""
                raise SourceError(
                    f"{self.path}: more than one column is read as {column.field!r} ({both}); keep one{more}"
                )
            if column.field:
                found[column.field] = column.name
        if missing := [field for field in REQUIRED if field not in found]:
            names = ", ".join(column.name for column in columns) or "none"
            more = ", or say --metric COLUMN" if missing == ["score"] else ""
            raise SourceError(
                f"{self.path}: no column {' or '.join(map(repr, missing))} (found: {names}); name so what holds "
                f"it{more}{_misread(columns, rows)}"
            )

    def _without_repetitions(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Drop rows that repeat an earlier one in every column of the file, and say which."""
        repeated = rows.astype(str).duplicated()
        if repeated.any():
            self.notes.append(
                f"{int(repeated.sum())} row(s) repeat an earlier row and were left out: {_named(rows[repeated])}."
            )
        return rows[~repeated]

    def checked(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Check every column of `TRIAL_COLUMNS`, numbers as numbers; refuses what has no meaning."""
        texts = {name: self._texts(rows, name) for name in (*CELL, *TEXTS)}
        numbers = {name: self._numbers(rows, name) for name in NUMBERS}
        clean = pd.DataFrame({**texts, **numbers}, index=rows.index)[TRIAL_COLUMNS]
        for name in CELL:
            self.refuse(clean[name] == "", rows, name, "is empty")
        self.refuse(clean["lr"] <= 0, rows, "lr", "is not positive; if it is a logarithm, give the rate itself")
        for name in ("weight_decay", "budget", "max_budget", "elapsed_s"):
            self.refuse(clean[name] < 0, rows, name, "is negative")
        self.refuse(clean["seed"] % 1 > 0, rows, "seed", "is not a whole number")
        self._refuse_unknown(clean, "status", list(STATES))
        self._refuse_unknown(clean, "phase", [str(phase) for phase in Phase])
        self._refuse_unknown(clean, "audit", [flag for flag in FLAGS if flag])
        known = clean["status"] != ""
        if (moved := known & (clean["status"] != clean["status"].map(STATES))).any():
            read = dict(zip(clean["status"][moved], clean["status"][moved].map(STATES), strict=True))
            told = ", ".join(f"{state} as {status}" for state, status in sorted(read.items()))
            self.notes.append(
                f"States read: {told.replace(f' as {ENDED}', ' as completed, or stopped where cut short')}."
            )
        clean = clean.assign(audit=clean["audit"].map(FLAGS), status=clean["status"].map(STATES).fillna(""))
        return self._without_refined(clean)

    def _without_refined(self, clean: pd.DataFrame) -> pd.DataFrame:
        """Drop trials of phase `refine`, and say how many: a table does not tell what else they moved."""
        refined = clean["phase"] == Phase.refine
        if refined.any():
            self.notes.append(
                f"{int(refined.sum())} row(s) of phase 'refine' were left out: they moved more than learning rate and "
                "weight decay, which a table does not hold; give the run folder to have them analysed."
            )
        return clean[~refined]

    def _texts(self, rows: pd.DataFrame, name: str) -> pd.Series[str]:
        column = rows[name] if name in rows else pd.Series("", index=rows.index)
        text = column.where(column.notna(), "").astype(str).str.strip()
        if name not in ("status", "phase", "audit"):
            return text
        text = text.str.lower()
        return text.mask(text.isin(ABSENT), "").str.removeprefix("trialstate.").str.removeprefix("runstatus.")

    def _numbers(self, rows: pd.DataFrame, name: str) -> pd.Series[float]:
        if name not in rows:
            return pd.Series(math.nan, index=rows.index)
        column = rows[name].map(lambda cell: str(cell) if isinstance(cell, bool) else cell)
        absent = column.isna() | column.astype(str).str.strip().str.lower().isin(ABSENT)
        text = column.where(~absent, None)
        if name == "score" and column.astype(str).str.contains("%").any():
            text = text.astype("str").str.replace("%", "", regex=False)
        number = pd.to_numeric(text, errors="coerce").astype(float)
        self.refuse(number.isna() & ~absent, rows, name, "is not a number")
        finite = ~number.isin([math.inf, -math.inf])
        if name != "score":
            self.refuse(~finite, rows, name, "is not finite")
        return number.where(finite, math.nan)

    def refuse(self, wrong: pd.Series[bool], rows: pd.DataFrame, name: str, why: str) -> None:
        """Refuse a table that has a wrong row.

        Raises:
            SourceError: naming the first such row, its value and how many more there are.
        """
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
            self.refuse(unknown, clean, name, f"is none of {', '.join(known)}{hint}")

    def note_spellings(self, rows: pd.DataFrame) -> None:
        """Say which names are kept apart though they seem to mean the same."""
        for name, key in zip(CELL, (backbone_key, optimizer_key), strict=True):
            spellings: dict[str, list[str]] = {}
            for text in sorted(rows[name].unique()):
                spellings.setdefault(key(text), []).append(repr(text))
            same = [" and ".join(texts) for plain, texts in spellings.items() if plain and len(texts) > 1]
            if same:
                self.cautions.append(
                    f"Column {name!r} has {listed(same, MOST_NAMED)}, which are kept apart: write them alike if they "
                    f"are the same {name}."
                )

    def with_settings(self, rows: pd.DataFrame, others: pd.DataFrame) -> pd.DataFrame:
        """Number the settings; remark what the trials of a cell differ in beside learning rate and weight decay."""
        if differing := factors.differing(rows, others):
            self.cautions.append(factors.caution(others, differing))
        return rows.assign(**{SETTING: factors.settings(rows, others)})

    def counted_from_one(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Turn epochs counted from 0 (0 to one less than the full budget) into epochs done."""
        from_zero = rows["budget"].min() == 0 and rows["budget"].max() == rows["max_budget"].max() - 1
        if not from_zero:
            return rows
        self.notes.append("Epochs are counted from 0 in the file, and from 1 here.")
        return rows.assign(budget=rows["budget"] + 1)

    def named(self, rows: pd.DataFrame, columns: tuple[Column, ...]) -> pd.DataFrame:
        """Name every trial: by the name in the file where it tells trials apart, else by the row's."""
        source = next((column for column in columns if column.field == "trial"), None)
        clash = rows.duplicated([*CELL, "trial", "budget"], keep=False) & (rows["trial"] != "")
        if source is not None and source.plain in SECOND and clash.any():
            self.cautions.append(
                f"Column {source.name!r} names several runs alike (row {clash.idxmax()} is one): every row is read as "
                "a trial of its own. Is it one row per epoch? Then add a column 'trial' with a name for each run."
            )
            rows = rows.assign(trial="")
        else:
            self.refuse(clash, rows, "trial", "stands twice at the same budget with different values")
        unnamed = rows["trial"] == ""
        self._note_curves(rows[unnamed])
        return rows.assign(trial=rows["trial"].mask(unnamed, "row " + rows.index.astype(str).str.zfill(6)))

    def _note_curves(self, rows: pd.DataFrame) -> None:
        """Say that rows which rise in nothing but their budget look like epochs of one run."""
        rows = rows.dropna(subset=["budget"])
        budgets = rows.groupby([SETTING, "seed"], dropna=False)["budget"]
        rising = (budgets.transform("size") >= FEWEST_EPOCHS) & (
            budgets.transform("nunique") == budgets.transform("size")
        )
        if rising.any():
            self.cautions.append(
                f"{int(rising.sum())} rows differ from others only in their budget, like the epochs of one run, and "
                "are read as trials of their own. Add a column 'trial' with a name for each run."
            )

    def one_row_a_trial(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Keep the last measurement of each trial; what belongs to the trial must not change along its curve."""
        rows = rows.sort_values("budget", kind="stable")
        curve = rows.groupby([*CELL, "trial"], sort=False)
        for name in ("lr", "weight_decay", "seed", "max_budget", "status", "phase"):
            changes = curve[name].transform("nunique") > 1
            self.refuse(changes, rows, name, "differs from another row of the same trial")
        return curve.tail(1)

    def with_status(self, trials: pd.DataFrame) -> pd.DataFrame:
        """Fill in a status not given: completed, or stopped if the row says it ended before its full budget."""
        trials = self._with_full_budget(trials)
        unknown = trials["status"].isin(["", ENDED])
        short = unknown & (trials["budget"] < trials["max_budget"])
        if short.any():
            self.notes.append(f"{int(short.sum())} trial(s) without a status ended before max_budget: read as stopped.")
        status = trials["status"].mask(unknown, str(TrialStatus.completed)).mask(short, str(TrialStatus.stopped))
        nowhere = (status == TrialStatus.stopped) & trials["budget"].isna() & trials["score"].notna()
        if nowhere.any():
            self.cautions.append(
                f"{int(nowhere.sum())} stopped trial(s) do not say after what budget: their scores are not used. Add a "
                "column 'budget' with the epochs done."
            )
        return trials.assign(status=status, score=trials["score"].mask(nowhere))

    def _with_full_budget(self, trials: pd.DataFrame) -> pd.DataFrame:
        """Take the largest budget for the full one where stopped trials are marked; where nothing is, remark the
        others.
        """
        last, known = trials["budget"], trials["status"] != ""
        if trials["max_budget"].notna().any() or last.nunique() < 2:
            return trials
        if (trials["status"] == TrialStatus.stopped).any():
            self.notes.append(f"No column tells the full budget: taken as the largest seen, {last.max():g}.")
            return trials.assign(max_budget=last.max())
        if not known.all():
            self.cautions.append(
                f"Trials end after budgets of {last.min():g} to {last.max():g}, and nothing says which were cut short: "
                "all are read as completed. Add a column 'max_budget' or 'status'."
            )
        return trials

    def with_seeds(self, trials: pd.DataFrame) -> pd.DataFrame:
        """Number the trials of one setting where no seed is told."""
        times = trials.groupby(SETTING)["trial"].transform("size")
        if trials["seed"].isna().all() and trials["lr"].notna().any() and (times > 1).any():
            order = trials.sort_values(["score", "trial"]).groupby(SETTING).cumcount()
            trials = trials.assign(seed=order.where(times > 1).astype(float))
        if (times > 1).any() and trials["lr"].notna().any():
            again = int(trials.loc[times > 1, SETTING].nunique())
            self.notes.append(
                f"{again} of {trials[SETTING].nunique()} settings were tried {_range(times[times > 1])} times: read as "
                "seeds of one setting."
            )
        return trials.assign(seed=trials["seed"].round().astype("Int64"))

    def with_repeats(self, trials: pd.DataFrame) -> pd.DataFrame:
        """Find fresh seeds where no phase is told: the later runs of the only setting of a cell that was run again."""
        if (trials["phase"] != "").any() or trials["lr"].isna().all():
            return trials
        cell = [trials[name] for name in CELL]
        again = trials.groupby(SETTING)["trial"].transform("size") > 1
        repeated = trials[SETTING].where(again).groupby(cell).transform("nunique")
        others = (~again).groupby(cell).transform("sum")
        is_later = trials.sort_index().groupby(SETTING).cumcount() > 0
        fresh = again & (repeated == 1) & (others >= FEWEST_OTHERS) & is_later
        if fresh.any():
            cells = len(trials[fresh].drop_duplicates(CELL))
            self.cautions.append(
                f"In {cells} cell{'s' * (cells > 1)} one setting, and no other, was run several times: those after the "
                f"first in the file are taken as fresh seeds of it ({int(fresh.sum())} rows). A column 'phase' with "
                "'search' and 'repeat' states it."
            )
        return trials.assign(phase=trials["phase"].mask(fresh, str(Phase.repeat)))

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


def _misread(columns: tuple[Column, ...], rows: pd.DataFrame) -> str:
    """Say what the table may be where required columns are missing; empty where nothing shows it."""
    for number, cells in rows.head(MOST_LINES_ABOVE).iterrows():
        found = {column.field for column in understand(dict.fromkeys(map(str, cells)))}
        if found.issuperset(CELL):
            return f". Row {number} looks like the header: remove what stands above it"
    shipped = {row.key for row in OPTIMIZERS}
    if sum(optimizer_key(column.name) in shipped for column in columns) > 1:
        return ". One row per trial is needed, not one column per optimizer"
    return ""


def _num_images(rows: pd.DataFrame) -> float:
    """Return the number of images that the scores are shares of; unknown where they may as well have been rounded."""
    found = granularity(rows["score"].to_numpy())
    return math.inf if found in ROUND_COUNTS else found


def _range(numbers: pd.Series[int]) -> str:
    low, high = int(numbers.min()), int(numbers.max())
    return f"{low}" if low == high else f"{low} to {high}"


def _named(rows: pd.DataFrame) -> str:
    first = ", ".join(f"row {number}" for number in sorted(rows.index)[:MOST_NAMED])
    return first + (" and so on" if len(rows) > MOST_NAMED else "")
