"""What the columns of somebody's table are: their names, however written, and the unit a name tells."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from bocb_tune.analysis.sources.table import CELL

REQUIRED = (*CELL, "score")
TEXTS = ("trial", "phase", "status", "audit", "message")
NUMBERS = ("lr", "weight_decay", "seed", "score", "budget", "max_budget", "elapsed_s")

# Names in lower case without anything but letters and digits, beside the field's own.
ALIASES = {
    "backbone": ("model", "arch", "architecture", "network"),
    "optimizer": ("optimiser", "optim", "opt"),
    "score": ("acc", "acc1", "accuracy", "top1", "top1acc", "top1accuracy"),
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
# Data that a score's name may say it was measured on, best to select by first.
VALIDATION, TEST = ("val", "valid", "validation", "eval"), ("test",)
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
    is_test: bool = False
    """Whether it is a score whose name says that it is of test data: `test_acc`."""


def understand(names: Iterable[str]) -> tuple[Column, ...]:
    """The columns of a table, in its order; a score of test data is not used where there is another."""
    columns = tuple(_understand(name) for name in names)
    if any(column.field == "score" and not column.is_test for column in columns):
        return tuple(replace(column, field=None) if column.is_test else column for column in columns)
    return columns


def _understand(name: str) -> Column:
    lower = name.lower()
    unit = next((unit for unit, words in UNITS.items() if re.search(words, lower)), None)
    plain = _squashed(re.sub(UNITS[unit], "", lower) if unit else lower)
    split, measured = _split(plain)
    field = "score" if FIELD_OF.get(measured) == "score" else FIELD_OF.get(plain)
    is_score = field == "score"
    return Column(
        name=name,
        field=field if unit is None or is_score else None,
        unit=unit,
        is_test=is_score and split in TEST,
    )


def _split(plain: str) -> tuple[str, str]:
    """What a score's name says it was measured on, if it does, and the rest of the name."""
    for split in sorted((*VALIDATION, *TEST), key=len, reverse=True):
        if plain.startswith(split):
            return split, plain.removeprefix(split)
        if plain.endswith(split):
            return split, plain.removesuffix(split)
    return "", plain


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
