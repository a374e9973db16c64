"""Intervals of means and of differences of means, from Student's t."""

from __future__ import annotations

import math

import numpy as np
from scipy.stats import t as student

from bocb_tune.analysis.core.arrays import Array
from bocb_tune.analysis.core.estimate import LEVEL


def mean_interval(values: Array) -> tuple[float, float]:
    """Compute the interval of the mean of two or more independent values [values]."""
    value, se = float(np.mean(values)), float(np.std(values, ddof=1)) / math.sqrt(len(values))
    half = float(student.ppf(0.5 + LEVEL / 2, len(values) - 1)) * se
    return value - half, value + half


def welch_interval(difference: float, sds: tuple[float, float], counts: tuple[int, int]) -> tuple[float, float]:
    """Compute the interval of a difference of two means, whose variances may differ (Welch, Biometrika 1947).

    Args:
        difference: of the means.
        sds: standard deviations of the two sets of values.
        counts: numbers of values, two or more each.
    """
    parts = [sd**2 / count for sd, count in zip(sds, counts, strict=True)]
    variance = sum(parts)
    if variance == 0:
        return difference, difference
    df = variance**2 / sum(part**2 / (count - 1) for part, count in zip(parts, counts, strict=True))
    half = float(student.ppf(0.5 + LEVEL / 2, df)) * math.sqrt(variance)
    return difference - half, difference + half
