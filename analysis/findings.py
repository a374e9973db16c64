"""Everything that is computed from a table, once, for the report's sections and for `metrics.json` alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bocb_tune.analysis.cells import CellSummary, cell_matrix, summarise_cells, total_counts
from bocb_tune.analysis.concordance import Concordance
from bocb_tune.analysis.estimate import Counts, Estimate, Reason
from bocb_tune.analysis.matrix_findings import MatrixFindings, examine
from bocb_tune.analysis.metrics import COARSER
from bocb_tune.analysis.modelling import CellModel, Key, Landscapes, model_cells
from bocb_tune.analysis.patterns import RunPatterns
from bocb_tune.analysis.sensitivity import EPSILON
from bocb_tune.analysis.table import TrialTable
from bocb_tune.analysis.tuning_findings import TuningFindings, compare_landscapes, evidence_of
from bocb_tune.analysis.twoway import Decomposition, Matrix


@dataclass(frozen=True, kw_only=True)
class Findings:
    """A table and what was found in it."""

    table: TrialTable
    cells: tuple[CellSummary, ...]
    grid: MatrixFindings
    models: Mapping[Key, CellModel]
    """Landscape and metrics of every cell, by (backbone, optimizer)."""
    landscapes: Landscapes
    tuning: TuningFindings
    patterns: tuple[RunPatterns, ...] = ()
    """Of the kept checkpoints, where they were asked for."""

    @property
    def matrix(self) -> Matrix:
        """Cell values [backbones, optimizers], points, NaN where missing."""
        return self.grid.values

    @property
    def decomposition(self) -> Decomposition | None:
        return self.grid.decomposition

    @property
    def ranks(self) -> Concordance | None:
        return self.grid.ranks

    @property
    def interaction_share(self) -> Estimate:
        """SS_interaction / (SS_optimizer + SS_interaction)."""
        return self.grid.shares[0]

    @property
    def interaction_share_total(self) -> Estimate:
        """SS_interaction / SS_total."""
        return self.grid.shares[1]

    @property
    def kendall_w(self) -> Estimate:
        return self.grid.agreement

    @property
    def counts(self) -> Counts:
        """Of all cells together."""
        return total_counts(self.cells)

    @property
    def missing(self) -> tuple[str, ...]:
        """Keys of the cells without a value."""
        return tuple(cell.key for cell in self.cells if cell.best.value is None)

    @property
    def best(self) -> CellSummary | None:
        """The best cell; None if no cell has a value."""
        known = [cell for cell in self.cells if cell.best.value is not None]
        return max(known, key=lambda cell: cell.value, default=None)

    @property
    def tolerance(self) -> float:
        """Points within which settings count as equally good: the smallest that the noise of most cells allows."""
        fitted = [cell.estimates for cell in self.models.values() if cell.curve is not None]
        for epsilon in (EPSILON, *COARSER):
            seen = [each[at_tolerance("usable_decades_lr", epsilon)].reason for each in fitted]
            if 2 * seen.count(Reason.EPS_BELOW_NOISE) <= len(seen):
                return epsilon
        return COARSER[-1]

    def model(self, cell: CellSummary) -> CellModel:
        """Of one cell."""
        return self.models[cell.backbone, cell.optimizer]


def at_tolerance(key: str, epsilon: float) -> str:
    """Key of a metric at a tolerance in points."""
    return key if epsilon == EPSILON else f"{key}_at_{epsilon:g}"


def find(table: TrialTable) -> Findings:
    """Compute everything; what the data cannot say is refused with a reason."""
    cells = summarise_cells(table)
    values = cell_matrix(table, cells)
    models = model_cells(table)
    landscapes = Landscapes(models=models)
    return Findings(
        table=table,
        cells=cells,
        grid=examine(table, cells, values),
        models=models,
        landscapes=landscapes,
        tuning=compare_landscapes(evidence_of(table, cells, values, models, landscapes), models),
    )


def interaction_estimate(findings: Findings, row: int, column: int) -> Estimate:
    """Signed interaction of one cell, points."""
    parts, tests = findings.decomposition, findings.grid.cell_tests
    if parts is None:
        reason = findings.interaction_share.reason
        return Estimate(value=None, unit="points", counts=findings.counts, reason=reason)
    value = float(parts.interaction[row, column])
    known = Estimate(value=value, unit="points", counts=findings.counts, method="additive fit, includes noise")
    if value != value:
        return Estimate(value=None, unit="points", counts=findings.counts, reason=Reason.INCOMPLETE_MATRIX)
    if tests is None:
        return Estimate(
            value=value, unit="points", counts=known.counts, method=known.method, reason=Reason.TOO_FEW_REPLICATES
        )
    half = float(tests.half[row, column])
    return Estimate(
        value=value,
        lo=value - half,
        hi=value + half,
        unit="points",
        counts=findings.counts,
        method="additive fit, t interval of the pooled seeds",
    )
