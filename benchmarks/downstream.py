"""Steps a second of RetinaNet and Mask R-CNN in the loop of the trials, against torchvision's reference loop.

Both sides train ResNet-50 with a pyramid of 256 channels on the same drawn images, from random weights, by SGD: on the
CPU with one thread in batches of 2 at 256 pixels, on a GPU in batches of 8 at 800. Ours is the loop of the trials with
its loader, which resizes; theirs is the loop of torchvision's `references/detection/engine.py` on torchvision's own
model, which resizes within. Each side runs in a process of its own, in pairs one after the other; the first steps are
left out. Target: at least 0.95 of the reference.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import torch
from harness import fresh
from machine import show, spread
from torch.utils.data import DataLoader, Subset
from torchvision.models.detection import maskrcnn_resnet50_fpn, retinanet_resnet50_fpn

from bocb_tune.core.types import Cell, Phase, TrialSpec
from bocb_tune.data import resolve_options
from bocb_tune.data.coco.dataset import load_coco
from bocb_tune.tasks import TASKS
from bocb_tune.tasks.detection import RETINANET
from bocb_tune.tasks.scenes import build_training
from bocb_tune.tasks.segmentation import MASK_RCNN
from bocb_tune.training.context import Context, Ranks
from bocb_tune.training.loop import fit
from bocb_tune.training.recipes import Recipe, recipe_settings

DETECTORS = {"detection": RETINANET, "segmentation": MASK_RCNN}
THEIRS = {"detection": retinanet_resnet50_fpn, "segmentation": maskrcnn_resnet50_fpn}
DEVICE = "cuda:0" if torch.cuda.is_available() else "cpu"
SIDE, BATCH, WARM = (256, 2, 2) if DEVICE == "cpu" else (800, 8, 4)
"""Pixels that images are resized to, images a step, and steps that are left out."""
LR = 1e-4


def data(steps: int) -> dict[str, Any]:
    return resolve_options("shapes", {"image_size": 192, "images": BATCH * (WARM + steps), "held_out": 1})


def ours(task: str, steps: int) -> list[float]:
    """Seconds of each step in the loop of the trials."""
    torch.set_num_threads(1)
    recipe = Recipe(batch_size=BATCH)
    trial = TrialSpec(
        cell=Cell(task=task, dataset="shapes", backbone="resnet50", optimizer="sgd"),
        phase=Phase.default,
        index=0,
        hparams={"lr": LR, "weight_decay": 1e-4},
        seed=0,
        budget=1,
        settings={
            "task": {**TASKS[task].options, "shorter": SIDE, "longer": SIDE},
            "dataset": {"name": "shapes", **data(steps)},
            "recipe": recipe_settings(recipe),
            "optimizer": {},
            "workers": 1,
        },
    )
    ends = [time.perf_counter()]
    context = Context(ranks=Ranks(device=DEVICE), after_step=lambda: ends.append(_now()))
    list(fit(build_training(trial, context, DETECTORS[task]), trial, context))
    return _seconds(ends)


def reference(task: str, steps: int) -> list[float]:
    """Seconds of each step in torchvision's loop."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    dataset = load_coco("shapes", data(steps), DEVICE)
    first = DETECTORS[task].first_label
    sizes = {"min_size": SIDE, "max_size": SIDE, "weights": None, "weights_backbone": None}
    model = THEIRS[task](num_classes=dataset.num_classes + first, **sizes).train().to(DEVICE)
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=0.9, weight_decay=1e-4)
    images: Any = dataset.images("train", masks=task == "segmentation")
    ends = [time.perf_counter()]
    for batch, targets in _batches(images, first):
        losses = sum(model(batch, targets).values())
        optimizer.zero_grad()
        losses.backward()
        optimizer.step()
        ends.append(_now())
    return _seconds(ends)


def _batches(images: Any, first: int) -> Iterator[tuple[list[Any], list[dict[str, Any]]]]:
    order = torch.randperm(len(images)).tolist()
    workers = 0 if DEVICE == "cpu" else 4
    for scenes in DataLoader(Subset(images, order), batch_size=BATCH, collate_fn=list, num_workers=workers):
        names = ("boxes", "masks") if "masks" in scenes[0][1] else ("boxes",)
        learnt = [
            {**{name: target[name].to(DEVICE) for name in names}, "labels": target["labels"].to(DEVICE) + first}
            for _, target in scenes
        ]
        yield [image.to(DEVICE) / 255 for image, _ in scenes], learnt


def _now() -> float:
    if DEVICE != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter()


def _seconds(ends: list[float]) -> list[float]:
    return [end - start for start, end in pairwise(ends)][WARM:]


def compare(task: str, pairs: int, steps: int) -> list[str]:
    """One row of the table."""
    found = [(fresh(ours, task, steps), fresh(reference, task, steps)) for _ in range(pairs)]
    ratios = [statistics.median(theirs) / statistics.median(own) for own, theirs in found]
    sides = [[seconds for pair in found for seconds in pair[side]] for side in (0, 1)]
    return [task, *(spread(side) for side in sides), spread(ratios), f"{pairs} pairs x {steps} steps"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one pair of a few steps: a smoke test, not a measurement")
    pairs, steps = (1, 2) if parser.parse_args().quick else (4, 8)
    rows = [compare(task, pairs, steps) for task in DETECTORS]
    columns = ["task", "ours, s a step", "torchvision, s a step", "reference / ours", "n"]
    show("Seconds a step, median (min-max); target for reference / ours: >= 0.95", columns, rows)


if __name__ == "__main__":
    main()
