"""Driver of a run: the process that holds the lock of the run folder, and writes its state into it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bocb_tune.core.files import DRIVER_FILE, write_atomically
from bocb_tune.core.names import plain

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
    seen: float
    """Seconds since 1970 when it last said this."""
    slots: int = 0
    """Trials at a time; 0 while that is not known yet."""
    news: tuple[str, ...] = ()
    """Lines about faults of the cluster."""


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
        (folder / DRIVER_FILE).unlink(missing_ok=True)
        announce(folder, 0)
        try:
            yield
        finally:
            (folder / DRIVER_FILE).unlink(missing_ok=True)


def announce(folder: Path, slots: int, news: Sequence[str] = ()) -> None:
    """Record that this process drives the run, with so many trials at a time, and any faults of the cluster.

    Nothing is written if the folder was removed.
    """
    if not (folder / LOCK).exists():
        return
    before = _said(folder)
    started = before.started if before else time.time()
    driver = Driver(host=platform.node(), started=started, seen=time.time(), slots=slots, news=tuple(news))
    write_atomically(folder / DRIVER_FILE, lambda file: file.write(json.dumps(asdict(driver)).encode()))


def current_driver(folder: Path) -> Driver | None:
    """Find the process that is at work in a run folder; None if there is none.

    Of a driver on another machine only what it wrote is known: one that was killed there still counts.
    """
    driver = _said(folder)
    if driver is None or (driver.host == platform.node() and not _is_locked(folder / LOCK)):
        return None
    return driver


def _said(folder: Path) -> Driver | None:
    with contextlib.suppress(OSError, ValueError, TypeError):
        said = json.loads((folder / DRIVER_FILE).read_text(encoding="utf-8"))
        return Driver(**said | {"news": tuple(plain(str(line)) for line in said["news"])})
    return None


def _is_locked(path: Path) -> bool:
    if not path.exists():
        return False
    with path.open() as file:
        return not _lock(file.fileno(), fcntl.LOCK_SH)


def _lock(descriptor: int, kind: int) -> bool:
    """Take the lock if it is free; it goes when the file is closed."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
