"""What each figure shows, as values; `figures.py` only draws them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bocb_tune.analysis.cells import CellSummary
from bocb_tune.analysis.coupling import Matrix
from bocb_tune.analysis.findings import Findings
from bocb_tune.analysis.table import CELL, Dims
from bocb_tune.types import Phase, TrialStatus

Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """What all figures have."""

    stem: str
    """File name without the ending; never made of users' names."""
    title: str
    caption: str
    """How to read it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heatmap(Plot):
    """A matrix of numbers."""

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: Matrix
    """[rows, columns], NaN where there is none."""
    unit: str
    signed: bool
    """Whether zero is the middle of the scale."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankDots(Plot):
    """The rank of each optimizer within each backbone, best mean rank first."""

    optimizers: tuple[str, ...]
    backbones: tuple[str, ...]
    ranks: Matrix
    """[backbones, optimizers], 1 = best."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LandscapePanel:
    """The trials of one cell over learning rate and weight decay."""

    title: str
    lr: Matrix
    """[trials]"""
    weight_decay: Matrix
    """[trials], zero included."""
    score: Matrix
    """[trials], points, NaN where the trial has none."""
    progress: Matrix
    """[trials], share of the full budget reached."""
    status: tuple[str, ...]
    is_default: Flags
    is_best: Flags
    dims: Dims | None
    """The search space, where known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Landscapes(Plot):
    """One panel an optimizer."""

    panels: tuple[LandscapePanel, ...]
    unit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """One trial's score by budget."""

    budget: Matrix
    score: Matrix
    status: str
    is_best: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvePanel:
    """The curves of one cell."""

    title: str
    optimizer: str
    curves: tuple[Curve, ...]
    rungs: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Curves(Plot):
    """One panel an optimizer."""

    panels: tuple[CurvePanel, ...]
    unit: str


def score_heatmap(findings: Findings) -> Heatmap:
    """Cell values, best rows and columns first."""
    rows, columns = by_mean(findings.matrix)
    return Heatmap(
        stem="cell-matrix",
        title="Best score of each cell",
        caption="Best backbones on top, best optimizers on the left, both by mean. The colour scale is cut at its "
        "lowest twentieth so that a few failures do not hide the rest; grey: no value.",
        rows=_pick(findings.table.backbones, rows),
        columns=_pick(findings.table.optimizers, columns),
        values=findings.matrix[np.ix_(rows, columns)],
        unit=score_label(findings),
        signed=False,
    )


def interaction_heatmap(findings: Findings) -> Heatmap:
    """What the additive fit leaves over, in the order of `score_heatmap`."""
    assert findings.decomposition is not None
    rows, columns = by_mean(findings.matrix)
    return Heatmap(
        stem="interaction",
        title="Interaction: what the averages do not predict",
        caption="Positive: the optimizer is better for this backbone than the averages of both predict. Double "
        "centring leaks: one failed cell also moves the others of its row and column the other way. The colour scale "
        "is cut at the largest twentieth.",
        rows=_pick(findings.table.backbones, rows),
        columns=_pick(findings.table.optimizers, columns),
        values=findings.decomposition.interaction[np.ix_(rows, columns)],
        unit=findings.table.objective.unit,
        signed=True,
    )


def rank_dots(findings: Findings) -> RankDots:
    assert findings.ranks is not None
    order = np.argsort(findings.ranks.ranks.mean(axis=0), kind="stable")
    return RankDots(
        stem="ranks",
        title="Rank of each optimizer within each backbone",
        caption="One marker a backbone; the bar is the mean rank. Were the order the same everywhere (W = 1), the "
        "markers of a row would stand at one rank.",
        optimizers=_pick(findings.table.optimizers, order),
        backbones=findings.table.backbones,
        ranks=findings.ranks.ranks[:, order],
    )


def landscapes(findings: Findings) -> tuple[Landscapes, ...]:
    """One figure a backbone that has trials with known learning rate and weight decay."""
    trials = findings.table.trials.dropna(subset=["lr", "weight_decay"])
    panels = {key: _landscape_panel(findings, _summary_of(findings, key), cell) for key, cell in _by_cell(trials)}
    return tuple(
        Landscapes(
            stem=f"landscape-{number:02d}",
            title=backbone,
            caption="",
            panels=tuple(panels[backbone, name] for name in findings.table.optimizers if (backbone, name) in panels),
            unit=score_label(findings),
        )
        for number, backbone in enumerate(findings.table.backbones, start=1)
        if any(key[0] == backbone for key in panels)
    )


