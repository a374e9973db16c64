"""Ranking of optimizers as in Table 4 of arXiv:2410.06373, with the probability that each is first.

    overall = w_p rank of mean score + w_h rank of mean distance of settings + w_b mark + w_c rank of computation

Equal numbers share a rank and the next rank follows at once, as in the paper, but for the overall rank, which leaves
out as many. The mark is 1 for an optimizer that fails on at least one backbone by the rule of the grey marks; the
paper's marks agree with that for 18 of its 20 optimizers. A part that is not known is left out for all, and the
weights of the others share its weight.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from bocb_tune.analysis.bocb.choices import WEIGHTS
from bocb_tune.analysis.bocb.distance import Steps, resampled_mean
from bocb_tune.analysis.core import bootstrap as drawn
from bocb_tune.analysis.core.arrays import Array, Flags
from bocb_tune.analysis.core.bootstrap import Refused
from bocb_tune.analysis.core.estimate import Reason
from bocb_tune.analysis.matrix.twoway import Matrix

MIN_SHAPE = (3, 2)
"""Backbones with every optimizer, and optimizers."""
DIGITS = 1
"""Decimals of relative computation that count: nearer ones rank alike."""
ROUNDING = 9
"""Decimals of weighted ranks that count: the order of addition must not decide."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightedRanking:
    """Optimizers by several ranks and their weighted sum."""

    parts: Mapping[str, Array]
    """Ranks [optimizers], by name of the part; 0 or 1 for the mark."""
    weights: Mapping[str, float]
    """Weights used, summing to 1."""
    total: Array
    """Weighted sum [optimizers]; less is better."""
    overall: Array
    """Rank of it [optimizers], 1 is first."""
    p_first: Array
    """Share of bootstrap replicates over backbones in which it is first [optimizers]; equals share one."""
    backbones: int
    """Backbones that have every optimizer, on which the ranks rest."""
    left_out: tuple[str, ...]
    """Parts that are not known."""


def rank_optimizers(
    values: Matrix,
    failed: Flags,
    steps: Steps,
    computation: Array,
    weights: Sequence[float],
    rng: np.random.Generator,
) -> WeightedRanking | Refused:
    """Rank the optimizers of a grid.

    Args:
        values: [backbones, optimizers], points, NaN where missing.
        failed: by the rule of the grey marks [backbones, optimizers].
        steps: best settings as places.
        computation: relative, or published ranks [optimizers]; NaN where not known.
        weights: in the order of `WEIGHTS`.
    """
    whole = np.asarray(np.isfinite(values).all(axis=1))
    if values.shape[1] < MIN_SHAPE[1] or whole.sum() < MIN_SHAPE[0]:
        few = Reason.TOO_FEW_OPTIMIZERS if values.shape[1] < MIN_SHAPE[1] else Reason.TOO_FEW_BACKBONES
        detail = f"{int(whole.sum())} of {len(values)} backbones have a score with every optimizer; 3 are needed"
        return Refused(reason=few, detail=detail)
    count = int(whole.sum())
    resampled = drawn.resampled_backbones(count, rng)
    every = np.concatenate([np.ones((1, count)), resampled])  # the grid itself first
    found = {
        "performance": _dense(-(every @ values[whole]) / count),
        "settings": _setting_ranks(steps, whole, every),
        "coupling": (every @ failed[whole] > 0).astype(float),
        "computation": _computation_ranks(computation, len(every)),
    }
    parts = {name: each for name, each in found.items() if each is not None}
    used = _shares(dict(zip(WEIGHTS, weights, strict=True)), parts)
    if not used:
        return Refused(reason=Reason.NOT_MEASURED, detail="every part that has a weight is unknown")
    total = np.round(sum(used[name] * parts[name] for name in used), ROUNDING)
    first = total == total.min(axis=1, keepdims=True)
    return WeightedRanking(
        parts={name: each[0] for name, each in parts.items()},
        weights=used,
        total=total[0],
        overall=rankdata(total[0], method="min"),
        p_first=(first / first.sum(axis=1, keepdims=True))[1:].mean(axis=0),
        backbones=count,
        left_out=tuple(name for name in WEIGHTS if name not in used),
    )


def weighted_total(parts: Mapping[str, Array], weights: Mapping[str, float]) -> Array:
    """Add up ranks [optimizers], weighted."""
    return np.asarray(np.round(np.sum([weights[name] * parts[name] for name in weights], axis=0), ROUNDING))


def _shares(weights: Mapping[str, float], parts: Mapping[str, Array]) -> dict[str, float]:
    used = {name: weight for name, weight in weights.items() if name in parts and weight > 0}
    return {name: weight / sum(used.values()) for name, weight in used.items()}


def _dense(values: Array) -> Array:
    """Rank rows [replicates, optimizers], equal ones alike and without gaps, the least first."""
    return np.asarray(rankdata(np.round(values, ROUNDING), method="dense", axis=1), dtype=float)


def _setting_ranks(steps: Steps, whole: Flags, weights: Array) -> Array | None:
    """Rank by the mean distance over backbones whose settings are known [replicates, optimizers]; None without."""
    lr, decay = steps.lr[whole], steps.weight_decay[whole]
    known = np.asarray(np.isfinite(lr + decay).all(axis=1))
    kept = weights[:, known]
    if known.sum() < MIN_SHAPE[0] or not kept[0].any():
        return None
    kept = np.where(kept.any(axis=1, keepdims=True), kept, 1.0)
    means = [resampled_mean([lr[known, o], decay[known, o]], kept) for o in range(lr.shape[1])]
    return _dense(np.column_stack(means))


def _computation_ranks(computation: Array, replicates: int) -> Array | None:
    if not np.isfinite(computation).all():
        return None
    ranks = rankdata(np.round(computation, DIGITS), method="dense")
    return np.tile(ranks.astype(float), (replicates, 1))
