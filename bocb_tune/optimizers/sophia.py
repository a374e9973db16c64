"""Sophia-H: the update is pytorch-optimizer's; the training loop estimates the curvature."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pytorch_optimizer import SophiaH
from torch import Tensor

from bocb_tune.optimizers.interfaces import SecondOrder


class Sophia(SophiaH, SecondOrder):  # type: ignore[misc]
    """The update p <- p - lr * clip(m / max(gamma * h, eps), 1), with m the mean gradient and h the mean estimate of
    the Hessian's diagonal, made anew at every `update_period`-th step (arXiv:2305.14342, algorithm 3)."""

    def __init__(
        self,
        params: Any,
        lr: float,
        betas: tuple[float, float] = (0.96, 0.99),
        weight_decay: float = 0.0,
        gamma: float = 0.01,
        update_period: int = 10,
        eps: float = 1e-12,
    ) -> None:
        super().__init__(
            params, lr=lr, betas=betas, weight_decay=weight_decay, p=1.0, update_period=update_period, eps=eps
        )
        self.defaults |= {"gamma": gamma, "update_period": update_period}
        self._scaled: list[Tensor] | None = None

    @property
    def curvature_due(self) -> bool:
        """Whether the next step needs an estimate."""
        period: int = self.defaults["update_period"]
        return int(self.param_groups[0].get("step", 0)) % period == 0

    def observe(self, diagonal: Sequence[Tensor]) -> None:
        """Take the estimate for the next step."""
        self._scaled = [self.defaults["gamma"] * part for part in diagonal]

    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Take one step.

        Raises:
            RuntimeError: if an estimate was due and none was given.
        """
        if self.curvature_due and self._scaled is None:
            raise RuntimeError("Sophia needs an estimate of the curvature at this step: call observe() before step()")
        scaled, self._scaled = self._scaled, None
        loss: float | None = super().step(closure, hessian=scaled)
        return loss
