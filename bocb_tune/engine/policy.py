"""Every decision of the engine as a pure function: phases, rungs, what a sampler is told, what a cell still owes.

No Ray, no Optuna, no files. A decision depends on the records so far and on the trial's place in the plan, so that a
run that was interrupted goes on exactly as it would have.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from bocb_tune.core.space import SearchSpace
from bocb_tune.core.types import Cell, Objective, Phase, TrialRecord, TrialSpec, TrialStatus, derive_seed, merit
from bocb_tune.engine.worker import MAX_ATTEMPTS

SELECTABLE = (Phase.default, Phase.design, Phase.search)
"""Phases among which the best point is chosen; repeats are fresh seeds, free of that selection."""
COMPETING = (Phase.design, Phase.search, Phase.refine)
"""Phases whose trials compete at rungs, but for those that are audited."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Plan of a cell: everything it is owed; the same for all cells."""

    epochs: int
    design: int
    search: int
    refine: int
    """Trials at the best point that vary the optimizer's own hyper-parameters."""
    repeats_best: int
    repeats_default: int
    audit: float
    """Share of design, search and refine trials that is exempt from stopping."""
    rungs: tuple[int, ...]
    """Budgets at which trials compete; empty when nothing is stopped."""
    reduction_factor: int
    sampler: str
    seed: int

    def trials(self, records: Iterable[TrialRecord]) -> int:
        """Count the trials a cell with these records comes to in all: a cell without a best point has none to refine
        or repeat, and one where no refined setting got to its end has none of these to repeat."""
        records = list(records)
        ended = [r for r in records if r.phase in SELECTABLE and r.status != TrialStatus.running]
        total = 1 + self.design + self.search + self.repeats_default
        best = best_record(ended)
        if best is None and len(ended) >= 1 + self.design + self.search:
            return total
        total += self.repeats_best + self.refine
        is_fruitless = len(refined_at(best, ended_of(records))) >= self.refine and refined_best(best, records) is None
        return total + (0 if is_fruitless else self.repeats_best)


@dataclass(frozen=True, slots=True, kw_only=True)
class CellPlan:
    """One cell: what is trained, over which space."""

    cell: Cell
    space: SearchSpace
    settings: Mapping[str, Any]
    plan: Plan
    data_options: Mapping[str, Any] = field(default_factory=dict)
    """Options of the data that change no result, as those of a trial."""
    weights: str = ""
    """Path of the weights that its trials start from, as that of a trial."""

    def trial(self, phase: Phase, index: int, hparams: Mapping[str, float], *, seed: int | None = None) -> TrialSpec:
        """Make the trial of one place in the plan. Seeds are shared, so that cells are compared pairwise."""
        audit = phase in COMPETING and is_audited(self.plan, self.cell, phase, index)
        exempt = audit or phase in (Phase.default, Phase.repeat)
        return TrialSpec(
            cell=self.cell,
            phase=phase,
            index=index,
            hparams=hparams,
            seed=derive_seed(self.plan.seed, phase, index) if seed is None else seed,
            budget=self.plan.epochs,
            settings=self.settings,
            rungs=() if exempt else self.plan.rungs,
            audit=audit,
            data_options=self.data_options,
            weights=self.weights,
        )


class Turn(StrEnum):
    """Why a cell has no trial to start now."""

    wait = "wait"
    """Trials in flight must end first."""
    done = "done"
    """Nothing is owed."""


def rung_budgets(grace: int, reduction_factor: int, epochs: int) -> tuple[int, ...]:
    """Return the budgets at which trials compete: `grace * reduction_factor**k` below the full budget (ASHA,
    arXiv:1810.05934).
    """
    rungs = []
    budget = grace
    while budget < epochs:
        rungs.append(budget)
        budget *= reduction_factor
    return tuple(rungs)


