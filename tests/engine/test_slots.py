"""Slots that come and go with the nodes of a cluster. No Ray: the cluster is what the test says."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
import ray

from bocb_tune.core.groups import GroupShape
from bocb_tune.core.version import VERSION
from bocb_tune.engine import allotment
from bocb_tune.engine import slots as module
from bocb_tune.engine.cluster.room import Capacity, Machine
from bocb_tune.engine.cluster.state import ClusterState
from bocb_tune.engine.slot import Slot
from bocb_tune.engine.slots import Slots, missing_resources
from bocb_tune.engine.worker import serve
from bocb_tune.engine.worker.roll import Condition, GroupState


class Group(Slot):
    """A slot whose state is set from outside."""

    def __init__(self, setup: Any, shape: GroupShape, name: str) -> None:
        del setup
        self.shape = shape
        self.name, self.fault, self.is_lost, self.is_leaving = name, "", False, False
        self.state = GroupState(condition=Condition.starting, since=0.0)
        self.closed = self.given_back = 0

    def joined(self, *nodes: str) -> None:
        self.state = GroupState(condition=Condition.ready, since=0.0, nodes=frozenset(nodes))

    def listen(self, wait_s: float = 0.0) -> None:
        """Its state is set from outside."""

    def close(self) -> list[Any]:
        self.closed += 1
        return []

    def give_back(self) -> None:
        self.given_back += 1


class World:
    """A cluster of nodes with room for one group each, and the slots of a run on it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *nodes: str, **resources: Any) -> None:
        self.nodes, self.waiting, self.free, self.is_shared = list(nodes), 0, {"CPU": 0.0}, False
        self.said: list[tuple[tuple[str, ...], int]] = []
        monkeypatch.setattr(module, "LOOK_S", 0.0)
        monkeypatch.setattr(module, "LOOK_SHARE", 1e9)
        monkeypatch.setattr(module, "Slot", Group)
        monkeypatch.setattr(module, "named_actors", list)
        monkeypatch.setattr(module, "look_at_cluster", lambda *_: self.cluster())
        monkeypatch.setattr(module, "_full_disk", lambda: iter(()))
        usual = {"groups": {"bowl": GroupShape()}, "max_slots": None, "warm": True, "patience_min": 10, "share": 0.5}
        asked = Capacity(**usual | resources)
        self.slots = Slots(None, asked, lambda lines, ready: self.said.append((tuple(lines), ready)))  # type: ignore[arg-type]
        self.look()

    def cluster(self) -> ClusterState:
        machines = tuple(Machine(id=node, name=node.upper(), resources={"CPU": 1.0}) for node in self.nodes)
        return ClusterState(machines=machines, waiting=self.waiting, free=self.free, is_shared=self.is_shared)

    def look(self, *busy: Group) -> list[Group]:
        self.slots.look({group.name for group in busy})
        return self.groups

    @property
    def groups(self) -> list[Group]:
        return list(self.slots._slots)  # type: ignore[arg-type]


def test_a_slot_gets_a_trial_when_its_ranks_have_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, "a", "b")
    first, second = world.groups
    assert world.slots.free(()) == {}
    second.joined("b")
    assert world.slots.free(()) == {GroupShape(): second}
    assert world.slots.free({second.name}) == {}
    assert first.closed == second.closed == 0


def test_a_cluster_that_is_full_is_said_with_what_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, "a", "b")
    world.groups[0].joined("a")
    world.look()
    assert world.said[-1] == ((), 1)  # the other one starts
    world.waiting = 1
    world.look()
    (line,), ready = world.said[-1]
    assert ready == 1
    assert line.startswith("1 of 2 groups ready, waiting for 1 CPU since ")
    number = len(world.said)
    world.look()
    assert len(world.said) == number  # nothing has changed
    world.waiting = 0
    world.groups[1].joined("b")
    world.look()
    assert world.said[-1] == ((), 2)


def test_a_node_that_is_added_gets_a_group_and_one_that_leaves_takes_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, "a", "b")
    for group, node in zip(world.groups, "ab", strict=True):
        group.joined(node)
    kept, gone = world.groups
    world.nodes.append("c")
    assert len(world.look(kept, gone)) == 3
    world.nodes = ["a", "c"]
    assert len(world.look(kept, gone)) == 3  # its trial has to be given back first
    assert (gone.given_back, gone.closed, kept.given_back) == (1, 0, 0)
    assert len(world.look(kept)) == 2
    assert (gone.closed, kept.closed, kept.is_leaving) == (1, 0, False)
    assert any(line.startswith("node B lost at ") for line in world.said[-1][0])
    world.nodes.append("d")
    world.look(kept)
    assert not any("lost" in line for line in world.said[-1][0])


def test_a_slot_whose_process_died_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, "a")
    (dead,) = world.groups
    dead.is_lost = True
    (other,) = world.look()
    assert other.name != dead.name


def test_a_group_at_fault_is_neither_replaced_nor_given_a_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, "a", "b")
    first, second = world.groups
    first.fault = "no such folder"
    second.joined("b")
    assert world.look() == [first, second]
    assert world.slots.free(()) == {GroupShape(): second}
    assert world.slots.faults == {}
    assert any("no such folder" in line for line in world.said[-1][0])
    second.fault = "nor here"
    assert world.look() == [first, second]
    assert world.slots.faults == {GroupShape(): "no such folder"}


