"""Trials of a grid -> a model and the metrics of each cell; cells are independent, so they share the cores."""

from __future__ import annotations

import hashlib
import math
import multiprocessing
import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from bocb_tune.analysis.estimate import Estimate, Reason
from bocb_tune.analysis.landscape import MIN_TRIALS, CellTrials, Landscape, Model, NoLandscape, Scale, fit_model
from bocb_tune.analysis.metrics import METRICS, measure
from bocb_tune.analysis.surface import Box
from bocb_tune.analysis.table import CELL, TrialTable
from bocb_tune.analysis.tuning_curves import TuningCurve, tuning_curve
from bocb_tune.types import TrialStatus

Key = tuple[str, str]
"""(backbone, optimizer)"""

ENDED = (TrialStatus.completed, TrialStatus.stopped, TrialStatus.diverged)
MOST_RUNGS = 12
"""Records kept of a trial that was never subject to rungs: more say nothing new about the same curve."""
FEWEST_PARALLEL = 6
"""Fewer cells than this to model are done before other processes have started."""
MOST_EXPANDED = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class CellModel:
    """What the trials of one cell carry."""

    model: Model | NoLandscape
    estimates: Mapping[str, Estimate]
    """By key of `METRICS`; each refused, with the reason of the cell, where there is no landscape."""
    trials: CellTrials
    curve: TuningCurve | None = None
    """None where there is no landscape."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """One cell to model."""

    trials: CellTrials
    box: Box | None
    scale: Scale


@dataclass(frozen=True, kw_only=True)
class Landscapes(Mapping[Key, Landscape | NoLandscape]):
    """The landscapes of all cells; the draws are made when asked for, and only the latest are kept."""

    models: Mapping[Key, CellModel]

    def __post_init__(self) -> None:
        object.__setattr__(self, "_expand", lru_cache(MOST_EXPANDED)(self._landscape))

    def _landscape(self, key: Key) -> Landscape | NoLandscape:
        model = self.models[key].model
        return model if isinstance(model, NoLandscape) else model.landscape()

    def __getitem__(self, key: Key) -> Landscape | NoLandscape:
        found: Landscape | NoLandscape = self._expand(key)  # type: ignore[attr-defined]
        return found

    def __iter__(self) -> Iterator[Key]:
        return iter(self.models)

    def __len__(self) -> int:
        return len(self.models)


def model_cells(table: TrialTable) -> dict[Key, CellModel]:
    """Model every cell of the grid."""
    keys = [(backbone, optimizer) for backbone in table.backbones for optimizer in table.optimizers]
    return dict(zip(keys, _model_all(_jobs(table, keys)), strict=True))


def _model_all(jobs: list[_Job]) -> Iterable[CellModel]:
    worth = sum(len(job.trials.lr) >= MIN_TRIALS and job.box is not None for job in jobs)
    workers = min(os.cpu_count() or 1, worth)
    if worth < FEWEST_PARALLEL or workers < 2:
        return [_model(job) for job in jobs]
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("forkserver")) as pool:
        return list(pool.map(_model, jobs, chunksize=max(1, len(jobs) // (8 * workers))))


def _model(job: _Job) -> CellModel:
    with threadpool_limits(limits=1):
        return _fit(job)


def _fit(job: _Job) -> CellModel:
    if job.box is None:
        searched = len(job.trials.lr) > 1
        reason = Reason.NO_SPACE if searched else Reason.NOT_SEARCHED
        model: Model | NoLandscape = NoLandscape(reason=reason, detail=reason.sentence, counts=job.trials.counts)
    else:
        model = fit_model(job.trials, job.box, job.scale, seed=_seed(job.trials))
    if isinstance(model, NoLandscape):
        return CellModel(model=model, estimates=_refused(model), trials=job.trials)
    cell = model.landscape()
    return CellModel(model=model, estimates=measure(cell), trials=job.trials, curve=tuning_curve(cell))


def _seed(trials: CellTrials) -> int:
    """The same for the same trials in any order."""
    whole = np.sort(np.concatenate([trials.lr, trials.record_score]))
    return int.from_bytes(hashlib.sha256(whole.tobytes()).digest()[:4], "big")


def _refused(model: NoLandscape) -> dict[str, Estimate]:
    return {
        metric.key: Estimate(
            value=None, unit=metric.unit, counts=model.counts, reason=model.reason, method=model.detail
        )
        for metric in METRICS
    }


def _jobs(table: TrialTable, keys: list[Key]) -> list[_Job]:
    trials = table.trials[table.trials["status"].isin(ENDED)].dropna(subset=["lr", "weight_decay"])
    full = table.trials["max_budget"].max()
    trials = trials[~(trials["max_budget"] < full)]
    by_cell = {(str(b), str(o)): rows for (b, o), rows in trials.groupby(CELL)}
    curves = {(str(b), str(o)): rows for (b, o), rows in table.curves.groupby(CELL)}
    none = trials.iloc[:0]
    return [
        _Job(
            trials=cell_trials(
                by_cell.get(key, none), curves.get(key, table.curves.iloc[:0]), table.rungs.get(key, ())
            ),
            box=_box(table, key[1]),
            scale=scale_of(table),
        )
        for key in keys
    ]


def _box(table: TrialTable, optimizer: str) -> Box | None:
    dims = table.spaces.get(optimizer)
    return None if dims is None else Box.of(dims["lr"], dims["weight_decay"])


def scale_of(table: TrialTable) -> Scale:
    """Points of 0..100 are modelled as logits; a floor that is not known is the lowest score seen."""
    floor = table.objective.floor
    if math.isnan(floor):
        floor = float(table.trials["score"].min())
    return Scale(bounded=table.objective.unit == "points", floor=floor, num_images=table.num_images)


def cell_trials(trials: pd.DataFrame, curves: pd.DataFrame, rungs: tuple[int, ...]) -> CellTrials:
    """The arrays of one cell; of each curve, the records at rungs and the last one."""
    place = {name: index for index, name in enumerate(trials["trial"])}
    full = trials["max_budget"].to_numpy(float)
    budget = trials["budget"].to_numpy(float)
    share = np.where(np.isfinite(budget / full), np.minimum(budget / full, 1.0), 1.0)
    status = trials["status"].to_numpy(str)
    records = _records(trials, curves, rungs, place)
    return CellTrials(
        lr=trials["lr"].to_numpy(float),
        weight_decay=trials["weight_decay"].to_numpy(float),
        diverged=status == TrialStatus.diverged,
        completed=status == TrialStatus.completed,
        audit=trials["audit"].fillna(False).to_numpy(bool),
        share=share,
        record_trial=records["place"].to_numpy(np.intp),
        record_share=records["share"].to_numpy(float),
        record_score=records["score"].to_numpy(float),
    )


def _records(
    trials: pd.DataFrame, curves: pd.DataFrame, rungs: tuple[int, ...], place: Mapping[str, int]
) -> pd.DataFrame:
    """(place, share, score), sorted."""
    curves = curves[curves["trial"].isin(place)]
    kept = curves[curves["budget"].isin(_kept_budgets(curves, rungs))]
    last = curves.groupby("trial", sort=False).tail(1)
    single = trials[~trials["trial"].isin(set(curves["trial"]))].dropna(subset=["score"])
    rows = pd.concat([frame[["trial", "budget", "score"]] for frame in (kept, last, single)]).drop_duplicates(
        ["trial", "budget"]
    )
    index = rows["trial"].map(place).astype(np.intp)
    full = trials["max_budget"].to_numpy(float)[index]
    share = (rows["budget"].to_numpy(float) / full) if len(rows) else np.empty(0)
    share = np.where(np.isfinite(share) & (share > 0), np.minimum(share, 1.0), 1.0)
    found = pd.DataFrame({"place": index, "share": share, "score": rows["score"]}).dropna()
    return found.sort_values(["place", "share"], kind="stable")


def _kept_budgets(curves: pd.DataFrame, rungs: tuple[int, ...]) -> list[float]:
    if rungs:
        return [float(rung) for rung in rungs]
    budgets = np.unique(curves["budget"].to_numpy(float))
    if len(budgets) <= MOST_RUNGS:
        return [float(each) for each in budgets]
    wanted = np.geomspace(max(budgets[0], 1e-9), budgets[-1], MOST_RUNGS)
    kept = np.unique(budgets[np.abs(budgets[:, None] - wanted).argmin(axis=0)])
    return [float(each) for each in kept]
