"""Posterior of the true cell values, given their seeds; shares, ranks and W are computed from its draws.

    value = backbone + optimizer + interaction + noise, noise as in `noise.py`;

optimizers are normal and interactions Student t, both of unknown variance (Gelman, Bayesian Analysis 2006: flat in the
standard deviation), backbones free. Gibbs sampling, with the interactions integrated out where it would mix slowly. A
noisy cell gets little weight. The coverage of the intervals is simulated in docs/STATISTICS.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bocb_tune.analysis.core.arrays import Flags
from bocb_tune.analysis.matrix.noise import CELLS, Noise
from bocb_tune.analysis.matrix.twoway import Matrix
from bocb_tune.analysis.matrix.weighted import reduced_system, weighted_residuals

TAILS = 8.0
"""Degrees of freedom of the interactions; few, so that an interaction in a single cell is not mistaken for noise."""
CHAINS, STEPS, WARM_UP = 24, 100, 30
MAX_DF = 30.0
"""Upper limit of the hierarchy's degrees of freedom: above it, its scale and the cells' variances mix too slowly."""
NODES, REACH = 24, 4.0
"""Size of the grid of standard deviations of the interaction, and its largest one in units of that of the residuals."""


def posterior_values(values: Matrix, noise: Noise, rng: np.random.Generator, chains: int = CHAINS) -> Matrix:
    """Draw the true values [draws, ..., backbones, optimizers]; meaningless where a cell has no value.

    Args:
        values: [..., backbones, optimizers], points, NaN where missing; `fit_refusal` is None.
    """
    known = np.isfinite(values)
    state = _start(np.where(known, values, 0.0), noise, chains)
    kept = []
    for step in range(STEPS):
        drawn = state.advance(rng)
        if step >= WARM_UP:
            kept.append(drawn)
    return np.concatenate(kept)


@dataclass(slots=True)
class _State:
    """State of all chains [chains, ..., backbones, optimizers]."""

    values: Matrix
    noise: Noise
    df: Matrix
    """[..., 1, 1]"""
    expected: Matrix
    variance: Matrix
    """Variance of a single run."""
    sds: Matrix
    """Grid of standard deviations of the interaction [..., nodes]."""
    log_steps: Matrix
    interaction: Matrix
    optimizer: Matrix
    """Standard deviation of the optimizers [chains, ..., 1, 1]."""
    tails: Matrix
    """Factor on each cell's variance of interaction, which makes it a Student t."""

    def advance(self, rng: np.random.Generator) -> Matrix:
        """Take one step and return the true values."""
        seeds = np.maximum(self.noise.seeds, 1)
        known = self.noise.seeds > 0
        of_mean = self.variance / seeds
        weight = np.where(known, 1 / (self.interaction**2 * self.tails + of_mean), 0.0)
        additive, effects = self._additive(weight, rng)
        left = self.values - additive
        self.interaction = self._interaction_sd(left, of_mean, known, rng)
        own = np.maximum(self.interaction, 1e-9) ** 2
        precision = 1 / of_mean + 1 / (own * self.tails)
        specific = left / of_mean / precision + rng.standard_normal(left.shape) / np.sqrt(precision)
        self.tails = (TAILS + specific**2 / own) / rng.chisquare(TAILS + 1, left.shape)
        count = effects.shape[-1]
        spread = np.sum(effects**2, axis=-1, keepdims=True) / rng.chisquare(count - 1, (*effects.shape[:-1], 1))
        self.optimizer = np.sqrt(spread)
        self._variances(left - specific, known, rng)
        return additive + specific

    def _additive(self, weight: Matrix, rng: np.random.Generator) -> tuple[Matrix, Matrix]:
        """Draw the sum of the main effects, and the optimizers' [chains, ..., 1, optimizers]."""
        size = weight.shape[-1]
        system = reduced_system(weight) + np.eye(size) / self.optimizer**2
        total = weight.sum(axis=-1, keepdims=True)
        means = (weight * self.values).sum(axis=-1, keepdims=True) / total
        right = (weight * (self.values - means)).sum(axis=-2)[..., None]
        root = np.linalg.cholesky(system)
        half = np.linalg.solve(root, right) + rng.standard_normal(right.shape)
        optimizer = np.swapaxes(np.linalg.solve(np.swapaxes(root, -1, -2), half), -1, -2)
        mean = (weight * (self.values - optimizer)).sum(axis=-1, keepdims=True) / total
        return mean + rng.standard_normal(mean.shape) / np.sqrt(total) + optimizer, optimizer

    def _interaction_sd(self, left: Matrix, of_mean: Matrix, known: Flags, rng: np.random.Generator) -> Matrix:
        """Draw the standard deviation of the interaction on a grid, with the interactions integrated out."""
        whole = self.sds[..., None, None] ** 2 * self.tails[..., None, :, :] + of_mean[..., None, :, :]
        terms = np.log(whole) + left[..., None, :, :] ** 2 / whole
        fit = -0.5 * np.where(known[..., None, :, :], terms, 0.0).sum(axis=CELLS)
        best = (fit + self.log_steps + rng.gumbel(size=fit.shape)).argmax(axis=-1)[..., None]
        return np.take_along_axis(np.broadcast_to(self.sds, fit.shape), best, axis=-1)[..., None]

    def _variances(self, error: Matrix, known: Flags, rng: np.random.Generator) -> None:
        """Draw the variances of single runs, and the scale that all share.

        A cell's noise is estimated from its seeds and from its residual beyond the interaction, which counts as one
        more seed. From seeds alone, the error of cells whose seeds happen to be close would be mistaken for
        interaction.
        """
        df = self.noise.cell_df
        sums = self.df * self.expected + df * self.noise.own + self.noise.seeds * error**2
        self.variance = np.where(known, sums / rng.chisquare(self.df + df + 1, sums.shape), self.expected)
        ratio = np.where(known, self.noise.expected / self.variance, 0.0).sum(axis=CELLS, keepdims=True)
        scale = rng.gamma(known.sum(axis=CELLS, keepdims=True) * self.df / 2, 1.0, ratio.shape) / (self.df / 2 * ratio)
        self.expected = self.noise.expected * scale


def _start(values: Matrix, noise: Noise, chains: int) -> _State:
    known = noise.seeds > 0
    left = weighted_residuals(values, noise.precision)
    df = known.sum(axis=CELLS) - sum(known.shape[-2:]) + 1
    top = REACH * np.sqrt(np.sum(known * left**2, axis=CELLS) / df)[..., None]
    sds = np.linspace(0, 1, NODES) ** 1.5 * np.where(top > 0, top, 1.0)
    one = np.ones((chains, *values.shape[:-2], 1, 1))
    return _State(
        values=values,
        noise=noise,
        df=np.minimum(noise.expected_df, MAX_DF),
        expected=noise.expected * one,
        variance=noise.run_variance * one,
        sds=sds,
        log_steps=np.log(np.gradient(sds, axis=-1)),
        interaction=one * sds[..., NODES // 4, None, None],
        optimizer=one * sds[..., -1:, None],
        tails=one * np.ones(values.shape),
    )
