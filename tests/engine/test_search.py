"""Where the next trial is: design, suggestions, what the studies know, and which cell gets the free slot."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray.tune.search import Searcher

from bocb_tune.core.types import Measurement, Phase, TrialRecord, TrialStatus
from bocb_tune.engine import policy
from bocb_tune.engine.design import design_points
from bocb_tune.engine.policy import CellPlan
from bocb_tune.engine.search import GridSearch, build_study, lattice_point, suggest
from bocb_tune.engine.store import RunStore
from bocb_tune.spec.space_file import available_spaces, load_space
from tests.support.records import make_cell, points, record_of
from tests.support.simulated import (
    OBJECTIVE,
    FakeSlot,
    FakeSlots,
    Simulation,
    essence,
    make_cells,
    make_plan,
    records_of,
)

State = optuna.trial.TrialState


def test_the_design_is_the_same_in_every_cell_of_an_optimizer_and_differs_between_optimizers(tmp_path: Path) -> None:
    records = Simulation(tmp_path, make_cells(make_plan(design=6)), slots=2).run().values()
    designs: dict[str, set[tuple[tuple[int, float, float], ...]]] = {"sgd": set(), "adamw": set()}
    for backbone in ("bowl", "cliff"):
        for optimizer, of_optimizer in designs.items():
            mine = [r for r in records if r.cell.key == f"{backbone}/{optimizer}" and r.phase == Phase.design]
            of_optimizer.add(tuple(sorted((r.index, r.hparams["lr"], r.hparams["weight_decay"]) for r in mine)))
    assert {len(of_optimizer) for of_optimizer in designs.values()} == {1}
    units = [design_points(0, optimizer, load_space("sgd"), 6) for optimizer in designs]
    assert units[0] != units[1]


@pytest.mark.parametrize(("short", "long"), [(1, 2), (4, 5), (8, 16), (10, 37)])
def test_a_longer_design_extends_a_shorter_one(short: int, long: int) -> None:
    space = load_space("adamw")
    whole = design_points(7, "adamw", space, long)
    assert design_points(7, "adamw", space, short) == whole[:short]
    assert design_points(7, "adamw", space, long - short, first=short) == whole[short:]
    assert design_points(8, "adamw", space, short) != whole[:short]


def test_a_design_fills_the_unit_square_evenly() -> None:
    """16 points of a scrambled Sobol sequence in base 2: one in each of the 16 intervals of either axis."""
    space = load_space("sgd")
    units = np.array([space.to_unit(point) for point in design_points(0, "sgd", space, 16)])
    assert sorted(np.floor(units[:, 0] * 16)) == list(range(16))
    share_zero = np.mean([point["weight_decay"] == 0 for point in design_points(0, "sgd", space, 512)])
    assert share_zero == pytest.approx(space.weight_decay.zero_mass, abs=0.01)


def mixed_records(cell: CellPlan, count: int = 12) -> list[TrialRecord]:
    """Records of every status, with and without weight decay, better towards the middle of the diagonal."""
    trials = [cell.trial(Phase.default, 0, cell.space.default)]
    trials += [cell.trial(Phase.design, index, point) for index, point in enumerate(points(cell, count))]
    trials += [cell.trial(Phase.search, 0, {"lr": cell.space.lr.low, "weight_decay": 0.0})]
    statuses = [TrialStatus.completed, TrialStatus.stopped, *TrialStatus]
    ends = [statuses[index % len(statuses)] for index in range(len(trials))]
    scores = [60.0 - abs(index - count / 2) if status.is_result else None for index, status in enumerate(ends)]
    return [record_of(trial, status, score) for trial, status, score in zip(trials, ends, scores, strict=True)]


SUGGEST = """
import json, random, numpy
from bocb_tune.engine.search import suggest
from tests.support.simulated import OBJECTIVE
from tests.engine.test_search import make_cell, mixed_records
random.seed(1); numpy.random.seed(1)
for sampler in ("tpe", "gp", "random", "qmc", "grid"):
    cell = make_cell(sampler=sampler, search=20)
    print(json.dumps([suggest(cell, mixed_records(cell), index, OBJECTIVE) for index in (13, 4)]))
