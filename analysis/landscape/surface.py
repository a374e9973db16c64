"""A score over learning rate and weight decay: the grid it is known on, and the quantities derived from it.

Notation: u = log10 lr, v = log10 weight decay; a surface is an array [..., lr, decay] on a `SettingGrid`, larger is
better. Where weight decay 0 is a choice it is the last entry of the decay axis. Every share is a measure under pi, the
distribution that trials are drawn from: u and v uniform over the search space, weight decay 0 with its own mass.
Functions take one surface or a stack of them (draws first) and return one result for each.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from bocb_tune.analysis.core.arrays import Array, Index
from bocb_tune.core.space import Dim


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """The search space of a cell, in log10 units."""

    lr: tuple[float, float]
    weight_decay: tuple[float, float] | None
    """Range of weight decay; None where it was not varied, so that the landscape is a line over the learning rate."""
    zero_mass: float = 0.0
    """Probability that a trial is drawn with weight decay 0."""

    @classmethod
    def of(cls, lr: Dim, weight_decay: Dim | None) -> Domain:
        """Build it from two dimensions of a search space, or from one."""
        along = _log_ends(lr)
        if weight_decay is None:
            return cls(lr=along, weight_decay=None)
        return cls(lr=along, weight_decay=_log_ends(weight_decay), zero_mass=weight_decay.zero_mass)

    @property
    def decay_ends(self) -> tuple[float, float]:
        """Ends of the axis of weight decay; meaningless where it was not varied."""
        return self.weight_decay or (-0.5, 0.5)

    @property
    def zero_at(self) -> float:
        """Position of weight decay 0 on the log axis: one decade below the range."""
        return self.decay_ends[0] - 1

    def log_decay(self, weight_decay: Array) -> Array:
        """Convert weight decays to positions on the log axis, 0 to its position below the range."""
        if self.weight_decay is None:
            return np.zeros(len(weight_decay))
        zero = weight_decay == 0
        return np.where(zero, self.zero_at, np.log10(np.where(zero, 1.0, weight_decay)))

    def is_zero(self, weight_decay: Array) -> Array:
        """Mark weight decay 0 by 1, where 0 is a choice with a position of its own; all others by 0."""
        return np.asarray((weight_decay == 0) & (self.zero_mass > 0), float)

    def scaled(self, u: Array, v: Array) -> Array:
        """Scale points to [0, 1] over the search space [points, 2]."""
        pairs = ((u, self.lr), (v, self.decay_ends))
        return np.column_stack([(values - low) / (high - low) for values, (low, high) in pairs])


@dataclass(frozen=True, kw_only=True)
class SettingGrid:
    """The nodes of a surface."""

    domain: Domain
    num_lr: int = 81
    num_decay: int = 51
    """Positive weight decays; there is one entry more where 0 is a choice."""

    def __post_init__(self) -> None:
        if self.domain.weight_decay is None:
            object.__setattr__(self, "num_decay", 1)

    @cached_property
    def u(self) -> Array:
        """[lr]"""
        return np.linspace(*self.domain.lr, self.num_lr)

    @cached_property
    def v(self) -> Array:
        """[decay], weight decay 0 at its position below the range."""
        inside = np.linspace(*self.domain.decay_ends, self.num_decay) if self.num_decay > 1 else np.zeros(1)
        return np.append(inside, self.domain.zero_at) if self.has_zero else inside

    @property
    def has_zero(self) -> bool:
        return self.domain.zero_mass > 0

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.u), len(self.v)

    @cached_property
    def decay_weights(self) -> Array:
        """pi over the decay axis, summing to 1."""
        inside = _trapezoid(self.num_decay) * (1 - self.domain.zero_mass)
        return np.append(inside, self.domain.zero_mass) if self.has_zero else inside

    @cached_property
    def weights(self) -> Array:
        """pi over the nodes [lr, decay], summing to 1."""
        return np.outer(_trapezoid(self.num_lr), self.decay_weights)

    def nearest(self, x: Array, zero: Array) -> tuple[Index, Index]:
        """Find the node nearest to each setting: its indices along lr and along decay.

        Args:
            x: settings scaled to [0, 1] over the search space [settings, 2].
            zero: 1 where weight decay is zero [settings].
        """
        row = np.rint(np.clip(x[:, 0], 0, 1) * (self.num_lr - 1)).astype(int)
        column = np.rint(np.clip(x[:, 1], 0, 1) * (self.num_decay - 1)).astype(int)
        return row, np.where((zero > 0) & self.has_zero, self.num_decay, column)

    def nodes(self) -> tuple[Array, Array]:
        """List scaled coordinates [nodes, 2] and whether weight decay is zero [nodes], in the order of `ravel`."""
        u, v = (axis.ravel() for axis in np.meshgrid(self.u, self.v, indexing="ij"))
        is_zero = np.zeros(self.shape)
        if self.has_zero:
            is_zero[:, -1] = 1
        return self.domain.scaled(u, v), is_zero.ravel()


def _log_ends(dim: Dim) -> tuple[float, float]:
    return float(np.log10(dim.low)), float(np.log10(dim.high))


def _trapezoid(count: int) -> Array:
    weights = np.ones(count)
    weights[[0, -1]] = 0.5
    return np.asarray(weights / weights.sum())


def argmax(values: Array) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Find the largest node of each surface: its indices along lr and along decay, each [...]."""
    flat = values.reshape(*values.shape[:-2], -1).argmax(axis=-1)
    row, column = np.divmod(flat, values.shape[-1])
    return row, column


