"""What a data set is found to hold: every file is used, or counted and named; and whether data are those of before."""

from __future__ import annotations

import os
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bocb_tune.data import contents_of, load_dataset
from bocb_tune.data.contents import Contents, differences
from bocb_tune.data.decode import RefusedImage, decode
from bocb_tune.data.pack import main, pack
from bocb_tune.data.parts import FOLDERS, PARTS, sort_out
from tests.support.datasets import make_cifar
from tests.support.trials import make_folder

FORMS = pytest.mark.parametrize("form", ["folder", "zip", "pack"])
"""A folder, the same as `zip -r` packs it, and as `bocb_tune.data.pack` does."""


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "shared"
    home.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(home))


def in_form(root: Path, form: str) -> Path:
    path = root.with_suffix(f".{form}.zip")
    if form == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for file in root.rglob("*"):
                archive.write(file, file.relative_to(root))
    elif form == "pack":
        pack(root, path)
    return root if form == "folder" else path


def look(root: Path, name: str = "imagefolder", **options: Any) -> Contents:
    return contents_of(name, {"root": str(root), **options})


def left_out(contents: Contents) -> dict[str, int]:
    return {group.reason: group.count for group in contents.left_out}


def pets(tmp_path: Path, **counts: int) -> Path:
    """20 cats and 20 dogs, or `counts` by `split__class`."""
    wanted = {place.replace("__", "/"): count for place, count in counts.items()}
    return make_folder(tmp_path / "pets", wanted or {"train/cat": 20, "train/dog": 20}, size=(8, 8))


# Every file is used, or counted and named


def test_images_by_other_endings_of_jpeg_are_used(tmp_path: Path) -> None:
    root = pets(tmp_path)
    for number in range(4, 20):
        (root / f"train/dog/{number}.jpg").rename(root / f"train/dog/{number}.jfif")
    found = look(root)
    assert [sum(counts) for counts in zip(*found.splits.values(), strict=True)] == [20, 20]
    assert not found.left_out


@FORMS
def test_what_is_no_image_is_counted_and_named_by_reason(tmp_path: Path, form: str) -> None:
    root = pets(tmp_path)
    for name in (
        "train/cat/a.txt",
        "train/cat/b.txt",
        "train/dog/README",
        "train/loose.jpg",
        "notes.md",
        "extra/x.jpg",
    ):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text("x")
    (root / "train/dog/._0.jpg").write_text("x")
    found = look(in_form(root, form))
    assert sum(map(sum, found.splits.values())) == 40
    if form == "pack":
        assert not found.left_out
        return
    reasons = left_out(found)
    assert (reasons["ending in .txt"], reasons["without an ending"], reasons["in no folder of a class"]) == (2, 1, 1)
    assert reasons["with a name that begins with a dot"] == 1
    assert sum(reasons.values()) >= 7
    assert any("train/cat/a.txt, train/cat/b.txt" in line for line in found.lines())


PLACES = st.lists(
    st.sampled_from(
        (
            "train/a/1.png",
            "train/a/b/1.jpg",
            "train/a/.x/1.jpg",
            "train/b/2.tif",
            "train/3.jpg",
            "valid/a/1.png",
            "test/b/1.bmp",
            "other/a/1.png",
            ".git/config",
            "README",
            "train/b/x.gif",
            "train/b/._2.tif",
        )
    ),
    unique=True,
)


@given(paths=PLACES)
def test_nothing_is_lost_and_nothing_counts_twice(paths: list[str]) -> None:
    listing = sort_out(["train/", "train/a/", "train/b/", *paths], PARTS, "here")
    used = [
        f"{listing.folders[part]}/{name}/{file}"
        for part, classes in listing.files.items()
        for name, files in classes.items()
        for file in files
    ]
    assert len(used) + sum(group.count for group in listing.left_out) == len(paths)
    assert set(used) <= set(paths)
    assert not any("/." in path for path in used)


