"""Models and metrics of all cells, from the trials of a grid; cells are independent, so they share the cores."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from bocb_tune.analysis.cell.marginals import Marginals, marginals
from bocb_tune.analysis.cell.metrics import METRICS, measure
from bocb_tune.analysis.cell.tuning_curves import TuningCurve, tuning_curve
from bocb_tune.analysis.core.arrays import Array, Index
from bocb_tune.analysis.core.cache import Cache, code, fingerprint
from bocb_tune.analysis.core.estimate import Counts, Estimate, Reason
from bocb_tune.analysis.core.parallel import spread
from bocb_tune.analysis.landscape.draws import CoarseDraws, MixedDraws, ProcessDraws
from bocb_tune.analysis.landscape.fit import MIN_TRIALS, Landscape, NoLandscape, fit_landscape
from bocb_tune.analysis.landscape.noise import Residuals
from bocb_tune.analysis.landscape.scale import Scale
from bocb_tune.analysis.landscape.surface import Domain, SettingGrid
from bocb_tune.analysis.landscape.trials import CellTrials
from bocb_tune.analysis.landscape.validation import Validation
from bocb_tune.analysis.sources.table import CELL, TrialTable
from bocb_tune.core.types import Direction, TrialStatus

Key = tuple[str, str]
"""(backbone, optimizer)"""

ENDED = (TrialStatus.completed, TrialStatus.stopped, TrialStatus.diverged)
FEWEST_PARALLEL = 6
"""Least number of cells for which other processes are started: fewer are done before those would be ready."""
MOST_RUNGS = 12
"""Most records kept of a trial that had no rungs: more add nothing new about the same curve."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CellModel:
    """The model and the metrics of one cell."""

    model: Landscape | NoLandscape
    estimates: Mapping[str, Estimate]
    """Metrics by key of `METRICS`; all refused, with the reason of the cell, where there is no landscape."""
    trials: CellTrials
    curve: TuningCurve | None = None
    """Tuning curve; None where there is no landscape."""
    marginals: Marginals | None = None


KINDS = (
    *(
        CellModel,
        CellTrials,
        Landscape,
        NoLandscape,
        MixedDraws,
        ProcessDraws,
        CoarseDraws,
        Residuals,
        SettingGrid,
        Domain,
        Scale,
        Validation,
    ),
    *(Counts, Estimate, Reason, TuningCurve, Marginals),
)
"""Types that a model consists of, for the cache."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """One cell to model."""

    trials: CellTrials
    domain: Domain | None
    scale: Scale


def model_cells(table: TrialTable, cache: Path | None = None) -> dict[Key, CellModel]:
    """Model every cell of the grid; `cache` is a folder where models are kept from one analysis to the next."""
    keys = [(backbone, optimizer) for backbone in table.backbones for optimizer in table.optimizers]
    jobs = dict(zip(keys, _jobs(table, keys), strict=True))
    slow = {key: job for key, job in jobs.items() if job.domain is not None and len(job.trials.lr) >= MIN_TRIALS}
    fitted = dict(zip(slow, _fit_all(list(slow.values()), cache), strict=True))
    return {key: fitted[key] if key in fitted else _model(job) for key, job in jobs.items()}


def _fit_all(jobs: list[_Job], folder: Path | None) -> list[CellModel]:
    if folder is None:
        return _model_all(jobs)
    names = [fingerprint(code(), job) for job in jobs]
    return Cache(folder / "models", KINDS).all(names, lambda missing: _model_all([jobs[place] for place in missing]))


def _model_all(jobs: list[_Job]) -> list[CellModel]:
    return spread(_model, jobs, fewest=FEWEST_PARALLEL)


def _model(job: _Job) -> CellModel:
    trials = job.trials
    if job.domain is None:
        reason = Reason.NO_SPACE if len(trials.lr) > 1 else Reason.NOT_SEARCHED
        none = NoLandscape(reason=reason, detail=reason.sentence, counts=trials.counts)
        return CellModel(model=none, estimates=_refused(none), trials=trials)
    with threadpool_limits(limits=1):
        return _fit(trials, job.domain, job.scale)


def _fit(trials: CellTrials, domain: Domain, scale: Scale) -> CellModel:
    cell = fit_landscape(trials, domain, scale, seed=_seed(trials))
    if isinstance(cell, NoLandscape):
        return CellModel(model=cell, estimates=_refused(cell), trials=trials)
    return CellModel(
        model=replace(cell),  # without its draws, which are large
        estimates=measure(cell),
        trials=trials,
        curve=tuning_curve(cell),
        marginals=marginals(cell),
    )


def _seed(trials: CellTrials) -> int:
    """Derive a seed from the trials, the same for the same trials in any order."""
    whole = np.sort(np.concatenate([trials.lr, trials.record_score]))
    return int.from_bytes(hashlib.sha256(whole.tobytes()).digest()[:4], "big")


def _refused(model: NoLandscape) -> dict[str, Estimate]:
    return {
        metric.key: Estimate(
            value=None, unit=metric.quantity.unit, counts=model.counts, reason=model.reason, method=model.detail
        )
        for metric in METRICS
    }


def _jobs(table: TrialTable, keys: list[Key]) -> list[_Job]:
    domains = {optimizer: _domain(table, optimizer) for optimizer in table.optimizers}
    trials = table.trials[table.trials["status"].isin(ENDED)].dropna(subset=["lr"])
    lines = [optimizer for optimizer, domain in domains.items() if domain is not None and domain.weight_decay is None]
    trials = trials[trials["weight_decay"].notna() | trials["optimizer"].isin(lines)]
    full = table.trials["max_budget"].max()
    trials = trials[~(trials["max_budget"] < full)]
    trials, of_curves = _numbered(trials, table.curves)
    by_cell = {(str(b), str(o)): rows for (b, o), rows in trials.groupby(CELL)}
    curves = {(str(b), str(o)): rows for (b, o), rows in of_curves.groupby(CELL)}
    none = trials.iloc[:0]
    return [
        _Job(
            trials=cell_trials(by_cell.get(key, none), curves.get(key, of_curves.iloc[:0]), table.rungs.get(key, ())),
            domain=domains[key[1]],
            scale=scale_of(table),
        )
        for key in keys
    ]


def _numbered(trials: pd.DataFrame, curves: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Replace the names of trials by numbers in both tables, which are faster to look up."""
    numbers, _ = pd.factorize(pd.concat([trials["trial"], curves["trial"]]))
    return trials.assign(trial=numbers[: len(trials)]), curves.assign(trial=numbers[len(trials) :])


