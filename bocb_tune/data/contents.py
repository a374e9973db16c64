"""Contents of a stored dataset: its images by split and class, what is left out of it and why, and a fingerprint of it.

No image is decoded, and torch is not imported.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any, Protocol

import numpy as np

from bocb_tune.core.names import listed
from bocb_tune.data.split import Chosen, Indices

if TYPE_CHECKING:
    from bocb_tune.data.base import Dataset

NUM_NAMED = 3
"""Files named of those left out for one reason."""
MAX_LISTED = 10
"""Classes named in one line, reasons to leave files out, and differences between two fingerprints."""

Fingerprint = dict[str, Any]
"""Identity of the data, whatever their path: `parts`, for each stored part and class `[images, bytes]`, and `digest`,
of the names and sizes of all images. JSON-able."""


class ImageSource(Protocol):
    """Encoded images with their labels, as they are stored."""

    @property
    def labels(self) -> Indices:
        """Class of each image [images]."""
        ...

    def name(self, index: int) -> str:
        """Return what a user finds the image by."""
        ...

    def open(self, index: int) -> str | IO[bytes]:
        """Return what Pillow reads the image from.

        Raises:
            OSError, ValueError: if it is not there.
        """
        ...

    def stored(self) -> StoredPart:
        """Return names and sizes of the images, the same in a folder and in the file it is packed into."""
        ...


class Reader(Protocol):
    """Reader of a dataset, which a row of `bocb_tune.data.DATASETS` names as its target. Options are resolved."""

    def contents(self, options: Mapping[str, Any]) -> Contents:
        """Look at what is there, without decoding. With an option `download`, this is where missing data are fetched.

        Raises:
            ValueError: if the data are missing, or cannot be trained on.
        """
        ...

    def sources(self, options: Mapping[str, Any]) -> Mapping[str, ImageSource]:
        """Return the encoded images of each part; nothing where images are stored as plain numbers.

        Raises:
            ValueError: as `contents` does.
        """
        ...

    def load(self, options: Mapping[str, Any], device: str) -> Dataset:
        """Open the data; `device` is where images in memory are put.

        Raises:
            ValueError: as `contents` does.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """Files that are not used, all for one reason."""

    reason: str
    """Reason, such as `files ending in .txt`."""
    count: int
    names: tuple[str, ...]
    """The first few, sorted."""

    def to_json(self) -> dict[str, Any]:
        return {"reason": self.reason, "count": self.count, "names": list(self.names)}

    def __str__(self) -> str:
        more = f" and {self.count - len(self.names)} more" if self.count > len(self.names) else ""
        return f"{self.count} {self.reason}: {', '.join(map(printable, self.names))}{more}"


