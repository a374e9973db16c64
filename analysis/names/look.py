"""Lookup of a name: key, family or class, place in tables, colour and marker. Imports no plotting library."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from functools import cache
from zlib import crc32

from bocb_tune.analysis.names.table import BACKBONES, CLASS_OF_BEGINNING, OPTIMIZERS, OTHER, Name, plain

Table = tuple[Name, ...]
LineStyle = tuple[int, tuple[float, ...] | None]
LINE_STYLES: tuple[LineStyle, ...] = ((0, None), (0, (5, 1.2)), (0, (1.2, 1)), (0, (5, 1, 1.2, 1)))
SGD_FAMILY = frozenset({"sgd", "sgdp"})
"""Optimizers that count as SGD. LION is left out: its lr is fixed too, but it bounds each step by taking the sign."""
ADAM_FAMILY = frozenset({"adam", "adamax", "nadam", "adamw", "lamb", "radam", "adamp", "adan"})

_SHOWN: ContextVar[frozenset[str]] = ContextVar("names that share the figures", default=frozenset())


def optimizer_key(name: str) -> str:
    """Return the shipped optimizer that a name stands for; of an unknown name its plain spelling."""
    return _key(OPTIMIZERS, name)


def backbone_key(name: str) -> str:
    """Return the shipped backbone that a name stands for; of an unknown name its plain spelling."""
    return _key(BACKBONES, name)


def find_backbone(name: str, choices: Sequence[str]) -> str | None:
    """Find the one of `choices` that `name` stands for, itself or by alias; None if none or several do."""
    if name in choices:
        return name
    same = [choice for choice in choices if backbone_key(choice) == backbone_key(name)]
    return same[0] if len(same) == 1 else None


def optimizer_family(name: str) -> str:
    """Return the family of an optimizer, `other` if not known."""
    row = _rows(OPTIMIZERS).get(plain(name))
    return OTHER if row is None else row.group


def backbone_class(name: str) -> str:
    """Return the class of a backbone, by its row or by how its name begins; `other` if not known."""
    row = _rows(BACKBONES).get(plain(name))
    if row is not None:
        return row.group
    return next((kind for kind, starts in CLASS_OF_BEGINNING.items() if plain(name).startswith(starts)), OTHER)


def ordered_optimizers(names: Iterable[str]) -> tuple[str, ...]:
    """Sort unique names in table order (families together), unknown ones after them by name."""
    return _ordered(OPTIMIZERS, names)


def ordered_backbones(names: Iterable[str]) -> tuple[str, ...]:
    """Sort unique names in table order (classes together), unknown ones after them by name."""
    return _ordered(BACKBONES, names)


@contextmanager
def shown_together(names: Iterable[str]) -> Iterator[None]:
    """Keep the looks of unknown names apart from those of all `names`, the axes of the grid, within a `with`."""
    token = _SHOWN.set(frozenset(names))
    try:
        yield
    finally:
        _SHOWN.reset(token)


def optimizer_look(name: str) -> Name:
    """Return colour and marker of an optimizer; those of an unknown one are derived from its name."""
    return _look(OPTIMIZERS, name)


def backbone_look(name: str) -> Name:
    """Return colour and marker of a backbone; those of an unknown one are derived from its name."""
    return _look(BACKBONES, name)


def optimizer_dash(name: str) -> LineStyle:
    """Return the Matplotlib line style of an optimizer; neighbours in a family differ, for the sake of grey prints."""
    names = [row.key for row in OPTIMIZERS]
    key = optimizer_key(name)
    place = names.index(key) if key in names else crc32(key.encode())
    return LINE_STYLES[place % len(LINE_STYLES)]


MIN_KEPT = 4
"""Least number of characters of a backbone on an axis, with what marks the cut."""


def label(name: str, longest: int = 22) -> str:
    """Fit a name on an axis: one line, cut if long; the pre-training of a row, after its @, stays if it can."""
    line = " ".join(name.split())
    if len(line) <= longest:
        return line
    backbone, mark, pretraining = line.rpartition("@")
    kept = mark + pretraining if backbone and len(pretraining) <= longest - MIN_KEPT else ""
    return line[: longest - 1 - len(kept)] + "…" + kept


@cache
def _rows(table: Table) -> Mapping[str, Name]:
    """Map the plain spelling of every name and alias to its row."""
    return {plain(name): row for row in table for name in (row.key, *row.aliases)}


def _key(table: Table, name: str) -> str:
    row = _rows(table).get(plain(name))
    return plain(name) if row is None else row.key


def _ordered(table: Table, names: Iterable[str]) -> tuple[str, ...]:
    place = {row.key: index for index, row in enumerate(table)}
    return tuple(sorted(set(names), key=lambda name: (place.get(_key(table, name), len(place)), name)))


def _look(table: Table, name: str) -> Name:
    row = _rows(table).get(plain(name))
    return row or _looks_of_unknown(table, _SHOWN.get() | {name})[plain(name)]


@cache
def _looks_of_unknown(table: Table, names: frozenset[str]) -> Mapping[str, Name]:
    """Give each unknown name a look of its own, by plain spelling, beside the looks of the known ones.

    The place at which the search for a free colour starts depends on the name alone, so a name keeps its look from one
    grid to another unless a neighbour has it there. When all colours are taken, a free pair of colour and marker is.
    """
    known = _rows(table)
    colors, markers = [row.color for row in table], list(dict.fromkeys(row.marker for row in table))
    pairs = [(color, marker) for color in colors for marker in markers]
    taken = {(row.color, row.marker) for row in table}
    used = {known[plain(name)].color for name in names if plain(name) in known}
    found: dict[str, Name] = {}
    for key in sorted({plain(name) for name in names} - set(known)):
        start = crc32(key.encode()) % len(pairs)
        free = [pair for pair in pairs[start:] + pairs[:start] if pair not in taken]
        color, marker = next((pair for pair in free if pair[0] not in used), free[0] if free else pairs[start])
        found[key] = replace(table[0], key=key, group=OTHER, color=color, marker=marker, aliases=())
        taken.add((color, marker))
        used.add(color)
    return found
