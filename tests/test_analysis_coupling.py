"""Decomposition, shares and concordance: exact answers on planted matrices, then what must hold for any matrix."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bocb_tune.analysis.coupling import MIN_SHARE_SHAPE, Matrix, concordance, decompose, refusal
from bocb_tune.analysis.estimate import Reason

PLANTED = (
    75
    + np.array([[-3.0], [0.0], [3.0]])
    + np.array([[-1.0, 0.0, 1.0]])
    + 1.5 * np.array([[1.0, -1.0, 0.0], [-1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
)
MATRICES = arrays(np.float64, (4, 5), elements=st.floats(0, 100).map(lambda value: round(value, 3)))


def test_planted_effects_come_out_exactly() -> None:
    parts = decompose(PLANTED)
    assert parts.mean == pytest.approx(75)
    assert (parts.ss_backbone, parts.ss_optimizer, parts.ss_interaction) == pytest.approx((54, 6, 9))
    assert parts.share_of_optimizer_effect == pytest.approx(0.6)
    assert parts.share_of_total == pytest.approx(9 / 69)
    np.testing.assert_allclose(parts.interaction[0], [1.5, -1.5, 0], atol=1e-12)


@pytest.mark.parametrize(
    ("ranks", "w"),
    [
        ([[1, 2, 3], [1, 2, 3], [1, 2, 3]], 1.0),
        ([[1, 2, 3], [3, 2, 1]], 0.0),
        ([[1, 2.5, 2.5], [1, 2, 3], [1.5, 1.5, 3]], 150 / 180),
    ],
    ids=["identical", "reversed", "tied"],
)
def test_concordance_of_known_orders(ranks: list[list[float]], w: float) -> None:
    found = concordance(-np.array(ranks))
    assert found.w == pytest.approx(w)
    np.testing.assert_allclose(found.ranks, ranks)
    assert found.chi2 == pytest.approx(len(ranks) * 2 * w)


@given(MATRICES)
def test_the_sums_of_squares_add_up_and_effects_sum_to_zero(values: Matrix) -> None:
    parts = decompose(values)
    total = parts.ss_backbone + parts.ss_optimizer + parts.ss_interaction
    assert total == pytest.approx(((values - values.mean()) ** 2).sum(), abs=1e-7)
    np.testing.assert_allclose(parts.interaction.sum(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(parts.interaction.sum(axis=1), 0, atol=1e-9)


@given(MATRICES, st.permutations(range(4)), st.permutations(range(5)))
def test_the_order_of_backbones_and_optimizers_has_no_effect(
    values: Matrix, rows: list[int], columns: list[int]
) -> None:
    moved = values[np.ix_(rows, columns)]
    before, after = decompose(values), decompose(moved)
    assert after.ss_interaction == pytest.approx(before.ss_interaction, abs=1e-7)
    np.testing.assert_allclose(after.interaction, before.interaction[np.ix_(rows, columns)], atol=1e-9)
    assert concordance(moved).w == pytest.approx(concordance(values).w, nan_ok=True)


@given(MATRICES, st.floats(0.1, 10), arrays(np.float64, 4, elements=st.integers(-20, 20).map(float)))
def test_a_better_backbone_changes_no_interaction_and_units_change_no_share(
    values: Matrix, scale: float, lift: Matrix
) -> None:
    before, after = decompose(values), decompose(values + lift[:, None])
    np.testing.assert_allclose(after.interaction, before.interaction, atol=1e-9)
    assert after.ss_optimizer == pytest.approx(before.ss_optimizer, abs=1e-7)
    if before.ss_interaction > 1e-3:
        assert decompose(scale * values).share_of_total == pytest.approx(before.share_of_total)


def test_nothing_that_varies_gives_no_share_and_no_agreement() -> None:
    same = np.full((4, 3), 71.3)
    assert np.isnan(decompose(same).share_of_optimizer_effect)
    assert np.isnan(decompose(same).share_of_total)
    assert np.isnan(concordance(same).w)
    only_backbones = same + np.arange(4.0)[:, None] / 3
    assert np.isnan(decompose(only_backbones).share_of_optimizer_effect)


@pytest.mark.parametrize(
    ("shape", "hole", "reason"),
    [
        ((2, 3), False, Reason.TOO_FEW_BACKBONES),
        ((3, 2), False, Reason.TOO_FEW_OPTIMIZERS),
        ((3, 3), True, Reason.INCOMPLETE_MATRIX),
        ((3, 3), False, None),
    ],
)
def test_refusals(shape: tuple[int, int], hole: bool, reason: Reason | None) -> None:
    values = np.ones(shape)
    if hole:
        values[1, 1] = np.nan
    assert refusal(values, MIN_SHARE_SHAPE) is reason
