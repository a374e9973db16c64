"""Planned contrasts: does a category of optimizers suit a class of backbones, or a macro design, better than others?

    psi = mean over the class of (mean over the category - mean over the other optimizers), minus that over the others

The four categories and three classes are those of arXiv:2410.06373, declared before looking at any result. Each psi has
Welch's interval over backbones and the exact permutation test of `matrix/contrasts.py`, its p-values by Holm's method
over all contrasts of the grid.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bocb_tune.analysis.core.arrays import Array, Flags
from bocb_tune.analysis.core.estimate import Counts, Estimate, Reason
from bocb_tune.analysis.core.intervals import welch_interval
from bocb_tune.analysis.core.multiple import holm
from bocb_tune.analysis.matrix.contrasts import permutations
from bocb_tune.analysis.matrix.twoway import Matrix
from bocb_tune.analysis.names.look import backbone_class, backbone_key, optimizer_family
from bocb_tune.analysis.names.table import (
    ADAPTIVE_LR,
    ATTENTION,
    CLASSICAL,
    ESTIMATED_LR,
    FIXED_LR,
    ISOTROPIC,
    METAFORMER,
    MODERN,
    OTHER,
    PLAIN_GRADIENT,
    PRIMARY,
)

CATEGORIES = (FIXED_LR, ADAPTIVE_LR, ESTIMATED_LR, PLAIN_GRADIENT)
MIN_A_SIDE = 2
"""Backbones on each side of a contrast: one has no spread."""
CLASSES = ("primary CNN", "classical CNN", "modern")
"""Classes of backbones as the paper names them; MetaFormers are modern."""
MACRO, BLOCK, MIXER = "isotropic, of the modern", "MetaFormer, of the modern", "attention, of the MetaFormers"


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """One contrast."""

    category: str
    """Category of optimizers, against all others."""
    where: str
    """Class of backbones, against all others it is told of."""
    psi: Estimate
    """Points; refused where a side is too small."""
    p: float | None = None
    """Two-sided, by exchanging which backbones belong to the class."""
    p_holm: float | None = None
    """The same, corrected for all contrasts of the grid."""


def paper_class(backbone: str) -> str:
    """Return the class that the paper puts a backbone in, `other` if not known."""
    kind = backbone_class(backbone)
    if kind == CLASSICAL:
        return CLASSES[0] if backbone_key(backbone) in PRIMARY else CLASSES[1]
    return CLASSES[2] if kind in (MODERN, METAFORMER) else OTHER


def planned_contrasts(
    values: Matrix, backbones: Sequence[str], optimizers: Sequence[str], rng: np.random.Generator
) -> tuple[Planned, ...]:
    """Make all contrasts of a grid; those that the data cannot support are refused.

    Args:
        values: [backbones, optimizers], points, NaN where missing.
    """
    families = np.array([optimizer_family(name) for name in optimizers])
    found = [
        _contrast(category, where, values, families, sides, rng)
        for category in CATEGORIES
        for where, *sides in _sides(backbones)
    ]
    corrected = holm([each.p for each in found])
    return tuple(replace(each, p_holm=p) for each, p in zip(found, corrected, strict=True))


def _sides(backbones: Sequence[str]) -> Iterator[tuple[str, Flags, Flags]]:
    """Name each contrast of backbones and give its two sides [backbones]."""
    classes = np.array([paper_class(name) for name in backbones])
    known, modern = classes != OTHER, classes == CLASSES[2]
    for name in CLASSES:
        yield name, classes == name, known & (classes != name)
    isotropic = np.array([backbone_key(name) in ISOTROPIC for name in backbones])
    yield MACRO, modern & isotropic, modern & ~isotropic
    meta = np.array([backbone_class(name) == METAFORMER for name in backbones])
    yield BLOCK, modern & meta, modern & ~meta
    attention = np.array([backbone_key(name) in ATTENTION for name in backbones])
    yield MIXER, meta & attention, meta & ~attention


def _contrast(
    category: str, where: str, values: Matrix, families: Array, sides: Sequence[Flags], rng: np.random.Generator
) -> Planned:
    inside = np.asarray(families == category)
    if not inside.any() or inside.all():
        return Planned(category=category, where=where, psi=_refused(Reason.TOO_FEW_OPTIMIZERS))
    if not np.isfinite(values[sides[0] | sides[1]]).all():
        return Planned(category=category, where=where, psi=_refused(Reason.INCOMPLETE_MATRIX))
    by_backbone = values[:, inside].mean(axis=1) - values[:, ~inside].mean(axis=1)
    psi, p = contrast_of(by_backbone, sides[0], sides[1], rng)
    return Planned(category=category, where=where, psi=psi, p=p)


def contrast_of(
    scores: Array, inside: Flags, outside: Flags, rng: np.random.Generator
) -> tuple[Estimate, float | None]:
    """Compare the mean of some backbones with that of others, with Welch's interval and the two-sided exact p-value.

    Args:
        scores: [backbones], points, known on both sides.
        inside, outside: the two sides [backbones].
    """
    sizes = int(inside.sum()), int(outside.sum())
    if min(sizes) < MIN_A_SIDE:
        return _refused(Reason.TOO_FEW_BACKBONES), None
    groups = scores[inside], scores[outside]
    value = float(groups[0].mean() - groups[1].mean())
    lo, hi = welch_interval(value, (float(groups[0].std(ddof=1)), float(groups[1].std(ddof=1))), sizes)
    both = inside | outside
    p = permutations(scores[both], inside[both], rng).p_two_sided
    method = f"Welch's t over {sizes[0]} and {sizes[1]} backbones"
    counts = Counts(n_trials=sum(sizes))
    return Estimate(value=value, lo=lo, hi=hi, unit="points", method=method, counts=counts), p


def _refused(reason: Reason) -> Estimate:
    return Estimate(value=None, unit="points", reason=reason)
