"""Warm worker groups: a slot is one long-lived Ray Train worker group that serves trial after trial.

Starting a group costs tens of seconds of process start and imports, a trial of a small model less than a second. So a
group stays: its ranks wait at a mailbox, rank 0 takes the next trial and broadcasts it, and what it measures goes back
the same way. The trial in flight stays in the mailbox until it ends, so that a group restarted after a crash is served
it again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import ray
from ray import tune

from bocb_tune.core.types import TrialSpec
from bocb_tune.engine.worker import MAX_ATTEMPTS

BATCH_S = 0.5
"""How long measurements may gather before the driver takes them, unless one calls for a decision."""

Item = dict[str, Any]
"""What a slot says of a trial: `kind` (measured, completed, diverged, oom, failed, left, restarted) and its details."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotSetup:
    """What every slot of a run is made of."""

    workers: int
    cpus_per_worker: float
    gpus_per_worker: float
    warm: bool
    """Whether a group serves many trials; otherwise each trial starts a group of its own."""
    checkpoints: Path
    """Folder of the trials' checkpoint folders; every node sees it under the same path."""
    checkpoint_every: int
    scratch: Path
    """Folder for what Ray Train itself writes; nothing in it is needed afterwards."""


class Mailbox:
    """Between the driver and one worker group. An async Ray actor: a waiting call blocks nobody else."""

    def __init__(self) -> None:
        self._orders: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self._current: dict[str, Any] | None = None
        self._serves = 0
        self._items: dict[str, list[Item]] = {}
        self._seen: dict[str, int] = {}
        self._verdicts: dict[tuple[str, int], str] = {}
        self._undecided: set[tuple[str, int]] = set()
        self._leaving = False
        self._fault = ""
        self._news = asyncio.Condition()

    async def submit(self, order: dict[str, Any] | None) -> None:
        """Queue a trial (`id`, `trial`, `seen`, `divisor`), or None to send the group home."""
        if order is not None:
            self._items = {order["id"]: self._items.get(order["id"], [])}
            self._seen[order["id"]] = order["seen"]
        if order is not None and self._fault:
            await self._say(order["id"], self._no_group())
        else:
            await self._orders.put(order)

    async def next_trial(self) -> dict[str, Any] | None:
        """The trial to train: the one in flight if the group was restarted, unless it killed the group too often."""
        if self._current is not None:
            self._serves += 1
            if self._serves <= MAX_ATTEMPTS:
                await self._say(self._current["id"], {"kind": "restarted"})
                return self._current
            message = f"a worker died {MAX_ATTEMPTS} times while it trained this trial"
            await self.end(self._current["id"], {"kind": "failed", "message": message, "final": True})
        self._current = await self._orders.get()
        self._serves = 1
        return self._current

    async def report(self, trial_id: str, measurement: dict[str, Any], competes: bool) -> str:
        """Take a measurement; at a rung, wait for the verdict. Returns `go`, `stop` or `leave`."""
        rung = (trial_id, measurement["budget"])
        if measurement["budget"] > self._seen[trial_id]:
            self._seen[trial_id] = measurement["budget"]
            if competes:
                self._undecided.add(rung)
            await self._say(trial_id, {"kind": "measured", "measurement": measurement, "competes": competes})
        async with self._news:
            await self._news.wait_for(lambda: rung not in self._undecided or self._leaving)
        return "leave" if self._leaving else self._verdicts.get(rung, "go")

    async def decide(self, trial_id: str, budget: int, verdict: str) -> None:
        async with self._news:
            self._verdicts[trial_id, budget] = verdict
            self._undecided.discard((trial_id, budget))
            self._news.notify_all()

    async def leave(self) -> None:
        """Have the trial in flight left at the end of its epoch, and those nobody has taken yet at once."""
        async with self._news:
            self._leaving = True
            self._news.notify_all()
        while not self._orders.empty():
            order = self._orders.get_nowait()
            if order is not None:
                await self._say(order["id"], {"kind": "left"})

    async def end(self, trial_id: str, item: Item) -> None:
        """The group is through with the trial. Only the first word counts: ranks may fail together."""
        if self._current is None or self._current["id"] != trial_id:
            return
        self._current = None
        self._undecided = set()
        self._verdicts = {}
        self._seen.pop(trial_id)
        await self._say(trial_id, item)

    async def broken(self, message: str) -> None:
        """The group cannot be had: whatever is in flight or will be submitted here fails."""
        self._fault = message
        for trial_id in list(self._items):
            await self._say(trial_id, self._no_group())

    def _no_group(self) -> Item:
        return {"kind": "failed", "message": self._fault, "final": True, "group_lost": True}

    async def take(self, trial_id: str, skip: int) -> list[Item]:
        """Everything said of a trial but the first `skip` items; waits for a word, then a little for more.

        Nothing is forgotten before the next trial is submitted, so that a listener that dies loses nothing.
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


class Host(Mailbox):
    """The mailbox's actor, which also keeps the worker group: no thread of the driver is at work when Ray ends."""

    def __init__(self, setup: SlotSetup) -> None:
        super().__init__()
        self._setup = setup
        self._closed = False
        self._own_handle = ray.get_runtime_context().current_actor
        self._group: asyncio.Future[None] | None = None

    async def open(self) -> None:
        """Start the worker group."""
        self._group = asyncio.ensure_future(self._keep_group())

    async def close(self) -> None:
        """Send the group home and wait until it is gone."""
        self._closed = True
        await self.submit(None)
        if self._group is not None:
            await self._group

    async def _keep_group(self) -> None:
        try:
            while not self._closed:
                await asyncio.to_thread(lambda: _trainer(self._setup, self._own_handle).fit())
                if self._setup.warm:
                    return
        except Exception as error:  # whatever Ray Train raises, the trials in flight must hear of it
            await self.broken(f"the worker group cannot be had: {error}")


