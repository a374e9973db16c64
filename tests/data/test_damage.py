"""`check --images`: every image is tried, and those that cannot be decoded are named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bocb_tune.data import encoded_images
from bocb_tune.data.decode import AT_A_TIME, bad_images
from bocb_tune.data.pack import pack
from tests.support.command import bocb
from tests.support.trials import make_folder

NO_LIMIT = 10**9


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packed files are indexed below the temporary directory."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "pets", {"train/cat": 20, "train/dog": 20, "val/cat": 2, "val/dog": 2}, size=(8, 8))


def write_spec(tmp_path: Path, dataset: str) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(
        f"name: mine\ntask: classification\ndataset: {dataset}\nbackbones: [test_resnet]\noptimizers: [adamw]\n"
        "recipe: {base: digits, batch_size: 8, augment: none}\nbudget: {epochs: 3, trials_per_cell: 9}\n"
    )
    return path


def damage(root: Path) -> dict[str, str]:
    """Spoil four images in four ways, in both parts; return how each is said to be, by name."""
    (root / "train/cat/3.jpg").write_bytes(b"")
    cut = root / "train/dog/0.jpg"
    cut.write_bytes(cut.read_bytes()[:400])
    (root / "val/dog/1.jpg").write_bytes(b"no image")
    Image.fromarray(np.zeros((4, 4), np.float32)).save(root / "train/dog/float.tiff")
    ways = {"train/cat/3.jpg": "damaged", "train/dog/0.jpg": "damaged", "train/dog/float.tiff": "refused"}
    return ways | {"val/dog/1.jpg": "damaged"}


@pytest.mark.parametrize("form", ["folder", "packed"])
def test_exactly_the_images_that_cannot_be_decoded_are_found(pets: Path, form: str) -> None:
    ways, root = damage(pets), pets
    if form == "packed":
        root = pets.with_suffix(".zip")
        pack(pets, root)
    found = list(bad_images(encoded_images("imagefolder", {"root": str(root)}), NO_LIMIT))
    assert {name: way for bad in found for name, way in ways.items() if bad.name.endswith(name)} == ways
    assert len(found) == len(ways)
    assert {bad.name.rsplit("/", 1)[1] for bad in found if bad.is_refused} == {"float.tiff"}


def test_images_beyond_the_limit_of_pixels_are_refused(pets: Path) -> None:
    sources = encoded_images("imagefolder", {"root": str(pets)})
    assert len(list(bad_images(sources, 63))) == 44
    assert not list(bad_images(sources, 64))


def test_every_image_is_tried_whatever_the_number(monkeypatch: pytest.MonkeyPatch, pets: Path) -> None:
    damage(pets)
    sources = encoded_images("imagefolder", {"root": str(pets)})
    whole = list(bad_images(sources, NO_LIMIT))
    assert sum(len(source.labels) for source in sources.values()) < AT_A_TIME
    for portion in (1, 7, 44):
        monkeypatch.setattr("bocb_tune.data.decode.AT_A_TIME", portion)
        assert list(bad_images(sources, NO_LIMIT)) == whole


def test_the_command_names_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, pets: Path
) -> None:
    spec = write_spec(tmp_path, f"{{name: imagefolder, root: {pets}, image_size: 32}}")
    assert bocb(monkeypatch, "check", spec, "--images") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "images: 44 files; all can be decoded"
    ways = damage(pets)
    assert bocb(monkeypatch, "check", spec) == 0
    assert bocb(monkeypatch, "check", spec, "--images") == 2
    said = [line.strip() for line in capsys.readouterr().err.splitlines()]
    assert [str(pets / name) for name in ways] == [line.split(": ")[0] for line in said if line.startswith(str(pets))]


@pytest.mark.parametrize("dataset", ["digits", "{name: imagefolder, root: /nowhere/at/all}"])
def test_without_images_in_files_it_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, dataset: str
) -> None:
    here = dataset == "digits"
    assert bocb(monkeypatch, "check", write_spec(tmp_path, dataset), "--images") == (0 if here else 2)
    out, err = capsys.readouterr()
    assert ("none is decoded" in out) is here
    assert ("/nowhere/at/all" in err) is not here
