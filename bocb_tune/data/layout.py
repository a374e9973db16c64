"""Where the images of a folder are, and which split each is in. Standard library only: no image is opened."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bocb_tune.names import unknown
from bocb_tune.types import derive_seed

SUFFIXES = {".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"}

Item = tuple[str, int]
"""Path of an image and its label."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """A scanned folder."""

    classes: tuple[str, ...]
    """Sorted folder names of ROOT/train; a label is the place in here."""
    splits: Mapping[str, tuple[Item, ...]]
    """`train` and `val`, and `test` if ROOT/test exists."""


def class_names(root: Path) -> tuple[str, ...]:
    """The classes of ROOT/train, sorted. ValueError: no such folder, or fewer than two classes in it."""
    train = root / "train"
    if not train.is_dir():
        raise ValueError(
            f"dataset 'imagefolder': there is no folder {train}; it must hold one folder of images a class"
        )
    names = tuple(sorted(entry.name for entry in train.iterdir() if entry.is_dir() and not entry.name.startswith(".")))
    if len(names) < 2:
        raise ValueError(f"dataset 'imagefolder': {train} holds {len(names)} class folders; at least 2 are needed")
    return names


def scan(options: Mapping[str, Any]) -> Layout:
    """Lists the images of `options["root"]`. ValueError, naming the folder, for a layout that cannot be trained on."""
    root = Path(options["root"]).expanduser()
    classes = class_names(root)
    splits = {"train": _items(root / "train", classes)}
    for split in ("val", "test"):
        if (root / split).is_dir():
            _require_known(root / split, classes)
            splits[split] = _items(root / split, classes)
    if "val" not in splits:
        splits |= _split(splits["train"], classes, root / "train", options["val_share"], options["split_seed"])
    return Layout(classes=classes, splits=splits)


def _items(folder: Path, classes: tuple[str, ...]) -> tuple[Item, ...]:
    found: list[Item] = []
    for label, name in enumerate(classes):
        images = sorted(str(path) for path in (folder / name).glob("*") if path.suffix.lower() in SUFFIXES)
        if not images:
            raise ValueError(f"dataset 'imagefolder': class {name!r} has no image in {folder / name}")
        found.extend((image, label) for image in images)
    return tuple(found)


def _require_known(folder: Path, classes: tuple[str, ...]) -> None:
    for entry in sorted(folder.iterdir()):
        if entry.is_dir() and not entry.name.startswith(".") and entry.name not in classes:
            raise unknown(f"class in {folder}: ROOT/train has no folder", entry.name, classes)


def _split(
    items: tuple[Item, ...], classes: tuple[str, ...], folder: Path, share: float, seed: int
) -> dict[str, tuple[Item, ...]]:
    """The same share of each class, at least one image and never all; a pure function of the names and the seed."""
    train: list[Item] = []
    val: list[Item] = []
    for label, name in enumerate(classes):
        members = [item for item in items if item[1] == label]
        if len(members) == 1:
            raise ValueError(
                f"dataset 'imagefolder': class {name!r} has one image in {folder / name}, which cannot be split into "
                f"training and validation; add images or give a folder {folder.parent / 'val'}"
            )
        random.Random(derive_seed("split", seed, name)).shuffle(members)
        held_out = min(max(1, round(share * len(members))), len(members) - 1)
        val.extend(sorted(members[:held_out]))
        train.extend(sorted(members[held_out:]))
    return {"train": tuple(train), "val": tuple(val)}
