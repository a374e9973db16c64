"""Steps a second of the pose task in the loop of the trials, against a bare loop over the same crops.

Both sides train ResNet-50 with three deconvolutions of 256 channels on the same drawn objects by AdamW, crops of
128 x 96 in batches of 4, one thread, no turns or mirrors. The bare loop decodes, cuts out, takes the loss and the step,
and nothing else. Each side runs in a process of its own, in pairs one after the other; the first steps are left out.
Seconds are of CPU, as other work beside it makes those of a clock worthless. Target: at least 0.95 of the bare loop.
"""

from __future__ import annotations

import argparse
import statistics
import time
from itertools import pairwise
from typing import Any

import torch
from harness import fresh
from machine import show, spread

from bocb_tune.augment import normalise
from bocb_tune.core.types import Cell, Phase, TrialSpec
from bocb_tune.data import resolve_options
from bocb_tune.tasks import TASKS
from bocb_tune.tasks.pose.crops import collate
from bocb_tune.tasks.pose.heatmaps import heat_map_loss, heat_maps, in_reach
from bocb_tune.tasks.pose.task import STRIDE, Figures, build_training
from bocb_tune.training.context import Context
from bocb_tune.training.loop import fit
from bocb_tune.training.recipes import Recipe, recipe_settings

BATCH, WARM, SIZE = 4, 2, (128, 96)
DATA = resolve_options("shapes", {"image_size": 160, "images": 60, "held_out": 1})
OPTIONS = TASKS["pose"].options | {"height": SIZE[0], "width": SIZE[1], "scale": 0.0, "turn": 0.0, "sigmas": [0.05] * 4}


class Enough(Exception):
    """Enough steps were timed."""


def trial_of() -> TrialSpec:
    """A trial of both sides."""
    settings = {"task": OPTIONS, "dataset": {"name": "shapes", **DATA}, "optimizer": {}, "workers": 1}
    return TrialSpec(
        cell=Cell(task="pose", dataset="shapes", backbone="resnet50", optimizer="adamw"),
        phase=Phase.default,
        index=0,
        hparams={"lr": 1e-4, "weight_decay": 1e-4},
        seed=0,
        budget=1,
        settings={**settings, "recipe": recipe_settings(Recipe(batch_size=BATCH))},
    )


def ours(steps: int) -> list[float]:
    """Seconds of each step in the loop of the trials."""
    torch.set_num_threads(1)
    ends = [time.process_time()]

    def after_step() -> None:
        ends.append(time.process_time())
        if len(ends) > WARM + steps:
            raise Enough

    context = Context(after_step=after_step)
    training = build_training(trial_of(), context)
    ends[0] = time.process_time()
    try:
        list(fit(training, trial_of(), context))
    except Enough:
        return _seconds(ends)
    raise RuntimeError(f"an epoch has fewer than {WARM + steps} steps")


def bare(steps: int) -> list[float]:
    """Seconds of each step in a bare loop."""
    torch.set_num_threads(1)
    training: Any = build_training(trial_of(), Context())
    figures: Figures = training.batches.__self__
    crops, dataset = figures.crops("train"), figures.dataset
    model, optimizer, size = training.model, training.optimizer, (SIZE[0] // STRIDE, SIZE[1] // STRIDE)
    model.train()
    order = torch.randperm(len(crops)).split(BATCH)[: WARM + steps]
    ends = [time.process_time()]
    for indices in order:
        pixels, joints, labelled, _ = collate([crops.made(crops.read(index), index) for index in indices.tolist()])
        wanted = heat_maps(joints / STRIDE, size, 2.0)
        weights = labelled & in_reach(joints / STRIDE, size, 2.0)
        loss = heat_map_loss(model(normalise(pixels, dataset.mean, dataset.std)), wanted, weights)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        ends.append(time.process_time())
    return _seconds(ends)


def _seconds(ends: list[float]) -> list[float]:
    return [end - start for start, end in pairwise(ends)][WARM:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one pair of a few steps: a smoke test, not a measurement")
    pairs, steps = (1, 2) if parser.parse_args().quick else (4, 12)
    found = [(fresh(ours, steps), fresh(bare, steps)) for _ in range(pairs)]
    ratios = [statistics.median(theirs) / statistics.median(own) for own, theirs in found]
    sides = [[seconds for pair in found for seconds in pair[side]] for side in (0, 1)]
    row = [*(spread(side) for side in sides), spread(ratios), f"{pairs} pairs x {steps} steps"]
    show(
        "CPU seconds a step, median (min-max); target for bare / ours: >= 0.95",
        ["ours", "bare loop", "bare / ours", "n"],
        [row],
    )


if __name__ == "__main__":
    main()
