"""Ranks along the tuning curves: which optimizer is best depends on the number of trials one can afford.

A wider search space lowers the curve of an optimizer by itself. Every optimizer must therefore have one search space
on all backbones, and the widths are stated beside the ranks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from bocb_tune.analysis.cell.tuning_curves import SIZES, TuningCurve
from bocb_tune.analysis.core import bootstrap as drawn
from bocb_tune.analysis.core.arrays import Array
from bocb_tune.analysis.core.bootstrap import Refused
from bocb_tune.analysis.core.estimate import Estimate, Reason
from bocb_tune.analysis.landscape.fit import NoLandscape

Curves = Mapping[tuple[str, str], TuningCurve | NoLandscape]
"""Tuning curves by (backbone, optimizer)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Crossing:
    """Two optimizers changing places."""

    ahead: str
    """Optimizer with the better mean rank up to that number of trials."""
    behind: str
    trials: int
    """Fewest trials at which `behind` has the better mean rank."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetRanks:
    """Mean rank over backbones at each number of trials, 1 is best."""

    backbones: tuple[str, ...]
    optimizers: tuple[str, ...]
    left_out: tuple[str, ...]
    """Backbones and optimizers without a curve in some cell."""
    ranks: Mapping[str, tuple[Estimate, ...]]
    """Mean ranks by optimizer, one for each of `SIZES`."""
    first: Mapping[str, tuple[float, ...]]
    """Probability of the best mean rank, likewise."""
    crossings: tuple[Crossing, ...]
    decades: Mapping[str, tuple[float, float]]
    """Width of each optimizer's search space along lr and weight decay."""


def budget_ranks(curves: Curves, rng: np.random.Generator) -> BudgetRanks | Refused:
    """Rank the optimizers at each number of trials.

    If a cell has no curve its backbone or its optimizer is left out, whichever leaves more cells.
    """
    names = [list(dict.fromkeys(key[axis] for key in curves)) for axis in (0, 1)]
    known = np.array([[isinstance(curves.get((b, o)), TuningCurve) for o in names[1]] for b in names[0]])
    rows, columns = drawn.complete_part(known) if known.size else (np.empty(0, int), np.empty(0, int))
    backbones, optimizers = ([axis[i] for i in kept] for axis, kept in zip(names, (rows, columns), strict=True))
    if len(backbones) < 1 or len(optimizers) < 2:
        detail = f"{len(backbones)} backbones x {len(optimizers)} optimizers have a tuning curve, 1 x 2 are needed"
        return Refused(reason=Reason.INCOMPLETE_MATRIX, detail=detail)
    table = [[_curve(curves, b, o) for o in optimizers] for b in backbones]
    domains = [{curve.domain for curve in column} for column in zip(*table, strict=True)]
    if differing := [name for name, found in zip(optimizers, domains, strict=True) if len(found) > 1]:
        detail = f"searched over a different range on some backbones: {', '.join(differing)}"
        return Refused(reason=Reason.PRIOR_MISMATCH, detail=detail)
    left_out = sorted({*names[0], *names[1]} - {*backbones, *optimizers})
    return _ranked(table, backbones, optimizers, tuple(left_out), rng)


def _curve(curves: Curves, backbone: str, optimizer: str) -> TuningCurve:
    curve = curves[backbone, optimizer]
    assert isinstance(curve, TuningCurve)
    return curve


def _ranked(
    table: list[list[TuningCurve]],
    backbones: list[str],
    optimizers: list[str],
    left_out: tuple[str, ...],
    rng: np.random.Generator,
) -> BudgetRanks:
    point = np.array([[curve.deployed[0] for curve in row] for row in table])
    draws = np.array([[curve.deployed[1:, np.array(SIZES) - 1] for curve in row] for row in table])
    ranks = rankdata(-point, axis=1).mean(axis=0)
    replicates = _replicates(np.moveaxis(draws, 2, 0), rng)
    best = replicates == replicates.min(axis=1, keepdims=True)
    first = (best / best.sum(axis=1, keepdims=True)).mean(axis=0)
    counts = drawn.add_counts([curve.counts for row in table for curve in row])
    method = f"mean rank over {len(backbones)} backbones, bootstrap over backbones and draws"
    return BudgetRanks(
        backbones=tuple(backbones),
        optimizers=tuple(optimizers),
        left_out=left_out,
        ranks={
            name: tuple(
                drawn.estimate(ranks[o, n - 1], replicates[:, o, s], unit="rank", counts=counts, method=method)
                for s, n in enumerate(SIZES)
            )
            for o, name in enumerate(optimizers)
        },
        first={name: tuple(float(p) for p in first[o]) for o, name in enumerate(optimizers)},
        crossings=_crossings(ranks, optimizers),
        decades={
            name: (float(np.ptp(curve.domain.lr)), float(np.ptp(curve.domain.decay_ends)))
            for name, curve in zip(optimizers, table[0], strict=True)
        },
    )


def _replicates(draws: Array, rng: np.random.Generator) -> Array:
    """Compute mean ranks [replicates, optimizers, sizes] from draws [draws, backbones, optimizers, sizes]."""
    ranks = rankdata(-drawn.pick_draws(draws, rng), axis=2)
    weights = drawn.resampled_backbones(draws.shape[1], rng) / draws.shape[1]
    mean: Array = np.einsum("rb,rbos->ros", weights, ranks)
    return mean


def _crossings(ranks: Array, optimizers: list[str]) -> tuple[Crossing, ...]:
    """Find where each pair of optimizers first changes places, from ranks [optimizers, trials]."""
    order = np.argsort(ranks[:, 0], kind="stable")
    pairs = [(a, b) for place, a in enumerate(order) for b in order[place + 1 :]]
    found = [(a, b, np.flatnonzero(ranks[b] < ranks[a])) for a, b in pairs]
    return tuple(
        Crossing(ahead=optimizers[a], behind=optimizers[b], trials=int(where[0]) + 1)
        for a, b, where in found
        if len(where)
    )
