"""View of a run while it goes on: a table that keeps itself up to date, or plain lines without a terminal."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO

from rich.console import RenderableType
from rich.live import Live
from rich.text import Text

from bocb_tune.cli.screen import screen
from bocb_tune.cli.status import GridStatus, cell_status, grid_status, room_for_rows, table, trial_line
from bocb_tune.cli.time_left import seconds_left, work_of
from bocb_tune.core.types import TrialRecord, TrialStatus, alike
from bocb_tune.engine.design import superseded
from bocb_tune.engine.run import Watcher, unharmed
from bocb_tune.engine.store import RunStore

LEAVING = "stopping after the epoch in flight; Ctrl-C again, 2 s later or more, ends at once"


class View(Watcher):
    """Watches a run. Lines go to the stream as trials end; on a terminal a table stands in their place."""

    def __init__(self, stream: IO[str]) -> None:
        self.console = screen(stream, highlight=False)
        self._store: RunStore | None = None
        self._slots = 1
        self._news: tuple[str, ...] = ()
        self._note = "starting Ray"
        self._failed_before: dict[str, int] = {}
        """Attempts of the trials that had failed before this run, by id."""
        self._superseded: dict[str, int] = {}
        """Design trials of an earlier range, by cell."""
        self._said: dict[str, int] = {}
        """How often trials of this run failed alike."""

    @contextlib.contextmanager
    def showing(self) -> Iterator[None]:
        if not self.console.is_terminal:
            self._line(self._note)
            yield
            return
        # What Ray prints goes to the log: it must not be caught on its way.
        live = Live(
            get_renderable=self._render,
            console=self.console,
            refresh_per_second=2,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        live.start()
        try:
            yield
        finally:
            unharmed(live.stop)()  # the terminal may be gone by then

    def opened(self, store: RunStore, slots: int) -> None:
        self._store, self._slots = store, slots
        self._note = "starting the worker groups"
        records = (record for book in store.books.values() for record in book.records.values())
        failed = (record for record in records if record.status in (TrialStatus.failed, TrialStatus.oom))
        self._failed_before = {record.id: record.attempt for record in failed}
        self._superseded = {key: superseded(book.plan, book.records) for key, book in store.books.items()}
        status = self.status()
        if not self.console.is_terminal:
            self._line(f"{status.trials - status.ended} of {status.trials} trials to go, {slots} at a time")
            self._line(self._note)

    def ended(self, record: TrialRecord) -> None:
        self._note = ""
        if self._store is None:
            return
        times = self._times_said(record)
        if not self.console.is_terminal:
            status = self.status()
            shown = record if times <= 1 else replace(record, message=f"as {times - 1} before it")
            self._line(trial_line(shown, status.ended, status.trials))
        elif times == 1:
            line = f"{record.cell.key} {record.phase} {record.index}: {record.status}: {record.message}"
            self.console.print(line, style="red")

    def _times_said(self, record: TrialRecord) -> int:
        """Count the trials of this run that have failed as this one did, with it; 0 if it did not."""
        if record.status not in (TrialStatus.failed, TrialStatus.oom):
            return 0
        kind = alike(record.message)
        self._said[kind] = self._said.get(kind, 0) + 1
        return self._said[kind]

    def cluster(self, lines: Sequence[str], slots: int) -> None:
        before, self._news = self._news, tuple(lines)
        self._slots = slots or self._slots
        if not self.console.is_terminal:
            for line in lines:
                if line not in before:
                    self._line(line)

    def leaving(self) -> None:
        self._note = LEAVING
        if not self.console.is_terminal:
            self._line(LEAVING)

    def status(self) -> GridStatus:
        """Sum up how far the run is."""
        assert self._store is not None
        rows, work = [], []
        for key, book in self._store.books.items():
            records, plan = list(book.records.values()), book.plan.plan
            again = frozenset(r.id for r in records if self._failed_before.get(r.id) == r.attempt)
            earlier = self._superseded[key]
            rows.append(cell_status(key, plan.trials(records) + earlier, records, again))
            work.append(work_of(plan, records, again, earlier))
        return grid_status(rows, seconds_left(plan, work, self._slots), news=self._news)

    def _line(self, text: str) -> None:
        self.console.print(text, soft_wrap=True)

    def _render(self) -> RenderableType:
        try:
            return self._table()
        except Exception as error:  # it is called from a thread, and from whatever prints
            return Text(f"this table cannot be shown: {error}", style="red")

    def _table(self) -> RenderableType:
        if self._store is None:
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
        yield lambda: os.fdopen(os.dup(kept[2]), "w", buffering=1, encoding="utf-8", errors="backslashreplace")
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
