"""Figures as those of arXiv:2410.06373: its table, violins, boxes of distances, score against computation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bocb_tune.analysis.core.arrays import Array
from bocb_tune.analysis.findings.bocb import RANKED
from bocb_tune.analysis.findings.collect import Findings
from bocb_tune.analysis.matrix.standings import TOP, top
from bocb_tune.analysis.names.look import backbone_class, optimizer_family
from bocb_tune.analysis.report.plots.of_coupling import by_group
from bocb_tune.analysis.report.plots.of_findings import score_label
from bocb_tune.analysis.report.plots.values import CostScatter, MarkedTable, Plot, Samples


def marked_table(findings: Findings) -> MarkedTable:
    """Lay out the scores as Table 1: optimizers by category, backbones by class, marks, and lines without the worst."""
    table, found = findings.table, findings.bocb
    classes, families = [*map(backbone_class, table.backbones)], [*map(optimizer_family, table.optimizers)]
    rows, columns = by_group(families, found.values.T), by_group(classes, found.values)
    place = np.ix_(rows, columns)
    return MarkedTable(
        stem="paper-table",
        title="Best four and failures of each backbone",
        caption=f"Blue: the best of its backbone; light blue: among the best {TOP}; grey: fails by the rule of the "
        "paper's grey marks. Below: mean, standard deviation and range without the worst, and how many fail by Eq. 1 "
        "as printed and by that rule.",
        rows=tuple(table.optimizers[index] for index in rows),
        columns=tuple(table.backbones[index] for index in columns),
        values=found.values.T[place],
        top=top(np.where(np.isfinite(found.values), found.values, -np.inf)).T[place]
        & np.isfinite(found.values.T[place]),
        failed=found.by_median.T[place],
        foot=_foot(findings, columns),
        row_groups=tuple(families[index] for index in rows) if len(set(families)) > 1 else (),
        column_groups=tuple(classes[index] for index in columns) if len(set(classes)) > 1 else (),
        metric=table.objective,
    )


def _foot(findings: Findings, columns: NDArray[np.intp]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Write the lines below the table: spread without the worst, and failures."""
    found, objective = findings.bocb, findings.table.objective
    sd, spread = findings.grid.spread_without_worst()
    style = ".1f" if objective.is_bounded else ".3g"
    lines = (
        ("mean", objective.shown(found.mean_without_worst), style),
        ("sd", sd, ".1f"),
        ("range", spread, ".1f"),
        ("fails, Eq. 1", found.by_equation.sum(axis=1), "d"),
        ("fails, as marked", found.by_median.sum(axis=1), "d"),
    )
    return tuple(
        (name, tuple(format(each, form) for each in values[columns]))
        for name, values, form in lines
        if np.isfinite(values).all()
    )


def violins(findings: Findings) -> Samples:
    """Show how the optimizers' scores spread on each backbone, as Figure 3."""
    table = findings.table
    return Samples(
        stem="paper-violins",
        title="Scores of the optimizers on each backbone",
        caption="Violins of the scores of all optimizers, outliers (beyond 1.5 quartile ranges) as dots and left "
        "out of the shape; bar: quartiles; white: median. An arrow: some lie below the axis.",
        names=table.backbones,
        samples=_known_rows(findings.matrix),
        axis=score_label(findings),
        are_backbones=True,
        as_violins=True,
        metric=table.objective,
    )


def distance_boxes(findings: Findings) -> tuple[Plot, ...]:
    """Show the distances of settings by backbone and by optimizer, as Figures 4 and 5."""
    own = findings.bocb.distances[1]
    caption = "Boxes: quartiles; bar: median; diamond: mean; whiskers: 1.5 quartile ranges. Lower: more alike."
    said = (
        ("backbone", "Figure 4", findings.table.backbones, own),
        ("optimizer", "Figure 5", findings.table.optimizers, own.T),
    )
    return tuple(
        Samples(
            stem=f"settings-distance-{kind}s",
            title=f"Distance of settings from the optimizers' modes, by {kind}",
            caption=f"As {figure} of the paper. {caption}",
            names=tuple(name for name, row in zip(names, values, strict=True) if np.isfinite(row).any()),
            samples=tuple(row for row in _known_rows(values) if len(row)),
            axis="steps from the mode, learning rate and weight decay added",
            are_backbones=kind == "backbone",
            as_violins=False,
        )
        for kind, figure, names, values in said
        if np.isfinite(values).any()
    )


def score_against_cost(findings: Findings) -> CostScatter | None:
    """Show the mean score against computation with its Pareto front; None where either is not known."""
    found = findings.bocb
    if not np.isfinite(found.mean_scores + found.cost).any():
        return None
    published = findings.table.source.name == RANKED
    return CostScatter(
        stem="score-computation",
        title="Score against computation",
        caption="Mean score over the backbones that have every optimizer. Line: the front of optimizers that no other "
        "beats in both.",
        optimizers=findings.table.optimizers,
        score=found.mean_scores,
        cost=found.cost,
        front=found.pareto,
        axis="rank of computation as published"
        if published
        else f"computation, relative to {found.computation.reference}",
        unit=score_label(findings),
        metric=findings.table.objective,
    )


def _known_rows(values: Array) -> tuple[Array, ...]:
    return tuple(row[np.isfinite(row)] for row in values)
