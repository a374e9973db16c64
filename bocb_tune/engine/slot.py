"""A slot: the driver's end of a worker group, for one trial at a time."""

from __future__ import annotations

import time
from typing import Any

import ray
from ray.exceptions import RayActorError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from bocb_tune.core.groups import GroupShape
from bocb_tune.core.types import TrialSpec
from bocb_tune.engine.worker.group import Host
from bocb_tune.engine.worker.roll import Condition, GroupState
from bocb_tune.engine.worker.trainer import SlotSetup


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
