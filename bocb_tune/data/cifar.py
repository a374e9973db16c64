"""CIFAR-10 and CIFAR-100 as their publishers distribute them (Krizhevsky 2009, https://www.cs.toronto.edu/~kriz/cifar.html).

The Python version is made of pickles. Pickles can run code, so these are read by an unpickler that knows numpy's arrays
and nothing else; the binary version is read as plain bytes. Either becomes arrays that all processes of a node share.
"""

from __future__ import annotations

import contextlib
import pickle
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bocb_tune.core.node_cache import SharedArrays, shared_arrays
from bocb_tune.data.contents import Contents, ImageSource, StoredPart, count_splits, fingerprint_of
from bocb_tune.data.split import Chosen, Indices, choose_splits

if TYPE_CHECKING:
    from bocb_tune.data.base import Dataset

PIXELS = 3 * 32 * 32
"""Bytes of an image: the red plane, then green, then blue."""

PARTS = ("train", "test")

ARRAYS = tuple(f"{part}_{what}" for part in PARTS for what in ("images", "labels"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One of the two datasets: its files, and how labels are kept in them."""

    title: str
    num_classes: int
    python: str
    """Folder of the Python version."""
    binary: str
    """Folder of the binary version; its files end in `.bin`."""
    files: Mapping[str, tuple[str, ...]]
    """Files of each part."""
    key: str
    """Key of the labels in the Python version."""
    label_bytes: int
    """Bytes before the pixels of a binary record; the last of them is the label."""
    torchvision: str
    """Class of torchvision.datasets that knows where it is published, and its checksum."""
    mean: tuple[float, float, float]
    """Mean of each channel over the published training images, pixel values in 0..1."""
    std: tuple[float, float, float]


VARIANTS = {
    "cifar10": Variant(
        title="CIFAR-10",
        num_classes=10,
        python="cifar-10-batches-py",
        binary="cifar-10-batches-bin",
        files={"train": tuple(f"data_batch_{number}" for number in range(1, 6)), "test": ("test_batch",)},
        key="labels",
        label_bytes=1,
        torchvision="CIFAR10",
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
    ),
    "cifar100": Variant(
        title="CIFAR-100",
        num_classes=100,
        python="cifar-100-python",
        binary="cifar-100-binary",
        files={"train": ("train",), "test": ("test",)},
        key="fine_labels",
        label_bytes=2,
        torchvision="CIFAR100",
        mean=(0.5071, 0.4866, 0.4409),
        std=(0.2673, 0.2564, 0.2762),
    ),
}


Records = tuple[NDArray[np.uint8], Indices]
"""Pixels [images, PIXELS] and labels [images] of one file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredCifar:
    """The images and labels of both parts, and how they are divided into splits."""

    images: Mapping[str, NDArray[np.uint8]]
    """Images [images, 3, 32, 32], by part."""
    labels: Mapping[str, Indices]
    chosen: Chosen


class Cifar:
    """Reads one of the two datasets."""

    def __init__(self, name: str) -> None:
        self.name = name

    def contents(self, options: Mapping[str, Any]) -> Contents:
        if options["download"]:
            download(self.name, Path(options["root"]))
        stored = read_cifar(self.name, options)
        classes = tuple(str(label) for label in range(VARIANTS[self.name].num_classes))
        return Contents(
            classes=classes,
            splits=count_splits(stored.chosen, stored.labels, len(classes)),
            parts={split: part for split, (part, _) in stored.chosen.items()},
            fingerprint=lambda: fingerprint_of({part: _as_stored(stored.labels[part]) for part in PARTS}, classes),
        )

    def sources(self, options: Mapping[str, Any]) -> Mapping[str, ImageSource]:  # noqa: ARG002
        return {}

    def load(self, options: Mapping[str, Any], device: str) -> Dataset:
        from bocb_tune.data.arrays import load_arrays

        variant, stored = VARIANTS[self.name], read_cifar(self.name, options)
        return load_arrays(
            stored.images,
            stored.labels,
            stored.chosen,
            num_classes=variant.num_classes,
            mean=variant.mean,
            std=variant.std,
            device=device,
        )


cifar10, cifar100 = Cifar("cifar10"), Cifar("cifar100")


def _as_stored(labels: Indices) -> StoredPart:
    """Describe the images for a fingerprint. They have no names: their numbers are the same in both versions, and the
    labels tell whether their order is.
    """
    return StoredPart(labels=labels, names=[b"%d" % row for row in range(len(labels))], sizes=[PIXELS] * len(labels))


def read_cifar(name: str, options: Mapping[str, Any]) -> StoredCifar:
    """Read the dataset in the folder `options["root"]`.

    Raises:
        ValueError: if files are missing, cut short, or something else.
    """
    variant, root = VARIANTS[name], Path(options["root"])
    files, read = _find(variant, root)
    sources = [file for part in PARTS for file in files[part]]
    arrays = shared_arrays(sources, ARRAYS, lambda: _read_all(variant, files, read))
    labels = {part: arrays[f"{part}_labels"] for part in PARTS}
    classes = [str(label) for label in range(variant.num_classes)]
    return StoredCifar(
        images={part: arrays[f"{part}_images"] for part in PARTS},
        labels=labels,
        chosen=choose_splits(labels, classes, options, str(sources[0].parent)),
    )


def download(name: str, root: Path) -> None:
    """Fetch what is missing through torchvision, which checks the published MD5 sums.

    Raises:
        ValueError: if it cannot be fetched.
    """
    from torchvision import datasets

    variant = VARIANTS[name]
    publisher = getattr(datasets, variant.torchvision)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            publisher(root, train=False, download=True)
    except (OSError, RuntimeError) as error:
        raise ValueError(
            f"{variant.title} cannot be downloaded: {error}; unpack {publisher.url} in {root} yourself, "
            "and leave the option 'download' out"
        ) from error


def _find(variant: Variant, root: Path) -> tuple[dict[str, list[Path]], Callable[[Path, Variant], Records]]:
    """Find the files of each part, of whichever version is there, and what reads one."""
    versions = ((variant.python, "", _read_python), (variant.binary, ".bin", _read_binary))
    for folder, suffix, read in versions:
        files = {part: [root / folder / f"{file}{suffix}" for file in variant.files[part]] for part in PARTS}
        missing = [file.name for part in PARTS for file in files[part] if not file.is_file()]
        if not missing:
            return files, read
        if (root / folder).is_dir():
            raise ValueError(f"{root / folder} lacks {', '.join(missing)}; unpack the whole of {variant.title} anew")
    raise ValueError(
        f"{root} holds neither {variant.python}/ nor {variant.binary}/; unpack {variant.title} there "
        "(https://www.cs.toronto.edu/~kriz/cifar.html), or set the option 'download' to true"
    )


def _read_all(
    variant: Variant, files: Mapping[str, list[Path]], read: Callable[[Path, Variant], Records]
) -> SharedArrays:
    arrays: SharedArrays = {}
    for part in PARTS:
        pixels, labels = zip(*(_checked(file, variant, *read(file, variant)) for file in files[part]), strict=True)
        arrays[f"{part}_images"] = np.concatenate(pixels).reshape(-1, 3, 32, 32)
        arrays[f"{part}_labels"] = np.concatenate(labels)
    return arrays


def _checked(file: Path, variant: Variant, pixels: NDArray[np.uint8], labels: Indices) -> Records:
    """Require one label for each image, and that all are classes.

    Raises:
        ValueError: if it is not so.
    """
    if pixels.shape != (len(labels), PIXELS) or pixels.dtype != np.uint8:
        raise ValueError(f"{file}: {len(labels)} labels for images of shape {pixels.shape}; {_foreign(variant)}")
    wrong = labels[(labels < 0) | (labels >= variant.num_classes)]
    if len(wrong):
        raise ValueError(f"{file}: label {wrong[0]} is not below {variant.num_classes}; {_foreign(variant)}")
    return pixels, labels


def _foreign(variant: Variant) -> str:
    return f"this is not a file of {variant.title}: unpack it anew"


def _read_binary(file: Path, variant: Variant) -> Records:
    size, record = file.stat().st_size, variant.label_bytes + PIXELS
    if size == 0 or size % record:
        raise ValueError(f"{file}: {size} bytes are no whole number of records of {record}; {_foreign(variant)}")
    records = np.fromfile(file, dtype=np.uint8).reshape(-1, record)
    return records[:, variant.label_bytes :], records[:, variant.label_bytes - 1].astype(np.int64)


def _read_python(file: Path, variant: Variant) -> Records:
    try:
        with file.open("rb") as stream:
            content = _ArraysOnly(stream, encoding="latin1").load()
        return np.asarray(content["data"]), np.asarray(content[variant.key], dtype=np.int64)
    except Exception as error:  # damaged bytes can ask the unpickler for anything
        raise ValueError(f"{file} cannot be read ({type(error).__name__}: {error}); {_foreign(variant)}") from error


class _ArraysOnly(pickle.Unpickler):
    """Knows what a numpy array is made of, as numpy 1 and 2 name it, and no other global: nothing can be run."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _KNOWN:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which has no place in an array")
        return _KNOWN[module, name]


_KNOWN = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    ("numpy._core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
}
