"""Early stopping: decisions equal those of a slow ASHA written out below; what Ray's own gets wrong is right here."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler

from bocb_tune.core.journal import read_run
from bocb_tune.core.types import Phase, TrialStatus
from bocb_tune.engine.asha import CellRungs
from bocb_tune.engine.policy import Plan, rung_budgets
from tests.support.simulated import Simulation, make_cells, make_plan

FLOOR = 1.0


class Reference:
    """ASHA with early stopping (arXiv:1810.05934, section 3.3, in its stopping form), as plainly as it can be said.

    At a rung a trial is compared with the scores that reached the rung before it: it stops below their quantile
    1 - 1 / reduction_factor, linearly interpolated. The first to reach a rung goes on.
    """

    def __init__(self, rungs: tuple[int, ...], reduction_factor: int) -> None:
        self.scores: dict[int, dict[str, float]] = {rung: {} for rung in rungs}
        self.quantile = 1 - 1 / reduction_factor

    def stops(self, trial: str, budget: int, score: float) -> bool:
        if budget not in self.scores or trial in self.scores[budget]:
            return False
        earlier = sorted(self.scores[budget].values())
        self.scores[budget][trial] = score
        if not earlier:
            return False
        place = self.quantile * (len(earlier) - 1)
        below, above = earlier[math.floor(place)], earlier[math.ceil(place)]
        return score < below + (above - below) * (place - math.floor(place))


def stream(rng: random.Random, plan: Plan, trials: int) -> Iterator[tuple[str, Phase, int, float | None]]:
    """Epochs of many trials, a few at a time in random order: (trial, phase, budget, score); None: it diverged."""
    waiting = [(f"t{number}", rng.choice(list(Phase))) for number in range(trials)]
    running: list[tuple[str, Phase, int]] = []
    while waiting or running:
        if waiting and (len(running) < 4 or rng.random() < 0.2):
            running.append((*waiting.pop(0), 0))
        trial, phase, done = running.pop(rng.randrange(len(running)))
        diverges = rng.random() < 0.03
        yield trial, phase, done + 1, None if diverges else rng.uniform(0.0, 40.0)
        if not diverges and done + 1 < plan.epochs:
            running.append((trial, phase, done + 1))


@given(
    seed=st.integers(0, 10**6),
    grace=st.integers(1, 3),
    reduction_factor=st.integers(2, 4),
    epochs=st.integers(2, 30),
)
def test_decisions_equal_the_reference(seed: int, grace: int, reduction_factor: int, epochs: int) -> None:
    rungs = rung_budgets(grace, reduction_factor, epochs)
    plan = make_plan(epochs=epochs, rungs=rungs, reduction_factor=reduction_factor)
    tested, references = CellRungs(plan, FLOOR), [Reference(rungs, reduction_factor) for _ in range(2)]
    stopped = set()
    for trial, phase, budget, score in stream(random.Random(seed), plan, trials=25):
        tested.add(trial, phase)
        reference = references[phase == Phase.refine]
        if trial in stopped:
            continue
        if score is None:
            tested.diverged(trial, budget)
            at = next((rung for rung in rungs if rung >= budget), None)
            if at is not None and phase != Phase.repeat:
                reference.stops(trial, at, FLOOR)
            continue
        expected = phase != Phase.repeat and reference.stops(trial, budget, score)
        assert tested.stops(trial, budget, score) == expected, (trial, budget, score)
        if expected:
            stopped.add(trial)
    searched, refined = (reference.scores for reference in references)
    assert tested.table() == ({at: searched[at] | refined[at] for at in rungs} if rungs else {})


def test_a_stream_stops_trials_and_lets_others_through() -> None:
    """What the law above is tested on is not trivial."""
    plan = make_plan(epochs=27, rungs=(1, 3, 9))
    rungs, answers = CellRungs(plan, FLOOR), Counter[bool]()
    for trial, phase, budget, score in stream(random.Random(0), plan, trials=40):
        rungs.add(trial, phase)
        answers[rungs.stops(trial, budget, FLOOR if score is None else score)] += budget in plan.rungs
    assert min(answers[True], answers[False]) > 10


def test_an_equal_score_goes_on() -> None:
    rungs = rungs_after(50.0, 50.0)
    rungs.add("equal", Phase.search)
    assert not rungs.stops("equal", 1, 50.0)


def rungs_after(*scores: float) -> CellRungs:
    """Rungs 1, 3, 9 of which the first is reached with these scores."""
    rungs = CellRungs(make_plan(epochs=27, rungs=(1, 3, 9)), FLOOR)
    for number, score in enumerate(scores):
        rungs.add(f"t{number}", Phase.search)
        rungs.stops(f"t{number}", 1, score)
    return rungs


@pytest.mark.parametrize(("budget", "rung"), [(1, 1), (2, 3), (3, 3), (5, 9), (10, None)])
def test_a_diverged_trial_counts_at_the_floor_at_the_next_rung(budget: int, rung: int | None) -> None:
    rungs = rungs_after(50.0)
    rungs.add("lost", Phase.search)
    rungs.diverged("lost", budget)
    assert {at: scores["lost"] for at, scores in rungs.table().items() if "lost" in scores} == (
        {} if rung is None else {rung: FLOOR}
    )


def test_a_diverged_trial_lowers_the_bar_for_those_that_come_after() -> None:
    rungs = rungs_after(50.0, 60.0)
    rungs.add("late", Phase.search)
    assert rungs.stops("late", 1, 55.0)
    rungs = rungs_after(50.0, 60.0)
    rungs.add("lost", Phase.search)
    rungs.diverged("lost", 1)
    rungs.add("late", Phase.search)
    assert not rungs.stops("late", 1, 55.0)


def test_repeats_are_not_recorded_and_never_stopped() -> None:
    rungs = rungs_after(50.0, 60.0)
    rungs.add("repeat", Phase.repeat)
    assert not rungs.stops("repeat", 1, 0.0)
    assert "repeat" not in rungs.table()[1]


def test_a_rung_is_decided_once() -> None:
    rungs = rungs_after(50.0, 60.0)
    rungs.add("late", Phase.search)
    assert rungs.stops("late", 1, 10.0)
    assert not rungs.stops("late", 1, 10.0)
    assert rungs.table()[1]["late"] == 10.0


def test_without_rungs_nothing_is_recorded_or_stopped() -> None:
    rungs = CellRungs(make_plan(rungs=()), FLOOR)
    for number, score in enumerate([90.0, 10.0]):
        rungs.add(f"t{number}", Phase.search)
        assert not rungs.stops(f"t{number}", 1, score)
    assert rungs.table() == {}


def test_default_and_audit_trials_are_recorded_at_their_rungs_and_never_stopped(tmp_path: Path) -> None:
    simulation = Simulation(tmp_path, make_cells(make_plan(audit=0.5, search=12)), slots=3)
    records = simulation.run().values()
    exempt = [r for r in records if r.audit or r.phase == Phase.default]
    assert {r.status for r in exempt} == {TrialStatus.completed, TrialStatus.diverged}
    assert sum(r.audit for r in exempt) > 20
    for record in exempt:
        if record.status == TrialStatus.completed:
            reached = {at for at, scores in simulation.rungs[record.cell.key].table().items() if record.id in scores}
            assert reached == {1, 3}
    repeats = {r.id for r in records if r.phase == Phase.repeat}
    recorded = {key for rungs in simulation.rungs.values() for scores in rungs.table().values() for key in scores}
    assert not repeats & recorded


def replayed(events: list[dict[str, Any]]) -> CellRungs:
    rungs = CellRungs(make_plan(epochs=9, rungs=(1, 3)), FLOOR)
    rungs.replay(events)
    return rungs


def test_a_score_that_is_not_a_number_counts_the_same_when_it_is_replayed() -> None:
    """In the journal it is null; at the rung it stood at the floor."""
    events: list[dict[str, Any]] = [
        {"event": "start", "trial": "a", "phase": "search"},
        {"event": "measure", "trial": "a", "budget": 1, "metrics": {"score": None}},
        {"event": "measure", "trial": "a", "budget": 3, "metrics": {"score": 60.0}},
    ]
    assert replayed(events).table() == {1: {"a": FLOOR}, 3: {"a": 60.0}}


def test_replaying_tells_which_trials_a_rung_stopped(tmp_path: Path) -> None:
    simulation = Simulation(tmp_path, make_cells(make_plan(search=10)), slots=2)
    records = simulation.run()
    stopped: dict[str, int] = {}
    for read in read_run(tmp_path):
        rungs = CellRungs(make_plan(search=10), FLOOR)
        stopped |= rungs.replay(read.events)
        assert rungs.table() == simulation.rungs[read.cell.key].table()
    obeyed = {key: budget for key, budget in stopped.items() if records[key].status == TrialStatus.stopped}
    assert obeyed == {r.id: r.budget for r in records.values() if r.status == TrialStatus.stopped}
    assert len(obeyed) > 10
    exempt = [records[key] for key in stopped.keys() - obeyed.keys()]
    assert all(record.audit or record.phase == Phase.default for record in exempt)


class RaysOwn:
    """Ray's ASHA left to itself, at the rungs 1, 3, 9, with the trials `a`, `b`, ... added."""

    def __init__(self) -> None:
        self.asha = AsyncHyperBandScheduler(
            time_attr="budget", metric="score", mode="max", max_t=27, grace_period=1, reduction_factor=3
        )

    def stops(self, trial: Any, budget: int, score: float) -> bool:
        if trial.trial_id not in self.asha._trial_info:
            self.asha.on_trial_add(None, trial)
        action = self.asha.on_trial_result(None, trial, {"budget": budget, "score": score})
        return bool(action == TrialScheduler.STOP)


class Named:
    def __init__(self, trial_id: str) -> None:
        self.trial_id = trial_id


def test_rays_own_never_stops_a_score_that_is_not_a_number() -> None:
    """Ray 2.60. If this fails, Ray has learnt it, and `CellRungs.diverged` may have become simpler."""
    own, lost = RaysOwn(), Named("lost")
    for number in range(6):
        own.stops(Named(f"t{number}"), 1, 50.0 + number)
    assert own.stops(Named("bad"), 1, 10.0)
    assert not [budget for budget in range(1, 27) if own.stops(lost, budget, math.nan)]


def test_rays_own_leaves_a_score_that_is_not_a_number_out_of_the_cutoff() -> None:
    """Ray 2.60: trials that diverge do not lower the bar, so the same scores are stopped as if nothing had diverged."""
    own = RaysOwn()
    for number, score in enumerate([50.0, 60.0, math.nan, math.nan, math.nan]):
        own.stops(Named(f"t{number}"), 1, score)
    assert own.stops(Named("late"), 1, 55.0)
    assert not rungs_after(50.0, 60.0, FLOOR, FLOOR, FLOOR).stops("late", 1, 55.0)
