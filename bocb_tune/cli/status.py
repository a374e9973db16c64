"""Status of a run: records in, one row per cell out; and the live view of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from bocb_tune.core.space import setting_text
from bocb_tune.core.types import TrialRecord, TrialStatus, alike

COLUMNS = (
    (TrialStatus.running, "run", "cyan"),
    (TrialStatus.completed, "done", "green"),
    (TrialStatus.stopped, "stop", "yellow"),
    (TrialStatus.diverged, "div", "magenta"),
    (TrialStatus.failed, "fail", "red"),
    (TrialStatus.oom, "oom", "red"),
)
"""The one vocabulary of outcomes on the screen: status, heading, colour."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CellStatus:
    """One row of the status table."""

    cell: str
    trials: int
    """Trials the cell is owed in all."""
    counts: dict[str, int]
    best: float | None
    """Best score at the full budget so far."""
    epochs: int
    """Epochs trained."""
    seconds: float
    """Seconds they took, summed over slots."""
    unreadable: int = 0
    """Most images that could not be decoded in an epoch."""
    owed_again: int = 0
    """Trials without a result that are still to be tried again, by this run or, where none is at work, by the next."""
    failures: Mapping[str, int] = field(default_factory=dict)
    """Number of trials that failed alike, by the message of the first."""
    garbled: int = 0
    """Lines of the journal that cannot be read, so that what they said is not counted."""

    @property
    def ended(self) -> int:
        """Trials that this run need not look at again."""
        ended = sum(number for status, number in self.counts.items() if status != TrialStatus.running)
        return ended - self.owed_again

    @property
    def left(self) -> int:
        """Trials to go. An extended run may hold more than it owes: repeats at what was the best before."""
        return max(0, self.trials - self.ended)

    @property
    def epochs_per_s(self) -> float | None:
        return self.epochs / self.seconds if self.seconds else None


@dataclass(frozen=True, slots=True, kw_only=True)
class GridStatus:
    """Rows of all cells, and what they add up to."""

    cells: tuple[CellStatus, ...]
    trials: int
    ended: int
    counts: dict[str, int]
    left_s: float | None
    """Estimated seconds to the end with the slots there are; None before the first epoch, and while nothing runs."""
    is_running: bool = True
    """Whether a process is at work on it."""
    failures: Mapping[str, int] = field(default_factory=dict)
    """Failures of all cells together."""
    news: tuple[str, ...] = ()
    """Lines on what is the matter with the cluster."""

    @property
    def is_done(self) -> bool:
        return all(cell.left == 0 for cell in self.cells)

    @property
    def has_failures(self) -> bool:
        return bool(self.counts.get(TrialStatus.failed, 0) or self.counts.get(TrialStatus.oom, 0))

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def cell_status(
    cell: str,
    trials: int,
    records: Iterable[TrialRecord],
    owed_again: frozenset[str] = frozenset(),
    garbled: int = 0,
) -> CellStatus:
    """Sum up a cell; `owed_again` are the ids of failed trials that are still to be tried again."""
    records = list(records)
    full = [r.score for r in records if r.status == TrialStatus.completed and r.score is not None]
    return CellStatus(
        cell=cell,
        trials=trials,
        counts=dict(Counter(str(record.status) for record in records)),
        best=max(full, default=None),
        epochs=sum(record.budget for record in records),
        seconds=sum(record.elapsed_s for record in records),
        unreadable=max((_unreadable(record) for record in records), default=0),
        owed_again=sum(record.id in owed_again for record in records),
        failures=failures(records),
        garbled=garbled,
    )


def failures(records: Iterable[TrialRecord]) -> dict[str, int]:
    """Count the trials without a result by what they say, those that say alike together; the first one's words."""
    said = [record.message for record in records if record.status in (TrialStatus.failed, TrialStatus.oom)]
    return _grouped(Counter(said))


def _grouped(said: Mapping[str, int]) -> dict[str, int]:
    first: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for message, number in said.items():
        counts[first.setdefault(alike(message), message)] += number
    return dict(counts.most_common())


def _unreadable(record: TrialRecord) -> int:
    return int(record.measurements[-1].metrics.get("unreadable_images", 0)) if record.measurements else 0