"""


def test_a_suggestion_is_a_pure_function_of_records_and_index() -> None:
    """The same in another process, with another hash seed, another global random state, asked in another order."""
    other = subprocess.run(
        [sys.executable, "-c", SUGGEST],
        env=os.environ | {"PYTHONHASHSEED": "4711", "OMP_NUM_THREADS": "1"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    there = [json.loads(line) for line in other.stdout.splitlines()]
    here = []
    for sampler in ("tpe", "gp", "random", "qmc", "grid"):
        cell = make_cell(sampler=sampler, search=20)
        asked = {index: suggest(cell, mixed_records(cell), index, OBJECTIVE) for index in (4, 13)}
        here.append([asked[13], asked[4]])
    assert here == there


@pytest.mark.parametrize("sampler", ["tpe", "gp"])
def test_a_suggestion_depends_on_what_is_known(sampler: str) -> None:
    cell = make_cell(sampler=sampler)
    records = mixed_records(cell)
    upside_down = [replace(record, score=record.score and 100.0 - record.score) for record in records]
    assert suggest(cell, records, 0, OBJECTIVE) != suggest(cell, upside_down, 0, OBJECTIVE)


@pytest.mark.parametrize("sampler", ["tpe", "gp", "random", "qmc", "grid"])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("known", [0, 1, 14])
def test_every_sampler_stays_inside_the_space(sampler: str, optimizer: str, known: int) -> None:
    cell = make_cell(optimizer=optimizer, sampler=sampler, search=9)
    records = mixed_records(cell)[:known]
    suggested = [suggest(cell, records, index, OBJECTIVE) for index in range(3 if sampler == "gp" else 9)]
    for point in suggested:
        assert cell.space.lr.contains(point["lr"])
        assert cell.space.weight_decay.contains(point["weight_decay"])
    if sampler != "gp":  # which may be sure of itself
        assert len({tuple(point.values()) for point in suggested}) == len(suggested)


def test_quasi_random_search_continues_the_design() -> None:
    cell = make_cell(sampler="qmc", design=5, search=4)
    whole = design_points(cell.plan.seed, "sgd", cell.space, 9)
    assert [suggest(cell, [], index, OBJECTIVE) for index in range(4)] == whole[5:]


@given(count=st.integers(1, 120))
def test_a_lattice_visits_distinct_points_of_a_square(count: int) -> None:
    space = load_space("sgd")
    visited = {tuple(lattice_point(space, count, index).values()) for index in range(count)}
    side = next(side for side in range(1, 12) if side * side >= count)
    assert len({lr for lr, _ in visited}) <= side
    if count == side * side:  # all of it
        assert len({lr for lr, _ in visited}) == side
    decays = [space.weight_decay.from_unit((row + 0.5) / side) for row in range(side)]
    assert {decay for _, decay in visited} <= set(decays)
    if decays.count(0.0) <= 1:
        assert len(visited) == count


def test_studies_hold_what_was_told() -> None:
    cell = make_cell()
    records = mixed_records(cell)
    study = build_study(cell.space, records, OBJECTIVE)
    trials = {trial.user_attrs["trial"]: trial for trial in study.get_trials()}
    assert list(trials) == [record.id for record in records]
    for record in records:
        trial = trials[record.id]
        match record.status:
            case TrialStatus.completed:
                assert (trial.state, trial.value) == (State.COMPLETE, record.score)
            case TrialStatus.diverged:
                assert (trial.state, trial.value) == (State.COMPLETE, OBJECTIVE.floor)
            case TrialStatus.stopped:
                assert (trial.state, trial.intermediate_values) == (State.PRUNED, {record.budget: record.score})
            case TrialStatus.running:
                assert trial.state == State.RUNNING
            case _:
                assert trial.state == State.FAIL
    assert {trial.state for trial in trials.values()} == {
        State.COMPLETE,
        State.PRUNED,
        State.RUNNING,
        State.FAIL,
    }


def test_studies_of_a_run_have_pruned_and_floor_trials_and_no_repeats(tmp_path: Path) -> None:
    simulation = Simulation(tmp_path, make_cells(make_plan(search=12)))
    simulation.run()
    states = Counter[optuna.trial.TrialState]()
    for book in simulation.store.books.values():
        records = list(book.records.values())
        trials = build_study(book.plan.space, records, OBJECTIVE).get_trials()
        assert len(trials) == sum(record.phase != Phase.repeat for record in records)
        status = {record.id: record.status for record in records}
        for trial in trials:
            states[trial.state] += 1
            assert (trial.state == State.PRUNED) == (status[trial.user_attrs["trial"]] == TrialStatus.stopped)
            assert (trial.value == OBJECTIVE.floor) == (status[trial.user_attrs["trial"]] == TrialStatus.diverged)
    assert set(states) == {State.COMPLETE, State.PRUNED}


WITH_ZERO = [name for name in available_spaces() if load_space(name).weight_decay.zero_mass]


@pytest.mark.parametrize("optimizer", WITH_ZERO)
def test_no_weight_decay_goes_into_a_study_and_comes_back(optimizer: str) -> None:
    cell = make_cell(optimizer=optimizer)
    point = {"lr": cell.space.default["lr"], "weight_decay": 0.0}
    record = record_of(cell.trial(Phase.search, 0, point), TrialStatus.completed, 50.0)
    (trial,) = build_study(cell.space, [record], OBJECTIVE).get_trials()
    back = cell.space.from_unit((trial.params["lr"], trial.params["weight_decay"]))
    assert back["weight_decay"] == 0.0
    assert back["lr"] == pytest.approx(point["lr"], rel=1e-12)


def opened(tmp_path: Path, slots: int, **plan: object) -> tuple[GridSearch, RunStore, list[FakeSlot]]:
    store = RunStore(tmp_path, make_cells(make_plan(**plan)), OBJECTIVE, {}, clock=lambda: 0.0)
    fakes = [FakeSlot(f"slot{number}") for number in range(slots)]
    return GridSearch(store, FakeSlots(fakes), []), store, fakes  # type: ignore[arg-type]


def hand_out(search: GridSearch) -> str:
    config = search.suggest("tune-id")
    assert isinstance(config, dict), config
    return str(config["trial"])


def test_free_slots_go_to_the_cell_with_the_fewest_trials(tmp_path: Path) -> None:
    search, store, fakes = opened(tmp_path, slots=6)
    for _ in fakes:
        hand_out(search)
    assert [len(book.records) for book in store.books.values()] == [2, 2, 1, 1]
    assert search.suggest("tune-id") is None
    assert all(len(fake.submitted) == 1 for fake in fakes)
    store.close()


def test_a_slot_that_cannot_be_had_gets_no_trial_and_without_slots_the_search_is_over(tmp_path: Path) -> None:
    search, store, fakes = opened(tmp_path, slots=2)
    fakes[0].fault = "gone"
    trial = hand_out(search)
    assert [key for key, _, _ in fakes[1].submitted] == [trial]
    assert search.suggest("tune-id") is None
    fakes[1].fault = "gone too"
    store.release(store.in_flight[trial])
    assert search.suggest("tune-id") == Searcher.FINISHED
    store.close()


def test_a_user_who_asks_to_stop_gets_no_new_trials(tmp_path: Path) -> None:
    search, store, _ = opened(tmp_path, slots=2)
    trial = hand_out(search)
    search.leaving = True
    assert search.suggest("tune-id") is None
    store.release(store.in_flight[trial])
    assert search.suggest("tune-id") == Searcher.FINISHED
    store.close()


def test_a_training_whose_listener_died_is_listened_to_again_before_anything_else(tmp_path: Path) -> None:
    search, store, fakes = opened(tmp_path, slots=2)
    trial = hand_out(search)
    search.listen_again(store.in_flight[trial])
    assert hand_out(search) == trial
    assert [len(fake.submitted) for fake in fakes] == [1, 0]
    assert hand_out(search) != trial
    store.close()


def test_what_an_earlier_run_left_comes_first_and_says_how_far_it_was(tmp_path: Path) -> None:
    search, store, _ = opened(tmp_path, slots=1)
    trial = store.in_flight[hand_out(search)]
    store.measure(trial, Measurement(budget=1, metrics={"score": 50.0}, elapsed_s=1.0))
    store.close()
    again = RunStore(tmp_path, make_cells(make_plan()), OBJECTIVE, {}, clock=lambda: 0.0)
    slot = FakeSlot("slot")
    search = GridSearch(again, FakeSlots([slot]), again.unfinished())  # type: ignore[arg-type]
    assert hand_out(search) == trial.id
    assert slot.submitted == [(trial.id, 1, 1)]
    assert again.record(trial).attempt == 2
    again.close()


def test_optuna_is_left_out_of_the_global_random_state() -> None:
    random.seed(3)
    np.random.seed(3)
    before = random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index]
    cell = make_cell(sampler="tpe")
    suggest(cell, mixed_records(cell), 0, OBJECTIVE)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before  # type: ignore[index]


def two_at_work_and_one_free(tmp_path: Path) -> tuple[Simulation, str]:
    """Return a simulation with two trials in flight and a third slot that is ready only now; the first one's trial."""
    simulation = Simulation(tmp_path, make_cells(make_plan()), slots=3)
    simulation.slots[2].is_ready = False
    simulation._start_what_can_start()
    simulation.slots[2].is_ready = True
    return simulation, simulation.slots[0].submitted[0][0]


