"""The claims of sections 3.2 and 4 of arXiv:2410.06373, one by one, against its published tables.

The verdict on a point is counted, never written. What is compared over backbones or optimizers supports a point if it
holds in at least .95 of the replicates that resample them, contradicts it if in at most .05, and else cannot tell. A
number of cells supports or contradicts by itself. Each cell is one published number whose spread is not known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache

import numpy as np
from scipy.stats import rankdata

from bocb_tune.analysis.bocb.failures import by_equation, by_median
from bocb_tune.analysis.bocb.planned import CLASSES, contrast_of, paper_class
from bocb_tune.analysis.core import bootstrap as drawn
from bocb_tune.analysis.core.arrays import Array, Flags, Index
from bocb_tune.analysis.core.estimate import Estimate
from bocb_tune.analysis.matrix.resample import SEED
from bocb_tune.analysis.matrix.twoway import Matrix
from bocb_tune.analysis.names.look import optimizer_family
from bocb_tune.analysis.sources import paper

SURE = 0.95
"""Share of replicates from which on a comparison supports a point; contradicted below one minus it."""
GREY = ("trivial", "worst")
"""Marks of the published tables that stand for a failure."""


class TableVerdict(StrEnum):
    """Answers of the tables to a point."""

    supports = "supports"
    contradicts = "contradicts"
    cannot_tell = "cannot tell"


@dataclass(frozen=True, slots=True, kw_only=True)
class Assertion:
    """One part of a claim that a table can speak for or against."""

    statement: str
    verdict: TableVerdict
    evidence: str
    """Number that the verdict rests on, in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperClaim:
    """One claim of the paper, with the verdict of its tables on each part."""

    number: int
    statement: str
    points: tuple[Assertion, ...]

    def count(self, verdict: TableVerdict) -> int:
        """Count the points of a verdict."""
        return sum(point.verdict is verdict for point in self.points)


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedTable:
    """One published table as a matrix."""

    name: str
    values: Matrix
    """[backbones, optimizers], points."""
    backbones: tuple[str, ...]
    optimizers: tuple[str, ...]

    def row(self, backbone: str) -> Array:
        """Return the results of a backbone [optimizers]."""
        return np.asarray(self.values[self.backbones.index(backbone)])

    def place(self, optimizer: str) -> int:
        """Return the column of an optimizer."""
        return self.optimizers.index(optimizer)

    def of(self, family: str) -> Flags:
        """Tell which optimizers are of a category [optimizers]."""
        return np.array([optimizer_family(name) == family for name in self.optimizers])


@cache
def published_table(name: str) -> PublishedTable:
    """Read a published table as a matrix."""
    table = paper.published(name)
    values = table.trials.pivot(index="backbone", columns="optimizer", values="score")
    values = values.loc[list(table.backbones), list(table.optimizers)]
    return PublishedTable(name=name, values=values.to_numpy(), backbones=table.backbones, optimizers=table.optimizers)


def holds(statement: str, evidence: str, truth: bool) -> Assertion:
    """Tell a verdict from a number of cells, which holds or does not."""
    return Assertion(
        statement=statement, verdict=TableVerdict.supports if truth else TableVerdict.contradicts, evidence=evidence
    )


def unknown(statement: str, why: str) -> Assertion:
    """Say why no table can tell."""
    return Assertion(statement=statement, verdict=TableVerdict.cannot_tell, evidence=why)


def resampled(statement: str, evidence: str, share: float, over: str) -> Assertion:
    """Tell a verdict on a comparison from the share of replicates in which it holds."""
    verdict = (
        TableVerdict.supports
        if share >= SURE
        else TableVerdict.contradicts
        if share <= 1 - SURE
        else TableVerdict.cannot_tell
    )
    told = f"{evidence}; holds in {share:.2f} of replicates {over}"
    return Assertion(statement=statement, verdict=verdict, evidence=told)


def judged(statement: str, found: Estimate, p: float | None, positive: bool = True) -> Assertion:
    """Tell a verdict on a planned contrast from its exact test."""
    assert found.value is not None
    assert p is not None
    evidence = f"{found.value:+.2f} points (95 % CI {found.lo:+.2f} to {found.hi:+.2f}), exact p = {p:.3f}"
    if p >= 1 - SURE:
        return Assertion(statement=statement, verdict=TableVerdict.cannot_tell, evidence=evidence)
    return holds(statement, evidence, (found.value > 0) == positive)


def over_lines(count: int) -> Array:
    """Draw how often each line is in each replicate [replicates, count]."""
    return drawn.resampled_backbones(count, np.random.default_rng(SEED))


def spread_without_worst(row: Array, picked: Index | None = None) -> Array:
    """Compute the sd of results without the worst; in replicates of the optimizers [replicates] where they are picked.

    Args:
        row: results of a backbone [optimizers].
        picked: optimizers of each replicate [replicates, optimizers].
    """
    return np.asarray(np.sort(row if picked is None else row[picked], axis=-1)[..., 1:].std(axis=-1))


def more_spread(statement: str, first: tuple[str, Array], second: tuple[str, Array]) -> Assertion:
    """Tell whether the results of one backbone spread more than those of another, optimizers resampled in pairs."""
    count = len(first[1])
    picked: Index = np.random.default_rng(SEED).integers(count, size=(drawn.REPLICATES, count))
    share = float(np.mean(spread_without_worst(first[1], picked) > spread_without_worst(second[1], picked)))
    told = [f"{name} {float(spread_without_worst(row)):.2f}" for name, row in (first, second)]
    return resampled(statement, f"sd without the worst: {', '.join(told)}", share, "of the optimizers")


def mean_rank_share(grid: PublishedTable, judge: Callable[[Array], Array]) -> float:
    """Return the share of replicates of the backbones in which mean ranks meet a condition.

    Args:
        judge: takes mean ranks [replicates, optimizers], gives [replicates].
    """
    weights = over_lines(len(grid.backbones))
    return float(np.mean(judge(weights @ ranks_of(grid) / len(grid.backbones))))


def ranks_of(grid: PublishedTable) -> Array:
    """Rank the optimizers within each backbone [backbones, optimizers], 1 is best."""
    return np.asarray(rankdata(-grid.values, axis=1))


def grey(table: str, backbone: str, optimizer: str, pretraining: str = "") -> bool:
    """Tell whether the paper marks a cell as a failure."""
    marks = paper.marks(table)
    is_cell = (marks["backbone"] == backbone) & (marks["optimizer"] == optimizer)
    if pretraining:
        is_cell &= marks["pretraining"] == pretraining
    return bool((is_cell & marks["mark"].isin(GREY)).any())


def failures_of(grid: PublishedTable, gap: float, rows: Sequence[str], columns: Sequence[str]) -> tuple[int, int]:
    """Count the failures of a part of a table by Eq. 1 as printed, and by the rule of the grey marks."""
    part = np.ix_([grid.backbones.index(name) for name in rows], [grid.place(name) for name in columns])
    return int(by_equation(grid.values, gap)[part].sum()), int(by_median(grid.values)[part].sum())


def on_class(grid: PublishedTable, family: str, classes: Sequence[str]) -> tuple[Estimate, float | None]:
    """Compare a category with the other optimizers, on some classes of backbones against the other classes."""
    inside = np.array([paper_class(name) in classes for name in grid.backbones])
    own = grid.of(family)
    scores = grid.values[:, own].mean(axis=1) - grid.values[:, ~own].mean(axis=1)
    return contrast_of(scores, inside, ~inside, np.random.default_rng(SEED))


CNNS = CLASSES[:2]
"""Classes of the networks that the first claim calls classical."""
