"""Do the intervals hold the truth on landscapes that nobody here made?

`python -m tests.support.coverage.real_landscapes` writes the table of docs/STATISTICS.md, some ten minutes on two
cores. The seed means of each landscape of tests/golden/landscapes are smoothed by a Gaussian process to a surface, the
truth. A trial at a random setting scores the truth and the residual of a random seed at the nearest node of the
original grid, within 0 and 100; under early stopping its curve comes to that score, and the worse two
thirds stop at each rung.
"""

from __future__ import annotations

import csv
import sys
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

from bocb_tune.analysis.cell import sensitivity
from bocb_tune.analysis.cell.metrics import COARSER
from bocb_tune.analysis.cell.sensitivity import EPSILON
from bocb_tune.analysis.cell.tuning_curves import TuningCurve, tuning_curve, with_trials
from bocb_tune.analysis.core import bootstrap as drawn
from bocb_tune.analysis.core.arrays import Array
from bocb_tune.analysis.core.estimate import Estimate
from bocb_tune.analysis.landscape import surface
from bocb_tune.analysis.landscape.fit import Landscape, fit_landscape
from bocb_tune.analysis.landscape.scale import Scale
from bocb_tune.analysis.landscape.surface import Domain, SettingGrid
from bocb_tune.analysis.landscape.trials import CellTrials
from bocb_tune.analysis.recommend.candidates import Seeds, bounding, make_candidate, with_seeds
from tests.support.coverage.intervals import LEVELS, Answered, at_each_level, both, held, write

DATA = Path(__file__).parents[2] / "golden" / "landscapes" / "hpobench.csv"
BOX = Domain(lr=(-5.0, 0.0), weight_decay=(-8.0, 0.0))
NODES, SEEDS = 10, 5
SIZES = (40, 64, 128)
STOPPED = 64
"""Trials of a cell under early stopping."""
REPLICATES = 2
FIRST_SEED = 100
"""Seeds before it were in sight when the constants of the model were chosen."""
RUNGS = (1 / 27, 1 / 9, 1 / 3, 1.0)
SEARCHES, BEST_OF = 4000, (4, 16, 64)
ADVISED, FRESH = 16, 3
"""Trials of a recommendation, and fresh seeds at its first setting."""
RECOMMENDED = "recommended, 16 trials", "recommended, 16 trials, 3 fresh seeds"


@dataclass(frozen=True)
class RealLandscape:
    """One real landscape."""

    surface: Array
    """Smoothed seed means [161 lr, 101 decay]."""
    residuals: Array
    """Of the seeds about their mean, scaled to their variance [10, 10, seeds]."""

    def at(self, x: Array) -> Array:
        """Score at settings scaled to the box [settings, 2], straight lines between nodes."""
        place = x * (np.array(self.surface.shape) - 1)
        low = np.minimum(place.astype(int), np.array(self.surface.shape) - 2)
        (p, q), (i, j) = (place - low).T, low.T
        s = self.surface
        lower = (1 - q) * s[i, j] + q * s[i, j + 1]
        return np.asarray((1 - p) * lower + p * ((1 - q) * s[i + 1, j] + q * s[i + 1, j + 1]))

    def scores(self, x: Array, rng: np.random.Generator) -> Array:
        """Scores of one trial at each setting."""
        i, j = np.rint(x * (NODES - 1)).astype(int).T
        return np.clip(self.at(x) + self.residuals[i, j, rng.integers(0, SEEDS, len(x))], 0, 100)

    def on(self, grid: SettingGrid) -> Array:
        return self.at(grid.nodes()[0]).reshape(grid.shape)


@cache
def truths() -> dict[str, RealLandscape]:
    """All of them, by name."""
    seen: dict[str, dict[tuple[int, int], list[float]]] = defaultdict(lambda: defaultdict(list))
    with DATA.open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            u, v = np.log10(float(row["lr"])), np.log10(float(row["weight_decay"]))
            node = round((u + 5) / 5 * (NODES - 1)), round((v + 8) / 8 * (NODES - 1))
            seen[row["landscape"]][node].append(float(row["score"]))
    return {name: _truth(scores) for name, scores in seen.items()}


