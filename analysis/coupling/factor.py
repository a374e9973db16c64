"""Score of several runs of one grid split into backbone, optimizer and the one factor that the runs differ in.

    y[b, o, f] = mean + seven effects (b, o, f, bo, bf, of, bof), each summing to zero over each of its indices

The grid is complete, so that the effects are orthogonal and each can be judged by itself. Noise of a cell's value has
variance v. Of an effect of d degrees of freedom with true squares of mean t^2 a degree of freedom, the observed squares
are (t^2 + v) chi^2_d; t is taken as uniform, and given t the true effect is Gaussian about t^2 / (t^2 + v) times the
observed one with variance v t^2 / (t^2 + v). Draws of all of these give every share with its interval.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy.stats import chi2
from scipy.stats import f as fisher

from bocb_tune.analysis.core.arrays import Array
from bocb_tune.analysis.core.bootstrap import Refused
from bocb_tune.analysis.core.estimate import LEVEL, Estimate, Reason

DRAWS, SCALES = 1000, 400
"""Draws of the true effects, and values of t that are tried."""
SIGNIFICANT = 0.05
LEAST = (3, 3, 2)
"""Backbones, optimizers and runs."""
NAMES = ("backbone", "optimizer", "factor")
COUPLING, MOVING = "backbone x optimizer", "backbone x optimizer x factor"
MARGIN = 3.0
"""Factor by which the largest t that is tried exceeds the observed one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FactorSplit:
    """Sources of the variation of several runs of one grid."""

    variance_shares: Mapping[str, Estimate]
    """Share of all variation that each effect has, by its factors joined with ` x `."""
    share_that_moves: Estimate
    """Share of the coupling of backbone and optimizer that is not the same in all runs."""
    order_flips: Estimate
    """Probability that two optimizers change order, in their means over backbones, from one run to another."""
    same_best: Estimate
    """Probability that the optimizer with the best mean is the same in all runs."""


def split_by_factor(
    values: Array, variance: float, df: int, rng: np.random.Generator, *, level: float = LEVEL
) -> FactorSplit | Refused:
    """Split complete cell values of several runs.

    Args:
        values: [backbones, optimizers, runs], points.
        variance: noise of a cell's value, points squared; NaN where seeds were not repeated.
        df: degrees of freedom that the variance is known with.
        level: coverage of the intervals.
    """
    if refused := refusal(values):
        return refused
    parts = dict(effects(values))
    if not np.isfinite(variance):
        return _plug_in(parts)
    noise = variance * df / chi2.rvs(df, size=DRAWS, random_state=rng)
    drawn = {name: _draw(name, effect, noise, rng) for name, effect in parts.items()}
    squares = {name: (each**2).sum(axis=(1, 2, 3)) for name, each in drawn.items()}
    total = np.maximum(sum(squares.values()), np.finfo(float).tiny)
    method = f"draws of the true effects, noise of seeds on {df} degrees of freedom"
    shown = {name: _is_shown(name, effect, variance, df) for name, effect in parts.items()}
    shares = {name: _estimate(each / total, level, method, shown[name]) for name, each in squares.items()}
    coupling, moves = squares[COUPLING], squares[MOVING]
    means = (drawn["optimizer"] + drawn["optimizer x factor"]).mean(axis=1)
    moving = moves / np.maximum(coupling + moves, np.finfo(float).tiny)
    return FactorSplit(
        variance_shares=shares,
        share_that_moves=_estimate(moving, level, method, shown[MOVING], shown[COUPLING]),
        order_flips=_estimate(_flips(means), level, method),
        same_best=Estimate(value=float(np.mean(np.ptp(means.argmax(axis=1), axis=1) == 0)), method=method),
    )


def refusal(values: Array) -> Refused | None:
    """Say why values cannot be split, or None."""
    few = (Reason.TOO_FEW_BACKBONES, Reason.TOO_FEW_OPTIMIZERS, Reason.TOO_FEW_REPLICATES)
    for size, least, name, reason in zip(values.shape, LEAST, ("backbones", "optimizers", "runs"), few, strict=True):
        if size < least:
            return Refused(reason=reason, detail=f"{size} {name} have a score in every run, {least} are needed")
    if np.ptp(values) == 0:
        return Refused(reason=Reason.DEGENERATE_VARIANCE, detail="all scores are equal")
    return None