def best(values: Array) -> Array:
    """Find the largest value of each surface [...]."""
    return np.asarray(values.max(axis=(-2, -1)))


def mean(values: Array, grid: SettingGrid) -> Array:
    """Compute the expectation under pi [...]."""
    expected: Array = np.einsum("...ij,ij->...", values, grid.weights)
    return expected


def near_optimal_volume(values: Array, grid: SettingGrid, epsilon: float, best_on: Array | None = None) -> Array:
    """Compute the share of the search space within epsilon of the best [...].

    Args:
        best_on: a surface whose best point counts as the best of all, since the largest value of a draw is biased
            upwards.
            Each surface's own best by default.
    """
    top = best(values) if best_on is None else np.asarray(values[(..., *argmax(best_on))])
    near = values >= (top - epsilon)[..., None, None]
    return mean(near.astype(float), grid)


def prior_mean_regret(values: Array, grid: SettingGrid) -> Array:
    """Compute the loss of a random setting against the best one [...]."""
    return best(values) - mean(values, grid)


def lr_slice(values: Array, best_on: Array) -> Array:
    """Take the score over lr at the weight decay that is best on `best_on`, which may be another surface [..., lr]."""
    _, column = argmax(best_on)
    return np.asarray(values[..., int(column)])


def lr_profile(values: Array) -> Array:
    """Take the score over lr at the best weight decay for each lr [..., lr]."""
    profile: Array = values.max(axis=-1)
    return profile


def decay_slice(values: Array, best_on: Array, grid: SettingGrid) -> Array:
    """Take the score over positive weight decay at the lr that is best on `best_on` [..., decay]."""
    row, _ = argmax(best_on[:, : grid.num_decay])
    return np.asarray(values[..., int(row), : grid.num_decay])


def decay_profile(values: Array, grid: SettingGrid) -> Array:
    """Take the score over positive weight decay at the best lr for each weight decay [..., decay]."""
    profile: Array = values[..., : grid.num_decay].max(axis=-2)
    return profile


def usable_decades(line: Array, axis: Array, epsilon: float) -> tuple[Array, NDArray[np.bool_], NDArray[np.intp]]:
    """Measure the stretch around the best of a line [..., nodes] that stays within epsilon of it.

    Crossings are interpolated between nodes.

    Returns:
        Decades [...]; whether the stretch reaches an end of the axis, so that it may continue beyond; and the number
            of
        stretches in all, the others not counted in the length.
    """
    level = line.max(axis=-1, keepdims=True) - epsilon
    inside = line >= level
    top = line.argmax(axis=-1)[..., None]
    place = np.arange(line.shape[-1])
    left = np.where(~inside & (place < top), place, -1).max(axis=-1)
    right = np.where(~inside & (place > top), place, len(axis)).min(axis=-1)
    start = _crossing(line, axis, left, np.minimum(left + 1, len(axis) - 1), level[..., 0])
    end = _crossing(line, axis, right, np.maximum(right - 1, 0), level[..., 0])
    stretches = np.sum(inside[..., 1:] & ~inside[..., :-1], axis=-1) + inside[..., 0]
    return end - start, (left < 0) | (right == len(axis)), stretches


