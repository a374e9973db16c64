"""One optimizer for all backbones: mean and worst regret, probability of being best, and a test on left-out backbones.

Values are a stack [1 + draws, backbones, optimizers] of points, the estimate itself first; a table of single scores is
a stack of one. Regret is against the best optimizer of the same backbone in the same draw.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import rankdata

from bocb_tune.analysis.core import bootstrap as drawn
from bocb_tune.analysis.core.arrays import Array, Index
from bocb_tune.analysis.core.estimate import Counts, Estimate
from bocb_tune.analysis.matrix.exact import CLAIM, backbones_needed, sign_flip_p, step_down
from bocb_tune.analysis.names.look import optimizer_key

MIN_BACKBONES, MIN_OPTIMIZERS = 5, 3
REPLICATES = 4000
BASELINES = ("adamw", "sgd")
"""Usual choices, made without tuning."""
METHOD = "bootstrap over backbones"


@dataclass(frozen=True, slots=True, kw_only=True)
class OverallStanding:
    """Standing of one optimizer over all backbones."""

    mean_regret: Estimate
    """Mean regret over backbones, points."""
    worst_regret: Estimate
    mean_rank: Estimate
    """Mean rank over backbones; 1 is best."""
    p_least_regret: float
    """Probability of the least mean regret."""
    p_best_rank: float
    """Probability of the best mean rank."""
    pareto: bool
    """Whether no other is better in mean or worst regret without being worse in the other."""
    tied: bool
    """Whether it is not significantly worse than the pick: the chance of as small a mean regret is at least `CLAIM`."""

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able mapping; estimates as in `metrics.json`."""
        plain = {key: getattr(self, key) for key in ("p_least_regret", "p_best_rank", "pareto", "tied")}
        return {key: getattr(self, key).to_json() for key in ("mean_regret", "worst_regret", "mean_rank")} | plain


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """Standings of all optimizers."""

    backbones: tuple[str, ...]
    pick: str
    """Optimizer with the least mean regret; ties go to the least worst regret."""
    standings: Mapping[str, OverallStanding]

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able mapping; estimates as in `metrics.json`."""
        return {
            "pick": self.pick,
            "backbones": list(self.backbones),
            "optimizers": {name: each.to_json() for name, each in self.standings.items()},
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """Regret of the recommendation on each backbone, had it been new."""

    picks: Mapping[str, str]
    """Pick of the other backbones, by backbone."""
    regret: Mapping[str, float]
    """Regret of that pick, by backbone, points."""
    mean: Estimate
    """Mean regret over backbones."""
    always: Mapping[str, Estimate]
    """Mean regret of using one optimizer throughout: the best in hindsight, and AdamW and SGD where the grid has
    them."""
    gain: Mapping[str, Estimate]
    """Points by which the recommendation is better than each of these, paired by backbone."""
    p: Mapping[str, float]
    """Exact probability of so large a gain over each if its sign were random, adjusted for there being several."""

    def beats(self, optimizer: str) -> bool:
        """Tell whether the recommendation is significantly better."""
        return self.p[optimizer] <= CLAIM

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able mapping; estimates as in `metrics.json`."""
        tables = {key: {name: e.to_json() for name, e in getattr(self, key).items()} for key in ("always", "gain")}
        plain = {"picks": dict(self.picks), "regret": dict(self.regret), "p": dict(self.p)}
        return {**plain, "mean": self.mean.to_json(), **tables}

    def lines(self) -> tuple[str, ...]:
        """Describe the test in sentences; no optimizer is compared with itself."""
        counts = Counter(self.picks.values()).most_common()
        picked = ", ".join(f"{name} {times} of {len(self.picks)} times" for name, times in counts)
        first = (
            f"Leaving out each backbone in turn, the others pick {picked}. On the backbone left out, this costs "
            f"{_span(self.mean)} points on average."
        )
        return (first, *(self._against(name) for name in self.always if set(self.picks.values()) != {name}))

    def _against(self, name: str) -> str:
        gain, needed = self.gain[name], backbones_needed(len(self.p))
        test = f"{'' if self.beats(name) else 'not '}significant, p = {self.p[name]:.2g}"
        few = f"; with fewer than {needed} backbones it cannot be" if len(self.picks) < needed else ""
        ends = "" if gain.lo is None else f"95 % CI {gain.lo:.2f} to {gain.hi:.2f}; "
        return (
            f"Always using {name} costs {_span(self.always[name])} points on average; the recommendation saves "
            f"{gain.value:.2f} ({ends}{test}{few})."
        )


