"""Datasets: the table, options, splits that are pure functions, and the digits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bocb_tune.data import DATASETS, check_dataset, load_dataset, num_classes, resolve_options, settings_of
from bocb_tune.data.base import Dataset
from bocb_tune.data.split import stratified
from bocb_tune.tasks import TASKS


def digits(**options: Any) -> Dataset:
    return load_dataset("digits", options, "cpu")


def everything(dataset: Dataset, split: str) -> tuple[torch.Tensor, torch.Tensor]:
    return next(dataset.batches(split, [torch.arange(dataset.count(split))]))


def test_the_table_is_consistent() -> None:
    for name, row in DATASETS.items():
        assert row.name == name
        assert row.description
        assert row.source
        assert set(row.required) == {option for option, value in row.options.items() if value is None}
    assert {task.takes for task in TASKS.values()} == {row.holds for row in DATASETS.values()}


def test_digits_are_all_there_once_and_balanced() -> None:
    splits = [everything(digits(), split) for split in ("train", "val", "test")]
    assert [len(labels) for _, labels in splits] == [1197, 300, 300]
    images = torch.cat([images for images, _ in splits])
    assert images.shape == (1797, 1, 32, 32)
    assert len(images.flatten(1).unique(dim=0)) == 1797
    for _, labels in splits:
        share = labels.bincount(minlength=10) / len(labels)
        assert share.min() > 0.09
        assert share.max() < 0.11
    std, mean = torch.std_mean(splits[0][0])
    assert (std.item(), mean.item()) == (pytest.approx(1, abs=1e-4), pytest.approx(0, abs=1e-4))


def test_options_of_digits_act() -> None:
    assert digits(image_size=16).image_size == 16
    assert everything(digits(image_size=16), "val")[0].shape[-2:] == (16, 16)
    assert not torch.equal(everything(digits(split_seed=1), "val")[1], everything(digits(), "val")[1])


def test_a_dataset_is_kept_in_the_process() -> None:
    assert digits() is digits()


def test_an_index_beyond_the_split_is_another_view_of_an_image() -> None:
    (first, labels), (second, same) = digits().batches("val", [torch.tensor([3, 7]), torch.tensor([303, 607])])
    assert torch.equal(first, second)
    assert torch.equal(labels, same)


# Splits


@settings(deadline=None, max_examples=50)
@given(
    counts=st.lists(st.integers(2, 30), min_size=1, max_size=5),
    share=st.floats(0.01, 0.99),
    seed=st.integers(0, 5),
)
def test_a_stratified_split_takes_the_same_share_of_each_class(counts: list[int], share: float, seed: int) -> None:
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    names = [str(label) for label in range(len(counts))]
    kept, held_out = stratified(labels, names, share, seed, "here")
    assert sorted([*kept, *held_out]) == list(range(len(labels)))
    assert (np.diff(kept) > 0).all()
    assert (np.diff(held_out) > 0).all()
    for label, count in enumerate(counts):
        number = (labels[held_out] == label).sum()
        assert 1 <= number <= count - 1
        assert abs(number - share * count) <= 1
    assert np.array_equal(stratified(labels, names, share, seed, "elsewhere")[1], held_out)


def test_the_seed_and_the_names_move_a_split_and_nothing_else_does() -> None:
    labels = np.repeat([0, 1], 50)
    first = stratified(labels, ["a", "b"], 0.2, 0, "")[1]
    assert first.tolist() == [10, 14, 16, 18, 19, 20, 24, 37, 42, 44, 52, 60, 61, 64, 73, 88, 89, 91, 93, 97]
    assert not np.array_equal(stratified(labels, ["a", "b"], 0.2, 1, "")[1], first)
    other = stratified(labels, ["a", "c"], 0.2, 0, "")[1]
    assert np.array_equal(other[:10], first[:10])
    assert not np.array_equal(other[10:], first[10:])


# Options


@pytest.mark.parametrize(("name", "classes"), [("digits", 10), ("cifar10", 10), ("cifar100", 100), ("imagenet", 1000)])
def test_classes_are_known_without_looking_at_the_disk(name: str, classes: int) -> None:
    assert num_classes(name, {"root": "nowhere"} if name != "digits" else {}) == classes


def test_how_data_are_come_by_is_no_part_of_a_trial() -> None:
    without, fetched = (settings_of("cifar10", resolve_options("cifar10", {"root": ".", **o})) for o in ({}, DOWNLOAD))
    assert without == fetched
    assert without["validate_on"] == "val"
    assert "download" not in without


DOWNLOAD = {"download": True}


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("digit", {}, "unknown dataset 'digit'; did you mean 'digits'"),
        ("digits", {"image_sise": 3}, "unknown option of dataset 'digits' 'image_sise'; did you mean 'image_size'"),
        ("digits", {"image_size": 4}, "option 'image_size' of dataset 'digits' is 4; .* a whole number, at least 8"),
        ("digits", {"image_size": 32.0}, "'image_size' of dataset 'digits' is 32.0; it must be a whole number"),
        ("digits", {"split_seed": -1}, "'split_seed' of dataset 'digits' is -1; it must be a whole number, at least 0"),
        ("imagefolder", {}, "dataset 'imagefolder' needs the option 'root'"),
        ("imagefolder", {"root": 3}, "'root' of dataset 'imagefolder' is 3; it must be the path of a folder"),
        ("imagefolder", {"root": ".", "val_share": 1.0}, "'val_share' .* is 1.0; it must be a share between 0 and 1"),
        ("imagefolder", {"root": ".", "loader_workers": -1}, "'loader_workers' .* is -1; it must be a whole number"),
        ("synthetic", {"size": 3}, "unknown option of dataset 'synthetic' 'size'"),
        ("cifar10", {}, "dataset 'cifar10' needs the option 'root'"),
        ("cifar10", {"root": ".", "validate_on": "train"}, "'validate_on' .* is 'train'; it must be 'val' or 'test'"),
        ("cifar10", {"root": ".", "download": 1}, "'download' of dataset 'cifar10' is 1; it must be true or false"),
        ("imagenet", {"root": ".", "classes": 1}, "'classes' .* is 1; it must be a whole number, at least 2"),
        ("huggingface", {"root": ".", "image_column": 3}, "'image_column' .* is 3; it must be the name of a column"),
    ],
)
def test_bad_options_are_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_dataset(name, options)
