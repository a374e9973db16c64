"""Experiments that are run one after the other, each of which may start from what those before it have trained."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from bocb_tune.core.names import unknown
from bocb_tune.core.storage import is_uri
from bocb_tune.spec.source import Document, SpecError, read_source
from bocb_tune.spec.strict import StrictModel, explain, type_errors

KEY = "experiments"


class SeriesFile(StrictModel):
    """A series: the experiment files that are run one after the other."""

    experiments: Annotated[tuple[str, ...], Field(strict=False, min_length=1)]
    """Experiment files, as seen from the folder of this one."""


def experiments_in(path: str | Path) -> tuple[str, ...]:
    """Return the experiment files of a series in their order; of any other file, itself.

    Raises:
        SpecError: if the file is a series with errors, or cannot be read.
    """
    if is_uri(str(path)):
        return (str(path),)
    source = read_source(path)
    if KEY not in source.value:
        return (str(path),)
    if errors := type_errors(SeriesFile, source.value):
        raise SpecError([source.problem(error["loc"], explain(SeriesFile, error)) for error in errors])
    folder, names = Path(path).parent, SeriesFile.model_validate(source.value).experiments
    problems = [
        source.problem((KEY, index), message)
        for index, name in enumerate(names)
        if (message := _fault(folder, name, names[:index]))
    ]
    if problems:
        raise SpecError(problems)
    return tuple(str(folder / name) for name in names)


def _fault(folder: Path, name: str, before: tuple[str, ...]) -> str:
    """Say why a file cannot be an experiment of a series; empty if it can."""
    if name in before:
        return f"{name} is named twice; leave one out"
    if not (folder / name).is_file():
        return str(unknown("file", name, [each.name for each in sorted(folder.glob("*.yaml"))]))
    if KEY in read_source(folder / name).value:
        return f"{name} is a series itself; name its experiments here"
    return ""


def require_one(source: Document) -> None:
    """Refuse a series where one experiment is wanted.

    Raises:
        SpecError: naming the first experiment of the series.
    """
    if KEY in source.value:
        message = "a series of experiments, for check, plan and run; give one of its files instead"
        raise SpecError([source.problem((KEY,), message)])
