"""A cluster in simulated time: real search, scheduler, rungs, ledger and slots around groups and nodes that are not.

Groups are placed as Ray places them: whole or not at all, the oldest request first, and later ones that fit overtake.
Each worker goes to a random machine with room, so that what is left lies in pieces.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from ray.tune.search import Searcher

from bocb_tune.core.groups import GroupShape, has_labels
from bocb_tune.core.storage import Folder
from bocb_tune.core.types import TrialRecord, TrialSpec
from bocb_tune.engine import slots as module
from bocb_tune.engine.asha import CellRungs
from bocb_tune.engine.cluster.room import Capacity, Machine
from bocb_tune.engine.cluster.state import ClusterState
from bocb_tune.engine.policy import CellPlan
from bocb_tune.engine.run import settle
from bocb_tune.engine.scheduler import GridASHA
from bocb_tune.engine.search import GridSearch
from bocb_tune.engine.slot import Slot
from bocb_tune.engine.slots import Slots
from bocb_tune.engine.store import RunStore
from bocb_tune.engine.worker.roll import Condition, GroupState
from bocb_tune.training.context import Context
from tests.support.simulated import OBJECTIVE, records_of, trial_events

Lease = tuple[str, float, list[int], float]
"""Machine, CPUs, GPUs by number, and the share of each, that one worker has."""


class Nodes:
    """Machines, and what of them is free."""

    def __init__(self, machines: Sequence[Machine], seed: int) -> None:
        self.machines = {machine.id: machine for machine in machines}
        self._cpus = {machine.id: machine.resources.get("CPU", 0.0) for machine in machines}
        self._gpus = {machine.id: [1.0] * int(machine.resources.get("GPU", 0)) for machine in machines}
        self._random = random.Random(seed)

    def add(self, machine: Machine) -> None:
        self.machines[machine.id] = machine
        self._cpus[machine.id] = machine.resources.get("CPU", 0.0)
        self._gpus[machine.id] = [1.0] * int(machine.resources.get("GPU", 0))

    def place(self, shape: GroupShape) -> list[Lease] | None:
        leases: list[Lease] = []
        for _ in range(shape.workers):
            lease = self._lease(shape)
            if lease is None:
                self.release(leases)
                return None
            leases.append(lease)
        return leases

    def _lease(self, shape: GroupShape) -> Lease | None:
        names = [name for name, each in self.machines.items() if has_labels(each.labels, shape.labels)]
        self._random.shuffle(names)
        for name in names:
            gpus, share = self._gpus[name], min(shape.gpus_per_worker, 1.0)
            free = [number for number, left in enumerate(gpus) if left >= share - 1e-9] if share else []
            wanted = free[: max(1, int(shape.gpus_per_worker))] if share else []
            if self._cpus[name] < shape.cpus_per_worker or len(wanted) < shape.gpus_per_worker:
                continue
            self._cpus[name] -= shape.cpus_per_worker
            for number in wanted:
                gpus[number] -= share
            return name, shape.cpus_per_worker, wanted, share
        return None

    def release(self, leases: Sequence[Lease]) -> None:
        for name, cpus, gpus, share in leases:
            if name in self.machines:
                self._cpus[name] += cpus
                for number in gpus:
                    self._gpus[name][number] += share

    def free(self) -> dict[str, float]:
        return {
            "CPU": sum(self._cpus[name] for name in self.machines),
            "GPU": sum(sum(self._gpus[name]) for name in self.machines),
        }


class SimulatedSlot(Slot):
    """A slot whose group is simulated."""

    world: EventCluster

    def __init__(self, setup: Any, shape: GroupShape, name: str) -> None:
        del setup
        self.name, self.shape, self.fault, self.is_lost, self.is_leaving = name, shape, "", False, False
        self.state = GroupState(condition=Condition.starting, since=self.world.now)
        self.leases: list[Lease] = []
        self.trial: TrialSpec | None = None
        self._items: Iterator[dict[str, Any]] = iter(())
        self._began = 0.0
        self._served = 0
        self.world.pending.append(self)
        self.world.place_pending()

    def placed(self, leases: list[Lease]) -> None:
        self.leases = leases
        self.world.after(self.world.start_s, lambda: self._join(leases))

    def _join(self, leases: list[Lease]) -> None:
        if leases is self.leases:
            nodes = frozenset(name for name, *_ in leases)
            self.state = GroupState(condition=Condition.ready, since=self.world.now, nodes=nodes)
            if self.trial is not None:  # the group was started again
                self.world.tell(self, {"kind": "restarted"})
                self._items = trial_events(self.trial, self.world.store.record(self.trial).budget, Context())
                self._next_item(self._served)

    def lose(self) -> None:
        """Lose the group with a node: it waits for room again."""
        self.world.nodes.release(self.leases)
        self.leases, self._served = [], self._served + 1
        self.state = GroupState(condition=Condition.restarting, since=self.world.now, why="a worker died")
        self.world.pending.append(self)

    def listen(self, wait_s: float = 0.0) -> None:
        """Its state is always known."""

    def submit(self, trial: TrialSpec, *, seen: int, divisor: int, patience_s: float) -> None:
        del divisor, patience_s
        self.trial, self._began, self._served = trial, self.world.now, self._served + 1
        self._items = trial_events(trial, seen, Context())
        self._next_item(self._served)

    def _next_item(self, served: int) -> None:
        assert self.trial is not None
        item = next(self._items)
        lasts = self.world.epoch_s(self.trial) if item["kind"] != "completed" else 0.0
        if item["kind"] == "measured":
            item["measurement"]["elapsed_s"] = item["measurement"]["budget"] * lasts
        self.world.after(lasts, lambda: self._tell(item) if served == self._served else None)

    def _tell(self, item: dict[str, Any]) -> None:
        assert self.trial is not None
        if self.world.tell(self, item):
            self._next_item(self._served)
        else:
            self.world.busy.append((self.name, self._began, self.world.now))
            self.trial = None

    def give_back(self) -> None:
        self._served += 1
        if self.trial is not None:
            self._tell({"kind": "left"})

    def decide(self, trial_id: str, budget: int, *, stop: bool) -> None:
        """The world asks the scheduler for its answer itself."""

    def close(self) -> list[Any]:
        self._served += 1
        self.world.nodes.release(self.leases)
        self.leases = []
        if self in self.world.pending:
            self.world.pending.remove(self)
        self.world.place_pending()
        return []

    def leave(self) -> None:
        """Nobody asks a simulated run to stop."""


class EventCluster:
    """A run over simulated nodes, from one event to the next."""

    def __init__(
        self,
        folder: Path,
        cells: tuple[CellPlan, ...],
        machines: Sequence[Machine],
        resources: Capacity,
        *,
        epoch_s: Callable[[TrialSpec], float] = lambda _: 60.0,
        start_s: float = 20.0,
        handle_s: float = 0.0,
        tick_s: float = 30.0,
        seed: int = 0,
    ) -> None:
        """Prepare a run.

        Args:
            start_s: what a group takes to start.
            handle_s: time of the driver for one trial, in which it hands out no other.
            tick_s: between two looks at the cluster where nothing else happens.
        """
        self.now, self.epoch_s, self.start_s, self._handle_s = 0.0, epoch_s, start_s, handle_s
        self.nodes = Nodes(machines, seed)
        self.pending: list[SimulatedSlot] = []
        self.busy: list[tuple[str, float, float]] = []
        """Slot, start and end of what was trained."""
        self.started: list[tuple[float, TrialSpec]] = []
        self.most_groups = 0
        self._events: list[tuple[float, int, Callable[[], object]]] = []
        self._count = itertools.count()
        self._tick_s = tick_s
        self._resources = resources
        self.store = RunStore(folder, cells, OBJECTIVE, {}, clock=lambda: 0.0)
        self.rungs = {key: CellRungs(book.plan.plan, OBJECTIVE.floor) for key, book in self.store.books.items()}
        self._resumed = settle(self.store, self.rungs)
        self._folder = folder
        self._listening: dict[str, Any] = {}
        self._controller = SimpleNamespace(_actor_cache=SimpleNamespace(increase_max=lambda *_: None))

    def after(self, seconds: float, action: Callable[[], object]) -> None:
        heapq.heappush(self._events, (self.now + seconds, next(self._count), action))

    def at(self, when: float, action: Callable[[], object]) -> None:
        self.after(when - self.now, action)

    def place_pending(self) -> None:
        for slot in list(self.pending):
            leases = self.nodes.place(slot.shape)
            if leases is not None:
                self.pending.remove(slot)
                slot.placed(leases)

    def lose(self, machine: str) -> None:
        del self.nodes.machines[machine]
        for slot in list(self.slots._slots):
            assert isinstance(slot, SimulatedSlot)
            if any(name == machine for name, *_ in slot.leases):
                slot.lose()
        self.place_pending()

    def add(self, machine: Machine) -> None:
        self.nodes.add(machine)
        self.place_pending()

    def cluster(self, run_id: str) -> ClusterState:
        del run_id
        machines = tuple(self.nodes.machines.values())
        return ClusterState(machines=machines, waiting=len(self.pending), free=self.nodes.free())

    def tell(self, slot: SimulatedSlot, item: dict[str, Any]) -> bool:
        """Tell the scheduler of an item; False if the trial is over."""
        decision = self.scheduler.on_trial_result(self._controller, self._listening[slot.name], {"items": [item]})
        return bool(decision != "STOP")

    def run(self, patience_s: float = 2e4) -> dict[str, TrialRecord]:
        """Run to the end; AssertionError if nothing is trained for so long."""
        slot = type("Own", (SimulatedSlot,), {"world": self})
        patches = {"Slot": slot, "look_at_cluster": self.cluster, "named_actors": list, "_full_disk": lambda: iter(())}
        with mock.patch.multiple(module, **patches):
            self.slots = Slots(None, self._resources, lambda *_: None, clock=lambda: self.now)  # type: ignore[arg-type]
            turns = self._resources.turns
            self.search = GridSearch(self.store, self.slots, self._resumed, turns=turns)
            self.scheduler = GridASHA(self.store, self.search, self.rungs, Folder(self._folder / "checkpoints"))
            self.after(0.0, self._tick)
            last = 0.0
            while self._hand_out():
                when, _, action = heapq.heappop(self._events)
                self.now = max(self.now, when)
                action()
                last = self.now if self.store.in_flight else last
                assert self.now - last < patience_s, f"nothing is trained since {last:g} s"
        self.store.close()
        return records_of(self.store)

    def _tick(self) -> None:
        self.after(self._tick_s, self._tick)

    def _hand_out(self) -> bool:
        while (config := self.search.suggest("tune-id")) not in (None, Searcher.FINISHED):
            assert isinstance(config, dict)
            self.now += self._handle_s
            trial = SimpleNamespace(config=config, placement_group_factory=None)
            self._listening[config["mailbox"]] = trial
            self.scheduler.on_trial_add(self._controller, trial)
            self.started.append((self.now, self.store.in_flight[config["trial"]]))
        self.most_groups = max(self.most_groups, len(self.slots))
        return bool(config != Searcher.FINISHED)
