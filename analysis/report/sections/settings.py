"""Sections on settings: the cost of those of one backbone on another, and the distances between them."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from bocb_tune.analysis.core.arrays import Array
from bocb_tune.analysis.core.bootstrap import Refused
from bocb_tune.analysis.core.estimate import Estimate, points
from bocb_tune.analysis.findings.collect import Findings
from bocb_tune.analysis.report.cards.values import Card, DataTable, NotApplicable, or_nan, why_none
from bocb_tune.analysis.report.plots import Plot
from bocb_tune.analysis.report.plots.of_coupling import drift as drift_plot
from bocb_tune.analysis.report.plots.of_coupling import transfer as transfer_plot
from bocb_tune.analysis.sources.table import IN_WORDS
from bocb_tune.analysis.tuning.drift import MIN_BACKBONES


def carry_over(findings: Findings) -> Card | NotApplicable:
    """Show the cost of the settings of one backbone on another, and of a common setting on all."""
    title = "Do settings carry over between backbones?"
    found = {o: f.transfer for o, f in findings.tuning.optimizers.items() if not isinstance(f.transfer, Refused)}
    if not found:
        return NotApplicable(title=title, reason=why_none(findings))
    backbones = findings.table.backbones
    regret = {name: _placed(f.regret, f.backbones, backbones) for name, f in found.items()}
    rows = [
        {
            "optimizer": name,
            "regret_of_another's_setting": or_nan(f.mean.value),
            "within_tolerance_of_tuned": or_nan(f.within.value),
            **_tunability(findings, name),
        }
        for name, f in found.items()
    ]
    frame = pd.DataFrame(rows)
    formats = {str(column): ".2f" for column in frame if column not in ("optimizer", "worth_tuning")}
    text = (
        "Points lost on a backbone by using the best setting of another. A common setting is the best for the other "
        "backbones together, so its cost is what tuning for each backbone is worth. Worth tuning: the fewest "
        "hyper-parameters to tune for each backbone that bring the mean regret below "
        f"{points(findings.tolerance)}, the tolerance of this report."
    )
    table = DataTable(stem="transfer", frame=frame, formats=formats)
    return Card(title=title, text=(text,), tables=(table,), figures=(transfer_plot(backbones, regret),))


def _tunability(findings: Findings, optimizer: str) -> dict[str, object]:
    found = findings.tuning.optimizers[optimizer]
    cost, dimension = found.tunability, found.dimension
    if isinstance(cost, Refused) or isinstance(dimension, Refused):
        return {"cost_of_a_common_setting": math.nan, "worst_cost": math.nan, "worth_tuning": "–"}
    return {
        "cost_of_a_common_setting": or_nan(cost.mean.value),
        "worst_cost": or_nan(cost.worst.value),
        "worth_tuning": " and ".join(IN_WORDS[name] for name in dimension.by_regret) or "nothing",
    }


def drift(findings: Findings) -> Card | NotApplicable:
    """Show the distances of the best settings from the optimizer's reference."""
    title = "How far apart are the best settings?"
    if not findings.drifts:
        reason = f"fewer than {MIN_BACKBONES} backbones have a best setting with the same optimizer"
        return NotApplicable(title=title, reason=reason)
    rows = [
        {
            "optimizer": name,
            "reference_lr": found.reference.lr,
            "mean_drift_lr": found.mean_lr,
            "largest_drift_lr": float(np.nanmax(np.abs(found.lr))),
            "beyond_half_a_decade": found.share_beyond(),
            "reference_wd": found.reference.weight_decay,
            "mean_drift_wd": found.mean_weight_decay,
        }
        for name, found in findings.drifts.items()
    ]
    formats = {"reference_lr": ".2g", "reference_wd": ".2g", "beyond_half_a_decade": ".2f"}
    formats |= dict.fromkeys(("mean_drift_lr", "largest_drift_lr", "mean_drift_wd"), ".3f")
    reference = "the best common one" if findings.tuning.evidence.curves else "the most frequent one"
    text = (
        f"Decades between the best setting of a backbone and the optimizer's reference, {reference}. Drift is no cost "
        "by itself: it may lie within the flat region around the optimum."
    )
    table = DataTable(stem="drift", frame=pd.DataFrame(rows), formats=formats)
    return Card(title=title, text=(text, *_split(findings)), tables=(table,), figures=(_figure(findings, reference),))


def _split(findings: Findings) -> tuple[str, ...]:
    found = findings.lr_variance
    if found is None:
        return ()
    return (
        f"Of the variance of the best learning rate (log10) {found.optimizer:.1%} is due to the optimizer, "
        f"{found.backbone:.1%} to the backbone and {found.interaction:.1%} to the pairing of both (root mean square "
        f"{found.rms_interaction:.2f} decades).",
    )


def _figure(findings: Findings, reference: str) -> Plot:
    table = findings.table
    shape = (len(table.backbones), len(table.optimizers))
    value, lo, hi = (np.full(shape, np.nan) for _ in range(3))
    for name, found in findings.drifts.items():
        value[:, table.optimizers.index(name)] = found.lr
    for column, name in enumerate(table.optimizers):
        cells = findings.tuning.optimizers[name].drift
        for backbone, cell in {} if isinstance(cells, Refused) else cells.items():
            row = table.backbones.index(backbone)
            lo[row, column], hi[row, column] = or_nan(cell.lr.lo), or_nan(cell.lr.hi)
    return drift_plot(table.backbones, table.optimizers, value, lo, hi, reference)


def _placed(regret: tuple[tuple[Estimate, ...], ...], known: tuple[str, ...], backbones: tuple[str, ...]) -> Array:
    """Arrange the regrets [from, to] over all backbones, NaN where there is none."""
    whole = np.full((len(backbones), len(backbones)), np.nan)
    place = [backbones.index(name) for name in known]
    whole[np.ix_(place, place)] = [[or_nan(e.value) for e in row] for row in regret]
    return whole
