"""Lists of a large JSON object piece by piece: parsed as a whole, COCO's annotations would need many times their size.

One pass over the bytes finds where entries end, by quotes and brackets; pieces of whole entries are then parsed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Places = NDArray[np.int64]

BLOCK = 2**23
"""Bytes looked at together."""
PIECE = 2**22
"""Bytes of a list that are parsed together, at least."""
KEY = re.compile(rb'"((?:[^"\\]|\\.)*)"\s*:\s*$', re.DOTALL)
LONGEST_KEY = 256
"""Bytes before a list in which its key is looked for."""

STEPS = np.zeros(256, dtype=np.int8)
"""Change of depth at each byte."""
STEPS[list(b"[{")], STEPS[list(b"]}")] = 1, -1
MARKS = STEPS != 0
"""Bytes that tell the structure: brackets and quotes."""
MARKS[ord('"')] = True


@dataclass(frozen=True, slots=True)
class JsonLists:
    """Lists of objects that stand in a JSON object, by key."""

    path: Path
    data: Bytes
    cuts: dict[str, list[int]]
    """Ends of the pieces of each list, the first of which is where its entries begin."""

    def pieces(self, key: str) -> Iterator[list[Any]]:
        """Yield the entries of a list, some at a time.

        Raises:
            ValueError: naming the file, if it is no JSON.
        """
        cuts = self.cuts[key]
        for start, end in pairwise(cuts):
            text = self.data[start:end].tobytes().strip().removeprefix(b",")
            yield parsed(b"[" + text + b"]", self.path, start)


def parsed(text: bytes, path: Path, start: int = 0) -> Any:
    """Parse a part of a file that begins at byte `start`.

    Raises:
        ValueError: naming the file, if it is no JSON.
    """
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        place = f", from byte {start} on" if start else ""
        raise ValueError(f"{path}: is no JSON{place}: {error}") from error


def json_lists(path: Path, block: int = BLOCK, piece: int = PIECE) -> JsonLists:
    """Find the lists of a file and where to cut them.

    Raises:
        ValueError: naming the file, if it holds no JSON object.
    """
    data: Bytes = np.memmap(path, dtype=np.uint8, mode="r") if path.stat().st_size else np.zeros(0, dtype=np.uint8)
    first = data[:BLOCK].tobytes().lstrip()[:1]
    if first != b"{":
        value = parsed(data.tobytes(), path)
        raise ValueError(f"{path}: holds a JSON {type(value).__name__}; COCO's format is an object of lists")
    lists: dict[str, list[int]] = {}
    key, depth = "", 0
    for places, depths in _brackets(data, block):
        before = np.concatenate([[depth], depths[:-1]])
        depth = int(depths[-1])
        opened = places[(before == 1) & (depths == 2) & (data[places] == ord("["))]
        ended = places[(before == 3) & (depths == 2)] + 1
        closed = places[(before == 2) & (depths == 1) & (data[places] == ord("]"))]
        for place in sorted([*opened.tolist(), *closed.tolist()]):
            if data[place] == ord("["):
                key = _key_before(data, place)
                lists[key] = [place + 1]
            elif key:
                _cut(lists[key], ended, piece, place)
                lists[key].append(place)
                key = ""
        if key:
            _cut(lists[key], ended, piece, len(data))
    if depth != 0:
        raise ValueError(f"{path}: is no JSON: it ends within a list or an object; is the file complete?")
    return JsonLists(path, data, lists)


def _cut(cuts: list[int], ended: Places, piece: int, limit: int) -> None:
    """Add ends of entries before `limit`, at least `piece` bytes from one another."""
    while True:
        at = int(np.searchsorted(ended, cuts[-1] + piece))
        if at == len(ended) or ended[at] > limit:
            return
        cuts.append(int(ended[at]))


def _key_before(data: Bytes, place: int) -> str:
    """Return the key of the value at a place; empty if none is found."""
    found = KEY.search(data[max(0, place - LONGEST_KEY) : place].tobytes())
    return str(orjson.loads(b'"' + found[1] + b'"')) if found else ""


def _brackets(data: Bytes, block: int) -> Iterator[tuple[Places, Places]]:
    """Yield the places of brackets outside of strings, and the depth after each."""
    depth = inside = 0
    escaped = False
    for start in range(0, len(data), block):
        part = np.asarray(data[start : start + block])
        places = np.flatnonzero(MARKS[part])
        marks, escaped = _unescaped(part, places, escaped)
        quotes = part[marks] == ord('"')
        within = (np.cumsum(quotes) + inside) % 2 == 1
        inside = (inside + int(quotes.sum())) % 2
        outside = marks[~quotes & ~within]
        if len(outside):
            depths = depth + np.cumsum(STEPS[part[outside]], dtype=np.int64)
            depth = int(depths[-1])
            yield outside + start, depths


def _unescaped(part: Bytes, places: Places, first: bool) -> tuple[Places, bool]:
    """Leave out places that a backslash stands for; `first`: whether one stands before the part.

    Returns also whether one stands at the end of it.
    """
    slashes = np.flatnonzero(part == ord("\\"))
    if first and len(slashes) and slashes[0] == 0:
        slashes = slashes[1:]  # is itself escaped
    escaped = _after(slashes)
    if first:
        escaped = np.concatenate([[0], escaped])
    return places[~np.isin(places, escaped)] if len(escaped) else places, bool(
        len(escaped) and escaped[-1] == len(part)
    )


def _after(slashes: Places) -> Places:
    """Return the places that backslashes escape: in a row of them, each second one is escaped itself."""
    if not len(slashes):
        return slashes
    begins = np.concatenate([[True], np.diff(slashes) > 1])
    starts = np.maximum.accumulate(np.where(begins, slashes, 0))
    found: Places = slashes[(slashes - starts) % 2 == 0] + 1
    return found
