"""Sections on sensitivity: which optimizer to use, the width of the good region, and the causes of variance."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from statistics import mode

import numpy as np
import pandas as pd

from bocb_tune.analysis.answer.reaches import reaches_of
from bocb_tune.analysis.cell.crosschecks import EVALUATORS
from bocb_tune.analysis.cell.marginals import Marginals
from bocb_tune.analysis.cell.metrics import METRICS
from bocb_tune.analysis.core.estimate import Estimate, Reason, points
from bocb_tune.analysis.findings.collect import Findings, at_tolerance
from bocb_tune.analysis.findings.metrics_file import mean_of
from bocb_tune.analysis.landscape.fit import Landscape
from bocb_tune.analysis.landscape.trials import CellTrials
from bocb_tune.analysis.names.quantities import QUANTITIES
from bocb_tune.analysis.recommend.ranking import Ranking
from bocb_tune.analysis.report.cards.values import (
    Card,
    DataTable,
    NotApplicable,
    figure_card,
    has_landscape,
    or_nan,
    why_none,
)
from bocb_tune.analysis.report.plots import Plot
from bocb_tune.analysis.report.plots.of_coupling import overview as overview_plot
from bocb_tune.analysis.report.plots.of_coupling import usable_decades as decades_plot
from bocb_tune.analysis.report.plots.of_findings import score_label
from bocb_tune.analysis.report.plots.of_landscapes import isolation, lr_profiles, variance_split
from bocb_tune.analysis.report.plots.values import Intervals
from bocb_tune.analysis.sources.table import CELL


def recommendation(findings: Findings) -> Card | NotApplicable:
    """Show which optimizer to use, and how much that matters."""
    title = "Which optimizer, and how much does it matter?"
    general = findings.tuning.general
    ranking = general.tuned or general.fixed
    if ranking is None:
        return NotApplicable(title=title, reason=" ".join(general.lines()))
    rows = [
        {
            "backbone": name,
            "optimizer": found.optimizer or "–",
            "lr": math.nan if found.setting is None else found.setting.lr,
            "weight_decay": math.nan if found.setting is None else found.setting.weight_decay,
            "expected": or_nan(found.expected.value),
            "from": or_nan(found.expected.lo),
            "to": or_nan(found.expected.hi),
            "p_best": or_nan(found.p_best),
            "as_good": ", ".join(found.tied),
            "leader_by_seeds": found.leader or "",
            "judged_by_seeds": ", ".join(found.by_seeds),
        }
        for name, each in findings.tuning.per_backbone.items()
        for found in (each.of_metric(findings.table.objective),)
    ]
    style = ".2f" if findings.table.objective.is_bounded else ".4g"
    formats = {"lr": ".3g", "weight_decay": ".3g", "p_best": ".2f"} | dict.fromkeys(("expected", "from", "to"), style)
    frame = pd.DataFrame(rows)
    used = frame.loc[:, [name for name in frame if frame[name].notna().any() and (frame[name] != "").any()]]
    table = DataTable(stem="recommendations", frame=used, formats=formats)
    return Card(
        title=title,
        text=(*general.of_metric(findings.table.objective).lines(), *_differences(findings)),
        tables=(table,),
        figures=(_overview(findings, ranking),),
    )


def _differences(findings: Findings) -> Iterator[str]:
    """Say where another optimizer is recommended than the first screen names."""
    for name, each in findings.tuning.per_backbone.items():
        if each.difference:
            yield f"On {name} {each.difference}"


def sensitivity(findings: Findings) -> Card | NotApplicable:
    """Show all metrics of all cells, with a figure of the usable decades."""
    title = "Sensitivity of each cell"
    if not has_landscape(findings):
        return NotApplicable(title=title, reason=why_none(findings))
    found = _reach(findings)
    text = (
        f"Near-optimal volume: share of the search space within {points(findings.tolerance)} of the best, the "
        "tolerance of this report. Usable decades: how far the learning rate may be off within that of the "
        "backbone's best, or of the cell's own best, which does not show how good the cell is. Margin: decades from "
        "the best learning rate to divergence. Sensitivity and cost of a random setting: points lost on average over "
        "the learning rates, or over all settings, of the search space. Every number with its interval is in the "
        "table's file and on the cell's page."
    )
    return Card(
        title=title,
        text=(text, *_refusals(findings), *_known_nowhere(findings)),
        tables=(_short_table(findings, found), _long_table(findings)),
        figures=(decades_plot(found, findings.table.backbones, findings.table.optimizers),),
    )


def profiles(findings: Findings) -> Card | NotApplicable:
    title = "Score over learning rate"
    figures = [
        replace(lr_profiles(n, b, c, score_label(findings), findings.tolerance), metric=findings.table.objective)
        for n, b, c in _searched(findings)
    ]
    if not figures:
        return NotApplicable(title=title, reason=why_none(findings))
    return figure_card(title, figures[0].caption, tuple(figures))


def alone(findings: Findings) -> Card | NotApplicable:
    title = "Each hyper-parameter alone"
    figures = [
        replace(isolation(n, b, _marginals(findings, b), score_label(findings)), metric=findings.table.objective)
        for n, b, _ in _searched(findings)
    ]
    if not figures:
        return NotApplicable(title=title, reason=why_none(findings))
    return figure_card(title, figures[0].caption, tuple(figures))


def variance(findings: Findings) -> Card | NotApplicable:
    title = "What the score depends on"
    if not has_landscape(findings):
        return NotApplicable(title=title, reason=why_none(findings))
    figures = tuple(_variance(findings, n, name) for n, name in enumerate(findings.table.backbones, start=1))
    return figure_card(title, figures[0].caption, figures)


def cross_checks(findings: Findings) -> Card | NotApplicable:
    """Show importances by other methods beside the functional ANOVA."""
    title = "Cross-checks by other methods"
    rows = [_importances(findings, *key) for key in findings.models]
    numbers = [name for name in rows[0] if name not in CELL]
    if not any(math.isfinite(float(row[name])) for row in rows for name in numbers):  # type: ignore[arg-type]
        return NotApplicable(title=title, reason=why_none(findings))
    text = (
        "Importance of the learning rate by four methods, which need not agree; the rest is that of weight decay "
        "and of the interaction. Functional ANOVA: share of the variance of the fitted landscape, "
        "which this report relies on. PED-ANOVA (Watanabe et al. 2023, arXiv:2304.10255): how much the best tenth of "
        "the landscape differs from all of it, main effects only. Optuna's evaluators see completed trials only, which "
        "early stopping has selected."
    )
    frame = pd.DataFrame(rows).dropna(axis="columns", how="all")
    table = DataTable(stem="cross_checks", frame=frame, formats=dict.fromkeys(numbers, ".2f"))
    return Card(title=title, text=(text, *_left_out(findings)), tables=(table,))


def _importances(findings: Findings, backbone: str, optimizer: str) -> dict[str, object]:
    own, others = findings.models[backbone, optimizer].estimates, findings.importances[backbone, optimizer]
    return {
        "backbone": backbone,
        "optimizer": optimizer,
        "functional_ANOVA": or_nan(own["lr_variance_share"].value),
        "PED-ANOVA": or_nan(own["lr_importance"].value),
        **{f"Optuna's_{name}": or_nan(found["lr"].value) for name, found in others.items()},
    }


def _left_out(findings: Findings) -> Iterator[str]:
    """Count the cells without Optuna's numbers, by reason."""
    refused = [(name, each[name]["lr"]) for each in findings.importances.values() for name in EVALUATORS]
    for reason in dict.fromkeys(estimate.reason for _, estimate in refused if estimate.reason is not None):
        names = [name for name, estimate in refused if estimate.reason is reason]
        told = " and ".join(f"{name} in {names.count(name)}" for name in dict.fromkeys(names))
        yield f"Without Optuna's {told} of {len(findings.models)} cells: {reason.sentence}."


