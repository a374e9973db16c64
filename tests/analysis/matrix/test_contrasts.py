"""Planned contrasts: exact counts, refusals, and the names that make families and classes."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from bocb_tune.analysis.core.estimate import Reason
from bocb_tune.analysis.matrix import contrasts
from bocb_tune.analysis.matrix.contrasts import Contrast, permutations, planned_contrast, sgd_on_classical
from bocb_tune.analysis.matrix.twoway import Matrix
from bocb_tune.analysis.names.look import backbone_class, optimizer_family
from bocb_tune.analysis.names.table import (
    ADAPTIVE_LR,
    CLASSICAL,
    ESTIMATED_LR,
    FIXED_LR,
    METAFORMER,
    MODERN,
    OTHER,
    PLAIN_GRADIENT,
)
from bocb_tune.analysis.sources.paper import published
from bocb_tune.optimizers import OPTIMIZERS

INSIDE = np.array([True] * 3 + [False] * 4)
FAMILY = np.array([True, True, False, False, False])
REFERENCE = np.array([False, False, True, True, False])
FLAT = np.full((7, 5), 70.0)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def planted(size: float) -> Matrix:
    """The family is better by `size` points on the class; nothing else differs but the backbones."""
    values = FLAT + np.arange(7.0)[:, None]
    values[np.ix_(INSIDE, FAMILY)] += size
    return values


def test_planted_contrast_comes_out_exactly() -> None:
    found = planned_contrast("planted", planted(4.0), FAMILY, REFERENCE, INSIDE, rng())
    assert isinstance(found, Contrast)
    assert (found.inside, found.outside, found.psi.value) == pytest.approx((4, 0, 4))
    assert (found.on_points.larger, found.on_points.total) == (1, 35)
    assert (found.on_ranks.larger, found.on_ranks.extreme) == (1, 1)
    assert found.psi.method == "permutation, one-sided 1/35 on points, 1/35 on ranks"


def test_nothing_planted_counts_every_permutation() -> None:
    found = planned_contrast("none", FLAT, FAMILY, REFERENCE, INSIDE, rng())
    assert isinstance(found, Contrast)
    assert (found.on_points.larger, found.on_points.extreme, found.on_points.p) == (35, 35, 1.0)


def test_the_wrong_sign_is_no_evidence_but_is_extreme() -> None:
    found = planned_contrast("reversed", planted(-4.0), FAMILY, REFERENCE, INSIDE, rng())
    assert isinstance(found, Contrast)
    assert (found.psi.value, found.on_points.p, found.on_points.p_two_sided) == pytest.approx((-4, 1, 1 / 35))


def test_counts_agree_with_counting_by_hand() -> None:
    scores = rng().normal(size=7)
    contrast = [
        np.mean([scores[i] for i in way]) - np.mean([scores[i] for i in range(7) if i not in way])
        for way in combinations(range(7), 3)
    ]
    found = permutations(scores, INSIDE, rng())
    seen = contrast[0]
    assert found.larger == sum(value >= seen for value in contrast)
    assert found.extreme == sum(abs(value) >= abs(seen) for value in contrast)


def test_draws_stand_in_for_too_many_permutations(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = rng().normal(size=7)
    exact = permutations(scores, INSIDE, rng())
    monkeypatch.setattr(contrasts, "MAX_EXACT", 34)
    drawn = permutations(scores, INSIDE, rng())
    assert drawn.total == contrasts.NUM_RANDOM + 1
    assert drawn.p == pytest.approx(exact.p, abs=0.01)
    assert drawn.p_two_sided == pytest.approx(exact.p_two_sided, abs=0.01)


def test_no_drawn_p_is_zero() -> None:
    """The declared class is the best of 2.7 million, which 100,000 draws do not find: it counts all the same."""
    found = permutations(np.arange(24.0)[::-1], np.arange(24) < 12, rng())
    assert (found.larger, found.extreme, found.total) == (1, 1, contrasts.NUM_RANDOM + 1)


@pytest.mark.parametrize(
    ("inside", "family", "hole", "reason"),
    [
        ([True] * 2 + [False] * 5, FAMILY, None, Reason.TOO_FEW_BACKBONES),
        ([True] * 5 + [False] * 2, FAMILY, None, Reason.TOO_FEW_BACKBONES),
        (INSIDE, [False] * 5, None, Reason.TOO_FEW_OPTIMIZERS),
        (INSIDE, FAMILY, (0, 0), Reason.INCOMPLETE_MATRIX),
    ],
)
def test_refusals(inside: list[bool], family: list[bool], hole: tuple[int, int] | None, reason: Reason) -> None:
    values = planted(1.0)
    if hole:
        values[hole] = np.nan
    assert planned_contrast("x", values, np.array(family), REFERENCE, np.array(inside), rng()) is reason


def test_a_hole_elsewhere_takes_its_optimizer_out_of_the_ranks_only() -> None:
    values = planted(4.0)
    values[0, 4] = np.nan
    found = planned_contrast("planted", values, FAMILY, REFERENCE, INSIDE, rng())
    assert isinstance(found, Contrast)
    assert (found.psi.value, found.on_ranks.larger) == (pytest.approx(4), 1)


def test_declared_contrast_finds_names_however_spelled() -> None:
    backbones = ("resnet50", "VGG-13", "densenet121", "deit_small", "swin_tiny", "ConvNeXt_T", "poolformer_s12")
    found = sgd_on_classical(planted(2.0), backbones, ("sgd", "SGDP", "adamw", "Adam", "lion"), rng())
    assert isinstance(found, Contrast)
    assert found.psi.value == pytest.approx(2)


def test_every_published_name_has_a_family_or_a_class() -> None:
    table = published("cifar100")
    classes = [backbone_class(name) for name in table.backbones]
    assert [classes.count(each) for each in (CLASSICAL, MODERN, METAFORMER)] == [7, 8, 5]
    families = [optimizer_family(name) for name in table.optimizers]
    assert [families.count(each) for each in (FIXED_LR, ADAPTIVE_LR, ESTIMATED_LR, PLAIN_GRADIENT)] == [3, 8, 6, 3]


@pytest.mark.parametrize("row", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_shipped_optimizers_have_the_family_their_row_states(row: object) -> None:
    assert optimizer_family(row.name) == row.family  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["", "mine", "caffenet", "</td>"])
def test_unknown_names_are_other(name: str) -> None:
    assert (optimizer_family(name), backbone_class(name)) == (OTHER, OTHER)
