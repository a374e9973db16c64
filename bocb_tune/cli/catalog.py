"""Catalog of everything there is to choose from, for `bocb-tune list`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, asdict
from fnmatch import fnmatchcase
from typing import Any, Literal

from bocb_tune.backbones import BACKBONES, FULL, SMALL
from bocb_tune.core.names import unknown
from bocb_tune.data import DATASETS
from bocb_tune.optimizers import OPTIMIZERS
from bocb_tune.spec.experiment_file import RecipeFile
from bocb_tune.spec.space_file import load_space
from bocb_tune.tasks import TASKS, get_task
from bocb_tune.training.recipes import DEFAULTS, DESCRIPTIONS, PUBLISHED_EPOCHS, RECIPES, Recipe

Kind = Literal["optimizers", "backbones", "datasets", "recipes", "tasks"]


def catalog(kind: Kind, pattern: str | None = None) -> list[dict[str, Any]]:
    """List the entries of a kind: the `name`, a `description` of one line, and whatever else is known of each.

    Args:
        kind: what is listed.
        pattern: a glob on the name, or a part of it; case does not matter.

    Raises:
        ValueError: if no name is like the pattern.
    """
    rows: list[dict[str, Any]] = {
        "optimizers": _optimizers,
        "backbones": _backbones,
        "datasets": _datasets,
        "recipes": _recipes,
        "tasks": _tasks,
    }[kind]()
    if pattern is None:
        return rows
    glob = pattern.lower() if set(pattern) & set("*?[") else f"*{pattern.lower()}*"
    found = [row for row in rows if fnmatchcase(row["name"].lower(), glob)]
    if not found:
        raise unknown(kind.removesuffix("s"), pattern, [row["name"] for row in rows])
    return found


def _optimizers() -> list[dict[str, Any]]:
    rows = []
    for name, row in OPTIMIZERS.items():
        space = load_space(name)
        ranges = f"lr {space.lr}, weight decay {space.weight_decay} ({row.decay})"
        takes = f"arguments {', '.join(row.takes)}" if row.takes else "no other arguments"
        described = f"{row.family}; {ranges}; {takes}; {row.target}; {row.source}"
        rows.append({**asdict(row), "description": described, "search_space": asdict(space)})
    return rows


def _backbones() -> list[dict[str, Any]]:
    """List the table's own first, then what else each task has."""
    tasks = {name: task for task in reversed(TASKS) for name in get_task(task).backbones()}  # of several, the first
    own = [name for name in BACKBONES if name in tasks]
    return [_backbone(name, tasks[name]) for name in dict.fromkeys([*own, *tasks])]


def _backbone(name: str, task: str) -> dict[str, Any]:
    row = BACKBONES.get(name)
    if row is None:
        return {"name": name, "description": task, "task": task}
    counts = f"{row.params_m:g} M parameters, {row.macs_g:g} G multiplications at {FULL} ({row.source})"
    described = f"{task}; {row.family}; {counts}; images up to {SMALL} pixels: {row.small}"
    return {"name": name, "description": described, "task": task, **asdict(row)}


def _datasets() -> list[dict[str, Any]]:
    return [
        {**asdict(row), "description": f"{row.description}; {_options(row.options)}; {row.source}"}
        for row in DATASETS.values()
    ]


def _options(options: Mapping[str, Any]) -> str:
    shown = (option if default is None else f"{option} {default!r}" for option, default in options.items())
    return f"options: {', '.join(shown)}" if options else "no options"


def _recipes() -> list[dict[str, Any]]:
    return [_recipe(name, recipe) for name, recipe in RECIPES.items()]


def _recipe(name: str, recipe: Recipe) -> dict[str, Any]:
    values, epochs = asdict(recipe), PUBLISHED_EPOCHS.get(name)
    shown = ", ".join(f"{field}: {value}" for field, value in values.items() if value != DEFAULTS[field])
    published = f"; published with {epochs} epochs" if epochs else ""
    return {
        "name": name,
        "description": f"{DESCRIPTIONS[name]}{published}; {{{shown}}}",
        "published_epochs": epochs,
        **values,
    }


def recipe_keys() -> list[str]:
    """Give a line for each key of a recipe: its default and what it is."""
    notes = RecipeFile.model_fields
    width = max(map(len, DEFAULTS))
    return [
        f"{key:<{width}}  {'required' if value is MISSING else value!s}: {notes[key].description}".replace("\n", " ")
        for key, value in DEFAULTS.items()
    ]


def _tasks() -> list[dict[str, Any]]:
    return [
        {
            **{"name": name, "description": f"{row.description}; {_options(row.options)}"},
            **{"takes": row.takes, "options": dict(row.options), "ignores": list(row.ignores)},
        }
        for name, row in TASKS.items()
    ]
