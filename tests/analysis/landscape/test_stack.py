"""What the stacked model of a cell must know of real landscapes: divergence, flatness, edges, bounds, grids."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from bocb_tune.analysis.cell import sensitivity
from bocb_tune.analysis.cell.tuning_curves import LONGEST, tuning_curve
from bocb_tune.analysis.core.arrays import Array
from bocb_tune.analysis.landscape import gp
from bocb_tune.analysis.landscape.fit import Landscape, fit_landscape
from bocb_tune.analysis.landscape.process import Process, Standardised
from bocb_tune.analysis.landscape.scale import Scale
from bocb_tune.analysis.landscape.stack import stack_models, stacking_weights
from bocb_tune.analysis.landscape.surface import Domain, SettingGrid
from bocb_tune.analysis.landscape.trials import CellTrials
from bocb_tune.analysis.landscape.validation import validate
from tests.support.coverage.landscapes import BOX, BOX_WITH_ZERO

SCALE = Scale(bounded=True, floor=10.0)


def cell(
    score: Callable[[Array, np.random.Generator], Array], count: int = 48, seed: int = 0, x: Array | None = None
) -> CellTrials:
    """Random search to the end; `score` is of settings scaled to the box [trials, 2]."""
    rng = np.random.default_rng(seed)
    x = rng.random((count, 2)) if x is None else x
    count = len(x)
    low, high = np.array([BOX.lr, BOX.decay_ends]).T
    lr, decay = (10 ** (low + x * (high - low))).T
    return CellTrials(
        lr=lr,
        weight_decay=decay,
        diverged=np.zeros(count, dtype=bool),
        completed=np.ones(count, dtype=bool),
        audit=np.zeros(count, dtype=bool),
        share=np.ones(count),
        record_trial=np.arange(count),
        record_share=np.ones(count),
        record_score=score(x, rng),
    )


def fitted(trials: CellTrials, domain: Domain = BOX) -> Landscape:
    found = fit_landscape(trials, domain, SCALE)
    assert isinstance(found, Landscape), found
    return found


def process_of(trials: CellTrials, domain: Domain) -> Process:
    data = Standardised.of(trials, domain, SCALE)
    return Process(data, gp.fit(data.records), domain, SCALE)


def flat(x: Array, rng: np.random.Generator) -> Array:
    return np.asarray(80 + 1.5 * rng.standard_normal(len(x)))


def edge(x: Array, rng: np.random.Generator) -> Array:
    """A plateau that falls to chance within a hair's breadth."""
    return np.where(x[:, 0] > 0.6, 10.0, 90 + 0.5 * rng.standard_normal(len(x)))


def bowl(x: Array, rng: np.random.Generator) -> Array:
    return np.asarray(90 - 60 * ((x - 0.5) ** 2).sum(axis=1) + 0.5 * rng.standard_normal(len(x)))


def test_a_trial_that_diverged_where_it_has_a_record_counts() -> None:
    trials = cell(bowl)
    high = trials.lr > np.quantile(trials.lr, 0.7)
    trials = replace(trials, diverged=high, completed=~high)
    assert (trials.survived[high] == 0).all()
    share = sensitivity.diverging_share(fitted(trials)).value
    assert share == pytest.approx(0.3, abs=0.12)


def test_weight_decay_below_the_box_is_not_zero() -> None:
    """A trial at a small weight decay lies where it lies, not at the place of weight decay 0."""
    x = np.random.default_rng(0).random((48, 2))
    x[:8, 1] = -0.1
    trials = cell(bowl, x=x)
    process = process_of(trials, BOX_WITH_ZERO)
    zero = BOX_WITH_ZERO.is_zero(trials.weight_decay)
    assert not zero.any()
    np.testing.assert_array_equal(process.data.records.is_zero, zero)
    apart, same = (process.predict(x[:1], flag)[0] for flag in (np.ones(1), np.zeros(1)))
    assert apart != pytest.approx(same, abs=1e-6)
    grid = SettingGrid(domain=BOX_WITH_ZERO)
    assert grid.nearest(x[:1], zero[:1])[1][0] == 0
    assert grid.nearest(x[:1], np.ones(1))[1][0] == grid.num_decay


@pytest.mark.parametrize(("shift", "poor"), [(0.0, False), (0.9, True)])
def test_a_biased_model_is_refused(shift: float, poor: bool) -> None:
    """Its errors are no larger than those of a sound one, but all on one side."""
    z = 0.5 * np.random.default_rng(0).standard_normal(40) + shift
    all_of_them = np.ones(40, bool)
    found = validate(
        50 + z,
        np.full(40, 50.0) + np.arange(40) * 1e-3,
        z,
        rung=np.ones(40),
        noise=1.0,
        completed=all_of_them,
        audit=~all_of_them,
        weights=np.array([0.5, 0.5, 0.0]),
        predicts=True,
    )
    assert found.is_poor is poor


