"""The estimate of the time a run still takes, against sums done by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bocb_tune.cli.time_left import expected_epochs, seconds_left, work_of
from bocb_tune.core.types import Phase, TrialRecord, TrialStatus
from tests.support.records import make_cell, record_of

CELL = make_cell(epochs=9, design=4, search=4, audit=0.0, repeats_best=2, repeats_default=1)
PLAN = CELL.plan
HALVING = 1 + 2 / 3 + 6 / 9
"""Epochs of a trial on average if one in three goes on at each of the rungs 1 and 3."""


def record(phase: Phase, index: int, status: TrialStatus, budget: int, seconds: float) -> TrialRecord:
    made = record_of(CELL.trial(phase, index, CELL.space.default), status, 50.0, budget=budget)
    return replace(made, elapsed_s=seconds, id=f"{phase}{index}")


DEFAULT = record(Phase.default, 0, TrialStatus.completed, 9, 18.0)
STOPPED = [record(Phase.design, index, TrialStatus.stopped, 1, 2.0) for index in range(2)]


def test_nothing_is_known_before_the_first_epoch() -> None:
    assert seconds_left(PLAN, [work_of(PLAN, [])], 2) is None


def test_trials_to_the_end_and_trials_that_compete_are_counted_apart() -> None:
    """Owed: 3 repeats of 9 epochs, and 6 trials that compete; an epoch takes 2 s."""
    work = work_of(PLAN, [DEFAULT, *STOPPED])
    share = (2 + 3 * HALVING) / 5
    assert expected_epochs(PLAN, [work]) == pytest.approx(share)
    assert seconds_left(PLAN, [work], 1) == pytest.approx(2 * (27 + 6 * share))
    assert seconds_left(PLAN, [work], 3) == pytest.approx(2 * (27 + 6 * share) / 3)


def test_what_those_in_flight_have_done_is_not_owed() -> None:
    running = record(Phase.repeat, 0, TrialStatus.running, 4, 8.0)
    idle, busy = (work_of(PLAN, [DEFAULT, *more]) for more in ([], [running]))
    assert idle.owed_epochs - busy.owed_epochs == 4


def test_a_failed_trial_that_is_tried_again_is_owed() -> None:
    failed = record(Phase.repeat, 0, TrialStatus.failed, 9, 18.0)
    ended, again = work_of(PLAN, [DEFAULT, failed]), work_of(PLAN, [DEFAULT, failed], frozenset({failed.id}))
    assert (ended.owed_epochs, again.owed_epochs) == (18, 27)


def test_a_cell_without_an_epoch_takes_what_the_grid_took() -> None:
    known, unknown = work_of(PLAN, [DEFAULT, *STOPPED]), work_of(PLAN, [])
    both, one = (seconds_left(PLAN, cells, 1) for cells in ([known, unknown], [known]))
    assert both is not None
    assert one is not None
    share = expected_epochs(PLAN, [known])
    assert both - one == pytest.approx(2 * (4 * 9 + 8 * share))


def test_nothing_left_is_no_time() -> None:
    ends = [record(phase, index, TrialStatus.completed, 9, 9.0) for phase in Phase for index in range(8)]
    assert seconds_left(PLAN, [work_of(PLAN, ends)], 1) == 0


def test_without_rungs_every_trial_runs_to_the_end() -> None:
    plan = replace(PLAN, rungs=(), reduction_factor=1)
    assert work_of(plan, [DEFAULT]).owed_epochs == 9 * (8 + 3)
