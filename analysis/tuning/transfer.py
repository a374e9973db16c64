"""Transfer of a setting found on one backbone to another, for one optimizer.

    T(b -> b') = e_b'(x*_b') - e_b'(x*_b),     x* = best setting of a mean surface

The search spaces may differ: outside the receiver's, its score is unknown.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bocb_tune.analysis.cell.sensitivity import EPSILON
from bocb_tune.analysis.core import bootstrap as drawn
from bocb_tune.analysis.core.arrays import Array, Flags
from bocb_tune.analysis.core.bootstrap import Refused
from bocb_tune.analysis.core.estimate import Counts, Estimate, Reason
from bocb_tune.analysis.tuning.settings import Cells, best_setting, draws_at

MIN_BACKBONES = 2
METHOD = "settings from mean surfaces, scores from draws"


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferRegret:
    """Transfer of the settings of one optimizer between backbones."""

    backbones: tuple[str, ...]
    regret: tuple[tuple[Estimate, ...], ...]
    """[donor, receiver], points, lower is better; refused with NO_SHARED_SUPPORT outside the receiver's search
    space."""
    mean: Estimate
    """Mean over pairs of different backbones: how well settings of the optimizer transfer."""
    donors: tuple[Estimate, ...]
    """Mean regret of the others at the setting of each backbone."""
    receivers: tuple[Estimate, ...]
    """Mean regret of each backbone at the others' settings."""
    within: Estimate
    """Share of pairs within the tolerance."""


def transfer(cells: Cells, rng: np.random.Generator, tolerance: float = EPSILON) -> TransferRegret | Refused:
    """Compute the transfer regret between all pairs of backbones.

    Args:
        cells: landscapes of one optimizer by backbone.
        rng: of the bootstrap.
        tolerance: points within which settings count as equally good.
    """
    if len(cells) < MIN_BACKBONES:
        detail = f"{len(cells)} backbones have a landscape, {MIN_BACKBONES} are needed"
        return Refused(reason=Reason.TOO_FEW_BACKBONES, detail=detail)
    settings = [best_setting(cell) for cell in cells.values()]
    at_all = np.stack([draws_at(cell, settings) for cell in cells.values()], axis=1)
    own = np.diagonal(at_all, axis1=1, axis2=2)
    regret = own[:, :, None] - at_all
    counts = [cell.counts for cell in cells.values()]
    replicates, times = _replicates(regret, rng)
    known = np.isfinite(regret[0]) & ~np.eye(len(cells), dtype=bool)
    by_receiver, by_donor = times[:, :, None] * known, times[:, None, :] * known
    pairs, total = by_receiver * by_donor, drawn.add_counts(counts)
    names = range(len(cells))
    return TransferRegret(
        backbones=tuple(cells),
        regret=tuple(
            tuple(
                drawn.estimate(regret[0, b, a], regret[1:, b, a], unit="points", counts=counts[b], method=METHOD)
                for b in names
            )
            for a in names
        ),
        mean=_overall(replicates, pairs, total, "points"),
        donors=_each(_weighted(replicates, by_receiver, 1), [total for _ in names]),
        receivers=_each(_weighted(replicates, by_donor, 2), counts),
        within=_overall(replicates <= tolerance, pairs, total, ""),
    )


def _replicates(regret: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    """Resample backbones and draws.

    Returns:
        The estimate and its replicates [1 + replicates, receivers, donors], and how often each backbone is in them
        [1 + replicates, backbones].
    """
    picked = drawn.pick_draws(regret[1:], rng)
    times = drawn.resampled_backbones(regret.shape[1], rng)
    return np.concatenate([regret[:1], picked]), np.concatenate([np.ones_like(times[:1]), times])


def _overall(values: Array | Flags, weights: Array, counts: Counts, unit: str) -> Estimate:
    return _estimate(_weighted(values, weights, (1, 2)), counts, unit)


def _each(means: Array, counts: list[Counts]) -> tuple[Estimate, ...]:
    return tuple(_estimate(values, each, "points") for values, each in zip(means.T, counts, strict=True))


def _estimate(values: Array, counts: Counts, unit: str) -> Estimate:
    return drawn.estimate(float(values[0]), values[1:], unit=unit, counts=counts, method=f"{METHOD}, bootstrap of both")


def _weighted(values: Array | Flags, weights: Array, axis: int | tuple[int, int]) -> Array:
    """Compute the weighted mean along some axes, NaN where nothing has weight."""
    sums, mass = (np.nan_to_num(values.astype(float)) * weights).sum(axis=axis), weights.sum(axis=axis)
    mean: Array = np.divide(sums, mass, out=np.full(mass.shape, np.nan), where=mass > 0)
    return mean
