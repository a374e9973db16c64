"""What must not change a metric: the unit of the learning rate, the scale of the score, the order of trials, copies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bocb_tune.analysis.cell.metrics import METRICS, measure
from bocb_tune.analysis.checks.run import run_checks
from bocb_tune.analysis.core.estimate import Estimate
from bocb_tune.analysis.findings.collect import find
from bocb_tune.analysis.landscape.fit import Landscape, fit_landscape
from bocb_tune.analysis.landscape.scale import Scale
from bocb_tune.analysis.landscape.surface import Domain
from bocb_tune.analysis.landscape.trials import CellTrials
from bocb_tune.analysis.sources.load import load
from tests.support.coverage.landscapes import BOWL, simulate

TRIALS = simulate(replace(BOWL, cliff=-1.2), 48, seed=5)
LINEAR = Scale(bounded=False, floor=1.0)
KILO = 1000.0
GAIN, OFFSET = 2.0, 10.0

Change = Callable[[float], float]


def same(value: float) -> float:
    return value


def times(factor: float, value: float) -> float:
    return factor * value


def moved(value: float) -> float:
    return GAIN * value + OFFSET


POINTS: Change = partial(times, GAIN)
AT_ANOTHER_TOLERANCE = {
    "near_optimal_volume": "near_optimal_volume_at_2",
    "usable_decades_lr": "usable_decades_lr_at_2",
    "near_optimal_volume_at_5": "near_optimal_volume_at_10",
    "usable_decades_lr_at_5": "usable_decades_lr_at_10",
}
"""Widths at a tolerance in points: twice the score has the same width at twice the tolerance."""
NOT_COMPARED = {
    *("random_trials_needed", "usable_decades_lr_profile", "usable_decades_wd", "usable_decades_wd_profile"),
    *("near_optimal_volume_at_2", "near_optimal_volume_at_10", "usable_decades_lr_at_2", "usable_decades_lr_at_10"),
    *("curvature_lr", "curvature_wd", "curvature_correlation", "anisotropy", "orientation"),
}
"""Given at one tolerance only, or read off a neighbourhood of half a logit, which no other scale has."""
IN_POINTS = {"lr_sensitivity", "lr_sensitivity_window", "prior_mean_regret"}


def estimates(trials: CellTrials, domain: Domain, scale: Scale) -> dict[str, Estimate]:
    cell = fit_landscape(trials, domain, scale)
    assert isinstance(cell, Landscape), cell
    return measure(cell)


@cache
def plain() -> Mapping[str, Estimate]:
    return estimates(TRIALS, BOWL.domain, LINEAR)


def check(found: Estimate, first: Estimate, change: Change) -> None:
    """Value and refusal alike, to what the fit converges to; ends to a quarter of the interval, since trees turn with
    last digits: scores multiplied by 1 + 1e-13 move the low end of the sensitivity from 9.9 to 14.2 points."""
    assert found.reason == first.reason
    if first.value is None or found.value is None:
        assert (found.value, found.lo, found.hi) == (first.value, first.lo, first.hi)
        return
    assert found.value == pytest.approx(change(first.value), rel=0.06, abs=0.025)
    assert (found.lo is None, found.hi is None) == (first.lo is None, first.hi is None)
    if first.lo is None or first.hi is None or found.lo is None or found.hi is None:
        return
    lo, hi = change(first.lo), change(first.hi)
    slack = max(abs(hi - lo) / 4, 0.1)
    assert (found.lo, found.hi) == (pytest.approx(lo, abs=slack), pytest.approx(hi, abs=slack))


def test_the_unit_of_the_learning_rate_does_not_matter() -> None:
    domain = replace(BOWL.domain, lr=(BOWL.domain.lr[0] + 3, BOWL.domain.lr[1] + 3))
    found = estimates(replace(TRIALS, lr=KILO * TRIALS.lr), domain, LINEAR)
    for metric in METRICS:
        change = partial(times, KILO) if metric.key == "lr_star" else same
        check(found[metric.key], plain()[metric.key], change)


def test_the_scale_of_the_score_matters_only_to_points() -> None:
    scale = Scale(bounded=False, floor=moved(LINEAR.floor))
    found = estimates(replace(TRIALS, record_score=moved(TRIALS.record_score)), BOWL.domain, scale)
    for metric in METRICS:
        if metric.key in NOT_COMPARED:
            continue
        change = moved if metric.key == "expected_score" else POINTS if metric.key in IN_POINTS else same
        check(found[AT_ANOTHER_TOLERANCE.get(metric.key, metric.key)], plain()[metric.key], change)


def test_every_metric_is_compared_or_named() -> None:
    assert {metric.key for metric in METRICS} >= NOT_COMPARED | IN_POINTS | set(AT_ANOTHER_TOLERANCE)


def test_the_order_of_trials_does_not_matter() -> None:
    order = np.random.default_rng(0).permutation(len(TRIALS.lr))
    place = np.argsort(order)
    records = np.argsort(place[TRIALS.record_trial], kind="stable")
    shuffled = CellTrials(
        lr=TRIALS.lr[order],
        weight_decay=TRIALS.weight_decay[order],
        diverged=TRIALS.diverged[order],
        completed=TRIALS.completed[order],
        audit=TRIALS.audit[order],
        share=TRIALS.share[order],
        record_trial=place[TRIALS.record_trial][records],
        record_share=TRIALS.record_share[records],
        record_score=TRIALS.record_score[records],
    )
    assert estimates(shuffled, BOWL.domain, LINEAR) == plain()


def rows(noise: float) -> pd.DataFrame:
    """Three seeds at one setting of every cell of a grid."""
    rng = np.random.default_rng(3)
    cells = [(b, o, s, 70 + 3 * (b == "a") + rng.normal(0, noise)) for b in "ab" for o in "xy" for s in range(3)]
    frame = pd.DataFrame(cells, columns=["backbone", "optimizer", "seed", "score"])
    return frame.assign(lr=0.1, weight_decay=0.01)


def test_a_row_given_twice_is_no_new_information(tmp_path: Path) -> None:
    once, twice = tmp_path / "once.csv", tmp_path / "twice.csv"
    rows(1.0).to_csv(once, index=False)
    pd.concat([rows(1.0), rows(1.0)]).to_csv(twice, index=False)
    first, second = (find(load(str(path))) for path in (once, twice))
    assert [cell.best for cell in first.cells] == [cell.best for cell in second.cells]
    np.testing.assert_array_equal(first.matrix, second.matrix)
    assert any("12 row(s) repeat an earlier row" in check.message for check in run_checks(second))


def test_a_seed_given_twice_under_two_names_is_told(tmp_path: Path) -> None:
    frame = rows(1.0)
    named = pd.concat([frame.assign(trial=[f"{name}{n}" for n in range(len(frame))]) for name in "pq"])
    named.to_csv(tmp_path / "named.csv", index=False)
    found = {check.name: check for check in run_checks(find(load(str(tmp_path / "named.csv"))))}
    assert "12 trial(s) have the setting, the seed and the score of another" in found["same_seed"].message
