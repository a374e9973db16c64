"""What the stacked model of a cell must know of real landscapes: divergence, flatness, edges, bounds, grids."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from bocb_tune.analysis.cell import sensitivity
from bocb_tune.analysis.cell.tuning_curves import LONGEST, tuning_curve
from bocb_tune.analysis.core.arrays import Array
from bocb_tune.analysis.landscape.fit import Landscape, fit_landscape
from bocb_tune.analysis.landscape.scale import Scale
from bocb_tune.analysis.landscape.stack import stack_models, stacking_weights
from bocb_tune.analysis.landscape.surface import Box
from bocb_tune.analysis.landscape.trials import CellTrials
from tests.support.landscapes import BOX

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


def fitted(trials: CellTrials, box: Box = BOX) -> Landscape:
    found = fit_landscape(trials, box, SCALE)
    assert isinstance(found, Landscape), found
    return found


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
        reported = curve.validation_at(n)
        assert reported.value is not None
        assert reported.hi is not None
        assert reported.value <= 100
        assert reported.hi <= 100


def test_a_grid_of_few_learning_rates_with_seeds_has_a_landscape() -> None:
    axis = np.linspace(0, 1, 6)
    nodes = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
    found = fitted(cell(bowl, x=np.repeat(nodes, 2, axis=0)))
    assert abs(found.grid.u[found.best_node[0]] - np.mean(BOX.lr)) < 1.0


def test_without_weight_decay_the_landscape_is_a_line() -> None:
    line = Box(lr=BOX.lr, weight_decay=None)
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
