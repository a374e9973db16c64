"""What a section of the report is made of: text, remarks, tables, figures; or why there is none."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from statistics import mode

import pandas as pd

from bocb_tune.analysis.checks.remark import Check
from bocb_tune.analysis.core.estimate import Estimate, Reason
from bocb_tune.analysis.findings.collect import Findings
from bocb_tune.analysis.report.plots import Plot
from bocb_tune.analysis.report.sections.columns import HINTS, heading

# More figures than this in a section fold away, so that the page can be read past them.
MOST_OPEN = 4
LONG = 24
"""Letters beyond which a text of a table may break over lines."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataTable:
    """A table of the report; the same numbers, unrounded, go to `tables/STEM.csv`."""

    stem: str
    frame: pd.DataFrame
    formats: Mapping[str, str] = field(default_factory=dict)
    """Format of the numbers of a column, such as `.2f`."""
    only_file: bool = False
    """Whether it is too long for the page."""
    excerpt: pd.DataFrame | None = None
    """What of it the page shows; None: all."""

    are_names: bool = False
    """Whether columns are names of the grid, which stand as they are."""

    def heading(self, column: str) -> tuple[str, str]:
        """Return the heading of a column and its definition, empty for what speaks for itself."""
        return (column, "") if self.are_names else heading(column)

    @property
    def on_page(self) -> pd.DataFrame:
        """Rows and columns that the page shows."""
        return self.frame if self.excerpt is None else self.excerpt

    def cell(self, column: str, value: object) -> str:
        """As shown: rounded, and a dash for what is not known."""
        if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
            return "–"
        return format(value, self.formats.get(column, ""))

    def is_text(self, column: str) -> bool:
        """Whether a column holds more than short names, which may break over lines."""
        return bool(self.on_page[column].astype(str).str.len().max() > LONG) if len(self.on_page) else False

    @property
    def numeric(self) -> frozenset[str]:
        """Columns of numbers."""
        frame = self.on_page
        return frozenset(name for name in frame.columns if pd.api.types.is_numeric_dtype(frame[name]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One section: paragraphs, remarks, tables, figures, in this order."""

    title: str
    text: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    tables: tuple[DataTable, ...] = ()
    figures: tuple[Plot, ...] = ()
    folded: bool = False
    """Whether the figures are folded away until asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NotApplicable:
    """A section the data cannot fill."""

    title: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialList:
    """Trials of a cell."""

    table: DataTable
    note: str
    """What the table leaves out."""
    command: str
    """That repeats a trial, ID standing for its id; empty where the source is no run."""
    checkpoints: str
    """Where its checkpoints are; empty where there are none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CellPage:
    """Everything about one cell, reachable from the matrix."""

    key: str
    anchor: str
    """Id on the page; never made of users' names."""
    rows: tuple[tuple[str, str], ...]
    """Name and text."""
    panels: tuple[tuple[str, str], ...] = ()
    """Title of a panel of this cell in a figure of its backbone, and the id of it on the page."""
    trials: TrialList | None = None

    def hint(self, name: str) -> str:
        """Return the definition of a row, empty for what speaks for itself."""
        return HINTS.get(name, "")


def why(refused: Estimate) -> str:
    """Say in words why a value is refused."""
    assert refused.reason is not None
    return refused.reason.sentence


def has_landscape(findings: Findings) -> bool:
    """Whether any cell has one."""
    return any(cell.curve is not None for cell in findings.models.values())


def why_none(findings: Findings) -> str:
    """The commonest reason why cells have no landscape."""
    refused = [cell.estimates["lr_star"] for cell in findings.models.values() if cell.estimates["lr_star"].reason]
    if not refused:
        return "too few backbones have a landscape of the same optimizer"
    reasons = [estimate.reason for estimate in refused]
    first = refused[reasons.index(mode(reasons))]
    assert first.reason is not None
    return in_full(first.reason, first.method)


def in_full(reason: Reason, detail: str) -> str:
    """Say a reason in words, and what it was in this case where that says more."""
    return f"{reason.sentence}; {detail}" if detail not in ("", reason.sentence) else reason.sentence


def figure_card(title: str, text: str, figures: tuple[Plot, ...]) -> Card:
    """A section of figures, folded if they are many."""
    return Card(title=title, text=(text,), figures=figures, folded=len(figures) > MOST_OPEN)


def with_metric(findings: Findings, table: DataTable, columns: Iterable[str]) -> DataTable:
    """A table in which some columns of scores are the metric itself."""
    objective, names = findings.table.objective, list(columns)
    if objective.is_score:
        return table
    frame = table.frame.assign(**{name: objective.shown(table.frame[name]) for name in names})
    formats = {} if objective.is_bounded else dict.fromkeys(names, ".4g")
    return replace(table, frame=frame, formats={**table.formats, **formats})


def or_nan(value: float | None) -> float:
    """NaN for what is not known, as a table of numbers has it."""
    return math.nan if value is None else value


def number(value: float | None, digits: int = 2) -> str:
    """As shown; a dash for what is not known."""
    return "–" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def shown(estimate: Estimate, digits: int = 2) -> str:
    """Write a value with its interval and unit, or in words why there is none."""
    if estimate.value is None:
        return f"not known: {why(estimate)}"
    style = "g" if estimate.unit in ("lr", "weight decay", "trials") else f".{digits}f"
    style = ".3g" if style == "g" else style
    value = format(estimate.value, style)
    if estimate.lo is None or estimate.hi is None:
        bound = ">= " if estimate.reason is not None and estimate.lo is not None else ""
        return f"{bound}{value} {estimate.unit}".strip()
    return f"{value} ({estimate.lo:{style}} to {estimate.hi:{style}}) {estimate.unit}".strip()
