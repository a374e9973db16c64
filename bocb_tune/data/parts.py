"""The parts a dataset is stored in, whether as folders or in one packed file."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from bocb_tune.core.names import unknown
from bocb_tune.data.contents import ImageSource, LeftOut, OmissionCounter, printable

SUFFIXES = {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"}

PARTS = ("train", "val", "test")
FOLDERS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
"""Names of folders, and the part that each holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """Everything below a root."""

    classes: tuple[str, ...]
    parts: Mapping[str, ImageSource]
    left_out: tuple[LeftOut, ...]


# What the names of files mean, in a folder and in a packed file alike


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """Files by what their paths make them."""

    classes: tuple[str, ...]
    """Class folders of `train`, sorted."""
    folders: Mapping[str, str]
    """The folder of each part that is there."""
    files: Mapping[str, Mapping[str, Sequence[str]]]
    """Paths of images below the folder of their class, by part and class."""
    left_out: tuple[LeftOut, ...]


def sort_out(paths: Iterable[str], wanted: Sequence[str], place: str) -> Listing:
    """Find the part and the class of every file, or why it is left out.

    Args:
        paths: below the root, with `/` between the steps; those of folders end in `/`.
        wanted: parts that the dataset has.
        place: the root, for messages.

    Raises:
        ValueError: two folders for one part, a part without class folders, or with a class that `train` lacks.
    """
    files: dict[str, dict[str, list[str]]] = {}
    folders: dict[str, set[str]] = {}
    tally = OmissionCounter()
    for path in paths:
        if reason := reason_to_skip(path, wanted):
            tally.add(reason, path)
            continue
        folder, *below = path.split("/", 2)
        part = FOLDERS[folder]
        folders.setdefault(part, set()).add(folder)
        classes = files.setdefault(part, {})
        if len(below) == 2:
            images = classes.setdefault(below[0], [])
            if not path.endswith("/"):
                images.append(below[1])
    classes_of_train = tuple(sorted(files.get("train", ())))
    for part, found in files.items():
        require_one_name(part, folders[part], place)
        if part != "train":
            _require_classes(found, classes_of_train, os.path.join(place, *folders[part]))
    return Listing(
        classes=classes_of_train,
        folders={part: min(names) for part, names in folders.items()},
        files={part: files[part] for part in PARTS if part in files},
        left_out=tally.left_out(),
    )


def reason_to_skip(path: str, wanted: Sequence[str]) -> str | None:
    """Say why a file or folder below a root is none of the dataset's; None if it is."""
    if path.startswith(".") or "/." in path:
        return "with a name that begins with a dot"
    folder, *below = path.split("/", 2)
    accepted = [name for name, part in FOLDERS.items() if part in wanted]
    if folder not in accepted or not below:
        return f"outside of the folders of images ({', '.join(accepted)})"
    if path.endswith("/"):
        return None
    if len(below) == 1:
        return "in no folder of a class"
    suffix = os.path.splitext(path)[1].lower()
    if suffix in SUFFIXES:
        return None
    return f"ending in {printable(suffix)}" if suffix else "without an ending"


def require_one_name(part: str, names: Iterable[str], place: str) -> None:
    """Refuse two folders, or splits of a table, that stand for the same part.

    Raises:
        ValueError: naming both.
    """
    found = sorted(names)
    if len(found) > 1:
        raise ValueError(f"{place} holds {' and '.join(found)}, which are names for the same part, {part!r}; keep one")


def _require_classes(found: Iterable[str], classes: Sequence[str], place: str) -> None:
    names = sorted(found)
    if not names:
        raise ValueError(f"{place} holds no class folders; put each image into the folder of its class")
    for name in names:
        if name not in classes:
            raise unknown(f"class in {place}: train has no folder", printable(name), map(printable, classes))
