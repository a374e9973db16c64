"""The value of each cell, and the matrix of all values."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

import numpy as np
import pandas as pd
from scipy.stats import t as student

from bocb_tune.analysis.core.estimate import Counts, Estimate, Reason
from bocb_tune.analysis.matrix.twoway import Matrix
from bocb_tune.analysis.sources.table import CELL, TrialTable
from bocb_tune.core.types import Phase, TrialStatus

FRESH_SEEDS = "mean of fresh seeds at the best point"
ONLY_POINT = "mean of seeds at the only point"
SELECTED_MAXIMUM = "selected maximum"
FLOOR = "floor: every trial diverged"
# With fewer seeds the interval of a mean is too wide to be of use.
MIN_SEEDS_FOR_INTERVAL = 3
UNKNOWN = math.inf
"""Substitute for unknown values in comparisons, since NaN does not even equal itself."""

_Key = tuple[str, str]
_Runs = list[tuple[float, float, float]]
"""(lr, weight decay, score) of each run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CellSummary:
    """One cell: the outcomes of its trials, and its best point."""

    backbone: str
    optimizer: str
    counts: Mapping[TrialStatus, int]
    best: Estimate
    """Score of the cell; `method` says in which of the four ways it was obtained."""
    lr: float = math.nan
    """Learning rate of the best point."""
    weight_decay: float = math.nan
    selected_score: float = math.nan
    """Best observed score of a completed trial, biased upwards by having been selected."""
    sd: float = math.nan
    """Standard deviation of the fresh seeds, points."""
    scores: tuple[float, ...] = ()
    """Scores whose mean the value is; empty where it is the floor."""

    @property
    def key(self) -> str:
        return f"{self.backbone}/{self.optimizer}"

    @property
    def n_trials(self) -> int:
        return sum(self.counts.values())

    @property
    def value(self) -> float:
        """Score of the cell, NaN if there is none."""
        return math.nan if self.best.value is None else self.best.value


def summarise_cells(table: TrialTable) -> tuple[CellSummary, ...]:
    """Summarise all cells of the grid, backbones by optimizers, also those without a trial."""
    trials, floor = table.trials, table.objective.floor
    outcomes: defaultdict[_Key, Counter[TrialStatus]] = defaultdict(Counter)
    for backbone, optimizer, status in zip(trials["backbone"], trials["optimizer"], trials["status"], strict=True):
        outcomes[backbone, optimizer][TrialStatus(status)] += 1
    whole = trials[at_full_budget(trials, trials["max_budget"].max())]
    diverged, is_repeat = whole["status"] == TrialStatus.diverged, whole["phase"] == Phase.repeat
    completed = whole["status"] == TrialStatus.completed
    tried = _by_cell(whole[completed & ~is_repeat])
    fresh = _by_cell(whole.assign(score=whole["score"].mask(diverged, floor))[(completed | diverged) & is_repeat])
    keys = [(backbone, optimizer) for backbone in table.backbones for optimizer in table.optimizers]
    return tuple(_summary(key, outcomes[key], tried[key], fresh[key], floor) for key in keys)


def cell_matrix(table: TrialTable, cells: tuple[CellSummary, ...]) -> Matrix:
    """Arrange the cell values in a matrix [backbones, optimizers], NaN where a cell has none."""
    return np.array([cell.value for cell in cells]).reshape(len(table.backbones), len(table.optimizers))


def at_full_budget(trials: pd.DataFrame, full: float) -> pd.Series[bool]:
    """Select trials whose full budget is the grid's largest: scores at different budgets are never mixed."""
    return ~(trials["max_budget"] < full)


def total_counts(cells: tuple[CellSummary, ...]) -> Counts:
    """Add the counts of all cells, for an estimate that rests on all of them."""
    each = [asdict(cell.best.counts) for cell in cells]
    return Counts(**{name: sum(counts[name] for counts in each) for name in each[0]})


def _by_cell(trials: pd.DataFrame) -> defaultdict[_Key, _Runs]:
    found: defaultdict[_Key, _Runs] = defaultdict(list)
    for backbone, optimizer, *run in trials[[*CELL, "lr", "weight_decay", "score"]].itertuples(index=False, name=None):
        found[backbone, optimizer].append((run[0], run[1], run[2]))
    return found


