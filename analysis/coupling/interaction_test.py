"""Test of additivity: do cells deviate from it by more than seeds do, where noise differs by cell?

Each residual of the additive fit, weighted by the moderated variances, is a Student t with its own degrees of freedom
and is converted to the normal deviate of the same tail. Their sum of squares tests the matrix, the largest tests the
cells. Both null distributions are simulated (parametric bootstrap): variances are drawn from the hierarchy, seeds from
the variances, and everything is estimated again. Cells are compared with the largest of all (Westfall & Young,
"Resampling-Based Multiple Testing", 1993).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.special import ndtri, stdtr

from bocb_tune.analysis.core.arrays import Flags, Index
from bocb_tune.analysis.matrix.noise import CELLS, Noise, moderated
from bocb_tune.analysis.matrix.twoway import Matrix, residual_df
from bocb_tune.analysis.matrix.weighted import residuals_and_spare

NUM_NULL = 999
SIGNIFICANT = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class InteractionTest:
    """Result of the test of the interaction against the noise of each cell."""

    f: float
    """Mean square of the deviates; about 1 by chance."""
    df: int
    df_noise: int
    """Degrees of freedom of all seeds."""
    p: float
    """Probability of an `f` as large from noise alone."""
    p_any: float
    """The same for optimizers and interaction together: is there any effect of the optimizer to divide?"""
    p_cell: Matrix
    """Probability that noise alone makes any cell deviate as much [backbones, optimizers]; NaN without a value."""

    @property
    def is_significant(self) -> bool:
        return self.p <= SIGNIFICANT

    @property
    def significant_cells(self) -> Flags:
        return np.nan_to_num(self.p_cell, nan=1.0) <= SIGNIFICANT

    def placed(self, shape: tuple[int, ...], inside: tuple[Index, Index]) -> InteractionTest:
        """Move the cells of a part to their places in the whole matrix."""
        p_cell = np.full(shape, np.nan)
        p_cell[inside] = self.p_cell
        return replace(self, p_cell=p_cell)


def interaction_test(
    values: Matrix, noise: Noise, rng: np.random.Generator, num_null: int = NUM_NULL
) -> InteractionTest:
    """Test one matrix.

    Args:
        values: [backbones, optimizers], points, NaN where missing; `fit_refusal` is None.
        noise: of the same cells.
    """
    total, p, p_any, p_cell = interaction_tests(values, noise, rng, num_null)
    df = residual_df(np.isfinite(values))
    return InteractionTest(f=float(total) / df, df=df, df_noise=noise.df, p=float(p), p_any=float(p_any), p_cell=p_cell)


def interaction_tests(
    values: Matrix, noise: Noise, rng: np.random.Generator, num_null: int
) -> tuple[Matrix, Matrix, Matrix, Matrix]:
    """Test many matrices: sum of squares, `p`, `p_any` (each [...]) and `p_cell` [..., backbones, optimizers]."""
    known = np.isfinite(values)
    squares, total, any_ = _statistics(np.where(known, values, 0.0), noise)
    null_squares, null_total, null_any = _statistics(*_redrawn(noise, rng, num_null))
    largest = null_squares.max(axis=CELLS)[..., None, None]
    p_cell = np.where(known, _p(squares, largest), np.nan)
    return total, _p(total, null_total), _p(any_, null_any), p_cell


def _statistics(values: Matrix, noise: Noise) -> tuple[Matrix, Matrix, Matrix]:
    """Compute the squared deviates [..., backbones, optimizers], their sum, and the sum without optimizers [...]."""
    weight = noise.precision
    left, room = residuals_and_spare(values, weight)
    squares = weight * left**2 / room
    deviates = ndtri(np.maximum(stdtr(noise.expected_df + noise.cell_df, -np.sqrt(squares)), 1e-300)) ** 2
    means = (weight * values).sum(axis=-1, keepdims=True) / weight.sum(axis=-1, keepdims=True)
    return deviates, (room * deviates).sum(axis=CELLS), (weight * (values - means) ** 2).sum(axis=CELLS)


def _redrawn(noise: Noise, rng: np.random.Generator, count: int) -> tuple[Matrix, Noise]:
    """Draw matrices of pure noise [count, backbones, optimizers], their noise estimated from their own seeds."""
    shape = (count, *noise.seeds.shape)
    df0, df = np.broadcast_to(noise.expected_df, shape), np.broadcast_to(noise.cell_df, shape)
    variance = noise.expected * df0 / rng.chisquare(df0)
    own = np.where(df > 0, variance * rng.chisquare(np.maximum(df, 1)) / np.maximum(df, 1), 0.0)
    seeds = np.broadcast_to(noise.seeds, shape)
    values = np.where(seeds > 0, rng.standard_normal(shape) * np.sqrt(variance / np.maximum(seeds, 1)), 0.0)
    return values, moderated(own, seeds)


def _p(seen: Matrix, by_chance: Matrix) -> Matrix:
    """Compute the p-value of each value among those by chance [count, ...]; the observed one counts as one of them."""
    return np.asarray((1 + np.sum(by_chance >= seen, axis=0)) / (1 + len(by_chance)))
