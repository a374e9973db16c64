"""Cells that fail, seeds of the others that collapsed, and the values and noise of the viable cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bocb_tune.analysis.core.arrays import Flags
from bocb_tune.analysis.coupling.viable import DELTA, at_chance, failures
from bocb_tune.analysis.matrix.noise import Noise, seed_noise
from bocb_tune.analysis.matrix.twoway import Matrix

SURE = 2.0
"""Standard errors subtracted from the best of a backbone before others are compared with it."""
GROSS = 15.0
"""Typical standard deviations below the best seed of its cell at which a seed counts as collapsed, if chance is
unknown."""

Scores = Sequence[Sequence[Sequence[float]]]
"""Scores of the seeds of each cell [backbones][optimizers][seeds]; empty where its value is not a mean of seeds."""
Names = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedCell:
    """A cell that counts as a failure rather than as coupling."""

    backbone: str
    optimizer: str
    why: str

    @property
    def key(self) -> str:
        return f"{self.backbone}/{self.optimizer}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Viability:
    """A matrix [backbones, optimizers] with its failures set apart."""

    values: Matrix
    """Means of the seeds that trained, points; NaN where a cell failed or has no value."""
    noise: Noise | None
    """Noise of `values`; None where too few cells were repeated."""
    failed: tuple[FailedCell, ...]
    is_failed: Flags
    collapsed: tuple[tuple[str, int, int], ...]
    """Viable cells some of whose seeds collapsed: key, number collapsed, number in all."""


def part_failures(
    scores: Scores,
    values: Matrix,
    diverged: Flags,
    names: tuple[Names, Names],
    *,
    floor: float = np.nan,
    delta: float = DELTA,
    num_images: float = np.inf,
) -> Viability:
    """Set failures apart.

    A cell fails if all of its trials diverged, if more than half of its seeds collapsed, if it trained no better than
    chance, or if it lies more than `delta` points below the best of its backbone.

    Args:
        scores: of the seeds of each cell.
        values: of the cells [backbones, optimizers], points, NaN where missing.
        diverged: cells all of whose trials diverged.
        names: of backbones and of optimizers.
        floor: chance level, NaN if unknown.
        delta: infinite where scores are not points.
        num_images: images that scores are shares of, infinite if unknown.
    """
    kept = trained(scores, floor, delta)
    count, left = (np.array([[len(each) for each in row] for row in runs]) for runs in (scores, kept))
    means = np.array(
        [
            [np.mean(runs) if runs else value for runs, value in zip(*row, strict=True)]
            for row in zip(kept, values, strict=True)
        ]
    )
    own = np.array([[np.var(runs, ddof=1) if len(runs) > 1 else 0.0 for runs in row] for row in kept])
    lost = count - left
    why = {
        "every trial diverged": np.isfinite(values) & diverged,
        "no better than chance": at_chance(means, floor, num_images),
        "most seeds collapsed": 2 * lost > count,
        f"more than {delta:g} points below the best of the backbone": _far_below_best(
            means, seed_noise(own, left), delta
        ),
    }
    is_failed = np.any(list(why.values()), axis=0)
    known = np.isfinite(means) & ~is_failed
    return Viability(
        values=np.where(known, means, np.nan),
        noise=seed_noise(own, np.where(known, np.maximum(left, 1), 0)),
        failed=_failed_cells(why, names),
        is_failed=is_failed,
        collapsed=tuple(
            (f"{names[0][b]}/{names[1][o]}", int(lost[b, o]), int(count[b, o]))
            for b, o in np.argwhere(known & (lost > 0))
        ),
    )


def _failed_cells(why: Mapping[str, Flags], names: tuple[Names, Names]) -> tuple[FailedCell, ...]:
    """Name the cells that any reason holds for, each with the first that does."""
    return tuple(
        FailedCell(
            backbone=names[0][b],
            optimizer=names[1][o],
            why=next(reason for reason, cells in why.items() if cells[b, o]),
        )
        for b, o in np.argwhere(np.any(list(why.values()), axis=0))
    )


def _far_below_best(means: Matrix, noise: Noise | None, delta: float) -> Flags:
    """Find cells more than `delta` points below the best of their backbone.

    The best counts only for its lower confidence limit, since one lucky seed of a noisy cell would fail all others.
    """
    if noise is None:
        return failures(means, delta=delta)
    sure = means - SURE * np.sqrt(noise.cell_variance)
    best = np.max(sure, axis=1, keepdims=True, where=np.isfinite(sure), initial=-np.inf)
    return np.asarray(np.isfinite(means) & (means < best - delta))


def trained(scores: Scores, floor: float, delta: float) -> list[list[list[float]]]:
    """Select the seeds of each cell that did train [backbones][optimizers][seeds], without those that collapsed.

    A seed has collapsed if it is nearer to chance than to the best cell of its backbone. Where chance is unknown, it
    has if it lies more than `delta` points, and 15 typical standard deviations, below the best seed of its cell.
    """
    sds = [np.std(runs, ddof=1) for row in scores for runs in row if len(runs) > 1]
    gap = max(delta, GROSS * float(np.median(sds))) if sds else np.inf
    kept = []
    for row in scores:
        best = max((float(np.median(runs)) for runs in row if len(runs)), default=np.nan)
        lines = [(floor + best) / 2 if np.isfinite(floor) else max(runs, default=0.0) - gap for runs in row]
        kept.append([[run for run in runs if not run < line] for runs, line in zip(row, lines, strict=True)])
    return kept
