"""Warm worker groups: a slot is one long-lived Ray Train worker group that serves trial after trial.

Starting a group costs tens of seconds of process start and imports, a trial of a small model less than a second. So a
group stays: its ranks wait at a mailbox, rank 0 takes the next trial and broadcasts it, and what it measures goes back
the same way.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from bocb_tune.core.types import TrialSpec
from bocb_tune.engine.worker.queue import Mailbox
from bocb_tune.engine.worker.serve import serve


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotSetup:
    """Properties of every slot of a run."""

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
            "gpu_share": setup.gpus_per_worker,
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