def learning_curves(findings: Findings) -> tuple[Curves, ...]:
    """One figure a backbone that has curves."""
    status = findings.table.trials.set_index([*CELL, "trial"])[["status", "lr", "weight_decay"]]
    rows = findings.table.curves.dropna(subset=["score"]).join(status, on=[*CELL, "trial"])
    panels = {key: _curve_panel(findings, _summary_of(findings, key), cell) for key, cell in _by_cell(rows)}
    return tuple(
        Curves(
            stem=f"curves-{number:02d}",
            title=backbone,
            caption="",
            panels=tuple(panels[backbone, name] for name in findings.table.optimizers if (backbone, name) in panels),
            unit=score_label(findings),
        )
        for number, backbone in enumerate(findings.table.backbones, start=1)
        if any(key[0] == backbone for key in panels)
    )


def by_mean(matrix: Matrix) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Order of rows and of columns, highest mean of the known cells first, empty lines last."""
    known = np.isfinite(matrix)
    total = np.where(known, matrix, 0.0)
    orders = []
    for axis in (1, 0):
        count = known.sum(axis=axis)
        mean = np.where(count > 0, total.sum(axis=axis) / np.maximum(count, 1), -np.inf)
        orders.append(np.argsort(-mean, kind="stable"))
    return orders[0], orders[1]


def score_label(findings: Findings) -> str:
    return f"{findings.table.objective.metric} [{findings.table.objective.unit}]"


def _landscape_panel(findings: Findings, cell: CellSummary, trials: pd.DataFrame) -> LandscapePanel:
    return LandscapePanel(
        title=cell.optimizer,
        lr=trials["lr"].to_numpy(float),
        weight_decay=trials["weight_decay"].to_numpy(float),
        score=trials["score"].to_numpy(float),
        progress=(trials["budget"] / trials["max_budget"]).fillna(1.0).to_numpy(float),
        status=tuple(trials["status"]),
        is_default=(trials["phase"] == Phase.default).to_numpy(bool),
        is_best=_at_best(cell, trials),
        dims=findings.table.spaces.get(cell.optimizer),
    )


def _curve_panel(findings: Findings, cell: CellSummary, rows: pd.DataFrame) -> CurvePanel:
    """`rows` are sorted by trial, then by budget."""
    trial = rows["trial"].to_numpy()
    starts = np.flatnonzero(np.r_[True, trial[1:] != trial[:-1]])
    budgets, scores = (np.split(rows[name].to_numpy(float), starts[1:]) for name in ("budget", "score"))
    of_trial = zip(budgets, scores, rows["status"].to_numpy()[starts], _at_best(cell, rows)[starts], strict=True)
    return CurvePanel(
        title=cell.optimizer,
        optimizer=cell.optimizer,
        curves=tuple(
            Curve(budget=b, score=s, status=str(status), is_best=bool(best)) for b, s, status, best in of_trial
        ),
        rungs=findings.table.rungs.get((cell.backbone, cell.optimizer), ()),
    )


def _at_best(cell: CellSummary, rows: pd.DataFrame) -> Flags:
    """Completed trials at the best point of the cell."""
    at_point = (rows["lr"] == cell.lr) & (rows["weight_decay"] == cell.weight_decay)
    flags: Flags = (at_point & (rows["status"] == TrialStatus.completed)).to_numpy(bool)
    return flags


def _by_cell(rows: pd.DataFrame) -> Iterator[tuple[tuple[str, str], pd.DataFrame]]:
    for (backbone, optimizer), group in rows.groupby(CELL):
        yield (str(backbone), str(optimizer)), group


def _summary_of(findings: Findings, key: tuple[str, str]) -> CellSummary:
    row, column = findings.table.backbones.index(key[0]), findings.table.optimizers.index(key[1])
    return findings.cells[row * len(findings.table.optimizers) + column]


def _pick(names: tuple[str, ...], order: NDArray[np.intp]) -> tuple[str, ...]:
    return tuple(names[index] for index in order)
