"""Tunability, drift and transfer: exact answers of shifted bowls, the published settings, and cross-checks."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
import pytest

from bocb_tune.analysis.cell.crosschecks import landscape_importance, optuna_importance
from bocb_tune.analysis.core.bootstrap import Refused
from bocb_tune.analysis.core.estimate import Reason
from bocb_tune.analysis.landscape.fit import Landscape
from bocb_tune.analysis.landscape.surface import Domain, SettingGrid
from bocb_tune.analysis.sources.paper import published
from bocb_tune.analysis.tuning.drift import drift, drift_of_cells, landscape_drift, lr_variance, modal_setting
from bocb_tune.analysis.tuning.settings import (
    Setting,
    best_setting,
    common_default,
    common_defaults,
    draws_at,
    held_out_defaults,
    score_at,
)
from bocb_tune.analysis.tuning.transfer import TransferRegret, transfer
from bocb_tune.analysis.tuning.tunability import Dimension, Tunability, effective_dimension, tunability
from tests.support.coverage.curves import landscape
from tests.support.coverage.landscapes import BOWL, BOX, bowl, cliff, ridge, simulate


def shifted(*places: float, **options: float) -> dict[str, Landscape]:
    """Bowls whose best lr lies at 10^place: S9 for -3 and -2."""
    cells = (landscape(partial(bowl, centre=(u, -3.5)), seed=i, **options) for i, u in enumerate(places))  # type: ignore[arg-type]
    return {f"b{i}": cell for i, cell in enumerate(cells)}


def a_tunability(cells: dict[str, Landscape], held_out: bool = False) -> Tunability:
    defaults = held_out_defaults if held_out else common_defaults
    found = tunability(cells, defaults, np.random.default_rng(0))
    assert isinstance(found, Tunability)
    return found


# Settings


def test_scores_between_nodes_are_bilinear_and_unknown_outside() -> None:
    domain = Domain(lr=(-4.0, -1.0), weight_decay=(-6.0, -1.0), zero_mass=0.1)
    grid = SettingGrid(domain=domain, num_lr=4, num_decay=6)
    values = grid.u[:, None] * np.append(grid.v[:6], 100.0)
    settings = [Setting(10**-3.3, 10**-2.25), Setting(1e-4, 0.0), Setting(10**-1.5, 0.0), Setting(0.2, 0.1)]
    found = score_at(values, grid, [*settings, Setting(1e-2, 1e-7)])
    np.testing.assert_allclose(found, [3.3 * 2.25, -400, -150, np.nan, np.nan], rtol=1e-9)
    without_zero = SettingGrid(domain=BOX, num_lr=4, num_decay=6)
    assert np.isnan(score_at(values[:, :6], without_zero, [Setting(1e-2, 0.0)])).all()


def test_a_surface_over_the_learning_rate_alone_knows_no_weight_decay() -> None:
    line = Domain(lr=BOX.lr, weight_decay=None)
    cells = {name: landscape(lambda u, v: 80 - (u + 2) ** 2 + 0 * v, domain=line) for name in "abcd"}
    grid, lr = cells["a"].grid, 10.0**-2.03
    assert np.isnan(best_setting(cells["a"]).weight_decay)
    settings = [Setting(lr, decay) for decay in (np.nan, 0.0, 1e-4, 10.0)]
    expected = np.interp(np.log10(lr), grid.u, cells["a"].mean[:, 0])
    np.testing.assert_allclose(score_at(cells["a"].mean, grid, settings), expected)
    np.testing.assert_allclose(draws_at(cells["a"], settings)[0], expected)
    drifts = landscape_drift(cells, best_setting(cells["a"]))
    assert not isinstance(drifts, Refused)
    assert {each.weight_decay.value for each in drifts.values()} == {None}
    assert np.isnan(drift_of_cells(drifts, tuple("abcd")).mean_weight_decay)


def test_the_ends_of_the_box_belong_to_it() -> None:
    cell = landscape(bowl)
    corners = [Setting(10.0**u, 10.0**v) for u in BOX.lr for v in BOX.weight_decay]
    np.testing.assert_allclose(score_at(cell.mean, cell.grid, corners), cell.mean[[0, 0, -1, -1], [0, -1, 0, -1]])


def test_a_stack_of_scores_begins_with_the_mean_surface() -> None:
    cell = landscape(bowl)
    found = draws_at(cell, [best_setting(cell)])
    assert found.shape == (1 + len(cell.draws), 1)
    assert found[0, 0] == cell.mean.max()


# A common setting


def test_two_shifted_bowls_and_one_between() -> None:
    """S9 with a third backbone at the centre, which changes neither the default nor the others' gains."""
    cells = shifted(-3.0, -2.0, -2.5)
    found = a_tunability(cells)
    for setting in found.default:
        assert np.log10(setting.lr) == pytest.approx(-2.5)
        assert np.log10(setting.weight_decay) == pytest.approx(-3.5)
    assert [gain.value for gain in found.gain] == pytest.approx([1, 1, 0], abs=1e-4)
    np.testing.assert_allclose(found.gain_lr, [1, 1, 0], atol=1e-9)
    np.testing.assert_allclose(found.gain_decay, 0, atol=1e-9)
    np.testing.assert_allclose(found.gain_joint, 0, atol=1e-4)
    averages = [estimate.value for estimate in (found.mean, found.median, found.worst)]
    assert averages == pytest.approx([2 / 3, 1, 1], abs=1e-4)


