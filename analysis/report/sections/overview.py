"""Sections on the whole: checks, outcomes of the trials, methods."""

from __future__ import annotations

import math
import platform
from importlib.metadata import version

import pandas as pd

from bocb_tune.analysis.checks.run import run_checks
from bocb_tune.analysis.findings.collect import Findings
from bocb_tune.analysis.report.cards.values import Card, DataTable, NotApplicable
from bocb_tune.analysis.sources.table import CELL
from bocb_tune.core.types import Direction, Phase, TrialStatus
from bocb_tune.core.version import VERSION

LIBRARIES = ("numpy", "scipy", "pandas", "matplotlib")


def health(findings: Findings) -> Card | NotApplicable:
    checks = run_checks(findings)
    return Card(title="Checks", text=() if checks else ("No check has a finding.",), checks=checks)


def counts(findings: Findings) -> Card | NotApplicable:
    trials = findings.table.trials
    rows = [
        {"backbone": cell.backbone, "optimizer": cell.optimizer}
        | {str(status): cell.counts.get(status, 0) for status in TrialStatus}
        for cell in findings.cells
    ]
    by_status = pd.DataFrame(rows)
    tables = [DataTable(stem="counts_by_status", frame=by_status[_used(by_status)], only_file=_is_alike(by_status))]
    if (trials["phase"] != "").any():
        whole = pd.concat([trials, findings.table.refined]) if len(findings.table.refined) else trials
        frame = pd.crosstab(whole["phase"], whole["status"]).reindex([p for p in Phase if p in set(whole["phase"])])
        tables.insert(0, DataTable(stem="counts_by_phase", frame=frame.reset_index().rename_axis(columns=None)))
    total = trials["status"].value_counts()
    listed = ", ".join(f"{total[status]} {status}" for status in TrialStatus if status in total)
    text = f"{len(trials)} trials in {len(findings.cells)} cells: {listed or 'none'}."
    if refined := len(findings.table.refined):
        text += f" In addition {refined} that varied the optimizer's own hyper-parameters, or repeat the best of those."
    return Card(title="Trials by outcome", text=(text,), tables=tuple(tables))


def methods(findings: Findings) -> Card | NotApplicable:
    table, source = findings.table, findings.table.source
    versions = ", ".join([f"bocb-tune {VERSION}", *(f"{name} {version(name)}" for name in LIBRARIES)])
    objective = table.objective
    floor = "unknown" if math.isnan(objective.floor) else f"{objective.shown(objective.floor):g}"
    way = "smaller" if objective.direction is Direction.min else "larger"
    point = "" if objective.is_bounded else f" One point is {objective.point:.3g} of it."
    text = (
        f"Source: {source.kind} {source.name}, sha256 {source.sha256}. {source.citation}".strip(),
        f"Score: {objective.metric} in {objective.unit}, {way} is better; a diverged trial scores {floor} (the floor)."
        + point,
        "Failed and out-of-memory trials are counted and say nothing about a setting. Stopped trials give no cell its "
        "value: only scores at the grid's largest full budget are compared. A cell whose trials all diverged has the "
        "floor as its value.",
        "Landscape of a cell: a Gaussian process over lr, weight decay and budget on all rung records of all trials, "
        "and a logistic line of divergence; intervals are quantiles of 240 draws of hyper-parameters, process and line."
        " It is refused with too few trials, or where it does not predict trials left out of it.",
        "Decomposition: y = mean + backbone + optimizer + interaction by least squares. Interaction share = "
        "SS_interaction / (SS_optimizer + SS_interaction), and of all variance SS_interaction / SS_total; the first "
        "screen states it for the cells that do not fail. With repeated seeds it is computed from draws of the true "
        "values, in which the noise of each cell is moderated by that of the others, and tested by parametric "
        "bootstrap. Without repeated seeds it includes noise. Concordance: Kendall's W over ranks within backbones, "
        "corrected for ties, from the same draws.",
        "Significant: on a backbone, or on the mean of these backbones, an optimizer is significantly worse than the "
        "best where the interval of the difference excludes zero, by Student's t from the seeds of both, all "
        "comparisons with the best at .05 together (Bonferroni); over backbones, exact tests at .025.",
        "Definition and unit of a number are shown on pointing at its name, all of them with their sources in "
        "docs/METRICS.md.",
        f"Made with {versions}; Python {platform.python_version()}.",
    )
    return Card(title="Methods, exclusions, versions", text=text)


def _is_alike(by_status: pd.DataFrame) -> bool:
    """Tell whether all cells have the same counts, so that the total suffices."""
    return len(by_status) > 1 and not by_status.duplicated([*by_status.columns.drop(CELL)]).iloc[1:].eq(False).any()


def _used(frame: pd.DataFrame) -> list[str]:
    """List the columns that are not zero throughout."""
    return [str(name) for name in frame.columns if name in CELL or frame[name].any()]
