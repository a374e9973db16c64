"""Many images in one file: a ZIP archive without compression, laid out as the folders are.

A million small files are slow to list and to open, and hard on a shared file system; one file is opened once and read
by offset. ZIP, because any tool makes, lists and checks it, and because its table of contents stands in one place; that
table is read once per node and kept there as arrays (format: PKWARE's APPNOTE.TXT, sections 4.3.7 and 4.3.12).
"""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from bocb_tune.core.node_cache import SharedArrays, shared_arrays
from bocb_tune.data.contents import ImageSource, LeftOut, StoredPart
from bocb_tune.data.parts import PARTS, Stored, sort_out
from bocb_tune.data.split import Indices

HOW = "`python -m bocb_tune.data.pack FOLDER FILE.zip`"

LOCAL_HEADER = 30
"""Bytes before the name and the extra field of a member."""
SLACK = 64
"""Bytes read in case there is an extra field, so that one read is enough."""

PER_IMAGE = ("names", "starts", "sizes", "labels")
INDEX = (*PER_IMAGE, "parts", "classes", "left_out")
"""Path in the archive, where the header starts, bytes, class and part of each image; names of the classes; what is left
out, as JSON."""


@dataclass(frozen=True, kw_only=True)
class PackedImages:
    """The images of one part."""

    path: Path
    names: NDArray[np.bytes_]
    starts: NDArray[np.int64]
    sizes: NDArray[np.int64]
    labels: Indices

    @cached_property
    def _file(self) -> int:
        """Reads name their offset, so that forked loader workers can share one open file."""
        return os.open(self.path, os.O_RDONLY)

    def stored(self) -> StoredPart:
        names = (name.split(b"/", 2)[2] for name in self.names.tolist())  # below the folder of the class
        return StoredPart(labels=self.labels, names=names, sizes=self.sizes)

    def name(self, index: int) -> str:
        return f"{self.path}:{os.fsdecode(self.names[index])}"

    def open(self, index: int) -> str | IO[bytes]:
        start, size = int(self.starts[index]), int(self.sizes[index])
        data = os.pread(self._file, LOCAL_HEADER + len(self.names[index]) + SLACK + size, start)
        if data[:4] != b"PK\x03\x04" or len(data) < LOCAL_HEADER:
            raise ValueError("the packed file is damaged or not the one that was opened")
        begin = LOCAL_HEADER + int.from_bytes(data[26:28], "little") + int.from_bytes(data[28:30], "little")
        if begin + size > len(data):
            return io.BytesIO(os.pread(self._file, size, start + begin))
        return io.BytesIO(data[begin : begin + size])


def read_packed(path: Path, wanted: Sequence[str]) -> Stored:
    """List what a packed file holds.

    Raises:
        ValueError: naming the file, if it is no packed file.
    """
    key = "_".join(wanted)
    index = shared_arrays([path], INDEX, lambda: _read_index(path, wanted), variant=key)
    parts: dict[str, ImageSource] = {}
    for number in np.unique(index["parts"]).tolist():
        first, end = np.searchsorted(index["parts"], [number, number + 1])
        rows = {name: index[name][first:end] for name in PER_IMAGE}
        parts[PARTS[number]] = PackedImages(path=path, **rows)
    return Stored(
        classes=tuple(os.fsdecode(name) for name in index["classes"].tolist()),
        parts=parts,
        left_out=tuple(
            LeftOut(reason=group["reason"], count=group["count"], names=tuple(group["names"]))
            for group in json.loads(index["left_out"].tobytes())
        ),
    )


def _read_index(path: Path, wanted: Sequence[str]) -> SharedArrays:
    """Return the images of the archive, sorted by part, class and name as those of a folder are."""
    members = {member.filename: member for member in _members(path)}
    listing = sort_out(members, wanted, str(path))
    if not listing.classes:
        raise ValueError(f"{path} holds no image at train/<class>/<image>; make it with {HOW}")
    images = [
        (member, PARTS.index(part), label)
        for part, files in listing.files.items()
        for label, name in enumerate(listing.classes)
        for member in _sorted(members[f"{listing.folders[part]}/{name}/{file}"] for file in files.get(name, ()))
    ]
    _require_plain((member for member, _, _ in images), path)
    return {
        "names": np.array([os.fsencode(member.filename) for member, _, _ in images], dtype=np.bytes_),
        "starts": np.array([member.header_offset for member, _, _ in images], dtype=np.int64),
        "sizes": np.array([member.file_size for member, _, _ in images], dtype=np.int64),
        "labels": np.array([label for _, _, label in images], dtype=np.int64),
        "parts": np.array([part for _, part, _ in images], dtype=np.int64),
        "classes": np.array([os.fsencode(name) for name in listing.classes], dtype=np.bytes_),
        "left_out": np.frombuffer(json.dumps([asdict(group) for group in listing.left_out]).encode(), dtype=np.uint8),
    }


def _sorted(members: Iterable[zipfile.ZipInfo]) -> list[zipfile.ZipInfo]:
    return sorted(members, key=lambda member: os.fsencode(member.filename))


def _members(path: Path) -> list[zipfile.ZipInfo]:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.infolist()
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path} is no packed file ({error}); make one with {HOW}") from error


def _require_plain(members: Iterable[zipfile.ZipInfo], path: Path) -> None:
    for member in members:
        if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
            raise ValueError(f"{path}: {member.filename} is compressed or encrypted; pack the images anew with {HOW}")
