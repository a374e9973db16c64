"""Several runs that differ in one thing: planted shares are found, and what cannot be told apart is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from bocb_tune.analysis.core.bootstrap import Refused
from bocb_tune.analysis.core.estimate import Reason
from bocb_tune.analysis.coupling.factor import MOVING, NAMES, FactorSplit, effects, projected, split_by_factor
from bocb_tune.analysis.findings.factor import Several, compare_several, the_factor
from bocb_tune.analysis.report.write import analyze_several
from bocb_tune.analysis.sources.load import load
from bocb_tune.analysis.sources.table import SourceError, TrialTable

Array = NDArray[np.float64]
SHAPE = (6, 5, 3)
SDS = dict(zip([name for name, _ in effects(np.zeros(SHAPE))], (3, 2, 1, 1, 0.5, 0.5, 0.4), strict=True))
NOISE = 0.3


def planted(rng: np.random.Generator, sds: dict[str, float] = SDS) -> tuple[Array, dict[str, float]]:
    """True values, and the sum of squares of each effect in them."""
    values = np.zeros(SHAPE)
    for name, sd in sds.items():
        axes = [NAMES.index(each) for each in name.split(" x ")]
        values = values + sd * projected(rng.standard_normal(SHAPE), axes) / np.sqrt(_part(axes))
    return values, {name: float((effect**2).sum()) for name, effect in effects(values)}


def _part(axes: list[int]) -> float:
    """Share of the variance of noise that an effect keeps."""
    return float(np.prod([(SHAPE[axis] - 1) if axis in axes else 1 for axis in range(3)]) / np.prod(SHAPE))


def split(values: Array, rng: np.random.Generator, variance: float = NOISE**2, df: int = 180) -> FactorSplit:
    found = split_by_factor(values, variance, df, rng, level=0.9)
    assert isinstance(found, FactorSplit), found
    return found


def test_effects_add_up_and_are_orthogonal() -> None:
    values = np.random.default_rng(0).normal(size=(4, 3, 2))
    parts = dict(effects(values))
    np.testing.assert_allclose(sum(parts.values()) + values.mean(), values)
    assert len(parts) == 7
    squares = sum(float((effect**2).sum()) for effect in parts.values())
    assert squares == pytest.approx(((values - values.mean()) ** 2).sum())
    assert np.abs(parts[MOVING].mean(axis=0)).max() < 1e-12


def test_what_is_planted_is_found() -> None:
    rng = np.random.default_rng(1)
    values, squares = planted(rng)
    found = split(values + NOISE * rng.standard_normal(SHAPE), rng)
    total = sum(squares.values())
    for name, each in found.variance_shares.items():
        assert each.value == pytest.approx(squares[name] / total, abs=0.05), name
        assert each.lo is not None
        assert each.lo <= (each.value or 0) <= (each.hi or 0)


def test_nothing_moves_where_runs_are_alike() -> None:
    rng = np.random.default_rng(2)
    values, _ = planted(rng, {name: sd for name, sd in SDS.items() if "factor" not in name})
    found = split(values + 0.05 * rng.standard_normal(SHAPE), rng, variance=0.05**2)
    assert found.share_that_moves.lo == 0.0
    assert (found.share_that_moves.hi or 1) < 0.05
    assert found.order_flips.hi is not None
    assert found.order_flips.hi < 0.1
    assert (found.same_best.value or 0) > 0.95


def test_an_order_turned_around_is_seen() -> None:
    rng = np.random.default_rng(3)
    values = np.zeros((4, 3, 2))
    values += np.arange(3)[None, :, None] * np.array([1, -1])
    found = split(values + 0.01 * rng.standard_normal(values.shape), rng, variance=1e-4)
    assert found.order_flips.value == pytest.approx(1.0)
    assert found.same_best.value == 0.0


@pytest.mark.slow
def test_intervals_hold_the_truth_as_often_as_they_should() -> None:
    """Nominal .90; at least .85 of 100 grids, for each share."""
    rng, held = np.random.default_rng(4), dict.fromkeys((*SDS, "moves"), 0)
    for _ in range(100):
        values, squares = planted(rng)
        found = split(values + NOISE * rng.standard_normal(SHAPE), rng, NOISE**2 * rng.chisquare(180) / 180)
        total, moving = sum(squares.values()), squares[MOVING] / (squares[MOVING] + squares["backbone x optimizer"])
        truth = {name: each / total for name, each in squares.items()} | {"moves": moving}
        for name, each in {**found.variance_shares, "moves": found.share_that_moves}.items():
            held[name] += (each.lo or 0) <= truth[name] <= (each.hi or 1)
    assert {name: count for name, count in held.items() if count < 85} == {}


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ((2, 3, 2), Reason.TOO_FEW_BACKBONES),
        ((3, 2, 2), Reason.TOO_FEW_OPTIMIZERS),
        ((3, 3, 1), Reason.TOO_FEW_REPLICATES),
        ((3, 3, 2), Reason.DEGENERATE_VARIANCE),
    ],
)
def test_what_is_too_small_is_refused(shape: tuple[int, ...], reason: Reason) -> None:
    found = split_by_factor(np.ones(shape), 1.0, 10, np.random.default_rng(0))
    assert isinstance(found, Refused)
    assert found.reason is reason


def test_without_repeated_seeds_there_are_no_intervals() -> None:
    found = split_by_factor(planted(np.random.default_rng(5))[0], np.nan, 0, np.random.default_rng(0))
    assert isinstance(found, FactorSplit)
    assert sum(each.value or 0 for each in found.variance_shares.values()) == pytest.approx(1)
    assert {each.lo for each in found.variance_shares.values()} == {None}
    assert found.order_flips.reason is Reason.TOO_FEW_REPLICATES


def tables_of(
    folder: Path, optimizers: tuple[str, ...] = ("sgd", "adamw", "lion")
) -> tuple[list[str], list[TrialTable]]:
    """Three tables of trials; the last one lacks a cell."""
    rng, paths = np.random.default_rng(6), []
    for run in range(3):
        rows = [
            {
                "backbone": f"b{b}",
                "optimizer": name,
                "lr": 0.1,
                "seed": seed,
                "score": 60 + 3 * b - o + rng.normal(0, 0.2),
            }
            for b in range(4)
            for o, name in enumerate(optimizers)
            for seed in range(3)
            if (run, b, o) != (2, 3, 0)
        ]
        paths.append(str(folder / f"run{run}.csv"))
        pd.DataFrame(rows).to_csv(paths[-1], index=False)
    return paths, [load(path) for path in paths]


def test_lines_without_a_score_in_every_run_are_left_out_and_named(tmp_path: Path) -> None:
    _, tables = tables_of(tmp_path)
    found = compare_several(tables, [{}, {}, {}])
    assert isinstance(found, Several)
    assert found.left_out == ("b3",)
    assert found.values.shape == (3, 3, 3)
    assert found.factor == "run"
    assert isinstance(found.split, FactorSplit)
    assert (found.split.share_that_moves.lo, found.split.variance_shares["factor"].lo) == (0.0, 0.0)


def test_the_page_of_several_runs(tmp_path: Path) -> None:
    paths, _ = tables_of(tmp_path)
    page = analyze_several(paths, tmp_path / "out").page
    text = page.read_text(encoding="utf-8")
    assert "Where the variation comes from" in text
    assert "left out: b3" in text
    assert len(pd.read_csv(page.parent / "tables" / "variance_shares.csv")) == 7


def test_runs_that_differ_in_two_things_are_refused_with_both_named(tmp_path: Path) -> None:
    _, tables = tables_of(tmp_path)
    one = {"recipe.base": "digits", "dataset.name": "digits"}
    assert the_factor(tables, [one, {**one, "recipe.base": "cifar"}, one]) == (
        "recipe",
        ("recipe.base digits", "recipe.base cifar", "recipe.base digits"),
    )
    with pytest.raises(SourceError, match=r"2 things: dataset \(dataset.name\); recipe \(recipe.base\)"):
        the_factor(tables, [one, {**one, "recipe.base": "cifar"}, {**one, "dataset.name": "cifar"}])


def test_runs_without_a_cell_in_common_are_refused(tmp_path: Path) -> None:
    _, tables = tables_of(tmp_path)
    (tmp_path / "other").mkdir()
    _, others = tables_of(tmp_path / "other", ("adam", "nadam", "lamb"))
    with pytest.raises(SourceError, match="no cell has a score in all of them"):
        compare_several([tables[0], others[0], others[1]], [{}, {}, {}])
