"""Columns of somebody's table: their names, however written, and what a name says of a metric."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from bocb_tune.analysis.sources.table import CELL, MEASURED, SourceError
from bocb_tune.core.types import Direction

REQUIRED = (*CELL, "score")
TEXTS = ("trial", "phase", "status", "audit", "message")
NUMBERS = ("lr", "weight_decay", "seed", "score", "budget", "max_budget", "elapsed_s", *MEASURED)

PREFIX = re.compile(
    r"^(config|params?|hparams|hyper_?param(?:eter)?s|user_attrs|metrics?|summary|tags)(?:[/.]|(?<=s)_)"
)
"""Prefixes under which Ray, Weights & Biases, MLflow and Optuna export what a run was given and what it gave."""
OUTCOMES = ("metric", "metrics", "summary", "tags")
"""Prefixes of what a run gave."""

# Names in lower case without anything but letters and digits, beside the field's own.
ALIASES = {
    "backbone": ("model", "modelname", "arch", "architecture", "network"),
    "optimizer": ("optimiser", "optim", "opt", "optimizername"),
    "lr": (
        "learningrate",
        "baselr",
        "peaklr",
        "maxlr",
        "initlr",
        "initiallr",
        "learningrateinit",
        "initiallearningrate",
    ),
    "weight_decay": ("wd", "weightdecayrate"),
    "seed": ("randomseed",),
    "budget": ("epoch",),
    "max_budget": ("maxepochs", "totalepochs", "numepochs", "fullbudget"),
    "elapsed_s": ("elapsedseconds", "seconds", "times", "runtimes", "walltimes", "durations", "timetotals"),
    "trial": ("trialid", "run", "runid"),
    "status": ("state",),
}
FIELD_OF = {
    alias: field
    for field in dict.fromkeys((*CELL, *TEXTS, *NUMBERS))
    if field != "score"
    for alias in (field.replace("_", ""), *ALIASES.get(field, ()))
}
SECOND = {
    **dict.fromkeys(("epochs", "trainingiteration", "trainingiterations"), "budget"),
    **dict.fromkeys(("name", "runname", "trialname", "id", "number", "mlflowrunname"), "trial"),
}
"""Names that are read as a field where no other column is."""
EPOCHS = "epochs"
"""Names of planned epochs, beside a column of epochs done."""
SIGNS = {"lr": r"(?:^|_)lr(?:_|$)|learning_?rate", "weight_decay": r"(?:^|_)wd(?:_|$)|(?:weight|l2)_?decay"}
"""Patterns of names, in lower case with an underscore for each gap, that look like a field's without being known."""
NOT_USED = "Columns not used"
"""Beginning of the note on them."""
# Names that tell a time and no unit.
TIMES = ("time", "elapsed", "runtime", "walltime", "duration", "trainingtime", "traintime")

ACCURACIES = ("score", "acc", "acc1", "accuracy", "top1", "top1acc", "top1accuracy", "meanaccuracy")
OTHERS_UP = ("auc", "auroc", "rocauc", "f1", "f1score", "map", "miou", "iou", "bleu", "ssim", "r2")
AMOUNTS_UP = ("psnr", "reward", "return", "loglikelihood")
ERRORS = ("error", "err", "errorrate", "err1", "top1error", "top1err", "classificationerror", "wer", "cer")
AMOUNTS_DOWN = (
    *("loss", "nll", "crossentropy", "crossentropyloss", "perplexity", "ppl", "mse", "rmse", "mae"),
    *("fid", "bpc", "bpd", "bpb", "regret", "meanloss"),
)
UNCLEAR = ("value", "objective", "objectivevalue", "target")
METRICS = (ACCURACIES, (*OTHERS_UP, *AMOUNTS_UP), UNCLEAR, (*ERRORS, *AMOUNTS_DOWN))
"""Names of metrics, those first that are taken for the score first."""
AMOUNTS = (*AMOUNTS_UP, *AMOUNTS_DOWN)
"""Metrics that are no shares of 1 or of 100."""

