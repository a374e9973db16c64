"""The tasks there are: a literal table, and nothing imported before it is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bocb_tune.core.names import unknown
from bocb_tune.tasks.base import Task


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRow:
    """One task."""

    target: str
    """`module:Class`, a class that takes no arguments and is a `Task`."""
    description: str
    takes: str
    """Kind of data that it takes (`holds` of its row in `bocb_tune.data.DATASETS`)."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Each option with its default."""
    rules: Mapping[str, tuple[Callable[[Any], bool], str]] = field(default_factory=dict)
    """Whether a value of an option is valid, and what it must be; of those that take not every value."""
    ignores: tuple[str, ...] = ()
    """Fields of a recipe that have no effect on it, and so must stand at their default."""
    once: str = ""
    """Operator of its models that has no second derivative; empty where all have one."""

    @property
    def has_models(self) -> bool:
        """Whether it trains models, which can begin with weights of another training."""
        return self.takes != "landscapes"

    @property
    def has_maps(self) -> bool:
        """Whether it takes feature maps of a backbone, not its logits."""
        return self.takes == "annotated images"


TASKS: dict[str, TaskRow] = {
    "classification": TaskRow(
        target="bocb_tune.tasks.classification:Classification",
        description="image classification; score: top-1 accuracy on the validation split, in points",
        takes="labelled images",
    ),
    "synthetic": TaskRow(
        target="bocb_tune.tasks.synthetic:Synthetic",
        description="analytic landscapes with a known optimum, noise, crossing curves and a divergence cliff",
        takes="landscapes",
        options={"noise": 0.5, "epoch_s": 0.0},
    ),
}


def get_task(name: str) -> Task:
    """Return the task called `name`.

    Raises:
        ValueError: with the nearest name, if there is none.
    """
    if name not in TASKS:
        raise unknown("task", name, TASKS)
    module, attribute = TASKS[name].target.split(":")
    task: Task = getattr(importlib.import_module(module), attribute)()
    return task
