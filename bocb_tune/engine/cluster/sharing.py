"""Share of the cluster between cells whose worker groups differ: how many groups of each shape there should be. Pure.

Two policies have names. `trials` keeps all cells level in trials: the groups of a shape are in proportion to the time
that its cells take to a number of trials, the same for all. `time` gives each cell the same of the cluster (dominant
resource fairness, Ghodsi et al., NSDI 2011). Proportions are turned into whole groups by the method of D'Hondt.

Where groups of all shapes do not fit at once, they take turns: a shape keeps one group for a turn, then it goes behind
those that have none. So each is reached, since a turn holds one trial at least, and every trial ends.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bocb_tune.core.groups import GroupShape
from bocb_tune.engine.cluster.room import Machine, Room

AHEAD = 8
"""Trials, beyond those of the cells that are furthest, by which all are to be level."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """Demand of the cells that are trained by groups of one shape."""

    shape: GroupShape
    cells: int = 1
    """Cells that are not done."""
    usual_s: float | None = None
    """Seconds of a usual trial; None if none has ended."""
    level: float = 0.0
    """Progress of its cells by the policy; those that are least far come first."""
    most: int | None = None
    """Trials that could be in flight; None for more than there is room for."""


def grants(
    demands: Sequence[Demand],
    machines: Sequence[Machine],
    turns: str,
    *,
    holding: Mapping[GroupShape, int],
    in_turn: frozenset[GroupShape] = frozenset(),
) -> list[GroupShape]:
    """List the groups that there should be, the most deserved first.

    Args:
        turns: the policy.
        holding: groups that there are of each shape; they stay where nobody else needs their room.
        in_turn: shapes whose turn is not over.
    """
    room, given, order = Room(machines), Counter[GroupShape](), list[GroupShape]()

    def give(demand: Demand, most: int | None) -> bool:
        if (most is not None and given[demand.shape] >= most) or not room.take(demand.shape):
            return False
        given[demand.shape] += 1
        order.append(demand.shape)
        return True

    for demand in sorted(demands, key=lambda demand: (demand.shape not in in_turn, demand.level)):
        give(demand, None if demand.most is None else min(1, demand.most))
    weights = _weights(demands, machines, turns)
    hungry = list(demands)
    while hungry:
        neediest = max(hungry, key=lambda demand: weights[demand.shape] / (given[demand.shape] + 1))
        if not give(neediest, neediest.most):
            hungry.remove(neediest)
    for demand in demands:
        while give(demand, holding.get(demand.shape, 0)):
            pass
    return order


def _weights(demands: Sequence[Demand], machines: Sequence[Machine], turns: str) -> dict[GroupShape, float]:
    if turns == "time":
        return {demand.shape: demand.cells / size_of(demand.shape, machines) for demand in demands}
    assert turns == "trials", turns
    known = [demand.usual_s for demand in demands if demand.usual_s]
    usual_s = sum(known) / len(known) if known else 1.0
    goal = max((demand.level for demand in demands), default=0.0) + AHEAD
    return {demand.shape: demand.cells * (demand.usual_s or usual_s) * (goal - demand.level) for demand in demands}


def size_of(shape: GroupShape, machines: Sequence[Machine]) -> float:
    """Return the share of the cluster that a group takes, of the resource of which it takes most."""
    total = Counter[str]()
    for machine in machines:
        total.update({kind: machine.resources.get(kind, 0) for kind in shape.needs})
    return max((need / total[kind] for kind, need in shape.needs.items() if need and total[kind]), default=1.0)


def kept(order: Sequence[GroupShape], machines: Sequence[Machine], share: float) -> list[GroupShape]:
    """Keep the first groups of an order that take together a share of what all of it takes; one at least."""
    sizes = [size_of(shape, machines) for shape in order]
    limit, taken = share * sum(sizes) + 1e-9, 0.0
    count = 0
    for size in sizes:
        taken += size
        if taken > limit:
            break
        count += 1
    return list(order[: max(1, count)])
