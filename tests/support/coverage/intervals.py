"""Do the intervals hold the truth? Simulated where it is known; the tables of landscapes in docs/STATISTICS.md.

`python -m tests.support.coverage.intervals` writes them anew, 40 minutes on two cores; seeds and grids may be given.
Two studies, at 90 % nominal and at the 95 % that a report prints:

- textbook surfaces with learning curves, under random search with early stopping, a seed at a time;
- the shipped synthetic grid, searched by the engine's own searcher, scheduler and journals (TPE and ASHA; the trials
  run in this process) and analysed as a report does.
"""

from __future__ import annotations

import math
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit

from bocb_tune.analysis.cell import sensitivity
from bocb_tune.analysis.cell.tuning_curves import tuning_curve
from bocb_tune.analysis.core import bootstrap as draws
from bocb_tune.analysis.core.arrays import Array
from bocb_tune.analysis.core.bootstrap import Refused
from bocb_tune.analysis.core.estimate import Estimate
from bocb_tune.analysis.findings.collect import find
from bocb_tune.analysis.landscape import surface
from bocb_tune.analysis.landscape.fit import Landscape, NoLandscape, fit_landscape
from bocb_tune.analysis.landscape.scale import Scale
from bocb_tune.analysis.landscape.surface import Domain, SettingGrid
from bocb_tune.analysis.matrix.twoway import decompose
from bocb_tune.analysis.sources.load import load
from bocb_tune.analysis.tuning.transfer import transfer
from bocb_tune.cli.launch import cell_plans
from bocb_tune.spec.model import load_spec
from bocb_tune.spec.space_file import load_space
from bocb_tune.tasks.synthetic import CLIFF_WIDTH, DEPTH, FLOOR, OPTIMA, SHAPES, truth
from tests.support.coverage.landscapes import BOWL, HARD, RIDGE, S1, S2, S3, Planted, simulate
from tests.support.coverage.random_search import random_search
from tests.support.simulated import Simulation

ROOT = Path(__file__).parents[3]
GRID, PAGE = ROOT / "experiments" / "synthetic_grid.yaml", ROOT / "docs" / "STATISTICS.md"
LEVELS = (0.90, 0.95)
"""Nominal; the last is what a report prints."""
EPSILON, NOISE = 2.0, 0.6
"""Points: the tolerance, and about the standard deviation of a trial's score everywhere here."""
TRIALS = 16
"""Of the tuning curve."""
SEEDS, GRIDS = 60, 30
FINE = {"num_lr": 601, "num_decay": 401}
"""Nodes on which the truth is read off."""

FIXTURES: dict[str, Planted] = {
    "S1 bowl": S1,
    "S2 ridge": S2,
    "S3 cliff": S3,
    "S14 bowl": BOWL,
    "S14 ridge": RIDGE,
    "S14 near the cliff": HARD,
}
SHIFT = 0.5
"""Decades that the two bowls of fixture S9 lie from the middle, in opposite directions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """One number as it is stated, and what is planted."""

    where: str
    what: str
    estimate: Estimate
    truth: float
    is_lr: bool = False
    level: float = LEVELS[-1]
    """That the interval was asked for."""

    @property
    def is_held(self) -> bool:
        lo, hi = self.estimate.lo, self.estimate.hi
        return (lo is None or lo <= self.truth) and (hi is None or self.truth <= hi)

    @property
    def error(self) -> float:
        """Of the value, in decades for a learning rate."""
        assert self.estimate.value is not None
        if self.is_lr:
            return math.log10(self.estimate.value / self.truth)
        return self.estimate.value - self.truth


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of a cell, and of the surface that is planted there."""

    name: str
    of_cell: Callable[[Landscape], Estimate]
    of_truth: Callable[[Array, Array, SettingGrid], float]
    """Of the planted surface [lr, decay], its line over lr at the weight decay found [lr], and their grid."""


def _decades(line: Array, grid: SettingGrid) -> float:
    return float(surface.usable_decades(line, grid.u, EPSILON)[0])


def _cost(line: Array, grid: SettingGrid) -> float:
    return float(surface.line_sensitivity(line, grid.u, FLOOR))


def _best_of(e: Array, grid: SettingGrid) -> float:
    return float(random_search(e[None], grid, noise=NOISE, longest=TRIALS)[0][0, -1])


