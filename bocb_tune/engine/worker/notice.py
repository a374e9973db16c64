"""Notice that a worker's process is about to be ended: SIGTERM, as batch systems and markets of machines send it."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator

GRACE_S = 25.0
"""Seconds that a trial may take to its next step and checkpoint: Kubernetes and the markets leave 30 or more."""


class Notice:
    """SIGTERM of this process, which ends when the trial in flight has left a checkpoint, or after a time."""

    def __init__(self) -> None:
        self._given, self._idle = threading.Event(), threading.Event()
        self._idle.set()

    @property
    def is_given(self) -> bool:
        return self._given.is_set()

    def heed(self) -> None:
        """Have SIGTERM wait for the trial in flight; called in the main thread, which need not run Python later."""
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        signal.signal(signal.SIGTERM, lambda number, frame: None)  # noqa: ARG005
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        threading.Thread(target=self._wait, args=(reader,), daemon=True, name="notice").start()

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """Have the process live on until this is left."""
        self._idle.clear()
        try:
            yield
        finally:
            self._idle.set()

    def _wait(self, reader: int) -> None:
        while signal.SIGTERM not in os.read(reader, 64):  # other signals of Python's come the same way
            pass
        self._given.set()
        self._idle.wait(GRACE_S)
        os._exit(1)


notice = Notice()
"""Notice of this process."""


def heed() -> None:
    """Have this process heed SIGTERM."""
    notice.heed()
