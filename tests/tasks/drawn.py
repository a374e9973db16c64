"""Small trials on drawn shapes, for the tasks on images with objects."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from bocb_tune.core.types import Cell, Phase, TrialSpec
from bocb_tune.data import resolve_options
from bocb_tune.tasks import TASKS
from bocb_tune.training.recipes import Recipe, recipe_settings

FEW: dict[str, Any] = {"image_size": 64, "images": 8, "held_out": 4}
"""Options of `shapes` that are drawn at once."""
SMALL: dict[str, Any] = {"shorter": 64, "longer": 96, "channels": 16}
"""Options of a task on scenes with which a step takes a fraction of a second."""


def scene_trial(
    task: str = "detection",
    backbone: str = "test_resnet",
    optimizer: str = "adamw",
    *,
    lr: float = 1e-3,
    seed: int = 0,
    budget: int = 2,
    dataset: dict[str, Any] | None = None,
    options: dict[str, Any] | None = None,
    **recipe: Any,
) -> TrialSpec:
    """A trial on drawn shapes; `recipe` are fields that differ from four images a step, mirrored at random."""
    small = {name: value for name, value in SMALL.items() if name in TASKS[task].options}
    own = Recipe(batch_size=4, augment="flip")
    given = dataset or {"name": "shapes", **resolve_options("shapes", FEW)}
    return TrialSpec(
        cell=Cell(task=task, dataset=given["name"], backbone=backbone, optimizer=optimizer),
        phase=Phase.search,
        index=0,
        hparams={"lr": lr, "weight_decay": 0.05},
        seed=seed,
        budget=budget,
        settings={
            "task": {**TASKS[task].options, **small, **(options or {})},
            "dataset": given,
            "recipe": recipe_settings(replace(own, **recipe)),
            "optimizer": {},
            "workers": 1,
        },
    )
