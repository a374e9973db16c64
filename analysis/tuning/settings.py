"""Settings of one optimizer on several backbones: the best on each, the best common one, and the score of any."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bocb_tune.analysis.core.arrays import Array, Index
from bocb_tune.analysis.core.bootstrap import Refused
from bocb_tune.analysis.core.estimate import Reason
from bocb_tune.analysis.landscape import surface
from bocb_tune.analysis.landscape.fit import Landscape
from bocb_tune.analysis.landscape.surface import SettingGrid

Cells = Mapping[str, Landscape]
"""Landscapes of one optimizer by backbone."""


class Setting(NamedTuple):
    """The tuned hyper-parameters."""

    lr: float
    weight_decay: float
    """Weight decay, of which 0 is a valid value; NaN where it was not varied."""


def best_setting(cell: Landscape) -> Setting:
    """Return the best node of the mean surface."""
    return at_node(cell.grid, *cell.best_node)


def common_default(cells: Cells, without: str = "") -> Setting:
    """Find the setting with the best mean over backbones, one of them possibly left out.

    All cells must have the same search space.
    """
    grid = next(iter(cells.values())).grid
    mean = np.mean([cell.mean for name, cell in cells.items() if name != without], axis=0)
    row, column = surface.argmax(mean)
    return at_node(grid, int(row), int(column))


def common_defaults(cells: Cells) -> dict[str, Setting]:
    """Return the best common setting for each backbone: in-sample, hence optimistic."""
    return dict.fromkeys(cells, common_default(cells))


def held_out_defaults(cells: Cells) -> dict[str, Setting]:
    """Find, for each backbone, the best common setting of the others."""
    return {name: common_default(cells, without=name) for name in cells}


def at_node(grid: SettingGrid, row: int, column: int) -> Setting:
    """Convert the indices of a node to a setting."""
    decay = 0.0 if column >= grid.num_decay else float(10 ** grid.v[column])
    decay = math.nan if grid.domain.weight_decay is None else decay
    return Setting(float(10 ** grid.u[row]), decay)


def score_at(values: Array, grid: SettingGrid, settings: list[Setting]) -> Array:
    """Interpolate surfaces [..., lr, decay] at some settings, bilinearly in the logs [..., settings].

    NaN outside the search space.
    """
    near = _Corners.of(grid, settings)
    return near.mean(values[..., near.row, near.column])


def draws_at(cell: Landscape, settings: list[Setting]) -> Array:
    """Interpolate expected scores at some settings [1 + draws, settings], the mean surface first.

    NaN outside the search space.
    """
    near = _Corners.of(cell.grid, settings)
    return near.mean(np.concatenate([cell.mean[near.row, near.column][None], cell.surfaces.at(near.row, near.column)]))


def without_common_ground(cells: Cells, least: int) -> Refused | None:
    """Say why cells cannot be compared setting by setting; None if they can."""
    if len(cells) < least:
        detail = f"{len(cells)} backbones have a landscape, {least} are needed"
        return Refused(reason=Reason.TOO_FEW_BACKBONES, detail=detail)
    if len({cell.grid.domain for cell in cells.values()}) > 1:
        return Refused(reason=Reason.PRIOR_MISMATCH, detail="the backbones were searched over different ranges")
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Corners:
    """The four nodes around each setting, and their weights."""

    row: Index
    """[4, settings]"""
    column: Index
    weight: Array
    """[4, settings], NaN outside the search space."""

    @classmethod
    def of(cls, grid: SettingGrid, settings: list[Setting]) -> _Corners:
        lr, decay = np.array(settings, dtype=float).T
        row, down, in_row = _between(np.log10(lr), grid.domain.lr, grid.num_lr)
        column, beside, right, in_column = _along_decay(grid, decay)
        weight = np.array([(1 - down) * (1 - right), (1 - down) * right, down * (1 - right), down * right])
        return cls(
            row=np.array([row, row, row + 1, row + 1]),
            column=np.array([column, beside, column, beside]),
            weight=np.where(in_row & in_column, weight, np.nan),
        )

    def mean(self, values: Array) -> Array:
        """Interpolate values at the nodes [..., 4, settings] to the settings [..., settings]."""
        return np.asarray((values * self.weight).sum(axis=-2))


def _along_decay(grid: SettingGrid, decay: Array) -> tuple[Index, Index, Array, NDArray[np.bool_]]:
    """Find the nodes beside each weight decay, its distance from the first in steps, and whether it lies in the range.

    Where weight decay was not varied, the only node stands for all.
    """
    if grid.domain.weight_decay is None:
        only = np.zeros(len(decay), np.intp)
        return only, only, np.zeros(len(decay)), np.ones(len(decay), bool)
    zero = decay == 0
    column, right, inside = _between(np.log10(np.where(zero, 1.0, decay)), grid.domain.decay_ends, grid.num_decay)
    column, right = np.where(zero, grid.shape[1] - 2, column), np.where(zero, 1.0, right)
    return column, column + 1, right, np.where(zero, grid.has_zero, inside)


def _between(x: Array, ends: tuple[float, float], num: int) -> tuple[NDArray[np.intp], Array, NDArray[np.bool_]]:
    """Find the node before each point, the distance to it in steps, and whether the point lies in the range."""
    step = (x - ends[0]) / (ends[1] - ends[0]) * (num - 1)
    inside = (step > -1e-9) & (step < num - 1 + 1e-9)
    step = np.clip(step, 0, num - 1)
    before = np.minimum(step.astype(np.intp), num - 2)
    return before, step - before, inside
