"""The sections of a report, each a function of the findings: a `Card`, or `NotApplicable` with its reason."""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version

import numpy as np
import pandas as pd

from bocb_tune.analysis import plots
from bocb_tune.analysis.checks import Check, run_checks
from bocb_tune.analysis.estimate import Estimate
from bocb_tune.analysis.findings import Findings
from bocb_tune.analysis.table import CELL
from bocb_tune.analysis.words import answer
from bocb_tune.types import Phase, TrialStatus

# More figures than this in a section fold away, so that the page can be read past them.
MOST_OPEN = 4
LIBRARIES = ("bocb-tune", "numpy", "scipy", "pandas", "matplotlib")


@dataclass(frozen=True, slots=True, kw_only=True)
class DataTable:
    """A table of the report; the same numbers, unrounded, go to `tables/STEM.csv`."""

    stem: str
    frame: pd.DataFrame
    formats: Mapping[str, str] = field(default_factory=dict)
    """Format of the numbers of a column, such as `.2f`."""

    def cell(self, column: str, value: object) -> str:
        """As shown: rounded, and a dash for what is not known."""
        if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
            return "–"
        return format(value, self.formats.get(column, ""))

    def is_number(self, column: str) -> bool:
        return bool(pd.api.types.is_numeric_dtype(self.frame[column]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One section: paragraphs, remarks, tables, figures, in this order."""

    title: str
    text: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    tables: tuple[DataTable, ...] = ()
    figures: tuple[plots.Plot, ...] = ()
    folded: bool = False
    """Whether the figures are folded away until asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NotApplicable:
    """A section the data cannot fill."""

    title: str
    reason: str


def in_words(findings: Findings) -> Card | NotApplicable:
    return Card(title="The answer in words", text=answer(findings))


def health(findings: Findings) -> Card | NotApplicable:
    checks = run_checks(findings)
    return Card(title="Checks", text=() if checks else ("Nothing to remark.",), checks=checks)


def counts(findings: Findings) -> Card | NotApplicable:
    trials = findings.table.trials
    by_status = pd.DataFrame([_count_row(cell.backbone, cell.optimizer, cell.counts) for cell in findings.cells])
    tables = [DataTable(stem="counts_by_status", frame=by_status[_used(by_status)])]
    if (trials["phase"] != "").any():
        frame = pd.crosstab(trials["phase"], trials["status"]).reindex([p for p in Phase if p in set(trials["phase"])])
        tables.insert(0, DataTable(stem="counts_by_phase", frame=frame.reset_index().rename_axis(columns=None)))
    total = trials["status"].value_counts()
    listed = ", ".join(f"{total[status]} {status}" for status in TrialStatus if status in total)
    text = f"{len(trials)} trials in {len(findings.cells)} cells: {listed or 'none'}."
    return Card(title="Trials by outcome", text=(text,), tables=tuple(tables))


def matrix(findings: Findings) -> Card | NotApplicable:
    title = "Cell matrix and interaction"
    if findings.best is None:
        return NotApplicable(title=title, reason=_why(findings.cells[0].best))
    table = findings.table
    values = pd.DataFrame(findings.matrix, columns=list(table.optimizers))
    values.insert(0, "backbone", list(table.backbones))
    tables = [DataTable(stem="cell_matrix", frame=values, formats=dict.fromkeys(table.optimizers, ".2f"))]
    figures: list[plots.Plot] = [plots.score_heatmap(findings)]
    text = [
        "A cell's value is the mean of fresh seeds at its best point where there are any, else the best observed score."
    ]
    if findings.decomposition is None:
        text.append(f"Not decomposed: {_why(findings.interaction_share)}.")
    else:
        tables.append(_variation(findings))
        figures.append(plots.interaction_heatmap(findings))
    return Card(title=title, text=tuple(text), tables=tuple(reversed(tables)), figures=tuple(figures))


def order(findings: Findings) -> Card | NotApplicable:
    title = "Do the backbones agree on the order?"
    if findings.ranks is None:
        return NotApplicable(title=title, reason=_why(findings.kendall_w))
    ranks = findings.ranks.ranks
    frame = pd.DataFrame({"optimizer": findings.table.optimizers, "mean": findings.matrix.mean(axis=0)})
    frame = frame.assign(mean_rank=ranks.mean(axis=0), best_rank=ranks.min(axis=0), worst_rank=ranks.max(axis=0))
    formats = {"mean": ".2f", "mean_rank": ".2f", "best_rank": "g", "worst_rank": "g"}
    table = DataTable(stem="optimizers", frame=frame.sort_values("mean_rank", ignore_index=True), formats=formats)
    return Card(title=title, tables=(table,), figures=(plots.rank_dots(findings),))


def best_points(findings: Findings) -> Card | NotApplicable:
    title = "Best point of each cell"
    if findings.best is None:
        return NotApplicable(title=title, reason=_why(findings.cells[0].best))
    rows = [
        {
            "backbone": cell.backbone,
            "optimizer": cell.optimizer,
            "lr": cell.lr,
            "weight_decay": cell.weight_decay,
            "score": cell.value,
            "sd": cell.sd,
            "seeds": cell.best.counts.n_seeds,
            "selected_score": cell.selected_score,
            "how": cell.best.method.split(",")[0] or _why(cell.best),
        }
        for cell in findings.cells
    ]
    frame = pd.DataFrame(rows).sort_values(
        ["backbone", "score"], ascending=[True, False], kind="stable", ignore_index=True
    )
    formats = {"lr": ".3g", "weight_decay": ".3g", "score": ".2f", "sd": ".2f", "selected_score": ".2f"}
    text = (
        "score ± sd over n fresh seeds at the best point, where there are any; the selected score is the best observed "
        "one, biased upwards by having been selected."
    )
    return Card(title=title, text=(text,), tables=(DataTable(stem="best_points", frame=frame, formats=formats),))


def landscape(findings: Findings) -> Card | NotApplicable:
    title = "Landscapes: score over learning rate and weight decay"
    known = findings.table.trials.dropna(subset=["lr", "weight_decay"])
    points = known.groupby(CELL)[["lr", "weight_decay"]].nunique().max(axis=1)
    if points.empty:
        return NotApplicable(title=title, reason="the table has no learning rates and weight decays")
    if points.max() < 2:
        return NotApplicable(title=title, reason="only one setting per cell is known")
    text = (
        "Colour is the score at the budget the trial reached, on the scale of the backbone's completed trials. A "
        "stopped trial (hollow, smaller the earlier) was measured at a smaller budget: do not compare its colour with "
        "filled ones. Weight decay 0 has its own strip below the axis."
    )
    return _figure_card(title, text, plots.landscapes(findings))


def curves(findings: Findings) -> Card | NotApplicable:
    title = "Learning curves"
    figures = plots.learning_curves(findings)
    if not figures:
        return NotApplicable(title=title, reason="the source has no measurements along the budget")
    text = "One line a trial; stopped and diverged ones end early; black: trials at the cell's best setting."
    return _figure_card(title, text, figures)


def methods(findings: Findings) -> Card | NotApplicable:
    table, source = findings.table, findings.table.source
    versions = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    floor = "unknown" if math.isnan(table.objective.floor) else f"{table.objective.floor:g}"
    text = (
        f"Source: {source.kind} {source.name}, sha256 {source.sha256}. {source.citation}".strip(),
        f"Score: {table.objective.metric} in {table.objective.unit}, larger is better; a diverged trial scores {floor} "
        "(the floor).",
        "Failed and out-of-memory trials are counted and say nothing about a setting. Stopped trials give no cell its "
        "value: only scores at the grid's largest full budget are compared. All trials diverged: the floor.",
        "Decomposition: y = mean + backbone + optimizer + interaction by double centring of the complete matrix. "
        "Interaction share = SS_interaction / (SS_optimizer + SS_interaction); of all = SS_interaction / SS_total; "
        "both plug-in. Concordance: Kendall's W over ranks within backbones, corrected for ties. Refused below 3 x 3 "
        "(shares) and 4 backbones x 3 optimizers (W), and wherever a cell is missing.",
        f"Made with {versions}; Python {platform.python_version()}.",
    )
    return Card(title="Methods, exclusions, versions", text=text)


SECTIONS: tuple[Callable[[Findings], Card | NotApplicable], ...] = (
    in_words,
    health,
    counts,
    matrix,
    order,
    best_points,
    landscape,
    curves,
    methods,
)


def _why(refused: Estimate) -> str:
    assert refused.reason is not None
    return f"{refused.reason.sentence} ({refused.reason})"


def _count_row(backbone: str, optimizer: str, found: Mapping[TrialStatus, int]) -> dict[str, object]:
    return {"backbone": backbone, "optimizer": optimizer, **{str(s): found.get(s, 0) for s in TrialStatus}}


def _used(frame: pd.DataFrame) -> list[str]:
    """Columns that are not zero all along."""
    return [str(name) for name in frame.columns if name in CELL or frame[name].any()]


def _variation(findings: Findings) -> DataTable:
    parts = findings.decomposition
    assert parts is not None
    sums = np.array([parts.ss_backbone, parts.ss_optimizer, parts.ss_interaction])
    backbones, optimizers = findings.matrix.shape
    degrees = [backbones - 1, optimizers - 1, (backbones - 1) * (optimizers - 1)]
    frame = pd.DataFrame({"source": ["backbone", "optimizer", "interaction"], "sum_of_squares": sums, "df": degrees})
    share = sums / sums.sum() if sums.sum() > 0 else np.full(3, math.nan)
    frame = frame.assign(share_of_total=share)
    return DataTable(stem="decomposition", frame=frame, formats={"sum_of_squares": ".1f", "share_of_total": ".4f"})


def _figure_card(title: str, text: str, figures: tuple[plots.Plot, ...]) -> Card:
    return Card(title=title, text=(text,), figures=figures, folded=len(figures) > MOST_OPEN)
