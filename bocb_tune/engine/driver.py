"""Driver of a run: the process that holds the lock of the run folder, and says in it how many trials it runs."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import platform
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

LOCK = ".lock"
PATIENCE_S = 1.0
"""Seconds that a driver waits for the lock: whoever looks whether it is held holds it for a moment."""


class FolderInUseError(ValueError):
    """Another process drives the run in this folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Driver:
    """The process that is at work in a run folder."""

    host: str
    started: float
    """Seconds since 1970."""
    slots: int = 0
    """Trials at a time; 0 while that is not known yet."""


@contextlib.contextmanager
def only_driver(folder: Path) -> Iterator[None]:
    """Keep a second driver out of the folder; the lock goes with the process, however it ends.

    Raises:
        FolderInUseError: if there is another one.
    """
    with (folder / LOCK).open("a") as file:
        deadline = time.monotonic() + PATIENCE_S
        while not _lock(file.fileno(), fcntl.LOCK_EX):
            if time.monotonic() > deadline:
                raise FolderInUseError(
                    f"{folder}: another `bocb-tune run` is at work in this folder; wait for it or end it"
                )
            time.sleep(0.05)
        announce(folder, 0)
        try:
            yield
        finally:
            with contextlib.suppress(FileNotFoundError):  # the folder was removed: that has been said
                os.truncate(folder / LOCK, 0)


def announce(folder: Path, slots: int) -> None:
    """Write down that this process drives the run, with so many trials at a time."""
    driver = Driver(host=platform.node(), started=time.time(), slots=slots)
    (folder / LOCK).write_text(json.dumps(asdict(driver)), encoding="utf-8")


def current_driver(folder: Path) -> Driver | None:
    """Find the process that is at work in a run folder; None if there is none.

    Of a driver on another machine only what it wrote is known: one that was killed there still counts.
    """
    with contextlib.suppress(OSError, ValueError, TypeError):
        driver = Driver(**json.loads((folder / LOCK).read_text(encoding="utf-8")))
        return driver if driver.host != platform.node() or _is_locked(folder / LOCK) else None
    return None


def _is_locked(path: Path) -> bool:
    with path.open() as file:
        return not _lock(file.fileno(), fcntl.LOCK_SH)


def _lock(descriptor: int, kind: int) -> bool:
    """Take the lock if it is free; it goes when the file is closed."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
