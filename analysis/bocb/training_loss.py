"""Whether the training loss tells the story that the validation score tells: the same decomposition on it.

The loss of a cell is the mean over the trials that its score is the mean of, of minus log10 of the last mean training
loss, so that more is better and losses of different recipes (label smoothing, mixed images) differ by a shift that the
backbone's effect takes up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from bocb_tune.analysis.core import bootstrap as drawn
from bocb_tune.analysis.core.bootstrap import Refused
from bocb_tune.analysis.core.estimate import Estimate, Reason
from bocb_tune.analysis.coupling.shares import interaction_shares
from bocb_tune.analysis.matrix.cells import CellSummary
from bocb_tune.analysis.matrix.noise import seed_noise
from bocb_tune.analysis.matrix.twoway import Matrix
from bocb_tune.analysis.sources.table import CELL, TrialTable
from bocb_tune.core.types import Phase, TrialStatus

MIN_OPTIMIZERS = 3
"""Optimizers of a backbone with both numbers, below which their order is not compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LossStory:
    """The grid by its final training loss, beside its score."""

    values: Matrix
    """Minus log10 of the final training loss [backbones, optimizers], NaN where not known."""
    share: Estimate
    """Interaction as a share of the optimizer's effect on it."""
    agreement: Estimate
    """Mean over backbones of Spearman's correlation of score and loss over the optimizers."""
    best_alike: tuple[int, int]
    """Backbones whose best optimizer is the same by both, of how many."""


def loss_story(table: TrialTable, cells: Sequence[CellSummary], rng: np.random.Generator) -> LossStory | Refused:
    """Split the final training loss of a grid, and compare its order with that of the scores."""
    trials = table.trials
    if not (trials["train_loss"] > 0).any():
        return Refused(reason=Reason.NOT_MEASURED, detail="")
    shape = (len(table.backbones), len(table.optimizers))
    by_cell = dict(iter(_at_best(trials, cells).groupby(CELL, sort=False)["loss"]))
    runs = [by_cell.get((cell.backbone, cell.optimizer), pd.Series(dtype=float)).to_numpy() for cell in cells]
    values = np.array([each.mean() if len(each) else np.nan for each in runs]).reshape(shape)
    seeds = np.array([len(each) for each in runs], float).reshape(shape)
    variance = np.array([each.var(ddof=1) if len(each) > 1 else 0.0 for each in runs]).reshape(shape)
    share, _ = interaction_shares(values, seed_noise(variance, seeds), rng)
    scores = np.array([cell.value for cell in cells]).reshape(shape)
    return LossStory(
        values=values, share=share, agreement=_agreement(scores, values, rng), best_alike=_best_alike(scores, values)
    )


def _at_best(trials: pd.DataFrame, cells: Sequence[CellSummary]) -> pd.DataFrame:
    """Keep the completed trials at the best point of each cell: its repeats, or the trials that selected it."""
    best = pd.DataFrame([(c.backbone, c.optimizer, c.lr, c.weight_decay) for c in cells], columns=[*CELL, *_SETTING])
    done = trials[(trials["status"] == TrialStatus.completed) & (trials["train_loss"] > 0)]
    found = done.merge(best, on=[*CELL, *_SETTING])
    repeated = (found["phase"] == Phase.repeat).groupby([found[name] for name in CELL]).transform("any")
    found = found[~repeated | (found["phase"] == Phase.repeat)]
    return found.assign(loss=-np.log10(found["train_loss"].to_numpy(float)))


_SETTING = ["lr", "weight_decay"]


def _agreement(scores: Matrix, losses: Matrix, rng: np.random.Generator) -> Estimate:
    """Average the rank correlation of both over backbones; interval by resampling them."""
    each = np.array([_spearman(*pair) for pair in zip(scores, losses, strict=True)])
    known = each[np.isfinite(each)]
    if not len(known):
        return Estimate(value=None, reason=Reason.TOO_FEW_OPTIMIZERS)
    method = f"mean of {len(known)} backbones"
    if len(known) < MIN_OPTIMIZERS:
        return Estimate(value=float(known.mean()), method=method, reason=Reason.TOO_FEW_BACKBONES)
    means = drawn.resampled_backbones(len(known), rng) @ known / len(known)
    lo, hi = drawn.ends(means)
    return Estimate(value=float(known.mean()), lo=lo, hi=hi, method=f"{method}, bootstrap over them")


def _spearman(score: Matrix, loss: Matrix) -> float:
    known = np.isfinite(score + loss)
    if known.sum() < MIN_OPTIMIZERS or np.ptp(score[known]) == 0 or np.ptp(loss[known]) == 0:
        return float("nan")
    return float(np.corrcoef(rankdata(score[known]), rankdata(loss[known]))[0, 1])


def _best_alike(scores: Matrix, losses: Matrix) -> tuple[int, int]:
    known = [(s, v) for s, v in zip(scores, losses, strict=True) if np.isfinite(s + v).sum() > 1]
    both = [(np.where(np.isfinite(s + v), s, -np.inf), np.where(np.isfinite(s + v), v, -np.inf)) for s, v in known]
    return sum(int(s.argmax() == v.argmax()) for s, v in both), len(known)
