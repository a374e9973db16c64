"""What a reader should know before believing a number: health checks, first on the page."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bocb_tune.analysis.cells import FRESH_SEEDS, CellSummary, at_full_budget
from bocb_tune.analysis.findings import Findings
from bocb_tune.types import TrialStatus

# A best point nearer than this to an end of its range may well have its optimum beyond it.
EDGE_DECADES = 0.2
# With fewer fresh seeds than this a cell's value is one draw, not a mean.
FEWEST_SEEDS = 3
# Cells or messages a check lists one by one before it only counts.
MOST_LISTED = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One remark on the data."""

    name: str
    level: str
    """`problem` (numbers are missing or suspect), `caution` (read them with care) or `note`."""
    message: str
    cell: str | None = None
    """`backbone/optimizer`, where it is about one cell."""


def run_checks(findings: Findings) -> tuple[Check, ...]:
    """All remarks, the gravest first."""
    order = ("problem", "caution", "note")
    found = [check for look in CHECKS for check in look(findings)]
    return tuple(sorted(found, key=lambda check: order.index(check.level)))


def incomplete_matrix(findings: Findings) -> Iterator[Check]:
    if missing := findings.missing:
        text = (
            f"{len(missing)} of {len(findings.cells)} cells have no value yet ({_listed(missing)}): no decomposition."
        )
        yield Check(name="incomplete_matrix", level="problem", message=text)


def failed_trials(findings: Findings) -> Iterator[Check]:
    """One remark per message, with the cells it struck."""
    trials = findings.table.trials
    failed = trials[trials["status"].isin([TrialStatus.failed, TrialStatus.oom])]
    kinds = failed.groupby(["status", "message"])
    for (status, message), group in list(kinds)[:MOST_LISTED]:
        cells = _listed(sorted(set(group["backbone"] + "/" + group["optimizer"])))
        yield Check(
            name="failed_trials",
            level="problem",
            message=f"{len(group)} {status} in {cells}: {message or 'no message'}",
        )
    if len(kinds) > MOST_LISTED:
        text = f"{len(kinds) - MOST_LISTED} more kinds of failure are in tables/trials.csv."
        yield Check(name="failed_trials", level="problem", message=text)


def garbled_lines(findings: Findings) -> Iterator[Check]:
    lines = findings.table.garbled
    if lines:
        text = f"{len(lines)} journal line(s) could not be read and are left out: {_listed(lines)}."
        yield Check(name="garbled_lines", level="problem", message=text)


def edge_of_range(findings: Findings) -> Iterator[Check]:
    """Best points that lie near an end of the range they were searched in."""
    for cell in findings.cells:
        for name, value in (("lr", cell.lr), ("weight_decay", cell.weight_decay)):
            dims = findings.table.spaces.get(cell.optimizer)
            if dims is None or math.isnan(value):
                continue
            distance = dims[name].edge_distance(value)
            if distance < EDGE_DECADES:
                where = f"{distance:.2f} decades from the edge" if distance >= 0 else f"{-distance:.2f} decades outside"
                text = f"best {name} {value:.3g} is {where} of its range {dims[name]}: the optimum may lie beyond."
                yield Check(name="edge_of_range", level="caution", message=text, cell=cell.key)


def too_few_seeds(findings: Findings) -> Iterator[Check]:
    valued = [cell for cell in findings.cells if cell.best.value is not None and cell.best.counts.n_seeds]
    selected = [cell for cell in valued if FRESH_SEEDS not in cell.best.method]
    few = [cell for cell in valued if FRESH_SEEDS in cell.best.method and cell.best.counts.n_seeds < FEWEST_SEEDS]
    if selected:
        text = (
            f"{len(selected)} of {len(valued)} cells have no fresh seed at their best point: their scores were selected"
        )
        yield Check(name="too_few_seeds", level="caution", message=f"{text} and are biased upwards.")
    if few:
        text = f"{len(few)} cells have fewer than {FEWEST_SEEDS} fresh seeds at their best point: {_keys(few)}."
        yield Check(name="too_few_seeds", level="caution", message=text)


def unequal_trials(findings: Findings) -> Iterator[Check]:
    """Best-of-n grows with n, so unequal numbers of trials fake an effect."""
    counts = [cell.n_trials for cell in findings.cells if cell.n_trials]
    if counts and min(counts) < max(counts):
        text = f"Trials per cell range from {min(counts)} to {max(counts)}: the best of more is higher by chance."
        yield Check(name="unequal_trials", level="caution", message=text)


def mixed_budgets(findings: Findings) -> Iterator[Check]:
    trials = findings.table.trials
    shorter = int((~at_full_budget(trials, trials["max_budget"].max())).sum())
    if shorter:
        text = f"{shorter} trial(s) were planned for less than the largest full budget and give no cell its value."
        yield Check(name="mixed_budgets", level="caution", message=text)


def all_diverged(findings: Findings) -> Iterator[Check]:
    for cell in findings.cells:
        if set(cell.counts) == {TrialStatus.diverged}:
            yield Check(name="all_diverged", level="caution", message="every trial diverged.", cell=cell.key)


def unfinished(findings: Findings) -> Iterator[Check]:
    running = sum(cell.counts.get(TrialStatus.running, 0) for cell in findings.cells)
    if running:
        text = f"{running} trial(s) are running or were interrupted: the run is not finished."
        yield Check(name="unfinished", level="note", message=text)


def reading(findings: Findings) -> Iterator[Check]:
    for note in findings.table.notes:
        yield Check(name="reading", level="note", message=note)


CHECKS: tuple[Callable[[Findings], Iterator[Check]], ...] = (
    incomplete_matrix,
    failed_trials,
    garbled_lines,
    edge_of_range,
    all_diverged,
    too_few_seeds,
    unequal_trials,
    mixed_budgets,
    unfinished,
    reading,
)


def _keys(cells: list[CellSummary]) -> str:
    return _listed([cell.key for cell in cells])


def _listed(names: list[str] | tuple[str, ...]) -> str:
    more = f" and {len(names) - MOST_LISTED} more" if len(names) > MOST_LISTED else ""
    return ", ".join(names[:MOST_LISTED]) + more
