"""Two runs of one grid: planted changes come out, what cannot be matched is named, intervals cover."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bocb_tune.analysis.core.estimate import Estimate, Reason
from bocb_tune.analysis.core.intervals import mean_interval, welch_interval
from bocb_tune.analysis.findings.collect import find
from bocb_tune.analysis.findings.comparison import compare, compare_findings, difference, differing, to_json
from bocb_tune.analysis.sources.conditions import FINGERPRINT, conditions
from bocb_tune.analysis.sources.load import load
from bocb_tune.analysis.sources.table import SourceError, TrialTable
from bocb_tune.core.space import Dim
from tests.support.fakes import FakeRun, write_run

BACKBONES, OPTIMIZERS = ("a", "b", "c", "d"), ("x", "y", "z")
ADDITIVE = np.add.outer(np.array([60.0, 65, 70, 75]), np.array([-2.0, 0, 2]))
NOISE = np.array([-0.3, 0.0, 0.3])
"""Of three seeds."""
T2 = 4.30265272970
"""Student's t with 2 degrees of freedom, 97.5 %."""


def table_of(
    tmp_path: Path,
    name: str,
    scores: np.ndarray[tuple[int, int], np.dtype[np.float64]],
    backbones: tuple[str, ...] = BACKBONES,
    seeds: int = 3,
) -> TrialTable:
    """A table of one point a cell, NaN where missing, and its seeds."""
    rows = [
        {"backbone": backbone, "optimizer": optimizer, "score": scores[i, j] + NOISE[seed], "seed": seed}
        | {"lr": 0.1, "weight_decay": 0.0, "budget": 9, "max_budget": 9}
        for i, backbone in enumerate(backbones)
        for j, optimizer in enumerate(OPTIMIZERS)
        for seed in range(seeds)
        if np.isfinite(scores[i, j])
    ]
    path = tmp_path / f"{name}.csv"
    pd.DataFrame(rows).to_csv(path, index=False)
    return load(str(path))


def test_a_run_does_not_differ_from_itself(tmp_path: Path) -> None:
    table = load(str(write_run(tmp_path, FakeRun(trials=4, backbones=BACKBONES))))
    found = compare(table, table)
    assert found.overall.value == 0
    assert {pair.change.value for pair in found.cells.values()} == {0}
    assert found.interaction_share.change.value == 0
    assert (found.only_first, found.only_second, found.without_value, found.notes) == ((), (), (), ())


def test_a_planted_change_comes_out(tmp_path: Path) -> None:
    change = np.zeros((4, 3))
    change[:, 1] = [1, 2, 3, 4]
    found = compare(table_of(tmp_path, "one", ADDITIVE), table_of(tmp_path, "two", ADDITIVE + change))
    assert found.names == ("one.csv", "two.csv")
    assert {key: round(pair.change.value or 0, 9) for key, pair in found.cells.items()} == {
        (backbone, optimizer): change[i, j]
        for i, backbone in enumerate(BACKBONES)
        for j, optimizer in enumerate(OPTIMIZERS)
    }
    assert found.overall.value == pytest.approx(2.5 / 3)
    assert found.backbones["d"].value == pytest.approx(4 / 3)
    assert found.optimizers["y"].value == pytest.approx(2.5)
    assert (found.optimizers["y"].lo, found.optimizers["y"].hi) == pytest.approx(mean_interval(np.arange(1.0, 5)))
    assert found.optimizers["x"].value == pytest.approx(0)


def test_the_interval_of_a_cell_is_made_of_those_of_its_two_values(tmp_path: Path) -> None:
    found = compare(table_of(tmp_path, "one", ADDITIVE), table_of(tmp_path, "two", ADDITIVE + 1))
    change = found.cells["a", "x"].change
    own, pooled = (math.sqrt(2) * t * 0.3 / math.sqrt(3) for t in (T2, 1.96))
    assert change.value == pytest.approx(1)
    assert change.lo is not None
    assert change.hi is not None
    assert (change.lo + change.hi) / 2 == pytest.approx(1)
    assert pooled <= change.hi - 1 < own, "the noise of all cells together is known better than that of one"
    assert change.counts.n_seeds == 6


