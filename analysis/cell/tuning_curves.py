"""Tuning curves: the expected score of the best of n random trials, and summaries of the curve.

The curve is computed in two ways:

From the scores of trials that are independent draws from the search distribution: the unbiased U-statistic of Tang et
al. 2020 (arXiv:2004.13705); the plug-in of Dodge et al. 2019 (arXiv:1909.03004) is biased low. A sampler that learns,
or a scheduler that stops trials, breaks their assumption.

From a landscape, whatever search it was fitted on: n settings drawn from pi, each scored with the noise of one run,
the best of these scores selected. With G the distribution of a noisy score, the winner's lies below y with probability
G(y)^n, so the curve is a quadrature over y and nothing is simulated. "deployed" is the true score of the selected
setting, "reported" the noisy score it was selected by, which is biased upwards. Where independent trials estimate the
latter too, the interval contains both estimates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import gammaln

from bocb_tune.analysis.core import bootstrap as drawn
from bocb_tune.analysis.core.arrays import Array, Index
from bocb_tune.analysis.core.estimate import Counts, Estimate, Reason
from bocb_tune.analysis.landscape.fit import Landscape
from bocb_tune.analysis.landscape.surface import Domain, SettingGrid

SIZES = (1, 2, 4, 8, 16, 32, 64)
LONGEST = SIZES[-1]
CPE_TRIALS = 32
TRIALS_PER_SIZE = 3
"""A curve of observed trials ends at this fraction of their number: beyond it, its intervals lose their coverage."""
METHOD = "random search on the landscape, quantiles of draws"
WITH_TRIALS = "random search on the landscape and bootstrap over independent trials, both intervals"
NOISE_SEEN, NOISE_UNSEEN = 1.1, 1.6
"""Factors that widen the draws' spread by what they leave out: the noise itself is estimated from few trials and, where
trials were stopped early, from records before the full budget."""
NUM_STEPS = 400
"""Steps of the distribution of a noisy score."""


# From observed trials


def unbiased_weights(num_trials: int, n: int) -> Array:
    """Compute the weights C(i-1, n-1) / C(B, n) of the sorted scores, lowest first [trials].

    Tang et al. 2020, arXiv:2004.13705: the mean over all subsets of n trials; needs n <= B.
    """
    assert n <= num_trials
    i = np.arange(n, num_trials + 1.0)
    weights = np.zeros(num_trials)
    weights[n - 1 :] = np.exp(_log_choose(i - 1, n - 1) - _log_choose(num_trials, n))
    return weights


def expected_best(scores: Array, n: int) -> Array:
    """Compute the expected best of n of the scores [..., trials], for each row [...]."""
    best: Array = np.sort(scores, axis=-1) @ unbiased_weights(scores.shape[-1], n)
    return best


def observed_curve(
    scores: Array, independent: bool, counts: Counts, rng: np.random.Generator, sizes: Sequence[int] = SIZES
) -> tuple[Estimate, ...]:
    """Estimate the expected best without bias for each size, with a percentile bootstrap over trials.

    Args:
        scores: final scores [trials], diverged ones at the floor.
        independent: whether the trials are independent draws from the search distribution and none was stopped.

    Returns:
        One estimate per size; NOT_IID if not independent, BUDGET_EXCEEDS_DATA beyond a third of the trials.
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
    """Results of random search of 1 to `LONGEST` trials in one cell."""

    deployed: Array
    """Expected true score of the selected setting [1 + draws, trials], the mean of the draws first."""
    smooth: Array
    """The same on the mean surface [trials]."""
    reported: Array
    """Expected score it was selected by [1 + draws, trials]."""
    seen: Array | None = None
    """The same estimated from independent trials, where there are any [1 + draws, trials]."""
    top: float
    """Upper limit of the score."""
    domain: Domain
    counts: Counts

    def at(self, n: int) -> Estimate:
        """Estimate the deployed score after n trials."""
        return self._deployed(np.eye(self.deployed.shape[1])[n - 1], METHOD)

    def reported_at(self, n: int) -> Estimate:
        """Estimate the score by which a setting is selected after n trials: what a search reports of itself.

        Where independent trials estimate it too, the middle of both, with an interval that contains those of both:
        either may be wrong, the landscape by its form and the trials by their luck.
        """
        modelled = self._estimate(self.reported[:, n - 1], f"{METHOD}; the score selected by, biased upwards")
        if self.seen is None:
            return modelled
        observed = self._estimate(self.seen[:, n - 1], WITH_TRIALS)
        values, lows, highs = ([getattr(e, name) for e in (modelled, observed)] for name in ("value", "lo", "hi"))
        return replace(observed, value=float(np.mean(values)), lo=min(lows), hi=max(highs))

    def summary(self, emphasis: str, trials: int = CPE_TRIALS) -> Estimate:
        """Average the curve with weights over 1 to `trials` trials, in points; higher is better.

        Sivaprasad et al. 2020, arXiv:1910.11758: `early` (their CPE), `late`, `uniform`, `one-shot` or `peak`.
        """
        weights = np.zeros(self.deployed.shape[1])
        weights[:trials] = EMPHASES[emphasis](trials)
        return self._deployed(weights, f"{METHOD}, {emphasis} of {trials} trials")

    def _deployed(self, weights: Array, method: str) -> Estimate:
        """Average the curve by `weights` [trials]; the interval covers draws about both their mean and the mean
        surface.

        Draws are rougher than the truth and the mean surface is smoother, the more so the better the settings.
        """
        values = self.deployed @ weights
        shift = float(self.smooth @ weights - values[0])
        found = self._estimate(values, method)
        if found.lo is None or found.hi is None:
            return found
        return replace(found, lo=found.lo + min(shift, 0.0), hi=min(found.hi + max(shift, 0.0), self.top))

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
    """Compute the curve of a cell; one trial selects a setting, with the noise of trials nearby."""
    grid = cell.grid
    few = SettingGrid(domain=grid.domain, num_lr=(grid.num_lr + 1) // 2, num_decay=(grid.num_decay + 1) // 2)
    rows, columns = (chosen.ravel() for chosen in np.meshgrid(*_thinned(grid), indexing="ij"))
    mass = few.weights.ravel()
    own = cell.residuals.near(grid.domain.scaled(grid.u[rows], grid.v[columns]))
    rng = np.random.default_rng(len(cell.draws))
    picked = rng.integers(own.shape[1], size=(len(cell.draws), own.shape[1]))
    surfaces = np.concatenate([cell.mean[None], cell.draws])[:, rows, columns].astype(float)
    found = [
        best_by_noisy_score(true, np.clip(true[:, None] + own[:, each], cell.floor, cell.top), mass)
        for true, each in zip(surfaces, [np.arange(own.shape[1]), *picked], strict=True)
    ]
    deployed, reported = (np.array(each) for each in zip(*found, strict=True))
    spread = NOISE_UNSEEN if cell.counts.n_stopped else NOISE_SEEN
    return TuningCurve(
        deployed=np.clip(_about(deployed, deployed[1:].mean(axis=0), spread), cell.floor, cell.top),
        smooth=deployed[0],
        # Draws carry the noise of single trials already, the mean surface is smoother than the truth.
        reported=np.clip(_about(reported, (reported[0] + reported[1:].mean(axis=0)) / 2, spread), cell.floor, cell.top),
        top=cell.top,
        domain=grid.domain,
        counts=cell.counts,
    )


def with_trials(curve: TuningCurve, scores: Array, rng: np.random.Generator) -> TuningCurve:
    """Add to a curve the estimate of reported scores from independent trials.

    That is the unbiased curve of the trials, resampled; beyond a third of their number it rises as the landscape's
    does.

    Args:
        curve: of the landscape.
        scores: final scores of independent draws from the search distribution [trials], diverged ones at the floor.
    """
    longest = min(len(scores) // TRIALS_PER_SIZE, LONGEST)
    if longest < 1:
        return curve
    again = rng.choice(scores, size=(len(curve.reported) - 1, len(scores)))
    sizes = range(1, longest + 1)
    seen = np.stack([expected_best(np.concatenate([scores[None], again]), n) for n in sizes], axis=1)
    rise = curve.reported[:, longest:] - curve.reported[:, longest - 1 : longest]
    whole = np.concatenate([seen, seen[:, -1:] + rise], axis=1)
    return replace(curve, seen=np.minimum(whole, curve.top))


def _about(curves: Array, middle: Array, spread: float) -> Array:
    """Centre the draws among curves [1 + draws, trials] on `middle` [trials], scaled by `spread`; `middle` first."""
    draws = curves[1:]
    return np.concatenate([middle[None], middle + spread * (draws - draws.mean(axis=0))])


def _thinned(grid: SettingGrid) -> tuple[Index, Index]:
    """Select every other node along each axis, and weight decay 0."""
    decay = np.arange(0, grid.num_decay, 2)
    return np.arange(0, grid.num_lr, 2), np.append(decay, grid.num_decay) if grid.has_zero else decay


def best_by_noisy_score(true: Array, noisy: Array, mass: Array, longest: int = LONGEST) -> tuple[Array, Array]:
    """Compute the expected deployed and reported score of the best of n random trials, each [longest].

    Args:
        true: expected score of each setting [settings].
        noisy: scores a trial there may have, all equally probable [settings, outcomes].
        mass: probability of each setting [settings].
    """
    outcomes = noisy.shape[1]
    order = np.argsort(noisy, axis=None)
    setting = order // outcomes
    chance = (mass / outcomes)[setting]
    pairs = np.stack([true[setting], noisy.ravel()[order]])
    below = np.cumsum(chance)
    # Steps of the distribution, finer towards the top, where the best of many lies.
    starts = np.unique(np.searchsorted(below, 1 - np.linspace(1, 0, NUM_STEPS, endpoint=False) ** 3))
    starts = np.unique(np.append(0, starts[starts < len(below)]))
    held = np.add.reduceat(chance, starts)
    values = np.add.reduceat(pairs * chance, starts, axis=1) / np.maximum(held, 1e-300)
    powers = np.cumprod(np.broadcast_to(np.cumsum(held), (longest, len(held))), axis=0)
    deployed, reported = values @ np.diff(powers, prepend=0.0, axis=1).T
    return deployed, reported
