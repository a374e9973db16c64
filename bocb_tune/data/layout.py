"""Where the images of a dataset are, and which split each is in. No image is opened, and torch is not imported.

A dataset is stored as parts (`train`, and `val` and `test` if they are there), each a folder with one folder of images
for every class: on disk, or in one packed file.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from bocb_tune.data.parts import PARTS, Source, is_image, require_known
from bocb_tune.data.split import Chosen, Indices, choose_splits


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderImages:
    """Image files in the class folders of one folder. Arrays, as a million strings would fill every loader's memory."""

    folder: Path
    classes: Sequence[str]
    files: NDArray[np.bytes_]
    """File names [images], by class."""
    labels: Indices

    def name(self, index: int) -> str:
        return os.path.join(self.folder, self.classes[self.labels[index]], os.fsdecode(self.files[index]))

    def open(self, index: int) -> str | IO[bytes]:
        return self.name(index)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """A scanned dataset."""

    classes: tuple[str, ...]
    """Sorted; a label is the place in here."""
    parts: Mapping[str, Source]
    chosen: Chosen
    """Which images of which part make each split."""


def layout_of(parts: Mapping[str, Source], classes: Sequence[str], options: Mapping[str, Any], place: str) -> Layout:
    """Parts as stored, divided into splits. ValueError, starting with `place`, where they cannot be."""
    labels = {part: images.labels for part, images in parts.items()}
    return Layout(classes=tuple(classes), parts=parts, chosen=choose_splits(labels, classes, options, place))


def scan(options: Mapping[str, Any]) -> Layout:
    """Lists the images of the folder, or of the packed file, `options["root"]`.

    With an option `validate_on`, the images in `val` are what published results are reported on, as ImageNet's are:
    they are the test part. ValueError, naming the place, for a layout that cannot be trained on.
    """
    root, publishes = Path(options["root"]), "validate_on" in options
    classes, parts = read_parts(root, ("train", "val") if publishes else PARTS)
    _require_number(classes, options.get("classes"), root)
    if publishes:
        parts = {"test" if part == "val" else part: images for part, images in parts.items()}
    return layout_of(parts, classes, options, str(root))


def read_parts(root: Path, wanted: Iterable[str] = PARTS) -> tuple[tuple[str, ...], dict[str, Source]]:
    """Classes, and those of the wanted parts that are there."""
    if root.is_file():
        from bocb_tune.data.packed import read_packed

        classes, packed = read_packed(root)
        return classes, {part: packed[part] for part in wanted if part in packed}
    classes = class_names(root)
    return classes, {part: _images(root / part, classes) for part in wanted if (root / part).is_dir()}


def class_names(root: Path) -> tuple[str, ...]:
    """The classes in `train`, sorted, without looking at images. ValueError: no such folder."""
    if root.is_file():
        return read_parts(root)[0]
    train = root / "train"
    if not train.is_dir():
        raise ValueError(f"there is no folder {train}; it must hold one folder of images for each class")
    return tuple(sorted(_folders(train)))


def _require_number(classes: Sequence[str], expected: int | None, root: Path) -> None:
    if len(classes) < 2:
        raise ValueError(f"{root}: train holds {len(classes)} class folders; at least 2 are needed")
    if expected is not None and len(classes) != expected:
        raise ValueError(
            f"{root}: train holds {len(classes)} class folders, not {expected}; complete them, "
            f"or for a subset set the option 'classes' to {len(classes)}"
        )


def _folders(folder: Path) -> list[str]:
    return [entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith(".")]


def _images(folder: Path, classes: tuple[str, ...]) -> FolderImages:
    found = _folders(folder)
    if not found:
        raise ValueError(f"{folder} holds no class folders; put each image into the folder of its class")
    require_known(found, classes, str(folder))
    files = [_files(folder / name) if name in found else [] for name in classes]
    return FolderImages(
        folder=folder,
        classes=classes,
        files=np.array([file for of_class in files for file in of_class], dtype=np.bytes_),
        labels=np.repeat(np.arange(len(classes)), [len(of_class) for of_class in files]),
    )


def _files(folder: Path) -> list[bytes]:
    return sorted(os.fsencode(entry.name) for entry in os.scandir(folder) if is_image(entry.name))