def test_the_shares_of_the_same_cells_are_compared(tmp_path: Path) -> None:
    interaction = 4 * np.array([[1.0, -1, 0], [-1, 1, 0], [1, -1, 0], [-1, 1, 0]])
    found = compare(table_of(tmp_path, "one", 2 * ADDITIVE - 60), table_of(tmp_path, "two", ADDITIVE + interaction))
    share = found.interaction_share
    assert share.first.value == pytest.approx(0, abs=1e-3)
    assert share.second.value == pytest.approx(0.8, abs=0.01)  # 128 of 128 + 32, noise taken off
    assert share.change.value == pytest.approx(share.second.value, abs=1e-3)
    assert share.change.lo is not None
    assert 0 < share.change.lo < share.change.value


def test_cells_that_do_not_match_are_named_and_left_out(tmp_path: Path) -> None:
    scores = ADDITIVE.copy()
    scores[1, 2] = np.nan
    first = table_of(tmp_path, "one", scores)
    second = table_of(tmp_path, "two", ADDITIVE + 1, backbones=("a", "b", "c", "e"))
    found = compare(first, second)
    assert found.only_first == ("d/x", "d/y", "d/z")
    assert found.only_second == ("e/x", "e/y", "e/z")
    assert found.without_value == ("b/z",)
    assert len(found.cells) == 8
    assert found.overall.value == pytest.approx(1)
    assert found.interaction_share.change.reason == Reason.INCOMPLETE_MATRIX
    assert "mean paired change over 2 optimizers" in found.backbones["b"].method
    assert (found.backbones["b"].lo, found.backbones["b"].reason) == (None, Reason.TOO_FEW_OPTIMIZERS)


def test_what_else_differs_is_said(tmp_path: Path) -> None:
    dims = {
        "lr": Dim(name="lr", low=1e-4, high=1.0),
        "weight_decay": Dim(name="weight_decay", low=1e-5, high=1e-2, zero_mass=0.1),
    }
    first = replace(table_of(tmp_path, "one", ADDITIVE), spaces={"x": dims, "y": dims})
    second = replace(
        first,
        spaces={"x": {**dims, "weight_decay": Dim(name="weight_decay", low=1e-6, high=1e-2)}},
        validated_on_test=True,
        objective=replace(first.objective, metric="ap", floor=0.1),
        trials=first.trials.assign(max_budget=300.0),
    )
    assert compare(first, second).notes == (
        "The metric is score in one.csv and ap in one.csv.",
        "The floor is nan in one.csv and 0.1 in one.csv.",
        "The largest full budget is 9 in one.csv and 300 in one.csv.",
        "The split that settings were selected on is validation in one.csv and test in one.csv.",
        "The range of weight_decay of x is 1e-05 to 0.01 or 0 in one.csv and 1e-06 to 0.01 in one.csv.",
    )


def test_runs_that_cannot_be_compared_are_refused(tmp_path: Path) -> None:
    first = table_of(tmp_path, "one", ADDITIVE)
    with pytest.raises(
        SourceError, match=r"no cell in common \(a, b, c, d x x, y, z; k, l, m, n x x, y, z\).* same names"
    ):
        compare(first, table_of(tmp_path, "two", ADDITIVE, backbones=("k", "l", "m", "n")))
    with pytest.raises(SourceError, match=r"one\.csv and one\.csv have scores in points \(max\) and units \(max\)"):
        compare(first, replace(first, objective=replace(first.objective, unit="units")))
    running = replace(first, trials=first.trials.assign(status="running"))
    with pytest.raises(SourceError, match="none of the 12 cells they share has a value in both; continue the runs"):
        compare(first, running)


def test_a_comparison_is_json(tmp_path: Path) -> None:
    scores = ADDITIVE.copy()
    scores[1, 2] = np.nan
    found = to_json(compare(table_of(tmp_path, "one", scores, seeds=1), table_of(tmp_path, "two", ADDITIVE + 1)))
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["cells"]["a/x"]["change"]["value"] == pytest.approx(1 + 0.3)  # the first run has the first seed only
    assert found["without_value"] == ["b/z"]


