"""Numbers of worker groups of each shape that a run should have, as nodes, cells and turns change."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from ray._common.utils import get_system_memory

from bocb_tune.core.groups import GroupShape
from bocb_tune.engine.cluster.room import Capacity, Machine
from bocb_tune.engine.cluster.sharing import Demand, grants, kept
from bocb_tune.engine.cluster.state import ClusterState
from bocb_tune.engine.slot import Slot
from bocb_tune.engine.worker.roll import Condition

GROUP_BYTES = 1e9
MEMORY_SHARE = 0.8
"""Memory of the processes beside the driver that keep a group, and the share of its machine's that all may take."""
TURN_S = 600.0
"""Seconds for which groups of one shape keep the room that those of another wait for."""
RESHARE_S = 300.0
"""Seconds after which room is shared anew between shapes though no node, cell or turn has changed."""
STALL_S = 60.0
"""Seconds that a group waits for room which is there, in pieces, before another is given up to join them."""


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


def groups_beside_driver() -> int:
    """Count the groups whose processes beside the driver its machine has memory for."""
    return max(1, int(MEMORY_SHARE * get_system_memory() / GROUP_BYTES))
