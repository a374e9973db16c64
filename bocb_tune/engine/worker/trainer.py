"""Ray Train's trainer of a worker group, with no more processes beside its workers than it needs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray.exceptions import RayActorError
from ray.train import FailureConfig, RunConfig, ScalingConfig, UserCallback
from ray.train.backend import Backend, BackendConfig
from ray.train.v2._internal.callbacks import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from bocb_tune.core.groups import GroupShape
from bocb_tune.core.version import VERSION
from bocb_tune.engine.worker.notice import heed
from bocb_tune.engine.worker.queue import WORKER_DIED
from bocb_tune.engine.worker.serve import serve


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotSetup:
    """Properties that all slots of a run have."""

    warm: bool
    """Whether a group serves many trials; otherwise each trial starts a group of its own."""
    checkpoints: str
    """Place of the trials' checkpoints: a URI, or a path under which every node sees the same folder."""
    token: str
    """Text of the token there, by which a node knows that it sees the driver's own."""
    checkpoint_every: int
    checkpoint_every_s: float
    scratch: Path
    """Folder beside the driver for what Ray Train itself writes; nothing in it is needed afterwards."""


class Trainer(DataParallelTrainer):  # type: ignore[misc]
    """Ray Train's plain trainer: its torch variant would load torch, 300 MB, into two processes that compute nothing.

    Left out are a process for data sets of Ray's, of which there are none, and one that removes the placement group of
    a controller that died: it needs a dashboard, without which it never ends. The driver does that (`slots`).
    """

    def _create_default_callbacks(self) -> list[Any]:
        needless = DatasetsCallback, PlacementGroupCleanerCallback
        return [each for each in super()._create_default_callbacks() if not isinstance(each, needless)]


class Herald(UserCallback):  # type: ignore[misc]
    """Ray Train's callback, beside its controller: it tells the mailbox of lost ranks."""

    def __init__(self, mailbox: Any) -> None:
        self._mailbox = mailbox

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        del run_context
        first = next(iter(worker_exceptions.values()))
        words = WORKER_DIED if isinstance(first, RayActorError) else str(first).strip().splitlines()[-1]
        self._mailbox.lose.remote(words)


class SharedDevices(Backend):  # type: ignore[misc]
    """Ray Train's set-up of a group: ranks of one node reach each other's GPUs, as NCCL wants it, and heed SIGTERM."""

    share_cuda_visible_devices = True

    def on_start(self, worker_group: Any, backend_config: BackendConfig) -> None:
        del backend_config
        worker_group.execute(heed)


class Devices(BackendConfig):  # type: ignore[misc]
    """Configuration that names this set-up."""

    @property
    def backend_cls(self) -> type[Backend]:
        return SharedDevices


def trainer_of(setup: SlotSetup, shape: GroupShape, mailbox: Any) -> Trainer:
    """Make the trainer of one group, whose ranks join by themselves (see `serve.Group`)."""
    resources = {"CPU": shape.cpus_per_worker}
    if shape.gpus_per_worker:
        resources["GPU"] = shape.gpus_per_worker
    return Trainer(
        serve,
        train_loop_config={
            "mailbox": mailbox,
            "threads": max(1, int(shape.cpus_per_worker)),
            "gpu_share": shape.gpus_per_worker,
            "checkpoints": setup.checkpoints,
            "token": setup.token,
            "version": VERSION,
            "checkpoint_every": setup.checkpoint_every,
            "checkpoint_every_s": setup.checkpoint_every_s,
            "warm": setup.warm,
        },
        backend_config=Devices(),
        scaling_config=ScalingConfig(
            num_workers=shape.workers,
            use_gpu=shape.gpus_per_worker > 0,
            resources_per_worker=resources,
            label_selector=dict(shape.labels) or None,
        ),
        run_config=RunConfig(
            storage_path=str(setup.scratch),
            failure_config=FailureConfig(max_failures=-1),
            callbacks=[Herald(mailbox)],
        ),
    )
