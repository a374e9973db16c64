"""Multiple comparisons with the best of several means.

Two-sided intervals of the differences by Student's t at .05 divided by the number of comparisons (Bonferroni; Hsu,
"Multiple Comparisons", 1996, chapter 4), degrees of freedom by Welch and Satterthwaite.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.stats import t as student

from bocb_tune.analysis.core.arrays import Array, Flags
from bocb_tune.analysis.core.estimate import LEVEL


def half_width(variance: float, df: float, comparisons: int = 1) -> float:
    """Compute half of the interval of a mean or a difference; `comparisons` is how many are made together."""
    return float(student.ppf(1 - (1 - LEVEL) / 2 / comparisons, df)) * math.sqrt(variance)


def satterthwaite(variances: Array, df: Array) -> float:
    """Compute the degrees of freedom of a sum of independent means with these variances."""
    whole = float(np.where(np.isfinite(df), variances**2 / df, 0.0).sum())
    return float(variances.sum() ** 2 / whole) if whole > 0 else math.inf


def worse_than_best(scores: Array, variances: Array, df: Array) -> Flags:
    """Find the means that are significantly below the best [means], leaving out those of unknown variance (NaN)."""
    known = np.isfinite(scores) & np.isfinite(variances)
    worse = np.zeros(len(scores), bool)
    if known.sum() < 2:
        return worse
    best = int(np.argmax(np.where(known, scores, -np.inf)))
    for place in np.flatnonzero(known):
        pair = np.array([best, place])
        half = half_width(float(variances[pair].sum()), satterthwaite(variances[pair], df[pair]), int(known.sum()) - 1)
        worse[place] = scores[best] - scores[place] > half
    return worse
