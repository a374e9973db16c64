"""Work of every rank of a worker group: it serves trials from the mailbox. Rank 0 takes one and broadcasts it."""

from __future__ import annotations

import contextlib
import os
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import ray

from bocb_tune.core.types import TrialSpec
from bocb_tune.engine.worker.queue import Item


def serve(config: Mapping[str, Any]) -> None:
    """Train function of every rank: serve trials from the mailbox until there is none."""
    group = Group.join(config["threads"], config["gpu_share"])
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
    def join(cls, threads: int, gpu_share: float) -> Group:
        import ray.train
        import torch
        import torch.distributed as dist
        from ray.train.torch import get_device

        from bocb_tune.training.context import Ranks
        from bocb_tune.training.device import limit_memory

        torch.set_num_threads(threads)
        context = ray.train.get_context()
        ranks = Ranks(
            rank=context.get_world_rank(),
            world_size=context.get_world_size(),
            local_rank=context.get_local_rank(),
            device=str(get_device()),
        )
        limit_memory(torch.device(ranks.device), gpu_share)
        # A rank may wait long for rank 0 to be given a trial, and orders are no tensors: gloo, whatever trains.
        channel = dist.new_group(backend="gloo", timeout=timedelta(days=30)) if ranks.world_size > 1 else None
        return cls(ranks, channel)

    def from_rank_0(self, make: Callable[[], Any]) -> Any:
        """Give what rank 0 makes, on every rank."""
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
        item = {"kind": "oom", "budget": error.budget, "message": error.message + _share_of(config["gpu_share"])}
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


def _share_of(gpu: float) -> str:
    if not 0 < gpu < 1:
        return ""
    return f" (it may take {gpu:g} of the GPU's memory; a larger resources.gpus_per_worker gives it more)"


def _is_lost_peer(error: Exception) -> bool:
    import torch.distributed as dist

    return isinstance(error, dist.DistError) or "gloo/transport" in str(error)


def _describe(error: Exception) -> str:
    """Say the error and where it was raised: one line for the status table, short enough to keep in a journal."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({Path(frame.filename).name}:{frame.lineno})"[:1000]