@FORMS
def test_folders_within_a_class_are_read(tmp_path: Path, form: str) -> None:
    root = pets(tmp_path)
    for name in ("cat", "dog"):
        shutil.copytree(root / f"train/{name}", root / f"train/{name}/more/yet", dirs_exist_ok=True)
    path = in_form(root, form)
    assert sum(map(sum, look(path).splits.values())) == 80
    assert look(path).fingerprint() == look(root).fingerprint()
    data = [
        load_dataset("imagefolder", {"root": str(p), "image_size": 8, "loader_workers": 0}, "cpu") for p in (root, path)
    ]
    plan = [torch.arange(data[0].count("val"))]
    batches = [next(d.batches("val", plan, transform=as_tensor)) for d in data]
    assert all(map(torch.equal, *batches))


def as_tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)


@FORMS
@pytest.mark.parametrize("name", [folder for folder, part in FOLDERS.items() if part == "val"])
def test_validation_images_are_taken_by_each_of_their_names(tmp_path: Path, name: str, form: str) -> None:
    root = pets(tmp_path, train__cat=3, train__dog=3, val__cat=1, val__dog=2)
    (root / "val").rename(root / name)
    found = look(in_form(root, form))
    assert found.splits == {"train": (3, 3), "val": (1, 2)}
    assert found.parts["val"] == "val"


@FORMS
def test_two_names_for_one_part_are_refused(tmp_path: Path, form: str) -> None:
    root = pets(tmp_path, train__cat=3, train__dog=3, val__cat=1, val__dog=1, valid__cat=1, valid__dog=1)
    with pytest.raises(ValueError, match="holds val and valid, which are names for the same part, 'val'; keep one"):
        look(in_form(root, form))


def test_a_held_out_split_says_where_it_is_taken_from(tmp_path: Path) -> None:
    found = look(pets(tmp_path))
    assert (found.count("train"), found.count("val"), found.parts["val"]) == (36, 4, "train")
    assert list(found.lines()) == [
        "2 classes: cat, dog",
        "train: 36 images, 18 a class",
        "val: 4 images, 2 a class, taken from the part 'train'",
    ]


@pytest.mark.parametrize("place", ["train/eel", "train/cat/eel.jpg", "valid", "train/cat/more"])
def test_a_link_to_nowhere_is_an_error_that_names_it(tmp_path: Path, place: str) -> None:
    root = pets(tmp_path)
    (root / place).symlink_to(tmp_path / "gone")
    with pytest.raises(ValueError, match=rf"{place} is a link to .*gone, which is not there"):
        look(root)


def test_a_link_in_a_circle_is_an_error_that_names_it(tmp_path: Path) -> None:
    root = pets(tmp_path)
    (root / "train/cat/again").symlink_to(root / "train")
    with pytest.raises(ValueError, match=r"train/cat/again is a link to a folder that contains it"):
        look(root)


def test_links_that_lead_somewhere_are_followed(tmp_path: Path) -> None:
    root = pets(tmp_path)
    (root / "train/cow").symlink_to(root / "train/cat")
    (root / "train/dog/cat.jpg").symlink_to(root / "train/cat/0.jpg")
    assert [sum(counts) for counts in zip(*look(root).splits.values(), strict=True)] == [20, 20, 21]


def test_a_class_whose_name_is_no_unicode_is_read(tmp_path: Path) -> None:
    root = pets(tmp_path)
    os.rename(os.fsencode(root / "train/cat"), os.fsencode(root) + b"/train/caf\xe9")
    found = look(root)
    assert sum(map(sum, found.splits.values())) == 40
    assert next(found.lines()) == r"2 classes: caf\xe9, dog"
    assert main([str(root), str(tmp_path / "x.zip")]) == 2


def test_packing_says_what_it_leaves_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = pets(tmp_path)
    (root / "train/dog/._0.jpg").write_text("x")
    assert main([str(root), str(tmp_path / "x.zip")]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{tmp_path}/x.zip: 40 images",
        "left out: 1 with a name that begins with a dot: train/dog/._0.jpg",
    ]


# Decoding


def saved(path: Path, image: Image.Image, **options: Any) -> np.ndarray:
    image.save(path, **options)
    return np.asarray(decode(str(path), 10**9))


@pytest.mark.parametrize("ending", ["png", "tif", "pgm"])
def test_sixteen_bits_are_scaled_by_their_range(tmp_path: Path, ending: str) -> None:
    values = np.array([[0, 257, 3000], [12000, 40000, 65535]], dtype=np.uint16)
    pixels = saved(tmp_path / f"x.{ending}", Image.fromarray(values))
    assert np.array_equal(pixels, np.repeat(np.round(values / 257).astype(np.uint8)[:, :, None], 3, axis=2))


