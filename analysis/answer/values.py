"""The answer as a value. Scores are the metric itself, differences are in points."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from bocb_tune.analysis.core.estimate import Estimate


class Basis(StrEnum):
    """Ground that the score of a cell rests on."""

    seeds = "seeds"
    model = "model"
    selected = "selected"
    floor = "floor"
    unknown = "unknown"


class Standing(StrEnum):
    """Place of a cell among those of its backbone, or an optimizer among all."""

    best = "best"
    tied = "tied"
    """No significant distance from the best."""
    near = "near"
    """Within the tolerance of the best, where no difference can be tested."""
    behind = "behind"
    """Further below, where no difference can be tested."""
    worse = "worse"
    """Significantly worse than the best."""
    fails = "fails"
    unknown = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """A cell among those of its backbone, or an optimizer over the grid."""

    optimizer: str
    score: Estimate
    """The metric, with its interval where there are repeated seeds or a model."""
    basis: Basis
    behind: Estimate
    """Points below the best, with an interval simultaneous over the others; 0 for the best itself."""
    standing: Standing

    def to_json(self) -> dict[str, Any]:
        """Give it as JSON holds it."""
        plain = {"basis": str(self.basis), "standing": str(self.standing)}
        return plain | {"score": self.score.to_json(), "behind": self.behind.to_json()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Contest:
    """The optimizers of one backbone, or of all, compared with the best."""

    backbone: str | None
    """None: mean over the backbones."""
    contenders: tuple[Contender, ...]
    """Best first; then those that fail; those without a score last."""
    is_tested: bool
    """Whether differences could be tested."""

    @property
    def best(self) -> Contender | None:
        """None where no cell has a score, or all fail."""
        return next((each for each in self.contenders if each.standing is Standing.best), None)

    def of(self, *standings: Standing) -> tuple[Contender, ...]:
        """Give the contenders that stand so, best first."""
        return tuple(each for each in self.contenders if each.standing in standings)

    @property
    def lead(self) -> Estimate:
        """Points between the best and the next one."""
        following = [each for each in self.contenders[1:] if each.behind.value is not None]
        return following[0].behind if following else Estimate(value=None, unit="points")

    @property
    def is_lost(self) -> bool:
        """Whether all that have a score fail."""
        return self.best is None and bool(self.of(Standing.fails))

    @property
    def is_won(self) -> bool:
        """Whether there is a best, and all others are significantly worse, or fail."""
        losers = self.of(Standing.worse, Standing.fails)
        return self.best is not None and 0 < len(losers) == len(self.contenders) - 1

    @property
    def is_significant(self) -> bool:
        """Whether there is a best, and all others are worse by a test."""
        losers = self.of(Standing.worse, Standing.fails)
        return self.is_won and all(each.behind.lo is not None and each.behind.lo > 0 for each in losers)

    def to_json(self) -> dict[str, Any]:
        """Give it as JSON holds it."""
        return {
            "best": self.best and self.best.optimizer,
            "tied": [each.optimizer for each in self.of(Standing.tied, Standing.near)],
            "is_tested": self.is_tested,
            "is_won": self.is_won,
            "optimizers": {each.optimizer: each.to_json() for each in self.contenders},
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """Decades that the learning rate of a cell may be off."""

    backbone: str
    optimizer: str
    of_own: Estimate
    """Within the tolerance of the cell's own best."""
    of_best: Estimate
    """Within the tolerance of the backbone's best."""

    @property
    def key(self) -> str:
        return f"{self.backbone}/{self.optimizer}"

    def to_json(self) -> dict[str, Any]:
        """Give it as JSON holds it."""
        return {"of_own": self.of_own.to_json(), "of_best": self.of_best.to_json()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Something to do next."""

    why: str
    do: str
    """The command to type; empty where `why` says all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """Something that cannot be said."""

    what: str
    why: str
    needs: str
    """Data that it would take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conclusion:
    """A conclusion of the paper, checked on its own table."""

    statement: str
    verdict: str
    held: int
    """Checks that hold, of `checks`."""
    checks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Everything that a grid says."""

    contests: tuple[Contest, ...]
    """One a backbone."""
    overall: Contest | None
    """Contest over the backbones on which every optimizer has a score; None where there are fewer than two of them."""
    overall_backbones: tuple[str, ...]
    same_order: tuple[str, ...]
    """Sentences on whether backbones agree on the order, and what holds for others like them."""
    coupling: tuple[str, ...]
    """Failures, share among viable cells and its test, carriers: sentences."""
    transfer: tuple[str, ...]
    """Sentences on fine-tuning by another optimizer than the pre-training; empty without pre-trainings."""
    unit: str
    """Size of a point, where the score is no share of 100; else empty."""
    tolerance: float
    """Points within which settings count as equally good, here and everywhere on the page."""
    reaches: tuple[Reach, ...]
    """Widths of the cells that have a model."""
    steps: tuple[Step, ...]
    limits: tuple[Limit, ...]
    conclusions: tuple[Conclusion, ...]
    no_score: str
    """Sentence on why there is nothing to say, where no cell has a score."""
    num_cells: int

    @property
    def dominating(self) -> str | None:
        """The optimizer whose score is the highest on every backbone, of two or more; None if there is none."""
        best = {each.best.optimizer for each in self.contests if each.best is not None}
        known = all(each.best is not None and (each.lead.value or 0.0) > 0 for each in self.contests)
        return next(iter(best)) if known and len(best) == 1 and len(self.contests) > 1 else None