def _refusals(findings: Findings) -> tuple[str, ...]:
    without = [key for key, cell in findings.models.items() if cell.curve is None]
    if not without:
        return ()
    named = ", ".join("/".join(key) for key in without[:10]) + (" ..." if len(without) > 10 else "")
    return (f"{len(without)} of {len(findings.models)} cells have no landscape ({named}): see their pages for why.",)


def _known_nowhere(findings: Findings) -> Iterator[str]:
    """Say, for each number of the table that no landscape gives, the most common reason."""
    fitted = [cell.estimates for cell in findings.models.values() if cell.curve is not None]
    for key in _short_keys(findings):
        reasons = [estimates[key].reason for estimates in fitted if estimates[key].value is None]
        if len(reasons) == len(fitted) and (reason := mode(reasons)) is not None:
            yield f"The {QUANTITIES[key].name} is not known in any cell: {reason.sentence}."


def _short_keys(findings: Findings) -> tuple[str, ...]:
    """Return the keys of the metrics that the page shows side by side."""
    return (
        "lr_star",
        "wd_star",
        at_tolerance("near_optimal_volume", findings.tolerance),
        at_tolerance("usable_decades_lr", findings.tolerance),
        "divergence_margin",
        "lr_sensitivity",
        "prior_mean_regret",
    )


