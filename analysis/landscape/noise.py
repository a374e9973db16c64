"""By how much trials at one setting differ: residuals of trials nearby, so that it may vary over the search space."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bocb_tune.analysis.core.arrays import Array, Index

NEIGHBOURS = 8
NORMAL_MEDIAN = 0.6745
"""Median distance of a normal variable from its mean, in standard deviations."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Residuals:
    """Differences between what trials scored at the full budget and what is expected there."""

    x: Array
    """[trials, dimensions], settings scaled to the box."""
    value: Array
    """[trials], in the unit of the score, what the model itself does not know taken off."""

    def near(self, nodes: Array) -> Array:
        """Residuals of the trials nearest to each node [nodes, neighbours]."""
        return np.asarray(self.value[nearest(nodes, self.x)])

    def sd(self, node: Array) -> float:
        """Standard deviation at a node [dimensions], from the median, which a failure nearby does not move."""
        return float(np.median(np.abs(self.near(node[None])))) / NORMAL_MEDIAN


def nearest(nodes: Array, x: Array) -> Index:
    """Places of the settings x [settings, dimensions] that are nearest to each node [nodes, neighbours]."""
    distance = ((nodes[:, None, :] - x[None]) ** 2).sum(axis=-1)
    count = min(NEIGHBOURS, len(x))
    found: Index = np.argpartition(distance, count - 1, axis=1)[:, :count]
    return found
