"""A run folder beside the driver whose files are carried to remote storage within seconds of being written."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from bocb_tune.core import journal
from bocb_tune.core.files import DRIVER_FILE, LOG_FILE, SPEC_FILE, write_atomically
from bocb_tune.core.remote_run import contents_of, driver_at_work, names_of
from bocb_tune.core.storage import Storage, name_of, storage_of
from bocb_tune.engine.driver import FolderInUseError

CARRY_S = 2.0
"""Seconds between two checks for files to copy."""
SIGN_OF_LIFE_S = 20.0
"""Seconds after which the driver's state is copied again, so that others see that it is alive."""


class Mirror:
    """A local run folder and its remote copy."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.folder = _home() / f"{name_of(uri)}-{hashlib.sha256(uri.encode()).hexdigest()[:8]}"
        self._storage: Storage = storage_of(uri)
        self._carried: dict[str, tuple[int, int]] = {}
        self._last_sign = 0.0
        self._failing: tuple[float, str] | None = None
        self._over = threading.Event()

    def bring(self) -> None:
        """Update the local folder from the remote one.

        Where a local journal continues the remote one, the local lines stay: they had not been copied in time.

        Raises:
            FolderInUseError: if another driver works on it.
            OSError: if the storage cannot be reached.
        """
        said = driver_at_work(self._storage)
        if said is not None and not self._is_own(said):
            raise FolderInUseError(
                f"{self.uri}: another machine is at work on this run: {said.decode(errors='replace')}. If that machine"
                " is gone, start the command again in a minute."
            )
        there = contents_of(self._storage, names_of(self._storage))
        if SPEC_FILE not in there:  # a run that begins; what an earlier one of that name left here is not its own
            shutil.rmtree(self.folder / journal.FOLDER, ignore_errors=True)
            (self.folder / SPEC_FILE).unlink(missing_ok=True)
        for name, content in there.items():
            path = self.folder / name
            if not (path.exists() and path.read_bytes().startswith(content)):
                write_atomically(path, lambda file, content=content: file.write(content))  # type: ignore[misc]

    def _is_own(self, said: bytes) -> bool:
        """Tell whether the driver worked on the local folder, whose lock then shows whether it still does."""
        return bool(json.loads(said).get("host") == platform.node()) and (self.folder / DRIVER_FILE).exists()

    @contextlib.contextmanager
    def carried(self) -> Iterator[None]:
        """Carry over what is written in the folder, all the while and once more at the end.

        Raises:
            OSError: if at the end it cannot be.
        """
        self._over.clear()
        carrier = threading.Thread(target=self._carry_all_the_while, name="carry", daemon=True)
        carrier.start()
        try:
            yield
        finally:
            self._over.set()
            carrier.join()
            self._finish()

    def trouble(self) -> list[str]:
        """Report since when copying has failed, if it has."""
        if self._failing is None:
            return []
        since, error = self._failing
        clock = time.strftime("%H:%M:%S", time.localtime(since))
        return [f"{self.uri} cannot be written to since {clock}: {error}; journals are in {self.folder} meanwhile"]

    def _carry_all_the_while(self) -> None:
        while not self._over.wait(CARRY_S):
            try:
                self.carry()
                self._failing = None
            except OSError as error:
                self._failing = self._failing or (time.time(), str(error).strip().splitlines()[0])

    def carry(self) -> None:
        """Carry over what has changed.

        Raises:
            OSError: if the storage cannot be reached.
        """
        names = [SPEC_FILE, DRIVER_FILE]
        names += [f"{journal.FOLDER}/{path.name}" for path in (self.folder / journal.FOLDER).glob("*.jsonl")]
        for name in names:
            self._carry_if_changed(name)

    def _carry_if_changed(self, name: str) -> None:
        try:
            state = (self.folder / name).stat()
        except FileNotFoundError:
            return
        known = (state.st_mtime_ns, state.st_size)
        is_due = name == DRIVER_FILE and time.monotonic() - self._last_sign > SIGN_OF_LIFE_S
        if self._carried.get(name) == known and not is_due:
            return
        content = (self.folder / name).read_bytes()
        if name == DRIVER_FILE:
            content = json.dumps(json.loads(content) | {"seen": time.time()}).encode()
            self._last_sign = time.monotonic()
        self._storage.write(name, content)
        self._carried[name] = known

    def _finish(self) -> None:
        try:
            self.carry()
            if (self.folder / LOG_FILE).exists():
                self._storage.write(LOG_FILE, (self.folder / LOG_FILE).read_bytes())
            self._storage.remove(DRIVER_FILE, now=True)  # later it might be that of the next driver
        except OSError as error:
            raise OSError(
                f"{self.uri}: what was recorded last could not be carried over: {error}. It is in {self.folder}; the"
                " same command on this machine carries it over and goes on."
            ) from error


def _home() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "bocb-tune" / "runs"