def _summary(key: _Key, outcomes: Counter[TrialStatus], tried: _Runs, fresh: _Runs, floor: float) -> CellSummary:
    counts = Counts(
        n_trials=outcomes.total(),
        n_completed=outcomes[TrialStatus.completed],
        n_stopped=outcomes[TrialStatus.stopped],
        n_diverged=outcomes[TrialStatus.diverged],
    )
    backbone, optimizer = key
    point = _best_point(tried)
    if point is None:
        best = _without_point(outcomes, counts, floor)
        return CellSummary(backbone=backbone, optimizer=optimizer, counts=outcomes, best=best)
    setting = _known(point.lr, point.weight_decay)
    at_point = tuple(score for lr, decay, score in fresh if _known(lr, decay) == setting)
    best, sd, scores = _estimate(point, at_point, counts)
    return CellSummary(
        backbone=backbone,
        optimizer=optimizer,
        counts=outcomes,
        best=best,
        lr=point.lr,
        weight_decay=point.weight_decay,
        selected_score=point.score,
        sd=sd,
        scores=scores,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Point:
    lr: float
    weight_decay: float
    score: float
    scores: tuple[float, ...]
    is_only: bool


def _best_point(tried: _Runs) -> _Point | None:
    """Find the setting with the best mean over its completed trials, without repeats; ties go to the smaller lr."""
    if not tried:
        return None
    scores: defaultdict[tuple[float, float], list[float]] = defaultdict(list)
    for lr, decay, score in tried:
        scores[_known(lr, decay)].append(score)
    means = {setting: _mean(values) for setting, values in scores.items()}
    best = min(means, key=lambda setting: (-means[setting], *setting))
    lr, decay = (math.nan if value == UNKNOWN else value for value in best)
    return _Point(
        lr=lr,
        weight_decay=decay,
        score=means[best] if math.isfinite(means[best]) else math.nan,
        scores=tuple(scores[best]),
        is_only=len(scores) == 1,
    )


def _known(lr: float, decay: float) -> tuple[float, float]:
    """Make a setting that equals itself also where a value is unknown."""
    return UNKNOWN if math.isnan(lr) else lr, UNKNOWN if math.isnan(decay) else decay


def _mean(scores: list[float]) -> float:
    """Compute the mean of the known scores; minus infinity if none is known."""
    known = [score for score in scores if not math.isnan(score)]
    return math.fsum(known) / len(known) if known else -math.inf


def _estimate(point: _Point, fresh: tuple[float, ...], counts: Counts) -> tuple[Estimate, float, tuple[float, ...]]:
    """Compute the value of a cell that has a best point, the sd of its seeds, and their scores.

    The seeds that a point was selected by are seeds too, and show how runs differ; but their mean is biased by the
    selection, so that it gets no interval.
    """
    is_selected = not fresh and (not point.is_only or len(point.scores) == 1)
    seeds = fresh or tuple(score for score in point.scores if not math.isnan(score))
    method = FRESH_SEEDS if fresh else SELECTED_MAXIMUM if is_selected else ONLY_POINT
    value = float(np.mean(seeds)) if seeds else math.nan
    sd = float(np.std(seeds, ddof=1)) if len(seeds) > 1 else math.nan
    counts = replace(counts, n_seeds=len(seeds))
    if math.isnan(value):
        return Estimate(value=None, unit="points", counts=counts, reason=Reason.ALL_DIVERGED), sd, ()
    known = Estimate(value=value, unit="points", counts=counts, method=method)
    if is_selected or len(seeds) < MIN_SEEDS_FOR_INTERVAL:
        return replace(known, reason=Reason.TOO_FEW_REPLICATES), sd, seeds
    half = float(student.ppf(0.5 + known.level / 2, len(seeds) - 1)) * sd / math.sqrt(len(seeds))
    return replace(known, lo=value - half, hi=value + half, method=f"{method}, t interval"), sd, seeds


def _without_point(outcomes: Counter[TrialStatus], counts: Counts, floor: float) -> Estimate:
    if set(outcomes) != {TrialStatus.diverged}:
        return Estimate(value=None, unit="points", counts=counts, reason=Reason.TOO_FEW_COMPLETED)
    if math.isnan(floor):
        return Estimate(value=None, unit="points", counts=counts, reason=Reason.ALL_DIVERGED)
    return Estimate(value=floor, unit="points", counts=counts, method=FLOOR)
