"""The evidence for a recommendation, and the recommendation as a value, as JSON and in sentences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from bocb_tune.analysis.cell.sensitivity import EPSILON
from bocb_tune.analysis.cell.tuning_curves import TuningCurve
from bocb_tune.analysis.core.arrays import Array, Flags
from bocb_tune.analysis.core.estimate import Counts, Estimate, Reason, known, of_metric
from bocb_tune.analysis.landscape.fit import Landscape, NoLandscape
from bocb_tune.analysis.recommend.candidates import SearchRange
from bocb_tune.analysis.recommend.ranking import HeldOut, Ranking
from bocb_tune.analysis.sources.costs import NO_COST, TrialCost, mean_cost
from bocb_tune.analysis.tuning.settings import Setting
from bocb_tune.core.space import setting_text
from bocb_tune.core.types import Objective

WORSE = 0.025
"""Probability of being as good as the pick below which an optimizer is significantly worse."""
FROM_LANDSCAPES = "landscapes of the cells"
FROM_SCORES = "one score per cell, taken as it is"
FROM_SEEDS = "repeated seeds of the cells"


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Everything a recommendation is made from."""

    backbones: tuple[str, ...]
    optimizers: tuple[str, ...]
    scores: Array
    """Value of each cell [backbones, optimizers], points, NaN where there is none."""
    sd: Array | None = None
    """Standard errors of the scores [backbones, optimizers], points, NaN where not known."""
    worse: Flags | None = None
    """Cells that repeated seeds show to be worse than the best of their backbone [backbones, optimizers]."""
    lr: Array
    """Learning rate of the best setting seen in each cell [backbones, optimizers], NaN where unknown."""
    weight_decay: Array
    landscapes: Mapping[tuple[str, str], Landscape | NoLandscape] = field(default_factory=dict)
    """Landscapes by (backbone, optimizer); empty for a source without settings."""
    curves: Mapping[tuple[str, str], TuningCurve] = field(default_factory=dict)
    """Tuning curve of every cell that has a landscape."""
    counts: Counts
    """Counts of all cells together."""
    tolerance: float = EPSILON
    """Points within which settings count as equally good."""
    costs: Mapping[tuple[str, str], TrialCost] = field(default_factory=dict)
    """Cost of one trial, by (backbone, optimizer)."""

    @property
    def has_seeds(self) -> bool:
        """Whether any cell's error is known from repeated seeds."""
        return self.sd is not None and bool(np.isfinite(self.sd).any())

    def worse_on(self, backbone: str) -> set[str]:
        """List the optimizers that repeated seeds show to be worse than the best on a backbone."""
        if self.worse is None:
            return set()
        row = self.worse[self.backbones.index(backbone)]
        return {name for name, is_worse in zip(self.optimizers, row, strict=True) if is_worse}

    def cost(self, backbones: Sequence[str], optimizer: str, trials: int) -> TrialCost:
        """Compute the cost of so many trials, on average over some backbones."""
        return mean_cost(self.costs.get((name, optimizer), NO_COST) for name in backbones).times(trials)

    def of_backbone(self, backbone: str) -> dict[str, Landscape]:
        """Select the landscapes of one backbone, by optimizer."""
        return {o: self._landscape(backbone, o) for o in self.optimizers if (backbone, o) in self.curves}

    def of_optimizer(self, optimizer: str) -> dict[str, Landscape]:
        """Select the landscapes of one optimizer, by backbone."""
        return {b: self._landscape(b, optimizer) for b in self.backbones if (b, optimizer) in self.curves}

    def not_judged(self, backbone: str) -> tuple[tuple[str, Reason], ...]:
        """List the optimizers without a landscape on a backbone, each with the reason."""
        missing = [name for name in self.optimizers if (backbone, name) not in self.curves]
        cells = ((name, self.landscapes.get((backbone, name))) for name in missing)
        return tuple(
            (name, cell.reason if isinstance(cell, NoLandscape) else Reason.NOT_SEARCHED) for name, cell in cells
        )

    def _landscape(self, backbone: str, optimizer: str) -> Landscape:
        cell = self.landscapes[backbone, optimizer]
        assert isinstance(cell, Landscape), "a cell with a tuning curve has a landscape"
        return cell


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """A recommendation, or the reason for there being none."""

    backbone: str | None
    """Backbone it is for; None for any backbone like those of the grid."""
    trials: int
    """Number of trials one can afford."""
    optimizer: str | None
    """Recommended optimizer; None where refused: `reason` and `detail` say why."""
    setting: Setting | None = None
    """Setting of the first trial; None where the source has no settings."""
    own: Mapping[str, float] = field(default_factory=dict)
    """The optimizer's own hyper-parameters, where refining them gained over fresh seeds; else they stay as fixed."""
    gained: Estimate | None = None
    """Gain of refining them, points."""
    search_range: SearchRange | None = None
    """Ranges to search with the other trials."""
    expected: Estimate
    """Expected score, points."""
    p_best: float | None = None
    """Probability that no other optimizer is better; None if the source does not provide it."""
    regret: Estimate
    """Loss if another optimizer would have been better, points."""
    cost: TrialCost = NO_COST
    """Cost of the trials, at the costs of the grid."""
    tied: tuple[str, ...] = ()
    """Other optimizers that are not significantly worse, the more robust first; with single scores, those nearby."""
    leader: str | None = None
    """Optimizer that leads by repeated seeds, where another is recommended."""
    by_seeds: tuple[str, ...] = ()
    """Optimizers without a landscape, judged by repeated seeds."""
    not_judged: tuple[tuple[str, Reason], ...] = ()
    """Optimizers left out, each with the reason."""
    method: str = ""
    reason: Reason | None = None
    detail: str = ""

    @classmethod
    def refused(cls, backbone: str | None, trials: int, reason: Reason, detail: str) -> Recommendation:
        """Make a refusal."""
        none = Estimate(value=None, unit="points", reason=reason)
        return cls(
            backbone=backbone,
            trials=trials,
            optimizer=None,
            expected=none,
            regret=none,
            reason=reason,
            detail=detail,
        )

    def of_metric(self, objective: Objective) -> Recommendation:
        """Convert the expected score to the metric itself."""
        return replace(self, expected=metric_within_bounds(self.expected, objective))

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able mapping; estimates as in `metrics.json`."""
        plain = {key: getattr(self, key) for key in ("backbone", "trials", "optimizer", "p_best", "method", "detail")}
        return plain | {
            "lr": self.setting and self.setting.lr,
            "weight_decay": self.setting and known(self.setting.weight_decay),
            "own": dict(self.own),
            "refining_gain": self.gained and self.gained.to_json(),
            "box": self.search_range and asdict(self.search_range),
            "expected": self.expected.to_json(),
            "regret": self.regret.to_json(),
            "cost": {name: known(value) for name, value in asdict(self.cost).items()},
            "tied": list(self.tied),
            "leader_by_seeds": self.leader,
            "judged_by_seeds": list(self.by_seeds),
            "not_judged": {name: str(reason) for name, reason in self.not_judged},
            "status": "refused" if self.optimizer is None else "ok",
            "reason": self.reason,
        }

    @property
    def difference(self) -> str:
        """Say why the leader by repeated seeds is not recommended, if it is not."""
        if self.leader is None:
            return ""
        better = "is expected to score more" if self.trials > 1 else "scores more in an unlucky run"
        return (
            f"{self.leader} leads by repeated seeds, not significantly; taken together with the landscapes, "
            f"{self.optimizer} {better}."
        )

    def lines(self) -> tuple[str, ...]:
        """Describe the recommendation in sentences."""
        target = self.backbone or "a backbone like those of the grid"
        budget = f"{self.trials} trial{'s' * (self.trials != 1)}"
        if self.optimizer is None:
            assert self.reason is not None
            return (f"No recommendation for {target}: {self.reason.sentence}. {self.detail}".strip(),)
        first = f"For {target} and {budget}: {self.optimizer}{_in_words(self.setting)}."
        refined = f"With {setting_text(self.own)}: refining gained {_number(self.gained)}." if self.gained else ""
        elsewhere = self.search_range is not None and self.trials > 1
        search = f"Search the other {self.trials - 1} in {self.search_range}." if elsewhere else ""
        sure = "" if self.p_best is None else f"{self.optimizer} is the best with probability {self.p_best:.2f}."
        is_single = self.backbone is not None and self.method == FROM_SCORES
        near = "Within the tolerance of it, not tested" if is_single else "Not significantly worse"
        tied = f"{near}: {', '.join(self.tied)}." if self.tied else ""
        seeds = f"Without a landscape, judged by repeated seeds: {', '.join(self.by_seeds)}." if self.by_seeds else ""
        left_out = f"Not judged: {_by_reason(self.not_judged)}." if self.not_judged else ""
        numbers = f"Expected score {_number(self.expected)}, regret {_number(self.regret)}."
        cost = f"Cost, as in the grid: {self.cost}." if str(self.cost) else ""
        lines = (
            first,
            refined,
            search,
            numbers,
            sure,
            tied,
            self.difference,
            seeds,
            cost,
            left_out,
            f"From {self.method}.",
        )
        return tuple(line for line in lines if line)


@dataclass(frozen=True, slots=True, kw_only=True)
class General:
    """One optimizer for any backbone, with the test on left-out backbones."""

    recommendation: Recommendation
    fixed: Ranking | None
    """Ranking with one setting per optimizer on all backbones; for a source without landscapes, by its scores."""
    tuned: Ranking | None
    """Ranking with the trials spent on each backbone; None for one trial or without landscapes."""
    held_out: HeldOut | None

    def of_metric(self, objective: Objective) -> General:
        """Convert the expected score to the metric itself."""
        return replace(self, recommendation=self.recommendation.of_metric(objective))

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able mapping."""
        rankings = {"fixed": self.fixed, "tuned": self.tuned}
        return {
            **self.recommendation.to_json(),
            **{name: ranking and ranking.to_json() for name, ranking in rankings.items()},
            "held_out": self.held_out and self.held_out.to_json(),
        }

    def lines(self) -> tuple[str, ...]:
        """Describe the recommendation and its test in sentences."""
        return self.recommendation.lines() + (self.held_out.lines() if self.held_out else ())


