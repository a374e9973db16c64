"""Early stopping: one ASHA bracket per cell, Ray's own, rebuilt from the journal by replaying it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler

from bocb_tune.core.types import Phase
from bocb_tune.engine.policy import Plan, rung_after


@dataclass(frozen=True, slots=True)
class _Competitor:
    """The part of a Tune trial that ASHA looks at."""

    trial_id: str


class CellRungs:
    """Ray's ASHA over the trials of one cell, fed with the scores at the rungs only.

    Default, design and search trials are all recorded at their rungs; repeats are not, since they crowd the best point.
    Refine trials, which crowd it too, compete among themselves.
    A trial that diverged is recorded at the floor at the next rung it would have reached: Ray's ASHA by itself neither
    stops nor counts a score that is not a number.
    """

    def __init__(self, plan: Plan, floor: float) -> None:
        self._rungs = plan.rungs
        self._floor = floor
        self._phases: dict[str, Phase] = {}
        self._seen: set[tuple[str, int]] = set()
        self._brackets = (_bracket(plan), _bracket(plan)) if plan.rungs else ()
        """Bracket of the search, and that of the refine trials."""

    def _bracket_of(self, trial_id: str) -> AsyncHyperBandScheduler:
        return self._brackets[self._phases[trial_id] == Phase.refine]

    def add(self, trial_id: str, phase: Phase) -> None:
        if trial_id in self._phases or not self._brackets or phase == Phase.repeat:
            return
        self._phases[trial_id] = phase
        self._bracket_of(trial_id).on_trial_add(None, _Competitor(trial_id))

    def stops(self, trial_id: str, budget: int, score: float) -> bool:
        """Record a score at a rung; True if it falls below the rung's cutoff. Elsewhere False, and no record."""
        if budget not in self._rungs or trial_id not in self._phases or (trial_id, budget) in self._seen:
            return False
        self._seen.add((trial_id, budget))
        result = {"budget": budget, "score": score}
        action = self._bracket_of(trial_id).on_trial_result(None, _Competitor(trial_id), result)
        return bool(action == TrialScheduler.STOP)

    def diverged(self, trial_id: str, budget: int) -> None:
        """Record the floor at the rung a diverged trial would have reached next."""
        rung = rung_after(self._rungs, budget)
        if rung is not None:
            self.stops(trial_id, rung, self._floor)

    def replay(self, events: Iterable[Mapping[str, Any]]) -> dict[str, int]:
        """Feed a journal's events in the order they were written.

        Returns:
            The trials that a rung stopped, with its budget: what is journalled after that is the same decision, unless
            the driver died between the measurement and the end.
        """
        stopped: dict[str, int] = {}
        for event in events:
            trial_id = event["trial"]
            if event["event"] == "start":
                self.add(trial_id, Phase(event["phase"]))
            elif event["event"] == "measure":
                score = event["metrics"].get("score")  # null: it was not a finite number
                if self.stops(trial_id, event["budget"], self._floor if score is None else score):
                    stopped[trial_id] = event["budget"]
            elif event["status"] == "diverged":
                self.diverged(trial_id, event["budget"])
        return stopped

    def table(self) -> dict[int, dict[str, float]]:
        """Return the score by trial id at each rung, as ASHA holds them."""
        found: dict[int, dict[str, float]] = {}
        for scheduler in self._brackets:
            (bracket,) = scheduler._brackets
            for milestone, recorded in bracket._rungs:
                if milestone in self._rungs:
                    found.setdefault(int(milestone), {}).update(recorded)
        return found


def _bracket(plan: Plan) -> AsyncHyperBandScheduler:
    return AsyncHyperBandScheduler(
        time_attr="budget",
        metric="score",
        mode="max",
        max_t=plan.epochs,
        grace_period=plan.rungs[0],
        reduction_factor=plan.reduction_factor,
    )
