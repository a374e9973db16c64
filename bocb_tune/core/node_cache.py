"""Arrays that all processes of a node share: saved once, memory-mapped by each.

The operating system keeps one copy of a mapped file in memory however many processes map it, so that slots and ranks
share images without copying them, and without a server that would have to live as long as they do.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bocb_tune.core.types import digest

SharedArrays = dict[str, NDArray[Any]]

FORMAT = 2
"""Changes when what is kept under the same name is laid out differently."""


def shared_arrays(
    sources: Sequence[Path], names: Sequence[str], build: Callable[[], SharedArrays], variant: str = ""
) -> SharedArrays:
    """Return arrays by name, made by `build` from files at `sources` unless this node has them already.

    `variant` names what else `build` depends on. What a process writes into them stays its own.

    Raises:
        ValueError: if the folder for temporary files cannot take them.
    """
    with explained():
        folder = home() / _stamp(sources, variant)
        lock = folder.with_suffix(".lock").open("w")
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # ranks and slots start together: one builds, the others wait for it
        if not all((folder / f"{name}.npy").exists() for name in names):
            _save(folder, build())
        return {name: np.load(folder / f"{name}.npy", mmap_mode="c", allow_pickle=False) for name in names}


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Say of errors of the disk what they keep from being shared.

    Raises:
        ValueError: in place of them.
    """
    try:
        yield
    except OSError as error:
        raise ValueError(
            f"{tempfile.gettempdir()} cannot take the data that the processes of this machine share: {error}; "
            "make room there, or set TMPDIR to another folder"
        ) from error


def home() -> Path:
    """Return a folder that only this user can write to, on a disk of this node.

    Raises:
        OSError: if there can be none.
    """
    folder = Path(tempfile.gettempdir()) / f"bocb-tune-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise PermissionError(f"{folder} belongs to another user")
    return folder


def _stamp(sources: Sequence[Path], variant: str) -> str:
    """Name the content of files by path, size and time of change."""
    stats = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in sources]
    return digest([FORMAT, variant, stats])


def _save(folder: Path, arrays: SharedArrays) -> None:
    with explained(), tempfile.TemporaryDirectory(dir=folder.parent) as draft:
        for name, array in arrays.items():
            np.save(Path(draft) / name, array, allow_pickle=False)
        shutil.rmtree(folder, ignore_errors=True)  # some of its files may have been cleaned away
        Path(draft).rename(folder)
