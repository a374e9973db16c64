"""Warm worker groups: a slot is one long-lived Ray Train worker group that serves trial after trial.

Starting a group costs tens of seconds of process start and imports, a trial of a small model less than a second. So a
group stays: its ranks wait at a mailbox, rank 0 takes the next trial and broadcasts it, and what it measures goes back
the same way.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayActorError
from ray.train import UserCallback
from ray.train.backend import Backend, BackendConfig

from bocb_tune.core.version import VERSION
from bocb_tune.engine.worker import MAX_ATTEMPTS
from bocb_tune.engine.worker.queue import WORKER_DIED, Mailbox
from bocb_tune.engine.worker.roll import Arrival, GroupState, Roll
from bocb_tune.engine.worker.serve import serve

WATCH_S = 1.0
"""Seconds between two looks at whether the group hangs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotSetup:
    """Properties of every slot of a run."""

    workers: int
    cpus_per_worker: float
    gpus_per_worker: float
    warm: bool
    """Whether a group serves many trials; otherwise each trial starts a group of its own."""
    checkpoints: str
    """Place of the trials' checkpoints: a URI, or a path under which every node sees the same folder."""
    token: str
    """Text of the token there, by which a node knows that it sees the driver's own."""
    checkpoint_every: int
    scratch: Path
    """Folder beside the driver for what Ray Train itself writes; nothing in it is needed afterwards."""


class Host(Mailbox):
    """The mailbox's actor, which also keeps the worker group: no thread of the driver is at work when Ray ends."""

    def __init__(self, setup: SlotSetup) -> None:
        super().__init__()
        self._setup = setup
        self._closed = False
        self._own_handle = ray.get_runtime_context().current_actor
        self._roll = Roll(setup.workers)
        self._tasks: list[asyncio.Future[None]] = []

    async def open(self) -> None:
        """Start the worker group."""
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
        """Tell how the group is, and why it cannot be had any more, if it cannot."""
        return self._roll.state, self._fault

    async def _keep_group(self) -> None:
        deaths = 0
        while not self._closed and deaths < MAX_ATTEMPTS:
            try:
                await asyncio.to_thread(lambda: _trainer(self._setup, self._own_handle).fit())
            except RayActorError:  # Ray Train's own process died: the group goes with it
                deaths += 1
                self._roll.lose("the process that keeps the group died")
                continue
            except Exception as error:  # whatever Ray Train raises, the trials in flight must hear of it
                await self.broken(f"the worker group cannot be had: {error}")
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
            assert self._current is not None
            why = f"no step and no measurement for {self._current['patience_s']:g} s (resources.patience_min)"
            self.restarted(f"{why},")
            self._roll.lose(why)
            for handle in self._roll.handles:
                with contextlib.suppress(Exception):  # it may be dead by now
                    ray.kill(handle)


class _Herald(UserCallback):  # type: ignore[misc]
    """Ray Train's callback, beside its controller: it tells the mailbox of lost ranks."""

    def __init__(self, mailbox: Any) -> None:
        self._mailbox = mailbox

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        del run_context
        first = next(iter(worker_exceptions.values()))
        words = WORKER_DIED if isinstance(first, RayActorError) else str(first).strip().splitlines()[-1]
        self._mailbox.lose.remote(words)


class _SharedDevices(Backend):  # type: ignore[misc]
    """Ray Train's set-up of a group: none, but that ranks of one node reach each other's GPUs, as NCCL wants it."""

    share_cuda_visible_devices = True


class _Devices(BackendConfig):  # type: ignore[misc]
    """Configuration that names this set-up."""

    @property
    def backend_cls(self) -> type[Backend]:
        return _SharedDevices


def _trainer(setup: SlotSetup, mailbox: Any) -> Any:
    """Make Ray Train's trainer of one group: a plain one, since the ranks join by themselves (see `serve.Group`).

    Its torch variant would load torch, 300 MB, into two processes of every slot that compute nothing.
    """
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

    resources = {"CPU": setup.cpus_per_worker}
    if setup.gpus_per_worker:
        resources["GPU"] = setup.gpus_per_worker
    return DataParallelTrainer(
        serve,
        train_loop_config={
            "mailbox": mailbox,
            "threads": max(1, int(setup.cpus_per_worker)),
            "gpu_share": setup.gpus_per_worker,
            "checkpoints": setup.checkpoints,
            "token": setup.token,
            "version": VERSION,
            "checkpoint_every": setup.checkpoint_every,
            "warm": setup.warm,
        },
        backend_config=_Devices(),
        scaling_config=ScalingConfig(
            num_workers=setup.workers, use_gpu=setup.gpus_per_worker > 0, resources_per_worker=resources
        ),
        run_config=RunConfig(
            storage_path=str(setup.scratch),
            failure_config=FailureConfig(max_failures=-1),
            callbacks=[_Herald(mailbox)],
        ),
    )
