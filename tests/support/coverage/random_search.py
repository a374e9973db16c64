"""Random search on a surface whose noise is normal and the same everywhere: exact, by quadrature."""

from __future__ import annotations

import numpy as np
from scipy.special import ndtr

from bocb_tune.analysis.cell.tuning_curves import LONGEST
from bocb_tune.analysis.core.arrays import Array
from bocb_tune.analysis.landscape.surface import SettingGrid

NUM_ATOMS, NUM_NEAR = 256, 121
"""Values a surface is reduced to, and steps of the noisy score around the best value."""
REACH = 6.0
"""Standard deviations of noise around the best value that are resolved."""
NO_CHANCE = 1e-12
"""Intervals of the noisy score less probable than this count for nothing: within them only rounding is left."""


def random_search(surfaces: Array, grid: SettingGrid, noise: float, longest: int = LONGEST) -> tuple[Array, Array]:
    """Expected deployed and reported score of the best of n random settings, each [surfaces, longest].

    Args:
        surfaces: true scores [surfaces, lr, decay].
        noise: sd of the score a setting is selected by; 0 selects by the true score.
    """
    atoms, mass = _reduced(surfaces.reshape(len(surfaces), -1), grid.weights.ravel())
    edges = _edges(atoms, noise)
    below, true, noisy = _noisy_scores(atoms, mass, edges, noise)
    deployed, validation = (np.empty((len(surfaces), longest)) for _ in range(2))
    power = np.ones_like(below)
    # Summation by parts: sum_k x_k (G_k^n - G_{k-1}^n) = x_last - sum_k G_k^n (x_{k+1} - x_k).
    rises = [(out, x[:, -1], np.diff(x)) for out, x in ((deployed, true), (validation, noisy))]
    for n in range(longest):
        power *= below
        for out, last, rise in rises:
            out[:, n] = last - np.einsum("sk,sk->s", power, rise)
    return deployed, validation


def _reduced(values: Array, weights: Array) -> tuple[Array, Array]:
    """Each surface [surfaces, nodes] as masses [surfaces, atoms] on common values [atoms], ascending, dense at the top.

    A node's mass is split between its two neighbours, which keeps every mean exact.
    """
    top, low = float(values.max()), float(values.min())
    if top == low:
        return np.array([top]), np.ones((len(values), 1))
    last = NUM_ATOMS - 1
    atoms = top - (top - low) * (np.arange(NUM_ATOMS) / last) ** 2
    depth_squared = np.maximum(top - values, 0) * (last**2 / (top - low))
    upper = np.minimum(np.floor(np.sqrt(depth_squared)), last - 1)
    lower_mass = (depth_squared - upper * upper) / (2 * upper + 1) * weights
    place = (upper.astype(np.int32) + NUM_ATOMS * np.arange(len(values), dtype=np.int32)[:, None]).ravel()
    size = NUM_ATOMS * len(values)
    mass = np.bincount(place, (weights - lower_mass).ravel(), size) + np.bincount(place + 1, lower_mass.ravel(), size)
    return atoms[::-1], np.asarray(mass, dtype=float).reshape(len(values), NUM_ATOMS)[:, ::-1]


def _edges(atoms: Array, noise: float) -> Array:
    """Ends of the intervals of the noisy score, the last one open: between the atoms, and finely around the best."""
    near = atoms[-1] + noise * np.linspace(-REACH, REACH, NUM_NEAR) if noise > 0 else np.empty(0)
    return np.unique(np.concatenate([(atoms[1:] + atoms[:-1]) / 2, near]))


def _noisy_scores(atoms: Array, mass: Array, edges: Array, noise: float) -> tuple[Array, Array, Array]:
    """Distribution of the noisy score at the edges [surfaces, edges]; and within the intervals they part the axis into
    [surfaces, edges + 1] the mean true score and the mean noisy score."""
    z = (edges - atoms[:, None]) / noise if noise > 0 else np.where(edges > atoms[:, None], np.inf, -np.inf)
    ends = np.zeros((len(atoms), 1))
    chance = np.diff(ndtr(z), prepend=ends, append=ends + 1)
    density = np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)
    shift = -noise * np.diff(density, prepend=ends, append=ends)
    inside = mass @ chance
    safe = np.maximum(inside, 1e-300)
    true = (mass @ (atoms[:, None] * chance)) / safe
    noisy = true + np.where(inside > NO_CHANCE, mass @ shift, 0) / safe
    return np.cumsum(inside, axis=1)[:, :-1], true, noisy
