"""Intervals hold the truth on landscapes that nobody here made, at seeds that neither the table nor the model saw."""

from __future__ import annotations

import numpy as np
import pytest

from bocb_tune.analysis.core import bootstrap as draws
from tests.support.coverage import real_landscapes
from tests.support.coverage.intervals import Answered, held
from tests.support.coverage.real_landscapes import WHAT, jobs, stated

LEAST, LEAST_MEAN = 0.75, 0.82
"""Of nominal .90: of each number over 128 cells (standard error .03), and on average."""
MOST_REFUSED = 0.25
"""At 64 trials."""
MOST_BIAS = 0.5
"""Points, of the expected score at the point found."""
REPLICATES_AT_64 = 10
"""For shares refused and bias: 160 cells, standard error .08 points; of 32 cells it would be .17."""


@pytest.mark.slow
def test_each_number_holds_the_truth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draws, "LEVEL", draws.LEVEL)  # the harness changes it
    monkeypatch.setattr(real_landscapes, "FIRST_SEED", 1000)
    common = jobs()
    found = [each for job in common for each in stated(job)]
    shares = {what: held(each for each in found if each.what == what) for what in WHAT}
    assert {what: share for what, share in shares.items() if not share >= LEAST} == {}
    assert np.mean(list(shares.values())) >= LEAST_MEAN
    further = [job for job in jobs(REPLICATES_AT_64) if job[0] == "64" and job not in common]
    at_64 = [each for each in found if each.where == "64"] + [each for job in further for each in stated(job)]
    assert np.mean([each.estimate.value is None for each in at_64]) <= MOST_REFUSED
    assert abs(bias(at_64, "expected score at the best point")) <= MOST_BIAS


def bias(found: list[Answered], what: str) -> float:
    return float(np.mean([each.error for each in found if each.what == what and each.estimate.value is not None]))
