"""Exact answers of analytic landscapes: fixtures S1 to S4 and S13."""

from __future__ import annotations

import numpy as np
import pytest

from bocb_tune.analysis.cell import sensitivity
from bocb_tune.analysis.core.bootstrap import ends
from bocb_tune.analysis.core.estimate import Reason
from bocb_tune.analysis.landscape import surface
from bocb_tune.analysis.landscape.surface import Domain, SettingGrid
from tests.support.coverage.landscapes import BOX, StoredDraws, bowl, cliff, exact, on_grid, ridge

EPSILON = 2.0


def test_bowl_volume_regret_and_decades() -> None:
    values, grid = on_grid(bowl)
    assert surface.near_optimal_volume(values, grid, EPSILON) == pytest.approx(np.pi / 25, abs=2e-4)
    assert surface.prior_mean_regret(values, grid) == pytest.approx(10.4167, abs=1e-3)
    assert surface.line_sensitivity(surface.lr_slice(values, values), grid.u, 1.0) == pytest.approx(8.3333, abs=1e-3)
    for line in (surface.lr_slice(values, values), surface.lr_profile(values)):
        assert surface.usable_decades(line, grid.u, EPSILON)[0] == pytest.approx(np.sqrt(2), abs=1e-4)
    for line in (surface.decay_slice(values, values, grid), surface.decay_profile(values, grid)):
        assert surface.usable_decades(line, grid.v, EPSILON)[0] == pytest.approx(2 * np.sqrt(2), abs=1e-4)


def test_bowl_variance_is_all_main_effects() -> None:
    values, grid = on_grid(bowl)
    _, lr, decay = surface.variance_shares(values, grid)
    assert (float(lr), float(decay)) == pytest.approx((16 / 17, 1 / 17), abs=1e-5)


def test_ridge() -> None:
    values, grid = on_grid(ridge)
    assert surface.near_optimal_volume(values, grid, EPSILON) == pytest.approx(0.251327, abs=3e-4)
    assert surface.prior_mean_regret(values, grid) == pytest.approx(8.8542, abs=1e-3)
    assert surface.usable_decades(surface.lr_slice(values, values), grid.u, EPSILON)[0] == pytest.approx(
        1.94029, abs=1e-4
    )
    assert surface.usable_decades(surface.lr_profile(values), grid.u, EPSILON)[0] == pytest.approx(4.12311, abs=1e-3)
    _, lr, decay = surface.variance_shares(values, grid)
    assert (float(lr), float(decay)) == pytest.approx((0.16970, 0.16970), abs=1e-4)


def test_cliff_swamps_the_variance_but_not_the_basin() -> None:
    values, grid = on_grid(cliff)
    assert surface.near_optimal_volume(values, grid, EPSILON) == pytest.approx(np.pi / 25, abs=2e-4)
    assert surface.prior_mean_regret(values, grid) == pytest.approx(32.5917, abs=0.03)
    assert surface.variance_shares(values, grid)[1] == pytest.approx(0.9983, abs=1e-4)
    keep = np.broadcast_to(grid.u[:, None] <= -1.5, values.shape)
    assert surface.variance_shares(values, grid, keep)[1] < 0.95


def test_edge() -> None:
    values, grid = on_grid(lambda u, v: bowl(u, v, (0.5, -3.5)))
    assert grid.u[surface.argmax(values)[0]] == 0
    assert surface.near_optimal_volume(values, grid, EPSILON) == pytest.approx(0.0291, abs=2e-4)
    _, at_edge, _ = surface.usable_decades(surface.lr_slice(values, values), grid.u, EPSILON)
    assert at_edge


def test_jump_at_weight_decay_zero() -> None:
    grid = SettingGrid(domain=Domain(lr=(-5, 0), weight_decay=(-6, -1), zero_mass=0.2))
    values = np.full(grid.shape, 50.0)
    values[:, -1] += 10
    total, lr, decay = surface.variance_shares(values, grid)
    assert (float(total), float(lr), float(decay)) == pytest.approx((16.0, 0.0, 1.0), abs=1e-9)


def test_plateau_has_no_edge_inside() -> None:
    length, at_edge, stretches = surface.usable_decades(np.array([0.0, 5, 5, 0, 5, 0]), np.arange(6.0), 1.0)
    assert (float(length), bool(at_edge), int(stretches)) == (pytest.approx(1.4), False, 2)


def test_weights_are_a_measure() -> None:
    for mass in (0.0, 0.3):
        grid = SettingGrid(domain=Domain(lr=(-5, 0), weight_decay=(-6, -1), zero_mass=mass))
        assert grid.weights.sum() == pytest.approx(1)
        assert grid.weights[:, grid.num_decay :].sum() == pytest.approx(mass)


def test_curvature_and_orientation_of_the_bowl() -> None:
    cell = exact(bowl)
    assert sensitivity.curvature_lr(cell).value == pytest.approx(8.0, rel=1e-3)
    assert sensitivity.curvature_wd(cell).value == pytest.approx(2.0, rel=1e-3)
    assert sensitivity.curvature_correlation(cell).value == pytest.approx(0.0, abs=1e-6)
    assert sensitivity.anisotropy(cell).value == pytest.approx(4.0, rel=1e-3)
    assert sensitivity.orientation(cell).value == pytest.approx(90.0, abs=1e-3)


