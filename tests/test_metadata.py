"""What the package says it needs is what it imports, and what it was tested with."""

from __future__ import annotations

import sys
import tomllib
from importlib.metadata import packages_distributions, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.test_imports import FILES, imports

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
NEEDED = [Requirement(text) for text in (*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["hf"])]
PINNED_BY_ANOTHER = {"pydantic_core": "pydantic"}
"""Packages that another one brings along at exactly one version."""


def plain(name: str) -> str:
    return name.lower().replace("_", "-")


def test_every_imported_package_is_declared() -> None:
    names = {name.split(".")[0] for path in FILES.values() for name in imports(path)}
    outside = {PINNED_BY_ANOTHER.get(name, name) for name in names - set(sys.stdlib_module_names) - {"bocb_tune"}}
    makers = packages_distributions()
    declared = {plain(requirement.name) for requirement in NEEDED}
    assert len(outside) > 15
    assert [name for name in sorted(outside) if not {plain(maker) for maker in makers[name]} & declared] == []


@pytest.mark.parametrize("requirement", NEEDED, ids=lambda requirement: requirement.name)
def test_what_is_tested_here_is_what_is_asked_for(requirement: Requirement) -> None:
    """Lower bounds are the oldest versions that the tests were run on: on older ones they would fail here."""
    assert [each for each in requirement.specifier if each.operator == ">="]
    assert version(requirement.name) in requirement.specifier
