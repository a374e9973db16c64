"""Slots of a run: as many worker groups as the cluster has room for at the moment."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import shutil
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray._common.utils import get_system_memory
from ray.exceptions import RayActorError
from ray.util import list_named_actors, placement_group_table
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from bocb_tune.core.types import TrialSpec
from bocb_tune.engine.cluster import Capacity, room_for_groups
from bocb_tune.engine.worker.group import Host
from bocb_tune.engine.worker.roll import Condition, GroupState
from bocb_tune.engine.worker.trainer import SlotSetup

logger = logging.getLogger(__name__)

NAME = "bocb-tune"
"""Beginning of the names of the processes that keep groups, of all runs."""
COORDINATOR = "AutoscalingCoordinator"
"""Name of a process of Ray Train's that outlives runs, and of its namespace: it goes with the run that brought it."""
LOOK_S = 1.0
LOOK_SHARE = 0.05
"""Seconds between two looks at the groups and the nodes, and the share of the driver's time that looking may take."""
CLOSE_S = 15.0
"""Seconds that worker groups may take to go home before they are left to Ray, which ends what a run leaves behind."""
GROUP_BYTES = 1e9
MEMORY_SHARE = 0.8
"""Memory of the processes beside the driver that keep a group, and the share of its machine's that all may take."""
FULL = 0.95
"""Share of a disk from which on Ray keeps no more in its temporary folder."""


class Slot:
    """Slot of one trial at a time: the driver's end of a worker group."""

    def __init__(self, setup: SlotSetup, name: str) -> None:
        self.name = name
        self.fault = ""
        """Reason why the group can no longer be used; empty while it can."""
        self.is_lost = False
        """Whether the process that keeps the group is dead."""
        self.is_leaving = False
        """Whether the slot gets no further trial, and goes with the one that it has."""
        self.state = GroupState(condition=Condition.starting, since=time.time())
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        actor = ray.remote(num_cpus=0, max_concurrency=1000)(Host)
        self._host = actor.options(name=name, scheduling_strategy=here).remote(setup)
        self._host.open.remote()
        self._asked: Any = None

    @property
    def is_ready(self) -> bool:
        """Whether a trial that is submitted is trained at once."""
        return self.state.condition == Condition.ready and not (self.fault or self.is_lost or self.is_leaving)

    def submit(self, trial: TrialSpec, *, seen: int, divisor: int, patience_s: float) -> None:
        order = {"id": trial.id, "trial": trial.to_json(), "seen": seen, "divisor": divisor, "patience_s": patience_s}
        self._host.submit.remote(order)

    def decide(self, trial_id: str, budget: int, *, stop: bool) -> None:
        self._host.decide.remote(trial_id, budget, "stop" if stop else "go")

    def interrupt(self) -> None:
        self._host.interrupt.remote()

    def give_back(self) -> None:
        self._host.give_back.remote()

    def close(self) -> list[Any]:
        """Send the group home, or end it where it waits for room or is in pieces.

        Returns:
            A reference that is ready when it is gone, if that has to be waited for.
        """
        if self.state.condition == Condition.ready:
            return [self._host.close.remote()]
        ray.kill(self._host)  # all that keeps the group, and its placement, goes with this process
        return []

    def listen(self, wait_s: float = 0.0) -> None:
        """Hear how the group is, as far as it has answered since it was last asked."""
        self._asked = self._asked or self._host.state.remote()
        answered, _ = ray.wait([self._asked], timeout=wait_s)
        if not answered:
            return
        try:
            self.state, self.fault = ray.get(self._asked)
        except RayActorError:
            self.is_lost = True
        self._asked = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterState:
    """The cluster as it is at one moment."""

    nodes: Mapping[str, str]
    """Names of the nodes that are alive, by id."""
    room: int
    """Worker groups that these nodes hold when nobody else uses them."""
    waiting: int
    """Worker groups of this run that wait for room."""
    free: Mapping[str, float]
    """Resources that nobody uses."""
    is_shared: bool = False
    """Whether another run on the cluster waits for room."""


