"""Time that a run will still take: one estimate, for the run itself and for those who look at its files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bocb_tune.core.types import TrialRecord, TrialStatus
from bocb_tune.engine.policy import COMPETING, Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Epochs a cell has trained and still owes, apart for trials that run to the end and those that compete."""

    epochs: int
    """Epochs trained."""
    seconds: float
    """Seconds they took, summed over trials."""
    stopped_early: int
    """Trials that competed at rungs and ended."""
    their_epochs: int
    """Epochs those reached."""
    owed_epochs: int
    """Epochs owed by trials that run to the end, less what those in flight have done."""
    owed_competing: int
    """Trials owed that compete at rungs."""
    done_by_competing: int
    """Epochs that those in flight have done."""


def work_of(
    plan: Plan, records: Iterable[TrialRecord], owed_again: frozenset[str] = frozenset(), superseded: int = 0
) -> Work:
    """Sum up a cell.

    Args:
        plan: what the cell is owed.
        records: those of the cell.
        owed_again: ids of failed trials that this run is still to try again.
        superseded: design trials of an earlier range, beyond what the plan counts.
    """
    records = list(records)
    ended = [r for r in records if r.status != TrialStatus.running and r.id not in owed_again]
    running = [r for r in records if r.status == TrialStatus.running]
    competed = [record for record in ended if _competes(plan, record)]
    contested = plan.design + plan.search + plan.refine + superseded
    competing = round((1 - plan.audit) * contested) if plan.rungs else 0
    to_the_end = plan.trials(records) + superseded - competing - (len(ended) - len(competed))
    in_flight = sum(record.budget for record in running if not _competes(plan, record))
    return Work(
        epochs=sum(record.budget for record in records),
        seconds=sum(record.elapsed_s for record in records),
        stopped_early=len(competed),
        their_epochs=sum(record.budget for record in competed),
        owed_epochs=max(0, to_the_end * plan.epochs - in_flight),
        owed_competing=max(0, competing - len(competed)),
        done_by_competing=sum(record.budget for record in running if _competes(plan, record)),
    )


def _competes(plan: Plan, record: TrialRecord) -> bool:
    return bool(plan.rungs) and record.phase in COMPETING and not record.audit


def expected_epochs(plan: Plan, cells: Sequence[Work]) -> float:
    """Estimate the epochs of a trial that competes: the mean of those that ended, the halving's own expectation as
    `eta` of them.

    One in `eta` of those that reach a rung goes on from it.
    """
    ends = zip((0, *plan.rungs), (*plan.rungs, plan.epochs), strict=True)
    eta = plan.reduction_factor
    prior = sum((end - start) / float(eta**passed) for passed, (start, end) in enumerate(ends))
    number, epochs = sum(cell.stopped_early for cell in cells), sum(cell.their_epochs for cell in cells)
    return (epochs + eta * prior) / (number + eta)


def seconds_left(plan: Plan, cells: Sequence[Work], slots: int) -> float | None:
    """Estimate the seconds to the end of a run with `slots` trials at a time.

    An epoch takes what it took in its cell so far, before the cell's first what it took in the grid; None before any.
    Not counted is what passes between trials.
    """
    epochs, seconds = sum(cell.epochs for cell in cells), sum(cell.seconds for cell in cells)
    if not epochs or not slots:
        return None
    share = expected_epochs(plan, cells)
    left = 0.0
    for cell in cells:
        pace = cell.seconds / cell.epochs if cell.epochs else seconds / epochs
        left += pace * (cell.owed_epochs + max(0.0, cell.owed_competing * share - cell.done_by_competing))
    return left / slots
