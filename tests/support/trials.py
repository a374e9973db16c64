"""Small trials, models and folders that several test modules train on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from bocb_tune.core.types import Cell, Phase, TrialSpec
from bocb_tune.training.recipes import Recipe, recipe_settings

QUICK = Recipe(batch_size=256, augment="shift")
"""Four steps an epoch on digits."""


def digits_trial(
    backbone: str = "test_vit",
    optimizer: str = "adamw",
    *,
    lr: float = 1e-3,
    weight_decay: float = 0.05,
    seed: int = 0,
    budget: int = 2,
    dataset: dict[str, Any] | None = None,
    fixed: dict[str, Any] | None = None,
    **recipe: Any,
) -> TrialSpec:
    """A classification trial; `recipe` are fields that differ from QUICK."""
    options = dataset or {"name": "digits", "image_size": 32, "split_seed": 0}
    return TrialSpec(
        cell=Cell(task="classification", dataset=options["name"], backbone=backbone, optimizer=optimizer),
        phase=Phase.search,
        index=0,
        hparams={"lr": lr, "weight_decay": weight_decay},
        seed=seed,
        budget=budget,
        settings={
            "task": {},
            "dataset": options,
            "recipe": recipe_settings(replace(QUICK, **recipe)),
            "optimizer": fixed or {},
            "workers": 1,
        },
    )


def synthetic_trial(
    backbone: str = "bowl",
    optimizer: str = "sgd",
    *,
    lr: float = 0.03,
    weight_decay: float = 3e-4,
    seed: int = 0,
    budget: int = 9,
    **options: float,
) -> TrialSpec:
    """A synthetic trial; `options` are the task's."""
    return TrialSpec(
        cell=Cell(task="synthetic", dataset="synthetic", backbone=backbone, optimizer=optimizer),
        phase=Phase.search,
        index=0,
        hparams={"lr": lr, "weight_decay": weight_decay},
        seed=seed,
        budget=budget,
        settings={
            "task": {"noise": 0.5, "epoch_s": 0.0} | options,
            "dataset": {"name": "synthetic"},
            "recipe": {},
            "optimizer": {},
            "workers": 1,
        },
    )


class Toy(nn.Module):
    """Quick, with all that a resume must carry: normalisation with running statistics, and dropout."""

    def __init__(self, dropout: float = 0.2, norm: bool = True, classes: int = 10) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 4, stride=4)
        self.norm = nn.BatchNorm2d(8) if norm else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(8 * 64, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.dropout(self.norm(self.conv(x)).relu().flatten(1)))
        return logits


def make_folder(root: Path, counts: dict[str, int], *, mode: str = "RGB", size: tuple[int, int] = (40, 30)) -> Path:
    """JPEGs of noise: ROOT/<split>/<class>/<number>.jpg, `counts` by "split/class"."""
    for place, count in counts.items():
        (root / place).mkdir(parents=True)
        for number in range(count):
            noise = np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8)
            Image.fromarray(noise).convert(mode).save(root / place / f"{number}.jpg")
    return root
