"""Statements of the user about a table: which column is the score, which way it is better, what to leave out."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from bocb_tune.analysis.sources.table import SourceError
from bocb_tune.core.types import Direction, Objective

TOLERANCES = (1.0, 2.0, 5.0, 10.0)
"""Points at which the widths of good regions are computed."""
PERCENT = 1.0
"""One point of a metric without bounds, in percent of its best value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stated:
    """The options of `analyze` and `recommend` that say what the trials mean; None where nothing is said."""

    metric: str | None = None
    """Column that holds the score."""
    direction: str | None = None
    """`max` or `min`: which way the metric is better."""
    tolerance: str | None = None
    """Loss that counts for nothing, in the metric's unit, or as a share of its best value such as `2%`."""
    chance: float | None = None
    """Score of a failed run, in the unit of the column."""
    where: tuple[str, ...] = ()
    """`column=value`: rows to keep; all of them hold."""

    def __post_init__(self) -> None:
        if self.direction is not None and self.direction not in list(Direction):
            raise SourceError(f"--direction {self.direction!r} is neither max (larger is better) nor min (smaller is)")
        if self.chance is not None and not math.isfinite(self.chance):
            raise SourceError(f"--chance {self.chance} is not a finite number; give what a failed run scores")

    def require_table(self, source: str) -> None:
        """Refuse what can only be said of a table.

        Raises:
            SourceError: naming the options.
        """
        given = [f.name for f in fields(self) if f.name != "tolerance" and getattr(self, f.name) not in (None, ())]
        if given:
            options = ", ".join(f"--{name}" for name in given)
            raise SourceError(f"{source}: {options}: only for a table of one's own; a run and a published table say it")

    def words(self) -> list[str]:
        """Give the options as they are typed."""
        given = {name: getattr(self, name) for name in ("metric", "direction", "tolerance")}
        given["chance"] = None if self.chance is None else f"{self.chance:g}"
        options = [(f"--{name}", value) for name, value in given.items() if value is not None]
        return [word for option in (*options, *(("--where", each) for each in self.where)) for word in option]


NOTHING_STATED = Stated()


def with_tolerance(objective: Objective, best: float, stated: str | None) -> Objective:
    """Return the objective with what one point is and what counts as equally good.

    Args:
        objective: its scores may still be counted in the metric's unit.
        best: the best value of the metric.
        stated: as `Stated.tolerance`.

    Raises:
        SourceError: if the tolerance is not a positive number, or cannot be derived from the best value.
    """
    amount, is_percent = _amount(stated)
    if objective.is_bounded:
        if amount is not None and (is_percent or amount not in TOLERANCES):
            known = ", ".join(f"{each:g}" for each in TOLERANCES)
            raise SourceError(f"--tolerance {stated}: {objective.metric} is counted in points; give one of {known}")
        return replace(objective, tolerance=amount or 1.0)
    point = amount if amount is not None and not is_percent else (amount or PERCENT) / 100 * abs(best)
    if not (math.isfinite(point) and point > 0):
        why = f"no share can be taken of the best {objective.metric}, {best:g}"
        raise SourceError(f"{why}; say with --tolerance X how much of it may be lost for nothing")
    return replace(objective, point=point)


def _amount(stated: str | None) -> tuple[float | None, bool]:
    """Return the number and whether it is in percent."""
    if stated is None:
        return None, False
    found = re.fullmatch(r"([0-9.]+(?:[eE][-+]?\d+)?)\s*(%?)", stated.strip())
    try:
        amount = float(found[1]) if found else math.nan
    except ValueError:
        amount = math.nan
    if not (found and math.isfinite(amount) and amount > 0):
        raise SourceError(f"--tolerance {stated!r} is not a positive number, such as 1, 0.02 or 2%")
    return amount, bool(found[2])


def options_of(stated: Stated, spaces: Sequence[Path]) -> list[str]:
    """Give all that a user says of a table as it is typed, for another command on it."""
    return [*stated.words(), *(word for path in spaces for word in ("--space", str(path)))]
