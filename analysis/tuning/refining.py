"""Gain of refining an optimizer's own hyper-parameters over the best learning rate and weight decay of each cell.

Both settings were chosen by their scores, the best one out of many more trials than the refined one, so that neither
score says which is better. Both were then trained with the same fresh seeds: the gain is the mean of the differences.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from bocb_tune.analysis.cell.modelling import Key
from bocb_tune.analysis.core.arrays import Array
from bocb_tune.analysis.core.estimate import Counts, Estimate, Reason
from bocb_tune.analysis.core.intervals import mean_interval
from bocb_tune.analysis.matrix.best import half_width, satterthwaite
from bocb_tune.analysis.matrix.cells import MIN_SEEDS_FOR_INTERVAL, CellSummary, at_full_budget
from bocb_tune.analysis.matrix.noise import seed_noise
from bocb_tune.analysis.sources.table import CELL, TrialTable
from bocb_tune.core.types import Phase, TrialStatus

PAIRED = "mean difference of fresh seeds that both settings were trained with"
MIN_BACKBONES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Refined:
    """Outcome of refining one cell."""

    trials: int = 0
    """Refine trials at the best point."""
    own: Mapping[str, float] = field(default_factory=dict)
    """The optimizer's own hyper-parameters of the best of them at full budget; empty if none got there."""
    gain: Estimate
    """Points over the best point."""

    @property
    def gains(self) -> bool:
        """Whether the whole interval lies above 0."""
        return self.gain.lo is not None and self.gain.lo > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Refining:
    """Gain of refining, by cell, by optimizer, and on the whole grid."""

    cells: Mapping[Key, Refined]
    optimizers: Mapping[str, Estimate]
    """Mean over the optimizer's cells."""
    grid: Estimate
    """Mean over all cells that were refined: of these cells, and no others."""
    over_backbones: Estimate
    """Mean over backbones of the means of their cells: of backbones like these."""

    @property
    def calls(self) -> int:
        """Cells that are called a gain."""
        return sum(each.gains for each in self.cells.values())


def refining_of(table: TrialTable, cells: Sequence[CellSummary]) -> Refining:
    """Compare the refined best of each cell with its best point.

    Args:
        table: with its refined trials, which may be none.
        cells: those of the table, backbones by optimizers.
    """
    full = table.trials["max_budget"].max()
    plain, refined = (_by_cell(frame, full, table.objective.floor) for frame in (table.trials, table.refined))
    found = {(c.backbone, c.optimizer): _pairs(c, plain, refined) for c in cells}
    differences = {key: pairs for key, (_, _, pairs) in found.items()}
    errors = _errors(differences, (len(table.backbones), len(table.optimizers)))
    refined_cells = {
        key: Refined(trials=trials, own=own, gain=_gain(trials, pairs, *errors[key]))
        for key, (trials, own, pairs) in found.items()
    }
    optimizers = {name: _mean([k for k in found if k[1] == name], refined_cells, errors) for name in table.optimizers}
    return Refining(
        cells=refined_cells,
        optimizers=optimizers,
        grid=_mean(list(found), refined_cells, errors),
        over_backbones=_over_backbones(table.backbones, refined_cells),
    )


def _by_cell(frame: pd.DataFrame, full: float, floor: float) -> Mapping[Key, pd.DataFrame]:
    """Group trials at full budget by cell, a diverged one scoring the floor."""
    whole = frame[at_full_budget(frame, full)]
    diverged = whole["status"] == TrialStatus.diverged
    ended = whole.assign(score=whole["score"].mask(diverged, floor))
    return {(str(b), str(o)): group for (b, o), group in ended.groupby(CELL)}


def _pairs(
    cell: CellSummary, plain: Mapping[Key, pd.DataFrame], refined: Mapping[Key, pd.DataFrame]
) -> tuple[int, dict[str, float], Array]:
    """Count the refine trials at the best point; take the own values of the best and differences of seeds [seeds]."""
    key, none = (cell.backbone, cell.optimizer), np.empty(0)
    if key not in refined or key not in plain:
        return 0, {}, none
    there, best = (_at(cell, rows[key]) for rows in (refined, plain))
    tried = there[there["phase"] == Phase.refine]
    completed = tried[tried["status"] == TrialStatus.completed]
    if completed.empty:
        return len(tried), {}, none
    own = str(completed["own"].iloc[int(completed["score"].argmax())])
    sides = [_fresh(best), _fresh(there[there["own"] == own])]
    paired = pd.concat(sides, axis=1, join="inner").to_numpy(float)
    return len(tried), json.loads(own), paired[:, 1] - paired[:, 0]


