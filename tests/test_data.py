"""Datasets: fixed splits, augmentation as a pure function, and what each kind of bad input says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from bocb_tune.data import DATASETS, check_dataset, load_dataset, num_classes, resolve_options
from bocb_tune.data.base import Dataset
from bocb_tune.data.digits import random_shift
from bocb_tune.data.folders import UnreadableImage
from bocb_tune.data.layout import scan
from bocb_tune.tasks import TASKS
from tests.trials import make_folder


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
    assert {dataset for task in TASKS.values() for dataset in task.datasets} == set(DATASETS)


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


def test_a_shift_moves_the_content_and_repeats_the_border() -> None:
    images = torch.arange(16.0).reshape(1, 1, 4, 4).expand(200, 1, 4, 4)
    moved = random_shift(images, 1, seed=0)
    padded = torch.nn.functional.pad(images[:1], (1, 1, 1, 1), mode="replicate")[0, 0]
    allowed = {tuple(padded[y : y + 4, x : x + 4].flatten().tolist()) for y in range(3) for x in range(3)}
    assert {tuple(image.flatten().tolist()) for image in moved} == allowed


def test_augmentation_is_a_pure_function_of_seed_and_image() -> None:
    whole = everything_shifted(torch.arange(100), seed=3)
    parts = torch.cat([everything_shifted(part, seed=3) for part in torch.arange(100).split(7)])
    assert torch.equal(whole, parts)
    assert not torch.equal(whole, everything_shifted(torch.arange(100), seed=4))


def everything_shifted(index: torch.Tensor, seed: int) -> torch.Tensor:
    return next(digits().batches("train", [index], augment="shift", seed=seed))[0]


@pytest.mark.parametrize("workers", [0, 2])
def test_image_folders_end_to_end(tmp_path: Path, workers: int) -> None:
    root = make_folder(tmp_path, {"train/cat": 6, "train/dog": 5, "test/cat": 2, "test/dog": 1})
    options = {"root": str(root), "image_size": 24, "val_share": 0.4, "loader_workers": workers}
    dataset = load_dataset("imagefolder", options, "cpu")
    assert (dataset.num_classes, dataset.in_chans, dataset.image_size) == (2, 3, 24)
    assert [dataset.count(split) for split in ("train", "val", "test", "extra")] == [7, 4, 3, 0]
    images, labels = everything(dataset, "val")
    assert (images.shape, images.dtype, labels.tolist()) == ((4, 3, 24, 24), torch.float32, [0, 0, 1, 1])
    state = torch.get_rng_state()
    first, second, other = (
        torch.cat([batch for batch, _ in dataset.batches("train", plan, augment="flip_crop", seed=seed)])
        for plan, seed in [([torch.arange(7)], 0), (torch.arange(7).split(3), 0), ([torch.arange(7)], 1)]
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_number_of_loader_workers_changes_nothing(tmp_path: Path) -> None:
    root = make_folder(tmp_path, {"train/cat": 4, "train/dog": 4})
    batches = []
    for workers in (0, 1):
        options = {"root": str(root), "image_size": 24, "loader_workers": workers}
        dataset = load_dataset("imagefolder", options, "cpu")
        batches.append(next(dataset.batches("train", [torch.arange(6)], augment="flip_crop", seed=0))[0])
    assert torch.equal(*batches)


def test_grey_images_become_rgb(tmp_path: Path) -> None:
    root = make_folder(tmp_path, {"train/a": 2, "train/b": 2}, mode="L")
    dataset = load_dataset("imagefolder", {"root": str(root), "image_size": 16, "loader_workers": 0}, "cpu")
    assert everything(dataset, "train")[0].shape == (2, 3, 16, 16)


def test_the_split_of_a_folder_is_fixed_and_stratified(tmp_path: Path) -> None:
    options = resolve_options("imagefolder", {"root": str(make_folder(tmp_path, {"train/a": 10, "train/b": 20}))})
    layout = scan(options)
    assert layout == scan(options)
    assert [sum(label == k for _, label in layout.splits["val"]) for k in (0, 1)] == [1, 2]
    assert not set(layout.splits["val"]) & set(layout.splits["train"])
    assert len(layout.splits["val"]) + len(layout.splits["train"]) == 30
    assert scan(options | {"split_seed": 1}).splits["val"] != layout.splits["val"]


def test_a_given_validation_folder_is_used(tmp_path: Path) -> None:
    root = make_folder(tmp_path, {"train/a": 1, "train/b": 2, "val/a": 1, "val/b": 1})
    layout = scan(resolve_options("imagefolder", {"root": str(root)}))
    assert {name: len(items) for name, items in layout.splits.items()} == {"train": 3, "val": 2}


def test_classes_are_counted() -> None:
    assert num_classes("digits", {}) == 10


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
    ],
)
def test_bad_options_are_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_dataset(name, options)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({}, "there is no folder .*train; it must hold one folder of images a class"),
        ({"train/only": 3}, "train holds 1 class folders; at least 2 are needed"),
        ({"train/a": 3, "train/b": 0}, "class 'b' has no image in .*train/b"),
        ({"train/a": 3, "train/b": 1}, "class 'b' has one image in .*train/b, which cannot be split"),
        ({"train/a": 2, "train/b": 2, "val/a": 1, "val/bb": 1}, "class in .*val.* 'bb'; did you mean 'b'"),
        ({"train/a": 2, "train/b": 2, "val/a": 1}, "class 'b' has no image in .*val/b"),
    ],
)
def test_bad_folders_are_refused(tmp_path: Path, counts: dict[str, int], message: str) -> None:
    root = make_folder(tmp_path, counts)
    with pytest.raises(ValueError, match=message):
        check_dataset("imagefolder", {"root": str(root)})


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("content", [b"", b"not an image", b"half"])
def test_a_corrupt_image_is_named(tmp_path: Path, workers: int, content: bytes) -> None:
    root = make_folder(tmp_path, {"train/a": 2, "train/b": 2})
    bad = root / "train/b/1.jpg"
    bad.write_bytes(bad.read_bytes()[:400] if content == b"half" else content)
    options = {"root": str(root), "image_size": 16, "loader_workers": workers}
    dataset = load_dataset("imagefolder", options, "cpu")
    with pytest.raises(UnreadableImage, match=r"image .*train/b/1\.jpg cannot be decoded: "):
        [everything(dataset, split) for split in ("train", "val")]