def test_curvature_and_orientation_of_the_ridge() -> None:
    cell = exact(ridge)
    assert sensitivity.curvature_correlation(cell).value == pytest.approx(0.882353, abs=1e-4)
    assert sensitivity.anisotropy(cell).value == pytest.approx(16.0, rel=1e-3)
    assert sensitivity.orientation(cell).value == pytest.approx(135.0, abs=1e-3)


def test_optimum_and_number_of_random_trials() -> None:
    cell = exact(bowl)
    assert sensitivity.lr_star(cell).value == pytest.approx(10**-2.5, rel=1e-3)
    assert sensitivity.wd_star(cell).value == pytest.approx(10**-3.5, rel=1e-2)
    assert sensitivity.random_trials_needed(cell, EPSILON).value == 18
    assert sensitivity.best_score(cell).value == pytest.approx(90.0)


def test_margin_to_the_cliff() -> None:
    cell = exact(cliff, divergence_lr=-1.5, diverged=19)
    assert sensitivity.divergence_margin(cell).value == pytest.approx(1.0, abs=0.01)
    assert sensitivity.diverging_share(cell).value == pytest.approx(0.30, abs=0.001)
    assert sensitivity.prior_mean_regret(cell).value == pytest.approx(32.59, abs=0.1)


def test_no_divergence_is_a_bound() -> None:
    margin = sensitivity.divergence_margin(exact(bowl))
    assert margin.reason is Reason.NO_DIVERGENCE
    assert (margin.value, margin.lo, margin.hi) == (pytest.approx(2.5, abs=0.01), margin.value, None)


def test_optimum_at_the_edge_gives_bounds_and_no_curvature() -> None:
    cell = exact(lambda u, v: bowl(u, v, (0.5, -3.5)))
    assert sensitivity.is_at_edge(cell)
    assert sensitivity.curvature_lr(cell).reason is Reason.OPTIMUM_AT_EDGE
    assert sensitivity.orientation(cell).value is None
    decades = sensitivity.usable_decades_lr(cell, EPSILON)
    assert decades.value is not None
    assert decades.method is not None
    assert "at least" in decades.method


def test_best_weight_decay_zero_is_said() -> None:
    domain = Domain(lr=(-5, 0), weight_decay=(-6, -1), zero_mass=0.2)
    cell = exact(lambda u, v: np.where(v < -6.5, 92.0, bowl(u, np.maximum(v, -6.0))), domain=domain)
    assert sensitivity.wd_star(cell).value == 0
    assert sensitivity.zero_decay_probability(cell).value == 1
    assert sensitivity.curvature_lr(cell).reason is Reason.OPTIMUM_AT_WD0


def test_tolerance_below_the_noise_is_refused() -> None:
    cell = exact(bowl)
    noisy = type(cell)(**{**cell.__dict__, "noise": 1.0})
    assert sensitivity.near_optimal_volume(noisy, 1.0).reason is Reason.EPS_BELOW_NOISE
    assert sensitivity.usable_decades_lr(noisy, 1.0).reason is Reason.EPS_BELOW_NOISE
    assert sensitivity.near_optimal_volume(noisy, EPSILON).value is not None


def test_slices_are_at_the_setting_found_whatever_each_draw_has_for_best() -> None:
    """On a ridge draws have their best points all along it, and slices there cost half a point more."""
    cell = exact(ridge, nodes=201)
    moved = [ridge(cell.grid.u[:, None], cell.grid.v[None], (-2.5 + d, -3.5 - d)) for d in (-0.5, 0.0, 0.5)]
    drawn = type(cell)(**{**cell.__dict__, "surfaces": StoredDraws(values=np.stack(moved))})
    found = sensitivity.lr_sensitivity(drawn)
    axis, column = cell.grid.u, cell.best_node[1]
    costs = [float(surface.line_sensitivity(e[:, column], axis, cell.floor)) for e in moved]
    assert (found.lo, found.hi) == pytest.approx(ends(np.array(costs)), abs=1e-2)


def test_equal_scores_have_no_variance_to_divide() -> None:
    assert sensitivity.lr_variance_share(exact(lambda u, v: 50 + 0 * u * v)).reason is Reason.DEGENERATE_VARIANCE


def test_unit_of_the_learning_rate_does_not_matter() -> None:
    moved = Domain(lr=(BOX.lr[0] + 2, BOX.lr[1] + 2), weight_decay=BOX.weight_decay)
    one, other = exact(bowl), exact(lambda u, v: bowl(u - 2, v), domain=moved)
    first, second = sensitivity.lr_star(one).value, sensitivity.lr_star(other).value
    assert first is not None
    assert second == pytest.approx(100 * first)
    for metric in (sensitivity.near_optimal_volume, sensitivity.usable_decades_lr, sensitivity.lr_sensitivity):
        assert metric(one).value == pytest.approx(metric(other).value)