def _at(cell: CellSummary, rows: pd.DataFrame) -> pd.DataFrame:
    return rows[(rows["lr"] == cell.lr) & (rows["weight_decay"] == cell.weight_decay)]


def _fresh(rows: pd.DataFrame) -> pd.Series[float]:
    """Collect the scores of repeats by seed."""
    ended = rows["status"].isin([TrialStatus.completed, TrialStatus.diverged])
    return rows[(rows["phase"] == Phase.repeat) & ended].drop_duplicates("seed").set_index("seed")["score"].dropna()


def _errors(differences: Mapping[Key, Array], shape: tuple[int, int]) -> dict[Key, tuple[float, float]]:
    """Estimate the variance of each cell's mean difference and its degrees of freedom; NaN where it is not known.

    Each cell's own variance is moderated by those of the others, as the noise of cell values is.
    """
    own = np.array([np.var(each, ddof=1) if len(each) > 1 else 0.0 for each in differences.values()]).reshape(shape)
    seeds = np.array([len(each) for each in differences.values()]).reshape(shape)
    noise = seed_noise(own, seeds)
    if noise is None:
        return {key: _alone(each) for key, each in differences.items()}
    variance, df = noise.cell_variance, noise.expected_df + noise.cell_df
    return dict(zip(differences, zip(variance.ravel().tolist(), df.ravel().tolist(), strict=True), strict=True))


def _alone(differences: Array) -> tuple[float, float]:
    n = len(differences)
    known = n >= MIN_SEEDS_FOR_INTERVAL and np.ptp(differences) > 0
    return (float(np.var(differences, ddof=1)) / n, n - 1.0) if known else (math.nan, math.nan)


def _gain(trials: int, pairs: Array, variance: float, df: float) -> Estimate:
    counts = Counts(n_trials=trials, n_seeds=len(pairs))
    if not trials:
        return Estimate(value=None, unit="points", counts=counts, reason=Reason.NOT_REFINED)
    if not len(pairs):
        return Estimate(value=None, unit="points", counts=counts, reason=Reason.TOO_FEW_REPLICATES)
    return _known(float(np.mean(pairs)), half_width(variance, df) if variance >= 0 else math.nan, counts, PAIRED)


def _mean(keys: Sequence[Key], cells: Mapping[Key, Refined], errors: Mapping[Key, tuple[float, float]]) -> Estimate:
    """Estimate the mean gain of these cells, from the noise of their seeds; cells are taken as independent."""
    known = [key for key in keys if cells[key].gain.value is not None]
    counts = _counted(cells[key] for key in keys)
    if not known:
        reasons = [cells[key].gain.reason for key in keys if cells[key].gain.reason != Reason.NOT_REFINED]
        reason = reasons[0] if reasons else Reason.NOT_REFINED
        return Estimate(value=None, unit="points", counts=counts, reason=reason)
    variances, df = np.array([errors[key] for key in known]).T
    variances = variances / len(known) ** 2
    half = (
        half_width(float(variances.sum()), satterthwaite(variances, df)) if np.isfinite(variances).all() else math.nan
    )
    method = f"mean of {len(known)} cells, of {len(keys)}; interval from their seeds"
    return _known(float(np.mean([cells[key].gain.value for key in known])), half, counts, method)


def _over_backbones(backbones: Sequence[str], cells: Mapping[Key, Refined]) -> Estimate:
    """Estimate the mean of the backbones' mean gains, with Student's t interval over backbones."""
    rows = [
        [c.gain.value for (b, _), c in cells.items() if b == name and c.gain.value is not None] for name in backbones
    ]
    means = [float(np.mean(row)) for row in rows if row]
    counts = _counted(cells.values())
    if len(means) < MIN_BACKBONES:
        reason = Reason.TOO_FEW_BACKBONES if counts.n_trials else Reason.NOT_REFINED
        return Estimate(value=None, unit="points", counts=counts, reason=reason)
    lo, hi = mean_interval(np.array(means))
    method = f"Student's t over {len(means)} backbones"
    return Estimate(value=float(np.mean(means)), lo=lo, hi=hi, unit="points", counts=counts, method=method)


def _counted(cells: Iterable[Refined]) -> Counts:
    each = [cell.gain.counts for cell in cells]
    return Counts(n_trials=sum(c.n_trials for c in each), n_seeds=sum(c.n_seeds for c in each))


def _known(value: float, half: float, counts: Counts, method: str) -> Estimate:
    known = Estimate(value=value, unit="points", counts=counts, method=method)
    if math.isnan(half):
        return replace(known, reason=Reason.TOO_FEW_REPLICATES)
    return replace(known, lo=value - half, hi=value + half)