def is_audited(plan: Plan, cell: Cell, phase: Phase, index: int) -> bool:
    """Tell whether a trial is exempt from stopping: a systematic sample with a random start in each cell.

    Every trial has the same chance, and of any n consecutive trials of a cell n x share are drawn, up to one.
    """
    place = plan.design + index if phase == Phase.search else index
    purpose = "audit" if phase in SELECTABLE else f"audit {phase}"
    start = derive_seed(plan.seed, purpose, cell.key) / 2**31
    return math.floor((place + 1) * plan.audit + start) > math.floor(place * plan.audit + start)


def owed_design(
    cell: CellPlan, points: Sequence[Mapping[str, float]], records: Mapping[str, TrialRecord]
) -> TrialSpec | None:
    """Return the first trial of the default and design phases that has no record yet."""
    planned = [cell.trial(Phase.default, 0, cell.space.default)]
    planned += [cell.trial(Phase.design, index, point) for index, point in enumerate(points)]
    return next((trial for trial in planned if trial.id not in records), None)


def owed_search(plan: Plan, records: Mapping[str, TrialRecord]) -> int | None:
    """Return the index of the first search trial that has no record yet."""
    taken = {record.index for record in records.values() if record.phase == Phase.search}
    return next((index for index in range(plan.search) if index not in taken), None)


def _searches(records: Mapping[str, TrialRecord]) -> bool:
    """Tell whether a trial is in flight that may still become the best point."""
    return any(record.phase in SELECTABLE and record.status == TrialStatus.running for record in records.values())


def owed_refine(plan: Plan, records: Mapping[str, TrialRecord]) -> tuple[TrialRecord, int] | None:
    """Return the best point and the index of its first refine trial that has no record yet, once every selectable
    trial has ended.
    """
    best = None if _searches(records) else best_record(records.values())
    if best is None:
        return None
    taken = {record.index for record in refined_at(best, records.values())}
    return next(((best, index) for index in range(plan.refine) if index not in taken), None)


def owed_repeat(cell: CellPlan, records: Mapping[str, TrialRecord]) -> TrialSpec | Turn:
    """Return the next fresh seed, once every selectable trial has ended: at the best point, at the default and, once
    every refine trial has ended, at the refined best, with the seeds of the best.
    """
    if _searches(records):
        return Turn.wait
    best = best_record(records.values())
    planned = _repeats(cell, best.hparams, cell.plan.repeats_best, "best") if best else []
    planned += _repeats(cell, cell.space.default, cell.plan.repeats_default, "default")
    refines = refined_at(best, records.values())
    if len(ended_of(refines)) == len(refines) and (refined := refined_best(best, refines)):
        planned += _repeats(cell, refined.hparams, cell.plan.repeats_best, "best")
    owed = next((trial for trial in planned if trial.id not in records), None)
    if owed is not None:
        return owed
    in_flight = any(record.status == TrialStatus.running for record in records.values())
    return Turn.wait if in_flight else Turn.done


def standing(cell: CellPlan, points: Sequence[Mapping[str, float]], records: Mapping[str, TrialRecord]) -> Turn | None:
    """Say why a cell has no trial to start now; None if it has one."""
    if owed_design(cell, points, records) or owed_search(cell.plan, records) is not None:
        return None
    owed = owed_refine(cell.plan, records) or owed_repeat(cell, records)
    return owed if isinstance(owed, Turn) else None


def _repeats(cell: CellPlan, point: Mapping[str, float], count: int, which: str) -> list[TrialSpec]:
    seeds = [derive_seed(cell.plan.seed, Phase.repeat, which, index) for index in range(count)]
    return [cell.trial(Phase.repeat, index, point, seed=seed) for index, seed in enumerate(seeds)]


def ended_of(records: Iterable[TrialRecord]) -> list[TrialRecord]:
    """List the records of trials that are over."""
    return [record for record in records if record.status != TrialStatus.running]


def refined_at(best: TrialRecord | None, records: Iterable[TrialRecord]) -> list[TrialRecord]:
    """List the refine trials at the best point: an extended run may hold others, at what was the best before."""
    return [r for r in records if r.phase == Phase.refine and best is not None and r.point == best.point]


