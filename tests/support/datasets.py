"""Datasets in the formats in which they are distributed, small and made of noise."""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bocb_tune.data.cifar import VARIANTS, Variant

WNIDS = ("n01440764", "n01443537", "n01484850")
"""The first classes of ImageNet-1K: tench, goldfish, great white shark."""


def cifar_images(name: str, per_class: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Pixels uint8 [images, 3072] and labels [images], in an order that is not the classes'."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(VARIANTS[name].num_classes), per_class))
    return rng.integers(0, 256, (len(labels), 3072), dtype=np.uint8), labels


def make_cifar(root: Path, name: str, *, train: int = 5, test: int = 1, binary: bool = False) -> Path:
    """`train` and `test` images of each class in ROOT, in the Python or in the binary version."""
    variant = VARIANTS[name]
    folder = root / (variant.binary if binary else variant.python)
    folder.mkdir(parents=True)
    for part, per_class in (("train", train), ("test", test)):
        pixels, labels = cifar_images(name, per_class, seed=per_class)
        files = variant.files[part]
        pieces = zip(files, np.array_split(pixels, len(files)), np.array_split(labels, len(files)), strict=True)
        for file, images, classes in pieces:
            content = _binary(variant, images, classes) if binary else _python(variant, images, classes)
            (folder / (f"{file}.bin" if binary else file)).write_bytes(content)
    return root


def _binary(variant: Variant, pixels: np.ndarray, labels: np.ndarray) -> bytes:
    columns = [labels[:, None], pixels]
    if variant.label_bytes == 2:
        columns.insert(0, labels[:, None] // 5)  # the coarse label
    return np.hstack(columns).astype(np.uint8).tobytes()


def _python(variant: Variant, pixels: np.ndarray, labels: np.ndarray) -> bytes:
    content: dict[str, Any] = {
        "filenames": [f"image_{number}.png" for number in range(len(labels))],
        "batch_label": "training batch 1 of 5",
        variant.key: labels.tolist(),
        "data": pixels,
    }
    if variant.key == "fine_labels":
        content["coarse_labels"] = (labels // 5).tolist()
    return python2_pickle(content)


def python2_pickle(content: Mapping[str, Any]) -> bytes:
    """As Python 2 and numpy 1 pickled it, which is how the files are distributed: protocol 2, strings of bytes."""
    stream = io.BytesIO()
    _Python2Pickler(stream, protocol=2).dump(content)
    return stream.getvalue().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


class _Python2Pickler(pickle._Pickler):  # type: ignore[name-defined, misc]
    def _save_string(self, value: str | bytes) -> None:
        data = value.encode("latin1") if isinstance(value, str) else value
        if len(data) < 256:
            self.write(pickle.SHORT_BINSTRING + bytes([len(data)]) + data)
        else:
            self.write(pickle.BINSTRING + len(data).to_bytes(4, "little") + data)
        self.memoize(value)

    dispatch = pickle._Pickler.dispatch | {str: _save_string, bytes: _save_string}  # type: ignore[attr-defined]


def make_imagenet(root: Path, counts: Mapping[str, int], *, seed: int = 0) -> Path:
    """ROOT/<part>/<wnid>/<wnid>_<number>.JPEG, as many of each class as `counts` has of the part. Sizes differ."""
    rng = np.random.default_rng(seed)
    for part, count in counts.items():
        for wnid in WNIDS:
            folder = root / part / wnid
            folder.mkdir(parents=True)
            for number in range(count):
                height, width = rng.integers(40, 60, 2)
                noise = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
                Image.fromarray(noise).save(folder / f"{wnid}_{number}.JPEG")
    return root