def _crossing(line: Array, axis: Array, out: NDArray[np.intp], within: NDArray[np.intp], level: Array) -> Array:
    """Locate the crossing of the level between a node below and its neighbour above, or else the end of the axis."""
    beyond = (out < 0) | (out == len(axis))
    node = np.where(beyond, within, out)
    low, high = (np.take_along_axis(line, each[..., None], axis=-1)[..., 0] for each in (node, within))
    rise = np.where(beyond, 1.0, high - low)
    share = np.where(beyond, 0.0, (level - low) / rise)
    place: Array = axis[node] + share * (axis[within] - axis[node])
    return place


def line_sensitivity(line: Array, axis: Array, floor: float, window: tuple[float, float] | None = None) -> Array:
    """Compute the mean loss of a log-uniform value against the best of the line [...].

    Args:
        line: score [..., nodes] over `axis` [nodes].
        floor: score of a diverged run; nothing counts as worse.
        window: part of the axis that counts; all of it by default.
    """
    low, high = window or (axis[0], axis[-1])
    fine = np.linspace(max(low, axis[0]), min(high, axis[-1]), 401)
    flat = line.reshape(-1, line.shape[-1])
    values = np.array([np.interp(fine, axis, row) for row in flat]).reshape(*line.shape[:-1], len(fine))
    weights = _trapezoid(len(fine))
    return np.asarray(values.max(axis=-1) - np.maximum(values, floor) @ weights)


def variance_shares(
    values: Array, grid: SettingGrid, keep: NDArray[np.bool_] | None = None
) -> tuple[Array, Array, Array]:
    """Compute the variance of the score under pi, and its shares due to lr alone and to weight decay alone [...].

    The rest is their interaction. Exact on the grid (functional ANOVA).

    Args:
        keep: nodes [lr, decay] that count; pi is renormalised over them. If some are left out, the parts are those of
            the
            additive fit, so that shares stay within [0, 1].
    """
    if keep is not None:
        return _restricted_shares(values, grid, keep)
    by_lr = values @ grid.decay_weights
    by_decay = np.einsum("...ij,i->...j", values, _trapezoid(grid.num_lr))
    overall = mean(values, grid)
    total = mean(values**2, grid) - overall**2
    lr = (by_lr**2) @ _trapezoid(grid.num_lr) - overall**2
    decay = (by_decay**2) @ grid.decay_weights - overall**2
    safe = np.where(total > 0, total, 1.0)
    return total, lr / safe, decay / safe


def _restricted_shares(values: Array, grid: SettingGrid, keep: NDArray[np.bool_]) -> tuple[Array, Array, Array]:
    weights = np.where(keep, grid.weights, 0.0)
    weights = weights / weights.sum()
    centred = values - np.einsum("...ij,ij->...", values, weights)[..., None, None]
    total = np.einsum("...ij,ij->...", centred**2, weights)
    by_lr = _group_variance(centred, weights, axis=-1)
    by_decay = _group_variance(centred, weights, axis=-2)
    safe = np.where(total > 0, total, 1.0)
    return total, by_lr / safe, by_decay / safe


def _group_variance(centred: Array, weights: Array, axis: int) -> Array:
    """Compute the variance between the conditional means along an axis."""
    mass = weights.sum(axis=axis)
    sums = np.einsum("...ij,ij->...i" if axis == -1 else "...ij,ij->...j", centred, weights)
    return np.asarray(np.sum(sums**2 / np.where(mass > 0, mass, 1.0), axis=-1))
