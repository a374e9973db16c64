"""Encoded images in folders, in one packed file and in Hugging Face's tables: what is read, skipped and refused."""

from __future__ import annotations

import io
import random
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import nn
from torchvision.transforms import functional

from bocb_tune.augment import image_transform
from bocb_tune.cli.status import cell_status, grid_status, table
from bocb_tune.core.types import Measurement, Phase, TrialStatus
from bocb_tune.data import check_dataset, load_dataset, num_classes, resolve_options
from bocb_tune.data.base import Dataset, Transform
from bocb_tune.data.decode import MAX_UNREADABLE, RefusedImage
from bocb_tune.data.files import UnreadableImages
from bocb_tune.data.layout import Layout, scan
from bocb_tune.data.pack import main, pack
from bocb_tune.tasks import get_task
from bocb_tune.tasks.classification import Pictures
from bocb_tune.training.context import Context
from bocb_tune.training.recipes import Recipe
from tests.support.datasets import WNIDS, make_imagenet
from tests.support.records import make_cell, record_of
from tests.support.trials import digits_trial, make_folder

SMALL: dict[str, Any] = {"image_size": 24, "classes": len(WNIDS)}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "shared"
    home.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(home))


def imagenet(root: Path, **options: Any) -> Dataset:
    return load_dataset("imagenet", {"root": str(root), **SMALL, **options}, "cpu")


def folder(root: Path, **options: Any) -> Dataset:
    return load_dataset("imagefolder", {"root": str(root), "image_size": 16, "loader_workers": 0, **options}, "cpu")


def transform(size: int, *, train: bool = False) -> Transform:
    recipe = Recipe(batch_size=1, augment="flip_crop")
    return image_transform(recipe, size, train=train, mean=IMAGENET_DEFAULT_MEAN, std=IMAGENET_DEFAULT_STD)


def everything(dataset: Dataset, split: str) -> tuple[torch.Tensor, torch.Tensor]:
    plan = [torch.arange(dataset.count(split))]
    return next(dataset.batches(split, plan, transform=transform(dataset.image_size)))


def files_of(layout: Layout, split: str) -> list[str]:
    part, rows = layout.chosen[split]
    return [layout.parts[part].name(int(row)) for row in rows]


def scanned(name: str, root: Path, **options: Any) -> Layout:
    return scan(resolve_options(name, {"root": str(root), **options}))


# Layout


def test_the_split_of_a_folder_is_fixed_and_stratified(tmp_path: Path) -> None:
    root = make_folder(tmp_path, {"train/a": 10, "train/b": 20})
    splits = {split: files_of(scanned("imagefolder", root), split) for split in ("train", "val")}
    assert [sum(f"/{name}/" in file for file in splits["val"]) for name in "ab"] == [1, 2]
    assert sorted(splits["train"] + splits["val"]) == sorted(map(str, root.glob("*/*/*.jpg")))
    assert files_of(scanned("imagefolder", root), "val") == splits["val"]
    assert files_of(scanned("imagefolder", root, split_seed=1), "val") != splits["val"]


def test_a_given_validation_folder_is_used(tmp_path: Path) -> None:
    root = make_folder(tmp_path, {"train/a": 1, "train/b": 2, "val/a": 1, "val/b": 1})
    layout = scanned("imagefolder", root)
    assert {split: len(files_of(layout, split)) for split in layout.chosen} == {"train": 3, "val": 2}


def test_imagenets_validation_images_are_its_test_split(tmp_path: Path) -> None:
    root = make_imagenet(tmp_path, {"train": 8, "val": 2})
    honest, published = (imagenet(root, val_share=0.25, validate_on=on) for on in ("val", "test"))
    assert [honest.count(split) for split in ("train", "val", "test")] == [18, 6, 6]
    assert [published.count(split) for split in ("train", "val", "test")] == [24, 6, 0]
    assert torch.equal(everything(honest, "test")[0], everything(published, "val")[0])
    assert everything(published, "val")[1].tolist() == [0, 0, 1, 1, 2, 2]


