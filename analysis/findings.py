"""Everything that is computed from a table, once, for the report's sections and for `metrics.json` alike."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from bocb_tune.analysis.cells import CellSummary, cell_matrix, summarise_cells, total_counts
from bocb_tune.analysis.coupling import (
    MIN_CONCORDANCE_SHAPE,
    MIN_SHARE_SHAPE,
    Concordance,
    Decomposition,
    Matrix,
    concordance,
    concordance_estimate,
    decompose,
    refusal,
    share_estimate,
)
from bocb_tune.analysis.estimate import Estimate, Reason
from bocb_tune.analysis.table import TrialTable
from bocb_tune.types import TrialStatus

SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """A table and what was found in it."""

    table: TrialTable
    cells: tuple[CellSummary, ...]
    matrix: Matrix
    """Cell values [backbones, optimizers], points, NaN where missing."""
    decomposition: Decomposition | None
    """None where refused; `interaction_share.reason` says why."""
    ranks: Concordance | None
    """None where refused; `kendall_w.reason` says why."""
    interaction_share: Estimate
    """SS_interaction / (SS_optimizer + SS_interaction)."""
    interaction_share_total: Estimate
    """SS_interaction / SS_total."""
    kendall_w: Estimate

    @property
    def missing(self) -> tuple[str, ...]:
        """Keys of the cells without a value."""
        return tuple(cell.key for cell in self.cells if cell.best.value is None)

    @property
    def is_replicated(self) -> bool:
        """Whether every cell's value is a mean over at least two seeds."""
        return _is_replicated(self.cells)

    @property
    def best(self) -> CellSummary | None:
        """The best cell; None if no cell has a value."""
        known = [cell for cell in self.cells if cell.best.value is not None]
        return max(known, key=lambda cell: cell.value, default=None)


def find(table: TrialTable) -> Findings:
    """Compute everything this release knows how to compute; what the data cannot say is refused with a reason."""
    cells = summarise_cells(table)
    matrix, counts = cell_matrix(table, cells), total_counts(cells)
    no_share, no_ranks = refusal(matrix, MIN_SHARE_SHAPE), refusal(matrix, MIN_CONCORDANCE_SHAPE)
    parts = None if no_share else decompose(matrix)
    ranks = None if no_ranks else concordance(matrix)
    replicated = _is_replicated(cells)
    refused = Estimate(value=None, reason=no_share, counts=counts)
    return Findings(
        table=table,
        cells=cells,
        matrix=matrix,
        decomposition=parts,
        ranks=ranks,
        interaction_share=share_estimate(parts.share_of_optimizer_effect, counts, replicated) if parts else refused,
        interaction_share_total=share_estimate(parts.share_of_total, counts, replicated) if parts else refused,
        kendall_w=concordance_estimate(ranks, counts)
        if ranks
        else Estimate(value=None, reason=no_ranks, counts=counts),
    )


def interaction_estimate(findings: Findings, row: int, column: int) -> Estimate:
    """Signed interaction of one cell, points."""
    share = findings.interaction_share
    if findings.decomposition is None:
        return Estimate(value=None, unit="points", counts=share.counts, reason=share.reason)
    return Estimate(
        value=float(findings.decomposition.interaction[row, column]),
        unit="points",
        counts=share.counts,
        method="double-centred residual, includes noise",
        reason=Reason.TOO_FEW_REPLICATES if not findings.is_replicated else None,
    )


def to_json(findings: Findings) -> dict[str, Any]:
    """The content of `metrics.json`, without its checks."""
    table = findings.table
    return {
        "schema": SCHEMA,
        "source": asdict(table.source),
        "objective": {"metric": table.objective.metric, "mode": "max", "floor": known(table.objective.floor)},
        "grid": _grid(findings),
        "backbones": {name: _backbone(findings, row) for row, name in enumerate(table.backbones)},
        "optimizers": {name: _optimizer(findings, column) for column, name in enumerate(table.optimizers)},
        "cells": {cell.key: _cell(findings, index) for index, cell in enumerate(findings.cells)},
    }


def known(value: float) -> float | None:
    """JSON has no NaN: what is not known is null."""
    return float(value) if math.isfinite(value) else None


def _is_replicated(cells: tuple[CellSummary, ...]) -> bool:
    return all(cell.best.counts.n_seeds > 1 for cell in cells)


def _grid(findings: Findings) -> dict[str, Any]:
    parts = findings.decomposition
    return {
        "grand_mean": parts and parts.mean,
        "ss_backbone": parts and parts.ss_backbone,
        "ss_optimizer": parts and parts.ss_optimizer,
        "ss_interaction": parts and parts.ss_interaction,
        "interaction_share": findings.interaction_share.to_json(),
        "interaction_share_total": findings.interaction_share_total.to_json(),
        "kendall_w": findings.kendall_w.to_json(),
    }


def _backbone(findings: Findings, row: int) -> dict[str, Any]:
    values = findings.matrix[row]
    best = None if np.isnan(values).all() else findings.table.optimizers[int(np.nanargmax(values))]
    return {"mean": known(values.mean()), "best_optimizer": best}


def _optimizer(findings: Findings, column: int) -> dict[str, Any]:
    ranks = findings.ranks
    mean_rank = None if ranks is None else float(ranks.ranks[:, column].mean())
    return {"mean": known(findings.matrix[:, column].mean()), "mean_rank": mean_rank}


def _cell(findings: Findings, index: int) -> dict[str, Any]:
    cell = findings.cells[index]
    row, column = divmod(index, len(findings.table.optimizers))
    return {
        "best": cell.best.to_json(),
        "interaction": interaction_estimate(findings, row, column).to_json(),
        "counts": {str(status): cell.counts.get(status, 0) for status in TrialStatus},
    }
