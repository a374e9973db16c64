"""Resampling of backbones and optimizers, and sums of squares corrected for noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bocb_tune.analysis.core.estimate import LEVEL
from bocb_tune.analysis.matrix.twoway import Decomposition, Matrix, adjusted_ss, effects, residual_df

NUM_DRAWS = 1000
SEED = 20241009
"""Seed of every bootstrap, permutation and set of draws, so that the same table gives the same report."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Squares:
    """Sums of squares of one matrix or of a stack of them [...]."""

    backbone: Matrix
    optimizer: Matrix
    interaction: Matrix

    @property
    def share_of_optimizer_effect(self) -> Matrix:
        return _ratio(self.interaction, self.optimizer + self.interaction)

    @property
    def share_of_total(self) -> Matrix:
        return _ratio(self.interaction, self.backbone + self.optimizer + self.interaction)


def corrected_squares(values: Matrix, variance: Matrix | float) -> Squares:
    """Compute sums of squares and subtract the part that noise added, limited to 0.

    Args:
        values: [..., backbones, optimizers], the same cells missing everywhere.
        variance: of a cell's value [...].
    """
    known = np.isfinite(values).reshape(-1, *values.shape[-2:])[0]
    _, backbone, optimizer, interaction = effects(values)
    num_backbones, num_optimizers = known.shape
    squares = (
        (adjusted_ss(backbone[..., :, None], known, axis=0), num_backbones - 1),
        (adjusted_ss(optimizer[..., None, :], known, axis=1), num_optimizers - 1),
        (np.nansum(interaction**2, axis=(-2, -1)), residual_df(known)),
    )
    corrected = [np.maximum(0.0, ss - df * np.asarray(variance)) for ss, df in squares]
    return Squares(backbone=corrected[0], optimizer=corrected[1], interaction=corrected[2])


def interval(draws: Matrix, level: float = LEVEL) -> tuple[float, float]:
    """Compute the central interval of draws, ignoring NaN."""
    low, high = np.nanquantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def resampled(size: int, rng: np.random.Generator) -> np.ndarray[tuple[int, ...], np.dtype[np.intp]]:
    """Draw indices of rows or columns with replacement [draws, size]."""
    return rng.integers(size, size=(NUM_DRAWS, size))


def shrunken(parts: Decomposition, variance: float) -> Matrix:
    """Compute the fit with noise of this variance per cell removed from its effects [backbones, optimizers]."""
    num_backbones, num_optimizers = parts.interaction.shape
    return np.asarray(
        parts.mean
        + _less(parts.backbone, parts.ss_backbone, (num_backbones - 1) * variance)[:, None]
        + _less(parts.optimizer, parts.ss_optimizer, (num_optimizers - 1) * variance)
        + _less(parts.interaction, parts.ss_interaction, parts.df_interaction * variance)
    )


def _less(effect: Matrix, ss: float, noise: float) -> Matrix:
    """Shrink effects so that their sum of squares is that of `ss` without the noise."""
    return effect * (np.sqrt(max(0.0, 1 - noise / ss)) if ss > 0 else 0.0)


def _ratio(part: Matrix, whole: Matrix) -> Matrix:
    return np.where(whole > 0, part / np.where(whole > 0, whole, 1.0), np.nan)
