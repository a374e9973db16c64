"""Sections with the measures of arXiv:2410.06373: table, distances of settings, ranking, contrasts, training loss."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from bocb_tune.analysis.bocb.failures import BELOW_MEDIAN
from bocb_tune.analysis.bocb.ranking import WeightedRanking
from bocb_tune.analysis.core.bootstrap import Refused
from bocb_tune.analysis.core.estimate import Estimate, points
from bocb_tune.analysis.findings.bocb import RANKED
from bocb_tune.analysis.findings.collect import Findings
from bocb_tune.analysis.report.cards.values import (
    Card,
    DataTable,
    NotApplicable,
    in_full,
    or_nan,
    shown,
    with_metric,
)
from bocb_tune.analysis.report.plots import of_bocb as plots
from bocb_tune.analysis.sources import paper

MOST_ROWS = 12
"""Rows of a table that the page shows where its file, or a figure, has them all."""
PARTS = {"performance": "score", "settings": "distance of settings", "coupling": "mark", "computation": "computation"}


def paper_table(findings: Findings) -> Card | NotApplicable:
    """Show the grid as the paper's Table 1 and Figure 3 do."""
    title = "The grid as the paper shows it"
    found, table = findings.bocb, findings.table
    if found.failures_refused is not None:
        return NotApplicable(title=title, reason=found.failures_refused.sentence)
    sd, spread = findings.grid.spread_without_worst()
    frame = pd.DataFrame(
        {
            "backbone": table.backbones,
            "mean_drop_worst": found.mean_without_worst,
            "std_drop_worst": sd,
            "range_drop_worst": spread,
            "failures_by_equation": found.by_equation.sum(axis=1),
            "failures_by_median": found.by_median.sum(axis=1),
            "failures": findings.grid.failed.sum(axis=1),
        }
    )
    formats = dict.fromkeys(("mean_drop_worst", "std_drop_worst", "range_drop_worst"), ".2f")
    lines = DataTable(stem="paper_table", frame=frame, formats=formats, only_file=True)  # the figure shows it
    lines = with_metric(findings, lines, ["mean_drop_worst"])
    count = int(np.isfinite(found.values).sum())
    text = (
        f"Eq. 1 as printed, with a gap of {found.gap:g} points, counts {int(found.by_equation.sum())} of {count} cells "
        f"as failures. The rule behind the paper's grey marks, more than {BELOW_MEDIAN:g} points below the median of "
        f"the backbone, counts {int(found.by_median.sum())}. Neither takes noise into account. This report's own rule, "
        f"which its statements on coupling rest on, counts {int(findings.grid.failed.sum())}."
    )
    figures = (plots.marked_table(findings), plots.violins(findings))
    return Card(title=title, text=(text,), tables=(lines,), figures=figures)


def settings_distance(findings: Findings) -> Card | NotApplicable:
    """Say how far best settings lie from the usual one, as the paper's Figures 4 and 5 do."""
    title = "Robustness of settings as the paper measures it"
    found, table = findings.bocb, findings.table
    means = found.mean_distances
    if all(each.value is None for each in (*means.backbones, *means.optimizers)):
        return NotApplicable(title=title, reason=shown(means.optimizers[0]).removeprefix("not known: "))
    drifts = {name: each.mean_lr for name, each in findings.drifts.items()}
    optimizers = _lines("optimizer", table.optimizers, means.optimizers).assign(
        mean_drift_lr=[drifts.get(name, math.nan) for name in table.optimizers],
        half_widths=[_half_widths(findings, name) for name in table.optimizers],
    )
    backbones = _lines("backbone", table.backbones, means.backbones).assign(
        settings_distance_drawn=[or_nan(each.value) for each in means.backbones_drawn]
    )
    formats = dict.fromkeys(
        ("settings_distance", "from", "to", "mean_drift_lr", "half_widths", "settings_distance_drawn"), ".2f"
    )
    text = (
        f"Distance of a cell's best learning rate and weight decay from the most frequent ones, added up, in "
        f"{found.steps.how}; {found.steps.known} of {len(findings.cells)} cells have a setting. Intervals resample the "
        "cells of the row. A distance does not say what it costs. Two more columns help: the drift in decades and, "
        "where landscapes are known, the drift as a multiple of half the width of the range within "
        f"{points(findings.tolerance)} of the best; below 1 it hardly matters."
    )
    tables = tuple(
        DataTable(
            stem=f"settings_distance_of_{kind}s",
            frame=_known_columns(frame),
            formats=formats,
            only_file=kind == "backbone" and len(frame) > MOST_ROWS,
        )
        for kind, frame in (("optimizer", optimizers), ("backbone", backbones))
    )
    return Card(title=title, text=(text,), tables=tables, figures=plots.distance_boxes(findings))


