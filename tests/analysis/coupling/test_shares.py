"""Decomposition, shares and concordance: exact answers on planted matrices, then what must hold for any matrix."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import digamma
from scipy.stats import t as student

from bocb_tune.analysis.core.estimate import Reason
from bocb_tune.analysis.coupling.interaction_test import interaction_test
from bocb_tune.analysis.coupling.shares import (
    coupling_indices,
    fitted_interaction_shares,
    interaction_half_width,
    interaction_shares,
    line_coupling,
    line_shares,
)
from bocb_tune.analysis.coupling.structure import generalisation, tukey_test, versions
from bocb_tune.analysis.matrix.concordance import agreement, concordance
from bocb_tune.analysis.matrix.noise import Noise, seed_noise
from bocb_tune.analysis.matrix.resample import corrected_squares
from bocb_tune.analysis.matrix.standings import num_near_best, regret, spread, top
from bocb_tune.analysis.matrix.twoway import MIN_SHARE_SHAPE, Matrix, decompose, fit_refusal, refusal, spare

PLANTED = (
    75
    + np.array([[-3.0], [0.0], [3.0]])
    + np.array([[-1.0, 0.0, 1.0]])
    + 1.5 * np.array([[1.0, -1.0, 0.0], [-1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
)
# A busy machine makes single examples late.
unhurried = settings(deadline=None, max_examples=50)
MATRICES = arrays(np.float64, (4, 5), elements=st.floats(0, 100).map(lambda value: round(value, 3)))


def test_planted_effects_come_out_exactly() -> None:
    parts = decompose(PLANTED)
    assert parts.mean == pytest.approx(75)
    assert (parts.ss_backbone, parts.ss_optimizer, parts.ss_interaction) == pytest.approx((54, 6, 9))
    assert parts.share_of_optimizer_effect == pytest.approx(0.6)
    assert parts.share_of_total == pytest.approx(9 / 69)
    np.testing.assert_allclose(parts.interaction[0], [1.5, -1.5, 0], atol=1e-12)
    np.testing.assert_allclose(line_shares(parts)[0], [0.5, 0.5, 0], atol=1e-12)


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


@unhurried
@given(MATRICES)
def test_the_sums_of_squares_add_up_and_effects_sum_to_zero(values: Matrix) -> None:
    parts = decompose(values)
    total = parts.ss_backbone + parts.ss_optimizer + parts.ss_interaction
    assert total == pytest.approx(((values - values.mean()) ** 2).sum(), abs=1e-7)
    np.testing.assert_allclose(parts.interaction.sum(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(parts.interaction.sum(axis=1), 0, atol=1e-9)


@unhurried
@given(MATRICES, st.permutations(range(4)), st.permutations(range(5)))
def test_the_order_of_backbones_and_optimizers_has_no_effect(
    values: Matrix, rows: list[int], columns: list[int]
) -> None:
    moved = values[np.ix_(rows, columns)]
    before, after = decompose(values), decompose(moved)
    assert after.ss_interaction == pytest.approx(before.ss_interaction, abs=1e-7)
    np.testing.assert_allclose(after.interaction, before.interaction[np.ix_(rows, columns)], atol=1e-9)
    assert concordance(moved).w == pytest.approx(concordance(values).w, nan_ok=True)


@unhurried
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


# Exact answers of the planted matrices


def test_coupling_indices_of_the_planted_matrix() -> None:
    """Three backbones are too few to state an index, but not to compute it."""
    assert coupling_indices(PLANTED, None)[0][0].reason is Reason.TOO_FEW_BACKBONES
    backbones, optimizers = line_coupling(PLANTED, None)
    for estimates in (backbones, optimizers):
        assert [each.value for each in estimates] == pytest.approx([1.83712, 1.83712, 0], abs=5e-6)


def test_product_of_main_effects_is_all_of_the_interaction() -> None:
    a, c = np.array([[-3.0], [0.0], [3.0]]), np.array([[-1.0, 0.0, 1.0]])
    found = tukey_test(decompose(75 + a + c + 0.5 * a * c))
    assert (found.slope, found.ss) == pytest.approx((0.5, 9))
    assert (found.f, found.p) == (np.inf, 0)
    assert np.isnan(tukey_test(decompose(75 + a + 0 * c)).f)


def test_tukey_finds_the_product_and_only_the_product() -> None:
    found = tukey_test(decompose(PLANTED))
    assert (found.slope, found.f) == pytest.approx((4.5 / 36, (4.5**2 / 36) / ((9 - 4.5**2 / 36) / 3)))


@pytest.mark.parametrize(
    "values",
    [np.zeros((4, 5)), np.full((4, 5), 71.3), 70 + np.arange(4.0)[:, None] / 3 + np.arange(5.0) / 7],
    ids=["0", "71.3", "sum"],
)
def test_rounding_has_no_structure(values: Matrix) -> None:
    parts = decompose(values)
    assert parts.is_additive
    assert np.isnan(line_shares(parts)[0]).all()
    for each in versions(values, bounded=True)[:2]:
        assert np.isnan([each.singular, each.tukey.f, each.tukey.p]).all()


# Incomplete matrices


@unhurried
@given(MATRICES)
def test_missing_cells_are_fitted_as_by_dummy_variables(values: Matrix) -> None:
    holed = values.copy()
    holed[0, 1] = holed[2, 3] = np.nan
    known = np.isfinite(holed)
    rows, columns = np.nonzero(known)
    both = np.column_stack([np.eye(4)[rows], np.eye(5)[columns]])
    left = [
        holed[known] - x @ np.linalg.lstsq(x, holed[known], rcond=None)[0] for x in (both, both[:, :4], both[:, 4:])
    ]
    parts = decompose(holed)
    ss_both, ss_rows, ss_columns = (float(each @ each) for each in left)
    np.testing.assert_allclose(parts.interaction[known], left[0], atol=1e-8)
    assert np.isnan(parts.interaction[~known]).all()
    assert parts.ss_optimizer == pytest.approx(ss_rows - ss_both, abs=1e-6)
    assert parts.ss_backbone == pytest.approx(ss_columns - ss_both, abs=1e-6)
    assert parts.df_interaction == 18 - 8


def test_leverage_counts_the_degrees_of_freedom() -> None:
    known = np.ones((4, 5), bool)
    np.testing.assert_allclose(spare(known), 12 / 20)
    known[0, 1] = False
    assert spare(known).sum() == pytest.approx(11)


@pytest.mark.parametrize(
    ("known", "reason"),
    [
        (np.ones((3, 3), bool), None),
        (~np.eye(4, dtype=bool), None),
        (~np.eye(3, dtype=bool), Reason.INCOMPLETE_MATRIX),
        (np.kron(np.eye(2, dtype=bool), np.ones((3, 3), bool)), Reason.DISCONNECTED),
        (np.ones((2, 9), bool), Reason.TOO_FEW_BACKBONES),
        (np.ones((9, 2), bool), Reason.TOO_FEW_OPTIMIZERS),
    ],
    ids=["complete", "three a line", "two a line", "two grids", "two backbones", "two optimizers"],
)
def test_refusals_of_a_fit(known: Matrix, reason: Reason | None) -> None:
    values = np.where(known, 70.0, np.nan)
    assert fit_refusal(values) is reason
    if reason:
        assert interaction_shares(values, None, rng())[0].reason is reason


# Noise


def test_noise_is_moderated_over_cells() -> None:
    """Where variances do not differ more than by chance, each is that of all, however many seeds a cell has."""
    own, seeds = np.full((4, 5), 0.25), np.full((4, 5), 3.0)
    own[0, 0], seeds[0, 0] = np.nan, 1
    noise = seed_noise(own, seeds)
    assert noise is not None
    assert (noise.sd, noise.df) == (0.5, 38)
    assert noise.run_variance.std() < 0.01 * noise.run_variance.mean()
    # Equal sample variances are what no chance gives: their log is centred as a chi-square's with 2 df is.
    np.testing.assert_allclose(noise.run_variance, 0.25 / np.exp(digamma(1)), rtol=0.02)
    np.testing.assert_allclose(noise.cell_variance * seeds, noise.run_variance)


def test_noise_that_differs_keeps_to_its_cells_and_to_its_optimizer() -> None:
    sd = np.full((10, 8), 0.5)
    sd[:, 0] *= 6
    noise = noise_of(sd, 3, rng())
    by_optimizer = np.sqrt(noise.run_variance).mean(axis=0)
    assert by_optimizer[0] > 3 * by_optimizer[1:].max()


@pytest.mark.parametrize(
    ("own", "seeds"),
    [(np.ones((2, 2)), [[2, 2], [1, 1]]), (np.ones((1, 2)), [[2, 2]]), (np.zeros((2, 2)), [[3, 3], [3, 3]])],
    ids=["too few repeated", "too few", "copies"],
)
def test_noise_that_is_not_known(own: Matrix, seeds: list[list[int]]) -> None:
    assert seed_noise(own, np.array(seeds, float)) is None


def test_what_noise_adds_is_taken_off() -> None:
    """Exactly the expectation: (B - 1)(O - 1) v from the interaction, (O - 1) v and (B - 1) v from the main effects."""
    found = corrected_squares(PLANTED, 0.5)
    assert (float(found.backbone), float(found.optimizer), float(found.interaction)) == pytest.approx((53, 5, 7))
    assert float(corrected_squares(PLANTED, 100.0).interaction) == 0


def test_unrepeated_cells_give_plug_in_shares_and_say_so() -> None:
    for estimate, value in zip(interaction_shares(PLANTED, None, rng()), (0.6, 9 / 69), strict=True):
        assert estimate.value == pytest.approx(value)
        assert (estimate.lo, estimate.reason) == (None, Reason.TOO_FEW_REPLICATES)
        assert "includes noise" in estimate.method


def test_noise_without_effect_is_refused_a_share() -> None:
    values, noise = repeated(np.full((6, 6), 70.0), 0.5, 3, rng())
    for estimate in interaction_shares(values, noise, rng()):
        assert estimate.reason is Reason.DEGENERATE_VARIANCE
    assert interaction_test(values, noise, rng()).p > 0.01


def test_large_interaction_is_certain() -> None:
    truth = additive(rng(), 6, 6) + 5 * centred(rng().normal(size=(6, 6)))
    values, noise = repeated(truth, 0.01, 3, rng())
    share, total = interaction_shares(values, noise, rng())
    parts = decompose(truth)
    assert share.value == pytest.approx(parts.share_of_optimizer_effect, abs=1e-3)
    assert total.value == pytest.approx(parts.share_of_total, abs=1e-3)
    assert share.hi is not None
    assert share.lo is not None
    assert share.hi - share.lo < 0.01
    test = interaction_test(values, noise, rng())
    assert test.significant_cells.all()
    assert test.p == 1 / 1000


def test_missing_cells_are_counted() -> None:
    values, noise = repeated(additive(rng(), 6, 6) + 2 * centred(rng().normal(size=(6, 6))), 0.3, 3, rng())
    share, total = interaction_shares(*with_holes(values, noise, 4), rng())
    for each in (share, total):
        assert each.lo is not None
        assert "4 cells missing" in each.method


def test_half_width_of_a_cell() -> None:
    """t s sqrt((B - 1)(O - 1) / (B O S)), where cells have the same noise."""
    noise = equal_noise(0.5, (3, 3), 3)
    half = interaction_half_width(np.ones((3, 3), bool), noise)
    df = (4 / 9) ** 2 / (np.array([4, 2, 2, 1, 1, 2, 2, 1, 1]) ** 4 / 81**2).sum() * (1000 + 2)
    np.testing.assert_allclose(half, student.ppf(0.975, df) * 0.5 * np.sqrt(4 / 27), rtol=1e-3)


def test_noise_is_taken_off_an_index() -> None:
    noise = equal_noise(1.0, (5, 5), 2)
    values = additive(rng(), 5, 5) + centred(rng().normal(0, 2, (5, 5)))
    plain, corrected = (coupling_indices(values, each)[0] for each in (None, noise))
    for before, after in zip(plain, corrected, strict=True):
        assert before.value is not None
        assert after.value == pytest.approx(np.sqrt(max(0, before.value**2 - 0.5)))
        assert after.lo is not None
        assert after.hi is not None
        assert after.lo <= after.value <= after.hi


@pytest.mark.parametrize("sd", [1e-2, 1e-3, 1e-6])
def test_interval_of_a_large_index_is_gaussian(sd: float) -> None:
    noise = equal_noise(sd, (5, 5), 2)
    for each in coupling_indices(additive(rng(), 5, 5) + centred(rng().normal(0, 2, (5, 5))), noise)[0]:
        assert each.lo is not None
        assert each.hi is not None
        assert each.hi - each.lo == pytest.approx(2 * 1.96 * sd / np.sqrt(2 * 4), rel=0.02)


def index_held(seed: int, shape: tuple[int, int], seeds: int, sd_interaction: float) -> float:
    """One experiment: share of the backbones whose coupling is covered."""
    draws = np.random.default_rng(seed)
    truth = additive(draws, *shape) + sd_interaction * centred(draws.normal(size=shape))
    values, noise = repeated(truth, 0.5, seeds, draws)
    true_index = [each.value for each in line_coupling(truth, None)[0]] if sd_interaction else [0.0] * shape[0]
    inside = [
        each.lo - 1e-9 <= index <= each.hi + 1e-9  # type: ignore[operator]
        for each, index in zip(coupling_indices(values, noise)[0], true_index, strict=True)
    ]
    return float(np.mean(inside))


@pytest.mark.parametrize("sd", [0.0, 0.3])
def test_intervals_of_lines_cover(sd: float) -> None:
    """Forty experiments: loose bands."""
    assert np.mean([index_held(seed, (6, 6), 3, sd) for seed in range(40)]) >= 0.87


@pytest.mark.slow
@pytest.mark.parametrize(("shape", "seeds", "sd"), [((6, 6), 3, 0.3), ((4, 5), 2, 1.0), ((10, 8), 3, 0.0)])
def test_coverage_of_lines(shape: tuple[int, int], seeds: int, sd: float) -> None:
    held = np.mean([index_held(seed, shape, seeds, sd) for seed in range(300)])
    assert held == pytest.approx(0.95, abs=0.03)


# Standings and agreement


def test_standings_by_hand() -> None:
    values = np.array([[50.0, 60, 62, 62, 64], [10, 20, 30, 40, 50]])
    shape = spread(values)
    np.testing.assert_allclose(shape.mean, [62, 35])
    np.testing.assert_allclose(shape.sd, [np.sqrt(2), np.sqrt(125)])
    np.testing.assert_allclose(shape.range, [4, 30])
    np.testing.assert_allclose(spread(values, drop=0).range, [14, 40])
    np.testing.assert_array_equal(
        top(values, k=2), [[False, False, True, True, True], [False, False, False, True, True]]
    )
    np.testing.assert_array_equal(num_near_best(values, 2), [3, 1])
    np.testing.assert_allclose(regret(values)[0], [14, 4, 2, 2, 0])
    assert top(np.stack([values, -values]), k=1).mean(axis=0)[1].tolist() == [0.5, 0, 0, 0, 0.5]


def test_agreement_needs_backbones_and_cells() -> None:
    values = np.arange(12.0).reshape(4, 3)
    assert agreement(values, rng()).value == 1
    assert agreement(values[:3], rng()).reason is Reason.TOO_FEW_BACKBONES
    assert agreement(0 * values, rng()).reason is Reason.DEGENERATE_VARIANCE
    values[0, 0] = np.nan
    assert agreement(values, rng()).reason is Reason.INCOMPLETE_MATRIX
    assert generalisation(values, rng()).reason is Reason.INCOMPLETE_MATRIX
    assert generalisation(np.ones((3, 3)), rng()).reason is Reason.DEGENERATE_VARIANCE


def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def centred(values: Matrix) -> Matrix:
    centre: Matrix = values - values.mean(axis=0) - values.mean(axis=1, keepdims=True) + values.mean()
    return centre


def additive(draws: np.random.Generator, num_backbones: int, num_optimizers: int) -> Matrix:
    effects: Matrix = 70 + 3 * draws.normal(size=(num_backbones, 1)) + draws.normal(size=num_optimizers)
    return effects


def repeated(truth: Matrix, sd: float, seeds: int, draws: np.random.Generator) -> tuple[Matrix, Noise]:
    """Means over seeds of noisy runs, and the noise they let one estimate."""
    runs = truth + sd * draws.normal(size=(seeds, *truth.shape))
    noise = seed_noise(runs.var(axis=0, ddof=1), np.full(truth.shape, float(seeds)))
    assert noise is not None
    return runs.mean(axis=0), noise


def noise_of(sd: Matrix, seeds: int, draws: np.random.Generator) -> Noise:
    """What seeds of cells with these standard deviations let one estimate."""
    noise = repeated(np.zeros(sd.shape), 1.0, seeds, draws)[1]
    found = seed_noise(noise.own * sd**2, noise.seeds)
    assert found is not None
    return found


def equal_noise(sd: float, shape: tuple[int, int], seeds: int) -> Noise:
    """Known, and the same everywhere."""
    same = np.full(shape, sd**2)
    return Noise(seeds=np.full(shape, float(seeds)), own=same, expected=same, expected_df=np.full((1, 1), 1000.0))


def with_holes(values: Matrix, noise: Noise, holes: int) -> tuple[Matrix, Noise]:
    """Without the first cells of the diagonal."""
    known = ~np.diag(np.arange(len(values)) < holes)
    every = np.ones(len(values), bool)
    return np.where(known, values, np.nan), noise.part(every, every, known)


def planted(interaction: float) -> Matrix:
    rng = np.random.default_rng(5)
    backbone, optimizer, both = rng.normal(size=(6, 1)), 2 * rng.normal(size=(1, 5)), rng.normal(size=(6, 5))
    centred = both - both.mean(axis=0) - both.mean(axis=1, keepdims=True) + both.mean()
    return 70 + backbone + optimizer + interaction * centred


def test_shares_from_draws_without_spread_are_those_of_the_matrix() -> None:
    truth = planted(1.0)
    rho, total = fitted_interaction_shares(np.repeat(truth[None], 40, axis=0))
    assert rho.value == pytest.approx(decompose(truth).share_of_optimizer_effect)
    assert total.value == pytest.approx(decompose(truth).share_of_total)
    assert (rho.lo, rho.hi) == pytest.approx((rho.value, rho.value))


@pytest.mark.parametrize("interaction", [0.0, 0.3, 1.0])
def test_shares_from_draws_cover_the_truth(interaction: float) -> None:
    truth, rng, inside = planted(interaction), np.random.default_rng(11), []
    share = decompose(truth).share_of_optimizer_effect
    sd = rng.uniform(0.1, 0.5, truth.shape)  # cells known to different precision
    for _ in range(200):
        posterior = truth + sd * rng.normal(size=truth.shape) + sd * rng.normal(size=(240, *truth.shape))
        rho, _ = fitted_interaction_shares(posterior)
        assert rho.lo is not None
        assert rho.hi is not None
        inside.append(rho.lo - 1e-9 <= share <= rho.hi + 1e-9)
    assert np.mean(inside) >= 0.88


def test_shares_from_draws_are_refused_where_cells_do_not_differ() -> None:
    rho, _ = fitted_interaction_shares(70 + np.random.default_rng(0).normal(size=(240, 6, 5)))
    assert rho.reason is Reason.DEGENERATE_VARIANCE