def grid_status(
    cells: Sequence[CellStatus], left_s: float | None, *, is_running: bool = True, news: tuple[str, ...] = ()
) -> GridStatus:
    """Add the cells up."""
    counts: Counter[str] = Counter()
    said: Counter[str] = Counter()
    for cell in cells:
        counts.update(cell.counts)
        said.update(cell.failures)
    return GridStatus(
        cells=tuple(cells),
        trials=sum(cell.trials for cell in cells),
        ended=sum(cell.ended for cell in cells),
        counts=dict(counts),
        left_s=left_s,
        is_running=is_running,
        failures=_grouped(said),
        news=news,
    )


def table(status: GridStatus, *, rows: int | None = None, title: str = "") -> RenderableType:
    """Make the table of a grid's status; with more cells than `rows`, those at work come first and the rest are
    counted.
    """
    grid = Table(title=title, title_justify="left", box=None, header_style="bold", pad_edge=False)
    grid.add_column("cell", no_wrap=True)
    grid.add_column("trials", justify="right")
    shown = [column for column in COLUMNS if column[0] in status.counts or column[0] in _ALWAYS]
    for _, heading, colour in shown:
        grid.add_column(heading, justify="right", style=colour)
    grid.add_column("best", justify="right")
    grid.add_column("ep/s", justify="right")
    order = sorted(status.cells, key=lambda cell: (not cell.counts.get("running"), cell.left == 0))
    cells = status.cells if rows is None or rows >= len(status.cells) else order[:rows]
    for cell in cells:
        grid.add_row(
            cell.cell,
            f"{cell.ended}/{cell.trials}",
            *_counts(cell.counts, shown),
            _number(cell.best),
            _number(cell.epochs_per_s),
        )
    hidden = len(status.cells) - len(cells)
    notes = [Text(f"... and {hidden} more cells", style="dim")] if hidden else []
    if unreadable := max((cell.unreadable for cell in status.cells), default=0):
        notes.append(
            Text(f"{unreadable} images an epoch cannot be decoded and are skipped; the log names them", "yellow")
        )
    for cell in status.cells:
        if cell.garbled:
            notes.append(Text(f"{cell.garbled} lines of {cell.cell}'s journal cannot be read: not counted here", "red"))
    for message, number in status.failures.items():
        notes.append(Text(f"{number} without a result: {message}", "red"))
    notes += [Text(line, "yellow") for line in status.news]
    if not status.is_running and not status.is_done:
        notes.append(Text("nothing runs: the command that started it goes on from here", "yellow"))
    return Group(grid, *notes, total_line(status))


_ALWAYS = (TrialStatus.running, TrialStatus.completed, TrialStatus.stopped, TrialStatus.diverged, TrialStatus.failed)


def total_line(status: GridStatus) -> RenderableType:
    line = Table.grid(padding=(0, 1))
    line.add_row(
        Text("total", style="bold"),
        ProgressBar(total=max(1, status.trials), completed=status.ended, width=30),
        f"{status.ended}/{status.trials}",
        f"about {duration(status.left_s)} left" if status.left_s and not status.is_done else "",
    )
    return line


def trial_line(record: TrialRecord, ended: int, trials: int) -> str:
    """Write one ended trial as a plain line, for logs."""
    score = "-" if record.score is None else f"{record.score:.2f}"
    line = (
        f"[{ended}/{trials}] {record.cell.key} {record.phase} {record.index}: {record.status} {score}"
        f" after {record.budget}/{record.max_budget} epochs, {setting_text(record.hparams)}"
    )
    return f"{line}: {record.message}" if record.message else line


def duration(seconds: float | None) -> str:
    if seconds is None:
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def room_for_rows(console: Console) -> int:
    """Count the rows that fit under the heading without scrolling the terminal."""
    return max(3, console.height - 6)


def _counts(counts: dict[str, int], shown: Sequence[tuple[TrialStatus, str, str]]) -> list[str]:
    return [str(counts.get(status, 0) or "·") for status, _, _ in shown]


def _number(value: float | None) -> str:
    return "·" if value is None else f"{value:.2f}"
