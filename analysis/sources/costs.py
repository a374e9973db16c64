"""Cost of trials: as much as the trials of the same cell did on average, stopped ones what they ran."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from bocb_tune.analysis.sources.table import CELL, TrialTable
from bocb_tune.core.types import Phase, TrialStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialCost:
    """Cost of some trials."""

    epochs: float
    """NaN where not known."""
    hours: float
    """Hours of training and validation, on as many devices as a trial of the source had; NaN where not known."""

    def times(self, trials: int) -> TrialCost:
        """Multiply by a number of such trials."""
        return TrialCost(epochs=trials * self.epochs, hours=trials * self.hours)

    def __str__(self) -> str:
        parts = ((self.epochs, f"{self.epochs:.0f} epochs"), (self.hours, f"{self.hours:.2g} hours"))
        return ", ".join(text for value, text in parts if not math.isnan(value))


NO_COST = TrialCost(epochs=math.nan, hours=math.nan)


def cost_per_trial(table: TrialTable) -> dict[tuple[str, str], TrialCost]:
    """Compute the mean cost of a trial by (backbone, optimizer), over trials that ended with a result; repeats
    aside."""
    trials = table.trials
    ended = trials["status"].isin([status for status in TrialStatus if status.is_result])
    means = trials[ended & (trials["phase"] != Phase.repeat)].groupby(CELL)[["budget", "elapsed_s"]].mean()
    return {
        (str(backbone), str(optimizer)): TrialCost(epochs=float(epochs), hours=float(seconds) / 3600)
        for (backbone, optimizer), epochs, seconds in means.itertuples(name=None)
    }


def mean_cost(costs: Iterable[TrialCost]) -> TrialCost:
    """Average the costs that are known."""
    both = np.array([(cost.epochs, cost.hours) for cost in costs]).reshape(-1, 2)
    epochs, hours = (float(np.mean(x[np.isfinite(x)])) if np.isfinite(x).any() else math.nan for x in both.T)
    return TrialCost(epochs=epochs, hours=hours)
