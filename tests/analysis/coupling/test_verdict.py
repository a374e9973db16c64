"""What is said of coupling: failures apart, noise by cell, no claim that chance could make."""

from __future__ import annotations

import numpy as np
import pytest

from bocb_tune.analysis.answer.coupling import coupling_sentences
from bocb_tune.analysis.core.estimate import Counts
from bocb_tune.analysis.coupling.failures import part_failures, trained
from bocb_tune.analysis.coupling.posterior import posterior_values
from bocb_tune.analysis.coupling.verdict import CouplingVerdict, judge
from bocb_tune.analysis.matrix.concordance import agreement, concordance, true_agreement
from bocb_tune.analysis.matrix.exact import CLAIM, backbones_needed, rank_gap, sign_flip_p, step_down
from bocb_tune.analysis.matrix.twoway import Matrix, decompose
from bocb_tune.analysis.recommend.ranking import leave_one_out
from tests.analysis.coupling.test_shares import additive, centred, noise_of, repeated
from tests.support.coverage.coupling import BATCH, DESIGNS, IntervalOutcome, outcomes, share_of

SHAPE = (6, 6)
NAMES = tuple(f"b{i}" for i in range(6)), tuple(f"o{i}" for i in range(6))


def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def seeds_of(truth: Matrix, sd: Matrix | float = 0.3, count: int = 3) -> list[list[list[float]]]:
    """Scores of the seeds of each cell."""
    noise = np.random.default_rng(4).standard_normal((*truth.shape, count))
    scores: list[list[list[float]]] = (truth[..., None] + np.asarray(sd)[..., None] * noise).tolist()
    return scores


def verdict(scores: list[list[list[float]]], floor: float = np.nan) -> CouplingVerdict:
    values = np.array([[np.mean(runs) if runs else np.nan for runs in row] for row in scores])
    viability = part_failures(scores, values, np.zeros(values.shape, bool), NAMES, floor=floor)
    return judge(viability, NAMES, rng())


@pytest.mark.parametrize("floor", [np.nan, 1.0])
def test_one_failed_cell_of_an_additive_grid_is_a_failure_and_no_coupling(floor: float) -> None:
    truth = additive(rng(), *SHAPE)
    truth[1, 2] = 1.0
    assert decompose(truth).share_of_optimizer_effect > 0.7
    found = verdict(seeds_of(truth), floor)
    assert [cell.key for cell in found.failed] == ["b1/o2"]
    assert found.share.value is not None
    assert found.share.value < 0.1
    assert found.share.lo == 0
    assert not found.is_shown
    assert (found.cells, found.lines) == ((), ())
    failures, interaction = coupling_sentences(found, NAMES)
    assert failures.startswith("1 of 36 cells fails")
    assert interaction.startswith("No backbone-optimizer interaction can be shown among the 35 viable cells")


def test_every_way_of_failing_has_its_name() -> None:
    scores = seeds_of(additive(rng(), *SHAPE))
    scores[0][0] = [1.0, 1.2, 0.9]
    scores[1][1] = [score - 15 for score in scores[1][1]]
    scores[2][2] = [scores[2][2][0], 1.0, 1.0]
    values = np.array([[np.mean(runs) for runs in row] for row in scores])
    diverged = np.zeros(SHAPE, bool)
    diverged[3, 3], scores[3][3] = True, []
    found = part_failures(scores, values, diverged, NAMES, floor=1.0)
    assert {cell.key: cell.why for cell in found.failed} == {
        "b0/o0": "no better than chance",
        "b1/o1": "more than 10 points below the best of the backbone",
        "b2/o2": "most seeds collapsed",
        "b3/o3": "every trial diverged",
    }
    assert np.isnan(found.values).sum() == found.is_failed.sum() == 4


@pytest.mark.parametrize("floor", [np.nan, 1.0])
def test_a_seed_that_collapsed_is_left_out_and_named(floor: float) -> None:
    scores = seeds_of(additive(rng(), *SHAPE))
    sound = np.mean(scores[4][5][:2])
    scores[4][5][2] = 1.0
    found = verdict(scores, floor)
    assert (found.failed, found.viability.collapsed) == ((), (("b4/o5", 1, 3),))
    assert found.viability.values[4, 5] == pytest.approx(sound)
    assert not found.is_shown


