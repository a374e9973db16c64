"""Sections on the matrix: the share of interaction, its sources, and the agreement of backbones on the order."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from bocb_tune.analysis.answer.coupling import coupling_sentences
from bocb_tune.analysis.findings.collect import Findings
from bocb_tune.analysis.findings.metrics_file import NEAR_BEST
from bocb_tune.analysis.matrix.contrasts import Contrast
from bocb_tune.analysis.report import plots
from bocb_tune.analysis.report.cards.values import (
    Card,
    DataTable,
    NotApplicable,
    number,
    or_nan,
    shown,
    why,
    with_metric,
)
from bocb_tune.analysis.report.plots.of_coupling import coupling_scatter, critical_difference
from bocb_tune.analysis.report.plots.values import Intervals


def matrix(findings: Findings) -> Card | NotApplicable:
    title = "Cell matrix and interaction"
    if findings.best is None:
        return NotApplicable(title=title, reason=why(findings.cells[0].best))
    table = findings.table
    values = pd.DataFrame(findings.matrix, columns=list(table.optimizers))
    values.insert(0, "backbone", list(table.backbones))
    formats = dict.fromkeys(table.optimizers, ".2f")
    cells = DataTable(stem="cell_matrix", frame=values, formats=formats, are_names=True)
    cells = with_metric(findings, cells, table.optimizers)
    text = (
        "A cell's value is the mean of fresh seeds at its best point where there are any, else the best observed score."
    )
    if findings.decomposition is None:
        refused = f"Not decomposed: {why(findings.interaction_share)}."
        return Card(title=title, text=(text, refused), tables=(cells,), figures=(plots.score_heatmap(findings),))
    test = findings.grid.verdict.test
    significant = None if test is None else test.significant_cells
    return Card(
        title=title,
        text=(text, *_shares(findings), *_closer(findings)),
        tables=(_variation(findings), cells),
        figures=(plots.score_heatmap(findings), plots.interaction_heatmap(findings, significant)),
    )


def coupling(findings: Findings) -> Card | NotApplicable:
    title = "Which backbones and optimizers are coupled, and which merely fail"
    grid, table = findings.grid, findings.table
    if all(e.value is None for e in (*grid.coupling[0], *grid.viable[0])):
        return NotApplicable(title=title, reason=why(grid.coupling[0][0]))
    text = [
        *coupling_sentences(grid.verdict, (table.backbones, table.optimizers)),
        "Coupling: root mean square deviation of a row's cells from additivity, in points. Failures: number of cells "
        "that fail. Viable coupling: the same deviation with these left out. Polish: robust scale of a row after an "
        "additive fit by medians.",
    ]
    if grid.led_by_failures:
        text.append("The plain coupling index is driven by failures here: read viable coupling and failures instead.")
    failed = (grid.failed.sum(axis=1).astype(float), grid.failed.sum(axis=0).astype(float))
    ranges = (Intervals.of(grid.viable[0]), Intervals.of(grid.viable[1]))
    return Card(
        title=title,
        text=tuple(text),
        tables=(_lines(findings, "backbone", table.backbones, 0), _lines(findings, "optimizer", table.optimizers, 1)),
        figures=(coupling_scatter(table.backbones, table.optimizers, failed, ranges),),
    )


def order(findings: Findings) -> Card | NotApplicable:
    title = "Do the backbones agree on the order?"
    grid = findings.grid
    if findings.ranks is None or grid.critical_difference is None:
        return NotApplicable(title=title, reason=why(findings.kendall_w))
    ranks, cost = findings.ranks.ranks, grid.regret
    frame = pd.DataFrame({"optimizer": findings.table.optimizers, "mean": findings.matrix.mean(axis=0)})
    frame = frame.assign(
        mean_rank=ranks.mean(axis=0),
        best_rank=ranks.min(axis=0),
        worst_rank=ranks.max(axis=0),
        mean_regret=cost.mean(axis=0),
        worst_regret=cost.max(axis=0),
        among_best_4=grid.top.sum(axis=0),
    )
    if grid.true_mean_ranks is not None:
        ends = np.quantile(grid.true_mean_ranks, [0.025, 0.975], axis=0)
        frame = frame.assign(mean_rank_from=ends[0], mean_rank_to=ends[1])
    formats = {"best_rank": "g", "worst_rank": "g"} | dict.fromkeys(
        ("mean", "mean_rank", "mean_rank_from", "mean_rank_to", "mean_regret", "worst_regret"), ".2f"
    )
    table = DataTable(stem="optimizers", frame=frame.sort_values("mean_rank", ignore_index=True), formats=formats)
    table = with_metric(findings, table, ["mean"])
    diagram = critical_difference(findings.table.optimizers, ranks.mean(axis=0), grid.critical_difference)
    return Card(
        title=title,
        text=(*_agreement(findings), *_classes(findings), *_contrast(findings)),
        tables=(table,),
        figures=(diagram, plots.rank_dots(findings)),
    )


def _shares(findings: Findings) -> tuple[str, ...]:
    """State the shares of all cells, failures included, beside those of the viable ones in the answer."""
    share, grid = findings.interaction_share, findings.grid
    if not grid.verdict.failed:
        return ()
    with_failures = "With the failed cells included, which the first screen leaves out,"
    if share.value is None:
        return (f"{with_failures} the interaction cannot be estimated: {why(share)}.",)
    line = (
        f"{with_failures} the interaction is {shown(share)} of the optimizer-related variance and "
        f"{shown(findings.interaction_share_total)} of all variance ({share.method})."
    )
    if share is not grid.shares[0] and grid.shares[0].value is not None:
        line += f" Computed from the cell values alone, the first of these is {shown(grid.shares[0])}."
    return (line,)


def _closer(findings: Findings) -> tuple[str, ...]:
    """Describe the interaction in more detail, unless it was tested and none was shown."""
    verdict = findings.grid.verdict
    if verdict.test is not None and not verdict.is_shown:
        return ("Since no interaction can be shown, the figures and sums below describe this grid, noise included.",)
    return (*_versions(findings), *_without(findings), *_generalised(findings))


def _generalised(findings: Findings) -> tuple[str, ...]:
    wide = findings.grid.generalisation
    if wide.lo is None:
        return ()
    return (
        f"For other backbones and optimizers like these the share is expected between {wide.lo:.2f} and "
        f"{number(wide.hi)}.",
    )


def _versions(findings: Findings) -> tuple[str, ...]:
    found = findings.grid.versions
    if not found:
        return ()
    each = ", ".join(f"{v.name} {number(v.parts.share_of_optimizer_effect)}" for v in found)
    line = f"The same share on other scales: {each}. Rely on a conclusion only if it holds on every scale."
    if findings.grid.null_singular_share is None:
        return (line,)
    shape = ", ".join(f"{v.name} {number(v.singular)}" for v in found)
    return (
        line,
        f"Part of the interaction in its first singular direction: {shape}; above "
        f"{number(findings.grid.null_singular_share)} it has more structure than noise has in 95 % of cases.",
    )


def _without(findings: Findings) -> tuple[str, ...]:
    """Say how much the share depends on a single backbone or optimizer."""
    if findings.grid.share_without is None:
        return ()
    table = findings.table
    named = zip((table.backbones, table.optimizers), findings.grid.share_without, strict=True)
    told = [
        f"{number(shares[low])} (without {names[low]}) to {number(shares[high])} (without {names[high]})"
        for names, shares in named
        for low, high in [(int(np.argmin(shares)), int(np.argmax(shares)))]
    ]
    return (
        f"The share computed from the cell values alone ranges from {told[0]} when one backbone is left out, and from "
        f"{told[1]} when one optimizer is left out.",
    )


def _agreement(findings: Findings) -> tuple[str, ...]:
    found = findings.grid.true_agreement
    observed = f"Kendall's W of the observed order {shown(findings.kendall_w)}"
    if found.value is None:
        return (f"{observed}, seed noise included.",)
    return (f"Kendall's W without seed noise {shown(found)} (interval over backbones and seeds). {observed}.",)


def _classes(findings: Findings) -> tuple[str, ...]:
    found = findings.grid.classes
    parts = [
        f"{name}: {number(c.within.value)} within the class, {number(c.without.value)} among the other backbones, "
        f"{number(c.between)} correlation of the mean ranks of both"
        for name, c in found.items()
        if c.within.value is not None
    ]
    return (f"Kendall's W by class of backbone – {'; '.join(parts)}.",) if parts else ()


def _contrast(findings: Findings) -> tuple[str, ...]:
    found = findings.grid.contrast
    if not isinstance(found, Contrast):
        return ()
    return (
        f"{found.name}: the mean of the SGD family minus that of the Adam family is {found.inside:+.2f} points on "
        f"classical networks and {found.outside:+.2f} on the others, which differ by "
        f"{number(found.inside - found.outside)} ({found.psi.method}).",
    )


def _variation(findings: Findings) -> DataTable:
    parts = findings.decomposition
    assert parts is not None
    sums = np.array([parts.ss_backbone, parts.ss_optimizer, parts.ss_interaction])
    backbones, optimizers = findings.matrix.shape
    degrees = [backbones - 1, optimizers - 1, parts.df_interaction]
    frame = pd.DataFrame({"source": ["backbone", "optimizer", "interaction"], "sum_of_squares": sums, "df": degrees})
    share = sums / sums.sum() if sums.sum() > 0 else np.full(3, math.nan)
    frame = frame.assign(share_of_total=share)
    return DataTable(stem="decomposition", frame=frame, formats={"sum_of_squares": ".1f", "share_of_total": ".4f"})


def _of_backbones(findings: Findings) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[Any]]]:
    """Compute robust scale of a row and number of optimizers near its best; empty where a cell is missing."""
    grid = findings.grid
    if grid.polish is None:
        return {}
    near = {f"within_{points:g}_of_best": grid.near_best(points).astype(int) for points in NEAR_BEST}
    return {"polish": grid.polish.row_scale, **near}


def _lines(findings: Findings, kind: str, names: tuple[str, ...], axis: int) -> DataTable:
    grid = findings.grid
    plain, viable = grid.coupling[axis], grid.viable[axis]
    frame = pd.DataFrame(
        {
            kind: names,
            "mean": findings.matrix.mean(axis=1 - axis),
            "failures": grid.failed.sum(axis=1 - axis),
            "viable_coupling": [or_nan(e.value) for e in viable],
            "from": [or_nan(e.lo) for e in viable],
            "to": [or_nan(e.hi) for e in viable],
            "coupling": [or_nan(e.value) for e in plain],
        }
    )
    formats = dict.fromkeys(("mean", "viable_coupling", "from", "to", "coupling"), ".2f")
    if kind == "backbone":
        frame = frame.assign(**_of_backbones(findings))
        formats["polish"] = ".2f"
    frame = frame.sort_values("viable_coupling", ascending=False, kind="stable", ignore_index=True)
    return with_metric(findings, DataTable(stem=f"coupling_of_{kind}s", frame=frame, formats=formats), ["mean"])