class OmissionCounter:
    """Counts what is left out, by reason."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._names: dict[str, list[str]] = {}

    def add(self, reason: str, name: str) -> None:
        """Count one file, and keep its name if it is among the first of its reason."""
        self._counts[reason] += 1
        self._names[reason] = sorted([*self._names.get(reason, ()), name])[:NUM_NAMED]

    def left_out(self) -> tuple[LeftOut, ...]:
        """List the reasons, the most frequent first."""
        return tuple(
            LeftOut(reason=reason, count=count, names=tuple(self._names[reason]))
            for reason, count in sorted(self._counts.items(), key=lambda item: (-item[1], item[0]))
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """A dataset as it would be trained on."""

    classes: tuple[str, ...]
    splits: Mapping[str, tuple[int, ...]]
    """Images of each class, by split; where an image holds several objects, objects of each class."""
    images: Mapping[str, int] = field(default_factory=dict)
    """Images of each split, where `splits` counts objects."""
    parts: Mapping[str, str]
    """Stored part that each split is taken from."""
    left_out: tuple[LeftOut, ...] = ()
    changed: tuple[LeftOut, ...] = ()
    """Entries that are used in another form than they were found."""
    fingerprint: Callable[[], Fingerprint]
    """Reads the size of every file, and so is made only on demand."""

    def count(self, split: str) -> int:
        """Count the images of a split; 0 if there is no such split."""
        return self.images[split] if split in self.images else sum(self.splits.get(split, ()))

    def lines(self) -> Iterator[str]:
        """Say what is there: the classes, a line for each split, and one for each reason to leave files out."""
        names = listed([printable(name) for name in self.classes], MAX_LISTED)
        yield f"{len(self.classes)} classes: {names}"
        for split, counts in self.splits.items():
            part = self.parts[split]
            origin = "" if part == split else f", taken from the part {part!r}"
            objects = f", {sum(counts)} objects" if split in self.images else ""
            yield f"{split}: {self.count(split)} images{objects}, {_span(counts)} a class{origin}"
        for group in self.left_out[:MAX_LISTED]:
            yield f"left out: {group}"
        if rest := self.left_out[MAX_LISTED:]:
            yield f"left out for {len(rest)} more reasons: {sum(group.count for group in rest)} files"
        for group in self.changed:
            yield f"changed: {group}"

    def to_json(self) -> dict[str, Any]:
        """Return everything that `lines` says, JSON-able."""
        said = {
            "classes": list(self.classes),
            "splits": {split: dict(zip(self.classes, counts, strict=True)) for split, counts in self.splits.items()},
            "left_out": [group.to_json() for group in self.left_out],
        }
        objects = {"images": dict(self.images), "changed": [group.to_json() for group in self.changed]}
        return said | objects if self.images else said


def _span(counts: Sequence[int]) -> str:
    least, most = min(counts), max(counts)
    return str(least) if least == most else f"{least} to {most}"


def printable(name: str) -> str:
    """Write a file's name for a terminal: bytes that are not UTF-8 are shown as escapes."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def count_splits(chosen: Chosen, labels: Mapping[str, Indices], num_classes: int) -> dict[str, tuple[int, ...]]:
    """Count the images of each class, by split; `labels` [images] are those of the stored parts."""
    return {
        split: tuple(np.bincount(labels[part][rows], minlength=num_classes).tolist())
        for split, (part, rows) in chosen.items()
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPart:
    """Data that a fingerprint rests on."""

    labels: Indices
    names: Iterable[bytes]
    """One for each image, relative to the part, the same wherever the data are."""
    sizes: Sequence[int] | Indices
    """Bytes of each image."""


def fingerprint_of(parts: Mapping[str, StoredPart], classes: Sequence[str]) -> Fingerprint:
    """Fingerprint data by the names and sizes of their images: not by times, not by paths."""
    found: dict[str, dict[str, list[int]]] = {}
    names = hashlib.sha256()
    for part, stored in sorted(parts.items()):
        images = np.bincount(stored.labels, minlength=len(classes)).tolist()
        sizes = np.bincount(stored.labels, weights=stored.sizes, minlength=len(classes)).astype(np.int64).tolist()
        found[part] = {name: [images[label], sizes[label]] for label, name in enumerate(classes)}
        for label, name, size in zip(stored.labels.tolist(), stored.names, stored.sizes, strict=True):
            names.update(b"%s\0%s\0%s\0%d\n" % (part.encode(), os.fsencode(classes[label]), name, size))
    return {"parts": found, "digest": names.hexdigest()[:16]}


def differences(old: Fingerprint, new: Fingerprint) -> list[str]:
    """Say how data differ from those of an earlier fingerprint: nothing if they are the same."""
    if old == new:
        return []
    found = [line for part in sorted({*old["parts"], *new["parts"]}) for line in _part_differences(part, old, new)]
    if not found:
        return ["as many images of the same sizes in each class, but other names or sizes of single images"]
    rest = len(found) - MAX_LISTED
    return [*found[:MAX_LISTED], f"and {rest} more differences"] if rest > 0 else found


def _part_differences(part: str, old: Fingerprint, new: Fingerprint) -> Iterator[str]:
    before, after = old["parts"].get(part), new["parts"].get(part)
    if before is None or after is None:
        there, here = ("no", "some") if before is None else ("some", "no")
        yield f"{part}: {there} images there, {here} images here"
        return
    for name in sorted({*before, *after}):
        was, now = tuple(before.get(name, (0, 0))), tuple(after.get(name, (0, 0)))
        if was[0] != now[0]:
            yield f"{part}/{printable(name)}: {was[0]} images there, {now[0]} here"
        elif was != now:
            yield f"{part}/{printable(name)}: {was[0]} images of {was[1]} bytes there, of {now[1]} bytes here"
