"""A sign of life on standard error while a command works: what it does, how far it is, and for how long.

On a terminal it is one line from the first moment on, which is wiped at the end. Elsewhere a log would be filled by
it: a line after a second, and then one every ten seconds if there is anything new.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from bocb_tune.core.names import plain
from bocb_tune.core.progress import heard_by

REPAINT_S = 0.5
FIRST_LINE_S = 1.0
NEXT_LINE_S = 10.0
WIPE = "\r\x1b[K"


class Busy:
    """Line that is shown, and where. Written to by the thread that shows it and by the work itself."""

    def __init__(self, what: str, stream: IO[str]) -> None:
        self._what, self._stream = what, stream
        self._is_terminal = stream.isatty()
        self._started = time.monotonic()
        self._stage = ""
        self._shown: str | None = None
        self._next_line = self._started + FIRST_LINE_S

    def stage(self, text: str) -> None:
        """Take note of how far the work is."""
        self._stage = plain(text)

    def show(self) -> None:
        """Show it, if it is time to."""
        now = time.monotonic()
        if self._is_terminal:
            self._write(f"{WIPE}{self._text} ({now - self._started:.0f} s)")
        elif now >= self._next_line and self._text != self._shown:
            self._shown, self._next_line = self._text, now + NEXT_LINE_S
            self._write(f"{self._text}\n")

    def wipe(self) -> None:
        """Leave the terminal's line as it was."""
        if self._is_terminal:
            self._write(WIPE)

    @property
    def _text(self) -> str:
        return ": ".join(filter(None, (self._what, self._stage)))

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


@contextmanager
def busy(what: str) -> Iterator[None]:
    """Show on standard error that `what` is going on, with the stages it tells by `core.progress.say`."""
    shown, over = Busy(what, sys.stderr), threading.Event()

    def keep_showing() -> None:
        while not over.wait(REPAINT_S):
            shown.show()

    shown.show()
    thread = threading.Thread(target=keep_showing, daemon=True)
    thread.start()
    try:
        with heard_by(shown.stage):
            yield
    finally:
        over.set()
        thread.join()
        shown.wipe()


def warn(text: str) -> None:
    """Print a warning on standard error, above a line that shows what is going on."""
    start = WIPE if sys.stderr.isatty() else ""
    print(f"{start}warning: {plain(text)}", file=sys.stderr, flush=True)
