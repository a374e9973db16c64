"""What a number of trials buys: the expected score of the best of n random trials, its summaries, and ranks by budget.

Two roads lead to the curve:

From the scores of trials that are independent draws from the search distribution: the unbiased U-statistic of Tang et
al. 2020 (arXiv:2004.13705); the plug-in of Dodge et al. 2019 (arXiv:1909.03004) is biased low. A sampler that learns,
or a scheduler that stops, breaks their assumption.

From a landscape, whatever search it was fitted on: n settings drawn from pi, each scored with the noise of one run, the
best of these scores selected. With G the distribution of a noisy score the winner's lies below y with probability
G(y)^n, so the curve is a quadrature over y and nothing is simulated. "deployed" is the true score of the selected
setting, "validation" the noisy score it was selected by, which is biased upwards.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import gammaln, ndtr

from bocb_tune.analysis.core import bootstrap as drawn
from bocb_tune.analysis.core.arrays import Array, Index
from bocb_tune.analysis.core.estimate import Counts, Estimate, Reason
from bocb_tune.analysis.landscape.fit import Landscape
from bocb_tune.analysis.landscape.surface import Box, Grid

SIZES = (1, 2, 4, 8, 16, 32, 64)
LONGEST = SIZES[-1]
CPE_TRIALS = 32
TRIALS_PER_SIZE = 3
"""A curve of observed trials ends at this part of their number: beyond, its intervals do not cover."""
METHOD = "random search on the landscape, quantiles of draws"
NUM_ATOMS, NUM_NEAR = 256, 121
"""Values a surface is reduced to, and steps of the noisy score around the best value."""
REACH = 6.0
"""Standard deviations of noise around the best value that are resolved."""
NOISE_SEEN, NOISE_UNSEEN = 1.1, 1.6
"""Factor of the draws' spread for what they leave out: that the noise itself is an estimate from few trials, and, where
trials were stopped early, from records before the full budget."""
NUM_STEPS = 400
"""Steps of the distribution of a noisy score."""
NO_CHANCE = 1e-12
"""Intervals of the noisy score less probable than this count for nothing: within them only rounding is left."""


# From observed trials


def unbiased_weights(num_trials: int, n: int) -> Array:
    """Weights C(i-1, n-1) / C(B, n) of the sorted scores, lowest first [trials].

    Tang et al. 2020, arXiv:2004.13705: the mean over all subsets of n trials; needs n <= B.
    """
    assert n <= num_trials
    i = np.arange(n, num_trials + 1.0)
    weights = np.zeros(num_trials)
    weights[n - 1 :] = np.exp(_log_choose(i - 1, n - 1) - _log_choose(num_trials, n))
    return weights


def expected_best(scores: Array, n: int) -> Array:
    """Expected best of n of the scores [..., trials], for each row [...]."""
    best: Array = np.sort(scores, axis=-1) @ unbiased_weights(scores.shape[-1], n)
    return best


def observed_curve(
    scores: Array, independent: bool, counts: Counts, rng: np.random.Generator, sizes: Sequence[int] = SIZES
) -> tuple[Estimate, ...]:
    """Unbiased expected best for each size, with a percentile bootstrap over trials.

    Args:
        scores: final scores [trials], diverged ones at the floor.
        independent: whether the trials are independent draws from the search distribution and none was stopped.

    Returns:
        One a size; NOT_IID if not independent, BUDGET_EXCEEDS_DATA beyond a third of the trials.
    """
    refused = Estimate(value=None, unit="points", counts=counts, reason=Reason.NOT_IID)
    if not independent:
        return tuple(refused for _ in sizes)
    longest = len(scores) // TRIALS_PER_SIZE
    beyond = replace(refused, reason=Reason.BUDGET_EXCEEDS_DATA)
    if longest < min(sizes):
        return tuple(beyond for _ in sizes)
    resampled = rng.choice(scores, size=(drawn.REPLICATES, len(scores)))
    return tuple(_observed(scores, resampled, counts, n) if n <= longest else beyond for n in sizes)


def _observed(scores: Array, resampled: Array, counts: Counts, n: int) -> Estimate:
    best, method = float(expected_best(scores, n)), "U-statistic of the trials, bootstrap over trials"
    return drawn.estimate(best, expected_best(resampled, n), unit="points", counts=counts, method=method)


def _log_choose(n: Array | int, k: int) -> Array:
    return np.asarray(gammaln(np.add(n, 1)) - gammaln(k + 1) - gammaln(np.subtract(n, k - 1)))


# From a landscape


@dataclass(frozen=True, slots=True, kw_only=True)
class TuningCurve:
    """A cell under random search of 1 to `LONGEST` trials."""

    deployed: Array
    """Expected true score of the setting selected [1 + draws, trials], the mean surface first."""
    validation: Array
    """Expected score it was selected by [1 + draws, trials]."""
    box: Box
    counts: Counts

    def at(self, n: int) -> Estimate:
        """Deployed score after n trials."""
        return self._estimate(self.deployed[:, n - 1], METHOD)

    def validation_at(self, n: int) -> Estimate:
        """Validation score after n trials: what a search reports of itself."""
        return self._estimate(self.validation[:, n - 1], f"{METHOD}; the score selected by, biased upwards")

    def summary(self, emphasis: str, trials: int = CPE_TRIALS) -> Estimate:
        """The curve weighted over 1 to `trials` trials, points, higher is better.

        Sivaprasad et al. 2020, arXiv:1910.11758: `early` (their CPE), `late`, `uniform`, `one-shot` or `peak`.
        """
        weights = EMPHASES[emphasis](trials)
        return self._estimate(self.deployed[:, :trials] @ weights, f"{METHOD}, {emphasis} of {trials} trials")

    def _estimate(self, values: Array, method: str) -> Estimate:
        return drawn.estimate(float(values[0]), values[1:], unit="points", counts=self.counts, method=method)


EMPHASES: dict[str, Callable[[int], Array]] = {
    "early": lambda trials: 2 * np.arange(trials, 0, -1.0) / (trials * (trials + 1)),
    "late": lambda trials: 2 * np.arange(1.0, trials + 1) / (trials * (trials + 1)),
    "uniform": lambda trials: np.full(trials, 1 / trials),
    "one-shot": lambda trials: np.eye(trials)[0],
    "peak": lambda trials: np.eye(trials)[-1],
}


def tuning_curve(cell: Landscape) -> TuningCurve:
    """C4(c) of one cell; a setting is selected by the score of one trial, with the noise of trials nearby."""
    if cell.residuals is None:
        surfaces = np.concatenate([cell.mean[None].astype(cell.draws.dtype), cell.draws])
        deployed, validation = random_search(surfaces, cell.grid, cell.noise)
        return TuningCurve(deployed=deployed, validation=validation, box=cell.grid.box, counts=cell.counts)
    grid = cell.grid
    rows, columns = (chosen.ravel() for chosen in np.meshgrid(*_thinned(grid), indexing="ij"))
    mass = grid.weights[rows, columns]
    x = grid.box.scaled(grid.u[rows], grid.v[columns])
    own = cell.residuals.near(x)
    rng = np.random.default_rng(len(cell.draws))
    picked = rng.integers(own.shape[1], size=(len(cell.draws), own.shape[1]))
    surfaces = np.concatenate([cell.mean[None], cell.draws])[:, rows, columns].astype(float)
    found = [
        _noisy_search(true, np.clip(true[:, None] + own[:, each], cell.floor, cell.top), mass / mass.sum())
        for true, each in zip(surfaces, [np.arange(own.shape[1]), *picked], strict=True)
    ]
    deployed, reported = (np.array(each) for each in zip(*found, strict=True))
    deployed[0] = deployed[1:].mean(axis=0)
    # Draws carry the noise of single trials already, which a reported score would have twice.
    reported[1:] += reported[0] - reported[1:].mean(axis=0)
    spread = NOISE_UNSEEN if cell.counts.n_stopped else NOISE_SEEN
    return TuningCurve(
        deployed=np.clip(_widened(deployed, spread), cell.floor, cell.top),
        validation=np.clip(_widened(reported, spread), cell.floor, cell.top),
        box=grid.box,
        counts=cell.counts,
    )


def _widened(curves: Array, spread: float) -> Array:
    """Draws further from their mean; the first curve is that of the mean surface and stays."""
    middle = curves[1:].mean(axis=0)
    return np.concatenate([curves[:1], middle + spread * (curves[1:] - middle)])


def _thinned(grid: Grid) -> tuple[Index, Index]:
    """Every other node along each axis, and weight decay 0."""
    decay = np.arange(0, grid.num_decay, 2)
    return np.arange(0, grid.num_lr, 2), np.append(decay, grid.num_decay) if grid.has_zero else decay


def _noisy_search(true: Array, noisy: Array, mass: Array, longest: int = LONGEST) -> tuple[Array, Array]:
    """Expected deployed and reported score of the best of n random trials, each [longest].

    Args:
        true: expected score of each setting [settings].
        noisy: scores a trial there may have, each as probable [settings, outcomes].
        mass: probability of each setting [settings].
    """
    outcomes = noisy.shape[1]
    order = np.argsort(noisy, axis=None)
    chance = np.repeat(mass / outcomes, outcomes)[order]
    pairs = np.stack([np.repeat(true, outcomes)[order], noisy.ravel()[order]])
    below = np.cumsum(chance)
    # Steps of the distribution, finer towards the top, where the best of many lies.
    starts = np.unique(np.searchsorted(below, 1 - np.linspace(1, 0, NUM_STEPS, endpoint=False) ** 3))
    starts = np.unique(np.append(0, starts[starts < len(below)]))
    held = np.add.reduceat(chance, starts)
    values = np.add.reduceat(pairs * chance, starts, axis=1) / np.maximum(held, 1e-300)
    powers = np.cumsum(held)[None] ** np.arange(1, longest + 1)[:, None]
    deployed, reported = values @ np.diff(powers, prepend=0.0, axis=1).T
    return deployed, reported


def random_search(surfaces: Array, grid: Grid, noise: float, longest: int = LONGEST) -> tuple[Array, Array]:
    """Expected deployed and validation score of the best of n random settings, each [surfaces, longest].

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
