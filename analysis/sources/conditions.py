"""Conditions of a run: settings and data of its journals, by dotted name, for two runs to be compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bocb_tune.core.journal import FOLDER, has_header, read_journal

FINGERPRINT = "fingerprint of the data"
OF_OPTIMIZER, OF_BACKBONE = "optimizer.", "recipe."
"""Beginnings of the names of settings that may differ from cell to cell."""


def conditions(source: str) -> dict[str, str]:
    """Read settings and data of a run folder; nothing of another source.

    A setting that differs between the cells is named with its optimizer or backbone.
    """
    folder = Path(source) / FOLDER
    if not folder.is_dir():
        return {}
    found: dict[str, dict[str, str]] = {}
    for path in sorted(folder.glob("*.jsonl")):
        if not has_header(path):
            continue
        journal = read_journal(path)
        for name, value in _told(journal.settings, journal.data):
            found.setdefault(name, {})[_named(name, journal.cell.backbone, journal.cell.optimizer)] = value
    return {name: value for whole, own in found.items() for name, value in _joined(whole, own).items()}


def _joined(name: str, own: Mapping[str, str]) -> Mapping[str, str]:
    """Say once for all cells what is the same in all of them."""
    return {name: next(iter(own.values()))} if len(set(own.values())) == 1 else own


def _told(settings: Mapping[str, Any], data: Mapping[str, Any] | None) -> Iterator[tuple[str, str]]:
    yield from _flat(settings)
    if data is not None:
        for part, classes in data["parts"].items():
            yield f"images in {part}", str(sum(int(count) for count, _ in classes.values()))
            yield f"classes in {part}", str(len(classes))
        yield FINGERPRINT, str(data["digest"])


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key in sorted(value):
            yield from _flat(value[key], f"{name}.{key}".removeprefix("."))
    elif name != "dataset.root":  # what the data are is told by their fingerprint
        yield name, str(value)


def _named(name: str, backbone: str, optimizer: str) -> str:
    if name.startswith(OF_OPTIMIZER):
        return f"{name} of {optimizer}"
    return f"{name} of {backbone}" if name.startswith(OF_BACKBONE) else f"{name} of {backbone}/{optimizer}"
