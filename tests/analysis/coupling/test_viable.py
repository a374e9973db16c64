"""Failures apart from coupling: the planted failure comes out as one, and leaves the coupling of the rest at zero."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bocb_tune.analysis.core.estimate import Estimate, Reason
from bocb_tune.analysis.coupling.shares import line_shares
from bocb_tune.analysis.coupling.viable import failures, floored, led_by_failures, median_polish, viable_coupling
from bocb_tune.analysis.matrix.noise import seed_noise
from bocb_tune.analysis.matrix.twoway import Matrix, decompose

ADDITIVE = 70 + np.arange(-4.0, 5.0, 2.0)[:, None] + np.arange(-1.0, 1.5, 0.5)
CELL = (1, 3)
FAILED = ADDITIVE.copy()
FAILED[CELL] -= 45
MATRICES = arrays(np.float64, (5, 6), elements=st.floats(0, 100).map(lambda value: round(value, 3)))


def test_one_failed_cell_leads_the_plain_index() -> None:
    parts = decompose(FAILED)
    assert parts.ss_interaction == pytest.approx(45**2 * 16 / 25)
    assert line_shares(parts)[0][CELL[0]] == pytest.approx(0.8)
    assert line_shares(parts)[1][CELL[1]] == pytest.approx(0.8)


def test_one_failed_cell_is_counted_and_leaves_no_coupling() -> None:
    failed = failures(FAILED)
    assert [tuple(place) for place in np.argwhere(failed)] == [CELL]
    for estimates in viable_coupling(FAILED, failed, None):
        assert [estimate.value for estimate in estimates] == pytest.approx([0] * 5, abs=1e-9)
        assert {estimate.reason for estimate in estimates} == {Reason.TOO_FEW_REPLICATES}


def test_polish_recovers_the_additive_part_exactly() -> None:
    found = median_polish(FAILED)
    expected = np.zeros_like(FAILED)
    expected[CELL] = -45
    np.testing.assert_allclose(found.residual, expected, atol=1e-9)
    np.testing.assert_allclose(found.backbone, np.arange(-4, 5, 2), atol=1e-9)
    np.testing.assert_allclose(found.optimizer, np.arange(-1, 1.5, 0.5), atol=1e-9)
    assert found.scale == pytest.approx(0, abs=1e-9)
    assert found.l1_share == pytest.approx(45 / (45 + 5 * 3))


@settings(deadline=None, max_examples=30)
@given(MATRICES, arrays(np.float64, 5, elements=st.integers(-20, 20).map(float)))
def test_a_better_backbone_changes_no_residual_of_the_polish(values: Matrix, lift: Matrix) -> None:
    found = median_polish(values + lift[:, None])
    np.testing.assert_allclose(found.residual, median_polish(values).residual, atol=1e-6)


def test_polish_leaves_missing_cells_out() -> None:
    holed = FAILED.copy()
    holed[0, 0] = np.nan
    assert np.isnan(median_polish(holed).residual[0, 0])
    assert median_polish(holed).residual[CELL] == pytest.approx(-45)


@pytest.mark.parametrize(("drop", "delta", "failed"), [(9.9, 10, 0), (10.1, 10, 1), (9.9, 5, 1), (12, 15, 0)])
def test_a_failure_lies_far_below_the_best_of_its_backbone(drop: float, delta: float, failed: int) -> None:
    values = np.full((4, 4), 60.0) + 10 * np.arange(4)[:, None]
    values[2, 1] -= drop
    assert failures(values, delta=delta).sum() == failed


def test_diverged_fails_however_good_the_others_and_missing_does_not() -> None:
    values = np.full((4, 4), 10.0)
    values[0, 0] = np.nan
    diverged = np.zeros((4, 4), bool)
    assert failures(values, diverged).sum() == 0
    diverged[1, 1] = True
    assert np.argwhere(failures(values, diverged)).tolist() == [[1, 1]]
    values[2] = np.nan
    assert failures(values).sum() == 0


def test_a_line_with_too_few_viable_cells_is_refused_and_leaves_the_others_alone() -> None:
    values = ADDITIVE.copy()
    values[:3, 0] = 10
    backbones, optimizers = viable_coupling(values, failures(values), None)
    assert (optimizers[0].value, optimizers[0].reason) == (None, Reason.INCOMPLETE_MATRIX)
    assert [each.value for each in (*backbones, *optimizers[1:])] == pytest.approx([0] * 9, abs=1e-9)


def test_refused_where_nothing_viable_is_left_to_compare() -> None:
    values = np.where(np.eye(5, dtype=bool), 80.0, 10.0)
    backbones, optimizers = viable_coupling(values, failures(values), None)
    assert {each.reason for each in (*backbones, *optimizers)} == {Reason.INCOMPLETE_MATRIX}
    assert (len(backbones), len(optimizers)) == (5, 5)


def test_noise_is_that_of_the_viable_cells() -> None:
    """Where only failed cells were run once, or are noisy, the coupling of the others must not change."""
    rng = np.random.default_rng(0)
    values = FAILED + rng.normal(0, 0.3, FAILED.shape)
    failed = failures(values)
    own = 0.25 * rng.chisquare(2, FAILED.shape) / 2
    noise = seed_noise(own, np.full((5, 5), 3.0))
    assert noise is not None
    again = replace(noise, own=np.where(failed, 100.0, own), seeds=np.where(failed, 1.0, 3.0))
    assert viable_coupling(values, failed, noise) == viable_coupling(values, failed, again)
    assert viable_coupling(values, failed, noise)[0][0].lo is not None


def test_floor_lies_below_the_median_of_the_backbone() -> None:
    lifted = floored(FAILED, depth=5)
    assert lifted[CELL] == np.median(FAILED[CELL[0]]) - 5
    assert (lifted == FAILED).sum() == FAILED.size - 1


@pytest.mark.parametrize(
    ("plain", "viable", "led"),
    [
        ([1, 2, 3, 4, 5], [2, 3, 4, 5, 9], False),
        ([9, 2, 3, 4, 5], [1, 2, 3, 4, 5], True),
        ([1, 2, 3, 4, 9], [1, 2, 3, 4, None], False),
        ([1, 2], [2, 1], False),
        ([1, 2, 3], [0, 0, 0], False),
    ],
    ids=["same order", "one moved", "refused left out", "too few to say", "all equal"],
)
def test_led_by_failures_if_the_orders_disagree(plain: list[float], viable: list[float | None], led: bool) -> None:
    first, second = ([Estimate(value=value) for value in values] for values in (plain, viable))
    assert led_by_failures(first, second) is led
