"""The engine's decisions, one table or one law each. No Ray, no Optuna, no files."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bocb_tune.core.types import Cell, Phase, TrialRecord, TrialSpec, TrialStatus
from bocb_tune.engine import policy
from bocb_tune.engine.policy import (
    Observation,
    Turn,
    best_record,
    is_audited,
    may_retry,
    observation,
    rung_after,
    rung_budgets,
)
from tests.support.records import by_id, make_cell, points, record_of, selectable_records
from tests.support.simulated import OBJECTIVE, make_plan


@pytest.mark.parametrize(
    ("grace", "reduction_factor", "epochs", "rungs"),
    [
        (1, 3, 27, (1, 3, 9)),  # the full budget is no rung
        (1, 3, 28, (1, 3, 9, 27)),
        (1, 3, 243, (1, 3, 9, 27, 81)),
        (2, 2, 16, (2, 4, 8)),
        (5, 4, 100, (5, 20, 80)),
        (1, 2, 2, (1,)),
        (1, 2, 1, ()),
        (9, 3, 9, ()),
    ],
)
def test_rungs_are_powers_below_the_full_budget(
    grace: int, reduction_factor: int, epochs: int, rungs: tuple[int, ...]
) -> None:
    assert rung_budgets(grace, reduction_factor, epochs) == rungs


@pytest.mark.parametrize(
    ("budget", "rung"), [(1, 1), (2, 3), (3, 3), (4, 9), (9, 9), (10, None)], ids=lambda value: str(value)
)
def test_a_divergence_counts_at_the_next_rung(budget: int, rung: int | None) -> None:
    assert rung_after((1, 3, 9), budget) == rung


def cell_named(number: int) -> Cell:
    return Cell(task="t", dataset="d", backbone=f"b{number}", optimizer="o")


def audited(share: float, cell: Cell, count: int, design: int = 8) -> list[bool]:
    """Which of the first `count` places of a cell are audited: first design, then search."""
    plan = make_plan(audit=share, design=design)
    places = [(Phase.design, i) for i in range(design)] + [(Phase.search, i) for i in range(count - design)]
    return [is_audited(plan, cell, phase, index) for phase, index in places]


@given(share=st.floats(0, 1), number=st.integers(0, 10**6))
def test_of_any_n_consecutive_trials_n_times_the_share_is_audited_up_to_one(share: float, number: int) -> None:
    drawn = list(itertools.accumulate(audited(share, cell_named(number), 40), initial=0))
    for first, last in itertools.combinations(range(41), 2):
        assert abs(drawn[last] - drawn[first] - share * (last - first)) < 1 + 1e-9


@pytest.mark.parametrize("share", [0.1, 0.37])
def test_every_place_is_audited_with_the_same_frequency_over_cells(share: float) -> None:
    cells = 1500
    drawn = [audited(share, cell_named(number), 20) for number in range(cells)]
    four_sd = 4 * math.sqrt(share * (1 - share) / cells)
    for place in zip(*drawn, strict=True):
        assert abs(sum(place) / cells - share) < four_sd


def test_only_trials_that_compete_are_audited_and_audit_means_no_rungs() -> None:
    everything = make_cell(audit=1.0)
    nothing = make_cell(audit=0.0)
    for phase in Phase:
        competes = phase in (Phase.design, Phase.search, Phase.refine)
        sample = everything.trial(phase, 3, everything.space.default)
        assert (sample.audit, sample.rungs) == (competes, ())
        sample = nothing.trial(phase, 3, nothing.space.default)
        assert (sample.audit, sample.rungs) == (False, nothing.plan.rungs if competes else ())


def test_seeds_are_shared_between_cells_and_differ_between_places() -> None:
    cells = [make_cell(backbone, optimizer) for backbone in ("bowl", "ridge") for optimizer in ("sgd", "adamw")]
    places = [(phase, index) for phase in Phase for index in range(5)]
    seeds = {place: {cell.trial(*place, cell.space.default).seed for cell in cells} for place in places}
    assert all(len(of_place) == 1 for of_place in seeds.values())
    assert len(set().union(*seeds.values())) == len(places)


def some_trial() -> TrialSpec:
    return make_cell().trial(Phase.search, 0, {"lr": 0.1, "weight_decay": 0.0})


@pytest.mark.parametrize(
    ("status", "score", "expected"),
    [
        (TrialStatus.completed, 70.5, Observation(state="complete", value=70.5)),
        (TrialStatus.diverged, None, Observation(state="complete", value=OBJECTIVE.floor)),
        (TrialStatus.stopped, 12.5, Observation(state="pruned", value=12.5, intermediate={1: 12.5})),
        (TrialStatus.running, None, Observation(state="running")),
        (TrialStatus.failed, None, Observation(state="fail")),
        (TrialStatus.oom, None, Observation(state="fail")),
    ],
)
def test_what_a_sampler_is_told(status: TrialStatus, score: float | None, expected: Observation) -> None:
    assert observation(record_of(some_trial(), status, score), OBJECTIVE) == expected


def test_every_status_has_something_to_tell() -> None:
    for status in TrialStatus:
        assert observation(record_of(some_trial(), status, 1.0), OBJECTIVE).state in (
            "complete",
            "pruned",
            "running",
            "fail",
        )


def scored(*outcomes: tuple[Phase, TrialStatus, float | None]) -> list[TrialRecord]:
    cell = make_cell()
    return [
        record_of(cell.trial(phase, index, {"lr": 0.1, "weight_decay": 0.0}), status, score)
        for index, (phase, status, score) in enumerate(outcomes)
    ]


@pytest.mark.parametrize(
    ("outcomes", "best"),
    [
        ([], None),
        ([(Phase.design, TrialStatus.completed, 50.0), (Phase.search, TrialStatus.completed, 60.0)], 1),
        ([(Phase.design, TrialStatus.completed, 50.0), (Phase.search, TrialStatus.stopped, 90.0)], 0),
        ([(Phase.design, TrialStatus.completed, 50.0), (Phase.repeat, TrialStatus.completed, 90.0)], 0),
        ([(Phase.design, TrialStatus.diverged, None)], None),
        ([(Phase.design, TrialStatus.running, None), (Phase.design, TrialStatus.failed, None)], None),
        ([(Phase.design, TrialStatus.completed, -3.0), (Phase.search, TrialStatus.completed, 0.0)], 1),
        ([(Phase.design, TrialStatus.completed, -3.0), (Phase.search, TrialStatus.completed, -2.0)], 1),
    ],
)
def test_the_best_is_chosen_among_full_budgets_of_the_selectable_phases(
    outcomes: Sequence[tuple[Phase, TrialStatus, float | None]], best: int | None
) -> None:
    records = scored(*outcomes)
    assert best_record(records) == (None if best is None else records[best])


@pytest.mark.parametrize(
    ("points", "best"),
    [([(0.2, 0.0), (0.1, 1e-3), (0.3, 0.0)], 1), ([(0.1, 1e-3), (0.1, 1e-5), (0.1, 1e-4)], 1)],
)
def test_of_equals_the_smaller_learning_rate_then_the_smaller_decay_is_best(
    points: list[tuple[float, float]], best: int
) -> None:
    cell = make_cell()
    trials = [cell.trial(Phase.search, i, {"lr": lr, "weight_decay": decay}) for i, (lr, decay) in enumerate(points)]
    records = [record_of(trial, TrialStatus.completed, 60.0) for trial in trials]
    assert best_record(records) == best_record(records[::-1]) == records[best]


def test_phases_are_owed_in_order_and_each_place_once() -> None:
    cell = make_cell(design=3, search=2)
    design = points(cell, 3)
    records: dict[str, TrialRecord] = {}
    handed_out = []
    while (trial := policy.owed_design(cell, design, records)) is not None:
        handed_out.append((trial.phase, trial.index, trial.hparams))
        records[trial.id] = record_of(trial, TrialStatus.running)
    assert handed_out == [
        (Phase.default, 0, cell.space.default),
        *((Phase.design, index, point) for index, point in enumerate(design)),
    ]
    for expected in (0, 1):
        index = policy.owed_search(cell.plan, records)
        assert index == expected
        trial = cell.trial(Phase.search, index, points(cell, 7)[index])
        records[trial.id] = record_of(trial, TrialStatus.running)
    assert policy.owed_search(cell.plan, records) is None
    assert policy.owed_repeat(cell, records) == Turn.wait


def test_a_place_that_was_lost_is_owed_again() -> None:
    cell = make_cell(search=3)
    trials = [cell.trial(Phase.search, index, point) for index, point in enumerate(points(cell, 3))]
    records = by_id(*(record_of(trial, TrialStatus.completed, 50.0) for trial in (trials[0], trials[2])))
    assert policy.owed_search(cell.plan, records) == 1


def handed_out_repeats(cell: policy.CellPlan, records: dict[str, TrialRecord]) -> list[TrialSpec]:
    trials = []
    while isinstance(trial := policy.owed_repeat(cell, records), TrialSpec):
        trials.append(trial)
        records[trial.id] = record_of(trial, TrialStatus.completed, 99.0)
    assert trial == Turn.done
    return trials


def test_repeats_are_fresh_seeds_at_the_best_point_and_at_the_default() -> None:
    cell = make_cell(design=3, search=2, repeats_best=2, repeats_default=3)
    records = selectable_records(cell, [50.0, 60.0, 70.0, 65.0, 40.0, None])
    trials = handed_out_repeats(cell, by_id(*records))
    assert [trial.hparams for trial in trials] == [records[2].hparams] * 2 + [cell.space.default] * 3
    assert [trial.index for trial in trials] == [0, 1, 0, 1, 2]
    seeds = {trial.seed for trial in trials} | {record.seed for record in records}
    assert len(seeds) == len(trials) + len(records)
    assert all(trial.rungs == () for trial in trials)


def test_a_cell_without_a_best_point_repeats_its_default_alone() -> None:
    cell = make_cell(design=3, search=2, repeats_best=2, repeats_default=1)
    records = selectable_records(cell, [None] * 6)
    assert [trial.hparams for trial in handed_out_repeats(cell, by_id(*records))] == [cell.space.default]


def test_repeats_wait_for_every_trial_that_may_become_the_best() -> None:
    cell = make_cell(design=3, search=2)
    *ended, last = selectable_records(cell, [50.0, 60.0, 70.0, 65.0, 40.0, 30.0])
    running = replace(last, status=TrialStatus.running, score=None)
    assert policy.owed_repeat(cell, by_id(*ended, running)) == Turn.wait
    assert isinstance(policy.owed_repeat(cell, by_id(*ended, last)), TrialSpec)


def test_a_cell_is_not_done_while_a_repeat_runs() -> None:
    cell = make_cell(design=3, search=2, repeats_best=1, repeats_default=0)
    records = by_id(*selectable_records(cell, [50.0, 60.0, 70.0, 65.0, 40.0, 30.0]))
    repeat = policy.owed_repeat(cell, records)
    assert isinstance(repeat, TrialSpec)
    records[repeat.id] = record_of(repeat, TrialStatus.running)
    assert policy.owed_repeat(cell, records) == Turn.wait
    records[repeat.id] = record_of(repeat, TrialStatus.failed)
    assert policy.owed_repeat(cell, records) == Turn.done


@pytest.mark.parametrize(
    ("scores", "trials"),
    [
        ([], 1 + 3 + 2 + 4 + 1),
        ([50.0, None, None], 1 + 3 + 2 + 4 + 1),
        ([None] * 6, 1 + 3 + 2 + 1),  # nothing to repeat but the default
        ([None] * 5 + [50.0], 1 + 3 + 2 + 4 + 1),
    ],
)
def test_how_many_trials_a_cell_comes_to(scores: list[float | None], trials: int) -> None:
    cell = make_cell(design=3, search=2, repeats_best=4, repeats_default=1)
    records = selectable_records(cell, [*scores, *[None] * (6 - len(scores))])[: len(scores)]
    assert cell.plan.trials(records) == trials


@pytest.mark.parametrize(
    ("status", "crashed", "starts"),
    [
        (TrialStatus.failed, False, 2),
        (TrialStatus.oom, False, 2),
        (TrialStatus.failed, True, 3),
        (TrialStatus.oom, True, 3),
    ],
)
def test_how_often_a_trial_is_started(status: TrialStatus, crashed: bool, starts: int) -> None:
    assert [may_retry(status, tries, crashed=crashed) for tries in range(1, 5)] == [
        tries < starts for tries in range(1, 5)
    ]


def failed_trials(*backbones: str) -> list[TrialRecord]:
    cells = [make_cell(backbone, design=4) for backbone in backbones]
    trials = [cell.trial(Phase.design, index, cell.space.default) for index, cell in enumerate(cells)]
    return [record_of(trial, TrialStatus.failed) for trial in trials]


@pytest.mark.parametrize(
    ("tried", "backbones", "is_hopeless"),
    [
        (["a"] * 8, 1, True),
        (["a"] * 7, 1, False),
        (["a"] * 28, 20, False),  # it may be that backbone's own fault
        (["a"] * 7 + ["b"], 2, True),
        (["a"] * 7 + ["b"], 20, False),
        (["a"] * 6 + ["b", "c"], 20, True),
    ],
)
def test_a_run_is_given_up_when_all_fail_on_several_backbones(
    tried: list[str], backbones: int, is_hopeless: bool
) -> None:
    assert policy.is_hopeless(failed_trials(*tried), backbones) is is_hopeless


@pytest.mark.parametrize("status", [status for status in TrialStatus if status != TrialStatus.failed])
def test_one_trial_that_did_not_fail_keeps_a_run_going(status: TrialStatus) -> None:
    records = failed_trials(*"aaabbbccc")
    for place in range(len(records)):
        mixed = [replace(record, status=status) if i == place else record for i, record in enumerate(records)]
        assert not policy.is_hopeless(mixed, 3)
