"""Each backbone of the table on each task on images with objects for two optimizer steps, and the table of how it went.

`python -m tests.support.downstream [BACKBONE ...]` trains those backbones, or all, and writes their rows anew.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from bocb_tune.backbones import BACKBONES
from bocb_tune.core.types import TrialSpec
from bocb_tune.data import resolve_options
from bocb_tune.tasks import scenes
from bocb_tune.tasks.detection import RETINANET
from bocb_tune.tasks.pose import task as pose
from bocb_tune.tasks.segmentation import MASK_RCNN
from bocb_tune.training.context import Context
from bocb_tune.training.loop import Training, fit
from tests.tasks.drawn import scene_trial

PAGE = Path(__file__).parents[2] / "docs" / "DOWNSTREAM.md"
BEGIN, END = "<!-- steps: written by `python -m tests.support.downstream` -->\n", "<!-- end of steps -->\n"
TRAINS, SKIPPED = "trains", "skipped"
TWO: dict[str, Any] = {"image_size": 64, "images": 4, "held_out": 1}
"""Options of `shapes`: two steps of two images, as scales that begin at 0 keep a first gradient from their branch."""
BUILDERS: dict[str, Callable[[TrialSpec, Context], Training]] = {
    "detection": partial(scenes.build_training, detector=RETINANET),
    "segmentation": partial(scenes.build_training, detector=MASK_RCNN),
    "pose": pose.build_training,
}
"""How each task makes a training of a trial."""
WHOLE: dict[str, Any] = {"shorter": 64, "longer": 96, "channels": 32}
OPTIONS: dict[str, dict[str, Any]] = {
    "detection": WHOLE,
    "segmentation": WHOLE,
    "pose": {"height": 64, "width": 64, "channels": 32, "sigma": 1.5, "sigmas": [0.05] * 4},
}


def outcome(backbone: str, task: str, optimizer: str = "adamw") -> str:
    """`trains`, `skipped`, or how many of the weights two steps move."""
    if BACKBONES[backbone].no_maps:
        return SKIPPED
    trial = scene_trial(
        task,
        backbone,
        optimizer,
        lr=1e-4,
        budget=1,
        dataset={"name": "shapes", **resolve_options("shapes", TWO)},
        options=OPTIONS[task],
        batch_size=2,
    )
    training = BUILDERS[task](trial, Context())
    before = {name: value.detach().clone() for name, value in training.model.named_parameters()}
    list(fit(training, trial, Context()))
    still = [name for name, value in training.model.named_parameters() if value.equal(before[name])]
    return TRAINS if not still else f"{len(before) - len(still)} of {len(before)} weights move"


def outcomes(backbone: str) -> dict[str, str]:
    """What became of the backbone, by task."""
    return {task: outcome(backbone, task) for task in BUILDERS}


def written() -> dict[str, dict[str, str]]:
    """The table on the page, by backbone and task."""
    text = PAGE.read_text(encoding="utf-8").split(BEGIN)[1].split(END)[0]
    head, _, *rows = ([cell.strip() for cell in line.strip().strip("|").split("|")] for line in text.splitlines())
    return {row[0]: dict(zip(head[1:], row[1:], strict=True)) for row in rows}


def write(found: Mapping[str, Mapping[str, str]]) -> None:
    """Put the table on the page."""
    rows = [["backbone", *BUILDERS], ["---"] * (1 + len(BUILDERS))]
    rows += [[name, *(found[name].get(task, "") for task in BUILDERS)] for name in BACKBONES if name in found]
    table = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}{table}{END}{rest.split(END)[1]}", encoding="utf-8")


def main(backbones: Sequence[str]) -> None:
    """Train some backbones, and write each one's row when it is done."""
    for backbone in backbones or list(BACKBONES):
        started = time.process_time()
        write(written() | {backbone: outcomes(backbone)})
        print(f"{backbone}: {time.process_time() - started:.0f} s of processor time", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
