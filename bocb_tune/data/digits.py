"""scikit-learn's digits, in memory. One channel, as the images have: every image backbone of timm can be built so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from bocb_tune.data.arrays import Arrays, Rows
from bocb_tune.data.contents import Contents, ImageSource, StoredPart, count_splits, fingerprint_of
from bocb_tune.data.split import Chosen, Indices

HELD_OUT = 30
"""Images a class in the validation split, and as many in the test split; drawn in equal proportion from each class."""


class Digits:
    """Reads scikit-learn's digits, all of them or those of some classes."""

    def __init__(self, classes: range = range(10)) -> None:
        self._classes = classes

    def contents(self, options: Mapping[str, Any]) -> Contents:
        _, labels = _stored(self._classes)
        chosen, classes = _chosen(labels, options["split_seed"]), tuple(map(str, self._classes))
        part = StoredPart(labels=labels, names=[b"%d" % row for row in range(len(labels))], sizes=[64] * len(labels))
        return Contents(
            classes=classes,
            splits=count_splits(chosen, {"all": labels}, len(classes)),
            parts={split: split for split in chosen},
            fingerprint=lambda: fingerprint_of({"all": part}, classes),
        )

    def sources(self, options: Mapping[str, Any]) -> Mapping[str, ImageSource]:  # noqa: ARG002
        return {}

    def load(self, options: Mapping[str, Any], device: str) -> Arrays:
        """Resize bilinearly to `image_size`, and scale to mean 0 and variance 1 over the training split."""
        pixels, labels = _stored(self._classes)
        chosen = _chosen(labels, options["split_seed"])
        small = torch.from_numpy(pixels).float().reshape(-1, 1, 8, 8)
        images = functional.interpolate(small, size=options["image_size"], mode="bilinear")
        std, mean = torch.std_mean(images[chosen["train"][1]])
        images, targets = ((images - mean) / std).to(device), torch.from_numpy(labels).long().to(device)
        return Arrays(
            num_classes=len(self._classes),
            in_chans=1,
            image_size=options["image_size"],
            mean=(mean.item(),),
            std=(std.item(),),
            splits={
                split: Rows(images=images, labels=targets, rows=torch.from_numpy(rows).to(device))
                for split, (_, rows) in chosen.items()
            },
        )


reader = Digits()
digits_0to4 = Digits(range(5))
digits_5to9 = Digits(range(5, 10))


def _stored(classes: range) -> tuple[NDArray[np.float64], Indices]:
    """Return pixels [images, 64] in 0..16, and labels [images], counted from 0."""
    from sklearn import datasets

    pixels, labels = datasets.load_digits(return_X_y=True)
    kept = np.isin(labels, classes)
    return pixels[kept], labels[kept] - classes.start


def _chosen(labels: Indices, split_seed: int) -> Chosen:
    from sklearn.model_selection import train_test_split

    held_out = HELD_OUT * len(np.unique(labels))
    rest, test = train_test_split(np.arange(len(labels)), test_size=held_out, stratify=labels, random_state=split_seed)
    train, val = train_test_split(rest, test_size=held_out, stratify=labels[rest], random_state=split_seed)
    return {"train": ("all", train), "val": ("all", val), "test": ("all", test)}