def rank_optimizers(
    values: Array, backbones: tuple[str, ...], optimizers: tuple[str, ...], counts: Counts, rng: np.random.Generator
) -> Ranking:
    """Rank the optimizers from a stack of complete tables."""
    replicates, times = _replicates(values, rng)
    regret, ranks = _regret(replicates), rankdata(-replicates, axis=2)
    chosen = times > 0
    mean = np.einsum("rb,rbo->ro", times, regret) / len(backbones)
    worst = np.where(chosen[:, :, None], regret, 0).max(axis=1)
    rank = np.einsum("rb,rbo->ro", times, ranks) / len(backbones)
    p_regret, p_rank = _share_best(mean[1:]), _share_best(rank[1:])
    pick = _pick(regret[0])
    tied = (mean[1:] <= mean[1:, [pick]]).mean(axis=0) >= CLAIM
    standings = {
        name: OverallStanding(
            mean_regret=_estimate(mean[:, o], "points", counts),
            worst_regret=_estimate(worst[:, o], "points", counts),
            mean_rank=_estimate(rank[:, o], "rank", counts),
            p_least_regret=float(p_regret[o]),
            p_best_rank=float(p_rank[o]),
            pareto=not _dominated(mean[0], worst[0], o),
            tied=bool(tied[o]),
        )
        for o, name in enumerate(optimizers)
    }
    return Ranking(backbones=backbones, pick=optimizers[pick], standings=standings)


def leave_one_out(
    values: Array,
    others: Array,
    backbones: tuple[str, ...],
    optimizers: tuple[str, ...],
    counts: Counts,
    rng: np.random.Generator,
) -> HeldOut:
    """Score the pick made without each backbone on that backbone.

    Args:
        values: the stack in which the held-out backbones are scored.
        others: [held out, backbones, optimizers], the table that the pick is made from when one backbone is held out,
            without what was learnt on it; its own row is ignored.
        backbones: names.
        optimizers: names.
        counts: of all cells.
        rng: of the bootstrap.
    """
    names = range(len(backbones))
    picks = np.array([_pick(_regret(np.delete(others[b], b, axis=0))) for b in names])
    usual = [o for o, name in enumerate(optimizers) if optimizer_key(name) in BASELINES]
    baselines = {optimizers[o]: np.full(len(backbones), o) for o in usual}
    hindsight = _pick(_regret(values[0]))
    baselines[optimizers[hindsight]] = np.full(len(backbones), hindsight)
    replicates, times = _replicates(values, rng)
    regret = _regret(replicates)
    taken = _mean_of(regret, picks, times)
    always = {name: _mean_of(regret, column, times) for name, column in baselines.items()}
    rows = np.arange(len(backbones))
    p = {name: sign_flip_p(regret[0, rows, o] - regret[0, rows, picks], rng) for name, o in baselines.items()}
    return HeldOut(
        picks={backbones[b]: optimizers[picks[b]] for b in names},
        regret={backbones[b]: float(regret[0, b, picks[b]]) for b in names},
        mean=_estimate(taken, "points", counts),
        always={name: _estimate(mean, "points", counts) for name, mean in always.items()},
        gain={name: _estimate(mean - taken, "points", counts) for name, mean in always.items()},
        p=step_down(p),
    )


def _replicates(values: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    """Resample backbones and draws.

    Returns:
        The estimate and its replicates [1 + replicates, backbones, optimizers], and how often each backbone is in them
        [1 + replicates, backbones].
    """
    draws = values[1:] if len(values) > 1 else values
    picked = drawn.pick_draws(draws[..., None], rng, REPLICATES)[..., 0]
    times = drawn.resampled_backbones(values.shape[1], rng, REPLICATES)
    return np.concatenate([values[:1], picked]), np.concatenate([np.ones_like(times[:1]), times])


def _regret(values: Array) -> Array:
    """Subtract from the best of each row [..., backbones, optimizers]."""
    regret: Array = values.max(axis=-1, keepdims=True) - values
    return regret


def _pick(regret: Array) -> int:
    """Choose the least mean regret, ties by the worst, from [backbones, optimizers]."""
    return int(np.lexsort((regret.max(axis=0), np.round(regret.mean(axis=0), 9)))[0])


def _dominated(mean: Array, worst: Array, o: int) -> bool:
    as_good = (mean <= mean[o]) & (worst <= worst[o])
    return bool(np.any(as_good & ((mean < mean[o]) | (worst < worst[o]))))


def _mean_of(regret: Array, columns: Index, times: Array) -> Array:
    """Compute the mean regret of one optimizer per backbone [1 + replicates]."""
    taken = regret[:, np.arange(len(columns)), columns]
    mean: Array = (taken * times).sum(axis=1) / len(columns)
    return mean


def _share_best(values: Array) -> Array:
    """Compute how often each optimizer has the smallest value [optimizers], from [replicates, optimizers]."""
    best = values == values.min(axis=1, keepdims=True)
    share: Array = (best / best.sum(axis=1, keepdims=True)).mean(axis=0)
    return share


def _estimate(values: Array, unit: str, counts: Counts) -> Estimate:
    return drawn.estimate(float(values[0]), values[1:], unit=unit, counts=counts, method=METHOD)


def _span(estimate: Estimate) -> str:
    interval = "" if estimate.lo is None else f" ({estimate.lo:.2f} to {estimate.hi:.2f})"
    return f"{estimate.value:.2f}{interval}"
