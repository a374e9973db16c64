"""The parts of a section of the report: text, checks, tables, figures; or the reason why there are none."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import mode

import pandas as pd

from bocb_tune.analysis.checks.check import Check
from bocb_tune.analysis.core.estimate import Estimate, Reason
from bocb_tune.analysis.findings.collect import Findings
from bocb_tune.analysis.report.cards.columns import HINTS, heading
from bocb_tune.analysis.report.plots import Plot

# Sections with more figures than this are folded, so that readers can pass them.
MOST_OPEN = 4
LONG = 24
"""Letters above which a text in a table may be broken into lines."""


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
    """Part of it that the page shows; None for all."""

    are_names: bool = False
    """Whether columns are names of the grid, which are not translated."""

    def heading(self, column: str) -> tuple[str, str]:
        """Return the heading of a column and its definition, empty where none is needed."""
        return (column, "") if self.are_names else heading(column)

    @property
    def on_page(self) -> pd.DataFrame:
        """Rows and columns that the page shows."""
        return self.frame if self.excerpt is None else self.excerpt

    def cell(self, column: str, value: object) -> str:
        """Format a value for the page: rounded, or a dash if it is unknown."""
        if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
            return "–"
        return format(value, self.formats.get(column, ""))

    @property
    def texts(self) -> frozenset[str]:
        """Columns that hold more than short names, so that they may be broken into lines."""
        frame = self.on_page
        return frozenset(str(name) for name in frame if any(len(str(value)) > LONG for value in frame[name]))

    @property
    def numeric(self) -> frozenset[str]:
        """Columns of numbers."""
        frame = self.on_page
        return frozenset(name for name in frame.columns if pd.api.types.is_numeric_dtype(frame[name]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One section: paragraphs, checks, tables, figures, in this order."""

    title: str
    text: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    tables: tuple[DataTable, ...] = ()
    figures: tuple[Plot, ...] = ()
    folded: bool = False
    """Whether the figures are folded at first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NotApplicable:
    """A section that the data cannot fill."""

    title: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialList:
    """Trials of a cell."""

    table: DataTable
    note: str
    """Sentence on the trials that the table leaves out."""
    command: str
    """Command that repeats a trial, with ID for its id; empty where the source is not a run."""
    checkpoints: str
    """Place of its checkpoints; empty where there are none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CellPage:
    """Everything about one cell; the matrix links to it."""

    key: str
    anchor: str
    """Id on the page; never made from users' names."""
    rows: tuple[tuple[str, str], ...]
    """Name and text."""
    panels: tuple[tuple[str, str], ...] = ()
    """Title of each panel of this cell in a figure of its backbone, and the panel's id on the page."""
    trials: TrialList | None = None

    def hint(self, name: str) -> str:
        """Return the definition of a row, empty where none is needed."""
        return HINTS.get(name, "")


def why(refused: Estimate) -> str:
    """Say in words why a value is refused."""
    assert refused.reason is not None
    return refused.reason.sentence


def has_landscape(findings: Findings) -> bool:
    """Tell whether any cell has a landscape."""
    return any(cell.curve is not None for cell in findings.models.values())


def why_none(findings: Findings) -> str:
    """Find the most common reason why cells have no landscape."""
    refused = [cell.estimates["lr_star"] for cell in findings.models.values() if cell.estimates["lr_star"].reason]
    if not refused:
        return "too few backbones have a landscape of the same optimizer"
    reasons = [estimate.reason for estimate in refused]
    first = refused[reasons.index(mode(reasons))]
    assert first.reason is not None
    return in_full(first.reason, first.method)


def in_full(reason: Reason, detail: str) -> str:
    """Write a reason as a sentence, with its details in this case if they add to it."""
    return f"{reason.sentence}; {detail}" if detail not in ("", reason.sentence) else reason.sentence


def figure_card(title: str, text: str, figures: tuple[Plot, ...]) -> Card:
    """Make a section of figures, folded if they are many."""
    return Card(title=title, text=(text,), figures=figures, folded=len(figures) > MOST_OPEN)


def with_metric(
    findings: Findings,
    table: DataTable,
    scores: Iterable[str],
    ends: Sequence[tuple[str, str]] = (),
    differences: Iterable[str] = (),
) -> DataTable:
    """Convert columns of scores to the metric itself, in the table's file and on the page.

    Args:
        findings: of the grid, whose metric it is.
        table: with the columns.
        scores: names of columns of scores.
        ends: columns of the low and the high end of intervals, which change places where less is better.
        differences: names of columns of differences between scores, such as their standard deviation.
    """
    objective, names, apart = (
        findings.table.objective,
        [*scores, *(end for pair in ends for end in pair)],
        list(differences),
    )
    if objective.is_score:
        return table

    def converted(frame: pd.DataFrame) -> pd.DataFrame:
        new = {name: objective.shown(frame[name]) for name in names if name in frame}
        new |= {name: objective.point * frame[name] for name in apart if name in frame}
        for low, high in ends if objective.slope < 0 else ():
            if low in new:
                new[low], new[high] = new[high], new[low]
        return frame.assign(**new)

    formats = {} if objective.is_bounded else dict.fromkeys((*names, *apart), ".4g")
    excerpt = None if table.excerpt is None else converted(table.excerpt)
    return replace(table, frame=converted(table.frame), excerpt=excerpt, formats={**table.formats, **formats})


def or_nan(value: float | None) -> float:
    """Replace None by NaN."""
    return math.nan if value is None else value


def number(value: float | None, digits: int = 2) -> str:
    """Format a number; a dash if it is unknown."""
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