class Slots:
    """Slots of a run, which come and go with the nodes of the cluster."""

    def __init__(
        self,
        setup: SlotSetup,
        resources: Capacity,
        news: Callable[[Sequence[str], int], None],
        trouble: Callable[[], Sequence[str]] = tuple,
    ) -> None:
        """Prepare the slots; the first look asks for as many groups as fit.

        Args:
            news: hears what is to be said of the cluster whenever that changes, and how many groups are ready.
            trouble: tells what else is the matter.
        """
        self._setup, self._resources, self._news, self._trouble = setup, resources, news, trouble
        self._slots: list[Slot] = []
        self._closing: list[Any] = []
        self._next_look = -math.inf
        self._nodes: dict[str, str] = {}
        self._lost_nodes: dict[str, float] = {}
        self._said: tuple[tuple[str, ...], int] = ((), 0)
        self._most = resources.max_slots or groups_beside_driver()
        self._run_id = uuid.uuid4().hex[:8]
        self._had_coordinator = COORDINATOR in _named_actors()
        self._opened = 0

    def __len__(self) -> int:
        return len(self._slots)

    def look(self, busy: Collection[str]) -> None:
        """Look how the groups and the nodes are, unless that was done a moment ago; open and close slots accordingly.

        Args:
            busy: names of the slots that have a trial.
        """
        started = time.monotonic()
        if started < self._next_look:
            return
        for slot in self._slots:
            slot.listen()
        self._slots = [slot for slot in self._slots if not slot.is_lost]
        try:
            cluster = _cluster(self._resources, self._run_id)
        except Exception:  # Ray's head may be slow to answer: another look follows
            logger.exception("the nodes of the cluster could not be looked at")
        else:
            self._resize(self._wanted(cluster), cluster.nodes, busy)
            self._keep_count_of_nodes(cluster.nodes)
            self._tell(tuple(self._lines(cluster)))
        now = time.monotonic()
        self._next_look = now + max(LOOK_S, (now - started) / LOOK_SHARE)

    def free(self, busy: Collection[str]) -> Slot | None:
        """Return a slot whose group is ready and has no trial."""
        return next((slot for slot in self._slots if slot.is_ready and slot.name not in busy), None)

    @property
    def fault(self) -> str:
        """Reason why no group can be used; empty while one can."""
        return self._slots[0].fault if self._slots and all(slot.fault for slot in self._slots) else ""

    def interrupt(self) -> None:
        """Have all trials left at the end of their epochs."""
        for slot in self._slots:
            slot.interrupt()

    def close(self) -> None:
        """Send all groups home, and wait a while until they are gone."""
        going = [*self._closing, *(gone for slot in self._slots for gone in slot.close())]
        if going:
            ray.wait(going, num_returns=len(going), timeout=CLOSE_S)
        if not self._had_coordinator and not _has_other_runs(self._run_id):
            with contextlib.suppress(ValueError):  # there is none
                ray.kill(ray.get_actor(COORDINATOR, namespace=COORDINATOR))

    def _wanted(self, cluster: ClusterState) -> int:
        """Give the number of slots that there should be: a share, one at least, while another run waits for room."""
        most = min(cluster.room, self._most)
        return max(min(1, most), int(most * self._resources.share + 1e-9)) if cluster.is_shared else most

    def _resize(self, wanted: int, nodes: Collection[str], busy: Collection[str]) -> None:
        """Open slots, or have those leave that have the least to lose: first those on nodes that are gone."""
        staying = [slot for slot in self._slots if not slot.is_leaving]
        for slot in sorted(staying, key=lambda slot: _worth(slot, nodes, busy))[: max(0, len(staying) - wanted)]:
            slot.is_leaving = True
        for slot in [slot for slot in self._slots if slot.is_leaving][: max(0, wanted - len(staying))]:
            slot.is_leaving = False
        for _ in range(wanted - sum(not slot.is_leaving for slot in self._slots)):
            self._slots.append(Slot(self._setup, f"{NAME}-{self._run_id}-{self._opened}"))
            self._opened += 1
        for slot in [slot for slot in self._slots if slot.is_leaving]:
            if slot.name not in busy:
                self._closing += slot.close()
                self._slots.remove(slot)
            elif slot.state.condition != Condition.ready or not slot.state.nodes <= set(nodes):
                slot.give_back()

    def _keep_count_of_nodes(self, nodes: Mapping[str, str]) -> None:
        for node in self._nodes.keys() - nodes.keys():
            self._lost_nodes[self._nodes[node]] = time.time()
        for _ in range(len(nodes.keys() - self._nodes.keys())):
            if self._lost_nodes:  # another one has come in its place
                self._lost_nodes.pop(next(iter(self._lost_nodes)))
        self._nodes = dict(nodes)

    def _lines(self, cluster: ClusterState) -> Iterator[str]:
        """Say what there is to say of the cluster, each in one plain line."""
        for name, when in self._lost_nodes.items():
            yield f"node {name} lost at {_clock(when)}; {len(cluster.nodes)} left"
        late = [slot for slot in self._slots if slot.state.condition != Condition.ready and not slot.fault]
        ready = sum(slot.is_ready for slot in self._slots)
        if late and cluster.waiting:
            since = min(slot.state.since for slot in late)
            missing = missing_resources(self._resources, cluster.free)
            yield f"{ready} of {len(self._slots)} groups ready, waiting for {missing} since {_clock(since)}"
        for slot in self._slots:
            number = slot.name.rpartition("-")[2]
            if slot.state.condition != Condition.ready and slot.state.why:
                yield f"group {number} is being started again since {_clock(slot.state.since)}: {slot.state.why}"
            if slot.fault:
                yield f"group {number} cannot be used: {slot.fault}"
        if cluster.is_shared:
            kept, most = self._wanted(cluster), min(cluster.room, self._most)
            yield f"another run waits for room: this one keeps {kept} of {most} groups (resources.share)"
        if cluster.room > self._most and self._resources.max_slots is None:
            yield (
                f"room for {cluster.room} groups, but this machine's memory holds the processes that keep {self._most};"
                " resources.max_slots sets another number"
            )
        if not self._slots:
            yield "no node of the cluster has room for a group; waiting for one"
        yield from _full_disk()
        yield from self._trouble()

    def _tell(self, lines: tuple[str, ...]) -> None:
        ready = sum(slot.is_ready for slot in self._slots)
        before, _ = self._said
        if (lines, ready) == self._said:
            return
        self._said = lines, ready
        for line in lines:
            if line not in before:
                logger.warning("%s", line)
        self._news(lines, ready)


