"""Records and scores made up for tests of what is decided from them."""

from __future__ import annotations

from collections.abc import Sequence

from bocb_tune.core.types import Phase, TrialRecord, TrialSpec, TrialStatus
from bocb_tune.engine.policy import CellPlan
from tests.support.simulated import OBJECTIVE, make_cells, make_plan


def make_cell(backbone: str = "bowl", optimizer: str = "sgd", **plan: object) -> CellPlan:
    (cell,) = make_cells(make_plan(**plan), (backbone,), (optimizer,))
    return cell


def record_of(
    trial: TrialSpec, status: TrialStatus, score: float | None = None, *, budget: int | None = None
) -> TrialRecord:
    """What a trial leaves when it ends so: at the full budget if it was completed, else after one epoch."""
    reached = budget or (trial.budget if status == TrialStatus.completed else 1)
    return TrialRecord(
        id=trial.id,
        cell=trial.cell,
        phase=trial.phase,
        index=trial.index,
        hparams=trial.hparams,
        seed=trial.seed,
        max_budget=trial.budget,
        audit=trial.audit,
        status=status,
        budget=reached,
        score=OBJECTIVE.floor if status == TrialStatus.diverged else score,
        elapsed_s=float(reached),
    )


def by_id(*records: TrialRecord) -> dict[str, TrialRecord]:
    return {record.id: record for record in records}


def points(cell: CellPlan, count: int) -> list[dict[str, float]]:
    """Distinct points of a cell's space, along a diagonal."""
    return [cell.space.from_unit(((i + 0.5) / count, 0.2 + 0.7 * i / count)) for i in range(count)]


def selectable_records(cell: CellPlan, scores: Sequence[float | None]) -> list[TrialRecord]:
    """A completed record for the default, each design and each search trial, in this order; diverged where None."""
    plan = cell.plan
    places = [(Phase.default, 0)]
    places += [(Phase.design, index) for index in range(plan.design)]
    places += [(Phase.search, index) for index in range(plan.search)]
    hparams = [cell.space.default, *points(cell, plan.design + plan.search)]
    trials = [cell.trial(phase, index, point) for (phase, index), point in zip(places, hparams, strict=True)]
    return [
        record_of(trial, TrialStatus.diverged if score is None else TrialStatus.completed, score)
        for trial, score in zip(trials, scores, strict=True)
    ]
