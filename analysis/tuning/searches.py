"""What the search of a cell found with its trials, beside what as many random trials would have (the metrics' C4)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from bocb_tune.analysis.arrays import Array
from bocb_tune.analysis.cell.landscape import NoLandscape
from bocb_tune.analysis.cell.modelling import CellModel
from bocb_tune.analysis.cell.tuning_curves import LONGEST, observed_curve
from bocb_tune.analysis.estimate import Estimate, Reason
from bocb_tune.analysis.matrix.cells import CellSummary
from bocb_tune.analysis.matrix.resample import SEED
from bocb_tune.types import Phase, TrialStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """Of one cell; repeats at the best point are not part of it."""

    trials: int
    epochs: float
    """That they ran, NaN where not known."""
    found: Estimate
    """Score of the cell."""
    reported: float
    """The best score the search saw, which is biased upwards by having been selected."""
    random: Estimate
    """True score of what as many random trials (at most `LONGEST`) on the landscape would select."""
    random_reported: Estimate
    """The score they would report."""
    early: Estimate
    """C5: the curve of random search, early trials weighing most."""
    observed: tuple[Estimate, ...]
    """C4(b) from the trials themselves, one a size of the curve; refused unless they are independent draws."""


def search_of(cell: CellSummary, rows: pd.DataFrame, model: CellModel, floor: float) -> Search:
    """What the search of one cell found.

    Args:
        rows: trials of the cell, with the columns of a trial table.
        floor: score of a diverged trial.
    """
    rows = rows[rows["phase"] != Phase.repeat]
    num = min(max(len(rows), 1), LONGEST)
    return Search(
        trials=len(rows),
        epochs=float(rows["budget"].sum(min_count=1)),
        found=cell.best,
        reported=cell.selected_score,
        random=_none(model) if model.curve is None else model.curve.at(num),
        random_reported=_none(model) if model.curve is None else model.curve.validation_at(num),
        early=_none(model) if model.curve is None else model.curve.summary("early"),
        observed=_observed(cell, rows, floor),
    )


def _none(model: CellModel) -> Estimate:
    reason = model.model.reason if isinstance(model.model, NoLandscape) else Reason.NOT_SEARCHED
    return Estimate(value=None, unit="points", reason=reason)


def _observed(cell: CellSummary, rows: pd.DataFrame, floor: float) -> tuple[Estimate, ...]:
    """From the space-filling trials: the others follow their scores, and a source may not tell which are which."""
    drawn = rows[rows["phase"] == Phase.design]
    ended = drawn["status"].isin([TrialStatus.completed, TrialStatus.diverged])
    scores = _scores(drawn[ended], floor)
    independent = bool(ended.all()) and len(drawn) > 0
    return observed_curve(scores, independent, cell.best.counts, np.random.default_rng(SEED))


def _scores(rows: pd.DataFrame, floor: float) -> Array:
    score = rows["score"].mask(rows["status"] == TrialStatus.diverged, floor)
    return np.sort(score.dropna().to_numpy(float))
