"""Room for groups of several shapes: how it is shared, and that nobody waits for ever. No Ray process is started."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bocb_tune.core.groups import GroupShape, has_labels, label_fault, nearest_labels
from bocb_tune.engine import allotment
from bocb_tune.engine.cluster.room import Capacity, Machine, Room
from bocb_tune.engine.cluster.sharing import Demand, grants, kept
from tests.support.events.cluster import EventCluster, Nodes
from tests.support.simulated import Simulation, essence, make_cells, make_plan

SMALL, LARGE, WIDE = GroupShape(gpus_per_worker=0.25), GroupShape(workers=8, gpus_per_worker=1), GroupShape(workers=2)


def machines(*gpus: int, cpus: float = 100) -> list[Machine]:
    return [
        Machine(id=str(number), name=f"node {number}", resources={"CPU": cpus, "GPU": each})
        for number, each in enumerate(gpus)
    ]


@given(
    shapes=st.lists(
        st.builds(
            GroupShape,
            workers=st.integers(1, 4),
            cpus_per_worker=st.integers(1, 3),
            gpus_per_worker=st.sampled_from([0.0, 0.25, 0.3, 0.5, 1.0, 2.0]),
        ),
        max_size=12,
    ),
    gpus=st.lists(st.integers(0, 4), min_size=1, max_size=3),
)
def test_no_machine_holds_more_than_it_has_and_a_group_without_room_takes_nothing(
    shapes: list[GroupShape], gpus: list[int]
) -> None:
    room, there = Room(machines(*gpus, cpus=6)), machines(*gpus, cpus=6)
    taken = [shape for shape in shapes if room.take(shape)]
    for kind in ("CPU", "GPU"):
        assert sum(shape.needs[kind] for shape in taken) <= sum(machine.resources[kind] for machine in there)
    again = Room(there)
    assert all(again.take(shape) for shape in taken)  # those without room left no trace


def test_a_group_of_eight_needs_eight_gpus_that_nobody_has_a_part_of() -> None:
    room = Room(machines(8))
    assert room.take(SMALL)
    assert not room.take(LARGE)
    assert room.take(replace(LARGE, workers=7))
    assert [room.take(SMALL) for _ in range(4)] == [True] * 3 + [False]


@given(
    costs=st.lists(st.sampled_from([1.0, 2.0, 5.0, 30.0]), min_size=1, max_size=4),
    cells=st.integers(1, 9),
    room=st.integers(4, 40),
)
def test_groups_of_shapes_are_in_proportion_to_the_time_that_their_cells_take(
    costs: list[float], cells: int, room: int
) -> None:
    """All cells then advance alike: D'Hondt's quota is missed from below by less than one group (house monotone)."""
    shapes = [GroupShape(workers=1, labels=(("kind", str(number)),)) for number in range(len(costs))]
    there = [Machine(id="0", name="", resources={"CPU": room}, labels={})]
    anywhere = [replace(shape, labels=(("none", f"!{number}"),)) for number, shape in enumerate(shapes)]
    demands = [
        Demand(shape=shape, cells=cells, usual_s=cost, level=1.0) for shape, cost in zip(anywhere, costs, strict=True)
    ]
    given_groups = Counter(grants(demands, there, "trials", holding={}))
    assert sum(given_groups.values()) == room
    for demand in demands:
        quota = room * demand.usual_s / sum(costs)
        assert given_groups[demand.shape] > quota - len(costs)
        assert given_groups[demand.shape] >= 1


def test_by_time_each_cell_gets_the_same_of_the_cluster() -> None:
    four = GroupShape(workers=4)
    there = [Machine(id="0", name="", resources={"CPU": 48})]
    demands = [Demand(shape=GroupShape(), cells=2, usual_s=1), Demand(shape=four, cells=1, usual_s=100)]
    assert Counter(grants(demands, there, "time", holding={})) == {GroupShape(): 32, four: 4}


def test_room_that_one_shape_does_not_ask_for_goes_to_the_others_and_else_stays_where_it_is() -> None:
    there = [Machine(id="0", name="", resources={"CPU": 6})]
    idle, hungry = Demand(shape=WIDE, most=1), Demand(shape=GroupShape())
    assert Counter(grants([idle, hungry], there, "trials", holding={WIDE: 3})) == {WIDE: 1, GroupShape(): 4}
    done = replace(hungry, most=1)
    assert Counter(grants([idle, done], there, "trials", holding={WIDE: 3})) == {WIDE: 2, GroupShape(): 1}


def test_a_shape_in_its_turn_comes_before_one_that_is_less_far() -> None:
    there = [Machine(id="0", name="", resources={"CPU": 2})]
    demands = [Demand(shape=WIDE, level=9), Demand(shape=GroupShape(), level=1)]
    assert grants(demands, there, "trials", holding={}) == [GroupShape()] * 2
    assert grants(demands, there, "trials", holding={}, in_turn=frozenset([WIDE])) == [WIDE]


def test_a_share_is_counted_in_what_groups_take() -> None:
    there = machines(8, 8)
    order = [LARGE, SMALL, SMALL, SMALL, SMALL, SMALL, SMALL, SMALL, SMALL]
    assert kept(order, there, 0.9) == order[:5]
    assert kept(order, there, 0.5) == [LARGE]  # one at least


def resources_for(groups: dict[str, GroupShape], turns: str = "trials") -> Capacity:
    return Capacity(groups=groups, max_slots=1000, warm=True, patience_min=10, share=0.5, turns=turns)


WORLDS = {
    "one at a time": (machines(0, cpus=2), {"bowl": WIDE, "cliff": GroupShape()}),
    "neither of two fits beside the third": (
        machines(0, cpus=3),
        {"bowl": GroupShape(workers=3), "cliff": WIDE, "ridge": replace(WIDE, cpus_per_worker=1, workers=2)},
    ),
    "quarters of GPUs and all of them": (machines(8), {"bowl": LARGE, "cliff": SMALL, "ridge": SMALL}),
    "nodes of two kinds": (
        [
            Machine(id="a", name="a", resources={"CPU": 4}, labels={"kind": "big"}),
            Machine(id="b", name="b", resources={"CPU": 2}),
        ],
        {"bowl": GroupShape(workers=4, labels=(("kind", "big"),)), "cliff": GroupShape(), "ridge": WIDE},
    ),
}


@pytest.mark.parametrize("turns", ["trials", "time"])
@pytest.mark.parametrize("name", WORLDS)
@pytest.mark.parametrize("seed", range(2))
def test_every_trial_of_every_shape_is_trained_and_the_records_do_not_depend_on_the_shapes(
    tmp_path: Path, name: str, turns: str, seed: int
) -> None:
    """No deadlock, no starvation: with trials of very different lengths, and pieces of GPUs left anywhere."""
    there, groups = WORLDS[name]
    cells = make_cells(make_plan(design=2, search=3, sampler="random", rungs=()), tuple(groups), ("sgd",))
    lengths = dict(zip(groups, itertools.cycle([100.0, 5.0, 20.0]), strict=False))
    world = EventCluster(
        tmp_path / "shared",
        cells,
        there,
        resources_for(groups, turns),
        epoch_s=lambda trial: lengths[trial.cell.backbone],
        seed=seed,
    )
    records = world.run()
    assert essence(records) == essence(Simulation(tmp_path / "plain", cells).run())
    waits = longest_waits(world)
    longest_trial = 9 * max(lengths.values())
    turn = allotment.TURN_S + 2 * longest_trial + 8 * allotment.STALL_S + world.start_s
    assert max(waits.values()) < 3 * len(groups) * turn, waits


def longest_waits(world: EventCluster) -> dict[str, float]:
    """Longest time between two starts of trials of one backbone, the first counted from the beginning."""
    times: dict[str, list[float]] = {}
    for when, trial in world.started:
        times.setdefault(trial.cell.backbone, [0.0]).append(when)
    return {name: max(b - a for a, b in itertools.pairwise(each)) for name, each in times.items()}


def test_pieces_of_gpus_are_joined_for_the_group_that_waits_for_them(tmp_path: Path) -> None:
    """Sixteen quarters lie anywhere on eight GPUs when the group of eight comes: without STALL_S it would wait."""
    groups = {"bowl": replace(LARGE, workers=4), "cliff": SMALL}
    cells = make_cells(make_plan(design=2, search=9, sampler="random", rungs=()), tuple(groups), ("sgd", "adamw"))
    for seed in range(5):
        world = EventCluster(tmp_path / str(seed), cells, machines(8), resources_for(groups), seed=seed)
        world.run()
        first = min(when for when, trial in world.started if trial.cell.backbone == "bowl")
        assert first < allotment.TURN_S + 16 * (allotment.STALL_S + 9 * 60)


def test_nodes_that_come_and_go_leave_the_records_as_they_are(tmp_path: Path) -> None:
    groups = {"bowl": WIDE, "cliff": GroupShape()}
    cells = make_cells(make_plan(design=2, search=3, sampler="random", rungs=()), tuple(groups), ("sgd",))
    there = [Machine(id=str(number), name=str(number), resources={"CPU": 2}) for number in range(3)]
    world = EventCluster(tmp_path / "run", cells, there, resources_for(groups))
    world.at(700.0, lambda: world.lose("0"))
    world.at(900.0, lambda: world.lose("1"))
    world.at(1500.0, lambda: world.add(Machine(id="3", name="3", resources={"CPU": 2})))
    assert essence(world.run()) == essence(Simulation(tmp_path / "plain", cells).run())


@pytest.mark.parametrize(("turns", "apart"), [("trials", 12), ("time", None)])
def test_cells_are_kept_level_in_trials_or_in_time(tmp_path: Path, turns: str, apart: int | None) -> None:
    groups = {"bowl": WIDE, "cliff": GroupShape()}
    cells = make_cells(make_plan(design=2, search=97, sampler="random", rungs=()), tuple(groups), ("sgd",))
    slow = {"bowl": 60.0, "cliff": 20.0}
    world = EventCluster(
        tmp_path,
        cells,
        machines(0, cpus=21),
        resources_for(groups, turns),
        epoch_s=lambda trial: slow[trial.cell.backbone],
    )
    world.run()
    started = {name: [when for when, trial in world.started if trial.cell.backbone == name] for name in groups}
    first_done = min(max(times) for times in started.values())
    bowl, cliff = (sum(when <= first_done for when in times) for times in started.values())
    if apart:
        assert abs(bowl - cliff) <= apart
    else:
        assert cliff >= 2.5 * bowl


def test_simulated_nodes_get_back_what_they_gave() -> None:
    nodes = Nodes(machines(2, 2, cpus=4), seed=0)
    before = nodes.free()
    leases = [nodes.place(shape) for shape in (SMALL, WIDE, replace(LARGE, workers=3), LARGE)]
    assert leases[3] is None
    for each in leases[:3]:
        assert each is not None
        nodes.release(each)
    assert nodes.free() == before


@pytest.mark.parametrize(
    ("asked", "labels", "holds"),
    [
        ("a100", {"gpu": "a100"}, True),
        ("a100", {"gpu": "h100"}, False),
        ("a100", {}, False),
        ("!a100", {"gpu": "h100"}, True),
        ("!a100", {}, True),
        ("!a100", {"gpu": "a100"}, False),
        ("in(a100, h100)", {"gpu": "h100"}, True),
        ("in(a100,h100)", {"gpu": "v100"}, False),
        ("!in(a100, h100)", {"gpu": "v100"}, True),
    ],
)
def test_labels_select_nodes_as_they_do_for_ray(asked: str, labels: dict[str, str], holds: bool) -> None:
    assert has_labels(labels, [("gpu", asked)]) == holds


@pytest.mark.parametrize("value", ["a100", "!a100", "in(a, b)", "!in(a,b)", "A.b_c-9", "in(a)"])
def test_selectors_of_ray_are_taken_and_no_others(value: str) -> None:
    from ray._private.label_utils import LABEL_SELECTOR_REGEX

    assert label_fault("gpu", value) == ""
    assert LABEL_SELECTOR_REGEX.match(value)
    for wrong in (f"{value},", f"-{value}", f"{value} or"):
        assert label_fault("gpu", wrong)
        assert not LABEL_SELECTOR_REGEX.match(wrong)
    assert "name of a label" in label_fault("-gpu", value)


def test_labels_most_like_those_asked_for_come_first() -> None:
    nodes = [{"ray.io/node-id": "f00", "gpu": "a100", "zone": "eu"}, {"gpu": "h100"}]
    assert nearest_labels([("gpu", "a10")], nodes) == ["gpu=a100", "gpu=h100", "zone=eu"]
    assert nearest_labels([("gpus", "h100")], nodes)[0] == "gpu=h100"
