"""Draws of a surface over the whole grid: stored as they are, or as the much smaller arrays they are computed from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
from scipy.interpolate import make_interp_spline
from scipy.linalg import block_diag

from bocb_tune.analysis.core.arrays import Array, Index
from bocb_tune.analysis.landscape.divergence import probability
from bocb_tune.analysis.landscape.scale import Scale
from bocb_tune.analysis.landscape.surface import Domain, SettingGrid

COARSE_LR, COARSE_DECAY = 17, 11
"""Nodes at which the process is drawn; cubic splines interpolate the draws to the full grid."""
STEPS_LR, STEPS_DECAY = 41, 26
"""Nodes at which trees are evaluated: every other one of the full grid, interpolated linearly."""


class SurfaceDraws(Protocol):
    """Draws of the expected score e over the nodes of a grid."""

    def whole(self) -> Array:
        """Compute all draws [draws, lr, decay]."""

    def at(self, row: Index, column: Index) -> Array:
        """Compute the draws at some nodes [draws, *nodes], given their indices along lr and along decay [*nodes]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CoarseDraws:
    """Draws on a coarser grid, interpolated linearly."""

    domain: Domain
    values: Array
    """[draws, few lr, few decay]"""

    def whole(self) -> Array:
        along_lr, along_decay = _lines(self.domain)
        return np.asarray(along_lr @ (self.values @ along_decay.T), np.float32)

    def at(self, row: Index, column: Index) -> Array:
        along_lr, along_decay = _lines(self.domain)
        columns, back = np.unique(column, return_inverse=True)
        lines = along_lr @ (self.values @ along_decay[columns].T)
        return np.asarray(lines[:, row, back.reshape(np.shape(column))], np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedDraws:
    """Draws of several models, one model after the other."""

    parts: tuple[ProcessDraws | CoarseDraws, ...]

    def whole(self) -> Array:
        return np.concatenate([part.whole() for part in self.parts])

    def at(self, row: Index, column: Index) -> Array:
        return np.concatenate([part.at(row, column) for part in self.parts])


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessDraws:
    """Draws of the process and the boundary, from which surfaces are computed: a twentieth of their size."""

    domain: Domain
    scale: Scale
    process: Array
    """Draws of the process on the coarse grid [draws, lr, decay], on the scale of `Scale.forward`."""
    noise: float
    """sd of a trial about the process, on the same scale; the expected score averages over it."""
    place: Array
    """Draws of the boundary of divergence: its place [draws] (see `divergence.py`)."""
    log_steepness: Array
    """[draws]"""
    lean: Array
    """[draws]"""

    def whole(self) -> Array:
        return self.expected(*self.parts()).astype(np.float32)

    def at(self, row: Index, column: Index) -> Array:
        grid = SettingGrid(domain=self.domain)
        along_lr, along_decay = (along.astype(np.float32) for along in _splines(self.domain))
        nodes, back = np.unique(np.ravel_multi_index((row, column), grid.shape), return_inverse=True)
        rows, columns = np.divmod(nodes, len(along_decay))
        weights = np.einsum("ni,nj->nij", along_lr[rows], along_decay[columns])
        values = self.process.reshape(len(self.process), -1) @ weights.reshape(len(nodes), -1).T
        p = self._diverging(grid.u[rows], leaning(grid)[columns])
        expected: Array = self.expected(self.scale.expected(values, self.noise), p)
        return expected[:, back].reshape(len(expected), *np.shape(row))

    def parts(self) -> tuple[Array, Array]:
        """Compute the score of a run that does not diverge and the probability of diverging [draws, lr, decay]."""
        grid = SettingGrid(domain=self.domain)
        along_lr, along_decay = _splines(self.domain)
        values = along_lr @ (self.process @ along_decay.T)
        return self.scale.expected(values, self.noise), self._diverging(grid.u[:, None], leaning(grid))

    def expected(self, score: Array, p: Array) -> Array:
        """Combine such parts to the expected score e."""
        return score + p * (self.scale.floor - score)

    def _diverging(self, u: Array, d: Array) -> Array:
        """Compute the probability of diverging [draws, *nodes]."""
        shape = (-1, *(1 for _ in np.broadcast_shapes(u.shape, d.shape)))
        line = (part.reshape(shape) for part in (self.place, self.log_steepness, self.lean))
        return probability(u, d, *line)


def coarse(domain: Domain) -> SettingGrid:
    """Build the grid on which a process is drawn."""
    return SettingGrid(domain=domain, num_lr=COARSE_LR, num_decay=COARSE_DECAY)


def leaning(grid: SettingGrid) -> Array:
    """Scale weight decays for the boundary of divergence: -1 to 1 over the search space [decay]."""
    return np.asarray(np.clip(2 * grid.domain.scaled(np.zeros_like(grid.v), grid.v)[:, 1] - 1, -1, 1))


def stepped(domain: Domain) -> SettingGrid:
    """Build the grid on which trees are evaluated."""
    return SettingGrid(domain=domain, num_lr=STEPS_LR, num_decay=STEPS_DECAY)


@lru_cache
def _splines(domain: Domain) -> tuple[Array, Array]:
    """Build cubic splines from the coarse to the full grid, weight decay 0 apart: [lr, coarse], [decay, coarse]."""
    return _between(coarse(domain), 3)


@lru_cache
def _lines(domain: Domain) -> tuple[Array, Array]:
    """Build linear interpolation from the grid of the trees to the full one, in the form of `_splines`."""
    few = stepped(domain)
    return tuple(each.astype(np.float32) for each in _between(few, 1))  # type: ignore[return-value]


def _between(few: SettingGrid, degree: int) -> tuple[Array, Array]:
    grid = SettingGrid(domain=few.domain)
    along_lr = make_interp_spline(few.u, np.eye(few.num_lr), k=degree)(grid.u)
    if grid.num_decay == 1:
        return along_lr, np.ones((1, 1))
    inside = make_interp_spline(few.v[: few.num_decay], np.eye(few.num_decay), k=degree)(grid.v[: grid.num_decay])
    return along_lr, block_diag(inside, np.ones((1, 1))) if grid.has_zero else inside
