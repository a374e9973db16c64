"""Resources that a run asks for, and room for its groups as Ray lays them out: a GPU at a time, each group whole or not
at all. No Ray.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bocb_tune.core.groups import GroupShape, has_labels

UNITS = 10_000
"""Parts of a resource in which Ray counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """Resources of the worker groups of a run, and how many groups there may be."""

    groups: Mapping[str, GroupShape]
    """Shape of the groups that train a backbone, by its name."""
    max_slots: int | None
    warm: bool
    patience_min: float
    """Minutes without a step or a measurement after which a group is taken to hang."""
    share: float
    """Share of the slots that the run keeps while another run waits for room."""
    turns: str = "trials"
    """Policy by which cells come next (see `bocb_tune.engine.cluster.sharing`)."""

    @property
    def shapes(self) -> tuple[GroupShape, ...]:
        """Shapes of groups, each once."""
        return tuple(dict.fromkeys(self.groups.values()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A node of the cluster."""

    id: str
    name: str
    resources: Mapping[str, float]
    labels: Mapping[str, str] = field(default_factory=dict)


class Room:
    """Room on machines that is not taken yet."""

    def __init__(self, machines: Sequence[Machine]) -> None:
        self._places = [_Place(machine) for machine in machines]

    def take(self, shape: GroupShape) -> bool:
        """Take room for a group, on one machine if one has it; False, and nothing taken, if there is not enough."""
        fit = [place for place in self._places if has_labels(place.labels, shape.labels)]
        whole = next((place for place in fit if place.holds(shape, shape.workers)), None)
        taken: list[tuple[_Place, _Place]] = []
        left = shape.workers
        for place in [whole] if whole else fit:
            before = place.copy()
            while left and place.take(shape):
                left -= 1
            taken.append((place, before))
            if not left:
                return True
        for place, before in taken:
            place.cpus, place.gpus = before.cpus, before.gpus
        return False


class _Place:
    """A machine with what is left of it, in units."""

    def __init__(self, machine: Machine) -> None:
        self.labels = machine.labels
        self.cpus = round(machine.resources.get("CPU", 0) * UNITS)
        self.gpus = [UNITS] * int(machine.resources.get("GPU", 0))

    def copy(self) -> _Place:
        other = object.__new__(_Place)
        other.labels, other.cpus, other.gpus = self.labels, self.cpus, list(self.gpus)
        return other

    def holds(self, shape: GroupShape, workers: int) -> bool:
        trial = self.copy()
        return all(trial.take(shape) for _ in range(workers))

    def take(self, shape: GroupShape) -> bool:
        """Take room for one worker: a share of a GPU from the one with the least that suffices, as Ray does."""
        cpus, share = round(shape.cpus_per_worker * UNITS), shape.gpus_per_worker
        if self.cpus < cpus:
            return False
        if 0 < share < 1:
            need = round(share * UNITS)
            fit = [index for index, left in enumerate(self.gpus) if left >= need]
            if not fit:
                return False
            self.gpus[min(fit, key=lambda index: self.gpus[index])] -= need
        elif share:
            free = [index for index, left in enumerate(self.gpus) if left == UNITS][: int(share)]
            if len(free) < share:
                return False
            for index in free:
                self.gpus[index] = 0
        self.cpus -= cpus
        return True