def _domain(table: TrialTable, optimizer: str) -> Domain | None:
    """Build the search space of an optimizer: None where it is not known, a line where weight decay was not varied."""
    dims = table.spaces.get(optimizer)
    return None if dims is None else Domain.of(dims["lr"], dims.get("weight_decay"))


def scale_of(table: TrialTable) -> Scale:
    """Choose how scores are modelled: points of 0..100 as logits, positive losses as logarithms.

    A floor that is not known is the lowest score seen.
    """
    objective, scores = table.objective, table.trials["score"]
    floor = float(scores.min()) if math.isnan(objective.floor) else objective.floor
    is_loss = objective.direction is Direction.min and not objective.is_bounded and objective.origin == 0
    return Scale(
        bounded=objective.is_bounded,
        floor=floor,
        num_images=table.num_images,
        is_log=is_loss and max(float(scores.max()), floor) < 0,
    )


def cell_trials(trials: pd.DataFrame, curves: pd.DataFrame, rungs: tuple[int, ...]) -> CellTrials:
    """Gather the arrays of one cell; of each curve, the records at rungs and the last one."""
    full = trials["max_budget"].to_numpy(float)
    status = trials["status"].to_numpy(str)
    place, budget, score = _records(trials, curves, rungs)
    return CellTrials(
        lr=trials["lr"].to_numpy(float),
        weight_decay=trials["weight_decay"].to_numpy(float),
        diverged=status == TrialStatus.diverged,
        completed=status == TrialStatus.completed,
        audit=trials["audit"].fillna(False).to_numpy(bool),
        share=_share(trials["budget"].to_numpy(float), full),
        record_trial=place,
        record_share=_share(budget, full[place]),
        record_score=score,
    )


def _share(budget: Array, full: Array) -> Array:
    """Compute the share of the full budget, in (0, 1]; 1 where it is not known."""
    share = budget / full
    return np.where(np.isfinite(share) & (share > 0), np.minimum(share, 1.0), 1.0)


def _records(trials: pd.DataFrame, curves: pd.DataFrame, rungs: tuple[int, ...]) -> tuple[Index, Array, Array]:
    """Gather (index of the trial, budget, score), sorted; a trial without a curve has its final score."""
    place = _places(curves["trial"].to_numpy(), trials["trial"].to_numpy())
    ours = place >= 0
    place, budget, score = place[ours], curves["budget"].to_numpy(float)[ours], curves["score"].to_numpy(float)[ours]
    is_last = np.append(place[1:] != place[:-1], True)[: len(place)]
    kept = is_last | np.isin(budget, _kept_budgets(budget, rungs))
    alone = np.setdiff1d(np.arange(len(trials)), place)
    ends = (
        (place, alone),
        (budget, trials["budget"].to_numpy(float)[alone]),
        (score, trials["score"].to_numpy(float)[alone]),
    )
    place, budget, score = (np.concatenate([of_curves[kept], of_trials]) for of_curves, of_trials in ends)
    order = np.lexsort((budget, place))
    order = order[~np.isnan(score[order])]
    place, budget, score = place[order], budget[order], score[order]
    again = (np.diff(place, prepend=-1) == 0) & (np.diff(budget, prepend=np.nan) == 0)
    return place[~again], budget[~again], score[~again]


def _places(numbers: Index, known: Index) -> Index:
    """Find the index of each number among the known ones, the last of equal ones; -1 where it is not among them."""
    if not len(known):
        return np.full(len(numbers), -1)
    order = np.argsort(known, kind="stable")
    place = order[np.searchsorted(known, numbers, side="right", sorter=order) - 1]
    return np.where(known[place] == numbers, place, -1)


def _kept_budgets(budget: Array, rungs: tuple[int, ...]) -> Array:
    if rungs:
        return np.array(rungs, dtype=float)
    budgets = np.unique(budget)
    if len(budgets) <= MOST_RUNGS:
        return budgets
    wanted = np.geomspace(max(budgets[0], 1e-9), budgets[-1], MOST_RUNGS)
    return np.unique(budgets[np.abs(budgets[:, None] - wanted).argmin(axis=0)])
