"""The paper's measures of one grid, computed once for the report and for `metrics.json`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from bocb_tune.analysis.bocb.choices import DEFAULT, Choices
from bocb_tune.analysis.bocb.claims import PaperClaim
from bocb_tune.analysis.bocb.claims_of_paper import paper_claims
from bocb_tune.analysis.bocb.computation import Computation, computation_of, pareto_front
from bocb_tune.analysis.bocb.distance import MeanDistances, Steps, distances, is_grid, mean_distances, steps_of
from bocb_tune.analysis.bocb.failures import MIN_OPTIMIZERS, by_equation, by_median, refusal
from bocb_tune.analysis.bocb.planned import Planned, planned_contrasts
from bocb_tune.analysis.bocb.ranking import WeightedRanking, rank_optimizers
from bocb_tune.analysis.bocb.training_loss import LossStory, loss_story
from bocb_tune.analysis.core.arrays import Array, Flags
from bocb_tune.analysis.core.bootstrap import Refused
from bocb_tune.analysis.core.estimate import Reason
from bocb_tune.analysis.matrix.cells import CellSummary
from bocb_tune.analysis.matrix.resample import SEED
from bocb_tune.analysis.matrix.standings import spread
from bocb_tune.analysis.matrix.twoway import Matrix
from bocb_tune.analysis.sources import paper
from bocb_tune.analysis.sources.table import CELL, HYPERPARAMETERS, TrialTable
from bocb_tune.core.types import Phase

GAPS, GAP = {"paper:imagenet": 1.0}, 3.0
"""Points of Eq. 1, by published table and elsewhere."""
RANKED = "paper:cifar100"
"""Source that the paper ranks its optimizers on."""


@dataclass(frozen=True, kw_only=True)
class BocbFindings:
    """Failures, distances of settings, ranking, contrasts and training loss as arXiv:2410.06373 takes them."""

    table: TrialTable
    cells: Sequence[CellSummary]
    values: Matrix
    """Cell values [backbones, optimizers], points, NaN where missing."""
    settings: tuple[Matrix, Matrix]
    """Best learning rates and weight decays [backbones, optimizers], NaN where not known."""
    choices: Choices = DEFAULT

    @property
    def gap(self) -> float:
        """Points of Eq. 1."""
        return self.choices.gap or GAPS.get(self.table.source.name, GAP)

    @cached_property
    def failures_refused(self) -> Reason | None:
        """Reason why no failures are told by the paper's rules; None where they are."""
        return refusal(self.values, self.table.objective.is_bounded)

    @cached_property
    def by_equation(self) -> Flags:
        """Cells that fail by Eq. 1 as printed [backbones, optimizers]; none where refused."""
        refused = self.failures_refused is not None
        return np.zeros(self.values.shape, bool) if refused else by_equation(self.values, self.gap)

    @cached_property
    def by_median(self) -> Flags:
        """Cells that fail by the rule of the grey marks [backbones, optimizers]; none where refused."""
        refused = self.failures_refused is not None
        return np.zeros(self.values.shape, bool) if refused else by_median(self.values)

    @cached_property
    def steps(self) -> Steps:
        """Best settings as places."""
        return steps_of(self.settings, self._grid(), self.choices.step)

    @cached_property
    def distances(self) -> tuple[Matrix, Matrix]:
        """Distance of each cell from the mode of its backbone, and of its optimizer [backbones, optimizers], steps."""
        return distances(self.steps, 1), distances(self.steps, 0)

    @cached_property
    def mean_distances(self) -> MeanDistances:
        """Their means, by backbone and by optimizer."""
        return mean_distances(self.steps, np.random.default_rng(SEED))

    @cached_property
    def computation(self) -> Computation:
        """Computation as the run measured it."""
        return computation_of(self.table)

    @cached_property
    def cost(self) -> Array:
        """Relative computation, or the paper's rank of it on its own table [optimizers], NaN where not known."""
        if self.table.source.name != RANKED:
            return self.computation.total
        known = paper.ranking().set_index("optimizer")["computation"]
        return np.array([known[name] for name in self.table.optimizers], float)

    @cached_property
    def pareto(self) -> Flags:
        """Optimizers that no other beats in mean score and computation [optimizers]."""
        return pareto_front(self.mean_scores, self.cost)

    @property
    def mean_scores(self) -> Array:
        """Mean over the backbones that have every optimizer [optimizers], points; NaN without any."""
        whole = self.values[np.isfinite(self.values).all(axis=1)]
        return whole.mean(axis=0) if len(whole) else np.full(self.values.shape[1], np.nan)

    @cached_property
    def ranking(self) -> WeightedRanking | Refused:
        """Optimizers as Table 4 ranks them."""
        rng = np.random.default_rng(SEED)
        failed = self.by_median
        return rank_optimizers(self.values, failed, self.steps, self.cost, self.choices.weights, rng)

    @cached_property
    def contrasts(self) -> tuple[Planned, ...]:
        """Contrasts of the paper's categories and classes."""
        rng = np.random.default_rng(SEED)
        return planned_contrasts(self.values, self.table.backbones, self.table.optimizers, rng)

    @cached_property
    def loss(self) -> LossStory | Refused:
        """The grid by its training loss."""
        return loss_story(self.table, self.cells, np.random.default_rng(SEED))

    @property
    def mean_without_worst(self) -> Array:
        """Mean of each backbone without its worst cell [backbones], points; NaN where a cell is missing or few are."""
        if self.values.shape[1] < MIN_OPTIMIZERS:
            return np.full(len(self.values), np.nan)
        return spread(self.values).mean

    @cached_property
    def claims(self) -> tuple[PaperClaim, ...]:
        """The paper's claims against its tables, for those tables only."""
        return paper_claims() if self.table.source.kind == "paper" else ()

    def _grid(self) -> tuple[Array, Array] | None:
        """Find the values tried, where they are those of a grid; None for a continuous search."""
        if self.table.spaces:
            return None
        trials = self.table.trials[self.table.trials["phase"] != Phase.repeat]
        found = [(trials[name].dropna().unique(), _num_uses(trials[[*CELL, name]])) for name in HYPERPARAMETERS]
        if not all(is_grid(*each) for each in found):
            return None
        return found[0][0], found[1][0]


def _num_uses(frame: pd.DataFrame) -> int:
    """Count the pairs of a cell and a value that it tried."""
    return len(frame.dropna().drop_duplicates())
