"""Reads a YAML file a user wrote, remembering on which line everything stood, so that an error can say where it is.

YAML 1.2 through ruamel.yaml (`1e-3` is a number, `no` a word). Aliases, tags and deep nesting are refused outright:
no file here needs them, and they are how a small file becomes a huge value or a Python object.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from ruamel.yaml import YAML
from ruamel.yaml.constructor import SafeConstructor
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent
from ruamel.yaml.nodes import MappingNode, Node, SequenceNode

MAX_BYTES = 100_000
"""Ten times a large experiment, resolved; a file of this size is refused or read within seconds."""
MAX_DEPTH = 20

Location = tuple[str | int, ...]
"""Keys and indices that lead to a value: `("optimizers", 1)`."""


class Finding(NamedTuple):
    """Something wrong with a value, before it is known where in which file that stands."""

    at: Location
    message: str
    needs: tuple[Location, ...] = ()
    """Other values the finding rests on; it is void when one of them is wrong in itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One error in a file, with its place."""

    file: str
    line: int | None
    field: str
    message: str

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return ": ".join(part for part in (place, self.field, self.message) if part)


class SpecError(ValueError):
    """Everything that is wrong with a file, by line."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(sorted(problems, key=lambda problem: (problem.line is None, problem.line or 0)))
        super().__init__("\n".join(map(str, self.problems)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A file's value with the line of each part, and the overrides laid over it."""

    file: str
    value: dict[str, Any]
    lines: dict[Location, int]
    problems: tuple[Problem, ...] = ()
    """Faults that reading could go on in spite of: duplicate keys."""
    overrides: dict[Location, str] = field(default_factory=dict)

    def problem(self, at: Location, message: str) -> Problem:
        """Give a finding its place: an override that set the value, or the nearest line that holds it."""
        at = self._existing(at)
        prefixes = [at[:length] for length in range(len(at), -1, -1)]
        for prefix in prefixes:
            if prefix in self.overrides:
                return Problem(file=f"--set {self.overrides[prefix]}", line=None, field=dotted(at), message=message)
        line = next(self.lines[prefix] for prefix in prefixes if prefix in self.lines)
        return Problem(file=self.file, line=line, field=dotted(at), message=message)

    def _existing(self, at: Location) -> Location:
        """Shorten a location to what the file has: `task.name` is just `task` in a file that says `task: synthetic`."""
        value: Any = self.value
        for depth, part in enumerate(at):
            if not isinstance(value, dict | list):
                return at[:depth]
            value = value.get(part, {}) if isinstance(value, dict) else value[int(part)]
        return at

    def with_overrides(self, overrides: Sequence[str]) -> Document:
        """Lay each `PATH=VALUE` over the source, VALUE being YAML.

        Raises:
            SpecError: naming every bad one.
        """
        value, origins, problems = copy.deepcopy(self.value), dict(self.overrides), []
        for text in overrides:
            try:
                at, new = _parse_override(text)
                _put(value, at, new)
            except ValueError as error:
                problems.append(Problem(file=f"--set {text}", line=None, field="", message=str(error)))
            else:
                origins[at] = text
        if problems:
            raise SpecError(problems)
        return replace(self, value=value, overrides=origins)


def dotted(at: Location) -> str:
    """Write a location as in messages: `("optimizers", 1)` as `optimizers[1]`, `("budget", "epochs")` as
    `budget.epochs`.
    """
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in at)
    return text.removeprefix(".")


def read_source(path: Path | str) -> Document:
    """Read the mapping in a YAML file.

    Raises:
        SpecError: if it is missing, unreadable or not plain YAML.
    """
    return parse_source(_read_text(Path(path)), str(path))


def parse_source(text: str, file: str) -> Document:
    """Read a mapping from YAML text; `file` is the name that errors use.

    Raises:
        SpecError: as `read_source`.
    """
    try:
        node, lines, value = _load(text)
    except MarkedYAMLError as error:
        message = " ".join(str(part) for part in (error.context, error.problem) if part)
        raise _file_error(file, f"not valid YAML: {message}{_hint(message)}", error.problem_mark.line + 1) from None
    except (YAMLError, ValueError) as error:
        raise _file_error(file, f"not valid YAML: {str(error).splitlines()[0]}") from None
    if not isinstance(node, MappingNode):
        found = "the file is empty" if node is None else f"found {type(value).__name__} {value!r:.40}"
        raise _file_error(file, f"must be a mapping of keys to values; {found}")
    problems = tuple(
        Problem(file=file, line=line, field=dotted(at), message=f"given twice, first on line {lines[at]}; keep one")
        for at, line in _duplicates(node)
    )
    return Document(file=file, value=value, lines=lines, problems=problems)


_HINTS = {
    r"'\t'": "indent with spaces, not tabs",
    "mapping values are not allowed": "look for a missing colon, quote or line break, here or one line above",
    "expected ',' or ']'": "close the list with ]",
    "expected ',' or '}'": "close the mapping with }",
    "expected a single document": "leave out the line ---",
}


def _hint(message: str) -> str:
    """Say what to do about a fault of YAML that users make often; empty for others."""
    return next((f"; {hint}" for sign, hint in _HINTS.items() if sign in message), "")


def _read_text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise _file_error(str(path), f"cannot be read: {error.strerror}") from None
    if len(data) > MAX_BYTES:
        raise _file_error(str(path), f"holds {len(data)} bytes; at most {MAX_BYTES} are read")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise _file_error(str(path), "is not a text file in UTF-8") from None


def _file_error(file: str, message: str, line: int | None = None) -> SpecError:
    return SpecError([Problem(file=file, line=line, field="", message=message)])


class _Plain(SafeConstructor):
    """Reads a date as the word it is: `name: 2025-03-01`."""


_Plain.add_constructor("tag:yaml.org,2002:timestamp", SafeConstructor.construct_yaml_str)


def _load(text: str) -> tuple[Node | None, dict[Location, int], Any]:
    """Parse a document: its node, the first line of each place in it, and its value."""
    _refuse_beyond_plain(text)
    yaml = YAML(typ="safe", pure=True)
    yaml.Constructor = _Plain
    constructor, _ = yaml.get_constructor_parser(text)
    constructor.allow_duplicate_keys = True
    node = constructor.composer.get_single_node()
    if node is None:
        return None, {}, None
    # Lines first: constructing checks fewer keys, and changes the node.
    return node, {(): 1, **dict(_lines(node))}, constructor.construct_document(node)


def _refuse_beyond_plain(text: str) -> None:
    depth = 0
    for event in YAML(typ="safe", pure=True).parse(text):
        depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
        if isinstance(event, AliasEvent):
            raise MarkedYAMLError(None, None, f"alias *{event.anchor} is not allowed; write it out", event.start_mark)
        if tag := getattr(event, "tag", None):
            raise MarkedYAMLError(None, None, f"tag {tag} is not allowed; leave it out", event.start_mark)
        if depth > MAX_DEPTH:
            raise MarkedYAMLError(None, None, f"nested deeper than {MAX_DEPTH} levels", event.start_mark)


def _children(node: Node, at: Location = ()) -> Iterator[tuple[Location, Node, int]]:
    """Yield location, node and line (of the key, where there is one) of everything below a node, duplicates
    included."""
    entries: list[tuple[Any, Node, int]] = []
    if isinstance(node, MappingNode):
        entries = [(_word(key), child, key.start_mark.line) for key, child in node.value]
    elif isinstance(node, SequenceNode):
        entries = [(index, child, child.start_mark.line) for index, child in enumerate(node.value)]
    for part, child, line in entries:
        yield (*at, part), child, line + 1
        yield from _children(child, (*at, part))


def _word(key: Node) -> str:
    if key.tag != "tag:yaml.org,2002:str":
        raise MarkedYAMLError(None, None, "a key must be a word; put it in quotes", key.start_mark)
    return str(key.value)


def _lines(node: Node) -> Iterator[tuple[Location, int]]:
    seen = set()
    for at, _, line in _children(node):
        if at not in seen:
            seen.add(at)
            yield at, line


def _duplicates(node: Node) -> Iterator[tuple[Location, int]]:
    seen = set()
    for at, child, line in _children(node):
        parent = (at, id(child))
        if at in seen and parent not in seen:
            yield at, line
        seen |= {at, parent}


def _parse_override(text: str) -> tuple[Location, Any]:
    path, equals, value = text.partition("=")
    if not equals or not all(path.split(".")):
        raise ValueError("must read PATH=VALUE, as in budget.epochs=3")
    try:
        return tuple(path.split(".")), _load(value)[2]
    except (YAMLError, ValueError) as error:
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ValueError(f"the value is not valid YAML: {problem}") from None


def _put(value: dict[str, Any], at: Location, new: Any) -> None:
    for depth, part in enumerate(at[:-1], start=1):
        value = value.setdefault(str(part), {})
        if not isinstance(value, dict):
            raise ValueError(f"{dotted(at[:depth])} is {value!r}, not a mapping; set it as a whole")
    value[str(at[-1])] = new