def test_a_side_without_interval_leaves_the_difference_without_one() -> None:
    exact, bare = Estimate(value=1.0, lo=0.5, hi=2.0), Estimate(value=3.0, reason=Reason.TOO_FEW_REPLICATES)
    refused = Estimate(value=None, reason=Reason.ALL_DIVERGED)
    found = difference(exact, bare)
    assert (found.value, found.lo, found.hi, found.reason) == (2.0, None, None, Reason.TOO_FEW_REPLICATES)
    for pair in ((exact, refused), (refused, exact)):
        assert (difference(*pair).value, difference(*pair).reason) == (None, Reason.ALL_DIVERGED)


def test_a_difference_turned_round_is_the_same() -> None:
    one, other = Estimate(value=1.0, lo=0.0, hi=5.0), Estimate(value=2.0, lo=1.5, hi=2.1)
    there, back = difference(one, other), difference(other, one)
    assert (there.value, there.lo, there.hi) == (-(back.value or 0), -(back.hi or 0), -(back.lo or 0))
    assert (there.lo, there.hi) == pytest.approx((1 - math.hypot(0.5, 4), 1 + math.hypot(0.1, 1)))


def test_intervals_cover() -> None:
    """Three and six seeds with different noise, 600 repetitions."""
    rng = np.random.default_rng(0)
    few, many = rng.normal(0, 1, (600, 3)), rng.normal(0.5, 0.5, (600, 6))
    hits = np.zeros((600, 3))
    for row, (one, other) in enumerate(zip(few, many, strict=True)):
        gap = float(other.mean() - one.mean())
        sides = [Estimate(value=float(x.mean()), lo=mean_interval(x)[0], hi=mean_interval(x)[1]) for x in (one, other)]
        change = difference(*sides)
        sds = float(one.std(ddof=1)), float(other.std(ddof=1))
        found = (mean_interval(one), 0.0), (welch_interval(gap, sds, (3, 6)), 0.5), ((change.lo, change.hi), 0.5)
        hits[row] = [low is not None and high is not None and low < truth < high for (low, high), truth in found]
    mean, welch, made_of_two = hits.mean(axis=0)
    assert mean == pytest.approx(0.95, abs=0.027)
    assert welch == pytest.approx(0.95, abs=0.035)
    assert 0.93 < made_of_two < 0.995


def test_no_spread_is_no_width() -> None:
    assert welch_interval(1.5, (0.0, 0.0), (3, 3)) == (1.5, 1.5)


def test_recorded_settings_that_differ_come_first(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path / name, FakeRun(trials=2, backbones=("a",), settings={"recipe": {"label_smoothing": value}}))
        for name, value in (("one", 0.1), ("two", 0.0))
    ]
    recorded = [conditions(str(run)) for run in runs]
    assert recorded[0] == {"recipe.label_smoothing": "0.1"}
    sides = [find(load(str(run))) for run in runs]
    notes = differing(sides, recorded)
    assert notes == ("recipe.label_smoothing: 0.1 in one, 0.0 in two.",)
    assert compare_findings(sides[0], sides[1], notes).notes[0] == notes[0]
    assert differing(sides, (recorded[0], {})) == ()
    assert conditions("paper:cifar100") == {}
    other = [recorded[0] | {FINGERPRINT: digest} for digest in ("1", "2")]
    assert differing(sides, other)[0].startswith("The data are not the same")


def test_two_seeds_of_a_cell_have_an_interval(tmp_path: Path) -> None:
    found = compare(table_of(tmp_path, "one", ADDITIVE, seeds=2), table_of(tmp_path, "two", ADDITIVE + 1, seeds=2))
    assert all(pair.change.lo is not None for pair in found.cells.values())
    assert found.from_seeds.lo is not None
    assert found.from_seeds.lo < 1 < (found.from_seeds.hi or 0)
