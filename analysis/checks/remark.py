"""A remark on the data: the value, and how the cells it is about are listed."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bocb_tune.core import names

MOST_LISTED = 10
"""Cells or messages a remark lists one by one before it only counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One remark on the data."""

    name: str
    level: str
    """`problem` (numbers are missing or suspect), `caution` (read them with care) or `note`."""
    message: str
    """Whole sentences, which name the cells."""
    cells: tuple[str, ...] = ()
    """`backbone/optimizer` of the cells it is about, if not all."""

    def to_json(self) -> dict[str, Any]:
        """JSON-able; `cell` where it is about one cell."""
        one = {"cell": self.cells[0]} if len(self.cells) == 1 else {}
        return {**asdict(self), "cells": list(self.cells), **one}


def about(cells: Collection[str], *, name: str, level: str, message: str) -> Iterator[Check]:
    """One remark about all the cells it applies to; none if there are none."""
    if cells:
        yield Check(name=name, level=level, message=message, cells=tuple(cells))


def told(cells: Mapping[str, str]) -> str:
    """Cells with what is said of each."""
    return listed([f"{key} ({text})" for key, text in cells.items()])


def listed(cells: Sequence[str]) -> str:
    return names.listed(cells, MOST_LISTED)
