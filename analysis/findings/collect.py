"""All findings of a table, computed once for the report's sections and for `metrics.json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from bocb_tune.analysis.bocb.choices import DEFAULT, Choices
from bocb_tune.analysis.cell.crosschecks import Importance, optuna_importances
from bocb_tune.analysis.cell.metrics import COARSER
from bocb_tune.analysis.cell.modelling import CellModel, Key, model_cells, scale_of
from bocb_tune.analysis.cell.sensitivity import EPSILON
from bocb_tune.analysis.core.arrays import Array
from bocb_tune.analysis.core.bootstrap import Refused
from bocb_tune.analysis.core.estimate import Counts, Estimate, Reason, of_metric
from bocb_tune.analysis.coupling.pretraining import Transfer, transfer
from bocb_tune.analysis.coupling.shares import fitted_interaction_shares
from bocb_tune.analysis.findings.bocb import BocbFindings
from bocb_tune.analysis.findings.matrix import MatrixFindings, examine
from bocb_tune.analysis.findings.tuning import TuningFindings, compare_landscapes, evidence_of
from bocb_tune.analysis.findings.weights import associations_of
from bocb_tune.analysis.landscape.fit import Landscape, NoLandscape
from bocb_tune.analysis.landscape.surface import Domain
from bocb_tune.analysis.matrix.cells import CellSummary, cell_matrix, summarise_cells, total_counts
from bocb_tune.analysis.matrix.concordance import Concordance
from bocb_tune.analysis.matrix.resample import SEED
from bocb_tune.analysis.matrix.twoway import MIN_SHARE_SHAPE, Decomposition, Matrix, refusal
from bocb_tune.analysis.patterns.association import Association
from bocb_tune.analysis.patterns.summary import RunPatterns
from bocb_tune.analysis.sources.table import TrialTable
from bocb_tune.analysis.tuning.drift import (
    Drift,
    LrVariance,
    drift,
    drift_of_cells,
    is_enough,
    lr_variance,
    modal_setting,
)
from bocb_tune.analysis.tuning.refining import Refining, refining_of
from bocb_tune.analysis.tuning.searches import CellSearch, searches_of
from bocb_tune.core.types import Objective

SCORES = ("expected_score",)
"""Keys of those metrics of a cell that are a score rather than a difference of scores."""


@dataclass(frozen=True, kw_only=True)
class Findings:
    """A table and the findings from it."""

    table: TrialTable
    cells: tuple[CellSummary, ...]
    grid: MatrixFindings
    models: Mapping[Key, CellModel]
    """Landscape and metrics of every cell, by (backbone, optimizer)."""
    landscapes: Mapping[Key, Landscape | NoLandscape]
    tuning: TuningFindings
    choices: Choices = DEFAULT
    patterns: tuple[RunPatterns, ...] = ()
    """Patterns in the kept checkpoints, if requested."""
    pattern_notes: tuple[str, ...] = ()
    """Missing patterns, and why they are missing."""

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
        return self._shares[0]

    @property
    def interaction_share_total(self) -> Estimate:
        """SS_interaction / SS_total."""
        return self._shares[1]

    @cached_property
    def _shares(self) -> tuple[Estimate, Estimate]:
        """Shares from the landscapes if most cells have one that is precise enough, else from the cell values."""
        draws = self._best_draws()
        fitted = None if draws is None else fitted_interaction_shares(draws)
        return self.grid.shares if fitted is None or fitted[0].value is None else fitted

    def _best_draws(self) -> Array | None:
        """Draw each cell's score at its optimum [draws, backbones, optimizers]; without a landscape, from its seeds.

        Returns None if few cells have a landscape, or if seeds are needed but were not repeated.
        """
        models = [self.model(cell).model for cell in self.cells]
        fitted = {place: model.best_draws for place, model in enumerate(models) if isinstance(model, Landscape)}
        noise = self.grid.noise
        if 2 * len(fitted) <= len(models) or (noise is None and len(fitted) < len(models)):
            return None
        sd = 0.0 if noise is None else np.sqrt(noise.cell_variance.ravel())
        size = (len(next(iter(fitted.values()))), len(models))
        draws = self.matrix.ravel() + sd * np.random.default_rng(SEED).standard_normal(size)
        for place, known in fitted.items():
            draws[:, place] = known
        return draws.reshape(-1, *self.matrix.shape)

    @property
    def kendall_w(self) -> Estimate:
        return self.grid.agreement

    @cached_property
    def counts(self) -> Counts:
        """Counts of all cells together."""
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

    @cached_property
    def tolerance(self) -> float:
        """Points within which settings count as equally good, everywhere in a report."""
        return tolerance_of(self.models, self.table.objective)

    @cached_property
    def importances(self) -> Mapping[Key, Mapping[str, Importance]]:
        """Importances by Optuna's evaluators on completed trials, by cell and evaluator: cross-checks."""
        searched = {o: dims for o, dims in self.table.spaces.items() if "weight_decay" in dims}
        domains = {o: Domain.of(dims["lr"], dims["weight_decay"]) for o, dims in searched.items()}
        found = optuna_importances((cell.trials, domains.get(o)) for (_, o), cell in self.models.items())
        return dict(zip(self.models, found, strict=True))

    @cached_property
    def searches(self) -> Mapping[Key, CellSearch]:
        """Results of the search of each cell."""
        return searches_of(self.table.trials, self.cells, self.models, scale_of(self.table).floor)

    @cached_property
    def transfer(self) -> Transfer:
        """Comparison of the optimizers of pre-training and fine-tuning."""
        table = self.table
        return transfer(self.matrix, self.grid.noise, table.backbones, table.optimizers, table.pretrainings)

    @cached_property
    def refining(self) -> Refining:
        """Gain of refining the optimizers' own hyper-parameters."""
        return refining_of(self.table, self.cells)

    @cached_property
    def associations(self) -> tuple[Association, ...]:
        """Rank correlations of patterns in the trained weights with measures of their cells."""
        decades = at_tolerance("usable_decades_lr", self.tolerance)
        names = self.table.backbones, self.table.optimizers
        return associations_of(self.patterns, names, self.models, decades, self.grid.verdict.viability.values)

    @cached_property
    def drifts(self) -> Mapping[str, Drift]:
        """Distances between the best settings, by optimizer: of landscapes from the best common setting; without any,
        of the best trials from the most frequent setting."""
        backbones, evidence = self.table.backbones, self.tuning.evidence
        found = {o: each.drift for o, each in self.tuning.optimizers.items() if not isinstance(each.drift, Refused)}
        if evidence.curves:
            return {name: drift_of_cells(cells, backbones) for name, cells in found.items()}
        pairs = zip(evidence.optimizers, evidence.lr.T, evidence.weight_decay.T, strict=True)
        return {name: drift(lr, wd, modal_setting(lr, wd)) for name, lr, wd in pairs if is_enough(lr, wd)}

    @cached_property
    def bocb(self) -> BocbFindings:
        """The measures of the paper."""
        evidence = self.tuning.evidence
        return BocbFindings(
            table=self.table,
            cells=self.cells,
            values=self.matrix,
            settings=(evidence.lr, evidence.weight_decay),
            choices=self.choices,
        )

    @cached_property
    def lr_variance(self) -> LrVariance | None:
        """Factors that the best learning rate depends on, over the backbones that have one with every optimizer."""
        shape = (len(self.table.backbones), len(self.table.optimizers))
        stars = [self.model(cell).estimates["lr_star"].value for cell in self.cells]
        lr = np.array(stars, dtype=float).reshape(shape) if self.tuning.evidence.curves else self.tuning.evidence.lr
        lr = lr[np.isfinite(lr).all(axis=1)]
        return lr_variance(lr) if refusal(lr, MIN_SHARE_SHAPE) is None and np.ptp(np.log10(lr)) > 0 else None

    def stated(self, backbone: str, optimizer: str) -> Mapping[str, Estimate]:
        """Return the metrics of a cell by key, with scores converted to the metric they are made of."""
        found, objective = self.models[backbone, optimizer].estimates, self.table.objective
        return {key: of_metric(each, objective) if key in SCORES else each for key, each in found.items()}

    def model(self, cell: CellSummary) -> CellModel:
        """Return the model of one cell."""
        return self.models[cell.backbone, cell.optimizer]


