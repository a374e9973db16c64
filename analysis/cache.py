"""Results kept on disk under the fingerprint of all they depend on, so that what has not changed is not done again.

An entry is a `.npz` of one text of JSON and the bytes of all its arrays, one after another; nothing is ever unpickled.
Everything here may be deleted at any time, and whatever cannot be read is made anew.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FOLDER = "cache"
"""Within the report folder."""
PACKAGES = ("numpy", "scipy", "matplotlib", "scikit-learn")


def fingerprint(*values: Any) -> str:
    """Names values made of dataclasses, mappings, sequences, arrays and plain values: 64 hex digits."""
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
    whole.update(f"{type(value).__name__}{len(parts)}".encode() if parts is not None else f"{value!r};".encode())
    for part in parts or ():
        _feed(whole, part)


def _parts(value: Any) -> list[Any] | None:
    """What a value consists of; None if it is plain."""
    if is_dataclass(value):
        return [getattr(value, field.name) for field in fields(value)]
    if isinstance(value, Mapping):
        return [part for item in value.items() for part in item]
    return list(value) if isinstance(value, (list, tuple, np.ndarray)) else None


@lru_cache(maxsize=1)
def code() -> str:
    """Names the release that results were made by: any change of the analysis makes them anew."""
    folder = Path(__file__).parent
    sources = [path.read_bytes() for path in sorted(folder.rglob("*.py"))]
    return fingerprint(sources, [importlib.metadata.version(name) for name in PACKAGES])


class Cache:
    """A folder of entries by fingerprint; only what is asked for or written between two prunings stays."""

    def __init__(self, folder: Path, kinds: Iterable[type]) -> None:
        """`kinds` are the dataclasses and text enums that entries are made of."""
        self.folder = folder
        self._kinds = {kind.__name__: kind for kind in kinds}

    def get(self, name: str) -> Any:
        """The value under a fingerprint; None if there is none that can be read."""
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
        """The value under each fingerprint. Those that are missing are made, given their places; others are deleted."""
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
        if isinstance(value, np.ndarray):
            start = len(arrays) + -len(arrays) % max(value.itemsize, 1)
            arrays.extend(bytes(start - len(arrays)) + value.tobytes())
            return {"array": [value.dtype.str, value.shape, start]}
        if type(value).__name__ in self._kinds:
            inner = (
                {field.name: getattr(value, field.name) for field in fields(value)}
                if is_dataclass(value)
                else str(value)
            )
            return {"kind": type(value).__name__, "of": self._packed(inner, arrays)}
        if isinstance(value, Mapping):
            return {"map": [[self._packed(part, arrays) for part in item] for item in value.items()]}
        if isinstance(value, (list, tuple)):
            return {type(value).__name__: [self._packed(part, arrays) for part in value]}
        return value

    def _unpacked(self, value: Any, arrays: NDArray[np.uint8]) -> Any:
        if not isinstance(value, dict):
            return value
        tag, content = next(iter(value.items()))
        if tag == "array":
            kind, shape, start = content
            return np.ndarray(tuple(shape), kind, arrays, start)
        if tag == "kind":
            made, inner = self._kinds[content], self._unpacked(value["of"], arrays)
            return made(**inner) if is_dataclass(made) else made(inner)
        if tag == "map":
            return {self._unpacked(k, arrays): self._unpacked(v, arrays) for k, v in content}
        parts = [self._unpacked(part, arrays) for part in content]
        return tuple(parts) if tag == "tuple" else parts
