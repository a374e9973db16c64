"""Who is best on each backbone and over the grid, and who is not significantly worse.

Differences from the best are compared all at once, as `matrix/best.py` says. An optimizer is significantly worse where
the interval of its difference excludes zero.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bocb_tune.analysis.answer.values import Basis, Contender, Contest, Standing
from bocb_tune.analysis.core.estimate import Counts, Estimate, Reason
from bocb_tune.analysis.findings.collect import Findings
from bocb_tune.analysis.landscape.fit import Landscape
from bocb_tune.analysis.matrix.best import half_width, satterthwaite
from bocb_tune.analysis.matrix.cells import FLOOR, FRESH_SEEDS, ONLY_POINT, CellSummary
from bocb_tune.analysis.recommend.recommendation import metric_within_bounds
from bocb_tune.core.types import Objective

SEEDS = "mean of seeds, t interval, noise of seeds moderated over cells"
MODEL = "model of the landscape at its best point"


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """Knowledge of the score of one cell or optimizer."""

    optimizer: str
    score: float
    """Points, NaN if there is none."""
    variance: float
    """Variance of `score`; NaN if not known."""
    df: float
    basis: Basis
    method: str
    counts: Counts
    fails: bool = False


def contests_of(findings: Findings) -> tuple[tuple[Contest, ...], Contest | None, tuple[str, ...]]:
    """Compare the optimizers on each backbone, and their means over the backbones on which all of them have a score.

    Returns:
        A contest a backbone; that of the means, None with fewer than two such backbones or optimizers; and these.
    """
    width, names = len(findings.table.optimizers), findings.table.backbones
    known = [_known(findings, place) for place in range(len(findings.cells))]
    rows = {name: known[row * width : (row + 1) * width] for row, name in enumerate(names)}
    contests = tuple(_contest(findings, name, cells) for name, cells in rows.items())
    complete = {name: cells for name, cells in rows.items() if all(math.isfinite(each.score) for each in cells)}
    if len(complete) < 2 or width < 2:
        return contests, None, ()
    means = [_mean(cells) for cells in zip(*complete.values(), strict=True)]
    return contests, _contest(findings, None, means), tuple(complete)


def _known(findings: Findings, place: int) -> Known:
    cell, noise = findings.cells[place], findings.grid.noise
    row, column = divmod(place, len(findings.table.optimizers))
    fails = bool(findings.grid.failed[row, column])
    is_mean = FRESH_SEEDS in cell.best.method or ONLY_POINT in cell.best.method
    model = findings.model(cell).model
    if cell.best.value is None:
        return _as_known(cell, math.nan, math.nan, 1.0, Basis.unknown, "", fails)
    if cell.best.method == FLOOR:
        return _as_known(cell, cell.value, 0.0, math.inf, Basis.floor, FLOOR, fails)
    if is_mean and noise is not None:
        df = float(noise.expected_df.ravel()[0] + noise.cell_df[row, column])
        return _as_known(cell, cell.value, float(noise.cell_variance[row, column]), df, Basis.seeds, SEEDS, fails)
    if is_mean and cell.best.lo is not None:
        count = cell.best.counts.n_seeds
        variance = cell.sd**2 / count
        return _as_known(cell, cell.value, variance, count - 1.0, Basis.seeds, cell.best.method, fails)
    if isinstance(model, Landscape):
        value = float(model.mean[model.best_node])
        return _as_known(cell, value, float(np.var(model.best_draws)), math.inf, Basis.model, MODEL, fails)
    basis = Basis.seeds if is_mean else Basis.selected
    return _as_known(cell, cell.value, math.nan, 1.0, basis, cell.best.method, fails)


def _as_known(
    cell: CellSummary, score: float, variance: float, df: float, basis: Basis, method: str, fails: bool
) -> Known:
    return Known(
        optimizer=cell.optimizer,
        score=score,
        variance=variance,
        df=df,
        basis=basis,
        method=method,
        counts=cell.best.counts,
        fails=fails,
    )


def _mean(cells: Sequence[Known]) -> Known:
    """Average one optimizer over backbones; the cells are independent."""
    variances = np.array([each.variance for each in cells])
    worst = max((each.basis for each in cells), key=list(Basis).index)
    return Known(
        optimizer=cells[0].optimizer,
        score=float(np.mean([each.score for each in cells])),
        variance=float(variances.sum()) / len(cells) ** 2,
        df=satterthwaite(variances, np.array([each.df for each in cells])),
        basis=worst,
        method=f"mean over {len(cells)} backbones",
        counts=Counts(n_seeds=sum(each.counts.n_seeds for each in cells)),
        fails=all(each.fails for each in cells),
    )


def _contest(findings: Findings, backbone: str | None, cells: Sequence[Known]) -> Contest:
    objective, tolerance = findings.table.objective, findings.tolerance
    scored = sorted((each for each in cells if math.isfinite(each.score)), key=lambda each: (each.fails, -each.score))
    missing = [each for each in cells if not math.isfinite(each.score)]
    comparisons = max(len(scored) - 1, 1)
    contenders = [_contender(each, scored[0], comparisons, objective, tolerance) for each in scored]
    tested = [each for each in contenders[1:] if each.behind.lo is not None]
    none = Estimate(value=None, unit="points", reason=Reason.TOO_FEW_COMPLETED)
    lost = [
        Contender(optimizer=each.optimizer, score=none, basis=each.basis, behind=none, standing=Standing.unknown)
        for each in missing
    ]
    return Contest(backbone=backbone, contenders=(*contenders, *lost), is_tested=len(tested) == len(contenders[1:]))


def _contender(each: Known, best: Known, comparisons: int, objective: Objective, tolerance: float) -> Contender:
    score = _with_interval(each.score, each.variance, each.df, 1, each)
    if each is best:
        behind, standing = Estimate(value=0.0, unit="points"), Standing.fails if best.fails else Standing.best
    else:
        behind = _behind(each, best, comparisons)
        standing = Standing.fails if each.fails else _standing(behind, tolerance)
    return Contender(
        optimizer=each.optimizer,
        score=metric_within_bounds(score, objective),
        basis=each.basis,
        behind=behind,
        standing=standing,
    )


def _behind(each: Known, best: Known, comparisons: int) -> Estimate:
    df = satterthwaite(np.array([best.variance, each.variance]), np.array([best.df, each.df]))
    return _with_interval(best.score - each.score, best.variance + each.variance, df, comparisons, each)


def _standing(behind: Estimate, tolerance: float) -> Standing:
    assert behind.value is not None
    if behind.lo is None:
        return Standing.near if behind.value <= tolerance else Standing.behind
    return Standing.worse if behind.lo > 0 else Standing.tied


def _with_interval(value: float, variance: float, df: float, comparisons: int, of: Known) -> Estimate:
    if not math.isfinite(variance):
        return Estimate(
            value=value, unit="points", counts=of.counts, method=of.method, reason=Reason.TOO_FEW_REPLICATES
        )
    half = half_width(variance, df, comparisons)
    return Estimate(value=value, lo=value - half, hi=value + half, unit="points", counts=of.counts, method=of.method)