def refined_best(best: TrialRecord | None, records: Iterable[TrialRecord]) -> TrialRecord | None:
    """Find the refine trial at the best point with the highest score at the full budget; of equals the first.

    It is repeated whether or not it beat the best: their fresh seeds say which of the two is better.
    """
    full = [r for r in refined_at(best, records) if r.status == TrialStatus.completed and r.score is not None]
    return max(full, key=lambda record: (record.score, -record.index), default=None)


def worth_keeping(records: Iterable[TrialRecord]) -> list[TrialRecord]:
    """List the trials whose checkpoints are kept: the best of the cell, and the best refined."""
    records = list(records)
    best = best_record(records)
    return [record for record in (best, refined_best(best, records)) if record is not None]


def best_record(records: Iterable[TrialRecord]) -> TrialRecord | None:
    """Find the selectable trial with the highest validation score at the full budget.

    Of equals the one with the smaller learning rate, then the smaller weight decay: the analysis chooses the same.
    """
    full = [r for r in records if r.phase in SELECTABLE and r.status == TrialStatus.completed and r.score is not None]
    return max(full, key=merit, default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """Information that a sampler gets of a record."""

    state: str
    """`complete`, `pruned`, `running` or `fail`, in Optuna's words."""
    value: float | None = None
    intermediate: Mapping[int, float] | None = None
    """Score by budget: the rung at which a stopped trial lost."""


def observation(record: TrialRecord, objective: Objective) -> Observation:
    """Say what a sampler learns of a trial: a diverged one is complete at the floor; a stopped one pruned with its
    rung's score, never complete with it.
    """
    if record.status == TrialStatus.completed:
        return Observation(state="complete", value=record.score)
    if record.status == TrialStatus.diverged:
        return Observation(state="complete", value=objective.floor)
    if record.status == TrialStatus.stopped:
        assert record.score is not None, record.id
        return Observation(state="pruned", value=record.score, intermediate={record.budget: record.score})
    if record.status == TrialStatus.running:
        return Observation(state="running")
    return Observation(state="fail")


def rung_after(rungs: Sequence[int], budget: int) -> int | None:
    """Return the first rung at or after `budget`: where a trial that diverged within that epoch would have competed
    next.
    """
    return next((rung for rung in rungs if rung >= budget), None)


USUAL_EPOCHS = 10
"""Epochs of the usual length that a group may be silent for."""


def patience_s(records: Iterable[TrialRecord], patience_min: float) -> float:
    """Return the seconds that a trial may take without a sign of life, after what those of its cell took an epoch."""
    epochs = [record.elapsed_s / record.budget for record in records if record.budget]
    return max(60 * patience_min, USUAL_EPOCHS * (statistics.median(epochs) if epochs else 0.0))


HOPELESS_TRIALS = 8
HOPELESS_BACKBONES = 3
"""Failed trials in a row, and backbones among them, after which a run is given up."""


def is_hopeless(ended: Sequence[TrialRecord], backbones: int) -> bool:
    """Tell whether a run should start no more trials when the last, in a row, ended so: all failed, on several
    backbones.

    Trials out of memory do not count: a smaller backbone of the `backbones` of the run may well fit.
    """
    failed = all(record.status == TrialStatus.failed for record in ended)
    tried = {record.cell.backbone for record in ended}
    return failed and len(ended) >= HOPELESS_TRIALS and len(tried) >= min(HOPELESS_BACKBONES, backbones)


def may_retry(status: TrialStatus, tries: int, *, crashed: bool) -> bool:
    """Tell whether a trial that did not end by itself is started again within this run.

    An error of its own is tried twice, as is running out of memory (the second time with half the micro-batch); the
    death of a worker, which may be anybody's fault, three times.
    """
    assert status in (TrialStatus.failed, TrialStatus.oom), status
    return tries < (MAX_ATTEMPTS if crashed else 2)