def test_seeds_that_differ_by_points_have_not_collapsed() -> None:
    scores = seeds_of(additive(rng(), *SHAPE), sd=3.0)
    assert trained(scores, np.nan, 10.0) == scores
    assert trained(scores, 1.0, 10.0) == scores


def test_one_cell_with_one_seed_borrows_its_noise() -> None:
    scores = seeds_of(additive(rng(), *SHAPE) + 2 * centred(rng().normal(size=SHAPE)))
    scores[0][0] = scores[0][0][:1]
    found = verdict(scores)
    noise = found.viability.noise
    assert noise is not None
    assert noise.run_variance[0, 0] == pytest.approx(noise.expected[0, 0])
    assert found.is_shown
    assert found.share.lo is not None
    assert found.share.lo > 0.5


def test_one_noisy_cell_is_no_coupling() -> None:
    """Its seeds lie tens of sds of the others apart: pooled, their noise would be blamed on it."""
    sd = np.full(SHAPE, 0.2)
    sd[2, 3] = 4.0
    found = verdict(seeds_of(additive(rng(), *SHAPE), sd))
    assert found.failed == ()
    assert not found.is_shown
    assert found.cells == ()


def test_what_carries_the_interaction_is_named() -> None:
    truth = additive(rng(), *SHAPE)
    truth[2, 4] += 6
    found = verdict(seeds_of(truth))
    assert found.is_shown
    assert found.cells[0] == "b2/o4"
    assert [each.name for each in found.lines] == ["b2", "o4"]
    assert [each.share.value for each in found.lines] == pytest.approx([5 / 6, 5 / 6], abs=0.1)


def test_lines_with_too_few_viable_cells_are_named() -> None:
    truth = additive(rng(), *SHAPE)
    truth[:4, 0] = 1.0
    found = verdict(seeds_of(truth))
    assert found.left_out == ("o0",)
    assert len(found.failed) == 4
    assert found.share.value is not None


def test_without_seeds_nothing_is_tested() -> None:
    scores = seeds_of(additive(rng(), *SHAPE), count=1)
    found = verdict(scores)
    assert (found.test, found.share.lo) == (None, None)
    assert "it cannot be tested" in coupling_sentences(found, NAMES)[1]


# One noise model for the order as well


def test_noise_makes_the_observed_order_too_weak_and_w_is_told_without() -> None:
    """All backbones share one order; seeds as noisy as the optimizers differ hide half of it."""
    truth = 70 + np.arange(8.0)[:, None] + np.linspace(-1, 1, 6)
    values, noise = repeated(truth, 1.2, 3, rng())
    found = true_agreement(values, posterior_values(values, noise, rng()), rng())
    observed = agreement(values, rng())
    assert concordance(truth).w == 1
    assert observed.hi is not None
    assert observed.value is not None
    assert found.lo is not None
    assert found.hi is not None
    assert found.value is not None
    assert found.value > observed.value
    assert found.hi - found.lo > 0.5 * (observed.hi - (observed.lo or 0))
    assert found.hi > 0.95


def test_noise_of_its_own_gives_a_cell_wide_draws() -> None:
    sd = np.full((8, 6), 0.2)
    sd[:, 0] = 3.0
    noise = noise_of(sd, 3, rng())
    values = additive(rng(), 8, 6) + 2 * centred(rng().normal(size=(8, 6)))
    spread = posterior_values(values, noise, rng()).std(axis=0)
    assert spread[:, 0].min() > 2 * spread[:, 1:].mean()


# Claims over backbones


@pytest.mark.parametrize(("comparisons", "backbones"), [(1, 6), (2, 7), (3, 7)])
def test_how_many_backbones_a_claim_takes(comparisons: int, backbones: int) -> None:
    assert backbones_needed(comparisons) == backbones
    for count in (backbones - 1, backbones):
        p = step_down({str(place): sign_flip_p(np.ones(count), rng()) for place in range(comparisons)})
        assert (max(p.values()) <= CLAIM) is (count == backbones)


