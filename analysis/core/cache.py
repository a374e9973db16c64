"""Results kept on disk under the fingerprint of everything they depend on, so that unchanged work is not repeated.

An entry is a `.npz` of one JSON text and the bytes of all its arrays, one after another; nothing is ever unpickled.
Everything here may be deleted at any time, and whatever cannot be read is computed again.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bocb_tune.core.collector import uncollected

FOLDER = "cache"
"""Folder of the entries, within the report folder."""
PLAIN = frozenset({str, int, float, bool, type(None)})
PACKAGES = ("numpy", "scipy", "matplotlib", "scikit-learn")


def fingerprint(*values: Any) -> str:
    """Hash values made of dataclasses, mappings, sequences, arrays and plain values: 64 hex digits."""
    whole = hashlib.sha256()
    for value in values:
        _feed(whole, value)
    return whole.hexdigest()


def _feed(whole: hashlib._Hash, value: Any) -> None:
    if isinstance(value, np.ndarray) and value.dtype != object:
        whole.update(f"{value.dtype}{value.shape}".encode())
        whole.update(np.ascontiguousarray(value).tobytes())
        return
    parts = _parts(value)
    if parts is None or PLAIN.issuperset(map(type, parts)):
        whole.update(f"{type(value).__name__}{parts or value!r};".encode())
        return
    whole.update(f"{type(value).__name__}{len(parts)}".encode())
    for part in parts:
        _feed(whole, part)


def _parts(value: Any) -> list[Any] | None:
    """List the parts of a value; None if it is plain."""
    kind: Any = type(value)
    names = _names(kind)
    if names is not None:
        return [getattr(value, name) for name in names]
    if isinstance(value, Mapping):
        return [part for item in value.items() for part in item]
    return list(value) if isinstance(value, (list, tuple, np.ndarray)) else None


@cache
def _names(kind: type) -> tuple[str, ...] | None:
    """List the fields of a dataclass; None for any other type."""
    return tuple(field.name for field in fields(kind)) if is_dataclass(kind) else None


@cache
def code() -> str:
    """Hash the analysis and the libraries it rests on: a change of either invalidates all results."""
    folder = Path(__file__).parents[1]
    sources = [path.read_bytes() for path in sorted(folder.rglob("*.py"))]
    return fingerprint(sources, [importlib.metadata.version(name) for name in PACKAGES])


class Cache:
    """A folder of entries by fingerprint; pruning deletes those that were not read or written since the last time."""

    def __init__(self, folder: Path, kinds: Iterable[type]) -> None:
        """Take the folder, and the dataclasses and text enums that entries are made of."""
        self.folder = folder
        self._kinds = {kind.__name__: kind for kind in kinds}

    def get(self, name: str) -> Any:
        """Read the value under a fingerprint; None if there is none, or none that can be read."""
        try:
            with self._path(name).open("rb") as file, np.load(file, allow_pickle=False) as parts:
                return self._unpacked(json.loads(parts["json"].tobytes()), parts["arrays"])
        except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
            return None

    def put(self, name: str, value: Any) -> None:
        arrays = bytearray()
        text = json.dumps(self._packed(value, arrays))
        self.folder.mkdir(parents=True, exist_ok=True)
        part = self._path(name).with_suffix(f".{os.getpid()}.part")
        with part.open("wb") as file:
            np.savez(file, json=np.frombuffer(text.encode(), np.uint8), arrays=np.frombuffer(arrays, np.uint8))
        part.replace(self._path(name))

    def all(self, names: Sequence[str], make: Callable[[list[int]], Sequence[Any]]) -> list[Any]:
        """Read the value under each fingerprint; `make` computes the missing ones, given their places.

        All other entries are deleted.
        """
        with uncollected():
            found = [self.get(name) for name in names]
        missing = [place for place, value in enumerate(found) if value is None]
        for place, value in zip(missing, make(missing), strict=True):
            self.put(names[place], value)
            found[place] = value
        self.keep_only(names)
        return found

    def keep_only(self, names: Iterable[str]) -> None:
        """Delete all other entries."""
        kept = {self._path(name) for name in names}
        for path in self.folder.glob("*.npz"):
            if path not in kept:
                path.unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.npz"

    def _packed(self, value: Any, arrays: bytearray) -> Any:
        """Convert a value to JSON: lists to lists, other compounds to objects of one key, which names the type."""
        kind = type(value)
        if kind is np.ndarray:
            start = len(arrays) + -len(arrays) % max(value.itemsize, 1)
            arrays.extend(bytes(start - len(arrays)) + value.tobytes())
            return {"array": [value.dtype.str, value.shape, start]}
        parts = _parts(value)
        if parts is None:
            return {"text": [kind.__name__, str(value)]} if kind.__name__ in self._kinds else value
        packed = [self._packed(part, arrays) for part in parts]
        if is_dataclass(kind):
            return {"kind": [kind.__name__, *packed]}
        if isinstance(value, Mapping):
            return {"map": packed}
        return packed if kind is list else {"tuple": packed}

    def _unpacked(self, value: Any, arrays: NDArray[np.uint8]) -> Any:
        if type(value) is list:
            return [part if type(part) in PLAIN else self._unpacked(part, arrays) for part in value]
        tag, content = next(iter(value.items()))
        if tag == "array":
            dtype, shape, start = content
            return np.ndarray(tuple(shape), dtype, arrays, start)
        parts = self._unpacked(content, arrays)
        if tag == "map":
            return dict(zip(parts[::2], parts[1::2], strict=True))
        if tag == "tuple":
            return tuple(parts)
        name, *inner = parts
        made = self._kinds[name]
        return made(*inner) if tag == "text" else made(**dict(zip(_names(made) or (), inner, strict=True)))