METRICS = (
    Question("best lr (decades)", sensitivity.lr_star, lambda e, _, grid: float(10 ** grid.u[surface.argmax(e)[0]])),
    Question(
        "near-optimal volume",
        partial(sensitivity.near_optimal_volume, epsilon=EPSILON),
        lambda e, _, grid: float(surface.near_optimal_volume(e, grid, EPSILON)),
    ),
    Question(
        "usable decades of lr",
        partial(sensitivity.usable_decades_lr, epsilon=EPSILON),
        lambda _, line, grid: _decades(line, grid),
    ),
    Question(
        "usable decades of lr, wd retuned",
        partial(sensitivity.usable_decades_lr_profile, epsilon=EPSILON),
        lambda e, _, grid: _decades(surface.lr_profile(e), grid),
    ),
    Question("lr sensitivity (points)", sensitivity.lr_sensitivity, lambda _, line, grid: _cost(line, grid)),
    Question(
        "the same, at the true best wd",
        sensitivity.lr_sensitivity,
        lambda e, _, grid: _cost(surface.lr_slice(e, e), grid),
    ),
    Question(
        "cost of a random setting (points)",
        sensitivity.prior_mean_regret,
        lambda e, _, grid: float(surface.prior_mean_regret(e, grid)),
    ),
    Question(
        "variance share of lr",
        sensitivity.lr_variance_share,
        lambda e, _, grid: float(surface.variance_shares(e, grid)[1]),
    ),
    Question(
        f"expected best of {TRIALS} trials (points)",
        lambda cell: tuning_curve(cell).at(TRIALS),
        lambda e, _, grid: _best_of(e, grid),
    ),
)
BEST, MARGIN = "expected score at the best point (points)", "divergence margin (decades)"
TRANSFER, SHARE = "transfer regret (points; S9)", "interaction share of the grid (95 %)"


def about(
    where: str, cell: Landscape, planted: Callable[[SettingGrid], Array], margin: float | None
) -> Iterator[Answered]:
    """All numbers of a cell, given the planted surface on any grid and the planted margin to divergence."""
    grid = SettingGrid(domain=cell.grid.domain, **FINE)
    known, found = planted(grid), cell.grid.v[cell.best_node[1]]
    line = known[:, int(np.abs(grid.v - found).argmin())]
    for metric in METRICS:
        value, is_lr = metric.of_truth(known, line, grid), metric.name.startswith("best lr")
        yield from at_each_level(where, metric.name, partial(metric.of_cell, cell), value, is_lr=is_lr)
    at_best = float(planted(cell.grid)[cell.best_node])
    yield from at_each_level(where, BEST, partial(sensitivity.best_score, cell), at_best)
    if margin is not None:
        yield from at_each_level(where, MARGIN, partial(sensitivity.divergence_margin, cell), margin)


def at_each_level(
    where: str, what: str, estimated: Callable[[], Estimate], truth: float, *, is_lr: bool = False
) -> Iterator[Answered]:
    """One number with the interval of each level."""
    for level in LEVELS:
        draws.LEVEL = level
        yield Answered(where=where, what=what, estimate=estimated(), truth=truth, is_lr=is_lr, level=level)


# Textbook surfaces


def of_fixture(name: str, count: int, seed: int) -> list[Answered]:
    """What is stated of a surface after `count` trials."""
    found, cell = FIXTURES[name], fit(FIXTURES[name], count, seed)
    if isinstance(cell, NoLandscape):
        return []
    margin = found.cliff - found.centre[0] if math.isfinite(found.cliff) else None
    return list(about(name, cell, found.expected_on, margin))


def fit(planted: Planted, count: int, seed: int) -> Landscape | NoLandscape:
    return fit_landscape(simulate(planted, count, seed), planted.domain, Scale(bounded=True, floor=FLOOR))


def of_shift(count: int, seed: int) -> list[Answered]:
    """What carrying the setting found on one bowl to another, a decade apart, is said to cost, and what it costs."""
    pair = [S1.moved(shift) for shift in (-SHIFT, SHIFT)]
    cells = {f"{place}": fit(planted, count, 2 * seed + place) for place, planted in enumerate(pair)}
    known = {name: cell for name, cell in cells.items() if isinstance(cell, Landscape)}
    if isinstance(transfer(known, np.random.default_rng(seed)), Refused):
        return []
    receiver = pair[1].expected_on(known["1"].grid)
    cost = float(receiver[known["1"].best_node] - receiver[known["0"].best_node])
    return list(at_each_level("S9", TRANSFER, partial(_regret, known, seed), cost))


def _regret(cells: Mapping[str, Landscape], seed: int) -> Estimate:
    found = transfer(cells, np.random.default_rng(seed))
    assert not isinstance(found, Refused)
    return found.regret[0][1]


# The engine's own search


def planted_surface(backbone: str, optimizer: str, grid: SettingGrid) -> Array:
    """Expected score at full budget of the synthetic task, divergence included [lr, decay]."""
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


@cache
def planted_best(backbone: str, optimizer: str) -> float:
    space = load_space(optimizer)
    grid = SettingGrid(domain=Domain.of(space.lr, space.weight_decay), **FINE)
    return float(planted_surface(backbone, optimizer, grid).max())