def test_signs_are_counted_by_hand() -> None:
    assert sign_flip_p(np.array([3.0, 1.0, -1.0, 0.0]), rng()) == 3 / 8
    assert sign_flip_p(np.zeros(5), rng()) == 1
    assert sign_flip_p(np.ones(30), rng()) == pytest.approx(1 / 20001)
    assert sign_flip_p(-np.ones(30), rng()) == 1


@pytest.mark.parametrize("count", [5, 6, 10])
def test_no_optimizer_is_better_where_all_are_alike(count: int) -> None:
    """Any claim, of any pair by rank, and of the recommendation over AdamW or SGD; 400 tables."""
    draws, optimizers = np.random.default_rng(count), ("AdamW", "SGD", "Adan", "LAMB", "Lion", "RMSProp")
    names, by_rank, by_gain = tuple(map(str, range(count))), 0, 0
    for values in draws.normal(size=(400, count, 6)):
        mean = concordance(values).ranks.mean(axis=0)
        by_rank += bool(np.ptp(mean) > rank_gap(count, 6))
        regret = values.max(axis=1, keepdims=True) - values
        picks = [int(np.delete(regret, b, 0).mean(axis=0).argmin()) for b in range(count)]
        gains = {name: regret[:, o] - regret[np.arange(count), picks] for o, name in enumerate(optimizers[:2])}
        p = step_down({name: sign_flip_p(gain, draws) for name, gain in gains.items()})
        by_gain += min(p.values()) <= CLAIM
    assert by_rank / 400 <= 0.045
    assert by_gain / 400 <= 0.045
    assert count > 5 or by_gain == 0
    assert names


def test_five_backbones_say_what_a_claim_would_take() -> None:
    scores = np.array([[80.0, 70, 85]] * 5)
    others = np.broadcast_to(scores, (5, 5, 3))
    backbones = tuple(f"b{i}" for i in range(5))
    found = leave_one_out(scores[None], others, backbones, ("AdamW", "SGD", "Adan"), Counts(), rng())
    assert not any(found.beats(name) for name in found.always)
    assert "fewer than 7 backbones" in found.lines()[1]


def test_orders_of_two_optimizers_are_those_of_a_coin() -> None:
    """Mean ranks of two differ by 2 * |heads / n - 1 / 2| * ...: six of six is the only claim over six backbones."""
    assert rank_gap(5, 2) == 1.0
    assert rank_gap(6, 2) == pytest.approx(2 / 3, abs=0.34)


# Coverage


def band(design: str, shape: tuple[int, int], batches: int) -> tuple[float, float, float]:
    """Coverage with interaction; rejections and significant cells without."""
    plain = [each for seed in range(batches) for each in outcomes(design, shape, 0.3, 100 + seed)]
    null: list[IntervalOutcome] = [each for seed in range(batches) for each in outcomes(design, shape, 0.0, 100 + seed)]
    assert len(plain) == batches * BATCH
    held = share_of([each for each in plain if not each.refused], lambda each: each.holds)
    return held, share_of(null, lambda each: each.rejects), share_of(null, lambda each: each.some_cell)


@pytest.mark.parametrize("design", ["noise differs by cell (sd of log sd .8)", "one optimizer 4 times noisier"])
def test_share_and_test_where_pooled_noise_fails(design: str) -> None:
    """Fifty matrices each: bands at which pooling the noise fails by far (null rejections of .2, some cell in .4)."""
    held, rejected, some_cell = band(design, (6, 6), 1)
    assert held >= 0.84
    assert rejected <= 0.16
    assert some_cell <= 0.16


@pytest.mark.slow
@pytest.mark.parametrize("design", DESIGNS)
def test_share_and_test_in_every_design(design: str) -> None:
    """Two hundred matrices, seeds that the table does not use."""
    held, rejected, some_cell = band(design, (6, 6), 4)
    sd = float(np.sqrt(0.05 * 0.95 / 200))
    assert held >= 0.92 - 2.5 * sd
    assert 0.03 - 2 * sd <= rejected <= 0.07 + 2.5 * sd
    assert some_cell <= 0.07 + 2.5 * sd
