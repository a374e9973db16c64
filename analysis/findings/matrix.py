"""Findings from the matrix of cell values: coupling, failures, order of the optimizers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from bocb_tune.analysis.core.arrays import Flags
from bocb_tune.analysis.core.estimate import Estimate, Reason
from bocb_tune.analysis.coupling.claims import Claim, claims
from bocb_tune.analysis.coupling.failures import part_failures
from bocb_tune.analysis.coupling.shares import Lines, coupling_indices, interaction_half_width, interaction_shares
from bocb_tune.analysis.coupling.structure import Version, generalisation, leave_one_out, null_singular_share, versions
from bocb_tune.analysis.coupling.verdict import CouplingVerdict, judge
from bocb_tune.analysis.coupling.viable import DELTA, Polish, led_by_failures, median_polish, viable_coupling
from bocb_tune.analysis.matrix.cells import CellSummary
from bocb_tune.analysis.matrix.concordance import (
    MIN_CONCORDANCE_SHAPE,
    ClassAgreement,
    Concordance,
    agreement,
    agreement_by_class,
    concordance,
    critical_difference,
    true_agreement,
    with_failures,
)
from bocb_tune.analysis.matrix.contrasts import Contrast, sgd_on_classical
from bocb_tune.analysis.matrix.noise import Noise, seed_noise
from bocb_tune.analysis.matrix.resample import SEED
from bocb_tune.analysis.matrix.standings import num_near_best, regret, spread, top
from bocb_tune.analysis.matrix.twoway import Decomposition, Matrix, decompose, fit_refusal, refusal
from bocb_tune.analysis.names.look import backbone_class
from bocb_tune.analysis.sources.table import TrialTable
from bocb_tune.core.types import TrialStatus

PAPER = "paper:cifar100"
MIN_SPREAD = 4
"""Least number of optimizers for a spread without the worst."""


@dataclass(frozen=True, kw_only=True)
class MatrixFindings:
    """Findings on one matrix [backbones, optimizers]; None where they need a complete or connected one."""

    values: Matrix
    """Points, NaN where a cell has no value."""
    noise: Noise | None
    """Noise of all cells; None without repeated seeds."""
    verdict: CouplingVerdict
    """Failures, and interaction among the other cells."""
    decomposition: Decomposition | None
    shares: tuple[Estimate, Estimate]
    """Interaction as a share of the optimizer's effect, and of all variation, failures included."""
    half_width: Matrix | None
    """Half width of the 95 % interval of each interaction [backbones, optimizers]; None without repeated seeds."""
    coupling: Lines
    viable: Lines
    led_by_failures: bool
    polish: Polish | None
    versions: tuple[Version, ...]
    null_singular_share: float | None
    """Share of the first singular direction that Gaussian noise of this shape stays below in 95 % of cases; None for
    fewer than four backbones or optimizers, where noise has hardly any other direction."""
    share_without: tuple[Matrix, Matrix] | None
    """Plug-in share of the optimizer's effect without each backbone [backbones], without each optimizer [optimizers];
    None unless three of each are left."""
    generalisation: Estimate
    agreement: Estimate
    """Kendall's W of the observed order."""
    true_agreement: Estimate
    """Kendall's W of the order without seed noise."""
    true_mean_ranks: Matrix | None
    """Draws of each optimizer's mean rank without seed noise [draws, optimizers]; None without repeated seeds."""
    ranks: Concordance | None
    classes: dict[str, ClassAgreement]
    critical_difference: float | None
    contrast: Contrast | Reason
    claims: tuple[Claim, ...]
    """Checks of the paper's own conclusions, for its own table only."""

    @property
    def failed(self) -> Flags:
        """[backbones, optimizers]"""
        return self.verdict.viability.is_failed

    @property
    def mean_rank(self) -> Matrix | None:
        """[optimizers]"""
        return None if self.ranks is None else np.asarray(self.ranks.ranks.mean(axis=0))

    @property
    def regret(self) -> Matrix:
        """[backbones, optimizers], NaN where unknown; empty for a grid with an incomplete row."""
        return regret(self.values)

    @property
    def top(self) -> Flags:
        """Whether an optimizer is among the four best of its backbone [backbones, optimizers]."""
        return top(self.values)

    def near_best(self, within: float) -> Matrix:
        """Count the optimizers within so many points of a backbone's best [backbones], the best included."""
        return num_near_best(self.values, within)

    def spread_without_worst(self) -> tuple[Matrix, Matrix]:
        """Compute sd and range of each backbone without its worst cell [backbones].

        NaN where a cell is missing or there are few optimizers.
        """
        if self.values.shape[1] < MIN_SPREAD:
            return np.full(len(self.values), np.nan), np.full(len(self.values), np.nan)
        found = spread(self.values)
        return found.sd, found.range


