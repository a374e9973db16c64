"""Differences between trials at one setting, from residuals of trials nearby: noise may vary over the search space."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bocb_tune.analysis.core.arrays import Array, Index

NEIGHBOURS = 8
NORMAL_MEDIAN = 0.6745
"""Median distance of a normal variable from its mean, in standard deviations."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Residuals:
    """Differences between the scores of trials at the full budget and the expected scores there."""

    x: Array
    """[trials, dimensions], settings scaled to [0, 1] over the search space."""
    value: Array
    """[trials], in the unit of the score, with the uncertainty of the model itself taken off."""

    def near(self, nodes: Array) -> Array:
        """Select the residuals of the trials nearest to each node [nodes, neighbours]."""
        return np.asarray(self.value[nearest(nodes, self.x)])

    def sd(self, node: Array) -> float:
        """Estimate the standard deviation at a node [dimensions] by the median, which one failure does not move."""
        return float(np.median(np.abs(self.near(node[None])))) / NORMAL_MEDIAN


def nearest(nodes: Array, x: Array) -> Index:
    """Find the settings x [settings, dimensions] nearest to each node: their indices [nodes, neighbours]."""
    distance = ((nodes[:, None, :] - x[None]) ** 2).sum(axis=-1)
    count = min(NEIGHBOURS, len(x))
    found: Index = np.argpartition(distance, count - 1, axis=1)[:, :count]
    return found
