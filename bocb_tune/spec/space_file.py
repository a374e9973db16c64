"""The files that say where the hyperparameters of an optimizer may lie: `search_spaces/*.yaml`, and a user's own."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from bocb_tune.core.names import unknown
from bocb_tune.core.space import Dim, Scale, SearchSpace, own_names
from bocb_tune.spec.source import Document, Finding, SpecError, parse_source, read_source
from bocb_tune.spec.strict import StrictModel, explain, type_errors

Positive = Annotated[float, Field(gt=0)]
MOST_OWN = 3
"""Hyper-parameters of an optimizer's own that can be refined at once."""


class Range(StrictModel):
    """A closed range on a log scale."""

    low: Positive
    """Smallest value tried."""
    high: Positive
    """Largest value tried."""


class ZeroRange(Range):
    """A range with zero beside it."""

    zero: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the draws that are exactly zero; 0 leaves zero out."""


class OwnRange(StrictModel):
    """A closed range of a hyper-parameter that is the optimizer's own."""

    low: Annotated[float, Field(ge=0)]
    """Smallest value tried."""
    high: Positive
    """Largest value tried."""
    scale: Scale | None = None
    """log: decades of the value. log_complement: decades of 1 - value, for momentum and betas. null: log, or as
    shipped."""
    source: str | None = None
    """Source of the range."""


class DefaultSetting(StrictModel):
    """One setting of the tuned hyperparameters."""

    lr: Positive
    """Peak learning rate at the recipe's batch size."""
    weight_decay: Annotated[float, Field(ge=0)]
    """Weight decay as the optimizer's own argument."""


class Ranges(StrictModel):
    """Ranges of one optimizer's trials; what a file in search_spaces/ says beside them is not needed."""

    lr: Range
    weight_decay: ZeroRange | None = None
    """None where it was not searched."""
    default: dict[str, Any] | None = None
    fixed: dict[str, Any] | None = None
    decay: str | None = None
    source: str | None = None
    note: str | None = None
    own: dict[str, Any] | None = None


class SpaceFile(StrictModel):
    """Content of a file in search_spaces/."""

    lr: Range
    weight_decay: ZeroRange
    default: DefaultSetting
    fixed: dict[str, Any]
    decay: str
    source: Annotated[str, Field(min_length=1)]
    note: str = ""
    own: dict[str, OwnRange] = Field(default_factory=dict)
    """Ranges of what is the optimizer's own and `search.refine` moves."""

    def findings(self) -> Iterator[Finding]:
        """Find ranges upside down, and defaults outside their range."""
        for name, bounds, zero, default in self._dims():
            if bounds.low >= bounds.high:
                yield Finding((name,), _upside_down(bounds))
                continue
            dim = Dim(name=name, low=bounds.low, high=bounds.high, zero_mass=zero)
            if not dim.contains(default):
                yield Finding(("default", name), f"{default:g} lies outside {dim}; widen the range or move the default")

    def own_findings(self) -> Iterator[Finding]:
        """Find too many own ranges, ones that are none, and ones of what the optimizer does not have."""
        if len(self.own) > MOST_OWN:
            message = f"{len(self.own)} ranges are more than {MOST_OWN}; leave out all but {MOST_OWN}, by `NAME: null`"
            yield Finding(("own",), message)
        valid = own_names(self.fixed)
        for name, bounds in self.own.items():
            if name not in valid:
                yield Finding(("own", name), str(unknown("number among the fixed arguments", name, valid)))
            elif problem := _own_fault(bounds):
                yield Finding(("own", name), problem)

    def _dims(self) -> Iterator[tuple[str, Range, float, float]]:
        yield "lr", self.lr, 0.0, self.default.lr
        yield "weight_decay", self.weight_decay, self.weight_decay.zero, self.default.weight_decay

    def space(self, optimizer: str) -> SearchSpace:
        """Return the space it describes; only for a file without findings."""
        dims = {name: Dim(name=name, low=r.low, high=r.high, zero_mass=zero) for name, r, zero, _ in self._dims()}
        plain = self.model_dump(include={"default", "fixed", "decay", "source", "note"})
        own = {name: _own_dim(name, bounds) for name, bounds in self.own.items()}
        return SearchSpace(optimizer=optimizer, lr=dims["lr"], weight_decay=dims["weight_decay"], own=own, **plain)


