"""The result of a health check, and helpers that list the cells it concerns."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bocb_tune.core import names

MOST_LISTED = 10
"""Most cells or messages that are listed one by one; further ones are only counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A finding about the data that readers should know."""

    name: str
    level: str
    """`problem` (numbers are missing or suspect), `caution` (read them with care) or `note`."""
    message: str
    """Whole sentences, which name the cells."""
    cells: tuple[str, ...] = ()
    """`backbone/optimizer` of each cell concerned; empty if all are."""

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able mapping, with the key `cell` if exactly one cell is concerned."""
        one = {"cell": self.cells[0]} if len(self.cells) == 1 else {}
        return {**asdict(self), "cells": list(self.cells), **one}


def about(cells: Collection[str], *, name: str, level: str, message: str) -> Iterator[Check]:
    """Yield one check that concerns all of `cells`; nothing if there are none."""
    if cells:
        yield Check(name=name, level=level, message=message, cells=tuple(cells))


def details(cells: Mapping[str, str]) -> str:
    """List cells, each with its details in brackets."""
    return listed([f"{key} ({text})" for key, text in cells.items()])


def listed(cells: Sequence[str]) -> str:
    return names.listed(cells, MOST_LISTED)
