"""Rank correlation of patterns with measures of cells: equal to a plain reference, invariant, calibrated."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pytest
from scipy.stats import spearmanr

from bocb_tune.analysis.core.arrays import Array
from bocb_tune.analysis.core.estimate import Reason
from bocb_tune.analysis.core.multiple import holm
from bocb_tune.analysis.patterns.association import Association, associations, correlation


def drawn(shape: tuple[int, int], share: float, rho: float, rng: np.random.Generator) -> tuple[Array, Array]:
    """Two measures of each cell, correlated by `rho`; `share` of their variance is the optimizer's on all backbones."""
    covariance = np.array([[1.0, rho], [rho, 1.0]])
    common = rng.multivariate_normal([0, 0], covariance, shape[1])
    own = rng.multivariate_normal([0, 0], covariance, shape)
    both = math.sqrt(share) * common + math.sqrt(1 - share) * own
    return both[..., 0], both[..., 1]


def only(x: Array, y: Array) -> Association:
    (found,) = associations({"x": x}, {"y": y}, np.random.default_rng(0))
    return found


def test_on_one_backbone_it_is_spearmans() -> None:
    x, y = drawn((1, 9), 0.0, 0.5, np.random.default_rng(1))
    assert correlation(x, y) == pytest.approx(spearmanr(x[0], y[0]).statistic)


def test_a_backbones_own_level_does_not_matter_nor_does_any_rising_scale() -> None:
    x, y = drawn((4, 6), 0.3, 0.5, np.random.default_rng(2))
    levels = np.array([[0.0], [100.0], [-50.0], [7.0]])
    assert correlation(np.exp(x), y + levels) == pytest.approx(correlation(x, y))
    assert correlation(-x, y) == pytest.approx(-correlation(x, y))
    assert only(y, x).rho.value == pytest.approx(only(x, y).rho.value)


def test_the_same_order_everywhere_is_one_and_its_exact_p_the_least_there_is() -> None:
    x = np.tile(np.arange(6.0), (3, 1))
    found = only(x, x + np.array([[0.0], [10.0], [20.0]]))
    assert found.rho.value == pytest.approx(1.0)
    assert found.p == pytest.approx(2 / math.factorial(6))  # and the reverse


def test_the_exact_p_value_is_that_of_a_plain_count() -> None:
    x, y = drawn((3, 6), 0.5, 0.3, np.random.default_rng(3))
    seen = [abs(correlation(x, y[:, list(order)])) for order in permutations(range(6))]
    assert only(x, y).p == pytest.approx(np.mean(np.array(seen) >= abs(correlation(x, y)) - 1e-9))


def test_cells_that_one_side_does_not_know_are_left_out_of_both() -> None:
    x, y = drawn((3, 6), 0.0, 0.5, np.random.default_rng(4))
    x[0, 1], y[1, 2] = np.nan, np.nan
    found, both = only(x, y), np.isfinite(x) & np.isfinite(y)
    masked = np.where(both, x, np.nan), np.where(both, y, np.nan)
    assert found.rho.counts.n_trials == 16
    assert found.rho.value == pytest.approx(correlation(*masked))


def test_what_cannot_be_told_is_refused_with_its_reason() -> None:
    x, y = drawn((3, 6), 0.0, 0.5, np.random.default_rng(5))
    few = only(x[:, :5], y[:, :5])
    flat = only(np.ones_like(x), y)
    unknown = only(np.full_like(x, np.nan), y)
    assert [each.rho.reason for each in (few, flat, unknown)] == [
        Reason.TOO_FEW_OPTIMIZERS,
        Reason.DEGENERATE_VARIANCE,
        Reason.TOO_FEW_OPTIMIZERS,
    ]
    assert all(each.p is None and each.p_holm is None for each in (few, flat, unknown))


def test_all_pairs_are_corrected_together() -> None:
    rng = np.random.default_rng(6)
    patterns = {name: drawn((3, 6), 0.0, 0.0, rng)[0] for name in "ab"}
    measures = {name: drawn((3, 6), 0.0, 0.0, rng)[0] for name in "cde"}
    found = associations(patterns, measures, rng)
    assert len(found) == 6
    assert [each.p_holm for each in found] == holm([each.p for each in found])


@pytest.mark.parametrize(
    ("p_values", "corrected"), [([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]), ([0.5, None], [0.5, None])]
)
def test_holms_method_on_a_known_case(p_values: list[float | None], corrected: list[float | None]) -> None:
    assert holm(p_values) == pytest.approx(corrected)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("rho", [0.0, 0.6])
def test_the_interval_holds_the_truth_though_cells_of_an_optimizer_are_alike(share: float, rho: float) -> None:
    """Nominal .95; the truth is that of very many optimizers. In null grids p is below .05 in at most .10."""
    rng = np.random.default_rng(7)
    truth = np.mean([correlation(*drawn((3, 400), share, rho, rng)) for _ in range(20)])
    found = [only(*drawn((4, 6), share, rho, rng)) for _ in range(100)]
    held = [
        each.rho.lo <= truth <= each.rho.hi for each in found if each.rho.lo is not None and each.rho.hi is not None
    ]
    assert np.mean(held) >= 0.9
    if rho == 0:
        assert np.mean([each.p is not None and each.p < 0.05 for each in found]) <= 0.1