def _own_dim(name: str, bounds: OwnRange) -> Dim:
    return Dim(name=name, low=bounds.low, high=bounds.high, scale=bounds.scale or "log")


def _own_fault(bounds: OwnRange) -> str | None:
    """Say what is wrong with a range; None if nothing is."""
    if bounds.low >= bounds.high:
        return f"upside down: low {bounds.low:g} is not below high {bounds.high:g}; swap them"
    if bounds.scale == "log_complement" and bounds.high >= 1:
        return f"high is {bounds.high:g}, and scale log_complement takes values below 1; lower it"
    if bounds.scale != "log_complement" and bounds.low == 0:
        return "low is 0, which has no logarithm; raise it, or write scale: log_complement for values below 1"
    return None


@cache
def available_spaces() -> tuple[str, ...]:
    """List the optimizers that have a search space, sorted."""
    files = resources.files("bocb_tune.search_spaces").iterdir()
    return tuple(sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml")))


@cache
def space_file(optimizer: str) -> SpaceFile:
    """Read the shipped file of an optimizer.

    Raises:
        ValueError: if there is none: no range is ever guessed.
    """
    if optimizer not in available_spaces():
        message = unknown("optimizer", optimizer, available_spaces())
        raise ValueError(f"{message}; a search space goes in search_spaces/{optimizer}.yaml")
    text = (resources.files("bocb_tune.search_spaces") / f"{optimizer}.yaml").read_text(encoding="utf-8")
    return _checked(parse_source(text, f"search_spaces/{optimizer}.yaml"))


def load_space(optimizer: str) -> SearchSpace:
    """Read the shipped search space of an optimizer.

    Raises:
        ValueError: if there is none.
    """
    return space_file(optimizer).space(optimizer)


def read_space(path: Path | str) -> SearchSpace:
    """Read a search space from a file in the format of search_spaces/*.yaml, named by its stem.

    Raises:
        SpecError: naming file and line of what is wrong.
    """
    return _checked(read_source(path)).space(Path(path).stem)


def read_ranges(path: Path | str) -> dict[str, dict[str, Dim]]:
    """Return where the trials of each optimizer could lie: `lr` and, where it was searched, `weight_decay`.

    Args:
        path: a file in the format of search_spaces/*.yaml, named after its optimizer, in which only `lr` is required;
            or one with such a mapping for each optimizer, `optimizer: {lr: {low, high}, ...}`.

    Raises:
        SpecError: naming file and line of what is wrong.
    """
    source = read_source(path)
    value = source.value
    is_one = not isinstance(value, dict) or "lr" in value or not value
    parts = {Path(path).stem: ((), value)} if is_one else {str(name): ((name,), part) for name, part in value.items()}
    problems, found = list(source.problems), {}
    for optimizer, (at, part) in parts.items():
        errors = type_errors(Ranges, part)
        problems += [source.problem((*at, *error["loc"]), explain(Ranges, error)) for error in errors]
        if not errors:
            found[optimizer] = dict(_ranges(Ranges.model_validate(part)))
            problems += [
                source.problem((*at, name), _upside_down(bounds))
                for name, bounds in found[optimizer].items()
                if bounds.low >= bounds.high
            ]
    if problems:
        raise SpecError(problems)
    return {
        optimizer: {
            name: Dim(name=name, low=bounds.low, high=bounds.high, zero_mass=getattr(bounds, "zero", 0.0))
            for name, bounds in dims.items()
        }
        for optimizer, dims in found.items()
    }


def _ranges(ranges: Ranges) -> Iterator[tuple[str, Range]]:
    yield "lr", ranges.lr
    if ranges.weight_decay is not None:
        yield "weight_decay", ranges.weight_decay


def _upside_down(bounds: Range) -> str:
    return f"upside down: low {bounds.low:g} is not below high {bounds.high:g}; swap them"


def _checked(source: Document) -> SpaceFile:
    errors = type_errors(SpaceFile, source.value)
    problems = [*source.problems, *(source.problem(error["loc"], explain(SpaceFile, error)) for error in errors)]
    if problems:
        raise SpecError(problems)
    file = SpaceFile.model_validate(source.value)
    problems = [source.problem(found.at, found.message) for found in (*file.findings(), *file.own_findings())]
    if problems:
        raise SpecError(problems)
    return file
