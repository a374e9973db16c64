"""Findings from all landscapes together: value of trials, transfer between backbones, recommendations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from bocb_tune.analysis.cell.modelling import CellModel, Key
from bocb_tune.analysis.cell.sensitivity import EPSILON
from bocb_tune.analysis.cell.tuning_curves import TuningCurve
from bocb_tune.analysis.core.arrays import Flags
from bocb_tune.analysis.core.bootstrap import Refused
from bocb_tune.analysis.core.parallel import spread
from bocb_tune.analysis.landscape.fit import Landscape, NoLandscape
from bocb_tune.analysis.matrix.best import worse_than_best
from bocb_tune.analysis.matrix.cells import FRESH_SEEDS, CellSummary, total_counts
from bocb_tune.analysis.matrix.noise import Noise
from bocb_tune.analysis.matrix.resample import SEED
from bocb_tune.analysis.matrix.twoway import Matrix
from bocb_tune.analysis.recommend.backbone import recommend
from bocb_tune.analysis.recommend.general import recommend_general
from bocb_tune.analysis.recommend.recommendation import Evidence, General, Recommendation
from bocb_tune.analysis.sources.costs import cost_per_trial
from bocb_tune.analysis.sources.table import TrialTable
from bocb_tune.analysis.tuning.budget_ranks import BudgetRanks, budget_ranks
from bocb_tune.analysis.tuning.drift import CellDrift, landscape_drift
from bocb_tune.analysis.tuning.settings import common_default, held_out_defaults
from bocb_tune.analysis.tuning.transfer import TransferRegret, transfer
from bocb_tune.analysis.tuning.tunability import Dimension, Tunability, effective_dimension, tunability

FEWEST_PARALLEL = 10
"""Least number of optimizers for which other processes are started: fewer are done before those would be ready."""
TRIALS = 16
"""Default number of trials of a recommendation."""


@dataclass(frozen=True, kw_only=True)
class OptimizerFindings:
    """Findings on one optimizer over the backbones."""

    transfer: TransferRegret | Refused
    tunability: Tunability | Refused
    """Tunability against the best common setting of the other backbones."""
    dimension: Dimension | Refused
    drift: Mapping[str, CellDrift] | Refused
    """Drift by backbone, from the best common setting."""


@dataclass(frozen=True, kw_only=True)
class TuningFindings:
    """Findings on the landscapes of one grid."""

    evidence: Evidence
    ranks: BudgetRanks | Refused
    optimizers: Mapping[str, OptimizerFindings]

    @cached_property
    def general(self) -> General:
        """Recommendation for a backbone like those of the grid."""
        return recommend_general(self.evidence, TRIALS, np.random.default_rng(SEED))

    @cached_property
    def per_backbone(self) -> Mapping[str, Recommendation]:
        """Recommendation for each backbone."""
        names = self.evidence.backbones
        return {name: recommend(self.evidence, name, TRIALS, np.random.default_rng(SEED)) for name in names}


def evidence_of(
    table: TrialTable,
    cells: tuple[CellSummary, ...],
    values: Matrix,
    models: Mapping[Key, CellModel],
    landscapes: Mapping[Key, Landscape | NoLandscape],
    noise: Noise | None = None,
    tolerance: float = EPSILON,
) -> Evidence:
    """Gather the evidence for recommendations."""
    fresh = np.array([FRESH_SEEDS in cell.best.method for cell in cells]).reshape(values.shape)
    lr, decay = (np.array([getattr(c, name) for c in cells]).reshape(values.shape) for name in ("lr", "weight_decay"))
    return Evidence(
        backbones=table.backbones,
        optimizers=table.optimizers,
        scores=values,
        sd=None if noise is None else np.where(fresh, np.sqrt(noise.cell_variance), np.nan),
        worse=None if noise is None else _worse(values, noise, fresh),
        lr=lr,
        weight_decay=decay,
        landscapes=landscapes,
        curves={key: cell.curve for key, cell in models.items() if cell.curve is not None},
        counts=total_counts(cells),
        tolerance=tolerance,
        costs=cost_per_trial(table),
    )


def _worse(values: Matrix, noise: Noise, fresh: Flags) -> Flags:
    """Find the cells that fresh seeds show to be worse than the best of their backbone."""
    variance = np.where(fresh, noise.cell_variance, np.nan)
    df = noise.expected_df + noise.cell_df
    return np.array([worse_than_best(*line) for line in zip(values, variance, df, strict=True)])


def compare_landscapes(evidence: Evidence, models: Mapping[Key, CellModel]) -> TuningFindings:
    """Compute all findings that need several landscapes."""
    curves: dict[Key, TuningCurve | NoLandscape] = {}
    for key, cell in models.items():
        if cell.curve is not None:
            curves[key] = cell.curve
        elif isinstance(cell.model, NoLandscape):
            curves[key] = cell.model
    tuned = _best_of_each_backbone(models)
    parts = {name: (evidence.of_optimizer(name), tuned, evidence.tolerance) for name in evidence.optimizers}
    slow = {name: part for name, part in parts.items() if len(part[0]) > 1}
    found = dict(zip(slow, spread(_optimizer, list(slow.values()), fewest=FEWEST_PARALLEL), strict=True))
    return TuningFindings(
        evidence=evidence,
        ranks=budget_ranks(curves, np.random.default_rng(SEED)),
        optimizers={name: found[name] if name in found else _optimizer(part) for name, part in parts.items()},
    )


def _best_of_each_backbone(models: Mapping[Key, CellModel]) -> dict[str, float]:
    """Find the expected score at the best point of the best optimizer, by backbone."""
    best: dict[str, float] = {}
    for (backbone, _), cell in models.items():
        value = cell.estimates["expected_score"].value
        if value is not None:
            best[backbone] = max(value, best.get(backbone, value))
    return best


def _optimizer(part: tuple[dict[str, Landscape], Mapping[str, float], float]) -> OptimizerFindings:
    """Compute the findings on one optimizer.

    Args:
        part: its landscapes, the best score of any optimizer, both by backbone, and the tolerance in points.
    """
    cells, tuned, tolerance = part
    rng = np.random.default_rng(SEED)
    carried = transfer(cells, rng, tolerance)
    gain = tunability(cells, held_out_defaults, rng)
    return OptimizerFindings(
        transfer=carried,
        tunability=gain,
        dimension=gain if isinstance(gain, Refused) else effective_dimension(cells, tuned, tolerance),
        drift=gain if isinstance(gain, Refused) else landscape_drift(cells, common_default(cells), tolerance),
    )
