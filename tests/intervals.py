"""Do the intervals hold the truth where the trials come from the engine's own search? A table of docs/STATISTICS.md.

`python -m tests.intervals [SEEDS]` searches the shipped synthetic grid once a seed with the real searcher, scheduler
and journals (TPE and ASHA; the trials run in this process), analyses it as a report does, and writes the table anew.
30 seeds by default: some 25 minutes on two cores.
"""

from __future__ import annotations

import math
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from scipy.special import expit

from bocb_tune.analysis.arrays import Array
from bocb_tune.analysis.cell import surface
from bocb_tune.analysis.cell.surface import Box, Grid
from bocb_tune.analysis.estimate import Estimate
from bocb_tune.analysis.findings import find
from bocb_tune.analysis.matrix.twoway import decompose
from bocb_tune.analysis.sources.load import load
from bocb_tune.launch import cell_plans
from bocb_tune.space import load_space
from bocb_tune.spec import load_spec
from bocb_tune.tasks.synthetic import CLIFF_WIDTH, DEPTH, FLOOR, OPTIMA, SHAPES, truth
from tests.simulated import Simulation

ROOT = Path(__file__).parents[1]
GRID, PAGE = ROOT / "experiments" / "synthetic_grid.yaml", ROOT / "docs" / "STATISTICS.md"
BEGIN, END = "<!-- intervals: written by `python -m tests.intervals` -->\n", "<!-- end of intervals -->\n"
SHARE = "interaction_share"

Truths = dict[str, float]


@dataclass(frozen=True, slots=True)
class Stated:
    """One number as a report states it, and what is planted."""

    what: str
    """Key of `METRICS`, or `SHARE`."""
    seed: int
    cell: str
    estimate: Estimate
    truth: float

    @property
    def error(self) -> float:
        """Of the value, in decades for a learning rate."""
        assert self.estimate.value is not None
        if self.what == "lr_star":
            return math.log10(self.estimate.value / self.truth)
        return self.estimate.value - self.truth

    @property
    def is_held(self) -> bool:
        lo, hi = self.estimate.lo, self.estimate.hi
        return (lo is None or lo <= self.truth) and (hi is None or self.truth <= hi)


def _volume(epsilon: float, e: Array, grid: Grid) -> float:
    return float(surface.near_optimal_volume(e, grid, epsilon))


def _decades(epsilon: float, line: Callable[[Array], Array], e: Array, grid: Grid) -> float:
    return float(surface.usable_decades(line(e), grid.u, epsilon)[0])


PLANTED: dict[str, tuple[str, Callable[[Array, Grid], float]]] = {
    "near_optimal_volume": ("near-optimal volume, 1 point", partial(_volume, 1.0)),
    "near_optimal_volume_at_2": ("the same, 2 points", partial(_volume, 2.0)),
    "usable_decades_lr": ("usable decades of lr, 1 point", partial(_decades, 1.0, surface.lr_slice)),
    "usable_decades_lr_at_2": ("the same, 2 points", partial(_decades, 2.0, surface.lr_slice)),
    "usable_decades_lr_profile": (
        "usable decades of lr, wd retuned, 1 point",
        partial(_decades, 1.0, surface.lr_profile),
    ),
    "lr_star": ("best lr (decades)", lambda e, grid: float(10 ** grid.u[surface.argmax(e)[0]])),
    "lr_sensitivity": (
        "lr sensitivity (points)",
        lambda e, grid: float(surface.line_sensitivity(surface.lr_slice(e), grid.u, FLOOR)),
    ),
    "prior_mean_regret": (
        "cost of a random setting (points)",
        lambda e, grid: float(surface.prior_mean_regret(e, grid)),
    ),
    "lr_variance_share": ("variance share of lr", lambda e, grid: float(surface.variance_shares(e, grid)[1])),
}
"""By key of `METRICS`: its name in the table, and its value for a planted surface."""
OTHERS = {
    "expected_score": "expected score at the best point (points)",
    "divergence_margin": "divergence margin (decades)",
    SHARE: "interaction share of the grid",
}


def planted_surface(backbone: str, optimizer: str, grid: Grid) -> Array:
    """Expected score at full budget, divergence included [lr, decay]."""
    shape, known = SHAPES[backbone], truth(backbone, optimizer)
    u = grid.u[:, None] - math.log10(known.lr)
    v = grid.v.copy()
    if grid.has_zero:
        v[-1] = math.log10(OPTIMA[optimizer][2])
    v = v - math.log10(known.weight_decay)
    uu, uv, vv = shape.curvature
    q = (uu * u**2 + 2 * uv * u * v + vv * v**2) / 2
    score = 100 * expit(shape.height + known.interaction - DEPTH * (1 - np.exp(-q / DEPTH)))
    p = expit((grid.u[:, None] - math.log10(known.divergence_lr)) / CLIFF_WIDTH)
    return np.asarray(score + p * (FLOOR - score))


def _box(optimizer: str) -> Box:
    space = load_space(optimizer)
    return Box.of(space.lr, space.weight_decay)


@cache
def planted(backbone: str, optimizer: str) -> Truths:
    """Truth by key of `METRICS`, and the best expected score."""
    grid = Grid(box=_box(optimizer), num_lr=601, num_decay=401)
    e = planted_surface(backbone, optimizer, grid)
    known = truth(backbone, optimizer)
    return {key: value(e, grid) for key, (_, value) in PLANTED.items()} | {
        "expected_score": float(e.max()),
        "divergence_margin": math.log10(known.divergence_lr / known.lr),
    }


def stated(seed: int) -> list[Stated]:
    """All that a report of the grid searched with this seed says, beside the truth."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        Simulation(run, cell_plans(load_spec(GRID, [f"seed={seed}"]))).run()
        table = load(str(run))
    spaces = {name: load_space(name) for name in table.optimizers}
    dims = {name: {"lr": space.lr, "weight_decay": space.weight_decay} for name, space in spaces.items()}
    findings = find(replace(table, spaces=dims))
    found = []
    for (backbone, optimizer), model in findings.models.items():
        known = planted(backbone, optimizer)
        cell = f"{backbone}/{optimizer}"
        found += [Stated(key, seed, cell, model.estimates[key], known[key]) for key in known]
    best = np.array([[planted(b, o)["expected_score"] for o in table.optimizers] for b in table.backbones])
    share = decompose(best).share_of_optimizer_effect
    return [*found, Stated(SHARE, seed, "grid", findings.interaction_share, share)]


def rows(numbers: Sequence[Stated]) -> Iterator[list[str]]:
    """A row of the table for each number: how many intervals hold the truth, of how many that were stated."""
    names = {key: name for key, (name, _) in PLANTED.items()} | OTHERS
    for key, name in names.items():
        known = [each for each in numbers if each.what == key and each.estimate.value is not None]
        refused = sum(each.what == key for each in numbers) - len(known)
        error = np.array([each.error for each in known])
        held = float(np.mean([each.is_held for each in known]))
        yield [
            name,
            f"{held:.3f}",
            str(len(known)),
            str(refused),
            f"{error.mean():+.3f}",
            f"{np.abs(error).mean():.3f}",
        ]


def table(numbers: Sequence[Stated]) -> str:
    """Markdown."""
    head = ["what", "95 % intervals that hold the truth", "stated", "refused", "bias", "mean absolute error"]
    lines = [head, ["---"] * len(head), *rows(numbers)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main(count: int) -> None:
    """Puts the table on the page."""
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        numbers = [each for found in pool.map(stated, range(1, count + 1)) for each in found]
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}{table(numbers)}{END}{rest.split(END)[1]}", encoding="utf-8")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 30)