def test_noise_is_that_of_the_trials_nearby() -> None:
    """Ten times as much in one half of the box as in the other."""
    found = fitted(cell(lambda x, rng: 80 + np.where(x[:, 0] > 0.5, 3.0, 0.3) * rng.standard_normal(len(x)), 96))
    quiet, loud = (found.residuals.sd(np.array([u, 0.5])) for u in (0.2, 0.8))
    assert loud > 3 * quiet


def test_the_expected_score_is_a_mean() -> None:
    """A third of the trials, wherever they lie, ends at chance: the median would be 90."""

    def score(x: Array, rng: np.random.Generator) -> Array:
        return np.where(rng.random(len(x)) < 1 / 3, 10.0, 90.0) + 0.5 * rng.standard_normal(len(x))

    found = sensitivity.best_score(fitted(cell(score, 96)))
    assert found.value is not None
    assert found.lo is not None
    assert found.lo < 63.3
    assert found.value < 80


def test_noise_alone_is_no_structure() -> None:
    found = [fitted(cell(flat, seed=seed)) for seed in range(5)]
    assert sum(each.validation.predicts for each in found) <= 1
    costs = [sensitivity.prior_mean_regret(each) for each in found]
    assert sum(cost.lo is not None and cost.lo <= 1e-3 for cost in costs) >= 4
    assert all(sensitivity.edge_of(each) is None for each in found)


def test_an_edge_is_seen_where_it_is() -> None:
    found = fitted(cell(edge, count=96))
    assert found.validation.predicts
    share = sensitivity.near_optimal_volume(found, 10.0)
    assert share.lo is not None
    assert share.hi is not None
    assert share.lo <= 0.6 <= share.hi


def test_a_bowl_is_left_to_the_smooth_model_more_than_an_edge() -> None:
    assert fitted(cell(bowl)).validation.smooth > fitted(cell(edge)).validation.smooth


def test_tuning_curves_stay_within_what_can_be_scored() -> None:
    curve = tuning_curve(fitted(cell(lambda x, rng: np.clip(97 + 3 * rng.standard_normal(len(x)), 0, 100))))
    for n in (1, 16, LONGEST):
        reported = curve.reported_at(n)
        assert reported.value is not None
        assert reported.hi is not None
        assert reported.value <= 100
        assert reported.hi <= 100


@pytest.mark.parametrize("score", [flat, edge, bowl])
def test_intervals_stay_within_what_a_number_can_be(
    score: Callable[[Array, np.random.Generator], Array],
) -> None:
    found = fitted(cell(score))
    shares = [sensitivity.near_optimal_volume(found, 10.0)]
    shares += [of(found) for of in (sensitivity.lr_variance_share, sensitivity.wd_variance_share)]
    others = [of(found) for of in (sensitivity.prior_mean_regret, sensitivity.lr_sensitivity)]
    for estimate, most in [(share, 1.0) for share in shares] + [(other, 100.0) for other in others]:
        if estimate.value is not None and estimate.lo is not None and estimate.hi is not None:
            assert 0 <= estimate.lo <= estimate.value <= estimate.hi <= most, estimate


def test_a_grid_of_few_learning_rates_with_seeds_has_a_landscape() -> None:
    axis = np.linspace(0, 1, 6)
    nodes = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
    found = fitted(cell(bowl, x=np.repeat(nodes, 2, axis=0)))
    assert abs(found.grid.u[found.best_node[0]] - np.mean(BOX.lr)) < 1.0


def test_without_weight_decay_the_landscape_is_a_line() -> None:
    line = Domain(lr=BOX.lr, weight_decay=None)
    found = fitted(cell(lambda x, rng: bowl(np.column_stack([x[:, 0], np.full(len(x), 0.5)]), rng)), line)
    assert found.mean.shape[1] == 1
    assert abs(found.grid.u[found.best_node[0]] - np.mean(BOX.lr)) < 0.5
    assert sensitivity.usable_decades_wd(found).value is None


def test_weights_go_to_the_model_that_predicts() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(0, 5, 200)
    observed = truth + rng.standard_normal(200)
    means = np.array([truth, np.zeros(200), np.zeros(200)])
    variances = np.array([np.ones(200), np.full(200, 26.0), np.full(200, 26.0)])
    assert stacking_weights(observed, means, variances)[0] > 0.9
    found = stack_models(np.arange(200), observed, means, variances)
    assert found.predicts
    assert np.mean(np.abs(found.z) < 1.645) > 0.85
