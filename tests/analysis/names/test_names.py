"""The table of names: every look its own in colour and in grey, every alias of one name, unknown names kept apart."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest

from bocb_tune.analysis.names.look import (
    backbone_key,
    backbone_look,
    find_backbone,
    label,
    optimizer_dash,
    optimizer_key,
    optimizer_look,
    ordered_optimizers,
    shown_together,
)
from bocb_tune.analysis.names.table import BACKBONES, OPTIMIZERS, Name, plain
from bocb_tune.analysis.recommend.recommendation import Recommendation
from bocb_tune.analysis.report.recommend import recommendation
from bocb_tune.analysis.sources.paper import published
from bocb_tune.backbones.table import BACKBONES as SHIPPED_BACKBONES
from bocb_tune.optimizers import OPTIMIZERS as SHIPPED_OPTIMIZERS

TABLES = pytest.mark.parametrize("table", [OPTIMIZERS, BACKBONES], ids=["optimizers", "backbones"])
APART, APART_IN_GREY = 25.0, 15.0
"""Distances in CIELAB: of two colours (1 is just seen), and in lightness of two with one marker."""
XYZ_OF_RGB = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.119192, 0.9503041]]
)
WHITE = XYZ_OF_RGB.sum(axis=1)


def lab(color: str) -> np.ndarray:
    """CIELAB (D65) of a hex colour."""
    rgb = np.array([int(color[place : place + 2], 16) for place in (1, 3, 5)]) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    t = XYZ_OF_RGB @ linear / WHITE
    x, y, z = np.where(t > (6 / 29) ** 3, np.cbrt(t), t / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def pair(row: Name) -> tuple[str, str]:
    return row.color, row.marker


def test_lab_of_known_colours() -> None:
    np.testing.assert_allclose(lab("#ffffff"), [100, 0, 0], atol=1e-3)
    np.testing.assert_allclose(lab("#ff0000"), [53.24, 80.09, 67.20], atol=0.02)


def test_every_shipped_name_has_its_row() -> None:
    assert {row.key for row in OPTIMIZERS} == set(SHIPPED_OPTIMIZERS)
    assert {row.key for row in BACKBONES} == set(SHIPPED_BACKBONES)
    assert {backbone_key(row.model) for row in SHIPPED_BACKBONES.values()} == set(SHIPPED_BACKBONES)


def test_every_published_name_is_an_alias() -> None:
    table = published("cifar100")
    assert len({backbone_key(name) for name in table.backbones} & set(SHIPPED_BACKBONES)) == 20
    assert len({optimizer_key(name) for name in table.optimizers} & set(SHIPPED_OPTIMIZERS)) == 20


@TABLES
def test_a_name_stands_for_one_row(table: tuple[Name, ...]) -> None:
    names = [plain(name) for row in table for name in (row.key, *row.aliases)]
    assert len(set(names)) == len(names)


def test_no_two_names_look_alike() -> None:
    assert len({pair(row) for row in (*OPTIMIZERS, *BACKBONES)}) == 28 + 21


@TABLES
def test_colours_are_told_apart(table: tuple[Name, ...]) -> None:
    distances = [np.linalg.norm(lab(a.color) - lab(b.color)) for a, b in combinations(table, 2)]
    assert min(distances) >= APART


@TABLES
def test_equal_markers_are_told_apart_in_grey(table: tuple[Name, ...]) -> None:
    same = [(a, b) for a, b in combinations(table, 2) if a.marker == b.marker]
    assert same
    assert min(abs(lab(a.color)[0] - lab(b.color)[0]) for a, b in same) >= APART_IN_GREY


@TABLES
def test_every_colour_is_seen_on_white(table: tuple[Name, ...]) -> None:
    assert max(lab(row.color)[0] for row in table) <= 77


def test_neighbours_of_a_family_differ_in_dash() -> None:
    assert all(optimizer_dash(a.key) != optimizer_dash(b.key) for a, b in pairwise(OPTIMIZERS))
    assert optimizer_dash("My Own") == optimizer_dash("my-own")


def test_a_look_hangs_on_the_name_and_not_on_its_spelling() -> None:
    assert optimizer_look("SGD-M") is optimizer_look("sgd_m") is optimizer_look("sgd")
    assert backbone_look("R-50") is backbone_look("ResNet-50")
    assert pair(optimizer_look("my-own")) == pair(optimizer_look("My Own"))


def test_unknown_names_look_like_no_other_name_of_the_grid() -> None:
    names = (*(f"own-{n}" for n in range(40)), "adamw", "sgd")
    with shown_together(names):
        pairs = [pair(optimizer_look(name)) for name in names]
    shipped = {pair(row) for row in OPTIMIZERS}
    assert len(set(pairs)) == len(names)
    assert not shipped & set(pairs[:40])


def test_a_few_unknown_names_have_colours_of_their_own() -> None:
    names = (*(f"own-{n}" for n in range(20)), "adamw", "sgd")
    with shown_together(names):
        colors = [optimizer_look(name).color for name in names]
    assert len(set(colors)) == len(names)


def test_unknown_names_look_the_same_in_every_order_of_asking() -> None:
    names = tuple(f"own-{n}" for n in range(12))
    with shown_together(names):
        first = {name: pair(optimizer_look(name)) for name in names}
    with shown_together(reversed(names)):
        again = {name: pair(optimizer_look(name)) for name in reversed(names)}
    assert first == again


def test_order_of_the_table_and_then_of_the_alphabet() -> None:
    assert ordered_optimizers(["zeta", "AdamW", "alpha", "SGD-M"]) == ("SGD-M", "AdamW", "alpha", "zeta")


@pytest.mark.parametrize(
    ("name", "choices", "expected"),
    [
        ("R-50", ("R-50", "resnet50"), "R-50"),
        ("resnet-50", ("R-50", "CNX-T"), "R-50"),
        ("ConvNeXt-T", ("R-50", "CNX-T"), "CNX-T"),
        ("ResNet50", ("R-50", "resnet50"), None),
        ("resnet18", ("R-50",), None),
    ],
)
def test_a_backbone_is_found_by_alias(name: str, choices: tuple[str, ...], expected: str | None) -> None:
    assert find_backbone(name, choices) == expected


def test_recommend_takes_an_alias() -> None:
    found = recommendation("paper:imagenet", "resnet50", 16).advice
    assert isinstance(found, Recommendation)
    assert found.backbone == "R-50"


def test_a_label_is_one_short_line() -> None:
    assert label("a\nb   c") == "a b c"
    assert label("x" * 30, 10) == "x" * 9 + "…"
    assert label("test_resnet@scratch", 14) == "test_…@scratch"
    assert label("x@" + "y" * 30, 10) == "x@" + "y" * 7 + "…"
