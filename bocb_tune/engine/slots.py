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
from typing import Any

import ray

from bocb_tune.core.groups import GroupShape
from bocb_tune.engine.allotment import Allotment, everything, groups_beside_driver
from bocb_tune.engine.cluster.connection import ClusterError
from bocb_tune.engine.cluster.room import Capacity
from bocb_tune.engine.cluster.sharing import Demand
from bocb_tune.engine.cluster.state import NAME, ClusterState, has_other_runs, look_at_cluster, named_actors
from bocb_tune.engine.slot import Slot
from bocb_tune.engine.worker.roll import Condition
from bocb_tune.engine.worker.trainer import SlotSetup

logger = logging.getLogger(__name__)

COORDINATOR = "AutoscalingCoordinator"
"""Name of a process of Ray Train's that outlives runs, and of its namespace: it goes with the run that brought it."""
LOOK_S = 1.0
LOOK_SHARE = 0.05
"""Seconds between two looks at the groups and the nodes, and the share of the driver's time that looking may take."""
CLOSE_S = 15.0
"""Seconds that worker groups may take to go home before they are left to Ray, which ends what a run leaves behind."""
FULL = 0.95
"""Share of a disk from which on Ray keeps no more in its temporary folder."""


class Slots:
    """Slots of a run, which come and go with the nodes of the cluster."""

    def __init__(
        self,
        setup: SlotSetup,
        resources: Capacity,
        news: Callable[[Sequence[str], int], None],
        trouble: Callable[[], Sequence[str]] = tuple,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare the slots; the first look asks for as many groups as fit.

        Args:
            news: hears what is to be said of the cluster whenever that changes, and how many groups are ready.
            trouble: tells what else is the matter.
        """
        self._setup, self._resources, self._news, self._trouble = setup, resources, news, trouble
        self._clock = clock
        self._slots: list[Slot] = []
        self._closing: list[Any] = []
        self._next_look = -math.inf
        self._nodes: dict[str, str] = {}
        self._lost_nodes: dict[str, float] = {}
        self._said: tuple[tuple[str, ...], int] = ((), 0)
        self._most = resources.max_slots or groups_beside_driver()
        self._allotment = Allotment(resources, self._most)
        self._run_id = uuid.uuid4().hex[:8]
        self._had_coordinator = COORDINATOR in named_actors()
        self._opened = 0
        self.faults: dict[GroupShape, str] = {}
        """Shapes of which no group can be used, with the reason."""

    def __len__(self) -> int:
        return len(self._slots)

    def shape_of(self, backbone: str) -> GroupShape:
        """Return the shape of the groups that train a backbone."""
        return self._resources.groups[backbone]

    def look(self, busy: Collection[str], asked: Callable[[], Sequence[Demand]] | None = None) -> None:
        """Look how the groups and the nodes are, unless that was done a moment ago; open and close slots accordingly.

        Args:
            busy: names of the slots that have a trial.
            asked: tells what the cells ask for; without it those of all shapes ask for what there is.

        Raises:
            ClusterError: if Ray has ended on the driver's machine.
        """
        started = self._clock()
        if started < self._next_look:
            return
        for slot in self._slots:
            slot.listen()
        self._slots = [slot for slot in self._slots if not slot.is_lost]
        self._find_faults()
        try:
            cluster = look_at_cluster(self._run_id)
        except ClusterError:
            raise
        except Exception:  # Ray's head may be slow to answer: another look follows
            logger.exception("the nodes of the cluster could not be looked at")
        else:
            demands = asked() if asked else everything(self._resources)
            demands = [demand for demand in demands if demand.shape not in self.faults]
            wanted = self._allotment.wanted(cluster, demands, self._slots, self._clock())
            self._clear(cluster.going)
            self._resize(wanted, {machine.id for machine in cluster.machines}, busy)
            self._part(cluster, busy)
            self._keep_count_of_nodes({**{machine.id: machine.name for machine in cluster.machines}, **cluster.going})
            self._tell(tuple(self._lines(cluster)))
        now = self._clock()
        self._next_look = now + max(LOOK_S, (now - started) / LOOK_SHARE)

    def free(self, busy: Collection[str]) -> dict[GroupShape, Slot]:
        """Return a slot of each shape whose group is ready and has no trial."""
        free = [slot for slot in self._slots if slot.is_ready and slot.name not in busy]
        return {slot.shape: slot for slot in reversed(free)}

    def interrupt(self) -> None:
        """Have all trials left at the end of their epochs."""
        for slot in self._slots:
            slot.interrupt()

    def close(self) -> None:
        """Send all groups home, and wait a while until they are gone."""
        going = [*self._closing, *(gone for slot in self._slots for gone in slot.close())]
        if going:
            ray.wait(going, num_returns=len(going), timeout=CLOSE_S)
        if not self._had_coordinator and not has_other_runs(self._run_id):
            with contextlib.suppress(ValueError):  # there is none
                ray.kill(ray.get_actor(COORDINATOR, namespace=COORDINATOR))

    def _find_faults(self) -> None:
        for shape in self._resources.shapes:
            faults = [slot.fault for slot in self._slots if slot.shape == shape]
            if faults and all(faults):
                self.faults[shape] = faults[0]

    def _resize(self, wanted: Mapping[GroupShape, int], nodes: Collection[str], busy: Collection[str]) -> None:
        """Open slots, or have those leave that have the least to lose: first those on nodes that are gone."""
        for shape in dict.fromkeys([*wanted, *(slot.shape for slot in self._slots)]):
            number = wanted.get(shape, 0)
            if shape not in self.faults:  # its groups are kept, as a reminder not to ask for them again
                self._resize_shape(shape, number, nodes, busy)

    def _clear(self, going: Collection[str]) -> None:
        """Have the slots leave that are on nodes about to be taken away."""
        for slot in self._slots:
            slot.is_leaving |= not slot.state.nodes.isdisjoint(going)

    def _part(self, cluster: ClusterState, busy: Collection[str]) -> None:
        """End the slots that leave and have no trial; get back the trials that cannot, or must not, end there."""
        there = {machine.id for machine in cluster.machines} | cluster.going.keys()
        for slot in [slot for slot in self._slots if slot.is_leaving]:
            if slot.name not in busy:
                self._closing += slot.close()
                self._slots.remove(slot)
            elif slot.state.condition != Condition.ready or not slot.state.nodes <= there:
                slot.give_back()
            elif not slot.state.nodes.isdisjoint(cluster.going):
                slot.hand_over()

    def _resize_shape(self, shape: GroupShape, number: int, nodes: Collection[str], busy: Collection[str]) -> None:
        own = [slot for slot in self._slots if slot.shape == shape]
        staying = [slot for slot in own if not slot.is_leaving]
        for slot in sorted(staying, key=lambda slot: _worth(slot, nodes, busy))[: max(0, len(staying) - number)]:
            slot.is_leaving = True
        may_stay = [slot for slot in own if slot.is_leaving and slot.state.nodes <= set(nodes)]
        for slot in may_stay[: max(0, number - len(staying))]:
            slot.is_leaving = False
        for _ in range(number - sum(not slot.is_leaving for slot in own)):
            self._slots.append(Slot(self._setup, shape, f"{NAME}-{self._run_id}-{self._opened}"))
            self._opened += 1

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
            yield f"node {name} lost at {_clock(when)}; {len(cluster.machines)} left"
        for name in cluster.going.values():
            yield f"node {name} is about to be taken away: its trials are handed over"
        if cluster.waiting:
            yield from self._late_groups(cluster)
        for slot in self._slots:
            number = slot.name.rpartition("-")[2]
            if slot.state.condition != Condition.ready and slot.state.why:
                yield f"group {number} is being started again since {_clock(slot.state.since)}: {slot.state.why}"
            if slot.fault:
                yield f"group {number} cannot be used: {slot.fault}"
        if cluster.is_shared:
            kept_here, most = self._allotment.count, self._allotment.full
            yield f"another run waits for room: this one keeps {kept_here} of {most} groups (resources.share)"
        if self._allotment.room > self._most and self._resources.max_slots is None:
            yield (
                f"room for {self._allotment.room} groups, but this machine's memory holds the processes that keep"
                f" {self._most}; resources.max_slots sets another number"
            )
        if not self._slots:
            yield "no node of the cluster has room for a group; waiting for one"
        yield from _full_disk()
        yield from self._trouble()

    def _late_groups(self, cluster: ClusterState) -> Iterator[str]:
        for shape in self._resources.shapes:
            own = [slot for slot in self._slots if slot.shape == shape]
            late = [slot for slot in own if slot.state.condition != Condition.ready and not slot.fault]
            if late:
                ready, since = sum(slot.is_ready for slot in own), min(slot.state.since for slot in late)
                kind = f" of {shape}" if len(self._resources.shapes) > 1 else ""
                missing = missing_resources(shape, cluster.free)
                yield f"{ready} of {len(own)} groups{kind} ready, waiting for {missing} since {_clock(since)}"

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


def _worth(slot: Slot, nodes: Collection[str], busy: Collection[str]) -> tuple[bool, bool, bool, bool]:
    """Tell what a slot has to lose: on nodes that are there, ready, with a trial; one at fault is kept, as a reminder
    not to ask for it again.
    """
    is_ready = slot.state.condition == Condition.ready
    return bool(slot.fault), slot.state.nodes <= set(nodes), is_ready, slot.name in busy


def missing_resources(shape: GroupShape, free: Mapping[str, float]) -> str:
    """Say what a group lacks; where there is enough in all, that it is not in one place."""
    lacking = {kind: need - free.get(kind, 0.0) for kind, need in shape.needs.items()}
    named = [f"{number:g} {kind}" for kind, number in lacking.items() if number > 0]
    return " and ".join(named) or f"room for {shape}, each on one node"


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
