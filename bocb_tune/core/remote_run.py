"""Run folders in remote storage, read from here: its journals are copied into a folder that is gone afterwards."""

from __future__ import annotations

import contextlib
import json
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bocb_tune.core import journal
from bocb_tune.core.files import DRIVER_FILE, SPEC_FILE
from bocb_tune.core.storage import Storage, storage_of

GONE_AFTER_S = 60.0
"""Seconds without a sign of life after which a driver on another machine is taken to be gone."""
READERS = 16
"""Objects read at a time."""


def names_of(storage: Storage) -> list[str]:
    """List the files of a run folder that say what the run is and has done."""
    return [
        SPEC_FILE,
        *(f"{journal.FOLDER}/{name}" for name in storage.names(journal.FOLDER) if name.endswith(".jsonl")),
    ]


def contents_of(storage: Storage, names: list[str]) -> dict[str, bytes]:
    """Read files, several at a time; those that are not there are left out."""
    with ThreadPoolExecutor(READERS) as pool:
        read = zip(names, pool.map(storage.read, names), strict=True)
        return {name: content for name, content in read if content is not None}


def driver_at_work(storage: Storage) -> bytes | None:
    """Return what the driver of a remote run says; None if there is none, or it has long said nothing."""
    said = storage.read(DRIVER_FILE)
    with contextlib.suppress(ValueError, KeyError, TypeError):
        return said if said and time.time() - json.loads(said)["seen"] < GONE_AFTER_S else None
    return None


@contextlib.contextmanager
def fetched(uri: str) -> Iterator[Path]:
    """Yield a local folder with what a remote run has written so far.

    Raises:
        ValueError: if the URI is of no known file system, or there is no run.
        OSError: if it cannot be reached.
    """
    storage = storage_of(uri)
    with tempfile.TemporaryDirectory(prefix="bocb-tune-") as home:
        folder = Path(home) / "run"
        contents = contents_of(storage, names_of(storage))
        if not contents:
            raise ValueError(
                f"{uri}: there is no run, or it is not finished being copied: no {SPEC_FILE} and no journals"
            )
        if (said := driver_at_work(storage)) is not None:
            contents[DRIVER_FILE] = _as_of_elsewhere(said, uri)
        for name, content in contents.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        yield folder


def _as_of_elsewhere(said: bytes, uri: str) -> bytes:
    """Name the driver so that it is not looked for among the processes of this machine."""
    with contextlib.suppress(ValueError, KeyError, TypeError):
        driver = json.loads(said)
        return json.dumps(driver | {"host": f"{driver['host']}, through {uri}"}).encode()
    return said
