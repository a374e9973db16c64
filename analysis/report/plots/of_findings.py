"""Figures of the findings of a table: cell matrix, interaction, ranks, trials and curves of each cell."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bocb_tune.analysis.core.arrays import Array, Flags
from bocb_tune.analysis.findings.collect import Findings
from bocb_tune.analysis.landscape.fit import Landscape, NoLandscape
from bocb_tune.analysis.landscape.surface import Domain
from bocb_tune.analysis.matrix.cells import CellSummary
from bocb_tune.analysis.report.plots.of_coupling import cell_matrix, interaction_matrix
from bocb_tune.analysis.report.plots.of_landscapes import fitted_surface
from bocb_tune.analysis.report.plots.values import Curve, CurvePanel, Curves, Heatmap, LandscapePanel, Landscapes, Strip
from bocb_tune.analysis.sources.table import CELL
from bocb_tune.core.types import Phase, TrialStatus

P = TypeVar("P")

Fits = Mapping[tuple[str, str], Landscape | NoLandscape]
"""Landscapes by (backbone, optimizer)."""
NO_FITS: Fits = MappingProxyType({})


def score_heatmap(findings: Findings) -> Heatmap:
    """Show cell values by family."""
    table = findings.table
    plot = cell_matrix(findings.matrix, table.backbones, table.optimizers, score_label(findings))
    return replace(plot, metric=table.objective)


def interaction_heatmap(findings: Findings, significant: Flags | None = None) -> Heatmap:
    """Show the residuals of the additive fit, in the order of `score_heatmap`.

    Args:
        findings: with a decomposition.
        significant: cells whose interval excludes zero [backbones, optimizers].
    """
    assert findings.decomposition is not None
    table, interaction = findings.table, findings.decomposition.interaction
    return interaction_matrix(interaction, findings.matrix, table.backbones, table.optimizers, "points", significant)


def rank_dots(findings: Findings) -> Strip:
    assert findings.ranks is not None
    order = np.argsort(findings.ranks.ranks.mean(axis=0), kind="stable")
    return Strip(
        stem="ranks",
        title="Rank of each optimizer within each backbone",
        caption="One marker per backbone; the bar is the mean rank. If the order were the same everywhere (W = 1), the "
        "markers of a row would stand at one rank.",
        optimizers=tuple(findings.table.optimizers[index] for index in order),
        backbones=findings.table.backbones,
        values=findings.ranks.ranks[:, order],
        summary=findings.ranks.ranks.mean(axis=0)[order],
        axis="rank within the backbone (1 = best)",
    )


def landscapes(findings: Findings, fits: Fits = NO_FITS) -> tuple[Landscapes, ...]:
    """Show trials and their fitted surface, one figure per backbone with known learning rates and weight decays."""
    trials = findings.table.trials.dropna(subset=["lr", "weight_decay"])
    panels = {
        key: _landscape_panel(findings, _summary_of(findings, key), cell, fits.get(key))
        for key, cell in _by_cell(trials)
    }
    return tuple(
        Landscapes(
            stem=f"landscape-{number:02d}",
            title=backbone,
            caption="",
            panels=row,
            epsilon=findings.tolerance,
            alt=f"Trials and fitted score over learning rate and weight decay, a panel per optimizer: {_titles(row)}.",
            **named_by(findings),
        )
        for number, backbone, row in _by_backbone(findings, panels)
    )


def learning_curves(findings: Findings) -> tuple[Curves, ...]:
    """Show learning curves: one figure per backbone that has some."""
    rows = findings.table.curves.dropna(subset=["score"])
    starts = _starts(rows)
    ended = findings.table.trials.set_index([*CELL, "trial"])[["status", "lr", "weight_decay"]]
    trials = rows.iloc[starts].join(ended, on=[*CELL, "trial"])
    trials = trials.assign(start=starts, stop=np.append(starts[1:], len(rows))[: len(starts)])
    measured = rows["budget"].to_numpy(float), rows["score"].to_numpy(float)
    panels = {key: _curve_panel(findings, _summary_of(findings, key), cell, measured) for key, cell in _by_cell(trials)}
    return tuple(
        Curves(
            stem=f"curves-{number:02d}",
            title=backbone,
            caption="",
            panels=row,
            alt=f"Score of each trial by epoch, one panel per optimizer: {_titles(row)}.",
            **named_by(findings),
        )
        for number, backbone, row in _by_backbone(findings, panels)
    )


def _starts(rows: pd.DataFrame) -> NDArray[np.intp]:
    """Find the row where the curve of each trial begins [trials]; the rows are sorted by trial, then by budget."""
    is_other = [np.diff(pd.factorize(rows[name])[0], prepend=-1) != 0 for name in (*CELL, "trial")]
    return np.flatnonzero(np.any(is_other, axis=0))


def _by_backbone(findings: Findings, panels: Mapping[tuple[str, str], P]) -> Iterator[tuple[int, str, tuple[P, ...]]]:
    """Yield number, name and panels of each backbone that has some, panels in the order of the optimizers."""
    for number, backbone in enumerate(findings.table.backbones, start=1):
        row = tuple(panels[backbone, name] for name in findings.table.optimizers if (backbone, name) in panels)
        if row:
            yield number, backbone, row


def score_label(findings: Findings) -> str:
    """Return the label of a score axis."""
    return findings.table.objective.label


def named_by(findings: Findings) -> dict[str, Any]:
    """Return the unit and the metric of a plot of scores."""
    return {"unit": score_label(findings), "metric": findings.table.objective}


def _landscape_panel(
    findings: Findings, cell: CellSummary, trials: pd.DataFrame, fit: Landscape | NoLandscape | None
) -> LandscapePanel:
    dims = findings.table.spaces.get(cell.optimizer)
    box = Domain.of(dims["lr"], dims["weight_decay"]) if dims and "weight_decay" in dims else None
    return LandscapePanel(
        title=cell.optimizer,
        lr=trials["lr"].to_numpy(float),
        weight_decay=trials["weight_decay"].to_numpy(float),
        score=trials["score"].to_numpy(float),
        progress=(trials["budget"] / trials["max_budget"]).fillna(1.0).to_numpy(float),
        status=tuple(trials["status"]),
        is_default=(trials["phase"] == Phase.default).to_numpy(bool),
        is_best=_at_best(cell, trials),
        box=None if box is None else (box.lr, box.decay_ends),
        zero_is_choice=box is not None and box.zero_mass > 0,
        fit=fitted_surface(fit, findings.tolerance) if isinstance(fit, Landscape) and box is not None else None,
        note="no model" if isinstance(fit, NoLandscape) else "",
    )


def _curve_panel(
    findings: Findings, cell: CellSummary, trials: pd.DataFrame, measured: tuple[Array, Array]
) -> CurvePanel:
    """Make the panel of one cell; `trials` gives the rows of `measured` with the budgets and scores of each trial."""
    budget, score = measured
    of_trial = zip(trials["start"], trials["stop"], trials["status"], _at_best(cell, trials), strict=True)
    return CurvePanel(
        title=cell.optimizer,
        curves=tuple(
            Curve(budget=budget[start:stop], score=score[start:stop], status=str(status), is_best=bool(best))
            for start, stop, status, best in of_trial
        ),
        rungs=findings.table.rungs.get((cell.backbone, cell.optimizer), ()),
    )


def _at_best(cell: CellSummary, rows: pd.DataFrame) -> Flags:
    """Mark the completed trials at the best point of the cell."""
    at_point = (rows["lr"] == cell.lr) & (rows["weight_decay"] == cell.weight_decay)
    flags: Flags = (at_point & (rows["status"] == TrialStatus.completed)).to_numpy(bool)
    return flags


def _titles(panels: Iterable[CurvePanel | LandscapePanel]) -> str:
    return ", ".join(panel.title for panel in panels)


def _by_cell(rows: pd.DataFrame) -> Iterator[tuple[tuple[str, str], pd.DataFrame]]:
    for (backbone, optimizer), group in rows.groupby(CELL):
        yield (str(backbone), str(optimizer)), group


def _summary_of(findings: Findings, key: tuple[str, str]) -> CellSummary:
    row, column = findings.table.backbones.index(key[0]), findings.table.optimizers.index(key[1])
    return findings.cells[row * len(findings.table.optimizers) + column]