def test_phi_is_the_mean_gain_over_the_best_common_setting() -> None:
    cells = shifted(-3.0, -2.0, -1.5, -2.5)
    tuned = np.mean([cell.mean.max() for cell in cells.values()])
    common = np.mean([cell.mean for cell in cells.values()], axis=0).max()
    assert a_tunability(cells).mean.value == pytest.approx(tuned - common, abs=1e-4)


def test_a_default_that_has_not_seen_the_backbone_is_no_better() -> None:
    cells = shifted(-3.5, -2.0, -1.5, -2.5)
    optimistic, honest = a_tunability(cells), a_tunability(cells, held_out=True)
    assert honest.mean.value > optimistic.mean.value  # type: ignore[operator]
    assert honest.default[0] == common_default({name: cell for name, cell in cells.items() if name != "b0"})


def test_the_interval_of_the_mean_gain_is_about_backbones() -> None:
    found = a_tunability(shifted(-3.5, -2.0, -1.5, -2.5))
    gains = [gain.value for gain in found.gain]
    assert found.mean.lo is not None
    assert found.mean.hi is not None
    assert min(gains) <= found.mean.lo < found.mean.value < found.mean.hi <= max(gains)  # type: ignore[type-var, operator]


def test_a_default_that_diverges_scores_the_floor() -> None:
    cells = {f"b{i}": landscape(cliff) for i in range(3)}
    hot = dict.fromkeys(cells, Setting(0.1, 10**-3.5))
    found = tunability(cells, lambda _: hot, np.random.default_rng(0))
    assert isinstance(found, Tunability)
    assert found.mean.value == pytest.approx(89, abs=1e-4)
    np.testing.assert_allclose(found.gain_lr, 89, atol=1e-4)


def test_what_only_tuning_both_brings() -> None:
    """On a ridge, off it along its steep axis: lr or weight decay alone come back, both nearly so."""
    cells = {f"b{i}": landscape(ridge) for i in range(3)}
    found = tunability(cells, lambda c: dict.fromkeys(c, Setting(10**-2, 10**-3)), np.random.default_rng(0))
    assert isinstance(found, Tunability)
    total = 90 - ridge(np.array(-2.0), np.array(-3.0))
    assert found.gain[0].value == pytest.approx(total, abs=1e-4)
    one = found.gain_lr[0]
    assert one == pytest.approx(found.gain_decay[0], abs=0.05)
    assert found.gain_joint[0] == pytest.approx(total - one, abs=0.05)
    assert 0 < found.gain_joint[0] < one


