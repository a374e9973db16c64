"""Does the interaction share among viable cells hold the truth, and does its test keep its level?

`python -m tests.support.coverage.coupling` writes the table into docs/STATISTICS.md, some minutes on two cores; another
number of matrices may be given.
Matrices of backbones x optimizers x seeds are simulated, with noise as it is in practice, and judged as a report judges
them. Other matrices of these designs chose one constant: the tails of interactions.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import product
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from bocb_tune.analysis.core.arrays import Array, Flags
from bocb_tune.analysis.core.estimate import Estimate
from bocb_tune.analysis.coupling.failures import Viability, part_failures
from bocb_tune.analysis.coupling.interaction_test import InteractionTest, interaction_tests
from bocb_tune.analysis.coupling.posterior import posterior_values
from bocb_tune.analysis.coupling.shares import shares_of_draws
from bocb_tune.analysis.coupling.viable import enough
from bocb_tune.analysis.matrix.noise import moderated
from bocb_tune.analysis.matrix.resample import corrected_squares
from bocb_tune.analysis.matrix.twoway import residual_df

PAGE = Path(__file__).parents[3] / "docs" / "STATISTICS.md"
COUNT = 400
"""Simulated matrices a design."""
SHAPES = ((6, 6), (10, 8))
SEEDS, NOISE, CHANCE = 3, 0.5, 1.0
INTERACTION = (0.0, 0.3)
"""Standard deviations, points; optimizers' effects have one of 1, backbones' of 3."""
MOST_SEEDS = 8
NUM_NULL, CHAINS = 199, 6
"""A fifth and a quarter of what a report draws."""
BATCH = 50
ROUNDING = 1e-9


@dataclass(slots=True)
class Matrix:
    """One simulated study."""

    truth: Array
    """[backbones, optimizers], points."""
    sd: Array
    """Of a seed [backbones, optimizers]."""
    noise: Array
    """[backbones, optimizers, seeds], of variance 1."""
    seeds: Array
    """[backbones, optimizers]; 0 where a cell is missing."""
    collapsed: Flags
    """Whether a seed ends at chance [backbones, optimizers, seeds]."""


def equal_noise(*_: object) -> None:
    """As simulated."""


def unequal_seeds(study: Matrix, rng: np.random.Generator) -> None:
    study.seeds = rng.integers(2, MOST_SEEDS + 1, study.seeds.shape)


def heavy_tails(study: Matrix, rng: np.random.Generator) -> None:
    study.noise = rng.standard_t(3, study.noise.shape) / np.sqrt(3)


def unequal_noise(study: Matrix, rng: np.random.Generator) -> None:
    study.sd = study.sd * np.exp(0.8 * rng.standard_normal(study.sd.shape))


def noisy_optimizer(study: Matrix, _: np.random.Generator) -> None:
    study.sd[:, 0] *= 4


def missing_cells(study: Matrix, rng: np.random.Generator) -> None:
    """Three a line are left, without which there is no fit."""
    full, size = study.seeds, study.seeds.size
    while True:
        known = np.ones(size, bool)
        known[rng.choice(size, round(0.12 * size), replace=False)] = False
        study.seeds = np.where(known.reshape(full.shape), full, 0)
        if min((study.seeds > 0).sum(axis=axis).min() for axis in (0, 1)) >= 3:
            return


def one_single_seed(study: Matrix, _: np.random.Generator) -> None:
    study.seeds[0, 0] = 1


def collapsing_seeds(study: Matrix, rng: np.random.Generator) -> None:
    study.collapsed = rng.random(study.collapsed.shape) < 0.03


def cell_at_chance(study: Matrix, _: np.random.Generator) -> None:
    study.collapsed[0, 0] = True


DESIGNS: dict[str, Callable[[Matrix, np.random.Generator], None]] = {
    "equal noise": equal_noise,
    "2 to 8 seeds a cell": unequal_seeds,
    "heavy tails (t, 3 df)": heavy_tails,
    "noise differs by cell (sd of log sd .8)": unequal_noise,
    "one optimizer 4 times noisier": noisy_optimizer,
    "12 % of cells missing": missing_cells,
    "one cell with one seed": one_single_seed,
    "3 % of seeds collapse to chance": collapsing_seeds,
    "one cell at chance": cell_at_chance,
}


@dataclass(frozen=True, slots=True)
class IntervalOutcome:
    """Of one matrix."""

    holds: bool
    """Whether the interval holds the share in the truth of the cells it speaks of."""
    refused: bool
    rejects: bool
    some_cell: bool


def study_of(design: str, shape: tuple[int, int], interaction: float, rng: np.random.Generator) -> Matrix:
    """Simulate one matrix."""
    specific = rng.standard_normal(shape)
    specific = specific - specific.mean(axis=0) - specific.mean(axis=1, keepdims=True) + specific.mean()
    main = 70 + 3 * rng.standard_normal((shape[0], 1)) + rng.standard_normal(shape[1])
    study = Matrix(
        truth=main + interaction * specific,
        sd=np.full(shape, NOISE),
        noise=rng.standard_normal((*shape, MOST_SEEDS)),
        seeds=np.full(shape, SEEDS),
        collapsed=np.zeros((*shape, MOST_SEEDS), bool),
    )
    DESIGNS[design](study, rng)
    return study


def viability_of(study: Matrix) -> Viability:
    """Its failures apart, knowing the scores only: not even chance."""
    scores = study.truth[..., None] + study.sd[..., None] * study.noise
    scores = np.where(study.collapsed, CHANCE + 0.3 * study.noise, scores)
    runs = [[each[:n].tolist() for each, n in zip(*row, strict=True)] for row in zip(scores, study.seeds, strict=True)]
    values = np.array([[np.mean(each) if each else np.nan for each in row] for row in runs])
    backbones, optimizers = (tuple(map(str, range(size))) for size in values.shape)
    return part_failures(runs, values, np.zeros(values.shape, bool), (backbones, optimizers))


def outcomes(design: str, shape: tuple[int, int], interaction: float, seed: int) -> list[IntervalOutcome]:
    """Simulate `BATCH` matrices, say of them together what a report says of each, and compare with the truth."""
    rng = np.random.default_rng([seed, list(DESIGNS).index(design), *shape, round(10 * interaction)])
    pairs = [
        (study, viability_of(study)) for study in (study_of(design, shape, interaction, rng) for _ in range(BATCH))
    ]
    # A report leaves lines with too few viable cells out; here such a matrix counts as refused.
    whole = [pair for pair in pairs if all(line.all() for line in enough(np.isfinite(pair[1].values)))]
    studies, found = zip(*whole, strict=True)
    noises = [each.noise for each in found if each.noise is not None]
    values = np.stack([each.values for each in found])
    noise = moderated(np.stack([each.own for each in noises]), np.stack([each.seeds for each in noises]))
    _, p, p_any, p_cell = interaction_tests(values, noise, rng, NUM_NULL)
    # Without interaction an interval holds 0 exactly where the test does not reject it: no draws are needed.
    draws = posterior_values(values, noise, rng, CHAINS) if interaction else values[None]
    told = [IntervalOutcome(holds=False, refused=True, rejects=False, some_cell=False)] * (BATCH - len(whole))
    for i, study in enumerate(studies):
        df, every = residual_df(np.isfinite(values[i])), float(p_any[i])
        test = InteractionTest(f=np.nan, df=df, df_noise=1, p=float(p[i]), p_any=every, p_cell=p_cell[i])
        share = shares_of_draws(values[i], draws[:, i], test)[0]
        true = corrected_squares(np.where(np.isfinite(values[i]), study.truth, np.nan), 0.0)
        told.append(_outcome(share, test, float(true.share_of_optimizer_effect)))
    return told


def _outcome(share: Estimate, test: InteractionTest, truth: float) -> IntervalOutcome:
    holds = share.lo is not None and share.hi is not None and share.lo - ROUNDING <= truth <= share.hi + ROUNDING
    some_cell = bool(test.significant_cells.any())
    return IntervalOutcome(holds=holds, refused=share.value is None, rejects=test.is_significant, some_cell=some_cell)


def share_of(found: Sequence[IntervalOutcome], what: Callable[[IntervalOutcome], bool]) -> float:
    """NaN of none."""
    return float(np.mean([what(each) for each in found])) if found else np.nan


def rows(found: dict[tuple[str, tuple[int, int], float], list[IntervalOutcome]]) -> Iterator[list[str]]:
    """A row a design, worst coverage first."""
    yield [
        "design",
        "shape",
        *(f"holds, interaction sd {sd:g}" for sd in INTERACTION),
        "null rejected",
        "some cell",
        "refused",
    ]
    lines = []
    for design, shape in product(DESIGNS, SHAPES):
        each = [found[design, shape, sd] for sd in INTERACTION]
        held = [share_of([o for o in of if not o.refused], lambda o: o.holds) for of in each]
        rest = share_of(each[0], lambda o: o.rejects), share_of(each[0], lambda o: o.some_cell)
        refused = share_of([o for of in each for o in of], lambda o: o.refused)
        size = f"{shape[0]} x {shape[1]}"
        lines.append((min(held), [design, size, *(f"{value:.3f}" for value in (*held, *rest, refused))]))
    yield from (line for _, line in sorted(lines, key=lambda line: line[0]))


def write(table: Iterator[list[str]]) -> None:
    """Put the table in its place on the page."""
    head, *others = table
    text = "".join(f"| {' | '.join(line)} |\n" for line in (head, ["---"] * len(head), *others))
    print(text)
    begin, end = (
        "<!-- coupling: written by `python -m tests.support.coverage.coupling` -->\n",
        "<!-- end of coupling -->\n",
    )
    before, rest = PAGE.read_text(encoding="utf-8").split(begin)
    PAGE.write_text(f"{before}{begin}{text}{end}{rest.split(end)[1]}", encoding="utf-8")


def main() -> None:
    keys = list(product(DESIGNS, SHAPES, INTERACTION))
    count = int(sys.argv[1]) if len(sys.argv) > 1 else COUNT
    jobs = [(*key, seed) for key in keys for seed in range(count // BATCH)]
    found: dict[tuple[str, tuple[int, int], float], list[IntervalOutcome]] = {key: [] for key in keys}
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        for job, batch in zip(jobs, pool.map(outcomes, *zip(*jobs, strict=True)), strict=True):
            found[job[:3]] += batch
    write(rows(found))


if __name__ == "__main__":
    main()
