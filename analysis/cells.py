"""The value of each cell (definition D1 of the metrics) and the matrix they make."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

import numpy as np
import pandas as pd
from scipy.stats import t as student

from bocb_tune.analysis.estimate import Counts, Estimate, Reason
from bocb_tune.analysis.table import CELL, TrialTable
from bocb_tune.analysis.twoway import Matrix
from bocb_tune.types import Phase, TrialStatus

FRESH_SEEDS = "mean of fresh seeds at the best point"
ONLY_POINT = "mean of seeds at the only point"
SELECTED_MAXIMUM = "selected maximum"
FLOOR = "floor: every trial diverged"
# Below this many seeds an interval of a mean says next to nothing.
MIN_SEEDS_FOR_INTERVAL = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class CellSummary:
    """One cell: what became of its trials, and its best point."""

    backbone: str
    optimizer: str
    counts: Mapping[TrialStatus, int]
    best: Estimate
    """Score of the cell; `method` says which of the four ways it was had."""
    lr: float = math.nan
    """Learning rate of the best point."""
    weight_decay: float = math.nan
    selected_score: float = math.nan
    """Best observed score of a completed trial, biased upwards by having been selected."""
    sd: float = math.nan
    """Of the fresh seeds, points."""

    @property
    def key(self) -> str:
        return f"{self.backbone}/{self.optimizer}"

    @property
    def n_trials(self) -> int:
        return sum(self.counts.values())

    @property
    def value(self) -> float:
        """Score, NaN if there is none."""
        return math.nan if self.best.value is None else self.best.value


def summarise_cells(table: TrialTable) -> tuple[CellSummary, ...]:
    """All cells of the grid, backbones by optimizers, those without a trial too."""
    trials = dict(iter(table.trials.groupby(CELL)))
    none = table.trials.iloc[:0]
    full = table.trials["max_budget"].max()
    return tuple(
        _summary(backbone, optimizer, trials.get((backbone, optimizer), none), full, table.objective.floor)
        for backbone in table.backbones
        for optimizer in table.optimizers
    )


def cell_matrix(table: TrialTable, cells: tuple[CellSummary, ...]) -> Matrix:
    """Cell values [backbones, optimizers], NaN where a cell has none."""
    return np.array([cell.value for cell in cells]).reshape(len(table.backbones), len(table.optimizers))


def at_full_budget(trials: pd.DataFrame, full: float) -> pd.Series[bool]:
    """Trials whose full budget is the grid's largest: scores at different budgets are never mixed."""
    return ~(trials["max_budget"] < full)


def total_counts(cells: tuple[CellSummary, ...]) -> Counts:
    """What an estimate rests on that is made of all cells."""
    each = [asdict(cell.best.counts) for cell in cells]
    return Counts(**{name: sum(counts[name] for counts in each) for name in each[0]})


def _summary(backbone: str, optimizer: str, trials: pd.DataFrame, full: float, floor: float) -> CellSummary:
    outcomes = Counter(TrialStatus(status) for status in trials["status"])
    counts = Counts(
        n_trials=len(trials),
        n_completed=outcomes[TrialStatus.completed],
        n_stopped=outcomes[TrialStatus.stopped],
        n_diverged=outcomes[TrialStatus.diverged],
    )
    full_length = trials[at_full_budget(trials, full)]
    point = _best_point(full_length)
    if point is None:
        best = _without_point(outcomes, counts, floor)
        return CellSummary(backbone=backbone, optimizer=optimizer, counts=outcomes, best=best)
    best, sd = _estimate(point, _fresh_scores(full_length, point, floor), counts)
    return CellSummary(
        backbone=backbone,
        optimizer=optimizer,
        counts=outcomes,
        best=best,
        lr=point.lr,
        weight_decay=point.weight_decay,
        selected_score=point.score,
        sd=sd,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Point:
    lr: float
    weight_decay: float
    score: float
    scores: tuple[float, ...]
    is_only: bool


def _best_point(trials: pd.DataFrame) -> _Point | None:
    """The setting with the best mean over its completed trials, repeats aside; ties go to the smaller lr."""
    tried = trials[(trials["status"] == TrialStatus.completed) & (trials["phase"] != Phase.repeat)]
    if tried.empty:
        return None
    points = tried.groupby(["lr", "weight_decay"], dropna=False)["score"].agg(["mean", tuple]).reset_index()
    best = points.sort_values(["mean", "lr", "weight_decay"], ascending=[False, True, True]).iloc[0]
    return _Point(
        lr=best["lr"],
        weight_decay=best["weight_decay"],
        score=float(best["mean"]),
        scores=best["tuple"],
        is_only=len(points) == 1,
    )


def _fresh_scores(trials: pd.DataFrame, point: _Point, floor: float) -> tuple[float, ...]:
    """Scores of the repeats at the point; one that diverged has the floor."""
    ended = trials["status"].isin([TrialStatus.completed, TrialStatus.diverged])
    at_point = (trials["lr"] == point.lr) & (trials["weight_decay"] == point.weight_decay)
    fresh = trials[ended & at_point & (trials["phase"] == Phase.repeat)]
    return tuple(fresh["score"].mask(fresh["status"] == TrialStatus.diverged, floor))


def _estimate(point: _Point, fresh: tuple[float, ...], counts: Counts) -> tuple[Estimate, float]:
    """Value of a cell that has a best point, and the sd of its seeds."""
    seeds, method = (fresh, FRESH_SEEDS) if fresh else (point.scores, ONLY_POINT)
    if not fresh and (not point.is_only or len(seeds) == 1):
        seeds, method = (point.score,), SELECTED_MAXIMUM
    value, sd = float(np.mean(seeds)), float(np.std(seeds, ddof=1)) if len(seeds) > 1 else math.nan
    counts = replace(counts, n_seeds=len(seeds))
    if math.isnan(value):
        return Estimate(value=None, unit="points", counts=counts, reason=Reason.ALL_DIVERGED), sd
    known = Estimate(value=value, unit="points", counts=counts, method=method)
    if len(seeds) < MIN_SEEDS_FOR_INTERVAL:
        return replace(known, reason=Reason.TOO_FEW_REPLICATES), sd
    half = float(student.ppf(0.5 + known.level / 2, len(seeds) - 1)) * sd / math.sqrt(len(seeds))
    return replace(known, lo=value - half, hi=value + half, method=f"{method}, t interval"), sd


def _without_point(outcomes: Counter[TrialStatus], counts: Counts, floor: float) -> Estimate:
    if set(outcomes) != {TrialStatus.diverged}:
        return Estimate(value=None, unit="points", counts=counts, reason=Reason.TOO_FEW_COMPLETED)
    if math.isnan(floor):
        return Estimate(value=None, unit="points", counts=counts, reason=Reason.ALL_DIVERGED)
    return Estimate(value=floor, unit="points", counts=counts, method=FLOOR)
