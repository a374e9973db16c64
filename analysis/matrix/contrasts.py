"""Planned contrasts: does one family of optimizers suit one class of backbones better than the others?

    psi = mean over the class of (mean over the family - mean over the reference), minus the same over other backbones

Tested by permuting which backbones belong to the class: exact, without any assumption about the scores. The families
and classes are declared in `names/table.py`, before looking at results; a contrast found by looking has no p-value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, combinations
from math import comb

import numpy as np
from scipy.stats import rankdata

from bocb_tune.analysis.core.arrays import Flags
from bocb_tune.analysis.core.estimate import Estimate, Reason
from bocb_tune.analysis.matrix.twoway import Matrix
from bocb_tune.analysis.names.look import ADAM_FAMILY, SGD_FAMILY, backbone_class, optimizer_key
from bocb_tune.analysis.names.table import CLASSICAL

MIN_A_CLASS = 3
MAX_EXACT, NUM_RANDOM = 1_000_000, 100_000
ROUNDING = 1e-9
"""Difference below which sums count as equal, so that the order of addition does not matter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Permutations:
    """Numbers of permutations of the class with a contrast at least as large as the observed one."""

    larger: int
    """Count of the one-sided test."""
    extreme: int
    """Count of the two-sided test: at least as far from 0."""
    total: int

    @property
    def p(self) -> float:
        """One-sided p-value."""
        return self.larger / self.total

    @property
    def p_two_sided(self) -> float:
        return self.extreme / self.total


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrast:
    """Advantage of a family on a class of backbones over its advantage elsewhere."""

    name: str
    by_backbone: Matrix
    """Family minus reference on each backbone [backbones], points."""
    inside: float
    """Mean over the class, points."""
    outside: float
    """Mean over the other backbones, points."""
    on_points: Permutations
    on_ranks: Permutations
    """Test on the ranks of the optimizers within each backbone."""

    @property
    def psi(self) -> Estimate:
        """The contrast as an estimate."""
        tests = ((self.on_points, "points"), (self.on_ranks, "ranks"))
        told = ", ".join(f"{test.larger}/{test.total} on {scale}" for test, scale in tests)
        return Estimate(value=self.inside - self.outside, unit="points", method=f"permutation, one-sided {told}")


def sgd_on_classical(
    values: Matrix, backbones: Sequence[str], optimizers: Sequence[str], rng: np.random.Generator
) -> Contrast | Reason:
    """Compute the contrast claimed in arXiv:2410.06373: SGD against Adam types, classical against later networks."""
    family, reference = (np.array([optimizer_key(o) in keys for o in optimizers]) for keys in (SGD_FAMILY, ADAM_FAMILY))
    inside = np.array([backbone_class(name) == CLASSICAL for name in backbones])
    return planned_contrast("SGD on classical networks", values, family, reference, inside, rng)


def planned_contrast(
    name: str, values: Matrix, family: Flags, reference: Flags, inside: Flags, rng: np.random.Generator
) -> Contrast | Reason:
    """Compute one contrast with its tests, or say why there is none.

    Args:
        values: [backbones, optimizers], points, finite for the optimizers of family and reference.
        family, reference: which optimizers [optimizers].
        inside: which backbones make up the class [backbones].
    """
    if min(inside.sum(), (~inside).sum()) < MIN_A_CLASS:
        return Reason.TOO_FEW_BACKBONES
    if not (family.any() and reference.any()):
        return Reason.TOO_FEW_OPTIMIZERS
    # Ranks are taken among all optimizers that every backbone has tried, as everywhere else.
    complete = np.asarray(np.isfinite(values).all(axis=0))
    if not (complete[family].all() and complete[reference].all()):
        return Reason.INCOMPLETE_MATRIX
    ranks = -rankdata(-values[:, complete], axis=1)
    on_points = values[:, family].mean(axis=1) - values[:, reference].mean(axis=1)
    on_ranks = ranks[:, family[complete]].mean(axis=1) - ranks[:, reference[complete]].mean(axis=1)
    return Contrast(
        name=name,
        by_backbone=on_points,
        inside=float(on_points[inside].mean()),
        outside=float(on_points[~inside].mean()),
        on_points=permutations(on_points, inside, rng),
        on_ranks=permutations(on_ranks, inside, rng),
    )


def permutations(scores: Matrix, inside: Flags, rng: np.random.Generator) -> Permutations:
    """Test a contrast by every choice of the class, or by 100,000 random ones where there are more than a million.

    Args:
        scores: [backbones]
        inside: the class as declared [backbones].
    """
    size = int(inside.sum())
    exact = comb(len(scores), size) <= MAX_EXACT
    sums = _all_sums(scores, size) if exact else _drawn_sums(scores, size, rng)
    contrast = sums / size - (scores.sum() - sums) / (len(scores) - size)
    seen = scores[inside].mean() - scores[~inside].mean()
    # The declared class is one of the choices; it is added to random ones, so that no p-value is 0.
    return Permutations(
        larger=int(np.sum(contrast >= seen - ROUNDING)) + (not exact),
        extreme=int(np.sum(np.abs(contrast) >= abs(seen) - ROUNDING)) + (not exact),
        total=len(sums) + (not exact),
    )


def _all_sums(scores: Matrix, size: int) -> Matrix:
    ways = chain.from_iterable(combinations(scores.tolist(), size))
    return np.asarray(np.fromiter(ways, float).reshape(-1, size).sum(axis=1))


def _drawn_sums(scores: Matrix, size: int, rng: np.random.Generator) -> Matrix:
    drawn = rng.permuted(np.tile(scores, (NUM_RANDOM, 1)), axis=1)
    return np.asarray(drawn[:, :size].sum(axis=1))
