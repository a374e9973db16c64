"""docs/EXPERIMENT.md names every key of an experiment file, with its default and what it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from bocb_tune.spec.experiment_file import Choice, GridRecipeFile, SpecFile
from bocb_tune.training.recipes import DEFAULTS

PAGE = Path(__file__).parents[2] / "docs" / "EXPERIMENT.md"
NAMED = {
    "recipe.by_backbone": "BACKBONE",
    "resources.by_backbone": "BACKBONE",
    "search_spaces": "OPTIMIZER",
    "search_spaces.OPTIMIZER.own": "NAME",
}


def keys(shape: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """A row for each key of a shape and of those within."""
    for name, field in shape.model_fields.items():
        key = prefix + name
        default = "required" if field.is_required() else _shown(field.get_default(call_default_factory=True))
        if prefix == "recipe." and name in DEFAULTS:
            default = "of `base`" if DEFAULTS[name] is MISSING else f"of `base`, else {_shown(DEFAULTS[name])}"
        elif prefix.startswith("search_spaces.") and default == "null":
            default = "as shipped"
        elif prefix.startswith("resources.by_backbone.") and default == "null":
            default = "as others"
        yield f"| `{key}` | {default} | {' '.join((field.description or '').split())} |"
        inner = _shape_in(field.annotation)
        if inner is not None and inner is not Choice and key not in ("recipe.by_backbone",):
            yield from keys(inner, f"{key}.{NAMED[key]}." if key in NAMED else f"{key}.")


def _shape_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) is None:
        return None
    return next((found for arg in get_args(annotation) if (found := _shape_in(arg))), None)


def _shown(default: Any) -> str:
    if isinstance(default, BaseModel) or default == {}:
        return ""
    return "null" if default is None else f"`{str(default).lower() if isinstance(default, bool) else default}`"


def test_every_key_stands_on_the_page_as_the_program_has_it() -> None:
    page = PAGE.read_text(encoding="utf-8").splitlines()
    rows = list(keys(SpecFile))
    assert len(rows) > len(GridRecipeFile.model_fields) + len(SpecFile.model_fields)
    assert [row for row in rows if row not in page] == []


def test_the_page_names_no_key_that_is_gone() -> None:
    named = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    assert [row for row in named if row not in list(keys(SpecFile))] == []
