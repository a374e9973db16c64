"""Entries of a JSON file as columns: a fault names the file, the entry and what it must be."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bocb_tune.core.names import listed

Entry = Mapping[str, Any]

MAX_SHOWN = 60
"""Characters of a wrong value that a message shows."""


@dataclass(frozen=True, slots=True)
class Entries:
    """One of the lists of an annotation file."""

    path: Path
    kind: str
    """Key of the list in the file: `images`, `annotations` or `categories`."""
    rows: Sequence[Entry]

    def column(self, key: str, valid: Callable[[Any], bool], wanted: str, default: Any = None) -> list[Any]:
        """Return the value of `key` in each entry, or `default` where an entry has none.

        Raises:
            ValueError: naming the first entry whose value is not `wanted`.
        """
        values = [row.get(key, default) for row in self.rows]
        for index, value in enumerate(values):
            if not valid(value):
                raise self.fault(index, key, value, wanted)
        return values

    def numbers(self, key: str, width: int) -> NDArray[np.float64]:
        """Return `width` numbers of each entry [entries, width].

        Raises:
            ValueError: naming the first entry that has not as many.
        """
        wanted = f"{width} numbers"
        values = self.column(key, lambda value: isinstance(value, list) and len(value) == width, wanted)
        if not only_numbers(chain.from_iterable(values)):
            index = next(index for index, value in enumerate(values) if not only_numbers(value))
            raise self.fault(index, key, values[index], wanted)
        return np.array(values, dtype=np.float64).reshape(-1, width)

    def fault(self, index: int, key: str, value: Any, wanted: str) -> ValueError:
        """Make the error for the value of one entry."""
        shown = "missing" if value is None else shortened(value)
        return ValueError(f"{self.place(index)}: {key!r} is {shown}; it must be {wanted}")

    def place(self, index: int) -> str:
        """Name an entry as a user finds it: by its place and its id."""
        number = self.rows[index].get("id") if isinstance(self.rows[index], dict) else None
        return f"{self.path}: {self.kind}[{index}]" + ("" if number is None else f" (id {shortened(number)})")

    def require_unique(self, key: str, values: Sequence[Any]) -> None:
        """Refuse two entries with the same value.

        Raises:
            ValueError: naming both.
        """
        if len(set(values)) == len(values):
            return
        first: dict[Any, int] = {}
        for index, value in enumerate(values):
            if value in first:
                raise ValueError(
                    f"{self.place(index)}: {key!r} is {shortened(value)}, as that of {self.kind}[{first[value]}]; "
                    "each must have its own"
                )
            first[value] = index


def entries_of(path: Path, content: Mapping[str, Any], kind: str) -> Entries:
    """Return a list of the file, each entry of which is an object.

    Raises:
        ValueError: if it is not there, empty, or holds anything else.
    """
    rows = content.get(kind)
    if not isinstance(rows, list):
        raise ValueError(
            f"{path}: has no list {kind!r} (it has {listed(sorted(content), 6) or 'nothing'}); COCO's format is an "
            "object with the lists images, annotations and categories"
        )
    if not rows:
        raise ValueError(f"{path}: the list {kind!r} is empty; there is nothing to learn from or to score by")
    if set(map(type, rows)) != {dict}:
        index = next(index for index, row in enumerate(rows) if not isinstance(row, dict))
        raise ValueError(f"{path}: {kind}[{index}] is {shortened(rows[index])}; it must be an object")
    return Entries(path, kind, rows)


def shortened(value: Any) -> str:
    """Write a value for a message, cut where it is long."""
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def is_id(value: Any) -> bool:
    """Tell whether a value can be an id: a whole number, of any size that 64 bits hold."""
    return type(value) is int and abs(value) < 2**63


def only_numbers(values: Iterable[Any]) -> bool:
    """Tell whether all values are numbers; a JSON file holds none that are infinite or none at all."""
    return set(map(type, values)) <= {int, float}