def tolerance_of(models: Mapping[Key, CellModel], objective: Objective) -> float:
    """Choose the smallest tolerance, from the objective's upwards, that the noise of most cells allows, in points."""
    fitted = [cell.estimates for cell in models.values() if cell.curve is not None]
    for epsilon in (each for each in (EPSILON, *COARSER) if each >= objective.tolerance):
        seen = [each[at_tolerance("usable_decades_lr", epsilon)].reason for each in fitted]
        if 2 * seen.count(Reason.EPS_BELOW_NOISE) <= len(seen):
            return epsilon
    return COARSER[-1]


def at_tolerance(key: str, epsilon: float) -> str:
    """Build the key of a metric at a tolerance in points."""
    return key if epsilon == EPSILON else f"{key}_at_{epsilon:g}"


def find(table: TrialTable, cache: Path | None = None, choices: Choices = DEFAULT) -> Findings:
    """Compute all findings; those that the data cannot support are refused with a reason.

    Args:
        table: trials of a grid.
        cache: folder where slow results are kept from one analysis to the next.
        choices: numbers that the paper's measures leave open.
    """
    cells = summarise_cells(table)
    values = cell_matrix(table, cells)
    models = model_cells(table, cache)
    landscapes = {key: cell.model for key, cell in models.items()}
    grid = examine(table, cells, values)
    tolerance = tolerance_of(models, table.objective)
    evidence = evidence_of(table, cells, values, models, landscapes, grid.noise, tolerance)
    return Findings(
        table=table,
        cells=cells,
        grid=grid,
        choices=choices,
        models=models,
        landscapes=landscapes,
        tuning=compare_landscapes(evidence, models),
    )


def interaction_estimate(findings: Findings, row: int, column: int) -> Estimate:
    """Estimate the signed interaction of one cell, points."""
    parts, width = findings.decomposition, findings.grid.half_width
    if parts is None:
        reason = findings.interaction_share.reason
        return Estimate(value=None, unit="points", counts=findings.counts, reason=reason)
    value = float(parts.interaction[row, column])
    known = Estimate(value=value, unit="points", counts=findings.counts, method="additive fit, includes noise")
    if value != value:
        return Estimate(value=None, unit="points", counts=findings.counts, reason=Reason.INCOMPLETE_MATRIX)
    if width is None:
        return Estimate(
            value=value, unit="points", counts=known.counts, method=known.method, reason=Reason.TOO_FEW_REPLICATES
        )
    half = float(width[row, column])
    return Estimate(
        value=value,
        lo=value - half,
        hi=value + half,
        unit="points",
        counts=findings.counts,
        method="additive fit, t interval, noise by cell",
    )