class Slot:
    """The driver's end of one worker group."""

    def __init__(self, setup: SlotSetup, name: str) -> None:
        self.name = name
        self.fault = ""
        """Why the group cannot be had any more; empty while it can."""
        self._host = ray.remote(num_cpus=0, max_concurrency=1000)(Host).options(name=name).remote(setup)
        self._host.open.remote()

    def submit(self, trial: TrialSpec, *, seen: int, divisor: int) -> None:
        self._host.submit.remote({"id": trial.id, "trial": trial.to_json(), "seen": seen, "divisor": divisor})

    def decide(self, trial_id: str, budget: int, *, stop: bool) -> None:
        self._host.decide.remote(trial_id, budget, "stop" if stop else "go")

    def leave(self) -> None:
        self._host.leave.remote()

    def close(self) -> Any:
        """Send the group home; the reference returned is ready when it is gone."""
        return self._host.close.remote()


def _trainer(setup: SlotSetup, mailbox: Any) -> Any:
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    resources = {"CPU": setup.cpus_per_worker}
    if setup.gpus_per_worker:
        resources["GPU"] = setup.gpus_per_worker
    return TorchTrainer(
        serve,
        train_loop_config={
            "mailbox": mailbox,
            "threads": max(1, int(setup.cpus_per_worker)),
            "checkpoints": str(setup.checkpoints),
            "checkpoint_every": setup.checkpoint_every,
            "warm": setup.warm,
        },
        scaling_config=ScalingConfig(
            num_workers=setup.workers, use_gpu=setup.gpus_per_worker > 0, resources_per_worker=resources
        ),
        torch_config=TorchConfig(backend="nccl" if setup.gpus_per_worker else "gloo"),
        run_config=RunConfig(storage_path=str(setup.scratch), failure_config=FailureConfig(max_failures=-1)),
    )


