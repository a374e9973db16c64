"""The form of docstrings: functions begin with a verb, all else with a noun, errors stand under `Raises:`."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.test_imports import FILES, PACKAGE

VERBS = frozenset(
    re.findall(
        r"\w+",
        """
        act add adjust analyse answer arrange ask attach attend augment average begin blend bound bring build carry
        centre change check choose classify collate collect combine compare complete compute convert copy count cut
        decide decode delete derive describe divide draw drop encode end erase escape estimate evaluate feed fetch
        fill find fingerprint fit flip fold format gather give group hash have hear hold initialise integrate
        interpolate invert join judge keep label lay learn leave let limit list load locate look make map mark measure
        merge mix model moderate move multiply name number open order pack pair parse part pass pause pick place plan
        predict prepare print project put raise rank reach read rebuild recommend record reduce refuse remove repeat
        replace report require resample resize resolve restore restrict return run save say scale score see seed
        select send separate set shape shift shorten show shrink simulate smooth sort span split square stack
        standardise start state store stretch strip subtract sum summarise switch tabulate take tell test title trace
        train transform try tune turn understand undo update wait warn weigh widen write yield
        """,
    )
)
"""Verbs that the docstrings of functions begin with; add one here where none of these says it."""

NO_NOUN = frozenset(
    re.findall(
        r"\w+",
        """
        of by for from in on with without at to as over under beside between that had told such per after before
        through against about what where when how which if not also only
        """,
    )
)
"""Openings after which a reader has to supply the noun."""

ERROR = re.compile(r"\b[A-Z]\w*Error\b")


def fields(node: ast.ClassDef | ast.Module) -> Iterator[tuple[int, str]]:
    """The strings that stand under an assignment, with their lines."""
    for before, after in zip(node.body, node.body[1:], strict=False):
        if isinstance(before, ast.Assign | ast.AnnAssign) and isinstance(after, ast.Expr):
            value = after.value
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                yield after.lineno, value.value


def is_property(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any("property" in ast.unparse(decorator) for decorator in node.decorator_list)


def faults(tree: ast.Module) -> Iterator[str]:
    """What is wrong with the docstrings of a module, each with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (text := ast.get_docstring(node)):
            yield from (f"{node.lineno}: {node.name}: {fault}" for fault in of_function(text, is_property(node)))
        elif isinstance(node, ast.ClassDef | ast.Module):
            texts = [(getattr(node, "lineno", 1), ast.get_docstring(node) or ""), *fields(node)]
            openings = ((line, text.split()[0]) for line, text in texts if text)
            wrong = ((line, first) for line, first in openings if first.lower() in NO_NOUN)
            yield from (f"{line}: a field, class or module begins with a noun, not {first!r}" for line, first in wrong)


def of_function(text: str, is_property: bool) -> Iterator[str]:
    first = text.split()[0].lower().rstrip(".,:;")
    if is_property and first in NO_NOUN:
        yield f"a property begins with a noun, not {first!r}"
    if not is_property and first not in VERBS:
        yield f"a function begins with a verb, not {first!r}"
    if ERROR.search(text.partition("\nRaises:")[0]) and "Raises:" not in text:
        yield "errors stand under `Raises:`"


@pytest.mark.parametrize("path", sorted(FILES.values()), ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_docstrings_have_the_form(path: Path) -> None:
    assert list(faults(ast.parse(path.read_text(encoding="utf-8")))) == []


@pytest.mark.parametrize(
    ("source", "number"),
    [
        ('def f():\n    """The value."""\n', 1),
        ('def f():\n    """Return the value."""\n', 0),
        ('class A:\n    """What it is."""\n    x: int\n    """Of a thing."""\n', 2),
        ('class A:\n    """A thing."""\n    @property\n    def f(self):\n        """By name."""\n', 1),
        ('def f():\n    """Read it. ValueError: it is gone."""\n', 1),
        ('def f():\n    """Read it.\n\n    Raises:\n        ValueError: if it is gone.\n    """\n', 0),
        ('"""Where things are."""\n', 1),
    ],
)
def test_the_check_finds_what_is_wrong(source: str, number: int) -> None:
    assert len(list(faults(ast.parse(source)))) == number
