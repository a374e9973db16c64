"""Work of every rank of a worker group: it serves trials from the mailbox. Rank 0 takes one and broadcasts it."""

from __future__ import annotations

import contextlib
import os
import platform
import socket
import time
import traceback
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import RayActorError

from bocb_tune.core.storage import Folder, Storage, storage_of
from bocb_tune.core.types import TrialSpec
from bocb_tune.core.version import VERSION
from bocb_tune.engine.worker.notice import notice
from bocb_tune.engine.worker.queue import Item
from bocb_tune.engine.worker.roll import Arrival

if TYPE_CHECKING:
    from bocb_tune.training.checkpoint import Checkpoints

MEET_WITHIN = timedelta(minutes=5)
"""Time that ranks have to find one another."""
COLLECTIVE_TIMEOUT = timedelta(minutes=30)
"""Time that ranks wait for one another in a collective of the training."""


TOKEN = ".token"
"""Name of the file in the folder of checkpoints by which a node knows that it sees the driver's own."""
ALIVE_EVERY_S = 2.0
"""Seconds between two signs of life within an epoch."""


def serve(config: Mapping[str, Any]) -> None:
    """Train function of every rank: serve trials from the mailbox until there is none."""
    group = RankGroup.join(config)
    if group is None:
        return
    mailbox = config["mailbox"]
    while (order := group.from_rank_0(lambda: ray.get(mailbox.next_trial.remote()))) is not None:
        with notice.at_work():
            _serve_trial(order, config, group)
        if not config["warm"]:
            break
    group.disconnect()


@dataclass(frozen=True, slots=True)
class RankGroup:
    """The ranks of a worker group, and the channel over which rank 0 speaks to the others."""

    ranks: Any
    channel: Any
    storage: Storage
    """Storage of the checkpoints of all trials."""

    @classmethod
    def join(cls, config: Mapping[str, Any]) -> RankGroup | None:
        """Wait for the other ranks; None if one of them cannot serve."""
        import ray.train
        import torch
        from ray.train.torch import get_device

        from bocb_tune.training.context import Ranks
        from bocb_tune.training.device import limit_memory

        torch.set_num_threads(config["threads"])
        context = ray.train.get_context()
        ranks = Ranks(
            rank=context.get_world_rank(),
            world_size=context.get_world_size(),
            local_rank=context.get_local_rank(),
            device=str(get_device()),
        )
        limit_memory(torch.device(ranks.device), config["gpu_share"])
        listener = _listener() if ranks.rank == 0 and ranks.world_size > 1 else None
        storage, problem = storage_for(config["checkpoints"], config["token"])
        problem = wrong_version(config["version"]) or problem
        address = ray.get(config["mailbox"].join.remote(_arrival(ranks.rank, listener, problem)))
        if address is None:
            return None
        return cls(ranks, _connect(ranks, address, listener) if ranks.world_size > 1 else None, storage)

    def from_rank_0(self, make: Callable[[], Any]) -> Any:
        """Give what rank 0 makes, on every rank."""
        import torch.distributed as dist

        box = [make() if self.ranks.rank == 0 else None]
        if self.channel is not None:
            dist.broadcast_object_list(box, src=0, group=self.channel)
        return box[0]

    def disconnect(self) -> None:
        """Leave the process group."""
        import torch.distributed as dist

        if self.channel is not None:
            dist.destroy_process_group()


def _listener() -> socket.socket:
    """Open the door at which rank 0 meets the others: on the address that Ray knows this node by, and on no other."""
    host = ray.util.get_node_ip_address()
    return socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)


def _arrival(rank: int, listener: socket.socket | None, problem: str) -> Arrival:
    context = ray.get_runtime_context()
    placement = ray.util.get_current_placement_group()
    host, port = listener.getsockname()[:2] if listener else ("", 0)
    return Arrival(
        group=placement.id.hex() if placement else "",
        rank=rank,
        address=f"{host}:{port}" if listener else "",
        node=context.get_node_id(),
        problem=problem,
        handle=context.current_actor,
    )


