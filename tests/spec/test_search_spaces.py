"""The shipped search spaces agree with the optimizers, and hold what was published."""

from __future__ import annotations

import csv
import math
from importlib import resources

import pytest

from bocb_tune.optimizers import OPTIMIZERS
from bocb_tune.optimizers.published import PUBLISHED
from bocb_tune.spec.space_file import MOST_OWN, available_spaces, load_space, space_file

TABLE = resources.files("bocb_tune.analysis.sources") / "published/cifar100_hyperparameters.csv"
BESTS = list(csv.DictReader(TABLE.read_text(encoding="utf-8").splitlines()))
NO_DECAY = 1e-6
"""A published weight decay up to this counts as none, where none is a choice."""
MARGIN = 0.3
"""Decades between a published best and the edge of its range."""

every_optimizer = pytest.mark.parametrize("optimizer", OPTIMIZERS)


def key(published_name: str) -> str:
    return {"SGD-M": "sgd"}.get(published_name, published_name.lower())


def test_every_optimizer_has_a_file_and_every_file_an_optimizer() -> None:
    assert set(available_spaces()) == set(OPTIMIZERS)


def test_the_published_optimizers_are_all_here() -> None:
    assert {key(best["optimizer"]) for best in BESTS} == {row.name for row in PUBLISHED}


@every_optimizer
def test_it_agrees_with_the_row(optimizer: str) -> None:
    space, row = load_space(optimizer), OPTIMIZERS[optimizer]
    assert space.decay == row.decay
    assert set(space.fixed) <= set(row.takes)


@every_optimizer
def test_the_default_maps_into_the_unit_square_and_back(optimizer: str) -> None:
    space = load_space(optimizer)
    assert space.from_unit(space.to_unit(space.default)) == pytest.approx(space.default, rel=1e-12)
    assert space.lr.edge_distance(space.default["lr"]) >= MARGIN
    assert space.contains(space)


@every_optimizer
def test_ranges_are_three_decades_or_more_between_whole_ones(optimizer: str) -> None:
    for dim in (load_space(optimizer).lr, load_space(optimizer).weight_decay):
        assert dim.decades >= 3 - 1e-9
        assert [math.log10(end) % 1 for end in (dim.low, dim.high)] == pytest.approx([0, 0], abs=1e-9)


@every_optimizer
def test_its_own_ranges_hold_the_published_value_and_have_a_source(optimizer: str) -> None:
    space, file = load_space(optimizer), space_file(optimizer)
    assert 1 <= len(space.own) <= MOST_OWN
    for name, dim in space.own.items():
        value = space.own_default[name]
        assert dim.from_unit(dim.to_unit(value)) == pytest.approx(value, rel=1e-12)
        assert 0.04 < dim.to_unit(value) < 0.96 or value == 0
        assert file.own[name].source


def test_what_the_paper_tunes_beyond_lr_and_weight_decay_is_named() -> None:
    named = {"sgd": "momentum", "adam": "beta2", "adabelief": "eps", "adabound": "final_lr"}
    assert all(name in load_space(optimizer).own for optimizer, name in named.items())


@every_optimizer
def test_it_has_a_source(optimizer: str) -> None:
    published = optimizer in {row.name for row in PUBLISHED}
    assert ("arXiv:2410.06373" in load_space(optimizer).source) == published


@pytest.mark.parametrize("best", BESTS, ids=lambda best: f"{best['optimizer']}-{best['backbone']}")
def test_a_published_best_lies_inside_and_not_at_the_edge(best: dict[str, str]) -> None:
    space, lr, weight_decay = load_space(key(best["optimizer"])), float(best["lr"]), float(best["wd"])
    assert space.lr.edge_distance(lr) >= MARGIN
    counts_as_none = weight_decay <= NO_DECAY and space.weight_decay.zero_mass > 0
    assert counts_as_none or space.weight_decay.edge_distance(weight_decay) >= MARGIN
    assert counts_as_none or weight_decay > 0


def test_there_are_sixteen_published_bests_of_each() -> None:
    assert {row.name: sum(key(best["optimizer"]) == row.name for best in BESTS) for row in PUBLISHED} == {
        row.name: 16 for row in PUBLISHED
    }