def test_cells_must_share_a_box_and_be_three() -> None:
    cells = shifted(-3.0, -2.0)
    too_few = tunability(cells, common_defaults, np.random.default_rng(0))
    other = landscape(bowl, domain=Domain(lr=(-6.0, 0.0), weight_decay=BOX.weight_decay))
    mismatch = tunability({**cells, "b2": other}, common_defaults, np.random.default_rng(0))
    outside = dict.fromkeys(("b0", "b1", "b2"), Setting(10.0, 1e-3))
    unseen = tunability(shifted(-3.0, -2.0, -2.5), lambda _: outside, np.random.default_rng(0))
    reasons = [found.reason for found in (too_few, mismatch, unseen) if isinstance(found, Refused)]
    assert reasons == [Reason.TOO_FEW_BACKBONES, Reason.PRIOR_MISMATCH, Reason.NO_SHARED_SUPPORT]


@pytest.mark.parametrize(
    ("places", "by_share", "by_regret"),
    [((-2.6, -2.4, -2.5), (), ()), ((-3.25, -1.75, -2.5), (), ("lr",)), ((-4.5, -0.5, -2.5), ("lr",), ("lr",))],
)
def test_effective_dimension_of_shifted_bowls(
    places: tuple[float, ...], by_share: tuple[str, ...], by_regret: tuple[str, ...]
) -> None:
    found = effective_dimension(shifted(*places), dict.fromkeys(("b0", "b1", "b2"), 90.0))
    assert isinstance(found, Dimension)
    assert (found.by_share, found.by_regret) == (by_share, by_regret)


def test_both_are_tuned_where_each_moves() -> None:
    centres = [(-4.0, -5.0), (-1.0, -2.0), (-4.0, -2.0), (-1.0, -5.0)]
    cells = {f"b{i}": landscape(partial(bowl, centre=centre)) for i, centre in enumerate(centres)}
    found = effective_dimension(cells, dict.fromkeys(cells, 90.0))
    assert isinstance(found, Dimension)
    assert found.by_regret == ("lr", "weight_decay")


def test_a_gain_of_exactly_one_point_counts() -> None:
    """S9: the mean regret of the default is 1 point, so one hyper-parameter is tuned, and it is lr."""
    found = effective_dimension(shifted(-3.0, -2.0, -3.0, -2.0), dict.fromkeys(("b0", "b1", "b2", "b3"), 90.0))
    assert isinstance(found, Dimension)
    assert (found.by_share, found.by_regret) == ((), ("lr",))


# Another backbone's setting


def a_transfer(cells: dict[str, Landscape]) -> TransferRegret:
    found = transfer(cells, np.random.default_rng(0))
    assert isinstance(found, TransferRegret)
    return found


def test_the_regret_of_a_transfer_is_quadratic_in_the_shift() -> None:
    """S9: T = H_uu D^2 / 2, 4 points for a decade."""
    found = a_transfer(shifted(-3.0, -2.0))
    values = np.array([[estimate.value for estimate in row] for row in found.regret])
    np.testing.assert_allclose(values, [[0, 4], [4, 0]], atol=1e-4)
    assert found.mean.value == pytest.approx(4, abs=1e-4)
    assert found.within.value == 0


def test_donors_and_receivers_are_rows_and_columns() -> None:
    places = (-3.5, -2.5, -2.0)
    found = a_transfer(shifted(*places))
    expected = 4 * (np.array(places)[:, None] - np.array(places)) ** 2
    values = np.array([[estimate.value for estimate in row] for row in found.regret])
    np.testing.assert_allclose(values, expected, atol=1e-4)
    mean = expected.sum(axis=1) / 2
    assert [donor.value for donor in found.donors] == pytest.approx(list(mean), abs=1e-4)
    assert [receiver.value for receiver in found.receivers] == pytest.approx(list(mean), abs=1e-4)
    assert found.within.value == pytest.approx(1 / 3)


