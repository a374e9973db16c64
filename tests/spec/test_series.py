"""A series of experiments: which files it names, and what is wrong with one."""

from __future__ import annotations

from pathlib import Path

import pytest

from bocb_tune.spec.model import load_spec
from bocb_tune.spec.series import experiments_in
from bocb_tune.spec.source import SpecError

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
OTHERS = ("first.yaml", "second.yaml")


def series(folder: Path, text: str) -> Path:
    for name in OTHERS:
        (folder / name).write_text("name: one\n")
    (folder / "inner.yaml").write_text("experiments: [first.yaml]\n")
    (folder / "series.yaml").write_text(text)
    return folder / "series.yaml"


def test_the_files_of_a_series_are_seen_from_its_folder_and_keep_their_order(tmp_path: Path) -> None:
    found = experiments_in(series(tmp_path, "experiments: [second.yaml, first.yaml]"))
    assert found == (str(tmp_path / "second.yaml"), str(tmp_path / "first.yaml"))


def test_any_other_file_is_itself(tmp_path: Path) -> None:
    series(tmp_path, "experiments: [first.yaml]")
    assert experiments_in(tmp_path / "first.yaml") == (str(tmp_path / "first.yaml"),)
    assert experiments_in("s3://bucket/runs/mine") == ("s3://bucket/runs/mine",)


@pytest.mark.parametrize(
    ("text", "place", "said"),
    [
        ("experiments: []", "series.yaml:1: experiments: ", "empty"),
        ("experiments: first.yaml", "series.yaml:1: experiments: ", "list"),
        ("experiments: [first.yaml, first.yaml]", "series.yaml:1: experiments[1]: ", "twice"),
        ("experiments:\n  - first.yaml\n  - secnod.yaml", "series.yaml:3: experiments[1]: ", "second.yaml"),
        ("experiments: [inner.yaml]", "series.yaml:1: experiments[0]: ", "series itself"),
        ("experiments: [first.yaml]\nnmae: x", "series.yaml:2: nmae: ", "unknown"),
        ("experiments: [1]", "series.yaml:1: experiments[0]: ", "1"),
    ],
)
def test_a_fault_of_a_series_is_named_with_its_place(tmp_path: Path, text: str, place: str, said: str) -> None:
    with pytest.raises(SpecError) as caught:
        experiments_in(series(tmp_path, text))
    message = str(caught.value)
    assert place in message
    assert said in message


def test_a_series_is_refused_where_one_experiment_is_wanted(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"series.yaml:1: experiments: .*give one of its files"):
        load_spec(series(tmp_path, "experiments: [first.yaml]"))


def test_the_shipped_series_loads_and_starts_from_what_it_trains() -> None:
    specs = [load_spec(file) for file in experiments_in(EXPERIMENTS / "shapes_transfer.yaml")]
    trained = {f"{spec.run_dir}:*/{optimizer}" for spec in specs for optimizer in spec.optimizers}
    assert [spec.task.name for spec in specs] == ["classification", "detection", "segmentation", "pose"]
    for spec in specs[1:]:
        assert {source for by in spec.pretrained.values() for source in by.values()} <= trained
