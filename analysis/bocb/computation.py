"""Computation of an optimizer as a run measured it: seconds of a step and bytes of state, relative to SGD.

Each cell is compared with the cheapest of the SGD family on the same backbone, where the grid has one, else with the
cheapest optimizer; the ratios are averaged over backbones geometrically.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bocb_tune.analysis.core.arrays import Array, Flags
from bocb_tune.analysis.core.estimate import Counts, Estimate, Reason
from bocb_tune.analysis.core.intervals import mean_interval
from bocb_tune.analysis.matrix.twoway import Matrix
from bocb_tune.analysis.names.look import optimizer_key
from bocb_tune.analysis.sources.table import CELL, MEASURED, TrialTable

REFERENCE = "sgd"


@dataclass(frozen=True, slots=True, kw_only=True)
class Computation:
    """Computation of each optimizer, relative to a reference on the same backbone."""

    step: tuple[Estimate, ...]
    """Seconds of a step [optimizers]."""
    state: tuple[Estimate, ...]
    """Bytes of state of the optimizer [optimizers]; those of the weights and their gradients are not counted."""
    reference: str

    @property
    def total(self) -> Array:
        """Relative computation [optimizers]: that of a step, with the state averaged in where both are known."""
        both = np.array([[np.nan if e.value is None else e.value for e in part] for part in (self.step, self.state)])
        known = np.isfinite(both)
        mean = np.where(known, both, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
        return np.where(known.any(axis=0), mean, np.nan)


def computation_of(table: TrialTable) -> Computation:
    """Compare the optimizers of a table by what their trials took."""
    step, state = (_medians(table, name) for name in MEASURED[1:])
    reference = next((name for name in table.optimizers if optimizer_key(name) == REFERENCE), None)
    column = None if reference is None else table.optimizers.index(reference)
    told = reference or "the cheapest optimizer of each backbone"
    return Computation(step=_relative(step, column), state=_relative(state, column), reference=told)


def _medians(table: TrialTable, name: str) -> Matrix:
    """Take the median over the trials of each cell [backbones, optimizers]."""
    found = table.trials.groupby(CELL)[name].median()
    return np.array([[found.get((b, o), np.nan) for o in table.optimizers] for b in table.backbones], dtype=float)


def _relative(values: Matrix, column: int | None) -> tuple[Estimate, ...]:
    positive = np.where(values > 0, values, np.nan)
    if not np.isfinite(positive).any():
        return (Estimate(value=None, reason=Reason.NOT_MEASURED),) * int(values.shape[1])
    least = np.min(positive, axis=1, where=np.isfinite(positive), initial=np.inf)
    own = np.where(np.isfinite(least), least, np.nan) if column is None else positive[:, column]
    logs: Array = np.log(positive / own[:, None])
    return tuple(_mean_ratio(each) for each in logs.T)


def _mean_ratio(logs: Array) -> Estimate:
    known = logs[np.isfinite(logs)]
    counts = Counts(n_trials=len(known))
    if not len(known):
        return Estimate(value=None, counts=counts, reason=Reason.NOT_MEASURED)
    value, method = float(np.exp(known.mean())), f"geometric mean over {len(known)} backbones"
    if len(known) < 2:
        return Estimate(value=value, counts=counts, method=method, reason=Reason.TOO_FEW_BACKBONES)
    lo, hi = np.exp(mean_interval(known))
    return Estimate(value=value, lo=float(lo), hi=float(hi), counts=counts, method=f"{method}, t interval of the logs")


def pareto_front(score: Array, cost: Array) -> Flags:
    """Tell which optimizers no other beats: none scores as much for less, nor more for as much [optimizers].

    Args:
        score, cost: [optimizers], NaN where not known, which is on no front.
    """
    known = np.isfinite(score + cost)
    better = (score[:, None] >= score) & (cost[:, None] <= cost)
    strictly = better & ((score[:, None] > score) | (cost[:, None] < cost))
    return np.asarray(known & ~(strictly & known[:, None]).any(axis=0))
