"""What some optimizers need of a training loop besides gradients."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel


@runtime_checkable
class Averaging(Protocol):
    """Trains at one point and is judged at another, an average (arXiv:2405.15682)."""

    def train(self) -> None:
        """Moves the parameters to where gradients are to be taken; does nothing there."""

    def eval(self) -> None:
        """Moves the parameters to the average; does nothing there."""


class SecondOrder(ABC):
    """Wants an estimate of the Hessian's diagonal before some of its steps."""

    @property
    @abstractmethod
    def curvature_due(self) -> bool:
        """Whether the next step wants one."""

    @abstractmethod
    def observe(self, diagonal: Sequence[Tensor]) -> None:
        """Takes the estimate, one tensor a parameter in the order of the groups, for the next step."""


def hutchinson(loss: Callable[[], Tensor], parameters: Sequence[Tensor]) -> list[Tensor]:
    """An unbiased estimate of the diagonal of the Hessian of `loss`: u * Hu with u ~ N(0, I).

    One tensor a parameter, in its shape (arXiv:2305.14342, algorithm 1; Hutchinson 1989). Attention runs unfused,
    since the fused kernels have no second derivative. Draws u from torch's global generator; leaves `.grad` alone.
    """
    with sdpa_kernel(SDPBackend.MATH):
        gradients = torch.autograd.grad(loss(), parameters, create_graph=True, materialize_grads=True)
    probes = [torch.randn_like(parameter) for parameter in parameters]
    along = torch.stack([(gradient * probe).sum() for gradient, probe in zip(gradients, probes, strict=True)]).sum()
    products = torch.autograd.grad(along, parameters, materialize_grads=True)
    return [probe * product for probe, product in zip(probes, products, strict=True)]
