"""Sections on sensitivity: what to use, how wide the good region is, what trials buy, what carries over."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd

from bocb_tune.analysis.draws import Refused
from bocb_tune.analysis.estimate import Estimate, Reason
from bocb_tune.analysis.findings import Findings, at_tolerance
from bocb_tune.analysis.landscape import CellTrials, Landscape
from bocb_tune.analysis.metrics import METRICS
from bocb_tune.analysis.metrics_file import mean_over_backbones
from bocb_tune.analysis.plots import Plot
from bocb_tune.analysis.plots.of_coupling import drift as drift_plot
from bocb_tune.analysis.plots.of_coupling import overview as overview_plot
from bocb_tune.analysis.plots.of_coupling import transfer as transfer_plot
from bocb_tune.analysis.plots.of_coupling import tuning_curves as curves_plot
from bocb_tune.analysis.plots.of_coupling import usable_decades as decades_plot
from bocb_tune.analysis.plots.of_findings import score_label
from bocb_tune.analysis.plots.of_landscapes import isolation, lr_profiles, variance_split
from bocb_tune.analysis.plots.values import Ranges
from bocb_tune.analysis.ranking import Ranking
from bocb_tune.analysis.sections.values import Card, DataTable, NotApplicable, figure_card, or_nan
from bocb_tune.analysis.surface import Array
from bocb_tune.analysis.tuning_curves import SIZES


def recommendation(findings: Findings) -> Card | NotApplicable:
    """Which optimizer, and how much it matters."""
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
            "p_best": or_nan(found.p_best),
            "as_good": ", ".join(found.tied),
        }
        for name, found in findings.tuning.per_backbone.items()
    ]
    formats = {"lr": ".3g", "weight_decay": ".3g", "expected": ".2f", "p_best": ".2f"}
    table = DataTable(stem="recommendations", frame=pd.DataFrame(rows), formats=formats)
    return Card(title=title, text=general.lines(), tables=(table,), figures=(_overview(findings, ranking),))


def sensitivity(findings: Findings) -> Card | NotApplicable:
    """All metrics of all cells, and the usable decades drawn."""
    title = "Sensitivity of each cell"
    if not _any_landscape(findings):
        return NotApplicable(title=title, reason=_why_none(findings))
    decades = at_tolerance("usable_decades_lr", findings.tolerance)
    found = {key: cell.estimates[decades] for key, cell in findings.models.items()}
    text = (
        f"Near-optimal volume: share of the search space within {findings.tolerance:g} point(s) of the best, the least "
        "difference that the noise of most cells lets one see. Usable decades: how far the "
        "learning rate may be off. Margin: decades from the best learning rate to divergence. Sensitivity and cost of "
        "a random setting: points lost on average over the learning rates, over all settings, of the search space. "
        "Every number with its interval is in the table's file and on the cell's page."
    )
    return Card(
        title=title,
        text=(text, *_refusals(findings)),
        tables=(_short_table(findings), _long_table(findings)),
        figures=(decades_plot(found, findings.table.backbones, findings.table.optimizers),),
    )


def profiles(findings: Findings) -> Card | NotApplicable:
    title = "Score over learning rate"
    figures = [lr_profiles(n, b, c, score_label(findings)) for n, b, c in _fitted(findings)]
    if not figures:
        return NotApplicable(title=title, reason=_why_none(findings))
    return figure_card(title, figures[0].caption, tuple(figures))


def alone(findings: Findings) -> Card | NotApplicable:
    title = "Each hyper-parameter alone"
    figures = [isolation(n, b, c, score_label(findings)) for n, b, c in _fitted(findings)]
    if not figures:
        return NotApplicable(title=title, reason=_why_none(findings))
    return figure_card(title, figures[0].caption, tuple(figures))


def variance(findings: Findings) -> Card | NotApplicable:
    title = "What the score depends on"
    if not _any_landscape(findings):
        return NotApplicable(title=title, reason=_why_none(findings))
    figures = tuple(_variance(findings, n, name) for n, name in enumerate(findings.table.backbones, start=1))
    return figure_card(title, figures[0].caption, figures)


def budget(findings: Findings) -> Card | NotApplicable:
    title = "What a budget of trials buys"
    curves = {name: _curves(findings, name) for name in findings.table.backbones}
    curves = {name: each for name, each in curves.items() if np.isfinite(each[1]).any()}
    if not curves:
        return NotApplicable(title=title, reason=_why_none(findings))
    ranks = findings.tuning.ranks
    text: list[str] = []
    tables: tuple[DataTable, ...] = ()
    if isinstance(ranks, Refused):
        text.append(f"Ranks by budget: {ranks.detail} ({ranks.reason}).")
    else:
        frame = pd.DataFrame({"optimizer": ranks.optimizers})
        for place, size in enumerate(SIZES):
            frame[f"rank_at_{size}"] = [ranks.ranks[name][place].value for name in ranks.optimizers]
        formats = {f"rank_at_{size}": ".2f" for size in SIZES}
        tables = (DataTable(stem="ranks_by_budget", frame=frame, formats=formats),)
        text += [f"From {c.trials} trials on {c.behind} ranks before {c.ahead}." for c in ranks.crossings]
    plot = curves_plot(findings.table.optimizers, curves, score_label(findings))
    return Card(title=title, text=tuple(text), tables=tables, figures=(plot,))


def carry_over(findings: Findings) -> Card | NotApplicable:
    title = "Do settings carry over between backbones?"
    found = {o: f.transfer for o, f in findings.tuning.optimizers.items() if not isinstance(f.transfer, Refused)}
    if not found:
        return NotApplicable(title=title, reason=_why_none(findings))
    backbones = findings.table.backbones
    regret = {name: _placed(f.regret, f.backbones, backbones) for name, f in found.items()}
    rows = [
        {
            "optimizer": name,
            "regret_of_another's_setting": f.mean.value,
            "within_1_point": f.within.value,
            "cost_of_a_common_setting": _mean_gain(findings, name),
        }
        for name, f in found.items()
    ]
    formats = {"regret_of_another's_setting": ".2f", "within_1_point": ".2f", "cost_of_a_common_setting": ".2f"}
    table = DataTable(stem="transfer", frame=pd.DataFrame(rows), formats=formats)
    figures: list[Plot] = [transfer_plot(backbones, regret)]
    if drifted := _drift(findings):
        figures.append(drifted)
    text = (
        "Points lost on a backbone by the best setting of another one. A common setting is the best for the other "
        "backbones together, so its cost is what tuning for each backbone is worth."
    )
    return Card(title=title, text=(text,), tables=(table,), figures=tuple(figures))


def _any_landscape(findings: Findings) -> bool:
    return any(cell.curve is not None for cell in findings.models.values())


def _why_none(findings: Findings) -> str:
    """The commonest reason why cells have no landscape."""
    reasons = [cell.estimates["lr_star"].reason for cell in findings.models.values()]
    known = [reason for reason in reasons if reason is not None]
    if not known:
        return "too few backbones have a landscape of the same optimizer"
    commonest = max(set(known), key=known.count)
    detail = next(
        c.estimates["lr_star"].method for c in findings.models.values() if c.estimates["lr_star"].reason is commonest
    )
    return f"{commonest.sentence} ({commonest}; {detail})"


def _refusals(findings: Findings) -> tuple[str, ...]:
    without = [key for key, cell in findings.models.items() if cell.curve is None]
    if not without:
        return ()
    named = ", ".join("/".join(key) for key in without[:10]) + (" ..." if len(without) > 10 else "")
    return (f"{len(without)} of {len(findings.models)} cells have no landscape ({named}): see their pages for why.",)


def _short_table(findings: Findings) -> DataTable:
    keys = (
        "lr_star",
        "wd_star",
        at_tolerance("near_optimal_volume", findings.tolerance),
        at_tolerance("usable_decades_lr", findings.tolerance),
        "divergence_margin",
        "lr_sensitivity",
        "prior_mean_regret",
    )
    rows = [
        {"backbone": b, "optimizer": o} | {key: _value(cell.estimates[key]) for key in keys}
        for (b, o), cell in findings.models.items()
    ]
    formats = {"lr_star": ".2g", "wd_star": ".2g", keys[2]: ".3f"} | dict.fromkeys(keys[3:], ".2f")
    return DataTable(stem="sensitivity", frame=pd.DataFrame(rows), formats=formats)


def _long_table(findings: Findings) -> DataTable:
    rows = [
        {
            "backbone": b,
            "optimizer": o,
            "metric": metric.key,
            "value": _value(cell.estimates[metric.key]),
            "lo": or_nan(cell.estimates[metric.key].lo),
            "hi": or_nan(cell.estimates[metric.key].hi),
            "reason": cell.estimates[metric.key].reason or "",
        }
        for (b, o), cell in findings.models.items()
        for metric in METRICS
    ]
    return DataTable(
        stem="cell_metrics",
        frame=pd.DataFrame(rows),
        formats=dict.fromkeys(("value", "lo", "hi"), ".4g"),
        only_file=True,
    )


def _value(estimate: Estimate) -> float:
    return or_nan(estimate.value)


def _fitted(findings: Findings) -> Iterator[tuple[int, str, Mapping[str, tuple[CellTrials, Landscape]]]]:
    for number_, backbone in enumerate(findings.table.backbones, start=1):
        cells = {}
        for optimizer in findings.table.optimizers:
            cell = findings.landscapes[backbone, optimizer]
            trials = findings.models[backbone, optimizer].trials
            if isinstance(cell, Landscape):
                cells[optimizer] = (trials, cell)
        if cells:
            yield number_, backbone, cells


def _variance(findings: Findings, number_: int, backbone: str) -> Plot:
    optimizers = findings.table.optimizers
    whole, top = (
        np.array(
            [
                [
                    _value(findings.models[backbone, o].estimates[f"{name}_variance_share{part}"])
                    for name in ("lr", "wd")
                ]
                for o in optimizers
            ]
        )
        for part in ("", "_top")
    )
    return variance_split(number_, backbone, optimizers, whole, top)


def _curves(findings: Findings, backbone: str) -> tuple[Array, Array, Array, Array]:
    n = np.array(SIZES, float)
    rows = []
    for optimizer in findings.table.optimizers:
        curve = findings.models[backbone, optimizer].curve
        found = [curve.at(size) for size in SIZES] if curve is not None else [Estimate(value=None)] * len(SIZES)
        rows.append([[or_nan(e.value), or_nan(e.lo), or_nan(e.hi)] for e in found])
    whole = np.array(rows)
    return n, whole[:, :, 0], whole[:, :, 1], whole[:, :, 2]


def _overview(findings: Findings, ranking: Ranking) -> Plot:
    names = tuple(ranking.standings)
    standings = ranking.standings
    none = Estimate(value=None, unit="decades", reason=Reason.NO_SPACE)
    usable = [
        mean_over_backbones(findings, name, at_tolerance("usable_decades_lr", findings.tolerance))
        if name in findings.table.optimizers
        else none
        for name in names
    ]
    return overview_plot(
        names,
        Ranges.of(standings[name].mean_regret for name in names),
        Ranges.of(standings[name].worst_regret for name in names),
        tuple(_worst_backbone(findings, name) for name in names),
        Ranges.of(usable),
    )


def _worst_backbone(findings: Findings, optimizer: str) -> str:
    """Where the optimizer falls furthest behind the best."""
    cost = findings.grid.regret[:, findings.table.optimizers.index(optimizer)]
    return findings.table.backbones[int(np.nanargmax(cost))] if np.isfinite(cost).any() else ""


def _placed(regret: tuple[tuple[Estimate, ...], ...], known: tuple[str, ...], backbones: tuple[str, ...]) -> Array:
    """[from, to] over all backbones, NaN where there is none."""
    whole = np.full((len(backbones), len(backbones)), np.nan)
    place = [backbones.index(name) for name in known]
    whole[np.ix_(place, place)] = [[_value(e) for e in row] for row in regret]
    return whole


def _mean_gain(findings: Findings, optimizer: str) -> float:
    found = findings.tuning.optimizers[optimizer].tunability
    return math.nan if isinstance(found, Refused) else _value(found.mean)


def _drift(findings: Findings) -> Plot | None:
    table = findings.table
    shape = (len(table.backbones), len(table.optimizers))
    value, lo, hi = (np.full(shape, np.nan) for _ in range(3))
    for column, optimizer in enumerate(table.optimizers):
        found = findings.tuning.optimizers[optimizer].drift
        if isinstance(found, Refused):
            continue
        for backbone, cell in found.items():
            row = table.backbones.index(backbone)
            value[row, column], lo[row, column], hi[row, column] = (
                or_nan(cell.lr.value),
                or_nan(cell.lr.lo),
                or_nan(cell.lr.hi),
            )
    if not np.isfinite(value).any():
        return None
    return drift_plot(table.backbones, table.optimizers, value, lo, hi, "the best common one")
