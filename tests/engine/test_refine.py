"""The phase that moves what is the optimizer's own at the best point of a cell."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bocb_tune.analysis.sources.load import read_journals
from bocb_tune.core.space import arguments
from bocb_tune.core.types import Phase, TrialRecord, TrialStatus
from bocb_tune.engine import policy
from bocb_tune.engine.policy import CellPlan, best_record, refined_at, refined_best
from bocb_tune.engine.search import suggest_own
from bocb_tune.spec.space_file import available_spaces, load_space
from tests.support.records import make_cell, record_of
from tests.support.simulated import OBJECTIVE, Simulation, essence, make_cells, make_plan

SAMPLERS = ("tpe", "gp", "random", "qmc", "grid")
PLAN = make_plan(refine=4)


def cells(**changes: int) -> tuple[CellPlan, ...]:
    return make_cells(make_plan(**{"refine": 4, **changes}), ("bowl",))


def of_cell(records: dict[str, TrialRecord], optimizer: str) -> list[TrialRecord]:
    return [record for record in records.values() if record.cell.optimizer == optimizer]


@pytest.mark.parametrize("slots", [1, 3])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_cell_refines_its_best_point_and_repeats_both_with_the_same_seeds(
    tmp_path: Path, slots: int, optimizer: str
) -> None:
    records = of_cell(Simulation(tmp_path, cells(), slots=slots).run(), optimizer)
    best = best_record(records)
    assert best is not None
    refines = [record for record in records if record.phase == Phase.refine]
    own = load_space(optimizer).own
    assert sorted(record.index for record in refines) == [0, 1, 2, 3]
    assert {record.point for record in refines} == {best.point}
    for name, dim in own.items():
        values = [record.hparams[name] for record in refines]
        assert all(dim.contains(value) for value in values)
        assert len(set(values)) == 4
    refined = refined_best(best, records)
    assert refined is not None
    seeds = {
        which: sorted(r.seed for r in records if r.phase == Phase.repeat and dict(r.hparams) == dict(record.hparams))
        for which, record in (("best", best), ("refined", refined))
    }
    assert seeds["best"] == seeds["refined"]
    assert len(seeds["best"]) == 2
    order = [record.phase for record in records]
    assert order.index(Phase.refine) > max(place for place, phase in enumerate(order) if phase == Phase.search)


def test_a_plan_counts_what_a_cell_comes_to(tmp_path: Path) -> None:
    records = of_cell(Simulation(tmp_path, cells()).run(), "sgd")
    assert len(records) == PLAN.trials(records) == PLAN.trials([]) == 1 + 4 + 5 + 4 + 2 * 2 + 1
    assert make_plan().trials([]) == 1 + 4 + 5 + 2 + 1


def test_where_no_refined_trial_gets_to_its_end_there_is_none_to_repeat() -> None:
    cell = make_cell(refine=2, design=0, search=0)
    best = record_of(cell.trial(Phase.default, 0, cell.space.default), TrialStatus.completed, 50.0)
    trials = [cell.trial(Phase.refine, index, {**best.hparams, "momentum": 0.6 + index / 10}) for index in range(2)]
    records = [best, *(record_of(trial, TrialStatus.diverged, 1.0) for trial in trials)]
    assert refined_best(best, records) is None
    assert cell.plan.trials(records) == 1 + 2 + 2 + 1
    assert cell.plan.trials(records[:2]) == 1 + 2 + 2 * 2 + 1


def test_it_is_off_unless_asked_for(tmp_path: Path) -> None:
    with_none = Simulation(tmp_path / "off", make_cells(make_plan(), ("bowl",))).run()
    with_some = Simulation(tmp_path / "on", cells()).run()
    assert not [record for record in with_none.values() if record.phase == Phase.refine]
    assert essence(with_none).items() <= essence(with_some).items()


def test_a_run_is_extended_by_refining_and_goes_on_where_it_was(tmp_path: Path) -> None:
    before = Simulation(tmp_path / "run", make_cells(make_plan(), ("bowl",))).run()
    less = Simulation(tmp_path / "run", cells(refine=2)).run()
    after = Simulation(tmp_path / "run", cells()).run()
    assert before.keys() < less.keys() <= after.keys()
    assert len([record for record in after.values() if record.phase == Phase.refine]) == 2 * 4
    again = Simulation(tmp_path / "run", cells()).run()
    assert essence(again) == essence(after)


def test_a_new_best_point_is_refined_anew(tmp_path: Path) -> None:
    first = Simulation(tmp_path, cells(search=1)).run()
    longer = Simulation(tmp_path, cells(search=20)).run()
    for optimizer in ("sgd", "adamw"):
        old, new = best_record(of_cell(first, optimizer)), best_record(of_cell(longer, optimizer))
        assert old is not None
        assert new is not None
        assert len(refined_at(new, of_cell(longer, optimizer))) == 4
        assert len(refined_at(old, of_cell(longer, optimizer))) == 4
    assert any(
        best_record(of_cell(first, name)).point != best_record(of_cell(longer, name)).point  # type: ignore[union-attr]
        for name in ("sgd", "adamw")
    ), "the longer search found nothing better: the test shows nothing"


def test_refine_trials_compete_among_themselves(tmp_path: Path) -> None:
    simulation = Simulation(tmp_path, cells(refine=12))
    records = simulation.run()
    of_phase = {record.id: record.phase for record in records.values()}
    stopped = [r for r in records.values() if r.phase == Phase.refine and r.status == TrialStatus.stopped]
    assert stopped
    without = Simulation(tmp_path / "without", cells(refine=0))
    without.run()
    for key, rungs in simulation.rungs.items():
        searched = {
            at: {trial: score for trial, score in scores.items() if of_phase[trial] != Phase.refine}
            for at, scores in rungs.table().items()
        }
        assert searched == without.rungs[key].table()


def trial_records(cell: CellPlan, count: int) -> tuple[TrialRecord, list[TrialRecord]]:
    """The best trial of a cell, and refine trials that are the better the larger the first own value."""
    best = record_of(cell.trial(Phase.default, 0, cell.space.default), TrialStatus.completed, 50.0)
    records: list[TrialRecord] = []
    for index in range(count):
        own = {name: dim.from_unit((index + 0.5) / count) for name, dim in cell.space.own.items()}
        trial = cell.trial(Phase.refine, index, {**best.hparams, **own})
        records.append(record_of(trial, TrialStatus.completed, 40.0 + index))
    return best, records


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("optimizer", ["sgd", "sophia"])
def test_suggestions_lie_in_the_ranges_and_depend_on_index_and_records_alone(sampler: str, optimizer: str) -> None:
    cell = replace(make_cell(sampler=sampler, refine=9), space=load_space(optimizer))
    best, records = trial_records(cell, 8)
    asked = [suggest_own(cell, best, records, index, OBJECTIVE) for index in range(4)]
    assert [suggest_own(cell, best, records, index, OBJECTIVE) for index in range(4)] == asked
    if sampler not in ("tpe", "gp"):  # those two may find one place best
        assert len({tuple(values.items()) for values in asked}) == 4
    for values in asked:
        assert {name: values[name] for name in ("lr", "weight_decay")} == dict(best.hparams)
        assert list(values) == ["lr", "weight_decay", *cell.space.own]
        assert all(dim.contains(values[name]) for name, dim in cell.space.own.items())


@pytest.mark.parametrize("sampler", ["tpe", "gp"])
def test_a_suggestion_depends_on_what_is_known(sampler: str) -> None:
    cell = make_cell(sampler=sampler, refine=9)
    best, records = trial_records(cell, 8)
    upside_down = [replace(record, score=100 - record.score) for record in records if record.score]
    asked, other = (
        [suggest_own(cell, best, known, index, OBJECTIVE)["momentum"] for index in range(8, 20)]
        for known in (records, upside_down)
    )
    assert sum(asked) > sum(other)


def test_a_study_knows_no_trial_of_a_range_that_is_no_longer_searched() -> None:
    cell = make_cell(sampler="tpe", refine=9)
    best, records = trial_records(cell, 8)
    narrow = replace(cell.space.own["momentum"], high=0.95)
    moved = replace(cell, space=replace(cell.space, own={"momentum": narrow}))
    kept = [record for record in records if narrow.contains(record.hparams["momentum"])]
    assert len(kept) < len(records)
    assert suggest_own(moved, best, records, 8, OBJECTIVE) == suggest_own(moved, best, kept, 8, OBJECTIVE)


def test_every_lattice_point_comes_once() -> None:
    cell = replace(make_cell(sampler="grid", refine=8), space=load_space("sophia"))
    best, _ = trial_records(cell, 1)
    points = {tuple(suggest_own(cell, best, [], index, OBJECTIVE).values()) for index in range(8)}
    assert len(points) == 8
    assert all(len({point[axis] for point in points}) == 2 for axis in (2, 3, 4))


@pytest.mark.parametrize("share", [0.1, 0.4])
def test_the_share_that_is_audited_is_that_of_the_search(share: float) -> None:
    drawn = 0
    for number in range(400):
        plan = make_plan(audit=share, refine=10)
        cell = replace(make_cell().cell, backbone=f"b{number}")
        drawn += sum(policy.is_audited(plan, cell, Phase.refine, index) for index in range(10))
    assert drawn / 4000 == pytest.approx(share, abs=0.02)


@pytest.mark.parametrize("optimizer", available_spaces())
def test_what_is_its_own_takes_the_place_of_the_fixed_value(optimizer: str) -> None:
    space = load_space(optimizer)
    own = {name: dim.from_unit(0.25) for name, dim in space.own.items()}
    given = arguments(space.fixed, {"lr": 0.5, "weight_decay": 0.25, **own})
    assert given.keys() == {*space.fixed, "lr", "weight_decay"}
    assert arguments(space.fixed, {"lr": 0.5, "weight_decay": 0.25, **space.own_default}) == {
        **space.fixed,
        "lr": 0.5,
        "weight_decay": 0.25,
    }
    changed = {name for name, value in space.fixed.items() if given[name] != value}
    assert changed == {name if name in space.fixed else "betas" for name in own}


def test_landscapes_are_made_without_refine_trials(tmp_path: Path) -> None:
    """The trials of the analysis are those of a run that refined nothing; the others stand apart, none is lost."""
    records = Simulation(tmp_path / "on", cells()).run()
    Simulation(tmp_path / "off", make_cells(make_plan(), ("bowl",))).run()
    refined, plain = (read_journals(tmp_path / name) for name in ("on", "off"))
    assert refined.trials.equals(plain.trials)
    assert refined.curves.equals(plain.curves)
    assert len(refined.refined) == len(records) - len(plain.trials) == 2 * (4 + 2)
    assert set(refined.refined["phase"]) == {"refine", "repeat"}
    assert len(plain.refined) == 0


def test_the_checkpoints_of_the_best_and_of_the_refined_best_are_kept() -> None:
    cell = make_cell(refine=9)
    best, records = trial_records(cell, 3)
    assert policy.worth_keeping([best]) == [best]
    assert policy.worth_keeping([best, *records]) == [best, records[-1]]
    better = record_of(cell.trial(Phase.search, 0, {"lr": 0.2, "weight_decay": 0.0}), TrialStatus.completed, 60.0)
    assert policy.worth_keeping([best, *records, better]) == [better]
