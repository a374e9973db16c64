"""Exact tests over backbones, used wherever one optimizer is called better than another.

The only assumption is that, if optimizers are alike, exchanging their scores within a backbone changes nothing. A
claim is made at `CLAIM`, however few the backbones: with five, no comparison of two can reach it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache

import numpy as np

from bocb_tune.analysis.matrix.resample import SEED
from bocb_tune.analysis.matrix.twoway import Matrix

CLAIM = 0.025
"""Greatest probability of any false claim if all optimizers are alike."""
MAX_EXACT = 16
NUM_RANDOM = 20_000
ROUNDING = 1e-9


def sign_flip_p(differences: Matrix, rng: np.random.Generator) -> float:
    """Compute the probability of a sum as large if the sign of each backbone's difference [backbones] were random.

    One-sided. All sign patterns for up to 16 differences that are not 0, else 20,000 random ones and the observed one.
    """
    told = differences[np.abs(differences) > ROUNDING]
    count = len(told)
    if count == 0:
        return 1.0
    if count <= MAX_EXACT:
        signs = 1 - 2 * ((np.arange(2**count)[:, None] >> np.arange(count)) & 1)
    else:
        signs = np.vstack([np.ones((1, count), int), 1 - 2 * rng.integers(0, 2, (NUM_RANDOM, count))])
    return float(np.mean(signs @ told >= told.sum() - ROUNDING))


def step_down(p: Mapping[str, float]) -> dict[str, float]:
    """Adjust p-values for there being several (Holm, Scandinavian Journal of Statistics 1979)."""
    adjusted, reached = {}, 0.0
    for place, name in enumerate(sorted(p, key=p.__getitem__)):
        reached = max(reached, min(1.0, p[name] * (len(p) - place)))
        adjusted[name] = reached
    return {name: adjusted[name] for name in p}


def backbones_needed(comparisons: int = 1) -> int:
    """Compute the fewest backbones that allow a claim from so many comparisons: all signs must be equal."""
    return math.ceil(math.log2(comparisons / CLAIM))


@cache
def rank_gap(num_backbones: int, num_optimizers: int) -> float:
    """Compute the difference of mean ranks above which any two optimizers differ significantly.

    The largest difference between any two stays at or below it with probability 1 - `CLAIM` if all orders of the
    optimizers are equally likely on every backbone; by 20,000 random sets of orders. Exact where Nemenyi's test is
    asymptotic.
    """
    rng = np.random.default_rng(SEED)
    orders = rng.random((NUM_RANDOM, num_backbones, num_optimizers)).argsort(axis=-1)
    return float(np.quantile(np.ptp(orders.mean(axis=1), axis=-1), 1 - CLAIM, method="higher"))
