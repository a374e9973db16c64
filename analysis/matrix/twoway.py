"""Additive fit of the matrix of cell values, and its residuals, the interactions.

Notation: y[b, o] is the value of a cell in points of score, NaN where missing; B backbones, O optimizers.

    y[b, o] = mean + backbone[b] + optimizer[o] + interaction[b, o], the main effects summing to zero.

Fitted by least squares to the cells that have a value: double centring when all have. Sums of squares of main effects
are adjusted for one another (type II), which changes nothing in a complete matrix. Source: Scheffe, "The Analysis of
Variance" (1959), chapter 4.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from bocb_tune.analysis.core.arrays import Flags
from bocb_tune.analysis.core.estimate import Reason

Matrix = NDArray[np.float64]

MIN_SHARE_SHAPE = (3, 3)
MIN_CELLS_A_LINE = 3
COMPLETE_ENOUGH = 0.9
"""Share of filled cells below which an additive fit is marked as that of an incomplete matrix."""
NEGLIGIBLE = 1e-20
"""Share of the squared scores below which sums of squares are rounding errors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decomposition:
    """Additive fit of a matrix, with its residuals."""

    mean: float
    backbone: Matrix
    """Main effects [backbones], points."""
    optimizer: Matrix
    """Main effects [optimizers], points."""
    interaction: Matrix
    """[backbones, optimizers], points, NaN where missing; positive where the cell is better than both averages
    predict."""

    @property
    def ss_backbone(self) -> float:
        return float(adjusted_ss(self.backbone[:, None], np.isfinite(self.interaction), axis=0))

    @property
    def ss_optimizer(self) -> float:
        return float(adjusted_ss(self.optimizer[None, :], np.isfinite(self.interaction), axis=1))

    @property
    def ss_interaction(self) -> float:
        return float(np.nansum(self.interaction**2))

    @property
    def df_interaction(self) -> int:
        return residual_df(np.isfinite(self.interaction))

    @property
    def rms_interaction(self) -> float:
        """Root mean square of the interaction per degree of freedom, points."""
        return float(np.sqrt(self.ss_interaction / self.df_interaction))

    @property
    def share_of_optimizer_effect(self) -> float:
        """Share of the optimizer's effect that is specific to the backbone, in [0, 1]; NaN if it has none."""
        return self._share(self.ss_optimizer + self.ss_interaction)

    @property
    def share_of_total(self) -> float:
        """Share of all variation that is interaction, in [0, 1]; NaN if nothing varies."""
        return self._share(self.ss_backbone + self.ss_optimizer + self.ss_interaction)

    @property
    def is_additive(self) -> bool:
        """Whether the residuals are nothing but rounding errors."""
        return self.ss_interaction <= self._rounding

    @property
    def _rounding(self) -> float:
        squares = self.interaction.size * self.mean**2 + self.ss_backbone + self.ss_optimizer + self.ss_interaction
        return NEGLIGIBLE * squares

    def _share(self, whole: float) -> float:
        return self.ss_interaction / whole if whole > self._rounding else float("nan")


def decompose(values: Matrix) -> Decomposition:
    """Fit a matrix additively.

    Args:
        values: [backbones, optimizers], points, NaN where missing; `fit_refusal` is None.
    """
    mean, backbone, optimizer, interaction = effects(values)
    return Decomposition(mean=float(mean), backbone=backbone, optimizer=optimizer, interaction=interaction)


def effects(values: Matrix) -> tuple[Matrix, Matrix, Matrix, Matrix]:
    """Compute mean [...], main effects [..., backbones] and [..., optimizers], and interaction of a stack of matrices.

    Args:
        values: [..., backbones, optimizers], the same cells missing everywhere.
    """
    num_backbones, num_optimizers = values.shape[-2:]
    known = np.isfinite(values).reshape(-1, num_backbones, num_optimizers)[0]
    observed = values[..., known]
    assert np.isfinite(observed).all(), "matrices of one stack have the same holes"
    coefficients = observed @ np.linalg.pinv(_design(known)).T
    mean, backbone, optimizer = np.split(coefficients, [1, num_backbones], axis=-1)
    backbone, optimizer = _summing_to_zero(backbone), _summing_to_zero(optimizer)
    return mean[..., 0], backbone, optimizer, values - mean[..., None] - backbone[..., None] - optimizer[..., None, :]


def adjusted_ss(effect: Matrix, known: Flags, axis: int) -> Matrix:
    """Compute the sum of squares of a main effect, adjusted for the other factor [...].

    Args:
        effect: [..., 1 | backbones, 1 | optimizers].
        known: cells that have a value [backbones, optimizers].
        axis: 0 if the other factor is the optimizer, 1 if it is the backbone.
    """
    spread = np.where(known, effect, np.nan)
    return np.asarray(np.nansum((spread - np.nanmean(spread, axis=axis - 2, keepdims=True)) ** 2, axis=(-2, -1)))


def residual_df(known: Flags) -> int:
    """Count the degrees of freedom of the interaction."""
    return int(known.sum()) - sum(known.shape) + 1


def spare(known: Flags) -> Matrix:
    """Compute the share of a cell's noise left in its residual, 1 - leverage; 0 where missing."""
    room = np.zeros(known.shape)
    room[known] = np.diag(residual_maker(known))
    return room


def residual_maker(known: Flags) -> Matrix:
    """Compute the matrix that maps known values to their interactions [known cells, known cells]."""
    design = _design(known)
    return np.asarray(np.eye(len(design)) - design @ np.linalg.pinv(design))


def fit_refusal(values: Matrix, least: tuple[int, int] = MIN_SHARE_SHAPE) -> Reason | None:
    """Say why an additive fit is impossible; None if it is possible. Some cells may be missing (NaN)."""
    known = np.isfinite(values)
    if few := _too_small(values, least):
        return few
    if min(known.sum(axis=0).min(), known.sum(axis=1).min()) < MIN_CELLS_A_LINE:
        return Reason.INCOMPLETE_MATRIX
    return None if _is_connected(known) else Reason.DISCONNECTED


def refusal(values: Matrix, least: tuple[int, int]) -> Reason | None:
    """Say why a statistic that needs every cell is impossible; None if it is possible. Missing cells are NaN."""
    return _too_small(values, least) or (None if np.isfinite(values).all() else Reason.INCOMPLETE_MATRIX)


def _too_small(values: Matrix, least: tuple[int, int]) -> Reason | None:
    if values.shape[0] < least[0]:
        return Reason.TOO_FEW_BACKBONES
    return Reason.TOO_FEW_OPTIMIZERS if values.shape[1] < least[1] else None


def _is_connected(known: Flags) -> bool:
    """Tell whether known cells link every row and column to all others."""
    rows, columns = known.shape
    links = np.zeros((rows + columns, rows + columns))
    links[:rows, rows:] = known
    return bool(connected_components(csr_array(links), directed=False)[0] == 1)


def _design(known: Flags) -> Matrix:
    """Build the design matrix [known cells, 1 + (B - 1) + (O - 1)].

    The last level of a factor is minus the sum of the others.
    """
    backbone, optimizer = np.nonzero(known)
    codes = [np.vstack([np.eye(size - 1), -np.ones(size - 1)]) for size in known.shape]
    return np.column_stack([np.ones(len(backbone)), codes[0][backbone], codes[1][optimizer]])


def _summing_to_zero(free: Matrix) -> Matrix:
    return np.concatenate([free, -free.sum(axis=-1, keepdims=True)], axis=-1)
