"""What would come out if the noise, the backbones or the optimizers were drawn again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bocb_tune.analysis.matrix.twoway import Decomposition, Matrix, adjusted_ss, effects, residual_df

NUM_DRAWS = 1000
SEED = 20241009
"""Of every bootstrap, permutation and set of draws: the same table gives the same report."""
MIN_NOISE_DF = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """Spread of the runs that cell values are means of."""

    sd: float
    """Of single runs, pooled over the cells, points; above 0."""
    df: int
    """Degrees of freedom of `sd`."""
    seeds: Matrix
    """Runs averaged in each cell [backbones, optimizers]; 0 where the value is no mean of runs (missing, the floor)."""

    @property
    def variance(self) -> float:
        """Of a cell's value, averaged over the cells: what noise adds to a sum of squares, per degree of freedom."""
        return float(self.sd**2 * np.mean(1 / self.seeds[self.seeds > 0]))

    @property
    def cell_variance(self) -> Matrix:
        """Of each cell's value [backbones, optimizers]; 0 where it is no mean of runs."""
        return np.where(self.seeds > 0, self.sd**2 / np.maximum(self.seeds, 1), 0.0)


def pooled_noise(sd: Matrix, seeds: Matrix) -> Noise | None:
    """Noise pooled over replicated cells, or None (TOO_FEW_REPLICATES).

    Args:
        sd: of the runs of each cell [backbones, optimizers], ddof 1; NaN where there were none.
        seeds: runs of each cell [backbones, optimizers]; 0 where there were none.
    """
    df = np.maximum(seeds - 1, 0)
    if (seeds == 1).any() or df.sum() < MIN_NOISE_DF:
        return None
    pooled = float(np.sqrt(np.nansum(df * sd**2) / df.sum()))
    # Repeats that are all equal are copies: they tell nothing of noise.
    return Noise(sd=pooled, df=int(df.sum()), seeds=seeds) if pooled > 0 else None


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
    """Sums of squares with the part that noise added taken off, not below 0.

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


def redraw(parts: Decomposition, noise: Noise, rng: np.random.Generator) -> tuple[Matrix, Matrix]:
    """Parametric bootstrap: experiments as they would repeat if the truth were the fit, shrunken by its noise.

    The plain fit holds the noise already: drawn around it, interaction would be counted twice.

    Returns:
        Matrices [draws, backbones, optimizers] and the variance of a cell's value each would estimate [draws].
    """
    truth = shrunken(parts, noise.variance)
    matrices = truth + np.sqrt(noise.cell_variance) * rng.standard_normal((NUM_DRAWS, *truth.shape))
    return matrices, noise.variance * rng.chisquare(noise.df, NUM_DRAWS) / noise.df


def interval(draws: Matrix, level: float = 0.95) -> tuple[float, float]:
    """Central interval of draws, NaN left out."""
    low, high = np.nanquantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def resampled(size: int, rng: np.random.Generator) -> np.ndarray[tuple[int, ...], np.dtype[np.intp]]:
    """Indices of lines drawn with replacement [draws, size]."""
    return rng.integers(size, size=(NUM_DRAWS, size))


def shrunken(parts: Decomposition, variance: float) -> Matrix:
    """What a fit suggests once noise of this variance a cell is taken off its effects [backbones, optimizers]."""
    num_backbones, num_optimizers = parts.interaction.shape
    return np.asarray(
        parts.mean
        + _less(parts.backbone, parts.ss_backbone, (num_backbones - 1) * variance)[:, None]
        + _less(parts.optimizer, parts.ss_optimizer, (num_optimizers - 1) * variance)
        + _less(parts.interaction, parts.ss_interaction, parts.df_interaction * variance)
    )


def _less(effect: Matrix, ss: float, noise: float) -> Matrix:
    """Effects whose sum of squares is what is left of `ss` without the noise in it."""
    return effect * (np.sqrt(max(0.0, 1 - noise / ss)) if ss > 0 else 0.0)


def _ratio(part: Matrix, whole: Matrix) -> Matrix:
    return np.where(whole > 0, part / np.where(whole > 0, whole, 1.0), np.nan)
