"""Piecewise constant draws of the expected outcome: a few extremely randomised trees each, with weighted trials.

Trees represent plateaus, edges and cliffs, which a stationary process smooths over. Trials have exponential weights
(Rubin's Bayesian bootstrap, Annals of Statistics 1981) and splits are random (Geurts, Ernst & Wehenkel, "Extremely
randomized trees", Machine Learning 2006), so that draws differ where few trials decide.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn import config_context
from sklearn.tree import ExtraTreeRegressor

from bocb_tune.analysis.core.arrays import Array, Index

TREES_A_DRAW, LEAF = 2, 2
"""Trees averaged in a draw, and least number of trials in a leaf. With one tree intervals are wider than real
landscapes need, with three too narrow (compared on real landscapes in docs/LOG.md)."""
FOLDS, DRAWS_A_FOLD = 8, 10


def tree_draws(x: Array, outcomes: Array, nodes: Array, rng: np.random.Generator) -> Array:
    """Draw surfaces [draws, nodes].

    Args:
        x: settings scaled to [0, 1] over the search space [trials, dimensions].
        outcomes: final score of each trial in each draw [draws, trials], failures at the floor.
        nodes: where to evaluate the surfaces [nodes, dimensions].
        rng: of weights and splits.
    """
    settings, places = x.astype(np.float32), nodes.astype(np.float32)
    splits = np.random.RandomState(0)  # seeded anew for each tree: to make one takes as long as to grow a tree
    with config_context(assume_finite=True, skip_parameter_validation=True):  # checks take longer than trees here
        return np.array(
            [_draw(settings, outcome, places, rng, splits) for outcome in outcomes.astype(float)[:, :, None]]
        )


def _draw(
    x: NDArray[np.float32],
    outcome: Array,
    nodes: NDArray[np.float32],
    rng: np.random.Generator,
    splits: np.random.RandomState,
) -> Array:
    weight = rng.exponential(size=len(x))
    found = np.zeros(len(nodes))
    for seed in rng.integers(1 << 31, size=TREES_A_DRAW):
        splits.seed(int(seed))
        tree = ExtraTreeRegressor(min_samples_leaf=LEAF, max_features=1.0, random_state=splits)
        tree.fit(x, outcome, sample_weight=weight, check_input=False)
        found += tree.predict(nodes, check_input=False)
    return found / TREES_A_DRAW


def left_out(x: Array, outcome: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    """Predict each trial from draws fitted without its fold: mean and variance [trials].

    The variance is that of the draws, scaled to equal the squared errors on average: draws contain the noise of single
    trials only in part.
    """
    fold: Index = rng.permutation(np.arange(len(x)) % FOLDS)
    mean, variance = np.empty(len(x)), np.empty(len(x))
    for each in range(min(FOLDS, len(x))):
        out = fold == each
        seen = np.repeat(outcome[~out][None], DRAWS_A_FOLD, axis=0)
        draws = tree_draws(x[~out], seen, x[out], rng)
        mean[out], variance[out] = draws.mean(axis=0), draws.var(axis=0, ddof=1)
    squared = (outcome - mean) ** 2
    variance = variance + 0.05 * squared.mean() + 1e-12
    return mean, variance * np.mean(squared / variance)
