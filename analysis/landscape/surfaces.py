"""Draws of a surface over the whole grid: as they are, or kept as the little they are made from."""

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
from bocb_tune.analysis.landscape.surface import Box, Grid

COARSE_LR, COARSE_DECAY = 17, 11
"""Nodes at which the process is drawn; cubic splines take the draws to the full grid."""
STEPS_LR, STEPS_DECAY = 41, 26
"""Nodes at which trees are read off: every other one of the full grid, straight lines between them."""


class Surfaces(Protocol):
    """Draws of the expected score e over the nodes of a grid."""

    def whole(self) -> Array:
        """All of them [draws, lr, decay]."""

    def at(self, row: Index, column: Index) -> Array:
        """At some nodes [draws, *nodes], given their indices along lr and along decay [*nodes]."""


@dataclass(frozen=True, kw_only=True)
class Known:
    """Surfaces as they are."""

    values: Array
    """[draws, lr, decay]"""

    def whole(self) -> Array:
        return self.values

    def at(self, row: Index, column: Index) -> Array:
        return self.values[:, row, column]


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """Draws known at fewer nodes, straight lines between them."""

    box: Box
    values: Array
    """[draws, few lr, few decay]"""

    def whole(self) -> Array:
        along_lr, along_decay = _lines(self.box)
        return np.asarray(along_lr @ (self.values @ along_decay.T), np.float32)

    def at(self, row: Index, column: Index) -> Array:
        along_lr, along_decay = _lines(self.box)
        return np.asarray(
            np.einsum("...i,dij,...j->d...", along_lr[row], self.values, along_decay[column], optimize=True)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixture:
    """Draws of several models, one model's after the other's."""

    parts: tuple[Drawn | Steps, ...]

    def whole(self) -> Array:
        return np.concatenate([part.whole() for part in self.parts])

    def at(self, row: Index, column: Index) -> Array:
        return np.concatenate([part.at(row, column) for part in self.parts])


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """What surfaces are drawn from: a twentieth of their size, and the same surfaces whenever they are asked for."""

    box: Box
    scale: Scale
    process: Array
    """Draws of the process on the coarse grid [draws, lr, decay], in the terms of `Scale.forward`."""
    noise: float
    """sd of a trial about the process, in the same terms: the expected score is a mean over it."""
    place: Array
    """Draws of the line of divergence: its place [draws] (see `divergence.py`)."""
    log_steepness: Array
    """[draws]"""
    lean: Array
    """[draws]"""

    def whole(self) -> Array:
        return self.expected(*self.parts()).astype(np.float32)

    def at(self, row: Index, column: Index) -> Array:
        grid = Grid(box=self.box)
        along_lr, along_decay = (along.astype(np.float32) for along in _splines(self.box))
        nodes, back = np.unique(np.ravel_multi_index((row, column), grid.shape), return_inverse=True)
        rows, columns = np.divmod(nodes, len(along_decay))
        weights = np.einsum("ni,nj->nij", along_lr[rows], along_decay[columns])
        values = self.process.reshape(len(self.process), -1) @ weights.reshape(len(nodes), -1).T
        p = self._diverging(grid.u[rows], leaning(grid)[columns])
        expected: Array = self.expected(self.scale.expected(values, self.noise), p)
        return expected[:, back].reshape(len(expected), *np.shape(row))

    def parts(self) -> tuple[Array, Array]:
        """Expected score of a run that does not diverge, and probability of diverging, each [draws, lr, decay]."""
        grid = Grid(box=self.box)
        along_lr, along_decay = _splines(self.box)
        values = along_lr @ (self.process @ along_decay.T)
        return self.scale.expected(values, self.noise), self._diverging(grid.u[:, None], leaning(grid))

    def expected(self, score: Array, p: Array) -> Array:
        """e of such parts."""
        return score + p * (self.scale.floor - score)

    def _diverging(self, u: Array, d: Array) -> Array:
        """Probability [draws, *nodes]."""
        shape = (-1, *(1 for _ in np.broadcast_shapes(u.shape, d.shape)))
        line = (part.reshape(shape) for part in (self.place, self.log_steepness, self.lean))
        return probability(u, d, *line)


def coarse(box: Box) -> Grid:
    """The grid on which a process is drawn."""
    return Grid(box=box, num_lr=COARSE_LR, num_decay=COARSE_DECAY)


def leaning(grid: Grid) -> Array:
    """Weight decays as the line of divergence takes them: -1 to 1 over the box [decay]."""
    return np.asarray(np.clip(2 * grid.box.scaled(np.zeros_like(grid.v), grid.v)[:, 1] - 1, -1, 1))


def stepped(box: Box) -> Grid:
    """The grid on which trees are read off."""
    return Grid(box=box, num_lr=STEPS_LR, num_decay=STEPS_DECAY)


@lru_cache
def _splines(box: Box) -> tuple[Array, Array]:
    """Cubic splines from the coarse to the full grid, weight decay 0 apart: [lr, coarse lr], [decay, coarse decay]."""
    return _between(coarse(box), 3)


@lru_cache
def _lines(box: Box) -> tuple[Array, Array]:
    """Straight lines from the grid of the trees to the full one, as `_splines`."""
    few = stepped(box)
    return tuple(each.astype(np.float32) for each in _between(few, 1))  # type: ignore[return-value]


def _between(few: Grid, degree: int) -> tuple[Array, Array]:
    grid = Grid(box=few.box)
    along_lr = make_interp_spline(few.u, np.eye(few.num_lr), k=degree)(grid.u)
    if grid.num_decay == 1:
        return along_lr, np.ones((1, 1))
    inside = make_interp_spline(few.v[: few.num_decay], np.eye(few.num_decay), k=degree)(grid.v[: grid.num_decay])
    return along_lr, block_diag(inside, np.ones((1, 1))) if grid.has_zero else inside
