"""The tasks there are: a literal table, and nothing imported before it is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
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
