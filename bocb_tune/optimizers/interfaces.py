"""Interfaces of optimizers that need more of a training loop than gradients."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel


@runtime_checkable
class Averaging(Protocol):
    """An optimizer that trains at one point and is evaluated at another, an average (arXiv:2405.15682)."""

    def train(self) -> None:
        """Move the parameters to where gradients are taken; do nothing if they are there."""

    def eval(self) -> None:
        """Move the parameters to the average; do nothing if they are there."""


class SecondOrder(ABC):
    """An optimizer that needs an estimate of the Hessian's diagonal before some of its steps."""

    @property
    @abstractmethod
    def curvature_due(self) -> bool:
        """Whether the next step needs an estimate."""

    @abstractmethod
    def observe(self, diagonal: Sequence[Tensor]) -> None:
        """Take the estimate for the next step, one tensor per parameter in the order of the groups."""


def hutchinson(loss: Callable[[], Tensor], parameters: Sequence[Tensor]) -> list[Tensor]:
    """Estimate the diagonal of the Hessian of `loss` without bias: u * Hu with u ~ N(0, I).

    Returns one tensor per parameter, in its shape (arXiv:2305.14342, algorithm 1; Hutchinson 1989). Attention runs
    unfused, since the fused kernels have no second derivative. Draws u from torch's global generator; leaves `.grad`
    alone.
    """
    with sdpa_kernel(SDPBackend.MATH):
        gradients = torch.autograd.grad(loss(), parameters, create_graph=True, materialize_grads=True)
    probes = [torch.randn_like(parameter) for parameter in parameters]
    along = torch.stack([(gradient * probe).sum() for gradient, probe in zip(gradients, probes, strict=True)]).sum()
    products = torch.autograd.grad(along, parameters, materialize_grads=True)
    return [probe * product for probe, product in zip(probes, products, strict=True)]
