"""Slots of a run: as many worker groups as the cluster has room for at the moment."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import shutil
import time
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
from ray._common.utils import get_system_memory
from ray._private.state import state as ray_state
from ray.core.generated.gcs_pb2 import PlacementGroupTableData as Placement
from ray.exceptions import RayActorError
from ray.util import list_named_actors, remove_placement_group
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from bocb_tune.core.groups import GroupShape
from bocb_tune.core.types import TrialSpec
from bocb_tune.engine.cluster import ClusterError, machines_of, require_own_node
from bocb_tune.engine.room import Capacity, Machine
from bocb_tune.engine.sharing import Demand, grants, kept
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
TURN_S = 600.0
"""Seconds for which groups of one shape keep the room that those of another wait for."""
RESHARE_S = 300.0
"""Seconds after which room is shared anew between shapes though no node, cell or turn has changed."""
STALL_S = 60.0
"""Seconds that a group waits for room which is there, in pieces, before another is given up to join them."""
FULL = 0.95
"""Share of a disk from which on Ray keeps no more in its temporary folder."""


class Slot:
    """Slot of one trial at a time: the driver's end of a worker group."""

    def __init__(self, setup: SlotSetup, shape: GroupShape, name: str) -> None:
        self.name, self.shape = name, shape
        self.fault = ""
        """Reason why the group can no longer be used; empty while it can."""
        self.is_lost = False
        """Whether the process that keeps the group is dead."""
        self.is_leaving = False
        """Whether the slot gets no further trial, and goes with the one that it has."""
        self.state = GroupState(condition=Condition.starting, since=time.time())
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        actor = ray.remote(num_cpus=0, max_concurrency=1000)(Host)
        self._host = actor.options(name=name, scheduling_strategy=here).remote(setup, shape)
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

    def hand_over(self) -> None:
        self._host.hand_over.remote()

    def give_back(self) -> None:
        self._host.give_back.remote()

    def close(self) -> list[Any]:
        """Send the group home, or end it where it waits for room or is in pieces.

        Returns:
            A reference that is ready when it is gone, if that has to be waited for.
        """
        if self.state.condition == Condition.ready:
            return [self._host.close.remote()]
        ray.kill(self._host)  # all that keeps the group goes with this process, and its placement with the next look
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

    machines: tuple[Machine, ...]
    """Nodes that are alive, and stay."""
    going: Mapping[str, str] = field(default_factory=dict)
    """Names of nodes that are about to be taken away, by id."""
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
        self._had_coordinator = COORDINATOR in _named_actors()
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
            cluster = _cluster(self._run_id)
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
        if not self._had_coordinator and not _has_other_runs(self._run_id):
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


class Allotment:
    """Number of groups of each shape that there should be, as nodes, cells and turns change."""

    def __init__(self, resources: Capacity, most: int) -> None:
        self.room = 0
        """Groups that the cluster holds."""
        self.full = 0
        """Groups that the run would have by itself."""
        self.count = 0
        """Groups that it should have now."""
        self._resources, self._most = resources, most
        self._turns: dict[GroupShape, float] = {}
        self._rests_on: Any = None
        self._made, self._stalled = -math.inf, -math.inf
        self._withheld = 0
        self._order: list[GroupShape] = []

    def wanted(
        self, cluster: ClusterState, demands: Sequence[Demand], slots: Sequence[Slot], now: float
    ) -> Counter[GroupShape]:
        """Give the number of groups of each shape: a share, one at least, while another run waits for room."""
        in_turn = self._in_turn(slots, now)
        rests_on = cluster.machines, [(demand.shape, demand.cells, demand.most) for demand in demands], in_turn
        if rests_on != self._rests_on or now - self._made > RESHARE_S:
            holding = Counter(slot.shape for slot in slots if not slot.is_leaving)
            turns = self._resources.turns
            self._order = grants(demands, cluster.machines, turns, holding=holding, in_turn=in_turn)
            self._rests_on, self._made = rests_on, now
        self.room = len(self._order)
        order = self._order[: self._most]
        self.full = len(order)
        if cluster.is_shared:
            order = kept(order, cluster.machines, self._resources.share)
        self.count = len(order)
        return self._without_withheld(Counter(order), cluster, slots, now)

    def _in_turn(self, slots: Sequence[Slot], now: float) -> frozenset[GroupShape]:
        """Find the shapes whose turn is not over: it begins when a group is ready, or nobody of ours is in its way."""
        staying = {slot.shape for slot in slots if not slot.is_leaving}
        is_free = not any(slot.is_leaving for slot in slots)
        ready = {slot.shape for slot in slots if slot.is_ready}
        begun = {shape: now for shape in staying if shape in ready or is_free}
        self._turns = {shape: self._turns.get(shape, since) for shape, since in (begun | self._turns).items()}
        self._turns = {shape: since for shape, since in self._turns.items() if shape in staying}
        return frozenset(shape for shape in staying if now - self._turns.get(shape, now) < TURN_S)

    def _without_withheld(
        self, wanted: Counter[GroupShape], cluster: ClusterState, slots: Sequence[Slot], now: float
    ) -> Counter[GroupShape]:
        """Take groups away, one after the other, while one waits for room that only their pieces make up.

        In the end it has the cluster to itself, and it fits into that.
        """
        late = {slot.shape for slot in slots if slot.state.condition != Condition.ready}
        if not cluster.waiting or not late or len(self._resources.shapes) == 1:
            self._withheld, self._stalled = 0, now
        elif any(slot.is_leaving for slot in slots) or others_use(cluster, slots):
            self._stalled = now
        elif now - self._stalled > STALL_S:
            self._withheld, self._stalled = self._withheld + 1, now
        for _ in range(self._withheld):
            others = [shape for shape in wanted if shape not in late and wanted[shape]]
            if others:
                wanted[max(others, key=lambda shape: wanted[shape])] -= 1
        return wanted


