"""What ranks tell one another. With one rank every function here is the identity and needs no process group."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, distributed, nn

from bocb_tune.training.context import Ranks


def all_reduce(values: Sequence[float], how: Literal["sum", "max"], ranks: Ranks) -> list[float]:
    """The values of all ranks combined, elementwise, in double precision; the same on every rank."""
    if ranks.world_size == 1:
        return list(values)
    combined = torch.tensor(values, dtype=torch.float64, device=ranks.device)
    distributed.all_reduce(combined, distributed.ReduceOp.SUM if how == "sum" else distributed.ReduceOp.MAX)
    reduced: list[float] = combined.tolist()
    return reduced


def average(tensors: Sequence[Tensor], ranks: Ranks) -> Sequence[Tensor]:
    """The mean over ranks of each tensor, written into it."""
    if ranks.world_size > 1:
        for tensor in tensors:
            distributed.all_reduce(tensor.div_(ranks.world_size))
    return tensors


def gather_objects(value: Any, ranks: Ranks) -> list[Any]:
    """The values of all ranks, by rank."""
    values: list[Any] = [value] * ranks.world_size
    if ranks.world_size > 1:
        distributed.all_gather_object(values, value)
    return values


def broadcast_buffers(module: nn.Module, ranks: Ranks) -> None:
    """Gives every rank the buffers of rank 0."""
    if ranks.world_size > 1:
        for buffer in module.buffers():
            distributed.broadcast(buffer, src=0)


def require_same(value: int, what: str, ranks: Ranks) -> None:
    """RuntimeError, on all ranks, unless they hold the same value."""
    low, high = all_reduce([-value, value], "max", ranks)
    if -low != high:
        raise RuntimeError(
            f"{what} differs between ranks ({-low:g} to {high:g}): is the storage shared by all of them?"
        )
