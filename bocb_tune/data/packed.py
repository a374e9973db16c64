"""Many images in one file: a ZIP archive without compression, laid out as the folders are.

A million small files are slow to list and to open, and hard on a shared file system; one file is opened once and read
by offset. ZIP, because any tool makes, lists and checks it, and because its table of contents stands in one place; that
table is read once per node and kept there as arrays (format: PKWARE's APPNOTE.TXT, sections 4.3.7 and 4.3.12).
"""

from __future__ import annotations

import io
import os
import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from bocb_tune.data.node_cache import SharedArrays, shared_arrays
from bocb_tune.data.parts import PARTS, Source, is_image, require_known
from bocb_tune.data.split import Indices

HOW = "`python -m bocb_tune.data.pack FOLDER FILE.zip`"

LOCAL_HEADER = 30
"""Bytes before the name and the extra field of a member."""
SLACK = 64
"""Bytes read in case there is an extra field, so that one read is enough."""

PER_IMAGE = ("names", "starts", "sizes", "labels")
INDEX = (*PER_IMAGE, "parts", "classes")
"""Path in the archive, where the header starts, bytes, class and part of each image; names of the classes."""


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


def read_packed(path: Path) -> tuple[tuple[str, ...], dict[str, Source]]:
    """Classes and parts of a packed file. ValueError, naming it, if it is none."""
    index = shared_arrays([path], INDEX, lambda: _read_index(path))
    parts: dict[str, Source] = {}
    for number in np.unique(index["parts"]).tolist():
        first, end = np.searchsorted(index["parts"], [number, number + 1])
        rows = {name: index[name][first:end] for name in PER_IMAGE}
        parts[PARTS[number]] = PackedImages(path=path, **rows)
    return tuple(os.fsdecode(name) for name in index["classes"].tolist()), parts


def _read_index(path: Path) -> SharedArrays:
    """The images in part/class/ of the archive, sorted by part, class and name as those of a folder are."""
    members = _members(path)
    places = [(PARTS.index(part), name) for part, name, _ in (member.filename.split("/") for member in members)]
    classes = sorted({name for part, name in places if part == 0})
    require_known((name for _, name in places), classes, str(path))
    label_of = {name: label for label, name in enumerate(classes)}
    return {
        "names": np.array([os.fsencode(member.filename) for member in members]),
        "starts": np.array([member.header_offset for member in members]),
        "sizes": np.array([member.file_size for member in members]),
        "labels": np.array([label_of[name] for _, name in places]),
        "parts": np.array([part for part, _ in places]),
        "classes": np.array([os.fsencode(name) for name in classes], dtype=np.bytes_),
    }


def _members(path: Path) -> list[zipfile.ZipInfo]:
    try:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if _is_ours(member.filename)]
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path} is no packed file ({error}); make one with {HOW}") from error
    for member in members:
        if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
            raise ValueError(f"{path}: {member.filename} is compressed or encrypted; pack the images anew with {HOW}")
    if not any(member.filename.startswith("train/") for member in members):
        raise ValueError(f"{path} holds no image at train/<class>/<image>; make it with {HOW}")
    return sorted(members, key=_place)


def _place(member: zipfile.ZipInfo) -> tuple[int, str, str]:
    part, name, file = member.filename.split("/")
    return PARTS.index(part), name, file


def _is_ours(name: str) -> bool:
    steps = name.split("/")
    return len(steps) == 3 and steps[0] in PARTS and not steps[1].startswith(".") and is_image(steps[2])
