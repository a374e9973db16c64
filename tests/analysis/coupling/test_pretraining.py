"""Pre-training against fine-tuning: planted effects come out exactly, noise widens intervals, rows are named."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bocb_tune.analysis.answer.pretraining import transfer_sentences
from bocb_tune.analysis.core.arrays import Array
from bocb_tune.analysis.core.estimate import Reason
from bocb_tune.analysis.coupling.pretraining import FACTORS, Transfer, advantage, sums_of_squares, transfer
from bocb_tune.analysis.matrix.cells import cell_matrix, summarise_cells
from bocb_tune.analysis.matrix.noise import seed_noise
from bocb_tune.analysis.report.cards.values import Card
from bocb_tune.analysis.report.sections.pretraining import pretraining
from bocb_tune.analysis.sources.load import load
from bocb_tune.analysis.sources.table import Pretraining
from tests.support.tables import HEADER, write

OPTIMIZERS = ("sgd", "adamw", "lion", "lamb")
MADE_BY = ("sgd", "adamw", "lion")
BACKBONES = ("r", "v")
ROWS = tuple(f"{backbone}@{name}" for backbone in BACKBONES for name in (*MADE_BY, "scratch"))
STARTS = {
    row: Pretraining(backbone=row[0], name=row[2:], optimizer="" if row.endswith("scratch") else row[2:])
    for row in ROWS
}
SAME = np.array([[float(made == used) for used in OPTIMIZERS] for made in MADE_BY])


def planted(home: float, rng: np.random.Generator) -> Array:
    """[rows, optimizers]: random main effects of everything, and `home` points where both optimizers are the same."""
    backbone, start, used = rng.normal(0, 5, (2, 1, 1)), rng.normal(0, 3, (2, 4, 1)), rng.normal(0, 2, (2, 1, 4))
    values = 70 + backbone + start + used
    values[:, :3] += home * SAME
    return np.asarray(values.reshape(-1, 4))


def found_in(values: Array, sd: Array | None = None) -> Transfer:
    """Of three seeds whose variances are given."""
    noise = None if sd is None else seed_noise(sd**2, np.full(values.shape, 3))
    return transfer(values, noise, ROWS, OPTIMIZERS, STARTS)


@pytest.mark.parametrize("home", [-2.0, 0.0, 3.0])
def test_a_planted_home_advantage_comes_out(home: float) -> None:
    found = found_in(planted(home, np.random.default_rng(0)))
    assert found.home_advantage.value == pytest.approx(home, abs=1e-12)
    assert found.home_advantage.reason is Reason.TOO_FEW_REPLICATES
    assert found.block == (BACKBONES, MADE_BY)


def test_several_pretrainings_may_be_by_one_optimizer() -> None:
    rng = np.random.default_rng(1)
    same = np.array([[1.0, 0, 0], [1, 0, 0], [0, 1, 0]])
    block = rng.normal(size=(3, 1)) + rng.normal(size=3) + 1.5 * same
    assert advantage(block[None], same) == pytest.approx(1.5)


def test_gaps_by_hand() -> None:
    values = np.full((8, 4), 70.0)
    values[0] = [71, 73, 69, 70]  # r@sgd: adamw is 2 better
    values[1] = [71, 75, 69, np.nan]  # r@adamw: sgd is 4 worse
    values[2] = [71, 75, np.nan, 1]  # r@lion: has no own value
    found = found_in(values)
    gaps = {gap.row: (gap.own, gap.other, gap.gap.value) for gap in found.gaps}
    assert gaps["r@sgd"] == ("sgd", "adamw", -2)
    assert gaps["r@adamw"] == ("adamw", "sgd", 4)
    assert found.without_gap == ("r@lion",)
    assert found.mean_gap.value == pytest.approx((-2 + 4 + 0 + 0 + 0) / 5)


def test_squares_are_those_of_the_factors_and_add_up() -> None:
    rng = np.random.default_rng(2)
    block = rng.normal(size=(5, 2, 3, 4))
    squares = sums_of_squares(block)
    assert len(squares) == 7
    whole = ((block - block.mean(axis=(1, 2, 3), keepdims=True)) ** 2).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(sum(squares.values()), whole)
    two = rng.normal(size=(3, 4))
    two -= two.mean(axis=0) + two.mean(axis=1, keepdims=True) - two.mean()
    alone = sums_of_squares(np.broadcast_to(two, (2, 3, 4)))
    assert alone.pop(FACTORS[1:]) == pytest.approx(2 * (two**2).sum())
    np.testing.assert_allclose(list(alone.values()), 0, atol=1e-12)


def test_one_backbone_has_no_share() -> None:
    values = planted(1.0, np.random.default_rng(3))[:4]
    found = transfer(values, None, ROWS[:4], OPTIMIZERS, STARTS)
    assert [term.factors for term in found.terms] == [("pretraining",), ("optimizer",), ("pretraining", "optimizer")]
    assert sum(term.share.value or 0 for term in found.terms) == pytest.approx(1)


def test_without_two_pretrainings_nothing_is_decomposed() -> None:
    values = planted(1.0, np.random.default_rng(3))
    found = transfer(values, None, ROWS, OPTIMIZERS, {row: STARTS[row] for row in ROWS if row.endswith("sgd")})
    assert found.terms == ()
    assert found.home_advantage.reason is Reason.TOO_FEW_OPTIMIZERS
    assert [gap.row for gap in found.gaps] == ["r@sgd", "v@sgd"]


def test_noise_makes_intervals() -> None:
    rng = np.random.default_rng(4)
    values, sd = planted(3.0, rng), np.full((8, 4), 0.3)
    quiet, loud = found_in(values, sd), found_in(values, 10 * sd)
    for small, large in ((quiet.home_advantage, loud.home_advantage), (quiet.mean_gap, loud.mean_gap)):
        assert small.lo is not None
        assert small.hi is not None
        assert large.lo is not None
        assert large.hi is not None
        assert large.hi - large.lo > 2 * (small.hi - small.lo)
    assert quiet.home_advantage.lo is not None
    assert quiet.home_advantage.lo > 2
    assert loud.home_advantage.lo is not None
    assert loud.home_advantage.lo < 2


@pytest.mark.slow
def test_intervals_hold_the_truth() -> None:
    """Of 150 grids with three noisy seeds a cell; .95 is promised, and a binomial of .9 gives less than .85 in 2 %."""
    rng, held, noise = np.random.default_rng(5), [], 1.0
    for _ in range(150):
        home = float(rng.normal(0, 1))
        seeds = planted(home, rng)[..., None] + rng.normal(0, noise, (8, 4, 3))
        found = found_in(seeds.mean(axis=-1), seeds.std(axis=-1, ddof=1)).home_advantage
        assert found.lo is not None
        assert found.hi is not None
        held.append(found.lo <= home <= found.hi)
    assert np.mean(held) >= 0.85


SMALL_ROWS, SMALL = ("r@sgd", "r@adamw", "v@sgd", "v@adamw"), ("sgd", "adamw")


def test_two_optimizers_have_intervals_of_all_that_is_linear() -> None:
    """Nominal .95, of 300 grids with three seeds a cell, some cells much noisier: shares stay refused."""
    rng, held = np.random.default_rng(6), np.zeros(2)
    for _ in range(300):
        true = rng.normal(50, 10, (4, 2))
        seeds = true[..., None] + rng.choice([0.3, 2.0], (4, 2, 1)) * rng.normal(0, 1, (4, 2, 3))
        noise = seed_noise(seeds.var(axis=-1, ddof=1), np.full((4, 2), 3))
        found = transfer(seeds.mean(axis=-1), noise, SMALL_ROWS, SMALL, {row: STARTS[row] for row in SMALL_ROWS})
        known = transfer(true, None, SMALL_ROWS, SMALL, {row: STARTS[row] for row in SMALL_ROWS})
        for place, name in enumerate(("mean_gap", "home_advantage")):
            stated, truth = getattr(found, name), getattr(known, name).value
            held[place] += stated.lo <= truth <= stated.hi
        assert all(gap.gap.lo is not None for gap in found.gaps)
        assert {term.share.reason for term in found.terms} == {Reason.TOO_FEW_OPTIMIZERS}
    assert (held / 300 >= 0.92).all(), held / 300


def test_gaps_of_opposite_signs_are_not_averaged_away() -> None:
    """One optimizer is better from wherever it starts: to leave it costs, to leave the other brings as much."""
    values = np.tile([50.0, 60.0], (4, 1))
    noise = seed_noise(np.full((4, 2), 1.0), np.full((4, 2), 3))
    found = transfer(values, noise, SMALL_ROWS, SMALL, {row: STARTS[row] for row in SMALL_ROWS})
    assert {each.own: (each.rows, round(each.gap.value or 0)) for each in found.mean_gaps} == {
        "sgd": (2, -10),
        "adamw": (2, 10),
    }
    by_start, costs, whole, *_ = transfer_sentences(found)
    assert ("sgd, another optimizer brings" in by_start, "adamw, another optimizer costs" in costs) == (True, True)
    assert whole.startswith("So it depends on the optimizer of the pre-training")


def test_the_best_of_several_in_too_few_rows_has_no_interval() -> None:
    values, rows = planted(1.0, np.random.default_rng(3))[:2], ROWS[:2]
    noise = seed_noise(np.full((2, 4), 0.5), np.full((2, 4), 3))
    found = transfer(values, noise, rows, OPTIMIZERS, STARTS)
    assert found.mean_gap.lo is None
    assert found.mean_gap.reason is Reason.TOO_FEW_BACKBONES
    assert found.home_advantage.lo is not None


def of_coco() -> Transfer:
    """As `Findings.transfer`, without the models of the cells."""
    table = load("paper:coco")
    values = cell_matrix(table, summarise_cells(table))
    return transfer(values, None, table.backbones, table.optimizers, table.pretrainings)


def test_the_published_table_against_its_file() -> None:
    found = of_coco()
    raw = pd.read_csv(Path(load.__code__.co_filename).parent / "published" / "coco_transfer.csv")
    gaps = {gap.row: gap for gap in found.gaps}
    assert len(gaps) == 11
    assert found.without_gap == ()
    own = {"SGD": "SGD-M", "A1": "LAMB", "A2": "LAMB", "A3": "LAMB"}
    for (task, backbone, name), column in raw.groupby(["task", "backbone", "pretraining"]):
        scores = column.set_index("optimizer")["ap"]
        made = own.get(name, name)
        gap = gaps[f"{task} {backbone} ({name})"]
        assert gap.own == made
        assert gap.gap.value == pytest.approx(scores[made] - scores.drop(made).max())
        assert gap.gap.reason is Reason.TOO_FEW_REPLICATES
    assert found.block[0] == ("detection R-50",)
    assert len(found.block[1]) == 6


def test_the_section_is_there_only_where_there_is_pretraining(tmp_path: Path) -> None:
    lines = (HEADER, "a,sgd,1", "a,adamw,2", "b,sgd,3", "b,adamw,4")
    plain: Any = SimpleNamespace(table=load(write(tmp_path / "t.csv", *lines)))
    assert pretraining(plain) is None
    of_paper: Any = SimpleNamespace(table=load("paper:coco"), transfer=of_coco())
    card = pretraining(of_paper)
    assert isinstance(card, Card)
    assert {table.stem for table in card.tables} == {"transfer_gaps", "transfer_shares"}
    assert len(card.tables[0].frame) == 11
