"""The scores that the search of a cell found, and those that as many random trials would have found."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from bocb_tune.analysis.cell.modelling import CellModel, Key
from bocb_tune.analysis.cell.tuning_curves import LONGEST, SIZES, observed_curve, with_trials
from bocb_tune.analysis.core.arrays import Array, Flags
from bocb_tune.analysis.core.estimate import Estimate, Reason
from bocb_tune.analysis.landscape.fit import NoLandscape
from bocb_tune.analysis.matrix.cells import CellSummary
from bocb_tune.analysis.matrix.resample import SEED
from bocb_tune.analysis.sources.table import CELL
from bocb_tune.core.types import Phase, TrialStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class CellSearch:
    """The search of one cell, without the repeats at the best point."""

    trials: int
    epochs: float
    """Epochs run; NaN if unknown."""
    found: Estimate
    """Score of the cell."""
    reported: float
    """The best score that the search saw, biased upwards by having been selected."""
    random: Estimate
    """True score of the setting that as many random trials (at most `LONGEST`) on the landscape would select."""
    random_reported: Estimate
    """The score that those random trials would report."""
    early: Estimate
    """Mean of the curve of random search, with the largest weight on early trials."""
    observed: tuple[Estimate, ...]
    """The unbiased curve of the trials themselves, one estimate per size; refused unless they are independent draws."""
    modelled: tuple[Estimate, ...]
    """The curve of scores that random trials on the landscape alone would report, one estimate per size."""


def searches_of(
    trials: pd.DataFrame, cells: Sequence[CellSummary], models: Mapping[Key, CellModel], floor: float
) -> dict[Key, CellSearch]:
    """Summarise the search of each cell.

    Args:
        trials: with the columns of a trial table.
        cells: value of each cell.
        models: landscape of each cell.
        floor: score of a diverged trial.
    """
    rows = trials[trials["phase"] != Phase.repeat]
    diverged = rows["status"] == TrialStatus.diverged
    rows = rows.assign(
        score=rows["score"].mask(diverged, floor),
        # later trials depend on these scores, and a source may not say which are which
        space_filling=rows["phase"] == Phase.design,
        ended=diverged | (rows["status"] == TrialStatus.completed),
    )
    columns = ["budget", "score", "space_filling", "ended"]
    arrays = {key: group.to_numpy(float).T for key, group in rows.groupby(CELL)[columns]}
    none = np.empty((len(columns), 0))
    keys = [(cell.backbone, cell.optimizer) for cell in cells]
    return {key: _search(cell, arrays.get(key, none), models[key]) for key, cell in zip(keys, cells, strict=True)}


def _search(cell: CellSummary, arrays: Array, model: CellModel) -> CellSearch:
    """Summarise one cell, given budget, score, and whether its trials are space-filling and ended [4, trials]."""
    budget, score = arrays[:2]
    space_filling, ended = arrays[2:].astype(bool)
    num = min(max(len(budget), 1), LONGEST)
    curve, none = model.curve, _none(model)
    known = _independent(score[space_filling], ended[space_filling])
    reported = with_trials(curve, known, np.random.default_rng(SEED)) if curve and len(known) else curve
    return CellSearch(
        trials=len(budget),
        epochs=float(np.nansum(budget)) if np.isfinite(budget).any() else math.nan,
        found=cell.best,
        reported=cell.selected_score,
        random=curve.at(num) if curve else none,
        random_reported=reported.reported_at(num) if reported else none,
        early=curve.summary("early") if curve else none,
        observed=observed_curve(known, len(known) > 0, cell.best.counts, np.random.default_rng(SEED)),
        modelled=tuple(curve.reported_at(n) if curve else none for n in SIZES),
    )


def _none(model: CellModel) -> Estimate:
    reason = model.model.reason if isinstance(model.model, NoLandscape) else Reason.NOT_SEARCHED
    return Estimate(value=None, unit="points", reason=reason)


def _independent(score: Array, ended: Flags) -> Array:
    """Sort the scores of the space-filling trials [trials]; none if any was stopped."""
    return np.sort(score[~np.isnan(score)]) if ended.all() else np.empty(0)