def test_receivers_differ_from_donors_where_curvatures_do() -> None:
    """A flat receiver takes any setting, its own setting does not suit the steep one."""
    cells = {"steep": landscape(bowl), "flat": landscape(lambda u, v: 80 - 0.1 * (u + 1) ** 2 - (v + 3.5) ** 2)}
    found = a_transfer(cells)
    assert found.receivers[1].value == pytest.approx(0.1 * 1.5**2, abs=1e-4)
    assert found.donors[1].value == found.receivers[0].value
    assert found.donors[1].value == pytest.approx(4 * 1.5**2, abs=1e-4)
    assert found.within.value == 0.5


def test_a_setting_outside_the_box_of_the_receiver_is_refused() -> None:
    narrow = Domain(lr=(-5.0, -3.0), weight_decay=BOX.weight_decay)
    cells = {**shifted(-2.0), "narrow": landscape(partial(bowl, centre=(-4.0, -3.5)), domain=narrow)}
    found = a_transfer(cells)
    assert found.regret[0][1].reason is Reason.NO_SHARED_SUPPORT
    assert found.regret[1][0].value == pytest.approx(16, abs=1e-3)
    assert found.donors[0].reason is Reason.NO_SHARED_SUPPORT
    assert found.mean.value == pytest.approx(16, abs=1e-3)


def test_transfer_needs_two_backbones() -> None:
    found = transfer(shifted(-2.0), np.random.default_rng(0))
    assert isinstance(found, Refused)
    assert found.reason is Reason.TOO_FEW_BACKBONES


# Drift


def test_drift_of_shifted_bowls() -> None:
    cells = shifted(-3.0, -2.0, -3.0, -2.0)
    found = landscape_drift(cells, common_default(cells))
    assert isinstance(found, dict)
    assert [cell.lr.value for cell in found.values()] == pytest.approx([-0.5, 0.5, -0.5, 0.5])
    assert [cell.weight_decay.value for cell in found.values()] == pytest.approx([0] * 4)
    assert found["b1"].half_widths == pytest.approx(0.5 / np.sqrt(0.25), rel=0.01)
    refused = landscape_drift(shifted(-3.0, -2.0), common_default(cells))
    assert isinstance(refused, Refused)
    assert refused.reason is Reason.TOO_FEW_BACKBONES


def test_no_weight_decay_drifts_like_the_smallest_that_is_published() -> None:
    domain = Domain(lr=BOX.lr, weight_decay=BOX.weight_decay, zero_mass=0.2)
    grid = SettingGrid(domain=domain)
    cells = {
        f"b{i}": landscape(lambda u, v: bowl(u, v) + 30 * (v == grid.domain.zero_at), domain=domain) for i in range(4)
    }
    found = landscape_drift(cells, Setting(10**-2.5, 1e-4))
    assert isinstance(found, dict)
    cell = found["b0"].weight_decay
    assert (cell.value, cell.lo, cell.hi) == pytest.approx((-2, -2, -2))


@pytest.mark.parametrize(
    ("lr", "mode"),
    [([1, 1, 10], 1), ([1, 10, 100, 100, 1], 1), ([1, 100, 10], 10), ([1, 1, 10, 10, 100, 100, 1000], 10)],
    ids=["most frequent", "tie: the smaller", "tie: nearest the median", "tie: nearest of two"],
)
def test_mode_with_ties(lr: list[float], mode: float) -> None:
    assert modal_setting(np.array([*lr, np.nan]), np.array([0.0] * len(lr) + [np.nan])) == (mode, 0.0)