def _cluster(resources: Capacity, run_id: str) -> ClusterState:
    alive = [node for node in ray.nodes() if node["Alive"]]
    own = ray.get_runtime_context().get_job_id()
    waiting = [group for group in placement_group_table().values() if _waits(group)]
    ours = sum(group["placement_group_id"].endswith(own) for group in waiting)
    return ClusterState(
        nodes={node["NodeID"]: f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})" for node in alive},
        room=room_for_groups(alive, resources),
        waiting=ours,
        free=ray.available_resources() if waiting else {},
        is_shared=len(waiting) > ours and _has_other_runs(run_id),
    )


def _has_other_runs(run_id: str) -> bool:
    """Tell whether the processes that keep groups, which have names, are also those of other runs."""
    return any(name.startswith(f"{NAME}-") and not name.startswith(f"{NAME}-{run_id}-") for name in _named_actors())


def _named_actors() -> list[str]:
    return [actor["name"] for actor in list_named_actors(all_namespaces=True)]


def _waits(group: Mapping[str, Any]) -> bool:
    """Tell whether a placement group is one of workers, and waits for room."""
    kinds = {kind for bundle in group["bundles"].values() for kind in bundle}
    return group["state"] in ("PENDING", "RESCHEDULING") and not kinds.isdisjoint(("CPU", "GPU"))


def groups_beside_driver() -> int:
    """Count the groups whose processes beside the driver its machine has memory for."""
    return max(1, int(MEMORY_SHARE * get_system_memory() / GROUP_BYTES))


def _worth(slot: Slot, nodes: Collection[str], busy: Collection[str]) -> tuple[bool, bool, bool, bool]:
    """Tell what a slot has to lose: on nodes that are there, ready, with a trial; one at fault is kept, as a reminder
    not to ask for it again.
    """
    is_ready = slot.state.condition == Condition.ready
    return bool(slot.fault), slot.state.nodes <= set(nodes), is_ready, slot.name in busy


def missing_resources(resources: Capacity, free: Mapping[str, float]) -> str:
    """Say what a group lacks; where there is enough in all, that it is not in one place."""
    asked = {"CPU": resources.cpus_per_worker, "GPU": resources.gpus_per_worker}
    lacking = {kind: resources.workers * each - free.get(kind, 0.0) for kind, each in asked.items()}
    named = [f"{number:g} {kind}" for kind, number in lacking.items() if number > 0]
    return " and ".join(named) or f"room for {resources.workers} worker(s) of {_worker(asked)} on one node each"


def _worker(asked: Mapping[str, float]) -> str:
    return " and ".join(f"{number:g} {kind}" for kind, number in asked.items() if number)


def _full_disk() -> Iterator[str]:
    folder = ray._private.worker.global_worker.node.get_session_dir_path()
    if not os.path.isdir(folder):
        return
    usage = shutil.disk_usage(folder)
    share = 1 - usage.free / usage.total
    if share > FULL:
        yield f"the disk of Ray's temporary folder {folder} is {share:.0%} full: make room there"


def _clock(when: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(when))
