"""Search spaces: the unit cube is exact, and files with mistakes say where."""

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bocb_tune.core.names import unknown
from bocb_tune.core.space import Dim, SearchSpace
from bocb_tune.optimizers import OPTIMIZERS
from bocb_tune.spec.source import SpecError
from bocb_tune.spec.space_file import load_space, read_space

exponents = st.floats(-12, 3)
COMPLEMENTS = st.builds(
    lambda low, decades: Dim(name="x", low=low, high=1 - (1 - low) * 10**-decades, scale="log_complement"),
    st.floats(0, 0.95),
    st.floats(0.1, 5),
)
DIMS = st.builds(
    lambda low, decades, zero: Dim(name="x", low=10**low, high=10 ** (low + decades), zero_mass=zero),
    exponents,
    st.floats(0.1, 12),
    st.sampled_from([0.0, 0.1, 0.5]),
)
units = st.floats(0, 1)


@given(DIMS, units)
def test_value_to_unit_and_back_is_exact_to_1e_12(dim: Dim, unit: float) -> None:
    value = dim.from_unit(unit)
    assert dim.contains(value)
    assert dim.from_unit(dim.to_unit(value)) == pytest.approx(value, rel=1e-12)


@given(DIMS, units, units)
def test_unit_is_monotone_in_value(dim: Dim, one: float, other: float) -> None:
    low, high = sorted([one, other])
    assert dim.from_unit(low) <= dim.from_unit(high)


@given(DIMS)
def test_ends_of_the_range_and_zero(dim: Dim) -> None:
    assert dim.from_unit(1.0) == pytest.approx(dim.high, rel=1e-12)
    assert dim.from_unit(dim.zero_mass) == dim.low
    assert dim.to_unit(dim.high) == pytest.approx(1.0, abs=1e-12)
    if dim.zero_mass:
        assert dim.to_unit(0.0) == dim.zero_mass / 2
        assert dim.from_unit(dim.zero_mass / 2) == 0.0 == dim.from_unit(0.0)


@given(DIMS, st.floats(1e-3, 1e3))
def test_unit_does_not_change_with_the_unit_of_the_value(dim: Dim, factor: float) -> None:
    scaled = Dim(name="x", low=dim.low * factor, high=dim.high * factor, zero_mass=dim.zero_mass)
    middle = math.sqrt(dim.low * dim.high)
    assert scaled.to_unit(middle * factor) == pytest.approx(dim.to_unit(middle), abs=1e-9)


@given(COMPLEMENTS, units, units)
def test_the_scale_of_one_minus_the_value(dim: Dim, one: float, other: float) -> None:
    """In both directions exact, rising, and even in the decades of 1 - value."""
    value, another = dim.from_unit(one), dim.from_unit(other)
    assert dim.contains(value)
    assert dim.from_unit(dim.to_unit(value)) == pytest.approx(value, rel=1e-12)
    assert (value < another) == (one < other) or value == another
    decades = math.log10((1 - value) / (1 - another))
    assert decades == pytest.approx((other - one) * dim.decades, abs=1e-6)
    assert (dim.to_unit(dim.low), dim.to_unit(dim.high)) == pytest.approx((0, 1), abs=1e-9)


def test_edge_distance_is_in_decades_and_negative_outside() -> None:
    dim = Dim(name="lr", low=1e-4, high=1.0)
    assert dim.edge_distance(1e-3) == pytest.approx(1)
    assert dim.edge_distance(0.5) == pytest.approx(math.log10(2))
    assert dim.edge_distance(10) == pytest.approx(-1)
    assert dim.edge_distance(0.0) == math.inf


@pytest.mark.parametrize("value", [0.0, 9e-5, 1.1, -1.0])
def test_a_value_outside_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match=rf"^lr {value:g} lies outside 0.0001 .. 1$"):
        Dim(name="lr", low=1e-4, high=1.0).to_unit(value)


@pytest.mark.parametrize(
    ("low", "high", "zero", "inside"),
    [(1e-4, 1, 0.1, True), (1e-3, 0.1, 0.0, True), (1e-5, 1, 0.1, False), (1e-4, 2, 0.1, False)],
)
def test_covers(low: float, high: float, zero: float, inside: bool) -> None:
    assert (
        Dim(name="x", low=1e-4, high=1, zero_mass=0.1).covers(Dim(name="x", low=low, high=high, zero_mass=zero))
        is inside
    )


def test_zero_is_covered_only_where_it_is_a_choice() -> None:
    without, with_zero = (Dim(name="x", low=1e-4, high=1, zero_mass=mass) for mass in (0.0, 0.1))
    assert with_zero.covers(without)
    assert not without.covers(with_zero)


def test_no_file_no_range() -> None:
    with pytest.raises(ValueError, match="adamww") as error:
        load_space("adamww")
    assert str(error.value) == (
        f"{unknown('optimizer', 'adamww', OPTIMIZERS)}; a search space goes in search_spaces/adamww.yaml"
    )


GOOD = {
    "lr": "{low: 1e-4, high: 1}",
    "weight_decay": "{low: 1e-6, high: 1e-2, zero: 0.1}",
    "default": "{lr: 0.1, weight_decay: 0}",
    "fixed": "{}",
    "decay": "coupled_l2",
    "source": "somewhere",
}


def space_of(folder: Path, **changes: str) -> SearchSpace:
    path = folder / "mine.yaml"
    path.write_text("\n".join(f"{key}: {value}" for key, value in {**GOOD, **changes}.items()))
    return read_space(path)


def test_a_space_of_the_users_own(tmp_path: Path) -> None:
    space = space_of(tmp_path)
    assert (space.optimizer, space.lr.low, space.weight_decay.zero_mass, space.note) == ("mine", 1e-4, 0.1, "")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"lr": "{low: 1, high: 1}"}, "1: lr: upside down: low 1 is not below high 1; swap them"),
        ({"lr": "{low: 0, high: 1}"}, "1: lr.low: must be greater than 0, not 0"),
        ({"lr": "{low: 1e-4, high: .inf}"}, "1: lr.high: must be a finite number, not inf"),
        (
            {"default": "{lr: 2, weight_decay: 0}"},
            "3: default.lr: 2 lies outside 0.0001 .. 1; widen the range or move the default",
        ),
        (
            {"weight_decay": "{low: 1e-6, high: 1e-2}"},
            "3: default.weight_decay: 0 lies outside 1e-06 .. 0.01; widen the range or move the default",
        ),
        ({"source": "''"}, "6: source: is empty"),
        (
            {"notes": "x"},
            "7: notes: unknown key 'notes'; did you mean 'note'? (known: decay, default, fixed, lr, note,",
        ),
    ],
)
def test_bad_space_files(tmp_path: Path, changes: dict[str, str], problem: str) -> None:
    with pytest.raises(SpecError) as error:
        space_of(tmp_path, **changes)
    assert str(error.value).startswith(f"{tmp_path / 'mine.yaml'}:{problem}")
    assert len(error.value.problems) == 1