def everything(resources: Capacity) -> list[Demand]:
    """Ask for as much as there is for groups of every shape."""
    return [Demand(shape=shape) for shape in resources.shapes]


def first_groups(resources: Capacity, machines: Sequence[Machine]) -> int:
    """Count the groups that a run begins with when nobody else uses the cluster."""
    order = grants(everything(resources), machines, resources.turns, holding={})
    return min(len(order), resources.max_slots or groups_beside_driver())


def others_use(cluster: ClusterState, slots: Sequence[Slot]) -> bool:
    """Tell whether somebody else uses a part of the cluster that groups take too."""
    ours = Counter[str]()
    for slot in slots:
        if slot.state.condition == Condition.ready:
            ours.update(slot.shape.needs)
    total = Counter[str]()
    for machine in cluster.machines:
        total.update({kind: machine.resources.get(kind, 0) for kind in ("CPU", "GPU")})
    return any(total[kind] - cluster.free.get(kind, 0.0) > ours[kind] + 1e-6 for kind in total)


def _cluster(run_id: str) -> ClusterState:
    own = ray.get_runtime_context().get_job_id()
    placements = placements_of_cluster()
    remove_orphans(placements, own)
    waiting = [placement for placement in placements if _waits(placement)]
    nodes = ray.nodes()
    require_own_node(nodes, ray.get_runtime_context().get_node_id())
    machines, going = machines_of(nodes), ray_state.get_draining_nodes()
    ours = sum(placement.creator_job_id.hex() == own for placement in waiting)
    return ClusterState(
        machines=tuple(machine for machine in machines if machine.id not in going),
        going={machine.id: machine.name for machine in machines if machine.id in going},
        waiting=ours,
        free=ray.available_resources() if waiting else {},
        is_shared=len(waiting) > ours and _has_other_runs(run_id),
    )


def placements_of_cluster() -> list[Placement]:
    """Return the placement groups of the cluster, with who made them, which Ray's own table of them leaves out."""
    accessor = ray_state._connect_and_get_accessor()
    return [Placement.FromString(each) for each in accessor.get_placement_group_table()]


def remove_orphans(placements: Iterable[Placement], job: str) -> None:
    """Remove the placement groups of a job whose makers are dead, which Ray does only when the job ends."""
    drivers = ray.ActorID.nil().binary()  # the maker of placement groups that no actor made
    for each in placements:
        is_orphan = each.creator_actor_dead and each.creator_actor_id not in (b"", drivers)
        if is_orphan and each.creator_job_id.hex() == job and each.state != Placement.REMOVED:
            remove_placement_group(PlacementGroup(ray.PlacementGroupID(each.placement_group_id)))


def _has_other_runs(run_id: str) -> bool:
    """Tell whether the processes that keep groups, which have names, are also those of other runs."""
    return any(name.startswith(f"{NAME}-") and not name.startswith(f"{NAME}-{run_id}-") for name in _named_actors())


def _named_actors() -> list[str]:
    return [actor["name"] for actor in list_named_actors(all_namespaces=True)]


def _waits(placement: Placement) -> bool:
    """Tell whether a placement group is one of workers, and waits for room."""
    kinds = {kind for bundle in placement.bundles for kind in bundle.unit_resources}
    return placement.state in (Placement.PENDING, Placement.RESCHEDULING) and not kinds.isdisjoint(("CPU", "GPU"))


def groups_beside_driver() -> int:
    """Count the groups whose processes beside the driver its machine has memory for."""
    return max(1, int(MEMORY_SHARE * get_system_memory() / GROUP_BYTES))


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
