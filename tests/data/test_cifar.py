"""CIFAR in the files its publishers distribute: what is read, what is refused, and what all processes share."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bocb_tune.core.node_cache import shared_arrays
from bocb_tune.data import check_dataset, load_dataset
from bocb_tune.data.arrays import Arrays
from bocb_tune.data.cifar import VARIANTS, download, read_cifar
from bocb_tune.tasks import get_task
from bocb_tune.training.context import Context
from tests.support.datasets import cifar_images, make_cifar, python2_pickle
from tests.support.trials import digits_trial

BOTH = pytest.mark.parametrize("name", sorted(VARIANTS))


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the processes of a machine share, in a folder of the test."""
    home = tmp_path / "shared"
    home.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(home))
    return home


def options(root: Path, **more: Any) -> dict[str, Any]:
    return {"root": str(root), "val_share": 0.2, **more}


def load(name: str, root: Path, **more: Any) -> Arrays:
    dataset = load_dataset(name, options(root, **more), "cpu")
    assert isinstance(dataset, Arrays)
    return dataset


def everything(dataset: Arrays, split: str) -> tuple[torch.Tensor, torch.Tensor]:
    return next(dataset.batches(split, [torch.arange(dataset.count(split))]))


@BOTH
@pytest.mark.parametrize("binary", [False, True])
def test_every_image_is_there_once_with_its_label(tmp_path: Path, name: str, binary: bool) -> None:
    dataset = load(name, make_cifar(tmp_path, name, train=5, test=1, binary=binary))
    classes = VARIANTS[name].num_classes
    assert (dataset.num_classes, dataset.in_chans, dataset.image_size) == (classes, 3, 32)
    assert [dataset.count(split) for split in ("train", "val", "test")] == [4 * classes, classes, classes]
    for splits, per_class in ((("train", "val"), 5), (("test",), 1)):
        images, labels = (torch.cat(both) for both in zip(*(everything(dataset, s) for s in splits), strict=True))
        pixels, expected = cifar_images(name, per_class, seed=per_class)
        assert images.dtype == torch.uint8
        pairs = {(image.numpy().tobytes(), int(label)) for image, label in zip(images, labels, strict=True)}
        assert pairs == {(image.tobytes(), int(label)) for image, label in zip(pixels, expected, strict=True)}


@BOTH
def test_planes_stay_red_green_blue_by_rows(tmp_path: Path, name: str) -> None:
    images, _ = everything(load(name, make_cifar(tmp_path, name), validate_on="test"), "train")
    pixels, _ = cifar_images(name, 5, seed=5)
    assert images[3, 1, 2, 7] == pixels[3, 1024 + 2 * 32 + 7]


def test_validating_on_test_trains_on_everything(tmp_path: Path) -> None:
    root = make_cifar(tmp_path, "cifar10")
    honest, published = load("cifar10", root), load("cifar10", root, validate_on="test")
    assert [published.count(split) for split in ("train", "val", "test")] == [50, 10, 0]
    assert torch.equal(everything(published, "val")[0], everything(honest, "test")[0])


def test_the_versions_hold_the_same(tmp_path: Path) -> None:
    python, binary = (load("cifar100", make_cifar(tmp_path / str(b), "cifar100", binary=b)) for b in (False, True))
    for split in ("train", "val", "test"):
        assert all(map(torch.equal, everything(python, split), everything(binary, split)))


# Sharing


def test_files_are_read_once_a_node_and_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_cifar(tmp_path, "cifar10")
    first = read_cifar("cifar10", options(root, split_seed=0))
    monkeypatch.setattr("bocb_tune.data.cifar._read_all", None)  # read again, it would raise
    again = read_cifar("cifar10", options(root, split_seed=0))
    assert isinstance(again.images["train"], np.memmap)
    first.images["train"][:] = 0
    assert again.images["train"].any()


