"""Splits into images to train on, to compare by, and only to report on: a pure function of labels, names and a seed."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bocb_tune.core.types import derive_seed

Indices = NDArray[np.int64]

Chosen = dict[str, tuple[str, Indices]]
"""Part of the stored data that each split is taken from, and which images of that part [images]."""


def choose_splits(
    parts: Mapping[str, Indices], classes: Sequence[str], options: Mapping[str, Any], place: str
) -> Chosen:
    """Divide a dataset stored as `parts` into splits: the labels [images] of `train`, and of `val` and `test` if it has
    them.

    Without a `val`, a share of each class of `train` is held out. `options["validate_on"] == "test"` is how published
    tables are often made: all of `train` is trained on, and the validation split is the test part.

    Raises:
        ValueError: starting with `place`, for a part without some class, no test part to validate on, or a class too
        small.
    """
    for part, labels in parts.items():
        _require_all(labels, part, classes, place)
    chosen = {part: (part, np.arange(len(labels))) for part, labels in parts.items()}
    if options.get("validate_on") == "test":
        if "test" not in chosen:
            raise ValueError(f"{place}: there is no test split, so validate_on cannot be 'test'; set it to 'val'")
        return {"train": chosen["train"], "val": chosen["test"]}
    if "val" not in chosen:
        kept, held_out = stratified(parts["train"], classes, options["val_share"], options["split_seed"], place)
        chosen |= {"train": ("train", kept), "val": ("train", held_out)}
    return chosen


def stratified(labels: Indices, classes: Sequence[str], share: float, seed: int, place: str) -> tuple[Indices, Indices]:
    """Hold out the same share of each class, at least one image and never all; returns images kept and held out,
    ascending.
    """
    kept: list[int] = []
    held_out: list[int] = []
    for name, members in zip(classes, _by_class(labels, len(classes)), strict=True):
        if len(members) == 1:
            raise ValueError(
                f"{place}: class {name!r} has one training image, which cannot be split into training and validation; "
                "add images or give a validation split"
            )
        random.Random(derive_seed("split", seed, name)).shuffle(members)
        number = min(max(1, round(share * len(members))), len(members) - 1)
        held_out.extend(members[:number])
        kept.extend(members[number:])
    return np.sort(np.array(kept)), np.sort(np.array(held_out))


def _by_class(labels: Indices, num_classes: int) -> list[list[int]]:
    ends = np.cumsum(np.bincount(labels, minlength=num_classes))[:-1]
    return [members.tolist() for members in np.split(np.argsort(labels, kind="stable"), ends)]


def _require_all(labels: Indices, part: str, classes: Sequence[str], place: str) -> None:
    empty = np.flatnonzero(np.bincount(labels, minlength=len(classes)) == 0)
    if len(empty):
        more = f" (nor have {len(empty) - 1} other classes)" if len(empty) > 1 else ""
        raise ValueError(f"{place}: class {classes[empty[0]]!r} has no image in the part {part!r}{more}")