def effects(values: Array) -> Iterator[tuple[str, Array]]:
    """Take a complete array apart [backbones, optimizers, runs]: the name of each effect, and the effect everywhere."""
    for axes in (axes for count in (1, 2, 3) for axes in combinations(range(3), count)):
        yield " x ".join(NAMES[axis] for axis in axes), projected(values, axes)


def projected(values: Array, axes: Sequence[int]) -> Array:
    """Keep of values [..., backbones, optimizers, runs] the effect of some of these three axes."""
    for axis in range(3):
        mean = values.mean(axis=axis - 3, keepdims=True)
        values = values - mean if axis in axes else np.broadcast_to(mean, values.shape)
    return values


def _df(name: str, shape: tuple[int, ...]) -> int:
    sizes = dict(zip(NAMES, shape, strict=True))
    return int(np.prod([sizes[each] - 1 for each in name.split(" x ")]))


def _draw(name: str, effect: Array, noise: Array, rng: np.random.Generator) -> Array:
    """Draw the true effect [draws, backbones, optimizers, runs] given the observed one and draws of the noise."""
    observed, df = float((effect**2).sum()), _df(name, effect.shape)
    top = MARGIN * np.sqrt(max(observed / df, float(noise.mean())))
    scales = np.linspace(0, top, SCALES) ** 2
    log = chi2.logpdf(observed / (scales + noise.mean()), df) - np.log(scales + noise.mean())
    weights = np.exp(log - log.max())
    chosen = rng.choice(scales, size=len(noise), p=weights / weights.sum())
    kept = chosen / (chosen + noise)
    axes = [NAMES.index(each) for each in name.split(" x ")]
    random = projected(rng.standard_normal((len(noise), *effect.shape)), axes)
    shape = (len(noise), 1, 1, 1)
    return np.asarray(kept.reshape(shape) * effect + np.sqrt(kept * noise).reshape(shape) * random)


def _flips(means: Array) -> Array:
    """Count how often pairs of optimizers change order between pairs of runs [draws]; means [draws, optimizers, runs],
    of none of which two are equal."""
    ahead = np.sign(means[:, :, None] - means[:, None])  # [draws, optimizers, optimizers, runs]
    pairs = combinations(range(means.shape[2]), 2)
    found = np.array([np.mean(ahead[..., first] * ahead[..., second] < 0, axis=(1, 2)) for first, second in pairs])
    count = means.shape[1]
    return np.asarray(found.mean(axis=0) * count / (count - 1))


def _is_shown(name: str, effect: Array, variance: float, df: int) -> bool:
    """Tell whether an effect is more than noise, by the F test."""
    own = _df(name, effect.shape)
    return bool(fisher.sf(float((effect**2).sum()) / own / variance, own, df) < SIGNIFICANT)


def _estimate(draws: Array, level: float, method: str, above_zero: bool = True, below_one: bool = True) -> Estimate:
    """Take quantiles of draws; an interval reaches its end where what would keep it from there is not shown."""
    lo, middle, hi = (float(each) for each in np.quantile(draws, ((1 - level) / 2, 0.5, (1 + level) / 2)))
    ends = lo if above_zero else 0.0, hi if below_one else 1.0
    return Estimate(value=middle, lo=ends[0], hi=ends[1], level=level, method=method)


def _plug_in(parts: Mapping[str, Array]) -> FactorSplit:
    """Compute the shares with the noise in them, and nothing on order."""
    squares = {name: float((effect**2).sum()) for name, effect in parts.items()}
    total, method = sum(squares.values()), "plug-in, includes noise"
    moves = squares[MOVING]
    coupling = squares[COUPLING] + moves

    def told(value: float) -> Estimate:
        return Estimate(value=value, method=method, reason=Reason.TOO_FEW_REPLICATES)

    refused = Estimate(value=None, reason=Reason.TOO_FEW_REPLICATES)
    return FactorSplit(
        variance_shares={name: told(each / total) for name, each in squares.items()},
        share_that_moves=told(moves / coupling) if coupling > 0 else refused,
        order_flips=refused,
        same_best=refused,
    )
