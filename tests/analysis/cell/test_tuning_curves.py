"""Tuning curves: exact answers of the bowl, estimators against enumeration and simulation, ranks by budget."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from bocb_tune.analysis.cell.tuning_curves import (
    CPE_TRIALS,
    EMPHASES,
    LONGEST,
    SIZES,
    TuningCurve,
    best_by_noisy_score,
    expected_best,
    observed_curve,
    tuning_curve,
    unbiased_weights,
    with_trials,
)
from bocb_tune.analysis.core.bootstrap import Refused
from bocb_tune.analysis.core.estimate import Counts, Reason
from bocb_tune.analysis.landscape import surface
from bocb_tune.analysis.landscape.fit import NoLandscape
from bocb_tune.analysis.landscape.surface import Domain
from bocb_tune.analysis.tuning.budget_ranks import BudgetRanks, budget_ranks
from tests.support.coverage.curves import landscape
from tests.support.coverage.landscapes import BOX, Array, bowl, on_grid
from tests.support.coverage.random_search import random_search

COUNTS = Counts(n_trials=30, n_completed=30)
BOWL_CURVE = {1: 79.583, 2: 83.915, 4: 86.691, 8: 88.225, 16: 89.064, 32: 89.518}
"""S1, in points."""


def test_the_curve_and_its_summary_of_the_bowl() -> None:
    values, grid = on_grid(bowl, 1000)
    deployed, validation = random_search(values[None], grid, noise=0.0)
    for n, expected in BOWL_CURVE.items():
        assert deployed[0, n - 1] == pytest.approx(expected, abs=1e-3)
    np.testing.assert_allclose(deployed, validation, atol=1e-9)
    assert deployed[0, :CPE_TRIALS] @ EMPHASES["early"](CPE_TRIALS) == pytest.approx(87.575, abs=1e-3)


def test_the_best_of_n_uniform_scores_is_n_over_n_plus_1() -> None:
    values, grid = on_grid(lambda u, v: -u / 5 + 0 * v, 1000)
    deployed, _ = random_search(values[None], grid, noise=0.0)
    n = np.arange(1, LONGEST + 1)
    np.testing.assert_allclose(deployed[0], n / (n + 1), atol=1e-3)


@pytest.mark.parametrize("noise", [0.3, 3.0])
def test_noisy_selection_agrees_with_simulation(noise: float) -> None:
    cell, rng = landscape(bowl, spread=0.0), np.random.default_rng(1)
    true, mass = cell.mean.ravel(), cell.grid.weights.ravel()
    noisy = true[:, None] + noise * np.sort(rng.standard_normal(40))
    curves = best_by_noisy_score(true, noisy, mass)
    for n in (1, 4, 32):
        nodes = rng.choice(len(true), size=(40_000, n), p=mass)
        seen = noisy[nodes, rng.integers(40, size=nodes.shape)]
        picked = seen.argmax(axis=1)[:, None]
        for values, found in zip((true[nodes], seen), curves, strict=True):
            sample = np.take_along_axis(values, picked, axis=1)
            assert found[n - 1] == pytest.approx(sample.mean(), abs=4 * sample.std() / 200 + 0.02)


def test_noise_lowers_what_is_deployed_and_raises_what_is_reported() -> None:
    exact, noisy = (tuning_curve(landscape(bowl, noise=noise)) for noise in (0.0, 2.0))
    assert (noisy.deployed[0, 1:] < exact.deployed[0, 1:]).all()
    assert (noisy.reported[0, 1:] > exact.reported[0, 1:]).all()
    np.testing.assert_allclose(noisy.deployed[0, 0], exact.deployed[0, 0], atol=1e-3)


def test_one_trial_is_worth_the_mean_of_the_search_space() -> None:
    cell = landscape(bowl, domain=Domain(lr=BOX.lr, weight_decay=BOX.weight_decay, zero_mass=0.3), noise=0.0)
    curve = tuning_curve(cell)
    assert curve.deployed[0, 0] == pytest.approx(surface.mean(cell.mean, cell.grid), abs=0.02)  # every other node
    np.testing.assert_allclose(curve.deployed[1:, 0].mean(), surface.mean(cell.draws, cell.grid).mean(), atol=0.02)


def test_a_curve_rises_up_to_the_best_score_and_its_interval_holds_it() -> None:
    cell = landscape(bowl)
    curve = tuning_curve(cell)
    assert (np.diff(curve.deployed, axis=1) > -1e-9).all()
    assert curve.deployed[0, -1] < cell.mean.max()
    for n in SIZES:
        found = curve.at(n)
        assert found.value is not None
        assert found.lo is not None
        assert found.hi is not None
        assert found.lo < found.value < found.hi
        assert found.hi - found.lo == pytest.approx(4 * 0.2, rel=0.5)


def test_scores_that_are_all_equal_have_a_flat_curve() -> None:
    curve = tuning_curve(landscape(lambda u, v: 50 + 0 * u * v, spread=0.0, noise=1.0))
    np.testing.assert_allclose(curve.deployed, 50, atol=1e-6)


def test_the_summaries_are_means_of_the_curve() -> None:
    curve = tuning_curve(landscape(bowl))
    found = {name: curve.summary(name).value for name in EMPHASES}
    assert found["one-shot"] == pytest.approx(curve.deployed[0, 0])
    assert found["peak"] == pytest.approx(curve.deployed[0, CPE_TRIALS - 1])
    assert found["uniform"] == pytest.approx(curve.deployed[0, :CPE_TRIALS].mean())
    assert found["one-shot"] < found["early"] < found["uniform"] < found["late"] < found["peak"]  # type: ignore[operator]
    for name, weights in EMPHASES.items():
        assert weights(7).sum() == pytest.approx(1), name


def by_enumeration(scores: Array, n: int) -> float:
    return float(np.mean([max(subset) for subset in combinations(scores, n)]))


@pytest.mark.parametrize("n", [1, 2, 5, 7])
def test_the_unbiased_estimator_is_the_mean_over_all_subsets(n: int) -> None:
    scores = np.random.default_rng(0).normal(70, 5, 7)
    assert expected_best(scores, n) == pytest.approx(by_enumeration(scores, n))


def test_the_estimator_averages_with_weights_and_knows_the_ends() -> None:
    for n in (1, 3, 20):
        assert unbiased_weights(20, n).sum() == pytest.approx(1)
    scores = np.random.default_rng(0).normal(70, 5, 20)
    assert expected_best(scores, 1) == pytest.approx(scores.mean())
    assert expected_best(scores, 20) == pytest.approx(scores.max())


def test_the_estimator_is_unbiased_on_the_bowl() -> None:
    """B = 30, n = 10."""
    rng = np.random.default_rng(0)
    scores = bowl(rng.uniform(-5, 0, (20_000, 30)), rng.uniform(-6, -1, (20_000, 30)))
    values, grid = on_grid(bowl, 400)
    truth = random_search(values[None], grid, noise=0.0)[0][0, 9]
    assert expected_best(scores, 10).mean() - truth == pytest.approx(0, abs=0.04)


def test_observed_trials_are_refused_where_they_do_not_carry_a_curve() -> None:
    scores = np.random.default_rng(0).normal(70, 5, 30)
    found = observed_curve(scores, True, COUNTS, np.random.default_rng(0), (1, 10, 11))
    assert [estimate.reason for estimate in found] == [None, None, Reason.BUDGET_EXCEEDS_DATA]
    assert found[1].lo is not None
    assert found[1].hi is not None
    assert found[1].lo < expected_best(scores, 10) < found[1].hi
    adaptive = observed_curve(scores, False, COUNTS, np.random.default_rng(0), (1,))
    assert adaptive[0].reason is Reason.NOT_IID
    nothing = observed_curve(np.empty(0), True, COUNTS, np.random.default_rng(0), (1,))
    assert nothing[0].reason is Reason.BUDGET_EXCEEDS_DATA


def test_independent_trials_say_what_they_report_and_the_landscape_what_more_would() -> None:
    curve, scores = tuning_curve(landscape(bowl)), np.random.default_rng(0).normal(60, 5, 30)
    found = with_trials(curve, scores, np.random.default_rng(0))
    assert found.seen is not None
    for n in (1, 10):
        assert found.seen[0, n - 1] == pytest.approx(expected_best(scores, n))
        modelled, both = curve.reported_at(n), found.reported_at(n)
        assert both.value == pytest.approx((modelled.value + expected_best(scores, n)) / 2)  # type: ignore[operator]
        assert both.hi == modelled.hi  # the landscape is 20 points above these trials
        assert both.lo is not None
        assert both.lo < expected_best(scores, n)
    np.testing.assert_allclose(np.diff(found.seen, axis=1)[:, 10:], np.diff(curve.reported, axis=1)[:, 10:])
    np.testing.assert_array_equal(found.deployed, curve.deployed)
    assert with_trials(curve, scores[:2], np.random.default_rng(0)) is curve
    capped = with_trials(replace(curve, top=61.0), scores, np.random.default_rng(0))
    assert capped.seen is not None
    assert capped.seen.max() == 61.0


def narrow(u: Array, v: Array) -> Array:
    """Better than the bowl at its best, worse elsewhere."""
    return 92 - 16 * (u + 2.5) ** 2 + 0 * v


def grid_of_curves(noise: float = 0.1) -> dict[tuple[str, str], TuningCurve | NoLandscape]:
    surfaces = {"easy": bowl, "sharp": narrow, "bad": lambda u, v: bowl(u, v) - 30}
    return {
        (f"b{b}", name): tuning_curve(landscape(surface, noise=noise, seed=10 * b + o))
        for b in range(3)
        for o, (name, surface) in enumerate(surfaces.items())
    }


def test_ranks_depend_on_the_budget_and_cross_where_the_curves_do() -> None:
    curves = grid_of_curves()
    found = budget_ranks(curves, np.random.default_rng(0))
    assert isinstance(found, BudgetRanks)
    assert [estimate.value for estimate in found.ranks["bad"]] == [3] * len(SIZES)
    assert found.ranks["easy"][0].value == 1
    assert found.ranks["sharp"][-1].value == 1
    assert found.first["sharp"][-1] > 0.95
    assert sum(found.first[name][3] for name in found.optimizers) == pytest.approx(1)
    crossing = next(c for c in found.crossings if (c.ahead, c.behind) == ("easy", "sharp"))
    easy, sharp = (curves["b0", name].deployed[0] for name in ("easy", "sharp"))  # type: ignore[union-attr]
    assert crossing.trials == np.flatnonzero(sharp > easy)[0] + 1


def test_a_cell_without_a_landscape_costs_the_line_with_the_most_gaps_its_place() -> None:
    curves = grid_of_curves()
    for b in range(2):
        curves[f"b{b}", "bad"] = NoLandscape(reason=Reason.TOO_FEW_TRIALS, detail="", counts=COUNTS)
    found = budget_ranks(curves, np.random.default_rng(0))
    assert isinstance(found, BudgetRanks)
    assert (found.optimizers, found.left_out) == (("easy", "sharp"), ("bad",))
    assert len(found.backbones) == 3


def test_ranks_need_two_optimizers_and_one_box_each() -> None:
    curves = grid_of_curves()
    alone = {key: curve for key, curve in curves.items() if key[1] == "easy"}
    refused = budget_ranks(alone, np.random.default_rng(0))
    assert isinstance(refused, Refused)
    assert refused.reason is Reason.INCOMPLETE_MATRIX
    wider = Domain(lr=(-6.0, 0.0), weight_decay=BOX.weight_decay)
    curves["b1", "easy"] = tuning_curve(landscape(bowl, domain=wider))
    refused = budget_ranks(curves, np.random.default_rng(0))
    assert isinstance(refused, Refused)
    assert refused.reason is Reason.PRIOR_MISMATCH
    assert "easy" in refused.detail


def test_surfaces_of_unlike_heights_do_not_disturb_each_other() -> None:
    """Beyond the top of a low surface nothing is left but rounding, which must not be divided by."""
    values, grid = on_grid(bowl, 60)
    together = random_search(np.stack([values, values - 30]), grid, noise=0.3)
    apart = [random_search(each[None], grid, noise=0.3) for each in (values, values - 30)]
    for kind, both in enumerate(together):
        for row, alone in zip(both, apart, strict=True):
            np.testing.assert_allclose(row, alone[kind][0], atol=0.02)
    deployed, validation = together
    assert (validation >= deployed - 1e-6).all()