@pytest.mark.parametrize(("dtype", "kind"), [(np.int32, "32-bit"), (np.float32, "floating-point")])
def test_pixels_without_a_range_are_refused(tmp_path: Path, dtype: Any, kind: str) -> None:
    with pytest.raises(RefusedImage, match=f"has {kind} pixels"):
        saved(tmp_path / "x.tif", Image.fromarray(np.arange(4, dtype=dtype).reshape(2, 2)))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_laid_on_white(tmp_path: Path, mode: str) -> None:
    black = Image.new(mode, (3, 1))
    black.putalpha(Image.fromarray(np.array([[0, 128, 255]], dtype=np.uint8)))
    assert saved(tmp_path / "x.png", black)[0, :, 0].tolist() == [255, 127, 0]


def test_a_transparent_colour_of_a_palette_is_white(tmp_path: Path) -> None:
    picture = Image.new("P", (2, 1))
    picture.putpalette([200, 0, 0, 0, 0, 200])
    picture.putpixel((1, 0), 1)
    assert saved(tmp_path / "x.png", picture, transparency=0)[0].tolist() == [[255, 255, 255], [0, 0, 200]]


def test_images_without_transparency_are_as_pillow_has_them(tmp_path: Path) -> None:
    for mode in ("L", "RGB", "CMYK", "1"):
        image = Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).convert(mode)
        assert np.array_equal(saved(tmp_path / "x.tif", image), np.asarray(image.convert("RGB")))


# Are these the data of before?


def gone(root: Path) -> None:
    (root / "train/cat/3.jpg").unlink()


def renamed(root: Path) -> None:
    (root / "train/cat/3.jpg").rename(root / "train/cat/x.jpg")


def longer(root: Path) -> None:
    (root / "train/cat/3.jpg").write_bytes((root / "train/cat/3.jpg").read_bytes() + b"x")


def one_more_part(root: Path) -> None:
    shutil.copytree(root / "train", root / "test")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (gone, ["train/cat: 20 images there, 19 here"]),
        (renamed, ["as many images of the same sizes in each class, but other names or sizes of single images"]),
        (longer, [r"train/cat: 20 images of \d+ bytes there, of \d+ bytes here"]),
        (one_more_part, ["test: no images there, some images here"]),
    ],
)
def test_other_data_are_told_by_their_fingerprint(
    tmp_path: Path, change: Callable[[Path], None], said: list[str]
) -> None:
    before = look(pets(tmp_path)).fingerprint()
    moved = shutil.copytree(tmp_path / "pets", tmp_path / "elsewhere")
    assert look(moved).fingerprint() == before
    change(moved)
    after = look(moved, split_seed=1).fingerprint()
    assert len(differences(before, after)) == len(said)
    for line, pattern in zip(differences(before, after), said, strict=True):
        assert re.fullmatch(pattern, line)


def test_a_fingerprint_knows_no_times(tmp_path: Path) -> None:
    root = pets(tmp_path)
    before = look(root).fingerprint()
    os.utime(root / "train/cat/3.jpg", ns=(0, 0))
    assert look(root, split_seed=1).fingerprint() == before


def test_both_versions_of_cifar_are_the_same_data(tmp_path: Path) -> None:
    one, other = (make_cifar(tmp_path / str(binary), "cifar10", binary=binary) for binary in (False, True))
    assert look(one, "cifar10").fingerprint() == look(other, "cifar10").fingerprint()
    assert look(one, "cifar10").fingerprint()["parts"]["test"]["3"] == [1, 3072]


def test_digits_are_counted_too() -> None:
    found = contents_of("digits", {})
    assert [found.count(split) for split in ("train", "val", "test")] == [1197, 300, 300]
    assert sum(images for images, _ in found.fingerprint()["parts"]["all"].values()) == 1797


def test_many_differences_are_cut_short() -> None:
    old, new = ({"parts": {"train": {str(name): [n, n] for name in range(30)}}, "digest": str(n)} for n in (1, 2))
    assert len(differences(old, new)) == 11
    assert differences(old, new)[-1] == "and 20 more differences"
    assert differences(old, old) == []
