"""What the user sees while a run goes on: a table that keeps itself up to date, or plain lines without a terminal."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from bocb_tune.cli.status import GridStatus, cell_status, grid_status, room_for_rows, table, trial_line
from bocb_tune.core.types import TrialRecord, TrialStatus
from bocb_tune.engine.run import Watcher
from bocb_tune.engine.store import Ledger

LEAVING = "stopping after the epoch in flight; Ctrl-C again ends at once"


class View(Watcher):
    """Watches a run. Lines go to the stream as trials end; on a terminal a table stands in their place."""

    def __init__(self, stream: IO[str]) -> None:
        self.console = Console(file=stream, highlight=False)
        self._ledger: Ledger | None = None
        self._slots = 1
        self._note = "starting Ray"

    @contextlib.contextmanager
    def showing(self) -> Iterator[None]:
        if not self.console.is_terminal:
            yield
            return
        with Live(get_renderable=self._render, console=self.console, refresh_per_second=2):
            yield

    def opened(self, ledger: Ledger, slots: int) -> None:
        self._ledger, self._slots = ledger, slots
        self._note = "starting the worker groups"
        status = self.status()
        if not self.console.is_terminal:
            self._line(f"{status.trials - status.ended} of {status.trials} trials to go, {slots} at a time")

    def ended(self, record: TrialRecord) -> None:
        self._note = ""
        if self._ledger is None:
            return
        if not self.console.is_terminal:
            status = self.status()
            self._line(trial_line(record, status.ended, status.trials))
        elif record.status in (TrialStatus.failed, TrialStatus.oom):
            self.console.print(
                f"{record.cell.key} {record.phase} {record.index}: {record.status}: {record.message}", style="red"
            )

    def leaving(self) -> None:
        self._note = LEAVING
        if not self.console.is_terminal:
            self._line(LEAVING)

    def status(self) -> GridStatus:
        assert self._ledger is not None
        books = self._ledger.books.items()
        rows = []
        for key, book in books:
            records = list(book.records.values())
            rows.append(cell_status(key, book.plan.plan.trials(records), records))
        return grid_status(rows, self._slots)

    def _line(self, text: str) -> None:
        self.console.print(text, markup=False, soft_wrap=True)

    def _render(self) -> RenderableType:
        if self._ledger is None:
            return Text(self._note, style="dim")
        return table(self.status(), rows=room_for_rows(self.console), title=self._note)


@contextlib.contextmanager
def output_to(log: Path) -> Iterator[Callable[[], IO[str]]]:
    """Send what Ray and its processes print to a log file.

    Yields:
        A function that opens a stream to where standard error went before.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    kept = {number: os.dup(number) for number in (1, 2)}
    with log.open("ab") as file:
        for number in kept:
            os.dup2(file.fileno(), number)
    try:
        yield lambda: os.fdopen(os.dup(kept[2]), "w", buffering=1, encoding="utf-8")
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, copy in kept.items():
            os.dup2(copy, number)
            os.close(copy)


@contextlib.contextmanager
def last_words(text: str) -> Iterator[None]:
    """Have `text` said on standard error if this process ends without leaving the context.

    Ray ends a process whose node has died on the spot, past every handler: only another process can speak then.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        os.close(writing)
        if not os.read(reading, 1):
            os.write(2, text.encode() + b"\n")
        os._exit(0)
    os.close(reading)
    try:
        yield
    finally:
        os.write(writing, b".")
        os.close(writing)
        os.waitpid(child, 0)
