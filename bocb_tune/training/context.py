"""How and where a trial is run: its ranks, its checkpoints, the size of its micro-batches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from bocb_tune.training.checkpoint import Checkpoints


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """Where this process stands among those that train one trial together; one process is not a special case."""

    rank: int = 0
    world_size: int = 1
    """More than 1 needs the default process group of `torch.distributed`, made by the caller."""
    local_rank: int = 0
    device: str = "cpu"
    """As torch names it: `cpu`, `cuda:0`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """How a trial is run: nothing in here is part of its identity."""

    ranks: Ranks = field(default_factory=Ranks)
    checkpoints: Checkpoints | None = None
    """None: nothing is saved and nothing is resumed."""
    checkpoint_every: int = 1
    """Epochs between checkpoints; the last epoch is always saved."""
    micro_batch_divisor: int = 1
    """Cuts each micro-batch into this many pieces and accumulates them, to fit into less memory."""
    after_step: Callable[[], object] = lambda: None
    """Called after each optimizer step, as a profiler wants it."""