def of_grid(seed: int) -> list[Answered]:
    """What a report of the shipped grid, searched with this seed, says of its cells and of their matrix."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        Simulation(run, cell_plans(load_spec(GRID, [f"seed={seed}"]))).run()
        table = load(str(run))
    spaces = {name: load_space(name) for name in table.optimizers}
    dims = {name: {"lr": space.lr, "weight_decay": space.weight_decay} for name, space in spaces.items()}
    findings = find(replace(table, spaces=dims))
    stated: list[Answered] = []
    for (backbone, optimizer), each in findings.models.items():
        if isinstance(each.model, Landscape):
            margin = SHAPES[backbone].cliff
            stated += about(backbone, each.model, partial(planted_surface, backbone, optimizer), margin)
    best = np.array([[planted_best(b, o) for o in table.optimizers] for b in table.backbones])
    share = decompose(best).share_of_optimizer_effect
    return [*stated, Answered(where="grid", what=SHARE, estimate=findings.interaction_share, truth=share)]


# Tables


def held(stated: Iterable[Answered], level: float = LEVELS[0]) -> float:
    """Share of the intervals of a level that hold the truth; NaN of none."""
    hits = [each.is_held for each in stated if each.estimate.value is not None and each.level == level]
    return float(np.mean(hits)) if hits else math.nan


def both(stated: Sequence[Answered]) -> str:
    """The share at each level, in the order of `LEVELS`."""
    return ", ".join(f"{held(stated, level):.2f}" for level in LEVELS)


def by_fixture(stated: Sequence[Answered]) -> Iterator[list[str]]:
    """A row a number, worst first; a column for all fixtures at both levels, and one a fixture at the last."""
    places = list(dict.fromkeys(each.where for each in stated))
    yield ["what", "all", *(f"{where}, {LEVELS[-1]:.0%}" for where in places)]
    rows = []
    for what in dict.fromkeys(each.what for each in stated):
        of_it = [each for each in stated if each.what == what]
        shares = [held((each for each in of_it if each.where == where), LEVELS[-1]) for where in places]
        rows.append((held(of_it), [what, both(of_it), *("" if math.isnan(x) else f"{x:.2f}" for x in shares)]))
    yield from (row for _, row in sorted(rows, key=lambda row: row[0]))


def by_what(stated: Sequence[Answered]) -> Iterator[list[str]]:
    """A row a number, worst first: how many intervals hold the truth, of how many that were stated."""
    yield ["what", *(f"{level:.0%} intervals hold" for level in LEVELS), "stated", "refused", "bias", "mean error"]
    rows = []
    for what in dict.fromkeys(each.what for each in stated):
        of_it = [each for each in stated if each.what == what]
        last = [each for each in of_it if each.level == LEVELS[-1]]
        known = [each for each in last if each.estimate.value is not None]
        error = np.array([each.error for each in known])
        sizes = f"{error.mean():+.3f}", f"{np.abs(error).mean():.3f}"
        shares = [held(of_it, level) for level in LEVELS]
        texts = ("" if math.isnan(share) else f"{share:.3f}" for share in shares)
        rows.append((shares[-1], [what, *texts, str(len(known)), str(len(last) - len(known)), *sizes]))
    yield from (row for _, row in sorted(rows, key=lambda row: row[0]))


def write(name: str, rows: Iterable[Sequence[str]], by: str = "tests.support.coverage.intervals") -> None:
    """Puts a table in its place on the page."""
    head, *others = rows
    lines = [head, ["---"] * len(head), *others]
    text = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    begin, end = f"<!-- {name}: written by `python -m {by}` -->\n", f"<!-- end of {name} -->\n"
    before, rest = PAGE.read_text(encoding="utf-8").split(begin)
    PAGE.write_text(f"{before}{begin}{text}{end}{rest.split(end)[1]}", encoding="utf-8")


def main() -> None:
    seeds, grids = (int(each) for each in sys.argv[1:3]) if len(sys.argv) > 2 else (SEEDS, GRIDS)
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:

        def gathered(function: Callable[..., list[Answered]], *arguments: Any) -> list[Answered]:
            return [each for found in pool.map(function, *arguments) for each in found]

        for count in (30, 60):
            jobs = [(name, count, seed) for name in FIXTURES for seed in range(seeds)]
            shifts = gathered(of_shift, [count] * seeds, range(seeds))
            write(f"{count} trials", by_fixture([*gathered(of_fixture, *zip(*jobs, strict=True)), *shifts]))
        write("engine", by_what(gathered(of_grid, range(1, grids + 1))))


if __name__ == "__main__":
    main()
