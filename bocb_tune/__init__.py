"""bocb-tune: how sensitive a vision backbone and its optimizer are to their hyperparameters.

Three functions do from Python what the command line does: `run` trains an experiment, `load` reads trials into a table,
`analyze` writes the report. Each takes back what was there before, and imports what it needs when it is called.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bocb_tune.core.version import VERSION as __version__

if TYPE_CHECKING:
    from pathlib import Path

    from bocb_tune.analysis.sources.table import TrialTable

__all__ = ["__version__", "analyze", "load", "run"]

AnyPath = str | os.PathLike[str]


def run(
    experiment: AnyPath,
    *,
    out: AnyPath | None = None,
    address: str | None = None,
    only: str = "*",
    overrides: Sequence[str] = (),
) -> Path:
    """Train what an experiment still owes; running it again resumes or extends it. How far it is goes to stderr.

    Args:
        experiment: the experiment file (YAML).
        out: the run folder, a path or a URI such as `s3://bucket/runs/mine`; `storage`/`name` of the experiment by
            default.
        address: a Ray cluster to attach to, such as `auto`; Ray is started on this machine by default.
        only: cells to train, by `BACKBONE/OPTIMIZER`, such as `*/sgd`.
        overrides: `PATH=VALUE` each, such as `budget.epochs=3`.

    Returns:
        The run folder; of a URI, the copy of it on this machine. Trials that failed are in it, with their messages, and
        are tried again by the next call.

    Raises:
        ValueError: if the experiment, the data, the folder or the cluster are not as they must be; the message says
            where and what to do.
        OSError: if the run folder cannot be written.
        KeyboardInterrupt: if it was stopped by Ctrl-C, after the epochs in flight; nothing is lost.
    """
    from bocb_tune.cli.commands import train

    trained = train(_path(experiment), None if out is None else _path(out), address, only, _each(overrides))
    if trained.outcome.interrupted:
        raise KeyboardInterrupt
    return trained.folder


def load(
    source: AnyPath,
    *,
    spaces: Sequence[AnyPath] = (),
    metric: str | None = None,
    direction: str | None = None,
    tolerance: str | None = None,
    chance: float | None = None,
    where: Sequence[str] = (),
) -> TrialTable:
    """Read trials, whoever made them.

    Args:
        source: a run folder or its URI (finished or not), a CSV, TSV or Parquet table of trials, or a published table
            such as `paper:cifar100`.
        spaces: search spaces that the trials of a table were drawn from, files or folders.
        metric: the column of a table that is the score.
        direction: `max` or `min`: which way the metric is better.
        tolerance: what may be lost for nothing, in the metric's unit, or as a share of its best value such as `2%`.
        chance: what a failed run of a table scores.
        where: `COLUMN=VALUE` each: the rows of a table to keep.

    Returns:
        `trials`, a pandas DataFrame with one row per trial (its score larger where it is better, see `objective`);
        `curves`, with one row per measurement; `notes` and `cautions`, what was inferred, converted or left out.

    Raises:
        ValueError: if the source or a search space cannot be read; the message says where and what to do.
    """
    from pathlib import Path

    from bocb_tune.analysis.sources.load import load as read
    from bocb_tune.analysis.sources.stated import Stated

    stated = Stated(metric=metric, direction=direction, tolerance=tolerance, chance=chance, where=_each(where))
    return read(_path(source), [Path(_path(space)) for space in _each(spaces)], stated=stated)


def analyze(
    source: AnyPath,
    *,
    out: AnyPath | None = None,
    spaces: Sequence[AnyPath] = (),
    patterns: bool = False,
    metric: str | None = None,
    direction: str | None = None,
    tolerance: str | None = None,
    chance: float | None = None,
    where: Sequence[str] = (),
    gap: float | None = None,
    step: float | None = None,
    weights: Sequence[float] | None = None,
    components: int | None = None,
) -> Path:
    """Write the report of some trials: a page, and its numbers as `metrics.json` and tables beside it.

    Args:
        source: as of `load`, and so are `spaces`, `metric`, `direction`, `tolerance`, `chance` and `where`.
        out: the report folder; `report` within a run folder, or here for another source.
        patterns: whether to read the kept checkpoints of a run for the spectra of their weights.
        gap: points of the paper's Eq. 1; 3 by default, and 1 for its ImageNet table.
        step: decades of one step of a setting, where settings were searched continuously; 1/3 by default.
        weights: of performance, settings, coupling and computation in the overall rank; .4, .2, .2, .2 by default.
        components: principal components whose energy is drawn; 10 by default.

    Returns:
        Path of `report.html`.

    Raises:
        ValueError: as `load`, and if there are no checkpoints to read.
        OSError: if the report folder cannot be written.
    """
    from pathlib import Path

    from bocb_tune.analysis.bocb.choices import choose
    from bocb_tune.analysis.report.write import analyze as write
    from bocb_tune.analysis.sources.stated import Stated
    from bocb_tune.cli.launch import starting_weights

    stated = Stated(metric=metric, direction=direction, tolerance=tolerance, chance=chance, where=_each(where))
    folder = None if out is None else Path(_path(out))
    choices = choose(gap, step, None if weights is None else ",".join(map(str, weights)), components)
    start = starting_weights if patterns else None
    ranges = [Path(_path(space)) for space in _each(spaces)]
    return write(_path(source), folder, ranges, patterns, stated, choices, start)


def _path(place: AnyPath) -> str:
    """Write a place as text, with the home folder in the place of a leading tilde."""
    return os.path.expanduser(os.fspath(place))


def _each(values: Any) -> tuple[Any, ...]:
    """Take one text or path for a sequence of one."""
    return (values,) if isinstance(values, str | os.PathLike) else tuple(values)