def test_the_reference_weight_decay_is_one_that_occurs() -> None:
    decay = np.array([1e-7, 1e-7, 0.0, 1e-2])
    assert modal_setting(np.full(4, 1e-3), decay).weight_decay == 1e-7
    assert drift(np.full(4, 1e-3), decay, Setting(1e-3, 1e-7)).weight_decay.tolist() == [0, 0, 0, 4]


def published_settings() -> pd.DataFrame:
    """The cells of the CIFAR-100 table with published settings: 14 backbones x 20 optimizers."""
    return published("cifar100").trials.dropna(subset=["lr", "weight_decay"])


def test_drift_of_the_published_settings() -> None:
    """Section 9.1: mean |du| .273, 54 % off the mode, 21 % by more than half a decade, mean |dv| .466."""
    drifts = {
        name: drift(lr, decay, modal_setting(lr, decay))
        for name, rows in published_settings().groupby("optimizer")
        for lr, decay in [(rows["lr"].to_numpy(), rows["weight_decay"].to_numpy())]
    }
    lr = np.concatenate([each.lr for each in drifts.values()])
    assert len(lr) == 280
    assert np.mean([each.mean_lr for each in drifts.values()]) == pytest.approx(0.273, abs=5e-4)
    assert np.mean([each.mean_weight_decay for each in drifts.values()]) == pytest.approx(0.466, abs=5e-4)
    assert np.mean([each.share_beyond() for each in drifts.values()]) == pytest.approx(0.21, abs=5e-3)
    assert np.mean(np.abs(lr) > 1e-9) == pytest.approx(0.54, abs=5e-3)
    by_name = {name: (each.reference.lr, each.mean_lr) for name, each in drifts.items()}
    assert by_name["Adan"] == pytest.approx((0.002, 0.263), abs=5e-4)
    assert by_name["AdaBound"] == pytest.approx((0.005, 0.744), abs=5e-4)


def test_variance_of_the_published_learning_rates() -> None:
    """Section 9.1: optimizer 89.2 %, backbone 2.6 %, interaction 8.2 %, rms .363 decade."""
    found = lr_variance(published_settings().pivot(index="backbone", columns="optimizer", values="lr").to_numpy())
    shares = (found.optimizer, found.backbone, found.interaction, found.rms_interaction)
    assert shares == pytest.approx((0.892, 0.026, 0.082, 0.363), abs=5e-4)


# Cross-checks


def test_ped_anova_ranks_the_steeper_axis_first() -> None:
    found = landscape_importance(landscape(bowl))
    assert found["lr"].value + found["weight_decay"].value == pytest.approx(1)  # type: ignore[operator]
    assert found["lr"].value > 0.6  # type: ignore[operator]
    assert landscape_importance(landscape(ridge))["lr"].value == pytest.approx(0.5, abs=0.01)


def test_ped_anova_of_a_step_is_exact() -> None:
    """The best tenth lies in the upper fifth of lr, evenly, so that weight decay has no part in it."""
    found = landscape_importance(landscape(lambda u, v: np.where(u > -1, 80.0, 50.0) + 0 * v))
    assert found["lr"].value == pytest.approx(1)
    flat = landscape_importance(landscape(lambda u, v: 50 + 0 * u * v))
    assert flat["lr"].reason is Reason.DEGENERATE_VARIANCE


@pytest.mark.parametrize("evaluator", ["fanova", "ped-anova"])
def test_optuna_agrees_on_what_matters_most(evaluator: str) -> None:
    trials = simulate(BOWL, 80, seed=0, stop=False)
    found = optuna_importance(trials, BOWL.domain, evaluator)
    assert found["lr"].value > found["weight_decay"].value  # type: ignore[operator]
    assert "cross-check" in found["lr"].method
    few = optuna_importance(simulate(BOWL, 60, seed=0), BOWL.domain, evaluator)
    assert few["lr"].reason is Reason.TOO_FEW_COMPLETED
