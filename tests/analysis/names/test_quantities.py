"""Every number stated is defined, and every definition is of a number stated."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bocb_tune.analysis.cell.metrics import METRICS
from bocb_tune.analysis.coupling.factor import FactorSplit
from bocb_tune.analysis.findings.comparison import Comparison
from bocb_tune.analysis.names.quantities import QUANTITIES, document
from bocb_tune.analysis.patterns.summary import PATTERNS
from bocb_tune.analysis.report.cards.columns import COLUMNS, heading
from bocb_tune.analysis.report.write import analyze
from tests.support.fakes import FakeRun, write_run

DOCUMENT = Path(__file__).parents[3] / "docs" / "METRICS.md"
NO_NUMBERS = {"objective", "schema", "floor", "level", "status"}
"""Keys of `metrics.json` whose numbers say nothing of an experiment."""
ONLY_COLUMNS = {"selected_score", "sd", "seeds", "found", "within_tolerance_of_tuned", "decades_of_best"}
ONLY_COLUMNS |= {"alpha_within"}
"""Numbers that only the report's tables have."""


@pytest.fixture(scope="module")
def stated(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """`metrics.json` of a run and of a published table."""
    run = write_run(tmp_path_factory.mktemp("run"), FakeRun(trials=4))
    pages = (analyze(str(run)), analyze("paper:imagenet", tmp_path_factory.mktemp("paper")))
    return [json.loads((page.parent / "metrics.json").read_text(encoding="utf-8")) for page in pages]


def numbers(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Path of keys to each number, an estimate counting as one whether it has a value or not."""
    if isinstance(value, dict) and {"value", "status"} <= set(value):
        yield path
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from numbers(each, (*path, key))
    elif isinstance(value, list):
        for each in value:
            yield from numbers(each, path)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield path


def keys(value: Any) -> Iterator[str]:
    """Every key of an object, at any depth."""
    if isinstance(value, dict):
        for key, each in value.items():
            yield key
            yield from keys(each)
    elif isinstance(value, list):
        for each in value:
            yield from keys(each)


def test_every_number_of_the_metrics_file_is_defined(stated: list[dict[str, Any]]) -> None:
    paths = [path for metrics in stated for path in numbers(metrics)]
    undefined = {path for path in paths if not set(path) & (set(QUANTITIES) | NO_NUMBERS)}
    assert undefined == set()


def test_every_definition_is_of_a_number_stated(stated: list[dict[str, Any]]) -> None:
    known = {key for metrics in stated for key in keys(metrics)} | {pattern.key for pattern in PATTERNS}
    known |= ONLY_COLUMNS | {"change"} | set(Comparison.__slots__) | set(FactorSplit.__slots__)
    assert set(QUANTITIES) - known == set()


def test_every_row_of_the_tables_of_metrics_is_defined() -> None:
    assert {metric.key for metric in METRICS} | {pattern.key for pattern in PATTERNS} <= set(QUANTITIES)


def test_the_document_is_made_of_the_rows() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert text == document(), "python -m bocb_tune.analysis.names.quantities > docs/METRICS.md"
    headings = [line.removeprefix("### ") for line in text.splitlines() if line.startswith("### ")]
    assert headings == list(QUANTITIES)


@pytest.mark.parametrize("key", QUANTITIES)
def test_a_definition_is_whole(key: str) -> None:
    quantity = QUANTITIES[key]
    assert quantity.key == key
    assert quantity.better in ("", "higher", "lower")
    assert quantity.definition.endswith(".")
    assert "_" not in quantity.name
    assert quantity.hint.startswith(quantity.definition)


@pytest.mark.parametrize("column", [*COLUMNS, *QUANTITIES, "rank_at_16", "within_2_of_best", "Optuna's_fanova"])
def test_headings_are_words_with_a_definition(column: str) -> None:
    words, hint = heading(column)
    assert "_" not in words
    assert hint.endswith((".", "better."))


def test_a_column_that_speaks_for_itself_has_no_definition() -> None:
    assert heading("some_column") == ("some column", "")