def metric_within_bounds(score: Estimate, objective: Objective) -> Estimate:
    """Convert a score to its metric, the ends of its interval limited to 0 to 100 where it is a share."""
    found = of_metric(score, objective)
    if not objective.is_bounded or found.lo is None or found.hi is None:
        return found
    return replace(found, lo=max(found.lo, 0.0), hi=min(found.hi, 100.0))


def _in_words(setting: Setting | None) -> str:
    if setting is None:
        return ""
    decay = "" if math.isnan(setting.weight_decay) else f", weight decay {setting.weight_decay:.2g}"
    return f", lr {setting.lr:.2g}{decay}"


def _by_reason(refused: Sequence[tuple[str, Reason]]) -> str:
    """Name what is refused, by reason in words."""
    names: dict[Reason, list[str]] = {}
    for name, reason in refused:
        names.setdefault(reason, []).append(name)
    return "; ".join(f"{', '.join(each)} ({reason.sentence})" for reason, each in names.items())


def _number(estimate: Estimate) -> str:
    if estimate.value is None:
        return "not known"
    style, unit = (".2f", "") if estimate.unit == "points" else (".4g", f" ({estimate.unit})")
    interval = "" if estimate.lo is None else f" ({estimate.lo:{style}} to {estimate.hi:{style}})"
    return f"{estimate.value:{style}}{interval}{unit}"


def check_trials(trials: int) -> None:
    """Check that a number of trials can be spent.

    Raises:
        ValueError: if it is below 1.
    """
    if trials < 1:
        raise ValueError(f"a recommendation needs at least 1 trial, not {trials}")