def _truth(scores: dict[tuple[int, int], list[float]]) -> RealLandscape:
    values = np.array([[scores[i, j] for j in range(NODES)] for i in range(NODES)])
    means = values.mean(axis=2)
    coarse, fine = (SettingGrid(domain=BOX, num_lr=n, num_decay=m).nodes()[0] for n, m in ((NODES, NODES), (161, 101)))
    kernel = ConstantKernel(1.0) * Matern([0.3, 0.5], (0.08, 20), nu=2.5) + WhiteKernel(0.05, (1e-4, 2))
    process = GaussianProcessRegressor(kernel, normalize_y=True, n_restarts_optimizer=1, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # hyper-parameters at their bounds
        smooth = process.fit(coarse, means.ravel()).predict(fine)
    spread = np.sqrt(SEEDS / (SEEDS - 1))
    return RealLandscape(
        surface=np.clip(smooth, 0, 100).reshape(161, 101), residuals=(values - means[..., None]) * spread
    )


@cache
def best_of(name: str) -> dict[int, tuple[float, float]]:
    """True expected score of the setting selected among n random trials, and of the score it was selected by."""
    truth, rng, found = truths()[name], np.random.default_rng(0), {}
    for n in BEST_OF:
        x = rng.random((SEARCHES * n, 2))
        true, seen = truth.at(x).reshape(-1, n), truth.scores(x, rng).reshape(-1, n)
        chosen = np.take_along_axis(true, seen.argmax(axis=1)[:, None], axis=1)
        found[n] = float(chosen.mean()), float(seen.max(axis=1).mean())
    return found


def advised_search(name: str, cell: Landscape) -> float:
    """True expected score of the setting selected by the search that is recommended."""
    truth, rng, near = truths()[name], np.random.default_rng(0), cell.mean >= cell.mean.max() - EPSILON
    weights = (cell.grid.weights * bounding(near, cell.grid)).ravel()
    tried = rng.choice(weights.size, size=(SEARCHES, ADVISED), p=weights / weights.sum())
    tried[:, 0] = np.ravel_multi_index(cell.best_node, cell.grid.shape)
    x = cell.grid.nodes()[0][tried.ravel()]
    true, seen = truth.at(x).reshape(tried.shape), truth.scores(x, rng).reshape(tried.shape)
    return float(np.take_along_axis(true, seen.argmax(axis=1)[:, None], axis=1).mean())


def _advised(name: str, cell: Landscape, known: CellTrials, fresh: int) -> Estimate:
    rng = np.random.default_rng(known.lr.view(np.uint64))
    found = make_candidate(cell, ADVISED, rng)
    if fresh:
        truth, x = truths()[name], cell.grid.nodes()[0].reshape(*cell.grid.shape, 2)[cell.best_node]
        i, j = np.rint(x * (NODES - 1)).astype(int)
        sd = float(np.sqrt(np.mean(truth.residuals[i, j] ** 2) / FRESH))
        seeds = Seeds(score=float(truth.scores(np.tile(x, (FRESH, 1)), rng).mean()), sd=sd, setting=None)
        found = with_seeds(found, cell, seeds, rng)
    return drawn.estimate(found.expected, found.draws, unit="points", counts=cell.counts, method="")


def trials(name: str, count: int, seed: int, *, stop: bool) -> CellTrials:
    """Random search, with or without early stopping."""
    rng = np.random.default_rng([seed, count, int(stop), *name.encode()])
    x, truth = rng.random((count, 2)), truths()[name]
    final, low = truth.scores(x, rng), float(truth.surface.min())
    u = BOX.lr[0] + x[:, 0] * (BOX.lr[1] - BOX.lr[0])
    exempt = rng.random(count) < 0.1
    seen: dict[float, list[float]] = {rung: [] for rung in RUNGS}
    trial, share, score, reached = [], [], [], np.ones(count)
    for i in range(count):
        for rung in RUNGS if stop else RUNGS[-1:]:
            left = (rung**-0.35 - 1) * max(0.1, 0.6 - 0.25 * (u[i] + 2.5)) * 0.6
            noise = 0.3 * rng.standard_normal() if rung < 1 else 0.0
            value = float(np.clip(low + (final[i] - low) * np.exp(-left) + noise, 0, 100))
            trial.append(i), share.append(rung), score.append(value)
            seen[rung].append(value)
            reached[i] = rung
            if rung < 1 and not exempt[i] and value < np.quantile(seen[rung], 2 / 3, method="lower"):
                break
    return CellTrials(
        lr=10**u,
        weight_decay=10 ** (BOX.decay_ends[0] + x[:, 1] * (BOX.decay_ends[1] - BOX.decay_ends[0])),
        diverged=np.zeros(count, dtype=bool),
        completed=reached == 1,
        audit=exempt & stop,
        share=reached,
        record_trial=np.array(trial, dtype=np.intp),
        record_share=np.array(share),
        record_score=np.array(score),
    )


def stated(job: tuple[str, str, int, int]) -> list[Answered]:
    """What is stated of one cell: (column, landscape, trials, seed)."""
    where, name, count, seed = job
    known = trials(name, count, seed, stop=where.endswith("stopped"))
    cell = fit_landscape(known, BOX, Scale(bounded=True, floor=float(known.record_score.min())))
    if not isinstance(cell, Landscape):
        refused = Estimate(value=None, reason=cell.reason)
        pairs = [(what, level) for what in WHAT for level in LEVELS]
        return [Answered(where=where, what=what, estimate=refused, truth=0.0, level=level) for what, level in pairs]
    return list(_about(where, name, cell, known))


def _about(where: str, name: str, cell: Landscape, known: CellTrials) -> Iterator[Answered]:
    grid, e, (_, column) = cell.grid, truths()[name].on(cell.grid), cell.best_node
    line = e[:, column]
    epsilon = next((x for x in (1.0, *COARSER) if not sensitivity._below_noise(cell, x)), COARSER[-1])
    numbers: dict[str, tuple[Callable[[], Estimate], float]] = {
        "best lr": (partial(sensitivity.lr_star, cell), float(10 ** grid.u[surface.argmax(e)[0]])),
        "expected score at the best point": (partial(sensitivity.best_score, cell), float(e[cell.best_node])),
        "near-optimal volume": (
            partial(sensitivity.near_optimal_volume, cell, epsilon),
            float(surface.near_optimal_volume(e, grid, epsilon)),
        ),
        "usable decades of lr": (
            partial(sensitivity.usable_decades_lr, cell, epsilon),
            float(surface.usable_decades(line, grid.u, epsilon)[0]),
        ),
        "cost of a random setting": (
            partial(sensitivity.prior_mean_regret, cell),
            float(surface.prior_mean_regret(e, grid)),
        ),
        "lr sensitivity": (
            partial(sensitivity.lr_sensitivity, cell),
            float(surface.line_sensitivity(line, grid.u, cell.floor)),
        ),
        "variance share of lr": (
            partial(sensitivity.lr_variance_share, cell),
            float(surface.variance_shares(e, grid)[1]),
        ),
    }
    advised = advised_search(name, cell)
    numbers |= {what: (partial(_advised, name, cell, known, fresh), advised) for fresh, what in enumerate(RECOMMENDED)}
    curve = tuning_curve(cell)
    if not where.endswith("stopped"):
        curve = with_trials(curve, known.last, np.random.default_rng(0))
    kinds: tuple[tuple[str, Callable[[TuningCurve, int], Estimate]], ...] = (
        ("deployed", TuningCurve.at),
        ("reported", TuningCurve.reported_at),
    )
    for place, (kind, read) in enumerate(kinds):
        numbers |= {f"best of {n}, {kind}": (partial(read, curve, n), best_of(name)[n][place]) for n in BEST_OF}
    for what, (estimated, truth) in numbers.items():
        yield from at_each_level(where, what, estimated, truth, is_lr=what == "best lr")


WHAT = (
    *("best lr", "expected score at the best point", "near-optimal volume", "usable decades of lr"),
    *("cost of a random setting", "lr sensitivity", "variance share of lr", *RECOMMENDED),
    *(f"best of {n}, {kind}" for kind in ("deployed", "reported") for n in BEST_OF),
)


def jobs(replicates: int = REPLICATES) -> list[tuple[str, str, int, int]]:
    columns = [(f"{size}", size) for size in SIZES] + [(f"{STOPPED}, stopped", STOPPED)]
    seeds = range(FIRST_SEED, FIRST_SEED + replicates)
    return [(where, name, size, seed) for where, size in columns for seed in seeds for name in truths()]


def table(found: Sequence[Answered]) -> Iterator[list[str]]:
    """A row a number, worst first: share held at each level, median width at the last, and share refused if any."""
    places = list(dict.fromkeys(each.where for each in found))
    yield ["what", *places]
    by = {what: [[x for x in found if (x.what, x.where) == (what, where)] for where in places] for what in WHAT}
    for what, columns in sorted(by.items(), key=lambda row: min(held(column) for column in row[1])):
        yield [what, *(_entry(column) for column in columns)]


def _entry(column: Sequence[Answered]) -> str:
    known = [each for each in column if each.estimate.value is not None]
    refused = 1 - len(known) / len(column)
    if not known:
        return "refused"
    widths = [_width(each) for each in known if each.level == LEVELS[-1]]
    text = f"{both(column)} / {np.median(widths):.2g}"
    return f"{text} ({refused:.0%} refused)" if refused else text


def _width(each: Answered) -> float:
    lo, hi = each.estimate.lo, each.estimate.hi
    if lo is None or hi is None:
        return np.inf
    return float(np.log10(hi / lo)) if each.is_lr else hi - lo


def main() -> None:
    replicates = int(sys.argv[1]) if len(sys.argv) > 1 else REPLICATES
    with ProcessPoolExecutor(2) as pool:
        found = [each for cell in pool.map(stated, jobs(replicates)) for each in cell]
    rows = list(table(found))
    for row in rows:
        print(" | ".join(row))
    write("real", rows, by="tests.support.coverage.real_landscapes")


if __name__ == "__main__":
    main()
