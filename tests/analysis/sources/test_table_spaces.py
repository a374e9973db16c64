"""Where the trials of a table could lie: stated in files, else shown by the trials."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bocb_tune.analysis.findings.collect import find
from bocb_tune.analysis.sources.load import load
from bocb_tune.analysis.sources.table import SourceError, TrialTable
from bocb_tune.spec.source import SpecError
from bocb_tune.spec.space_file import read_ranges
from tests.support.tables import HEADER, messages_of, write

ROWS = ["a,SGD,70,0.1,0", "a,AdamW,71,1e-3,1e-2", "a,lion,72,1e-4,1"]
SGD = "lr: {low: 1e-3, high: 1.0}\nweight_decay: {low: 1e-6, high: 1e-2, zero: 0.1}"
ADAMW = "lr: {low: 1e-5, high: 1e-1}\nweight_decay: {low: 1e-4, high: 1.0}"
BOTH = """
sgd: {lr: {low: 1e-3, high: 1.0}, weight_decay: {low: 1e-6, high: 1e-2, zero: 0.1}}
adamw: {lr: {low: 1e-5, high: 1e-1}, weight_decay: {low: 1e-4, high: 1.0}}
"""


def files(folder: Path) -> tuple[Path, Path]:
    folder.mkdir(exist_ok=True)
    write(folder / "sgd.yaml", SGD)
    write(folder / "adamw.yml", ADAMW)
    return folder / "sgd.yaml", folder / "adamw.yml"


def ranges(table: TrialTable) -> dict[str, tuple[float, float, float]]:
    return {
        name: (dims["lr"].low, dims["weight_decay"].high, dims["weight_decay"].zero_mass)
        for name, dims in table.spaces.items()
    }


def test_several_files_a_folder_or_one_file_of_several_optimizers(tmp_path: Path) -> None:
    source = write(tmp_path / "t.csv", HEADER + ",lr,wd", *ROWS)
    each = files(tmp_path / "spaces")
    write(tmp_path / "all.yaml", BOTH)
    for given in (each, (tmp_path / "spaces",), (tmp_path / "all.yaml",)):
        assert ranges(load(source, given)) == {"SGD": (1e-3, 1e-2, 0.1), "AdamW": (1e-5, 1.0, 0.0)}


def test_a_shipped_file_and_a_folder_of_more_optimizers_than_there_are(tmp_path: Path) -> None:
    source = write(tmp_path / "t.csv", HEADER + ",lr,wd", *ROWS)
    assert set(load(source, [Path("search_spaces")]).spaces) == {"SGD", "AdamW", "lion"}


def test_what_is_wrong_with_a_search_space_is_said_where(tmp_path: Path) -> None:
    source = write(tmp_path / "t.csv", HEADER + ",lr,wd", *ROWS)
    sgd, _ = files(tmp_path / "spaces")
    with pytest.raises(SourceError, match=r"sgd\.yaml: the search space of SGD is given twice; keep one"):
        load(source, [sgd, sgd])
    other = Path(write(tmp_path / "adam.yaml", SGD))
    with pytest.raises(SourceError, match=r"by its name the search space of 'adam', but the trials are of"):
        load(source, [other])
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match=r"no search space in it"):
        load(source, [tmp_path / "empty"])
    for text, message in (
        ("sgd: {lr: {low: 1.0, high: 0.1}}", r"x\.yaml:1.*upside down: low 1 is not below high 0\.1"),
        ("sgd: {lr: {low: 1.0}}", r"x\.yaml:1.*high.*is required and missing"),
        ("sgd: {lr: {low: 0.1, high: 1.0}, wd: {low: 0.1, high: 1.0}}", r"unknown key 'wd'"),
        ("[1, 2]", r"must be a mapping"),
    ):
        with pytest.raises(SpecError, match=message):
            read_ranges(write(tmp_path / "x.yaml", text))


def test_trials_outside_a_stated_range_are_counted(tmp_path: Path) -> None:
    source = write(tmp_path / "t.csv", HEADER + ",lr,wd", "a,sgd,70,10,0", "a,sgd,71,0.1,0")
    cautions = load(source, [files(tmp_path / "spaces")[0]]).cautions
    assert any("1 of 2 trials of sgd lie outside its search space: lr 10 is not in 0.001 .. 1" in c for c in cautions)


def grid(lrs: int, decays: int, seeds: int = 1) -> list[str]:
    rng = np.random.default_rng(0)
    return [
        f"a,b,{70 - 4 * (np.log10(lr) + 2) ** 2 - abs(np.log10(wd) + 4) + rng.normal(0, 0.2):.4f},{lr},{wd},{seed}"
        for lr in np.geomspace(1e-5, 1, lrs)
        for wd in np.geomspace(1e-8, 1, decays)
        for seed in range(seeds)
    ]


def test_the_range_of_a_grid_is_taken_from_it_with_a_word(tmp_path: Path) -> None:
    table = load(write(tmp_path / "t.csv", HEADER + ",lr,wd,seed", *grid(10, 10, 2)))
    dims = table.spaces["b"]
    assert (dims["lr"].low, dims["lr"].high) == pytest.approx((1e-5, 1))
    assert (dims["weight_decay"].low, dims["weight_decay"].high) == pytest.approx((1e-8, 1))
    (caution,) = table.cautions
    assert "b: lr 1e-05 .. 1, weight decay 1e-08 .. 1" in caution
    assert any("100 of 100 settings were tried 2 times" in note for note in table.notes)
    stated = load(str(tmp_path / "t.csv"), [Path(write(tmp_path / "b.yaml", SGD.replace("1e-3", "1e-6")))])
    assert stated.spaces["b"]["lr"].low == 1e-6


def test_zero_is_a_value_of_its_own_in_a_range_that_trials_show(tmp_path: Path) -> None:
    rows = [f"a,b,60,{lr},{wd}" for lr in (1e-4, 1e-3, 1e-2, 1e-1, 1) for wd in (0, 1e-4, 1e-3, 1e-2)]
    dim = load(write(tmp_path / "t.csv", HEADER + ",lr,wd", *rows)).spaces["b"]["weight_decay"]
    assert (dim.low, dim.high, dim.zero_mass) == (1e-4, 1e-2, 0.25)


@pytest.mark.parametrize("rates", [(0.1,), (0.1, 0.2, 0.3), (0.1, 0.11, 0.12, 0.13, 0.14, 0.15)])
def test_a_few_learning_rates_show_no_range(tmp_path: Path, rates: tuple[float, ...]) -> None:
    rows = [f"a,b,60,{lr},{wd}" for lr in rates for wd in (1e-4, 1e-2)]
    assert load(write(tmp_path / "t.csv", HEADER + ",lr,wd", *rows)).spaces == {}


@pytest.mark.parametrize("column", ["", ",wd"])
def test_without_weight_decay_the_learning_rate_alone_was_searched(tmp_path: Path, column: str) -> None:
    rows = [f"a,b,{60 + number % 7},{10 ** (-4 + number / 10)}{',0.1' * bool(column)}" for number in range(30)]
    table = load(write(tmp_path / "t.csv", HEADER + ",lr" + column, *rows))
    assert set(table.spaces["b"]) == {"lr"}
    assert any("only the learning rate was searched" in caution for caution in table.cautions)
    found = find(table)
    assert found.cells[0].value == 66
    assert any("only the learning rate was searched" in message for message in messages_of(found, "reading"))
