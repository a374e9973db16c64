"""The trials of one cell, as arrays."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from bocb_tune.analysis.core.arrays import Array, Flags
from bocb_tune.analysis.core.estimate import Counts


@dataclass(frozen=True, kw_only=True)
class CellTrials:
    """The trials of one cell. Failed trials are left out, repeats included."""

    lr: Array
    """[trials]"""
    weight_decay: Array
    """[trials], zero included."""
    diverged: Flags
    """[trials]"""
    completed: Flags
    """[trials]"""
    audit: Flags
    """[trials], whether a draw made before the trial began exempted it from early stopping."""
    share: Array
    """[trials], share of the full budget at which the trial ended."""
    record_trial: NDArray[np.intp]
    """[records], ascending; budgets ascend within a trial."""
    record_share: Array
    """[records], share of the full budget, in (0, 1]."""
    record_score: Array
    """[records], in the objective's unit."""

    @cached_property
    def last(self) -> Array:
        """Last recorded score [trials], NaN for a trial without records."""
        found = np.full(len(self.lr), np.nan)
        found[self.record_trial] = self.record_score
        return found

    @cached_property
    def survived(self) -> Array:
        """Share of the budget by which the trial had not diverged yet [trials].

        The record at which a trial diverged does not tell when it diverged; the one before it gives a lower bound.
        """
        before = np.zeros(len(self.lr))
        earlier = self.record_share < self.share[self.record_trial] * (1 - 1e-9)
        np.maximum.at(before, self.record_trial[earlier], self.record_share[earlier])
        return np.where(self.diverged, before, self.share)

    @property
    def counts(self) -> Counts:
        stopped = ~self.completed & ~self.diverged
        return Counts(
            n_trials=len(self.lr),
            n_completed=int(self.completed.sum()),
            n_stopped=int(stopped.sum()),
            n_diverged=int(self.diverged.sum()),
        )


def in_canonical_order(trials: CellTrials) -> CellTrials:
    """Sort trials by their content, so that their order of arrival changes nothing."""
    order = np.lexsort((np.nan_to_num(trials.last, nan=-np.inf), trials.share, trials.weight_decay, trials.lr))
    place = np.argsort(order)
    records = np.argsort(place[trials.record_trial], kind="stable")
    return CellTrials(
        lr=trials.lr[order],
        weight_decay=trials.weight_decay[order],
        diverged=trials.diverged[order],
        completed=trials.completed[order],
        audit=trials.audit[order],
        share=trials.share[order],
        record_trial=place[trials.record_trial][records],
        record_share=trials.record_share[records],
        record_score=trials.record_score[records],
    )