def paper_ranking(findings: Findings) -> Card | NotApplicable:
    """Rank the optimizers as the paper's Table 4 does."""
    title = "Ranking as the paper makes it"
    found, ranking, table = findings.bocb, findings.bocb.ranking, findings.table
    if isinstance(ranking, Refused):
        return NotApplicable(title=title, reason=in_full(ranking.reason, ranking.detail))
    frame = pd.DataFrame(
        {
            "optimizer": table.optimizers,
            "overall_rank": ranking.overall.astype(int),
            "p_first": ranking.p_first,
            **{f"rank_of_{name}": ranks.astype(int) for name, ranks in ranking.parts.items()},
            "step_cost": [or_nan(each.value) for each in found.computation.step],
            "state_cost": [or_nan(each.value) for each in found.computation.state],
            "on_pareto_front": np.where(np.isnan(found.cost), "", np.where(found.pareto, "yes", "no")),
            **_published(findings),
        }
    )
    formats = {"p_first": ".2f", "step_cost": ".2f", "state_cost": ".2f"}
    ordered = frame.sort_values(["overall_rank", "optimizer"], ignore_index=True)
    whole = _known_columns(ordered)
    shown_columns = [name for name in whole if not str(name).startswith("published_") or name == "published_overall"]
    lines = DataTable(stem="paper_ranking", frame=whole, formats=formats, excerpt=whole[shown_columns].head(MOST_ROWS))
    front = plots.score_against_cost(findings)
    return Card(
        title=title, text=tuple(_ranked(findings, ranking)), tables=(lines,), figures=() if front is None else (front,)
    )


def planned(findings: Findings) -> Card | NotApplicable:
    """Show the contrasts of the paper's categories and classes."""
    title = "Do categories of optimizers suit classes of backbones?"
    contrasts = findings.bocb.contrasts
    if all(each.psi.value is None for each in contrasts):
        reasons = {each.psi.reason.sentence for each in contrasts if each.psi.reason}
        return NotApplicable(title=title, reason="; ".join(sorted(reasons)))
    rows = [
        {
            "category": each.category,
            "class": each.where,
            "contrast": or_nan(each.psi.value),
            "from": or_nan(each.psi.lo),
            "to": or_nan(each.psi.hi),
            "p": or_nan(each.p),
            "p_holm": or_nan(each.p_holm),
            "why_not": "" if each.psi.reason is None else each.psi.reason.sentence,
        }
        for each in contrasts
    ]
    clear = sum(each.p_holm is not None and each.p_holm < 0.05 for each in contrasts)
    made = sum(each.p is not None for each in contrasts)
    text = (
        "Advantage of a category over the other optimizers on a class of backbones, minus its advantage on the other "
        "backbones, in points. Categories and classes are those of arXiv:2410.06373, not chosen on these scores. "
        "Intervals: Welch's t over backbones. p: exact permutation test of the classes; p_holm: corrected for the "
        f"number of contrasts by Holm's method. After the correction {clear} of {made} contrasts are significant."
    )
    formats = dict.fromkeys(("contrast", "from", "to"), "+.2f") | {"p": ".3f", "p_holm": ".3f"}
    return Card(
        title=title,
        text=(text,),
        tables=(DataTable(stem="planned_contrasts", frame=_known_columns(pd.DataFrame(rows)), formats=formats),),
    )