def test_processes_that_start_together_read_once(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_text("x")
    code = (
        "import sys, time, numpy as np; from pathlib import Path; from bocb_tune.core.node_cache import shared_arrays\n"
        "def build(): print('built'); time.sleep(0.3); return {'a': np.arange(3)}\n"
        "print(shared_arrays([Path(sys.argv[1])], ['a'], build)['a'].sum())"
    )
    env = {**os.environ, "TMPDIR": str(tmp_path / "shared")}
    started = [
        subprocess.Popen([sys.executable, "-c", code, str(source)], stdout=subprocess.PIPE, text=True, env=env)
        for _ in range(3)
    ]
    said = "".join(process.communicate()[0] for process in started).split()
    assert sorted(said) == ["3", "3", "3", "built"]


def test_a_changed_file_or_a_cleaned_folder_is_read_anew(tmp_path: Path, own_cache: Path) -> None:
    source = tmp_path / "source"
    source.write_text("one")

    def kept() -> str:
        text = source.read_text()
        return "".join(
            shared_arrays([source], ["text", "more"], lambda: dict.fromkeys(("text", "more"), np.array([text])))["text"]
        )

    assert kept() == "one"
    source.write_text("two")  # as long
    os.utime(source, ns=(0, 0))
    assert kept() == "two"
    for file in own_cache.glob("*/*/more.npy"):
        file.unlink()
    assert kept() == "two"
    assert not list(own_cache.glob("*/tmp*"))


def test_no_room_says_where_room_is_needed(tmp_path: Path, own_cache: Path) -> None:
    own_cache.rmdir()
    own_cache.write_text("a file")
    with pytest.raises(ValueError, match=r"shared cannot take the data .*make room there, or set TMPDIR"):
        load("cifar10", make_cifar(tmp_path, "cifar10"))


# Bad input


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def evil(file: Path) -> None:
    file.write_bytes(b"cos\nsystem\n(S'touch " + str(file.parent / "run").encode() + b"'\ntR.")


def foreign(file: Path) -> None:
    file.write_bytes(b"<html>not found</html>")


def wrong_label(file: Path) -> None:
    file.write_bytes(python2_pickle({"data": np.zeros((2, 3072), np.uint8), "labels": [3, 10]}))


def wrong_shape(file: Path) -> None:
    file.write_bytes(python2_pickle({"data": np.zeros((2, 1024), np.uint8), "labels": [3, 1]}))


def unlabelled(file: Path) -> None:
    file.write_bytes(python2_pickle({"data": np.zeros((2, 3072), np.uint8)}))


def one_class(file: Path) -> None:
    file.write_bytes(python2_pickle({"data": np.zeros((2, 3072), np.uint8), "labels": [0, 0]}))


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (Path.unlink, r"cifar-10-batches-py lacks test_batch; unpack the whole of CIFAR-10 anew"),
        (cut, r"test_batch cannot be read \(.*this is not a file of CIFAR-10: unpack it anew"),
        (foreign, r"test_batch cannot be read \("),
        (evil, r"test_batch cannot be read \(UnpicklingError: it asks for os.system, which has no place in an array"),
        (wrong_label, r"test_batch: label 10 is not below 10; this is not a file of CIFAR-10"),
        (wrong_shape, r"test_batch: 2 labels for images of shape \(2, 1024\); this is not"),
        (unlabelled, r"test_batch cannot be read \(KeyError: 'labels'\)"),
        (one_class, r"cifar-10-batches-py: class '1' has no image in the part 'test' \(nor have 8 other classes\)"),
    ],
)
def test_bad_files_are_refused(tmp_path: Path, harm: Callable[[Path], None], message: str) -> None:
    root = make_cifar(tmp_path, "cifar10")
    harm(root / "cifar-10-batches-py/test_batch")
    for _ in range(2):  # nothing of the first time is kept
        with pytest.raises(ValueError, match=message):
            check_dataset("cifar10", options(root))
    assert not (root / "cifar-10-batches-py/run").exists()


def test_pickles_that_run_code_would_have_run_it(tmp_path: Path) -> None:
    file = tmp_path / "test_batch"
    evil(file)
    pickle.loads(file.read_bytes())
    assert (tmp_path / "run").exists()


def test_a_binary_file_cut_short_is_refused(tmp_path: Path) -> None:
    root = make_cifar(tmp_path, "cifar100", binary=True)
    cut(root / "cifar-100-binary/train.bin")
    with pytest.raises(ValueError, match=r"train.bin: 1536900 bytes are no whole number of records of 3074"):
        check_dataset("cifar100", options(root))


@BOTH
def test_missing_files_say_what_to_put_where(tmp_path: Path, name: str) -> None:
    variant = VARIANTS[name]
    expected = (
        rf"holds neither {variant.python}/ nor {variant.binary}/; unpack {variant.title} there .*'download' to true"
    )
    with pytest.raises(ValueError, match=expected):
        check_dataset(name, options(tmp_path))


def test_a_share_that_leaves_a_class_out_is_refused(tmp_path: Path) -> None:
    root = make_cifar(tmp_path, "cifar10", train=1)
    with pytest.raises(ValueError, match="class '0' has one training image, which cannot be split"):
        check_dataset("cifar10", options(root))


# Downloading


def test_downloading_asks_torchvision_and_says_what_else_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def fetch(url: str, root: str, **rest: Any) -> None:
        asked.append((url, str(root), rest["md5"]))
        raise OSError("no route to host")

    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", fetch)
    with pytest.raises(
        ValueError, match=r"CIFAR-100 cannot be downloaded: no route to host; unpack https://.* yourself"
    ):
        check_dataset("cifar100", options(tmp_path, download=True))
    assert asked == [
        ("https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz", str(tmp_path), "eb9058c3a382ffc7106e4002c42a8d85")
    ]


def test_a_download_that_is_not_what_was_published_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetch = lambda url, root, **rest: make_cifar(Path(root), "cifar10")  # noqa: E731, ARG005
    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", fetch)
    with pytest.raises(ValueError, match=r"CIFAR-10 cannot be downloaded: Dataset not found or corrupted"):
        download("cifar10", tmp_path)


# Training


def test_a_trial_trains_on_it(tmp_path: Path) -> None:
    root = make_cifar(tmp_path, "cifar10", train=20, test=2)
    dataset = {"name": "cifar10", **options(root), "validate_on": "val", "split_seed": 0}
    trial = digits_trial(dataset=dataset, batch_size=32, augment="none", budget=1)
    (measurement,) = get_task("classification").run(trial, Context())
    assert 0 <= measurement.metrics["test_score"] <= 100
    assert "unreadable_images" not in measurement.metrics
