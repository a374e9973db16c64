"""The checkpoint of a trial. Torch is imported when one is read or written."""

from __future__ import annotations

import io
import logging
import zipfile
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from bocb_tune.core.files import LATEST
from bocb_tune.core.storage import Storage, storage_of

BEFORE = "before.pt"
"""Name of the checkpoint before the newest, while a trial trains."""

logger = logging.getLogger(__name__)


class Checkpoints:
    """The folder of one trial's checkpoints: the latest, and while it trains the one before."""

    def __init__(self, place: Storage | Path) -> None:
        self.storage = storage_of(place) if isinstance(place, Path) else place
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None

    def load(self) -> dict[str, Any] | None:
        """Read the newest saved state that is whole, onto the CPU; None if there is none: the trial starts afresh.

        Raises:
            OSError: if the storage cannot be reached.
        """
        self.wait()
        for name in (LATEST, BEFORE):
            content = self.storage.read(name)
            state = _state(content, f"{self.storage}/{name}") if content is not None else None
            if state is not None:
                return state
        return None

    def save(self, state: Mapping[str, Any]) -> None:
        """Copy a state, and write it in place of the last one while the training goes on. Called by rank 0 alone.

        Raises:
            OSError: if the one before this could not be written.
        """
        import torch

        copy = io.BytesIO()
        torch.save(dict(state), copy)
        self.wait()
        self._writing = self._writer.submit(self._write, copy.getbuffer())

    def _write(self, content: memoryview) -> None:
        self.storage.move(LATEST, BEFORE)
        self.storage.write(LATEST, content)

    def wait(self) -> None:
        """Wait until what was saved is written.

        Raises:
            OSError: if it could not be.
        """
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def close(self, *, keep: bool = True) -> None:
        """End a trial here: of its checkpoints the latest stays, or none.

        Raises:
            OSError: if the last one could not be written.
        """
        try:
            self.wait()
        finally:
            self._writer.shutdown()
            self.storage.remove(BEFORE if keep else "")


def _state(content: bytes, name: str) -> dict[str, Any] | None:
    """Return the state in a checkpoint; None, with a word in the log, if it is damaged: it holds a checksum of each of
    its parts, which torch does not look at.
    """
    import torch

    try:
        with zipfile.ZipFile(io.BytesIO(content)) as parts:
            if damaged := parts.testzip():
                raise ValueError(f"the checksum of {damaged} is wrong")
        state: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # torch and zipfile promise no exception type for a damaged file
        logger.warning("checkpoint %s is damaged (%s): the one before it is used, or none", name, error)
        return None
    return state
