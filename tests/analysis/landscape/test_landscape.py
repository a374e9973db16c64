"""The model of a cell on trials simulated under early stopping, where the truth is known (fixture S14)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bocb_tune.analysis.cell import sensitivity
from bocb_tune.analysis.core.estimate import Reason
from bocb_tune.analysis.landscape import surface
from bocb_tune.analysis.landscape.divergence import fit_divergence
from bocb_tune.analysis.landscape.fit import Landscape, NoLandscape, fit_landscape
from bocb_tune.analysis.landscape.scale import Scale
from bocb_tune.analysis.landscape.surface import SettingGrid
from bocb_tune.analysis.landscape.trials import CellTrials
from tests.support.coverage.landscapes import BOWL, BOX, HARD, RIDGE, Planted, simulate

SCALE = Scale(bounded=True, floor=1.0)
LEVEL = 0.90


def fitted(planted: Planted, count: int, seed: int) -> Landscape:
    found = fit_landscape(simulate(planted, count, seed), planted.domain, SCALE)
    assert isinstance(found, Landscape), found
    return found


def truth(planted: Planted) -> dict[str, float]:
    grid = SettingGrid(domain=planted.domain, num_lr=801, num_decay=501)
    values = planted.expected(grid.u[:, None], grid.v[None, :])
    return {name: float(function(values, values, grid)) for name, function in FUNCTIONALS.items()}


FUNCTIONALS: dict[str, Any] = {
    "near_optimal_volume": lambda e, _, grid: surface.near_optimal_volume(e, grid, 2.0),
    "usable_decades": lambda e, best_on, grid: surface.usable_decades(surface.lr_slice(e, best_on), grid.u, 2.0)[0],
    "lr_star": lambda e, _, grid: grid.u[surface.argmax(e)[0]],
    "lr_sensitivity": lambda e, best_on, grid: surface.line_sensitivity(surface.lr_slice(e, best_on), grid.u, 1.0),
    "prior_mean_regret": lambda e, _, grid: surface.prior_mean_regret(e, grid),
    "lr_variance_share": lambda e, _, grid: surface.variance_shares(e, grid)[1],
}
"""Of a surface, or of draws of one; of the surface whose best point slices go through; and of their grid."""


def coverage(planted: Planted, count: int, seeds: int) -> dict[str, float]:
    """Share of the 90 % intervals that hold the truth, half a grid step granted to what is read off nodes."""
    known = truth(planted)
    hits: dict[str, list[bool]] = {name: [] for name in known}
    for seed in range(seeds):
        cell = fit_landscape(simulate(planted, count, seed), planted.domain, SCALE)
        if isinstance(cell, NoLandscape):
            continue
        for name, function in FUNCTIONALS.items():
            lo, hi = np.quantile(function(cell.draws, cell.mean, cell.grid), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
            slack = 0.032 if name == "lr_star" else 0.0
            hits[name].append(bool(lo - slack <= known[name] <= hi + slack))
    assert min(map(len, hits.values())) >= 0.9 * seeds
    return {name: float(np.mean(hit)) for name, hit in hits.items()}


@pytest.mark.parametrize("planted", [BOWL, RIDGE, HARD], ids=["bowl", "ridge", "hard"])
def test_coverage_over_a_few_seeds(planted: Planted) -> None:
    assert min(coverage(planted, 60, 8).values()) >= 0.6


def test_errors_are_small() -> None:
    known = truth(BOWL)
    cells = [fitted(BOWL, 60, seed) for seed in range(6)]
    for name, most in {"near_optimal_volume": 0.02, "lr_star": 0.3, "prior_mean_regret": 3.0}.items():
        errors = [FUNCTIONALS[name](cell.mean, cell.mean, cell.grid) - known[name] for cell in cells]
        assert abs(float(np.mean(errors))) < most


def test_too_few_trials() -> None:
    assert refusal(simulate(BOWL, 20, 0)) is Reason.TOO_FEW_TRIALS


def test_too_narrow_a_range() -> None:
    trials = simulate(BOWL, 60, 0)
    assert refusal(replace(trials, lr=10 ** (-3 + 0.1 * np.log10(trials.lr)))) is Reason.TOO_FEW_TRIALS


def test_too_few_completed() -> None:
    trials = simulate(BOWL, 60, 0)
    assert refusal(replace(trials, completed=np.zeros(60, dtype=bool))) is Reason.TOO_FEW_COMPLETED


def test_all_diverged() -> None:
    planted = replace(BOWL, cliff=-9.0)
    assert refusal(simulate(planted, 60, 0)) is Reason.ALL_DIVERGED


def test_constant_scores() -> None:
    trials = simulate(BOWL, 60, 0)
    assert refusal(replace(trials, record_score=np.full_like(trials.record_score, 50.0))) is Reason.DEGENERATE_VARIANCE


def test_scores_that_follow_no_landscape() -> None:
    trials = simulate(BOWL, 60, 0, stop=False)
    rng = np.random.default_rng(0)
    steps = rng.choice([20.0, 80.0], 60)[trials.record_trial]
    cell = fit_landscape(replace(trials, record_score=steps + rng.standard_normal(len(steps))), BOWL.domain, SCALE)
    if isinstance(cell, Landscape):  # all of it noise: then no tolerance is fine enough to say anything
        assert sensitivity.near_optimal_volume(cell).reason is Reason.EPS_BELOW_NOISE


def test_divergence_seen_too_seldom_among_stopped_trials_is_made_up_for() -> None:
    """The nearer to the line the later a trial diverges, and most of the trials are stopped long before."""
    rng = np.random.default_rng(0)
    u = rng.uniform(-5, 0, 400)
    at = np.where(u > -1.5, np.exp(-(u + 1.5) / 0.3), np.inf)
    end = np.where(rng.random(400) < 0.7, 0.1, 1.0)
    seen = at <= end
    share = np.where(seen, at, end)
    line = fit_divergence(u, np.zeros(400), seen, share, np.where(seen, 0.9 * share, share), BOX.lr)
    assert float(line.place @ line.weight) == pytest.approx(-1.5, abs=0.1)
    assert float(line.lean @ line.weight) == 0


def test_line_leans_when_weight_decay_moves_it() -> None:
    rng = np.random.default_rng(0)
    u, d = rng.uniform(-5, 0, 300), rng.uniform(-1, 1, 300)
    line = fit_divergence(u, d, u > -1.5 + 0.6 * d, np.ones(300), np.where(u > -1.5 + 0.6 * d, 0.0, 1.0), BOX.lr)
    assert float(line.lean @ line.weight) == pytest.approx(0.6, abs=0.15)


def test_draws_of_the_line_are_those_of_its_posterior_and_hardly_differ_by_seed() -> None:
    """Quantiles of evenly spaced draws; those of as many independent ones would differ by a tenth of the spread."""
    rng = np.random.default_rng(0)
    u = rng.uniform(-5, 0, 60)
    line = fit_divergence(u, np.zeros(60), u > -1.5, np.ones(60), np.where(u > -1.5, 0.0, 1.0), BOX.lr)
    exact = line.place[np.searchsorted(np.cumsum(line.weight), [0.05, 0.5, 0.95])]
    ends = np.array([np.quantile(line.draws(240, np.random.default_rng(s))[0], [0.05, 0.5, 0.95]) for s in range(20)])
    step = float(np.diff(np.unique(line.place)).min())
    assert np.abs(ends - exact).max() < step
    assert ends.std(axis=0).max() < 0.2 * step


def test_the_line_is_not_among_trials_that_came_to_their_end() -> None:
    u, none = np.random.default_rng(0).uniform(-5, -3, 40), np.zeros(40, dtype=bool)
    line = fit_divergence(u, np.zeros(40), none, np.ones(40), np.ones(40), BOX.lr)
    assert float(line.weight[line.place < -3.0].sum()) < 0.1
    assert float(line.weight[line.place > BOX.lr[1]].sum()) > 0.1


def test_nothing_seen_leaves_the_line_anywhere_in_the_box() -> None:
    none = np.zeros(0)
    line = fit_divergence(none, none, none.astype(bool), none, none, BOX.lr)
    below = [float(line.weight[line.place < place].sum()) for place in (-4.0, -2.5, 0.0)]
    np.testing.assert_allclose(below, [0.16, 0.4, 0.8], atol=0.02)


def refusal(trials: CellTrials) -> Reason:
    found = fit_landscape(trials, BOX, SCALE)
    assert isinstance(found, NoLandscape)
    assert found.detail
    return found.reason