def test_validating_on_a_test_split_that_is_not_there_is_refused(tmp_path: Path) -> None:
    root = make_imagenet(tmp_path, {"train": 2})
    with pytest.raises(ValueError, match=r"there is no test split, so validate_on cannot be 'test'; set it to 'val'"):
        check_dataset("imagenet", {"root": str(root), **SMALL, "validate_on": "test"})


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({}, "there is no folder .*train; it must hold one folder of images for each class"),
        ({"train/only": 3}, "train holds 1 class folders; at least 2 are needed"),
        ({"train/a": 3, "train/b": 0}, "class 'b' has no image in the part 'train'"),
        ({"train/a": 3, "train/b": 1}, "class 'b' has one training image, which cannot be split"),
        ({"train/a": 2, "train/b": 2, "val/a": 1, "val/bb": 1}, "unknown class in .* 'bb'; did you mean 'b'"),
        ({"train/a": 2, "train/b": 2, "val/a": 1}, "class 'b' has no image in the part 'val'"),
        ({"train/a": 2, "train/b": 2, "val": 2}, "val holds no class folders; put each image into the folder of its"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_bad_layouts_are_refused(tmp_path: Path, counts: dict[str, int], message: str, packed: bool) -> None:
    root = make_folder(tmp_path / "images", counts)
    if packed:
        root.mkdir(exist_ok=True)
        root = zipped(root, tmp_path / "packed.zip")
        message = PACKED_MESSAGES.get(message, message)
    with pytest.raises(ValueError, match=message):
        check_dataset("imagefolder", {"root": str(root)})


PACKED_MESSAGES = {
    "there is no folder .*train; it must hold one folder of images for each class": "holds no image at train/<class>/",
}


def zipped(root: Path, path: Path, compression: int = zipfile.ZIP_STORED) -> Path:
    """As `zip -r` does it: every file there is, in the order of the disk."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for file in sorted(root.rglob("*"), reverse=True):
            archive.write(file, file.relative_to(root))
    return path


def test_an_incomplete_imagenet_is_refused(tmp_path: Path) -> None:
    root = make_imagenet(tmp_path, {"train": 2, "val": 1})
    with pytest.raises(ValueError, match=r"train holds 3 class folders, not 1000; .* set the option 'classes' to 3"):
        check_dataset("imagenet", {"root": str(root)})


# Decoding


@pytest.mark.parametrize("workers", [0, 2])
def test_image_folders_end_to_end(tmp_path: Path, workers: int) -> None:
    root = make_folder(tmp_path, {"train/cat": 6, "train/dog": 5, "test/cat": 2, "test/dog": 1})
    dataset = folder(root, image_size=24, val_share=0.4, loader_workers=workers)
    assert (dataset.num_classes, dataset.in_chans, dataset.image_size) == (2, 3, 24)
    assert [dataset.count(split) for split in ("train", "val", "test", "extra")] == [7, 4, 3, 0]
    images, labels = everything(dataset, "val")
    assert (images.shape, images.dtype, labels.tolist()) == ((4, 3, 24, 24), torch.float32, [0, 0, 1, 1])


@pytest.mark.parametrize(("workers", "threads", "processes"), [(4, 1, 1), (4, 8, 4), (0, 8, 0), (1, 1, 1)])
def test_no_more_processes_decode_than_the_rank_has_cpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int, threads: int, processes: int
) -> None:
    """A rank has as many threads as `cpus_per_worker`."""
    asked = []

    def loader(*_: object, num_workers: int, **__: object) -> list[object]:
        asked.append(num_workers)
        return []

    monkeypatch.setattr("bocb_tune.data.loader.DataLoader", loader)
    monkeypatch.setattr("torch.get_num_threads", lambda: threads)
    dataset = folder(make_folder(tmp_path, {"train/a": 2, "train/b": 2}), loader_workers=workers)
    assert not list(dataset.batches("train", [torch.arange(2)], transform=transform(16)))
    assert asked == [processes]


@pytest.mark.parametrize("workers", [0, 2])
def test_what_a_transform_draws_is_a_pure_function_of_seed_and_index(tmp_path: Path, workers: int) -> None:
    dataset = folder(make_folder(tmp_path, {"train/a": 5, "train/b": 5}), loader_workers=workers)
    plans = {"whole": [torch.arange(8)], "parts": [*torch.arange(8).split(3)]}
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    drawn = {
        (name, seed): torch.cat([x for x, _ in dataset.batches("train", plan, transform=noisy, seed=seed)])
        for name, plan in plans.items()
        for seed in (0, 1)
    }
    assert torch.equal(drawn["whole", 0], drawn["parts", 0])
    assert not torch.equal(drawn["whole", 0], drawn["whole", 1])
    assert len(drawn["whole", 0].unique(dim=0)) == 8
    assert random.getstate() == states[0]
    assert np.random.get_state()[1].tolist() == states[1]
    assert torch.equal(torch.get_rng_state(), states[2])


def noisy(image: Image.Image) -> torch.Tensor:
    """Draws from every global generator a transform may draw from."""
    assert image.mode == "RGB"
    return torch.tensor([random.random(), np.random.rand(), torch.rand(()).item()]).view(3, 1, 1)


def test_views_of_an_image_are_augmented_each_in_its_own_way(tmp_path: Path) -> None:
    dataset = folder(make_folder(tmp_path, {"train/a": 3, "train/b": 3}))
    count = dataset.count("train")
    plan = [torch.arange(2), torch.arange(2) + count]
    (first, labels), (second, same) = dataset.batches("train", plan, transform=transform(16, train=True))
    assert torch.equal(labels, same)
    assert not torch.equal(first, second)
    (first, _), (second, _) = dataset.batches("train", plan, transform=transform(16))
    assert torch.equal(first, second)


@pytest.mark.parametrize("mode", ["L", "CMYK", "1"])
def test_images_of_other_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    root = make_folder(tmp_path, {"train/a": 2, "train/b": 2}, mode=mode, size=(16, 16))
    images, _ = everything(folder(root), "train")
    assert images.shape == (2, 3, 16, 16)
    if mode == "L":
        std = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
        mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
        red, green, blue = (images * std + mean).unbind(1)
        assert torch.allclose(red, green, atol=1e-5)
        assert torch.allclose(red, blue, atol=1e-5)


def test_palettes_and_transparency_become_rgb(tmp_path: Path) -> None:
    root = make_folder(tmp_path, {"train/a": 1, "train/b": 1})
    picture = Image.new("RGBA", (16, 16), (255, 0, 0, 128))
    picture.save(root / "train/a/0.png")
    picture.convert("RGB").convert("P").save(root / "train/b/0.png")
    pixels = {
        Path(name).parent.name: functional.to_tensor(Image.open(name).convert("RGB"))[:, 8, 8].tolist()
        for name in files_of(scanned("imagefolder", root, val_share=0.5), "train")
        if name.endswith("png")
    }
    assert all(value == [1, 0, 0] for value in pixels.values())
    assert everything(folder(root, val_share=0.5), "train")[0].shape == (2, 3, 16, 16)


# Unreadable images


def break_image(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:400])


@pytest.mark.parametrize("workers", [0, 2])
def test_one_corrupt_image_among_a_thousand_is_skipped_counted_and_named_once(
    tmp_path: Path, workers: int, caplog: pytest.LogCaptureFixture
) -> None:
    root = make_folder(tmp_path, {"train/a": 1, "train/b": 1, "val/a": 1, "val/b": 1}, size=(16, 16))
    for number in range(1, 1000):
        (root / f"train/a/{number}.jpg").symlink_to(root / "train/a/0.jpg")
    bad = root / "train/b/0.jpg"
    break_image(bad)
    dataset, faults = folder(root, loader_workers=workers), set[str]()
    plan = [*torch.arange(1001).split(500), torch.tensor([1000 + 1001])]
    labels = [batch for _, batch in dataset.batches("train", plan, transform=transform(16), faults=faults)]
    assert [len(batch) for batch in labels] == [500, 500, 1, 1]
    assert not torch.cat(labels).any()
    assert faults == {str(bad)}
    (named,) = [record.message for record in caplog.records]
    assert named.startswith(f"image {bad} cannot be decoded and is skipped: ")


def test_the_next_image_takes_the_place_of_a_corrupt_one_in_training_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bocb_tune.data.loader.MAX_UNREADABLE", 0.5)
    root = make_folder(tmp_path, {f"{part}/{name}": 2 for part in ("train", "val") for name in "ab"})
    for part in ("train", "val"):
        break_image(root / part / "a/1.jpg")
    dataset = folder(root)
    (images, labels) = everything(dataset, "train")
    assert labels.tolist() == [0, 1, 1, 1]
    assert torch.equal(images[1], images[2])
    assert everything(dataset, "val")[1].tolist() == [0, 1, 1]
    one_by_one = dataset.batches("val", [torch.tensor([1]), torch.tensor([2])], transform=transform(16))
    assert [labels.tolist() for _, labels in one_by_one] == [[1]]


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("content", [b"", b"not an image", b"half", None])
@pytest.mark.parametrize("split", ["train", "val"])
def test_too_many_corrupt_images_are_an_error_that_names_one(
    tmp_path: Path, workers: int, content: bytes | None, split: str
) -> None:
    root = make_folder(tmp_path, {f"{part}/{name}": 2 for part in ("train", "val") for name in "ab"})
    dataset = folder(root, loader_workers=workers)
    for bad in (root / split / "b/0.jpg", root / split / "b/1.jpg"):
        bad.unlink() if content is None else break_image(bad) if content == b"half" else bad.write_bytes(content)
    message = (
        rf"image .*{split}/b/\d\.jpg cannot be decoded: .* one of 2 among 4 images to be read of '{split}'; at most 1 "
    )
    with pytest.raises(UnreadableImages, match=message):
        everything(dataset, split)


def test_a_stretch_of_corrupt_images_is_passed_over_as_long_as_it_may_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_folder(tmp_path, {"train/a": 6, "train/b": 4, "val/a": 1, "val/b": 1})
    for number in range(1, 6):
        break_image(root / f"train/a/{number}.jpg")
    monkeypatch.setattr("bocb_tune.data.loader.MAX_UNREADABLE", 0.5)
    assert everything(folder(root), "train")[1].tolist() == [0] + 9 * [1]
    monkeypatch.setattr("bocb_tune.data.loader.MAX_UNREADABLE", 0.4)
    with pytest.raises(UnreadableImages, match="one of 5 among 10 images"):
        everything(folder(root), "train")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_picture_made_to_fill_the_memory_is_refused_by_its_size_and_not_skipped(tmp_path: Path, workers: int) -> None:
    root = make_folder(tmp_path, {"train/a": 2, "train/b": 2})
    message = r"image .*\.jpg has 30 x 40 pixels, more than 1199; .* option 'max_pixels' to 1200"
    with pytest.raises(RefusedImage, match=message):
        everything(folder(root, max_pixels=1199, loader_workers=workers), "train")
    assert len(everything(folder(root, max_pixels=1200, loader_workers=workers), "train")[1]) == 2


def test_an_image_beyond_pillows_own_limit_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # a warning above it, an error above twice as many
    assert len(everything(folder(make_folder(tmp_path, {"train/a": 2, "train/b": 2})), "train")[1]) == 2
    assert Image.MAX_IMAGE_PIXELS == 100


def test_a_trial_counts_unreadable_images_and_scores_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bocb_tune.data.loader.MAX_UNREADABLE", 0.5)
    root = make_folder(tmp_path, {"train/a": 4, "train/b": 4, "val/a": 4, "val/b": 4})
    options = {"image_size": 16, "loader_workers": 0, "root": str(root), "val_share": 0.1, "split_seed": 0}
    trial = digits_trial(dataset={"name": "imagefolder", **options}, batch_size=8, augment="none", budget=2)
    whole = [dict(m.metrics) for m in get_task("classification").run(trial, Context())]
    assert [metrics["unreadable_images"] for metrics in whole] == [0, 0]
    for place in ("train/a/1.jpg", "val/b/2.jpg", "val/b/3.jpg"):
        break_image(root / place)
    less = [dict(m.metrics) for m in get_task("classification").run(trial, Context())]
    assert [metrics["unreadable_images"] for metrics in less] == [3, 3]
    pictures = Pictures(folder(root), Recipe(batch_size=8), Context())
    assert pictures.evaluate(AlwaysA(), last=False)["score"] == pytest.approx(100 * 4 / 6)


class AlwaysA(nn.Module):
    """Says the first of two classes whatever it sees."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.tensor([[1.0, 0.0]]).expand(len(images), 2)


def test_the_status_of_a_run_tells_of_unreadable_images() -> None:
    cell = make_cell(design=2, search=1)
    records = [
        record_of(cell.trial(Phase.design, index, cell.space.default), TrialStatus.completed, 50.0)
        for index in range(2)
    ]
    harmed = Measurement(budget=9, metrics={"score": 50.0, "unreadable_images": 3}, elapsed_s=9.0)
    for last, note in ((records[1], []), (replace(records[1], measurements=(harmed,)), ["3 images an epoch cannot"])):
        console = Console(file=io.StringIO(), width=120)
        console.print(table(grid_status([cell_status("a/b", 4, [records[0], last])], 1)))
        said = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
        assert [line[:24] for line in said if "cannot be decoded" in line] == note


# One packed file


@pytest.fixture
def packed(tmp_path: Path) -> tuple[Path, Path]:
    """A folder, and the same in one file."""
    root = make_imagenet(tmp_path / "folder", {"train": 4, "val": 2})
    path = tmp_path / "imagenet.zip"
    assert sum(len(images.labels) for images in pack(root, path).parts.values()) == 18
    return root, path


@pytest.mark.parametrize("workers", [0, 2])
def test_a_packed_file_trains_as_its_folder_does(
    packed: tuple[Path, Path], workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.get_num_threads", lambda: workers)
    one, other = (imagenet(root) for root in packed)
    for split in ("train", "val", "test"):
        plan = torch.randperm(one.count(split)).split(2)
        batches = [list(d.batches(split, plan, transform=transform(24, train=True), seed=3)) for d in (one, other)]
        assert len(batches[0]) == len(plan)
        for (x, labels), (y, same) in zip(*batches, strict=True):
            assert torch.equal(x, y)
            assert torch.equal(labels, same)


def test_any_archive_without_compression_will_do(packed: tuple[Path, Path], tmp_path: Path) -> None:
    root, path = packed
    (root / "train" / "notes.txt").write_text("no image")
    (root / "train" / ".hidden").mkdir()
    shutil.copy(next(root.glob("val/*/*")), root / "train/.hidden/image.jpg")
    for other in (zipped(root, tmp_path / "mine.zip"), prefixed(path, tmp_path / "prefixed.zip")):
        assert torch.equal(everything(imagenet(other), "test")[0], everything(imagenet(root), "test")[0])


def prefixed(path: Path, other: Path) -> Path:
    """The same members, each with a long extra field in its local header."""
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(other, "w") as target:
        for member in source.infolist():
            copy = zipfile.ZipInfo(member.filename)
            copy.extra = b"\xfe\xca" + (200).to_bytes(2, "little") + bytes(200)
            target.writestr(copy, source.read(member))
    return other


def test_imagefolder_takes_packed_files_too(packed: tuple[Path, Path]) -> None:
    assert num_classes("imagefolder", {"root": str(packed[1])}) == 3
    assert folder(packed[1]).count("val") == 6


def harmed(packed: tuple[Path, Path], harm: Callable[[Path], Any]) -> str:
    harm(packed[1])
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        check_dataset("imagenet", {"root": str(packed[1]), **SMALL})
    return str(caught.value)


def test_bad_packed_files_are_refused(packed: tuple[Path, Path]) -> None:
    root, path = packed
    assert "imagenet.zip is no packed file" in harmed(packed, lambda file: file.write_bytes(file.read_bytes()[:-100]))
    path.unlink()
    assert "is compressed or encrypted; pack the images anew" in harmed(
        packed, lambda file: zipped(root, file, zipfile.ZIP_DEFLATED)
    )
    path.unlink()
    assert "holds no image at train/<class>/<image>" in harmed(packed, lambda file: zipped(root.parent, file))


def test_a_packed_file_that_changes_underneath_is_noticed(packed: tuple[Path, Path]) -> None:
    dataset = imagenet(packed[1])
    with packed[1].open("r+b") as file:
        file.write(bytes(packed[1].stat().st_size))
    with pytest.raises(UnreadableImages, match=r"imagenet.zip:train/.* is damaged or not the one that was opened"):
        everything(dataset, "train")


def test_packing_refuses_what_could_not_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = make_imagenet(tmp_path / "folder", {"train": 1, "val": 1})
    (root / "val" / "n0").mkdir()
    assert main([str(root), str(tmp_path / "x.zip")]) == 2
    assert "unknown class in" in capsys.readouterr().err
    (root / "val" / "n0").rmdir()
    assert main([str(root), str(tmp_path / "x.zip")]) == 0
    assert "x.zip: 6 images" in capsys.readouterr().out
    assert main([str(root), str(tmp_path / "x.zip")]) == 2
    assert "x.zip exists; give another name" in capsys.readouterr().err
    assert main([str(root)]) == 2
    assert [file.name for file in tmp_path.glob("*.zip*")] == ["x.zip"]


def test_packing_from_the_command_line(tmp_path: Path) -> None:
    root = make_imagenet(tmp_path / "folder", {"train": 1})
    command = [sys.executable, "-m", "bocb_tune.data.pack", str(root), str(tmp_path / "x.zip")]
    assert "3 images" in subprocess.run(command, capture_output=True, text=True, check=True).stdout


# Hugging Face


def rows(count: int, **more: Any) -> Any:
    datasets = pytest.importorskip("datasets")
    rng = np.random.default_rng(count)
    pictures = [Image.fromarray(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)) for _ in range(count)]
    labels = [number % 2 for number in range(count)]
    kinds = {"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])}
    kinds |= {name: kind for name, (kind, _) in more.items()}
    columns = {"image": pictures, "label": labels} | {name: values for name, (_, values) in more.items()}
    return datasets.Dataset.from_dict(columns, features=datasets.Features(kinds))


def saved(folder: Path, **splits: Any) -> Path:
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    datasets.DatasetDict(splits).save_to_disk(str(folder))
    return folder


def huggingface(root: Path, **options: Any) -> Dataset:
    return load_dataset("huggingface", {"root": str(root), "image_size": 16, **options}, "cpu")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_table_end_to_end(tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.get_num_threads", lambda: workers)
    dataset = huggingface(saved(tmp_path / "hf", train=rows(10), test=rows(4)), val_share=0.2)
    assert (dataset.num_classes, dataset.in_chans) == (2, 3)
    assert [dataset.count(split) for split in ("train", "val", "test")] == [8, 2, 4]
    images, labels = everything(dataset, "test")
    assert (images.shape, labels.tolist()) == ((4, 3, 16, 16), [0, 1, 0, 1])


def test_tables_have_their_splits_by_other_names(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    unlabelled = rows(4).map(lambda _: {"label": -1})
    root = saved(tmp_path / "a", train=rows(6), validation=rows(4), test=unlabelled)
    assert [huggingface(root).count(split) for split in ("train", "val", "test")] == [6, 4, 0]
    with pytest.raises(ValueError, match="there is no test split, so validate_on cannot be 'test'"):
        huggingface(root, validate_on="test")
    datasets.disable_progress_bars()
    rows(6).save_to_disk(str(tmp_path / "b"))
    assert huggingface(tmp_path / "b", val_share=0.5).count("train") == 2


def test_whole_numbers_do_for_labels_and_columns_can_be_named(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    kinds = {"fine": (datasets.ClassLabel(names=list("abc")), [0, 1, 2, 0, 1, 2])}
    root = saved(tmp_path / "two", train=rows(6, **kinds))
    with pytest.raises(ValueError, match=r"must have one label column; it has 2, label, fine: choose with the option"):
        huggingface(root)
    with pytest.raises(ValueError, match=r"unknown label column in .* 'fin'; did you mean 'fine'"):
        huggingface(root, label_column="fin")
    assert huggingface(root, label_column="fine").num_classes == 3
    plain = rows(6).cast_column("label", datasets.Value("int64"))
    assert huggingface(saved(tmp_path / "plain", train=plain)).num_classes == 2


def test_bad_tables_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check = lambda root: check_dataset("huggingface", {"root": str(root)})  # noqa: E731
    with pytest.raises(ValueError, match="is no dataset saved with `save_to_disk`"):
        check(tmp_path)
    with pytest.raises(ValueError, match="has no split 'train', only test"):
        check(saved(tmp_path / "a", test=rows(4)))
    with pytest.raises(ValueError, match=r"unknown split in .* 'trian'; did you mean 'train'"):
        check(saved(tmp_path / "b", trian=rows(4)))
    with pytest.raises(ValueError, match=r"must have one image column; it has none"):
        check(saved(tmp_path / "c", train=rows(4).remove_columns("image")))
    with pytest.raises(ValueError, match=r"train\[0\]: label -1 is none of the 2 classes"):
        check(saved(tmp_path / "d", train=rows(4).map(lambda _: {"label": -1})))
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ValueError, match=r"needs the package `datasets`: pip install 'bocb-tune\[hf\]'"):
        check(tmp_path)


def test_a_row_without_an_image_is_unreadable(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    content = {"image": [None, *rows(5)["image"][:]], "label": [0, 1, 0, 1, 0, 1]}
    content["image"][1] = None
    holes = datasets.Dataset.from_dict(content, features=rows(2).features)
    with pytest.raises(UnreadableImages, match=r"train\[\d\] cannot be decoded: there is no image in this row"):
        everything(huggingface(saved(tmp_path / "a", train=holes, val=rows(2))), "train")


def test_the_stated_share() -> None:
    assert MAX_UNREADABLE == 0.001
