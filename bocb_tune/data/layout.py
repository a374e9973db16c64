"""Places of the images of a dataset, and the split each is in. No image is opened, and torch is not imported.

A dataset is stored as parts (`train`, and `val` and `test` if they are there), each a folder with one folder of images
for every class: on disk, or in one packed file. Folders within that of a class hold images of the class too.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from bocb_tune.data.contents import (
    Contents,
    Fingerprint,
    ImageSource,
    LeftOut,
    StoredPart,
    count_splits,
    fingerprint_of,
    printable,
)
from bocb_tune.data.parts import PARTS, Listing, Stored, reason_to_skip, sort_out
from bocb_tune.data.split import Chosen, Indices, choose_splits


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderImages:
    """Image files in the class folders of one folder. Arrays, as a million strings would fill every loader's memory."""

    folder: Path
    classes: Sequence[str]
    files: NDArray[np.bytes_]
    """Paths of the files below the folder of their class [images], by class."""
    labels: Indices

    def name(self, index: int) -> str:
        return os.path.join(self.folder, self.classes[self.labels[index]], os.fsdecode(self.files[index]))

    def open(self, index: int) -> str | IO[bytes]:
        return self.name(index)

    def stored(self) -> StoredPart:
        sizes = [os.stat(self.name(index)).st_size for index in range(len(self.labels))]
        return StoredPart(labels=self.labels, names=self.files.tolist(), sizes=sizes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """A scanned dataset."""

    classes: tuple[str, ...]
    """Sorted; a label is the place in here."""
    parts: Mapping[str, ImageSource]
    chosen: Chosen
    """Part and images of it that make each split."""
    left_out: tuple[LeftOut, ...] = ()

    def contents(self) -> Contents:
        """Count what was found."""
        labels = {part: source.labels for part, source in self.parts.items()}
        return Contents(
            classes=self.classes,
            splits=count_splits(self.chosen, labels, len(self.classes)),
            parts={split: part for split, (part, _) in self.chosen.items()},
            left_out=self.left_out,
            fingerprint=self.fingerprint,
        )

    def fingerprint(self) -> Fingerprint:
        """Fingerprint the data; this looks up the size of every image."""
        return fingerprint_of({part: source.stored() for part, source in self.parts.items()}, self.classes)


def layout_of(
    parts: Mapping[str, ImageSource],
    classes: Sequence[str],
    options: Mapping[str, Any],
    place: str,
    left_out: tuple[LeftOut, ...] = (),
) -> Layout:
    """Divide parts as stored into splits.

    Raises:
        ValueError: starting with `place`, if they cannot be divided.
    """
    labels = {part: images.labels for part, images in parts.items()}
    chosen = choose_splits(labels, classes, options, place)
    return Layout(classes=tuple(classes), parts=parts, chosen=chosen, left_out=left_out)


def scan(options: Mapping[str, Any]) -> Layout:
    """List the images of the folder, or of the packed file, `options["root"]`.

    With an option `validate_on`, the images in `val` are what published results are reported on, as ImageNet's are:
    they are the test part.

    Raises:
        ValueError: naming the place, for a layout that cannot be trained on.
    """
    root, publishes = Path(options["root"]), "validate_on" in options
    stored = read_parts(root, PARTS[:2] if publishes else PARTS)
    _require_number(stored.classes, options.get("classes"), root)
    parts = stored.parts
    if publishes:
        parts = {"test" if part == "val" else part: images for part, images in parts.items()}
    return layout_of(parts, stored.classes, options, str(root), stored.left_out)


def read_parts(root: Path, wanted: Sequence[str] = PARTS) -> Stored:
    """List the classes, those of the wanted parts that are there, and what is in neither."""
    if root.is_file():
        from bocb_tune.data.packed import read_packed

        return read_packed(root, wanted)
    if not (root / "train").is_dir():
        raise ValueError(f"there is no folder {root / 'train'}; it must hold one folder of images for each class")
    listing = sort_out(_walk(str(root), "", wanted), wanted, str(root))
    parts = {part: _images(root / listing.folders[part], files, listing) for part, files in listing.files.items()}
    return Stored(classes=listing.classes, parts=parts, left_out=listing.left_out)


def _images(folder: Path, files: Mapping[str, Sequence[str]], listing: Listing) -> FolderImages:
    of_class = [sorted(map(os.fsencode, files.get(name, ()))) for name in listing.classes]
    return FolderImages(
        folder=folder,
        classes=listing.classes,
        files=np.array([file for files in of_class for file in files], dtype=np.bytes_),
        labels=np.repeat(np.arange(len(listing.classes)), [len(files) for files in of_class]),
    )


def _require_number(classes: Sequence[str], expected: int | None, root: Path) -> None:
    if len(classes) < 2:
        raise ValueError(f"{root}: train holds {len(classes)} class folders; at least 2 are needed")
    if expected is not None and len(classes) != expected:
        raise ValueError(
            f"{root}: train holds {len(classes)} class folders, not {expected}; complete them, "
            f"or for a subset set the option 'classes' to {len(classes)}"
        )


# Walking a folder


def _walk(folder: str, below: str, wanted: Sequence[str]) -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            path = f"{below}{entry.name}"
            if not entry.is_dir():
                _require_file(entry)
                yield path
                continue
            yield f"{path}/"
            if reason_to_skip(f"{path}/", wanted) is None:
                _require_no_circle(entry, folder)
                yield from _walk(entry.path, f"{path}/", wanted)


def _require_file(entry: os.DirEntry[str]) -> None:
    """Refuse a link that leads nowhere: whatever it stands for would be missing without a word.

    Raises:
        ValueError: naming the link.
    """
    if entry.is_symlink() and not entry.name.startswith(".") and not os.path.exists(entry.path):
        raise ValueError(
            f"{printable(entry.path)} is a link to {printable(os.readlink(entry.path))}, which is not there; "
            "restore that, or remove the link"
        )


def _require_no_circle(entry: os.DirEntry[str], folder: str) -> None:
    if not entry.is_symlink():
        return
    target, here = os.path.realpath(entry.path), os.path.realpath(folder)
    if os.path.commonpath([target, here]) == target:
        raise ValueError(f"{printable(entry.path)} is a link to a folder that contains it; remove the link")
