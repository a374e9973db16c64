"""Rank correlation of the patterns in the trained weights with what is known of the cells they come from.

An optimizer is the unit of inference: what it does to the weights of one backbone it does to those of others, so that
cells of one optimizer are no independent observations.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import permutations, product

import numpy as np
from scipy.stats import rankdata
from scipy.stats import t as student

from bocb_tune.analysis.core.arrays import Array
from bocb_tune.analysis.core.estimate import LEVEL, Counts, Estimate, Reason
from bocb_tune.analysis.core.multiple import holm

FEWEST_OPTIMIZERS = 6
"""Least number of optimizers: of five, even full agreement, 2 of 120 orders, is not rare enough among a dozen tests."""
MOST_EXACT = 7
"""Most optimizers of which all orders are tried; of more, `DRAWN` random ones."""
DRAWN = 9_999
TINY = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Association:
    """One pattern against one measure of the cells."""

    pattern: str
    measure: str
    rho: Estimate
    """Rank correlation within backbones, in [-1, 1]."""
    p: float | None = None
    """Two-sided, by exchanging optimizers, of all backbones alike."""
    p_holm: float | None = None
    """The same, corrected for all pairs of pattern and measure."""


def associations(
    patterns: Mapping[str, Array], measures: Mapping[str, Array], rng: np.random.Generator
) -> tuple[Association, ...]:
    """Measure the correlation of every pattern with every measure of the cells.

    Args:
        patterns, measures: each [backbones, optimizers], NaN where unknown.
    """
    found = [
        _association(pattern, measure, x, y, rng)
        for (pattern, x), (measure, y) in product(patterns.items(), measures.items())
    ]
    corrected = holm([each.p for each in found])
    return tuple(replace(each, p_holm=p) for each, p in zip(found, corrected, strict=True))


def _association(pattern: str, measure: str, x: Array, y: Array, rng: np.random.Generator) -> Association:
    both = np.isfinite(x) & np.isfinite(y)
    columns = np.flatnonzero(both.any(axis=0))
    counts = Counts(n_trials=int(both.sum()))
    if len(columns) < FEWEST_OPTIMIZERS:
        refused = Estimate(value=None, counts=counts, reason=Reason.TOO_FEW_OPTIMIZERS)
        return Association(pattern=pattern, measure=measure, rho=refused)
    x, y = (np.where(both, each, np.nan)[:, columns] for each in (x, y))
    value = correlation(x, y)
    if math.isnan(value):
        refused = Estimate(value=None, counts=counts, reason=Reason.DEGENERATE_VARIANCE)
        return Association(pattern=pattern, measure=measure, rho=refused)
    lo, hi = _interval(x, y, value)
    method = f"within backbones; jackknife over {len(columns)} optimizers"
    rho = Estimate(value=value, lo=lo, hi=hi, counts=counts, method=method)
    return Association(pattern=pattern, measure=measure, rho=rho, p=_p_value(x, y, value, rng))


def correlation(x: Array, y: Array) -> float:
    """Compute Spearman's correlation within backbones, pooled over them; NaN if nothing varies.

    Args:
        x, y: [backbones, optimizers], NaN where unknown, in the same cells.
    """
    return float(_pooled(_centred_ranks(x), _centred_ranks(y)[None])[0])


def _centred_ranks(values: Array) -> Array:
    """Rank the known values of each row and take the mean of the ranks off; NaN where unknown."""
    ranks = rankdata(values, axis=1, nan_policy="omit")
    counts = np.isfinite(values).sum(axis=1, keepdims=True)
    return np.where(np.isfinite(values), ranks - (counts + 1) / 2, np.nan)


def _pooled(x: Array, several: Array) -> Array:
    """Compute the correlations of centred ranks [backbones, optimizers] with others [n, backbones, optimizers]."""
    known = np.isfinite(x) & np.isfinite(several)
    x, several = np.where(known, x, 0.0), np.where(known, several, 0.0)
    scale: Array = np.sqrt((x**2).sum(axis=(1, 2)) * (several**2).sum(axis=(1, 2)))
    return np.where(scale > 0, (x * several).sum(axis=(1, 2)) / np.where(scale > 0, scale, 1.0), np.nan)


def _interval(x: Array, y: Array, value: float) -> tuple[float, float]:
    """Compute Tukey's jackknife interval over optimizers of Fisher's z, in terms of the correlation."""
    count = x.shape[1]
    without = [correlation(np.delete(x, column, axis=1), np.delete(y, column, axis=1)) for column in range(count)]
    whole, parts = _fisher(value), np.array([_fisher(each) for each in without if not math.isnan(each)])
    pseudo = count * whole - (count - 1) * parts
    half = float(student.ppf(0.5 + LEVEL / 2, len(parts) - 1)) * float(pseudo.std(ddof=1)) / math.sqrt(len(parts))
    return math.tanh(whole - half), math.tanh(whole + half)


def _fisher(value: float) -> float:
    return math.atanh(max(-1 + TINY, min(1 - TINY, value)))


def _p_value(x: Array, y: Array, value: float, rng: np.random.Generator) -> float:
    """Return the share of the orders of the optimizers, of all backbones at once, that correlate as much."""
    count = x.shape[1]
    is_exact = count <= MOST_EXACT
    orders = permutations(range(count)) if is_exact else (rng.permutation(count) for _ in range(DRAWN))
    ranks = _centred_ranks(x), _centred_ranks(y)[:, np.array(list(orders))].swapaxes(0, 1)
    as_far = int(np.sum(np.abs(_pooled(*ranks)) >= abs(value) - TINY))
    return as_far / math.factorial(count) if is_exact else (1 + as_far) / (DRAWN + 1)