def serve(config: Mapping[str, Any]) -> None:
    """Train function of every rank: serve trials from the mailbox until there is none."""
    group = Group.join(config["threads"])
    mailbox = config["mailbox"]
    while (order := group.from_rank_0(lambda: ray.get(mailbox.next_trial.remote()))) is not None:
        _serve_trial(order, config, group)
        if not config["warm"]:
            return


@dataclass(frozen=True, slots=True)
class Group:
    """The ranks of a worker group, and the channel over which rank 0 speaks to the others."""

    ranks: Any
    channel: Any

    @classmethod
    def join(cls, threads: int) -> Group:
        import ray.train
        import torch
        import torch.distributed as dist
        from ray.train.torch import get_device

        from bocb_tune.training.context import Ranks

        torch.set_num_threads(threads)
        context = ray.train.get_context()
        ranks = Ranks(
            rank=context.get_world_rank(),
            world_size=context.get_world_size(),
            local_rank=context.get_local_rank(),
            device=str(get_device()),
        )
        # A rank may wait long for rank 0 to be given a trial, and orders are no tensors: gloo, whatever trains.
        channel = dist.new_group(backend="gloo", timeout=timedelta(days=30)) if ranks.world_size > 1 else None
        return cls(ranks, channel)

    def from_rank_0(self, make: Callable[[], Any]) -> Any:
        """What rank 0 makes, on every rank."""
        import torch.distributed as dist

        box = [make() if self.ranks.rank == 0 else None]
        if self.channel is not None:
            dist.broadcast_object_list(box, src=0, group=self.channel)
        return box[0]


def _serve_trial(order: Mapping[str, Any], config: Mapping[str, Any], group: Group) -> None:
    from bocb_tune.core.errors import Diverged, OutOfMemory
    from bocb_tune.tasks import get_task
    from bocb_tune.training.checkpoint import Checkpoints
    from bocb_tune.training.context import Context

    trial = TrialSpec.from_json(order["trial"])
    mailbox = config["mailbox"]
    context = Context(
        ranks=group.ranks,
        checkpoints=Checkpoints(Path(config["checkpoints"]) / trial.id),
        checkpoint_every=config["checkpoint_every"],
        micro_batch_divisor=order["divisor"],
    )
    try:
        item = _train(get_task(trial.cell.task), trial, context, mailbox, group)
    except Diverged as error:
        item = {"kind": "diverged", "budget": error.budget, "message": error.message}
    except OutOfMemory as error:
        item = {"kind": "oom", "budget": error.budget, "message": error.message}
    except Exception as error:
        if _is_lost_peer(error):
            os._exit(1)  # another rank died: the group is started again and served this trial again
        item = {"kind": "failed", "message": _describe(error)}
    if group.ranks.rank == 0 or item["kind"] in ("oom", "failed"):
        ray.get(mailbox.end.remote(trial.id, item))
    if item["kind"] in ("oom", "failed") and group.ranks.world_size > 1:
        # The other ranks may be waiting in a collective this rank has left: only a new group is sound.
        os._exit(1)


def _train(task: Any, trial: TrialSpec, context: Any, mailbox: Any, group: Group) -> Item:
    with contextlib.closing(task.run(trial, context)) as curve:
        for measurement in curve:
            report = (trial.id, measurement.to_json(), measurement.budget in trial.rungs)
            verdict = group.from_rank_0(lambda report=report: ray.get(mailbox.report.remote(*report)))  # type: ignore[misc]
            if verdict != "go":
                return {"kind": "stopped" if verdict == "stop" else "left"}
    return {"kind": "completed"}


def _is_lost_peer(error: Exception) -> bool:
    import torch.distributed as dist

    return isinstance(error, dist.DistError) or "gloo/transport" in str(error)


def _describe(error: Exception) -> str:
    """The error and where it was raised: one line for the status table, short enough to keep in a journal."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({Path(frame.filename).name}:{frame.lineno})"[:1000]
