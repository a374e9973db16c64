"""The mailbox between the driver and one worker group, and the Tune trial that listens to it.

The trial in flight stays in the mailbox until it ends, so that a group restarted after a crash is served it again.
"""

from __future__ import annotations

import asyncio
import contextlib
from time import monotonic
from typing import Any

import ray
from ray import tune

from bocb_tune.engine.worker import MAX_ATTEMPTS

BATCH_S = 0.5
"""Seconds that measurements may gather before the driver takes them, unless one calls for a decision."""
WORKER_DIED = "a worker died"


Item = dict[str, Any]
"""Message of a slot on a trial: `kind` (measured, completed, diverged, oom, failed, left, restarted) and details."""


class Mailbox:
    """Mailbox between the driver and one worker group. An async Ray actor: a waiting call blocks nobody else."""

    def __init__(self) -> None:
        self._orders: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self._current: dict[str, Any] | None = None
        self._serves = 0
        self._items: dict[str, list[Item]] = {}
        self._seen: dict[str, int] = {}
        self._verdicts: dict[tuple[str, int], str] = {}
        self._undecided: set[tuple[str, int]] = set()
        self._leaving = self._handing_over = False
        self._fault = ""
        self._why_restarted = WORKER_DIED
        self._heard = monotonic()
        self._patience_s = 0.0
        self._news = asyncio.Condition()

    async def submit(self, order: dict[str, Any] | None) -> None:
        """Put a trial in the queue (`id`, `trial`, `seen`, `divisor`, `patience_s`), or None to send the group home."""
        if order is not None:
            said = self._items.get(order["id"], [])
            was_left = bool(said) and said[-1]["kind"] == "left"  # who listens from now on must not hear of that
            self._items = {order["id"]: [] if was_left else said}
            self._seen[order["id"]] = order["seen"]
            self._patience_s = order["patience_s"]
            self._heard = monotonic()
        if order is not None and self._fault:
            await self._say(order["id"], self._no_group())
        elif order is not None and self._handing_over:
            await self._say(order["id"], {"kind": "left"})
        else:
            await self._orders.put(order)

    async def next_trial(self) -> dict[str, Any] | None:
        """Return the trial to train: the current one if the group was restarted, unless it killed it too often."""
        self._heard = monotonic()
        if self._current is not None:
            self._serves += 1
            if self._serves <= MAX_ATTEMPTS:
                await self._say(self._current["id"], {"kind": "restarted"})
                return self._current
            message = f"{self._why_restarted} {MAX_ATTEMPTS} times while it trained this trial"
            await self.end(self._current["id"], {"kind": "failed", "message": message, "final": True})
        self._current = await self._orders.get()
        self._heard = monotonic()
        self._serves = 1
        self._why_restarted = WORKER_DIED
        return self._current

    async def report(self, trial_id: str, measurement: dict[str, Any], competes: bool) -> str:
        """Take a measurement; at a rung, wait for the verdict. Returns `go`, `stop` or `leave`."""
        self._heard = monotonic()
        if not self._trains(trial_id):
            return "leave"
        rung = (trial_id, measurement["budget"])
        if measurement["budget"] > self._seen[trial_id]:
            self._seen[trial_id] = measurement["budget"]
            if competes:
                self._undecided.add(rung)
            await self._say(trial_id, {"kind": "measured", "measurement": measurement, "competes": competes})
        async with self._news:
            await self._news.wait_for(lambda: rung not in self._undecided or self._leaving)
        self._heard = monotonic()
        if self._leaving or not self._trains(trial_id):
            return "leave"
        verdict = self._verdicts.get(rung, "go")
        return "leave" if self._handing_over and verdict == "go" else verdict

    async def hear(self) -> bool:
        """Take a sign of life: the group does not hang. Returns whether the trial is to be handed over."""
        self._heard = monotonic()
        return self._handing_over

    def is_silent(self) -> bool:
        """Tell whether the group has had a trial for longer than it is given without a step or a measurement.

        A group may hang between two trials, too: then the next is never taken.
        """
        has_work = self._current is not None or not self._orders.empty()
        return has_work and not self._undecided and monotonic() - self._heard > self._patience_s

    def restarted(self, why: str) -> None:
        """Hear why the group is being started again."""
        self._why_restarted = why

    async def decide(self, trial_id: str, budget: int, verdict: str) -> None:
        async with self._news:
            self._verdicts[trial_id, budget] = verdict
            self._undecided.discard((trial_id, budget))
            self._heard = monotonic()
            self._news.notify_all()

    async def interrupt(self) -> None:
        """Have the trial in flight left at the end of its epoch, and those nobody has taken yet at once."""
        async with self._news:
            self._leaving = True
            self._news.notify_all()
        await self._empty()

    async def hand_over(self) -> None:
        """Have the trial in flight left after its next step, with a checkpoint, and those nobody has taken at once."""
        self._handing_over = True
        await self._empty()

    async def give_back(self) -> None:
        """Give back the trial in flight, and those nobody has taken yet, without waiting for the group."""
        if self._current is not None:
            await self.end(self._current["id"], {"kind": "left"})
        await self._empty()

    async def _empty(self) -> None:
        while not self._orders.empty():
            order = self._orders.get_nowait()
            if order is not None:
                await self._say(order["id"], {"kind": "left"})

    async def end(self, trial_id: str, item: Item) -> None:
        """Record that the group has finished the trial. Only the first item counts: ranks may fail together."""
        if not self._trains(trial_id):
            return
        self._current = None
        self._verdicts = {}
        self._seen.pop(trial_id)
        async with self._news:
            self._undecided = set()
            self._news.notify_all()
        await self._say(trial_id, item)

    def _trains(self, trial_id: str) -> bool:
        return self._current is not None and bool(self._current["id"] == trial_id)

    async def broken(self, message: str) -> None:
        """Give the group up: the current trial, and every later one, fails with `message`."""
        self._fault = message
        for trial_id in list(self._items):
            await self._say(trial_id, self._no_group())

    def _no_group(self) -> Item:
        return {"kind": "failed", "message": self._fault, "final": True, "group_lost": True}

    async def take(self, trial_id: str, skip: int) -> list[Item]:
        """Return everything reported on a trial but the first `skip` items; wait for one, then a little for more.

        Nothing is dropped before the next trial is submitted, so that a listener that dies loses nothing.
        """
        async with self._news:
            await self._news.wait_for(lambda: len(self._items.get(trial_id, ())) > skip)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait_for(lambda: _is_urgent(self._items[trial_id][-1])), BATCH_S)
            return self._items[trial_id][skip:]

    async def _say(self, trial_id: str, item: Item) -> None:
        async with self._news:
            if trial_id in self._items:
                self._items[trial_id].append(item)
            self._news.notify_all()


ENDS = ("completed", "diverged", "oom", "failed", "left", "stopped")


def _is_urgent(item: Item) -> bool:
    return item["kind"] in ENDS or bool(item.get("competes"))


class Client(tune.Trainable):  # type: ignore[misc]
    """The Tune trial: it only listens to its slot's mailbox, so that its own process can be reused at once."""

    def setup(self, config: dict[str, Any]) -> None:
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._trial = new_config["trial"]
        self._mailbox = ray.get_actor(new_config["mailbox"])
        self._taken = 0
        return True

    def step(self) -> dict[str, Any]:
        items = ray.get(self._mailbox.take.remote(self._trial, self._taken))
        self._taken += len(items)
        return {"items": items}

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
        del checkpoint_dir  # the trial's own checkpoint is written by its worker group
        return {}

    def load_checkpoint(self, checkpoint: Any) -> None:
        del checkpoint
