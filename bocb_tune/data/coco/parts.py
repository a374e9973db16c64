"""Folders of images with an annotation file each: the images that are used, and what is left out of them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

import numpy as np

from bocb_tune.core.types import digest
from bocb_tune.data.coco.annotations import Annotations, read_annotations
from bocb_tune.data.contents import (
    Contents,
    Fingerprint,
    LeftOut,
    OmissionCounter,
    StoredPart,
    fingerprint_of,
    printable,
)
from bocb_tune.data.split import Indices

SPLITS = ("train", "val")
ALL = ("all",)
"""The one class of a fingerprint: an image holds objects of several."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnotatedPart:
    """The images of a folder that an annotation file lists, as far as they are there."""

    folder: Path
    annotations: Annotations
    images: Indices
    """Places of the images in `annotations`."""
    left_out: tuple[LeftOut, ...] = ()

    @property
    def labels(self) -> Indices:
        """One class for all, as an image holds objects of several."""
        return np.zeros(len(self.images), dtype=np.int64)

    def name(self, index: int) -> str:
        return os.path.join(self.folder, self.annotations.file(int(self.images[index])))

    def open(self, index: int) -> str | IO[bytes]:
        return self.name(index)

    def stored(self) -> StoredPart:
        names = [self.annotations.files[at] for at in self.images]
        sizes = [os.stat(self.name(index)).st_size for index in range(len(self.images))]
        return StoredPart(labels=self.labels, names=names, sizes=sizes)

    def counts(self) -> tuple[int, ...]:
        """Count the objects of each class, crowds not among them, in the images that are used."""
        annotations = self.annotations
        image_of = np.repeat(np.arange(len(annotations.image_ids)), np.diff(annotations.starts))
        used = np.isin(image_of, self.images) & ~annotations.crowds
        return tuple(np.bincount(annotations.labels[used], minlength=len(annotations.classes)).tolist())


def contents_of_parts(parts: Mapping[str, AnnotatedPart]) -> Contents:
    """Count what parts hold."""
    return Contents(
        classes=parts["train"].annotations.classes,
        splits={split: part.counts() for split, part in parts.items()},
        images={split: len(part.images) for split, part in parts.items()},
        parts={split: split for split in parts},
        left_out=tuple(_of(split, group) for split, part in parts.items() for group in part.left_out),
        changed=tuple(_of(split, group) for split, part in parts.items() for group in part.annotations.changed),
        fingerprint=lambda: _fingerprint(parts),
    )


def _of(split: str, group: LeftOut) -> LeftOut:
    return replace(group, reason=f"{group.reason} ({split})")


def _fingerprint(parts: Mapping[str, AnnotatedPart]) -> Fingerprint:
    """Fingerprint images by name and size, and annotations by every byte."""
    found = fingerprint_of({split: part.stored() for split, part in parts.items()}, ALL)
    texts = [hashlib.sha256(part.annotations.path.read_bytes()).hexdigest() for part in parts.values()]
    return found | {"digest": digest([found["digest"], texts])}


def parts_of(options: Mapping[str, Any], *, outlines: bool = False) -> dict[str, AnnotatedPart]:
    """Read the parts of the folder `options["root"]`.

    Raises:
        ValueError: naming the file and the entry that cannot be used.
    """
    root = Path(options["root"])
    places = [(options[f"{split}_images"], options[f"{split}_annotations"]) for split in SPLITS]
    return _parts(root, tuple(places), outlines)


@lru_cache(maxsize=4)
def _parts(root: Path, places: tuple[tuple[str, str], ...], outlines: bool) -> dict[str, AnnotatedPart]:
    parts = {
        split: _part(root / images, read_annotations(root / file, outlines=outlines), trains=split == "train")
        for split, (images, file) in zip(SPLITS, places, strict=True)
    }
    _require_same_classes(*(part.annotations for part in parts.values()))
    return parts


def _require_same_classes(train: Annotations, val: Annotations) -> None:
    """Refuse a validation file whose categories are others: labels are places among those.

    Raises:
        ValueError: naming the first that differs.
    """
    here, there = ([*zip(each.category_ids.tolist(), each.classes, strict=True)] for each in (train, val))
    if here != there:
        differing = sorted(set(here) ^ set(there))[0]
        raise ValueError(
            f"{val.path}: its categories differ from those of {train.path}: category {differing[0]} "
            f"({differing[1]!r}) is in one of them alone; write the same list into both"
        )


def _part(folder: Path, annotations: Annotations, *, trains: bool) -> AnnotatedPart:
    """Choose the images to use: those that are there and, to train on, that hold an object which is no crowd.

    Raises:
        ValueError: if none is left.
    """
    left_out = OmissionCounter()
    there = _there(folder, annotations, left_out)
    if not there.any():
        name = annotations.file(0)
        raise ValueError(
            f"none of the {len(there)} images that {annotations.path} lists is in {folder}, such as {printable(name)}; "
            "say by the options of the dataset where the images are"
        )
    singles = np.concatenate([[0], np.cumsum(~annotations.crowds)])
    empty = there & (np.diff(singles[annotations.starts]) == 0)
    if (there == empty).all():
        raise ValueError(f"{annotations.path}: none of the images in {folder} holds an object that is no crowd")
    if trains:
        for at in np.flatnonzero(empty):
            left_out.add("training images without an object", annotations.file(int(at)))
        there &= ~empty
    return AnnotatedPart(
        folder=folder,
        annotations=annotations,
        images=np.flatnonzero(there),
        left_out=(*annotations.left_out, *left_out.left_out()),
    )


def _there(folder: Path, annotations: Annotations, left_out: OmissionCounter) -> Any:
    """Tell which images are in the folder, bool [images]; a folder is listed once, as look-ups are slow."""
    names = [annotations.file(at) for at in range(len(annotations.image_ids))]
    present = {
        os.path.join(below, name) if below else name
        for below in {os.path.dirname(name) for name in names}
        for name in _listing(folder / below)
    }
    there = np.array([name in present for name in names])
    for at in np.flatnonzero(~there):
        left_out.add(f"images that are listed and not in {folder.name}", names[int(at)])
    return there


def _listing(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