# Data that a metric's name may say it was measured on; settings are never selected by the training data.
VALIDATION, TEST, TRAIN = ("val", "valid", "validation", "eval"), ("test",), ("train", "training")
UNITS = {"points": r"%|percent|pct|points?", "fraction": r"fraction|0 ?\.\. ?1"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of a table, understood."""

    name: str
    """Name, as the table has it."""
    plain: str
    """Name in lower case letters and digits, without prefix."""
    field: str | None
    """Field it is read as; None if it is not used."""
    metric: str | None = None
    """The metric that the name tells, without what it was measured on: `loss` of `val_loss`; None if it tells none."""
    unit: str | None = None
    """`points` (0..100) or `fraction` (0..1), where the name says so: `top1 (%)`, `score_points`, `acc_fraction`."""
    is_test: bool = False
    """Whether it is a metric whose name says that it is of test data: `test_acc`."""
    is_given: bool = False
    """Whether a prefix says that it is what a run was given: `config/lr`."""

    @property
    def direction(self) -> Direction | None:
        """Direction in which the metric is better, as far as its name says."""
        if self.metric is None or self.metric in UNCLEAR:
            return None
        return Direction.min if self.metric in (*ERRORS, *AMOUNTS_DOWN) else Direction.max

    def is_amount(self, direction: Direction) -> bool:
        """Tell whether its values are no shares, however small they are; a metric unknown is one if it is minimised."""
        is_known = self.metric is not None and self.metric not in UNCLEAR
        return self.metric in AMOUNTS if is_known else direction is Direction.min


def understand(names: Iterable[str], metric: str | None = None) -> tuple[Column, ...]:
    """Understand the columns of a table, in its order.

    Args:
        names: of the columns.
        metric: the one that is the score; None for the first of `METRICS`, on validation data before test data.

    Raises:
        SourceError: if no column, or more than one, has the name of the metric.
    """
    columns = _one_each([_understand(name) for name in names])
    scores = [_called(metric, columns)] if metric is not None else _scores(columns)
    return tuple(replace(column, field="score" if column in scores else column.field) for column in columns)


def _understand(name: str) -> Column:
    lower = name.strip().lower()
    prefix = PREFIX.match(lower)
    lower = lower[prefix.end() :] if prefix else lower
    unit = next((unit for unit, words in UNITS.items() if re.search(words, lower)), None)
    split, metric = _metric(squashed(re.sub(UNITS[unit], "", lower) if unit else lower))
    plain = squashed(lower)
    return Column(
        name=name,
        plain=plain,
        field=FIELD_OF.get(plain) or SECOND.get(plain),
        metric=None if split in TRAIN else metric,
        unit=unit if metric else None,
        is_test=metric is not None and split in TEST,
        is_given=prefix is not None and prefix[1] not in OUTCOMES,
    )


def _metric(plain: str) -> tuple[str, str | None]:
    """Read off a metric's name what it was measured on, if it says so, and the metric; `score` takes the sign of a word
    beside it.
    """
    known = [name for names in METRICS for name in names]
    for split in ("", *sorted((*VALIDATION, *TEST, *TRAIN), key=len, reverse=True)):
        for rest in (plain.removeprefix(split), plain.removesuffix(split)) if split in plain else ():
            for metric in (rest, rest.removesuffix("score"), rest.removeprefix("score")):
                if metric in known:
                    return split, metric
    return "", None


def _one_each(columns: list[Column]) -> list[Column]:
    """Keep one column per field, where one has the better claim: one that a run was given, then one with a field's own
    name.
    """
    if any(column.field == "budget" and column.plain != EPOCHS for column in columns):
        columns = [replace(column, field="max_budget") if column.plain == EPOCHS else column for column in columns]
    chosen: list[Column] = []
    for column in columns:
        rivals = [other for other in columns if other.field == column.field and column.field]
        beaten = any(_claim(other) < _claim(column) for other in rivals)
        chosen.append(replace(column, field=None) if beaten else column)
    return chosen


def _claim(column: Column) -> tuple[bool, int]:
    """Rank a column's claim, the smaller the better; what a run measured may bear the name of what it was given: the
    learning rate now.
    """
    second = list(SECOND).index(column.plain) + 1 if column.plain in SECOND else 0
    return not column.is_given, second


def _scores(columns: Sequence[Column]) -> list[Column]:
    """Keep those that may be the score: of the first kind there is, of validation data where there are any."""
    found = [column for column in columns if column.metric and column.field is None]
    if not found:
        return []
    first = min(map(_rank, found))
    return [column for column in found if _rank(column) == first]


def _rank(column: Column) -> tuple[int, bool]:
    kind = next(rank for rank, names in enumerate(METRICS) if column.metric in names)
    return kind, column.is_test


def _called(metric: str, columns: Sequence[Column]) -> Column:
    """Find the column that `--metric` names."""
    found = named(metric, columns)
    if len(found) == 1 and found[0].field is None:
        return found[0]
    if found and found[0].field is not None:
        raise SourceError(f"--metric {metric}: the column is read as {found[0].field!r}, which is no score")
    raise SourceError(f"--metric {metric}: {_no_such_column(metric, columns)}")


def named(name: str, columns: Sequence[Column]) -> list[Column]:
    """Find the columns of this name: as it is, else whatever its case and prefix."""
    exact = [column for column in columns if column.name.strip() == name.strip()]
    return exact or [
        column for column in columns if squashed(name.lower()) in (column.plain, squashed(column.name.lower()))
    ]


def one_named(name: str, columns: Sequence[Column], option: str) -> Column:
    """Find the column of this name.

    Raises:
        SourceError: if there is none, or more than one; `option` is what asked.
    """
    found = named(name, columns)
    if len(found) != 1:
        raise SourceError(f"{option}: {_no_such_column(name, columns)}")
    return found[0]


def _no_such_column(name: str, columns: Sequence[Column]) -> str:
    names = [column.name for column in columns]
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"the table has no one column {name!r}{hint} (found: {', '.join(names)})"


def unused_note(columns: Iterable[Column]) -> str | None:
    """Say which columns are not used; None if all are."""
    unused = sorted(column.name for column in columns if column.field is None)
    if not unused:
        return None
    times = [name for name in unused if squashed(name.lower()) in TIMES]
    hint = f" ({times[0]!r} has no unit: call it 'elapsed_s' if it holds seconds)" if times else ""
    return f"{NOT_USED}: {', '.join(unused)}{hint}."


def lookalikes(columns: Iterable[Column]) -> dict[str, str]:
    """Find a column that may hold the learning rate or the weight decay where none is read as that: its name, by
    field."""
    known = list(columns)
    fields = {column.field for column in known}
    unused = [column.name for column in known if column.field is None and column.metric is None]
    spelt = {name: re.sub(r"[^a-z0-9]+", "_", name.strip().lower()) for name in unused}
    found = {
        field: next((name for name in unused if re.search(sign, spelt[name])), None)
        for field, sign in SIGNS.items()
        if field not in fields
    }
    return {field: name for field, name in found.items() if name is not None}


def squashed(name: str) -> str:
    """Keep letters and digits alone."""
    return re.sub(r"[^a-z0-9]", "", name)
