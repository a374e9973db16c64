"""Communication between ranks. With one rank every function here is the identity and needs no process group."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, distributed, nn

from bocb_tune.training.context import Ranks


def all_reduce(values: Sequence[float], how: Literal["sum", "max"], ranks: Ranks) -> list[float]:
    """Combine the values of all ranks elementwise, in double precision; every rank gets the same result."""
    if ranks.world_size == 1:
        return list(values)
    combined = torch.tensor(values, dtype=torch.float64, device=ranks.device)
    distributed.all_reduce(combined, distributed.ReduceOp.SUM if how == "sum" else distributed.ReduceOp.MAX)
    reduced: list[float] = combined.tolist()
    return reduced


def average(tensors: Sequence[Tensor], ranks: Ranks) -> Sequence[Tensor]:
    """Average each tensor over the ranks, in place."""
    if ranks.world_size > 1:
        for tensor in tensors:
            distributed.all_reduce(tensor.div_(ranks.world_size))
    return tensors


def gather_objects(value: Any, ranks: Ranks) -> list[Any]:
    """Gather the value of every rank, in order of rank."""
    values: list[Any] = [value] * ranks.world_size
    if ranks.world_size > 1:
        distributed.all_gather_object(values, value)
    return values


def broadcast_buffers(module: nn.Module, ranks: Ranks) -> None:
    """Give every rank the buffers of rank 0."""
    if ranks.world_size > 1:
        for buffer in module.buffers():
            distributed.broadcast(buffer, src=0)


def require_same(value: int, what: str, ranks: Ranks) -> None:
    """Check that all ranks hold the same value; `what` names it in the message.

    Raises:
        RuntimeError: on all ranks, if the values differ.
    """
    low, high = all_reduce([-value, value], "max", ranks)
    if -low != high:
        raise RuntimeError(
            f"{what} differs between ranks ({-low:g} to {high:g}): is the storage shared by all of them?"
        )
