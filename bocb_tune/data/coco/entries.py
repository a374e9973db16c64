"""Entries of a JSON file as columns: a fault names the file, the entry and what it must be."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bocb_tune.core.names import listed
from bocb_tune.data.coco.json_lists import JsonLists

Entry = Mapping[str, Any]

MAX_SHOWN = 60
"""Characters of a wrong value that a message shows."""


@dataclass(frozen=True, slots=True)
class Entries:
    """Some of the entries of a list of an annotation file."""

    path: Path
    kind: str
    """Key of the list in the file: `images`, `annotations` or `categories`."""
    rows: Sequence[Entry]
    places: Sequence[int] | NDArray[np.int64]
    """Place of each in the list."""

    def column(self, key: str, types: Sequence[type], wanted: str, default: Any = None) -> list[Any]:
        """Return the value of `key` in each entry, or `default` where an entry has none.

        Raises:
            ValueError: naming the first entry whose value is of another type: it must be `wanted`.
        """
        values = [row.get(key, default) for row in self.rows]
        if not set(map(type, values)) <= set(types):
            index = next(index for index, value in enumerate(values) if type(value) not in types)
            raise self.fault(index, key, values[index], wanted)
        return values

    def require(self, key: str, values: Sequence[Any], valid: Iterable[bool], wanted: str) -> None:
        """Check that all values are valid.

        Raises:
            ValueError: naming the first entry whose value is not: it must be `wanted`.
        """
        wrong = np.flatnonzero(~np.fromiter(valid, dtype=np.bool_, count=len(values)))
        if len(wrong):
            raise self.fault(int(wrong[0]), key, values[wrong[0]], wanted)

    def numbers(self, key: str, width: int) -> NDArray[np.float64]:
        """Return `width` numbers of each entry [entries, width].

        Raises:
            ValueError: naming the first entry that has not as many.
        """
        wanted = f"{width} numbers"
        values = self.column(key, (list,), wanted)
        self.require(key, values, (len(value) == width for value in values), wanted)
        if not only_numbers(chain.from_iterable(values)):
            self.require(key, values, map(only_numbers, values), wanted)
        flat = np.fromiter(chain.from_iterable(values), dtype=np.float64, count=width * len(values))
        return flat.reshape(-1, width)

    def fault(self, index: int, key: str, value: Any, wanted: str) -> ValueError:
        """Make the error for the value of one entry."""
        shown = "missing" if value is None else shortened(value)
        return ValueError(f"{self.place(index)}: {key!r} is {shown}; it must be {wanted}")

    def place(self, index: int) -> str:
        """Name an entry as a user finds it: by its place and its id."""
        number = self.rows[index].get("id")
        return f"{self.path}: {self.kind}[{self.places[index]}]" + (
            "" if number is None else f" (id {shortened(number)})"
        )

    def name(self, index: int) -> str:
        """Name an entry in a list of names: by its id, if it has one."""
        row = self.rows[index]
        return f"{self.kind.removesuffix('s')} {row['id']}" if "id" in row else f"{self.kind}[{self.places[index]}]"


def pieces_of(lists: JsonLists, kind: str) -> Iterator[Entries]:
    """Yield the entries of a list of the file, some at a time.

    Raises:
        ValueError: if the list is not there or empty, or holds anything but objects.
    """
    if kind not in lists.cuts:
        raise ValueError(
            f"{lists.path}: has no list {kind!r} (its lists are {listed(sorted(lists.cuts), 6) or 'none'}); COCO's "
            "format is an object with the lists images, annotations and categories"
        )
    first = 0
    for rows in lists.pieces(kind):
        if not set(map(type, rows)) <= {dict}:
            index = next(index for index, row in enumerate(rows) if not isinstance(row, dict))
            raise ValueError(f"{lists.path}: {kind}[{first + index}] is {shortened(rows[index])}; it must be an object")
        yield Entries(lists.path, kind, rows, range(first, first + len(rows)))
        first += len(rows)
    if not first:
        raise ValueError(f"{lists.path}: the list {kind!r} is empty; there is nothing to learn from or to score by")


def require_unique(path: Path, kind: str, key: str, values: Sequence[Any]) -> None:
    """Refuse two entries of a list with the same value.

    Raises:
        ValueError: naming both.
    """
    if len(set(values)) == len(values):
        return
    first: dict[Any, int] = {}
    for index, value in enumerate(values):
        if value in first:
            raise ValueError(
                f"{path}: {kind}[{index}]: {key!r} is {shortened(value)}, as that of {kind}[{first[value]}]; each must "
                "have its own"
            )
        first[value] = index


def shortened(value: Any) -> str:
    """Write a value for a message, cut where it is long."""
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def only_numbers(values: Iterable[Any]) -> bool:
    """Tell whether all values are numbers; a JSON file holds none that are infinite or none at all."""
    return set(map(type, values)) <= {int, float}