def test_a_cluster_that_cannot_be_looked_at_ends_no_run(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    world = World(monkeypatch, "a")

    def fail(*_: object) -> ClusterState:
        raise RuntimeError("the head does not answer")

    monkeypatch.setattr(module, "look_at_cluster", fail)
    assert len(world.look()) == 1
    assert "the head does not answer" in caplog.text


def test_no_more_slots_than_were_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(World(monkeypatch, "a", "b", "c", max_slots=2).groups) == 2


def test_a_run_gives_back_its_share_with_the_trials_in_flight_and_takes_it_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(monkeypatch, "a", "b", "c", "d")
    for group, node in zip(world.groups, "abcd", strict=True):
        group.joined(node)
    idle, *busy = world.groups
    world.is_shared = True
    world.look(*busy)
    assert (idle.closed, sum(group.is_leaving for group in busy)) == (1, 1)  # no trial is cut short
    (leaving,) = (group for group in busy if group.is_leaving)
    assert (leaving.given_back, leaving.closed) == (0, 0)
    assert world.slots.free({group.name for group in busy if group is not leaving}) == {}
    left = [group for group in busy if group is not leaving]
    assert world.look(*left) == left
    assert leaving.closed == 1
    assert "another run waits for room: this one keeps 2 of 4 groups (resources.share)" in world.said[-1][0]
    world.is_shared = False
    assert len(world.look(*left)) == 4


@pytest.mark.parametrize(
    ("share", "room", "kept"), [(0.5, 4, 2), (0.5, 1, 1), (0.1, 4, 1), (1.0, 4, 4), (0.5, 0, 0), (0.7, 10, 7)]
)
def test_a_share_is_at_least_one_slot_of_those_there_are(
    monkeypatch: pytest.MonkeyPatch, share: float, room: int, kept: int
) -> None:
    world = World(monkeypatch, *map(str, range(room)), share=share)
    world.is_shared = True
    assert len(world.look()) == kept


def test_no_more_groups_are_kept_than_the_drivers_machine_has_memory_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allotment, "get_system_memory", lambda: 4.1e9)
    world = World(monkeypatch, *"abcde")
    assert len(world.groups) == 3
    assert any("room for 5 groups" in line and "resources.max_slots" in line for line in world.said[-1][0])
    trusted = World(monkeypatch, *"abcde", max_slots=4)
    assert (len(trusted.groups), trusted.said[-1:]) == (4, [])
    monkeypatch.setattr(allotment, "get_system_memory", lambda: 1e6)
    assert len(World(monkeypatch, "a").groups) == 1


def test_a_cluster_without_room_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch)
    assert (world.groups, world.slots.faults) == ([], {})
    assert any("no node" in line for line in world.said[-1][0])


@pytest.mark.parametrize(
    ("free", "words"),
    [
        ({}, "2 CPU and 4 GPU"),
        ({"CPU": 1.0, "GPU": 3.5}, "1 CPU and 0.5 GPU"),
        ({"CPU": 8.0}, "4 GPU"),
        ({"CPU": 8.0, "GPU": 4.0}, "room for 2 worker(s) of 1 CPU and 2 GPU, each on one node"),
    ],
)
def test_what_a_group_lacks(free: dict[str, float], words: str) -> None:
    assert missing_resources(GroupShape(workers=2, gpus_per_worker=2), free) == words


@pytest.fixture
def _node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "10.0.0.7")
    monkeypatch.setattr(serve.platform, "node", lambda: "far")


@pytest.mark.usefixtures("_node")
def test_a_node_that_does_not_see_the_drivers_folder_says_its_name(tmp_path: Path) -> None:
    def problem(place: Path) -> str:
        return serve.storage_for(str(place), "t")[1]

    assert problem(tmp_path / "none").startswith(f"node far (10.0.0.7) does not see the run's {tmp_path}/none: ")
    (tmp_path / serve.TOKEN).write_text("another run's")
    assert problem(tmp_path).startswith(f"node far (10.0.0.7) sees another {tmp_path} ")
    (tmp_path / serve.TOKEN).write_text("t")
    assert problem(tmp_path) == ""
    assert [path.name for path in tmp_path.iterdir()] == [serve.TOKEN]
    (tmp_path / "file").write_text("")
    assert problem(tmp_path / "file").startswith("node far (10.0.0.7) cannot use ")


@pytest.mark.usefixtures("_node")
def test_another_version_of_the_package_is_named_with_the_drivers() -> None:
    assert serve.wrong_version(VERSION) == ""
    said = serve.wrong_version("0.0.0")
    assert said.startswith(f"node far (10.0.0.7) has bocb-tune {VERSION}, the driver 0.0.0")


def test_rank_0_waits_for_the_others_at_its_nodes_address_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "127.0.0.1")
    with serve._listener() as listener:
        assert listener.getsockname()[0] == "127.0.0.1"
        socket.create_connection(listener.getsockname(), timeout=1).close()