def _connect(ranks: Any, address: str, listener: socket.socket | None) -> Any:
    """Make torch's process group, and the channel beside it."""
    import torch
    import torch.distributed as dist

    host, _, port = address.rpartition(":")
    device = torch.device(ranks.device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if host == "127.0.0.1":  # all ranks are on this machine: gloo and NCCL need not listen to others
        for library in ("GLOO", "NCCL"):
            os.environ.setdefault(f"{library}_SOCKET_IFNAME", "lo")
    store = dist.TCPStore(  # type: ignore[attr-defined]  # torch lists it in its documentation only
        host,
        int(port),
        ranks.world_size,
        is_master=listener is not None,
        timeout=MEET_WITHIN,
        master_listen_fd=listener.detach() if listener else None,
    )
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(
        backend, store=store, rank=ranks.rank, world_size=ranks.world_size, timeout=COLLECTIVE_TIMEOUT
    )
    # A rank may wait long for rank 0 to be given a trial, and orders are no tensors: gloo, whatever trains.
    return dist.new_group(backend="gloo", timeout=timedelta(days=30))


def _here() -> str:
    return f"node {platform.node()} ({ray.util.get_node_ip_address()})"


def wrong_version(driver: str) -> str:
    """Say which versions of the package differ, here and at the driver; empty if they are the same."""
    return "" if driver == VERSION else f"{_here()} has bocb-tune {VERSION}, the driver {driver}: install the same"


def storage_for(place: str, token: str) -> tuple[Storage, str]:
    """Give the storage of checkpoints as this node sees it, and why it cannot keep any there; empty if it can."""
    here = _here()
    storage: Storage = Folder(Path())
    try:
        storage = storage_of(place)
        found = storage.read(TOKEN)
        if found is None:
            return (
                storage,
                f"{here} does not see the run's {place}: it must be on storage that all nodes share; see --out",
            )
        if found.decode() != token:
            return storage, f"{here} sees another {place} than the driver: it must be on storage that all nodes share"
        probe = f"{TOKEN}.{uuid.uuid4().hex}"
        storage.write(probe, b"")
        storage.remove(probe)
    except (OSError, ValueError) as error:
        return storage, f"{here} cannot use the run's {place}: {error}"
    return storage, ""


def _serve_trial(order: Mapping[str, Any], config: Mapping[str, Any], group: RankGroup) -> None:
    from bocb_tune.core.errors import Diverged, Left, OutOfMemory
    from bocb_tune.tasks import get_task
    from bocb_tune.training.checkpoint import Checkpoints
    from bocb_tune.training.context import Context

    trial = TrialSpec.from_json(order["trial"])
    mailbox = config["mailbox"]
    checkpoints = Checkpoints(group.storage.within(trial.id))
    pulse = Pulse(mailbox) if group.ranks.rank == 0 else None
    context = Context(
        ranks=group.ranks,
        checkpoints=checkpoints,
        checkpoint_every=config["checkpoint_every"],
        checkpoint_every_s=config["checkpoint_every_s"],
        must_leave=lambda: notice.is_given or (pulse is not None and pulse.hands_over),
        micro_batch_divisor=order["divisor"],
        after_step=pulse.beat if pulse else lambda: None,
    )
    try:
        item = _train(get_task(trial.cell.task), trial, context, mailbox, group)
    except Left:
        item = {"kind": "left"}
    except Diverged as error:
        item = {"kind": "diverged", "budget": error.budget, "message": error.message}
    except OutOfMemory as error:
        item = {"kind": "oom", "budget": error.budget, "message": error.message + _share_of(config["gpu_share"])}
    except Exception as error:
        if _is_lost_peer(error):
            os._exit(1)  # another rank died: the group is started again and served this trial again
        item = {"kind": "failed", "message": _describe(error)}
    if group.ranks.rank == 0:
        item = _close(checkpoints, item)
    if group.ranks.rank == 0 or item["kind"] in ("oom", "failed"):
        ray.get(mailbox.end.remote(trial.id, item))
    if item["kind"] in ("oom", "failed") and group.ranks.world_size > 1:
        # The other ranks may be waiting in a collective this rank has left: only a new group is sound.
        os._exit(1)


def _close(checkpoints: Checkpoints, item: Item) -> Item:
    """End with the checkpoints of a trial before its end is told, since the driver removes what is not needed then."""
    try:
        checkpoints.close(keep=item["kind"] != "stopped")
    except OSError as error:
        return item if item["kind"] in ("oom", "failed", "stopped") else {"kind": "failed", "message": _describe(error)}
    return item


class Pulse:
    """Signs of life of rank 0 to the mailbox, which answers whether the trial is to be handed over."""

    def __init__(self, mailbox: Any) -> None:
        self.hands_over = False
        self._mailbox, self._told = mailbox, time.monotonic()
        self._answer: Any = None

    def beat(self) -> None:
        """Tell the mailbox now and then that a step was taken, and hear what it has answered."""
        now = time.monotonic()
        if now - self._told < ALIVE_EVERY_S / 2:
            return
        if self._answer is not None and ray.wait([self._answer], timeout=0)[0]:
            with contextlib.suppress(RayActorError):  # the mailbox is dead: the group goes with it
                self.hands_over |= ray.get(self._answer)
            self._answer = None
        if now - self._told >= ALIVE_EVERY_S:
            self._told, self._answer = now, self._mailbox.hear.remote()


def _train(task: Any, trial: TrialSpec, context: Any, mailbox: Any, group: RankGroup) -> Item:
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
