"""Cells of the CIFAR-100 grid, each trained for an optimizer step or two, and the table in docs/GRID.md of how it went.

`python -m tests.support.cells [BACKBONE ...]` runs the cells of those backbones, or all, and writes their rows anew.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from bocb_tune.backbones import build_backbone
from bocb_tune.core.errors import Diverged
from bocb_tune.data import load_dataset
from bocb_tune.data.base import Dataset
from bocb_tune.profiling.dry_run import load_of
from bocb_tune.spec.grid import PlannedCell, plan_grid
from bocb_tune.spec.model import ExperimentSpec, load_spec
from bocb_tune.training.rng import seed_all
from tests.support.datasets import make_cifar

ROOT = Path(__file__).parents[2]
GRID, PAGE = ROOT / "experiments" / "cifar100_grid.yaml", ROOT / "docs" / "GRID.md"
BEGIN, END = "<!-- cells: written by `python -m tests.support.cells` -->\n", "<!-- end of cells -->\n"
BATCH = 2
TRAINS = "trains"


def cifar_grid(root: Path) -> ExperimentSpec:
    """The grid on files in CIFAR-100's format, five training images a class, made in `root` if they are not there."""
    if not root.exists():
        make_cifar(root, "cifar100")
    return load_spec(GRID, [f"dataset.root={root}"])


def outcomes(spec: ExperimentSpec, backbone: str, optimizers: Iterable[str], steps: int = 2) -> dict[str, str]:
    """By optimizer, what became of a freshly initialised model of the backbone: `trains`, or what was wrong.

    In two steps every weight must move, in a single one some: the last scale of a branch may start at zero, which keeps
    gradients from the rest of the branch.
    """
    images = load_dataset(spec.dataset.name, spec.dataset.options, "cpu")
    fresh = _fresh(spec, backbone, images)
    cells = {cell.cell.optimizer: cell for cell in plan_grid(spec, f"{backbone}/*").cells}
    return {optimizer: _outcome(spec, cells[optimizer], deepcopy(fresh), images, steps) for optimizer in optimizers}


def _fresh(spec: ExperimentSpec, backbone: str, images: Dataset) -> nn.Module:
    seed_all(0)
    return build_backbone(
        backbone,
        num_classes=images.num_classes,
        in_chans=images.in_chans,
        image_size=images.image_size,
        resized_to=spec.recipe_of(backbone)[1].image_size,
        drop_path=spec.recipe_of(backbone)[1].drop_path,
    )


def _outcome(spec: ExperimentSpec, planned: PlannedCell, model: nn.Module, images: Dataset, steps: int) -> str:
    """At the default setting, under the recipe of the cell, in batches of `BATCH`."""
    load = load_of(spec, planned)
    load = replace(load, recipe=replace(load.recipe, batch_size=BATCH), hparams=planned.space.default)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    try:
        list(load.epochs(load.training("cpu", steps, model=model, images=images), "cpu", 1))
    except Diverged as error:
        return f"diverges: {error.message}"
    moved = sum(not torch.equal(*pair) for pair in zip(before, model.parameters(), strict=True))
    return TRAINS if moved >= (len(before) if steps > 1 else 1) else f"{moved} of {len(before)} weights move"


def table(found: Mapping[str, Mapping[str, str]]) -> str:
    """Markdown: a row an optimizer, a column a backbone."""
    rows = [["", *found], ["---"] * (1 + len(found))]
    rows += [[optimizer, *(row[optimizer] for row in found.values())] for optimizer in next(iter(found.values()))]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def written() -> dict[str, dict[str, str]]:
    """The table on the page, by backbone and optimizer."""
    text = PAGE.read_text(encoding="utf-8").split(BEGIN)[1].split(END)[0]
    head, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines())
    return {backbone: {row[0]: row[place] for row in rows} for place, backbone in enumerate(head[1:], start=1)}


def write(found: Mapping[str, Mapping[str, str]]) -> None:
    """Puts the table on the page."""
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}{table(found)}{END}{rest.split(END)[1]}", encoding="utf-8")


def main(backbones: Sequence[str]) -> None:
    """Runs the cells of some backbones and writes each one's row when it is done."""
    with tempfile.TemporaryDirectory() as folder:
        spec = cifar_grid(Path(folder) / "cifar100")
        for backbone in backbones or spec.backbones:
            started = time.process_time()
            write(written() | {backbone: outcomes(spec, backbone, spec.optimizers)})
            print(f"{backbone}: {time.process_time() - started:.0f} s of processor time", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