def examine(table: TrialTable, cells: tuple[CellSummary, ...], values: Matrix) -> MatrixFindings:
    """Compute all findings on the matrix of cell values."""
    rng = np.random.default_rng(SEED)
    noise, verdict = _noise(cells, values), _verdict(table, cells, values)
    viable_values, viable_noise = verdict.viability.values, verdict.viability.noise
    parts = None if fit_refusal(values) else decompose(values)
    complete = bool(np.isfinite(values).all())
    ranked = not refusal(values, MIN_CONCORDANCE_SHAPE)
    true_values = with_failures(values, noise, verdict.draws, rng) if ranked and noise else None
    coupling = coupling_indices(values, noise)
    viable = viable_coupling(viable_values, verdict.viability.is_failed, viable_noise)
    classes = tuple(backbone_class(name) for name in table.backbones)
    full, large = (complete and min(values.shape) >= least for least in (3, 4))
    return MatrixFindings(
        values=values,
        noise=noise,
        decomposition=parts,
        shares=interaction_shares(values, noise, rng),
        verdict=verdict,
        half_width=interaction_half_width(np.isfinite(values), noise) if parts and noise else None,
        coupling=coupling,
        viable=viable,
        led_by_failures=led_by_failures(coupling[0], viable[0]),
        polish=median_polish(values) if large else None,
        versions=versions(values, table.objective.unit == "points") if full else (),
        null_singular_share=null_singular_share(values.shape, np.random.default_rng(SEED)) if large else None,
        share_without=leave_one_out(values) if large else None,
        generalisation=generalisation(values, rng),
        agreement=agreement(values, rng),
        true_agreement=true_agreement(values, true_values, rng),
        true_mean_ranks=None if true_values is None else rankdata(-true_values, axis=2).mean(axis=1),
        ranks=concordance(values) if ranked else None,
        classes=agreement_by_class(values, classes, rng) if ranked and len(set(classes)) > 1 else {},
        critical_difference=critical_difference(*values.shape) if ranked else None,
        contrast=sgd_on_classical(values, table.backbones, table.optimizers, rng),
        claims=claims(values, table.backbones, table.optimizers, rng) if table.source.name == PAPER else (),
    )


def _noise(cells: tuple[CellSummary, ...], values: Matrix) -> Noise | None:
    """Estimate the noise of all cells; one at the floor because all of its trials diverged counts as one run."""
    sd = np.array([cell.sd for cell in cells]).reshape(values.shape)
    seeds = np.array([cell.best.counts.n_seeds for cell in cells]).reshape(values.shape)
    return seed_noise(sd**2, np.where(np.isfinite(values), np.maximum(seeds, 1), 0))


def _verdict(table: TrialTable, cells: tuple[CellSummary, ...], values: Matrix) -> CouplingVerdict:
    backbones, optimizers = names = table.backbones, table.optimizers
    width = len(optimizers)
    scores = [[cell.scores for cell in cells[row * width : (row + 1) * width]] for row in range(len(backbones))]
    delta = DELTA if table.objective.unit == "points" else np.inf
    viability = part_failures(
        scores,
        values,
        _all_diverged(cells, values),
        names,
        floor=table.objective.floor,
        delta=delta,
        num_images=table.num_images,
    )
    return judge(viability, names, np.random.default_rng(SEED))


def _all_diverged(cells: tuple[CellSummary, ...], values: Matrix) -> Flags:
    only = [set(cell.counts) == {TrialStatus.diverged} for cell in cells]
    return np.array(only, dtype=bool).reshape(values.shape)
