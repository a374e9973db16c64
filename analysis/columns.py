"""What the columns of somebody's table are: their names, however written, and the unit a name tells."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from bocb_tune.analysis.table import CELL

REQUIRED = (*CELL, "score")
TEXTS = ("trial", "phase", "status", "audit", "message")
NUMBERS = ("lr", "weight_decay", "seed", "score", "budget", "max_budget", "elapsed_s")

# Names in lower case without anything but letters and digits, beside the field's own.
ALIASES = {
    "backbone": ("model", "arch", "architecture", "network"),
    "optimizer": ("optimiser", "optim", "opt"),
    "score": (
        *("acc", "acc1", "accuracy", "top1", "top1acc", "top1accuracy"),
        *("valacc", "valacc1", "valaccuracy", "valtop1", "valtop1acc", "validationaccuracy", "validationtop1"),
    ),
    "lr": ("learningrate", "baselr", "peaklr", "maxlr", "initlr"),
    "weight_decay": ("wd",),
    "seed": ("randomseed",),
    "budget": ("epoch", "epochs"),
    "max_budget": ("maxepochs", "totalepochs", "numepochs", "fullbudget"),
    "elapsed_s": ("elapsedseconds", "seconds", "times", "runtimes", "walltimes", "durations"),
    "trial": ("trialid", "run", "runid"),
    "status": ("state",),
}
FIELD_OF = {
    alias: field
    for field in dict.fromkeys((*REQUIRED, *TEXTS, *NUMBERS))
    for alias in (field.replace("_", ""), *ALIASES.get(field, ()))
}
# Names that tell a time and no unit.
TIMES = ("time", "elapsed", "runtime", "walltime", "duration", "trainingtime", "traintime")
UNITS = {"points": r"%|percent|pct|points?", "fraction": r"fraction|0 ?\.\. ?1"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of a table, understood."""

    name: str
    """As the table has it."""
    field: str | None
    """What it is read as; None if it is not used."""
    unit: str | None = None
    """`points` (0..100) or `fraction` (0..1), where the name says so: `top1 (%)`, `score_points`, `acc_fraction`."""


def understand(names: Iterable[str]) -> tuple[Column, ...]:
    """The columns of a table, in its order."""
    return tuple(_understand(name) for name in names)


def _understand(name: str) -> Column:
    lower = name.lower()
    unit = next((unit for unit, words in UNITS.items() if re.search(words, lower)), None)
    field = FIELD_OF.get(_squashed(re.sub(UNITS[unit], "", lower) if unit else lower))
    return Column(name=name, field=field if unit is None or field == "score" else None, unit=unit)


def unused_note(columns: Iterable[Column]) -> str | None:
    """What to tell about columns that are not used; None if all are."""
    unused = sorted(column.name for column in columns if column.field is None)
    if not unused:
        return None
    times = [name for name in unused if _squashed(name.lower()) in TIMES]
    hint = f" ({times[0]!r} has no unit: call it 'elapsed_s' if it holds seconds)" if times else ""
    return f"Columns not used: {', '.join(unused)}{hint}."


def _squashed(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name)