def lose(simulation: Simulation, how: str) -> None:
    slot, listener = simulation.slots[0], simulation._listening["slot0"]
    if how == "its process died":
        slot.is_lost = True
        simulation.scheduler.on_trial_error(simulation._controller, listener)
        return
    item = {"kind": "left"} if how == "its node left" else {"kind": "failed", "message": "why", "group_lost": True}
    slot.is_ready = False
    decision = simulation.scheduler.on_trial_result(simulation._controller, listener, {"items": [item]})
    assert decision == "STOP"


@pytest.mark.parametrize("how", ["its process died", "its node left", "its group cannot be had"])
def test_a_trial_whose_slot_is_lost_goes_on_first_on_another(tmp_path: Path, how: str) -> None:
    simulation, trial = two_at_work_and_one_free(tmp_path)
    before = len(records_of(simulation.store))
    lose(simulation, how)
    assert hand_out(simulation.search) == trial
    assert simulation.slots[2].submitted == [(trial, 0, 1)]
    record = records_of(simulation.store)[trial]
    assert (record.status, record.attempt) == (TrialStatus.running, 2)
    assert len(records_of(simulation.store)) == before
    simulation.store.close()


def test_nothing_is_waited_for_when_nothing_is_owed_and_something_when_no_slot_is_ready(tmp_path: Path) -> None:
    simulation = Simulation(tmp_path, make_cells(make_plan(), ("bowl",), ("sgd",)))
    simulation.slots[0].is_ready = False
    assert [simulation.search.suggest("tune-id") for _ in range(2)] == [None, None]
    simulation.slots[0].is_ready = True
    simulation.run()
    undisturbed = Simulation(tmp_path / "undisturbed", make_cells(make_plan(), ("bowl",), ("sgd",))).run()
    assert essence(records_of(simulation.store)) == essence(undisturbed)
    again = Simulation(tmp_path, make_cells(make_plan(), ("bowl",), ("sgd",)))
    again.slots[0].is_ready = False
    assert again.search.suggest("tune-id") == Searcher.FINISHED
    again.store.close()


def test_patience_is_ten_usual_epochs_of_the_cell_where_that_is_longer() -> None:
    cell = make_cell(design=3)
    started = record_of(cell.trial(Phase.default, 0, cell.space.default), TrialStatus.running, None)
    started = replace(started, budget=0, elapsed_s=0.0)
    slow = [replace(started, budget=2, elapsed_s=2.0 * seconds) for seconds in (100.0, 120.0, 5000.0)]
    assert policy.patience_s([], 10) == policy.patience_s([started], 10) == 600
    assert policy.patience_s([started, *slow], 10) == 1200
    assert policy.patience_s(slow, 30) == 1800
