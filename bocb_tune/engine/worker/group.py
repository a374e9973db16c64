"""Warm worker groups: a slot is one long-lived Ray Train worker group that serves trial after trial.

Starting a group costs tens of seconds of process start and imports, a trial of a small model less than a second. So a
group stays: its ranks wait at a mailbox, rank 0 takes the next trial and broadcasts it, and what it measures goes back
the same way.
"""

from __future__ import annotations

import asyncio
import contextlib
import os

import ray
from ray.exceptions import RayActorError

from bocb_tune.core.groups import GroupShape
from bocb_tune.engine.worker import MAX_ATTEMPTS
from bocb_tune.engine.worker.queue import Mailbox
from bocb_tune.engine.worker.roll import Arrival, GroupState, Roll
from bocb_tune.engine.worker.trainer import SlotSetup, trainer_of

WATCH_S = 1.0
"""Seconds between two looks at whether the group hangs."""


class Host(Mailbox):
    """The mailbox's actor, which also keeps the worker group: no thread of the driver is at work when Ray ends."""

    def __init__(self, setup: SlotSetup, shape: GroupShape) -> None:
        super().__init__()
        self._setup, self._shape = setup, shape
        self._closed = False
        self._own_handle = ray.get_runtime_context().current_actor
        self._roll = Roll(shape.workers)
        self._tasks: list[asyncio.Future[None]] = []

    async def open(self) -> None:
        """Start the worker group."""
        os.environ["RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"] = "0"  # a process a group, for what the driver sees itself
        self._tasks = [asyncio.ensure_future(self._keep_group()), asyncio.ensure_future(self._watch())]

    async def close(self) -> None:
        """Send the group home and wait until it is gone."""
        self._closed = True
        await self.submit(None)
        if self._tasks:
            await self._tasks[0]

    async def join(self, arrival: Arrival) -> str | None:
        """Have a rank wait for the others of its group (see `Roll.join`)."""
        address = await self._roll.join(arrival)
        await self.hear()
        return address

    async def lose(self, why: str) -> None:
        """Hear that the group has lost a rank; one that does so before it is ready, again and again, is given up."""
        self._roll.lose(why)
        if self._roll.lost_starts > MAX_ATTEMPTS and not self._fault:
            await self.broken(f"its workers end before they are ready: {why}")

    async def state(self) -> tuple[GroupState, str]:
        """Tell the condition of the group, and why it can no longer be used, if so."""
        return self._roll.state, self._fault

    async def _keep_group(self) -> None:
        deaths = 0
        while not self._closed and deaths < MAX_ATTEMPTS:
            try:
                await asyncio.to_thread(lambda: trainer_of(self._setup, self._shape, self._own_handle).fit())
            except RayActorError:  # Ray Train's own process died: the group goes with it
                deaths += 1
                self._roll.lose("the process that keeps the group died")
                continue
            except Exception as error:  # whatever Ray Train raises, the trials in flight must hear of it
                await self.broken(f"the worker group cannot be used: {error}")
                return
            deaths = 0
            if self._roll.problem:
                await self.broken(self._roll.problem)
            if self._setup.warm or self._roll.problem:
                return
        if not self._closed:
            await self.broken(f"the process that keeps the worker group died {MAX_ATTEMPTS} times")

    async def _watch(self) -> None:
        """End the processes of a group that hangs: Ray Train starts it again, and it is served its trial again."""
        while not self._closed:
            await asyncio.sleep(WATCH_S)
            if not self.is_silent() or not self._roll.is_ready:
                continue
            why = f"no step and no measurement for {self._patience_s:g} s (resources.patience_min)"
            self.restarted(f"{why},")
            self._roll.lose(why)
            for handle in self._roll.handles:
                with contextlib.suppress(Exception):  # it may be dead by now
                    ray.kill(handle)
