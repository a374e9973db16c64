"""The seam between the engine and everything that trains: a task turns a trial into a stream of measurements."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from bocb_tune.core.types import Measurement, Objective, TrialSpec
from bocb_tune.training.context import Context

if TYPE_CHECKING:
    from bocb_tune.training.loop import Training


class Task(Protocol):
    """Task that a grid trains for. One file in this folder, one row in `TASKS`."""

    def objective(self, dataset: Mapping[str, Any], options: Mapping[str, Any]) -> Objective:
        """Say what a score means on `dataset` (`name` and resolved options) under the task's resolved `options`."""
        ...

    def backbones(self) -> Sequence[str]:
        """List the names a trial's `backbone` may have."""
        ...

    def run(self, trial: TrialSpec, context: Context) -> Generator[Measurement, None, None]:
        """Yield the whole curve, one measurement an epoch from 1 to `trial.budget`.

        What a checkpoint already holds is yielded first, from its curve; training goes on from there. The checkpoint of
        an epoch is saved before its measurement is yielded. Closing the generator stops the trial. All ranks drive
        it in lockstep and are given the same measurements.

        Raises:
            Diverged: if the training does.
            OutOfMemory: if the device's memory does not suffice.
        """
        ...


class ModelTask(Task, Protocol):
    """Task that trains models."""

    def training(self, trial: TrialSpec, context: Context) -> Training:
        """Build model, optimizer and data of a trial, as they are before its first step."""
        ...
