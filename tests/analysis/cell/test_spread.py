"""Intervals of cells whose trials were stopped early, for which one model says what those would have come to."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bocb_tune.analysis.cell import sensitivity
from bocb_tune.analysis.core.estimate import Estimate
from tests.support.coverage.curves import landscape
from tests.support.coverage.landscapes import bowl


def width(estimate: Estimate) -> float:
    assert estimate.lo is not None
    assert estimate.hi is not None
    return estimate.hi - estimate.lo


def test_scores_are_less_sure_where_trials_were_stopped() -> None:
    stopped = landscape(bowl)
    whole = replace(stopped, counts=replace(stopped.counts, n_stopped=0, n_completed=60))
    known, unsure = sensitivity.best_score(whole), sensitivity.best_score(stopped)
    assert unsure.value == known.value
    assert width(unsure) == pytest.approx(sensitivity.STOPPED_SPREAD * width(known), rel=1e-4)


def test_no_interval_of_a_score_leaves_what_a_score_can_be() -> None:
    stopped = landscape(bowl, spread=30.0)
    found = sensitivity.best_score(replace(stopped, top=100.0))
    assert (found.lo or 0) >= stopped.floor
    assert found.hi == 100.0
