"""What the pages tell a reader to write or to type is what the program takes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

import bocb_tune
from bocb_tune.analysis.coupling import shares
from bocb_tune.analysis.landscape import fit
from bocb_tune.analysis.matrix import cells, concordance, contrasts, twoway
from bocb_tune.analysis.recommend import ranking
from bocb_tune.cli import main as cli
from bocb_tune.spec.model import load_spec

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
WRITTEN_BEFORE = ("LOG.md",)
"""Pages that tell what was, not what is."""


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a page in a language; '' for those that name none."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [text for named, text in fenced if named == language]


def test_every_test_that_the_fault_table_names_is_there() -> None:
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs" / "CLUSTER.md").read_text(encoding="utf-8")))
    sources = (path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    there = {name for source in sources for name in re.findall(r"^def (test_\w+)", source, re.MULTILINE)}
    assert len(named) > 15
    assert named - there == set()


EXPERIMENTS = [
    (page, text) for page in PAGES for text in blocks(page, "yaml") if re.search(r"^name:", text, re.MULTILINE)
]


@pytest.mark.parametrize(("page", "text"), EXPERIMENTS, ids=lambda value: getattr(value, "stem", ""))
def test_a_whole_experiment_on_a_page_loads(tmp_path: Path, page: Path, text: str) -> None:  # noqa: ARG001
    path = tmp_path / "experiment.yaml"
    path.write_text(text)
    assert load_spec(path).backbones
    assert text.startswith("# yaml-language-server: $schema=./schema.json")


def typed() -> list[tuple[str, str]]:
    """Every command of ours that a page shows, to the comment or the explanation beside it."""
    found = []
    for page in (page for page in PAGES if page.name not in WRITTEN_BEFORE):
        lines = [line for block in blocks(page, "") for line in block.splitlines()]
        commands = (re.split(r"\s{2,}|\s#\s", line)[0] for line in lines if line.startswith("bocb-tune "))
        found += [(page.name, command) for command in commands]
    return found


@pytest.mark.parametrize(("page", "command"), typed())
def test_a_command_on_a_page_parses(page: str, command: str) -> None:  # noqa: ARG001
    group: Any = typer.main.get_command(cli.app)
    _, name, *args = shlex.split(command.split(" [")[0].split(" > ")[0])
    assert group.commands[name].make_context(name, args).args == []


def test_the_readme_says_how_to_get_the_schema_and_the_command() -> None:
    assert ("README.md", "bocb-tune schema > schema.json") in typed()
    assert ". .venv/bin/activate" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_functions_that_the_readme_calls_are_there() -> None:
    (block,) = blocks(ROOT / "README.md", "python")
    assert set(re.findall(r"bocb_tune\.(\w+)\(", block)) == set(bocb_tune.__all__) - {"__version__"}


def test_the_least_numbers_are_those_that_the_analysis_refuses_below() -> None:
    page = (ROOT / "docs" / "BUDGET.md").read_text(encoding="utf-8")
    least = [row.split("|")[2].strip() for row in page.splitlines() if row.startswith("| ")][2:]
    grids = (twoway.MIN_SHARE_SHAPE, shares.MIN_INDEX_SHAPE, concordance.MIN_CONCORDANCE_SHAPE)
    assert least == [
        f"{fit.MIN_TRIALS} trials in the cell, {fit.MIN_COMPLETED} of them at full budget",
        f"{cells.MIN_SEEDS_FOR_INTERVAL} seeds",
        *(f"{backbones} backbones x {optimizers} optimizers" for backbones, optimizers in grids),
        f"{contrasts.MIN_A_CLASS} backbones a class",
        f"{ranking.MIN_BACKBONES} backbones x {ranking.MIN_OPTIMIZERS} optimizers",
    ]
