"""Checkpoints within an epoch: after which steps one is written, and what it holds besides that of an epoch's end."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from torch import Tensor

from bocb_tune.training.context import Context
from bocb_tune.training.distributed import all_reduce

AGREE_S = 5.0
"""Seconds between two times that ranks ask one another, which a step of several ranks cannot do for nothing."""
MOST_STEPS = 1000
"""Most steps between these."""


class Pause(IntEnum):
    """Interruption after a step; of those that ranks want, the largest."""

    none = 0
    save = 1
    """A checkpoint is written."""
    leave = 2
    """A checkpoint is written, and the trial left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Within:
    """The part of an epoch that is done."""

    steps: int
    loss: Tensor
    """Sum of this rank's mean losses of these steps, a scalar."""
    seconds: float
    """Time that they took."""

    def to_state(self) -> dict[str, Any]:
        return {"steps": self.steps, "seconds": self.seconds}


class Pauses:
    """Decides after each step, on all ranks alike, whether a checkpoint is due."""

    def __init__(self, context: Context, clock: Callable[[], float] = time.monotonic) -> None:
        self._context, self._clock = context, clock
        self._saved = self._asked = clock()
        self._steps, self._stride = 0, 1

    def saved(self) -> None:
        """Take note that a checkpoint was written."""
        self._saved = self._clock()

    def after_step(self) -> Pause:
        """Say what comes after a step; every rank asks after each."""
        if self._context.checkpoints is None:
            return Pause.none
        self._steps += 1
        if self._steps < self._stride:
            return Pause.none
        now = self._clock()
        wish, step_s = all_reduce([self._wish(now), (now - self._asked) / self._steps], "max", self._context.ranks)
        if self._context.ranks.world_size > 1:
            self._stride = max(1, min(MOST_STEPS, int(AGREE_S / step_s))) if step_s > 0 else MOST_STEPS
        self._steps, self._asked = 0, now
        return Pause(int(wish))

    def _wish(self, now: float) -> Pause:
        if self._context.must_leave():
            return Pause.leave
        return Pause.save if now - self._saved >= self._context.checkpoint_every_s else Pause.none