def training_loss(findings: Findings) -> Card | NotApplicable:
    """Say whether the training loss tells what the score tells."""
    title = "Does the training loss tell the same?"
    found = findings.bocb.loss
    if isinstance(found, Refused):
        return NotApplicable(title=title, reason=in_full(found.reason, found.detail))
    same, count = found.best_alike
    text = (
        f"Share of the optimizers' effect that is specific to the backbone, on -log10 of the final training loss: "
        f"{shown(found.share)} ({found.share.method or 'refused'}); on the score: {shown(findings.interaction_share)}.",
        "Rank correlation of score and training loss over the optimizers, mean over backbones: "
        f"{shown(found.agreement)}. Below 0, optimizers that fit better generalise worse.",
        f"The optimizer with the best score has the lowest training loss on {same} of {count} backbones.",
    )
    values = pd.DataFrame(10.0**-found.values, columns=list(findings.table.optimizers))
    values.insert(0, "backbone", list(findings.table.backbones))
    formats = dict.fromkeys(findings.table.optimizers, ".3g")
    return Card(
        title=title, text=text, tables=(DataTable(stem="training_loss", frame=values, formats=formats, are_names=True),)
    )


def _ranked(findings: Findings, ranking: WeightedRanking) -> list[str]:
    used = ", ".join(f"{weight:.2f} {PARTS[name]}" for name, weight in ranking.weights.items())
    first = int(np.argmin(ranking.total))
    name, sure = findings.table.optimizers[first], ranking.p_first[first]
    lines = [
        f"Weighted sum of ranks ({used}) over the {ranking.backbones} backbones that have every optimizer. {name} is "
        f"first, also in {sure:.0%} of the replicates that resample the backbones. The mark is 1 for an optimizer that "
        "fails on some backbone by the rule of the grey marks."
    ]
    if ranking.left_out:
        missing = " and ".join(PARTS[name] for name in ranking.left_out)
        lines.append(f"Not known here, and its weight shared by the other parts: {missing}.")
    if findings.table.source.name == RANKED:
        lines.append(
            "Computation is ranked by the paper's own numbers. Its overall rank follows from its own parts and weights "
            "for 16 of 20 optimizers, in the order of the table where sums are equal; its ranks of performance "
            "correlate .97 with those of the column means."
        )
    return lines


def _published(findings: Findings) -> dict[str, list[int]]:
    """List the ranks that the paper prints, for its own table."""
    if findings.table.source.name != RANKED:
        return {}
    known = paper.ranking().set_index("optimizer")
    names = list(findings.table.optimizers)
    return {f"published_{part}": [int(known[part][name]) for name in names] for part in ("overall", *PARTS)}


def _lines(kind: str, names: tuple[str, ...], found: tuple[Estimate, ...]) -> pd.DataFrame:
    ends = {word: [or_nan(getattr(each, end)) for each in found] for word, end in (("from", "lo"), ("to", "hi"))}
    return pd.DataFrame({kind: names, "settings_distance": [or_nan(each.value) for each in found], **ends})


def _half_widths(findings: Findings, optimizer: str) -> float:
    """Average the drift of an optimizer in half widths of its landscapes; NaN without."""
    cells = findings.tuning.optimizers[optimizer].drift
    return (
        math.nan if isinstance(cells, Refused) else float(np.mean([abs(each.half_widths) for each in cells.values()]))
    )


def _known_columns(frame: pd.DataFrame) -> pd.DataFrame:
    """Leave out columns that say nothing."""
    return frame.loc[:, [name for name in frame if frame[name].notna().any() and (frame[name] != "").any()]]