def _short_table(findings: Findings, reach: Mapping[tuple[str, str], Estimate]) -> DataTable:
    keys = _short_keys(findings)
    decades = at_tolerance("usable_decades_lr", findings.tolerance)
    rows = [
        {"backbone": b, "optimizer": o}
        | {key: or_nan(cell.estimates[key].value) for key in keys[:3]}
        | {
            "decades_of_best": or_nan(reach[b, o].value),
            "ci_of_best": _ends(reach[b, o]),
            "decades_of_own": or_nan(cell.estimates[decades].value),
            "ci_of_own": _ends(cell.estimates[decades]),
        }
        | {key: or_nan(cell.estimates[key].value) for key in keys[4:]}
        for (b, o), cell in findings.models.items()
    ]
    widths = ("decades_of_best", "decades_of_own")
    formats = {"lr_star": ".2g", "wd_star": ".2g", keys[2]: ".3f"} | dict.fromkeys((*keys[3:], *widths), ".2f")
    frame = pd.DataFrame(rows)
    return DataTable(stem="sensitivity", frame=frame, formats=formats, excerpt=frame.dropna(axis="columns", how="all"))


def _reach(findings: Findings) -> dict[tuple[str, str], Estimate]:
    """Return the usable decades of each cell, from the best of its backbone, or the refusal."""
    decades = at_tolerance("usable_decades_lr", findings.tolerance)
    known = {(each.backbone, each.optimizer): each.of_best for each in reaches_of(findings)}
    return {key: known.get(key, cell.estimates[decades]) for key, cell in findings.models.items()}


def _ends(estimate: Estimate) -> str:
    """Write an interval as text."""
    return "–" if estimate.lo is None or estimate.hi is None else f"{estimate.lo:.2f} to {estimate.hi:.2f}"


def _long_table(findings: Findings) -> DataTable:
    rows = [
        {
            "backbone": b,
            "optimizer": o,
            "metric": metric.key,
            "value": or_nan(stated[metric.key].value),
            "lo": or_nan(stated[metric.key].lo),
            "hi": or_nan(stated[metric.key].hi),
            "reason": stated[metric.key].reason or "",
        }
        for b, o in findings.models
        for stated in (findings.stated(b, o),)
        for metric in METRICS
    ]
    return DataTable(
        stem="cell_metrics",
        frame=pd.DataFrame(rows),
        formats=dict.fromkeys(("value", "lo", "hi"), ".4g"),
        only_file=True,
    )


def _searched(findings: Findings) -> Iterator[tuple[int, str, Mapping[str, tuple[CellTrials, Landscape | None]]]]:
    """Yield number, name and cells of each backbone, also cells without a model; nothing if no cell has one."""
    if not has_landscape(findings):
        return
    for number_, backbone in enumerate(findings.table.backbones, start=1):
        cells: dict[str, tuple[CellTrials, Landscape | None]] = {}
        for optimizer in findings.table.optimizers:
            cell = findings.landscapes[backbone, optimizer]
            trials = findings.models[backbone, optimizer].trials
            if isinstance(cell, Landscape) or trials.completed.any():
                cells[optimizer] = (trials, cell if isinstance(cell, Landscape) else None)
        if cells:
            yield number_, backbone, cells


def _marginals(findings: Findings, backbone: str) -> dict[str, tuple[CellTrials, Marginals | None]]:
    cells = {name: findings.models[backbone, name] for name in findings.table.optimizers}
    return {
        name: (cell.trials, cell.marginals)
        for name, cell in cells.items()
        if cell.marginals is not None or cell.trials.completed.any()
    }


def _variance(findings: Findings, number_: int, backbone: str) -> Plot:
    optimizers = findings.table.optimizers
    whole, top = (
        np.array(
            [
                [
                    or_nan(findings.models[backbone, o].estimates[f"{name}_variance_share{part}"].value)
                    for name in ("lr", "wd")
                ]
                for o in optimizers
            ]
        )
        for part in ("", "_top")
    )
    return variance_split(number_, backbone, optimizers, whole, top)


def _overview(findings: Findings, ranking: Ranking) -> Plot:
    names = tuple(ranking.standings)
    standings = ranking.standings
    none = Estimate(value=None, unit="decades", reason=Reason.NO_SPACE)
    reach = _reach(findings)
    usable = [
        mean_of([reach[backbone, name] for backbone in findings.table.backbones])
        if name in findings.table.optimizers
        else none
        for name in names
    ]
    return overview_plot(
        names,
        Intervals.of(standings[name].mean_regret for name in names),
        Intervals.of(standings[name].worst_regret for name in names),
        tuple(_worst_backbone(findings, name) for name in names),
        Intervals.of(usable),
    )


def _worst_backbone(findings: Findings, optimizer: str) -> str:
    """Find the backbone on which the optimizer is furthest behind the best."""
    cost = findings.grid.regret[:, findings.table.optimizers.index(optimizer)]
    return findings.table.backbones[int(np.nanargmax(cost))] if np.isfinite(cost).any() else ""
