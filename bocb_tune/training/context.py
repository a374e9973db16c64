"""Surroundings of a trial that do not change its result: ranks, checkpoints, size of micro-batches."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from bocb_tune.training.checkpoint import Checkpoints


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """The place of this process among those that train one trial together; a single process is rank 0 of 1."""

    rank: int = 0
    world_size: int = 1
    """Number of processes. Above 1 the caller must have made the default process group of `torch.distributed`."""
    local_rank: int = 0
    device: str = "cpu"
    """Name of the device in torch's spelling: `cpu`, `cuda:0`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """Settings of how a trial is run; none of them is part of its identity."""

    ranks: Ranks = field(default_factory=Ranks)
    checkpoints: Checkpoints | None = None
    """Folder to save to and resume from; None to do neither."""
    checkpoint_every: int = 1
    """Epochs between checkpoints; the last epoch is always saved."""
    checkpoint_every_s: float = math.inf
    """Seconds after which a checkpoint is written at the next step, however few epochs there were since the last."""
    must_leave: Callable[[], bool] = lambda: False
    """Asks whether this process is about to be taken away: a checkpoint is written at the next step, and the trial
    left."""
    micro_batch_divisor: int = 1
    """Pieces that each micro-batch is cut into, their gradients being accumulated: less memory, the same step."""
    after_step: Callable[[], object] = lambda: None
    """Callback after each optimizer step, for a profiler."""
