"""An experiment: one YAML file in, every error at once with its place, one complete and frozen value out."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from bocb_tune.core.space import Dim, SearchSpace
from bocb_tune.core.storage import is_uri, join
from bocb_tune.data import DATASETS, resolve_options
from bocb_tune.spec.checks import CHECKS, Check, merged_space, sound_recipe
from bocb_tune.spec.experiment_file import Budget, Choice, Repeats, Resources, Search, SpecFile
from bocb_tune.spec.pretrained import ANY
from bocb_tune.spec.series import require_one
from bocb_tune.spec.source import Finding, Location, SpecError, read_source
from bocb_tune.spec.space_file import space_file
from bocb_tune.spec.strict import explain, like, type_errors
from bocb_tune.tasks import TASKS
from bocb_tune.training.recipes import Recipe, on_devices

__all__ = ["ExperimentSpec", "Selection", "SpecError", "dump_resolved", "load_spec", "resolved"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """A task or dataset by name, with every option it has."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentSpec:
    """The resolved experiment: what the file says, and every default it leaves unsaid."""

    name: str
    task: Selection
    dataset: Selection
    backbones: tuple[str, ...]
    pretrained: Mapping[str, Mapping[str, str]]
    """Sources of weights by name, and by backbone or `*` (see `bocb_tune.spec.pretrained`)."""
    optimizers: tuple[str, ...]
    base_recipe: str
    """Name the recipe was derived from."""
    recipe: Recipe
    own_recipes: Mapping[str, tuple[str, Recipe]]
    """Per-backbone overrides: (base recipe name, resolved recipe)."""
    budget: Budget
    search: Search
    repeats: Repeats
    seed: int
    resources: Resources
    storage: str
    search_spaces: Mapping[str, SearchSpace]
    """One for each of `optimizers`."""

    def recipe_of(self, backbone: str) -> tuple[str, Recipe]:
        """Return what a backbone of the grid is trained by, after the name it was derived from."""
        name, recipe = self.own_recipes.get(backbone, (self.base_recipe, self.recipe))
        return name, on_devices(recipe, gpus=self.resources.of(backbone).gpus_per_worker > 0)

    @property
    def num_search(self) -> int:
        """Trials of the search phase of a cell."""
        return self.budget.trials_per_cell - 1 - self.search.design

    @property
    def run_dir(self) -> str:
        """The run folder, a path or a URI, unless another is given."""
        storage = self.storage if is_uri(self.storage) else str(Path(self.storage).expanduser())
        return join(storage, self.name)


def load_spec(
    path: Path | str,
    overrides: Sequence[str] = (),
    checks: Sequence[Check] = (),
    cautions: Sequence[Check] = (),
    warn: Callable[[str], object] = lambda _: None,
) -> ExperimentSpec:
    """Load the experiment in a file, with `PATH=VALUE` overrides laid over it.

    Args:
        path: the experiment file.
        overrides: `PATH=VALUE` each, VALUE being YAML.
        checks: looked at besides those that need nothing but the file, such as `bocb_tune.spec.environment.backbones`.
        cautions: checks whose findings keep nothing from running.
        warn: told each finding of the cautions, with its place, also of a file that has errors.

    Raises:
        SpecError: with every problem found.
    """
    source = read_source(path)
    require_one(source)
    source = source.with_overrides(overrides)
    errors = type_errors(SpecFile, source.value)
    broken = [_whole(error["loc"]) for error in errors]
    file = SpecFile.model_validate(_mended(source.value, broken))
    findings = [Finding(error["loc"], explain(SpecFile, error)) for error in errors]
    findings += [found for check in (*CHECKS, *checks) for found in check(file) if not _void(found, broken)]
    for found in (found for caution in cautions for found in caution(file) if not _void(found, broken)):
        warn(str(source.problem(found.at, found.message)))
    problems = [*source.problems, *(source.problem(found.at, found.message) for found in findings)]
    if problems:
        raise SpecError(problems)
    return _resolve(file)


STAND_IN: dict[str, Any] = {
    "name": "stand-in",
    "task": {"name": "stand-in"},
    "dataset": {"name": "stand-in"},
    "backbones": ["stand-in"],
    "optimizers": ["sgd"],
    "recipe": {"base": "digits"},
    "budget": {"epochs": 1, "trials_per_cell": 1},
}
"""Takes the place of a required value that is broken, so that the rest of the file can still be checked."""


def _whole(at: Location) -> Location:
    """Take a backbone's own recipe, or an optimizer's own range, out whole: they have required keys and no stand-in."""
    if at[:2] == ("recipe", "by_backbone"):
        return at[:3]
    return at[:4] if at[:1] == ("search_spaces",) and at[2:3] == ("own",) else at


def _mended(value: dict[str, Any], broken: Sequence[Location]) -> dict[str, Any]:
    value = deepcopy(value)
    for at in broken:
        _mend(value, at, STAND_IN)
    return value


def _mend(value: dict[Any, Any], at: Location, stand_in: Any) -> None:
    """Put the stand-in, or nothing, in the place of the innermost mapping entry on the way to `at`."""
    here = value.get(at[0])
    inside = stand_in.get(at[0]) if isinstance(stand_in, dict) else None
    if len(at) > 1 and isinstance(here, dict):
        _mend(here, at[1:], inside)
    elif inside is None:
        value.pop(at[0], None)
    else:
        value[at[0]] = deepcopy(inside)


def _void(found: Finding, broken: Sequence[Location]) -> bool:
    """Tell whether a finding rests on a value that is itself broken."""
    return any(_related(at, place) for at in (found.at, *found.needs) for place in broken)


def _related(one: Location, other: Location) -> bool:
    shared = min(len(one), len(other))
    return one[:shared] == other[:shared]


def _resolve(file: SpecFile) -> ExperimentSpec:
    (_, (base, recipe)), *own = ((at[-1], _recipe(choice)) for at, choice in file.recipe.choices())
    kept = {name: getattr(file, name) for name in ("name", "backbones", "pretrained", "optimizers", "seed", "storage")}
    parts = {name: getattr(file, name) for name in ("budget", "search", "repeats")}
    dataset = _selection(file.dataset, DATASETS[file.dataset.name].options)
    return ExperimentSpec(
        task=_selection(file.task, TASKS[file.task.name].options),
        dataset=replace(dataset, options=resolve_options(dataset.name, dataset.options)),
        base_recipe=base,
        recipe=recipe,
        own_recipes={str(backbone): chosen for backbone, chosen in own},
        search_spaces={name: merged_space(file, name).space(name) for name in file.optimizers},
        resources=file.resources.resolved(),
        **kept,
        **parts,
    )


def _recipe(choice: Any) -> tuple[str, Recipe]:
    recipe, faults = sound_recipe(choice)
    assert not faults
    return choice.base, recipe


def _selection(choice: Choice, defaults: Mapping[str, Any]) -> Selection:
    """Resolve a name and its options; whole numbers become floats where the default is one, so that `1` and `1.0` are
    the same experiment.
    """
    given = {key: like(defaults[key], value) for key, value in choice.options.items()}
    return Selection(name=choice.name, options={**defaults, **given})


def resolved(spec: ExperimentSpec) -> dict[str, Any]:
    """Write the experiment as plain values with nothing left unsaid; a file that says this loads to an equal spec."""
    return {
        "name": spec.name,
        "task": {"name": spec.task.name, **spec.task.options},
        "dataset": {"name": spec.dataset.name, **spec.dataset.options},
        "backbones": list(spec.backbones),
        "pretrained": {name: _plain_sources(sources) for name, sources in spec.pretrained.items()},
        "optimizers": list(spec.optimizers),
        "recipe": {
            "base": spec.base_recipe,
            **asdict(spec.recipe),
            "by_backbone": {name: {"base": base, **asdict(own)} for name, (base, own) in spec.own_recipes.items()},
        },
        "budget": spec.budget.model_dump(),
        "search": spec.search.model_dump(),
        "repeats": spec.repeats.model_dump(),
        "seed": spec.seed,
        "resources": spec.resources.model_dump(),
        "storage": spec.storage,
        "search_spaces": {name: _plain_space(space) for name, space in spec.search_spaces.items()},
    }


def _plain_sources(sources: Mapping[str, str]) -> str | dict[str, str]:
    return sources[ANY] if sources.keys() == {ANY} else dict(sources)


def _plain_space(space: SearchSpace) -> dict[str, Any]:
    own = {name: {**_ends(dim), "scale": dim.scale} for name, dim in space.own.items()}
    return {
        "lr": _ends(space.lr),
        "weight_decay": {**_ends(space.weight_decay), "zero": space.weight_decay.zero_mass},
        "default": dict(space.default),
        "fixed": dict(space.fixed),
        "decay": space.decay,
        "own": {**dict.fromkeys(space_file(space.optimizer).own), **own},
    }


def _ends(dim: Dim) -> dict[str, float]:
    return {"low": dim.low, "high": dim.high}


def dump_resolved(spec: ExperimentSpec) -> str:
    """Write the experiment as YAML with nothing left unsaid."""
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = None  # innermost mappings and lists on one line
    yaml.width = 100
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    text = io.StringIO()
    yaml.dump(resolved(spec), text)
    return text.getvalue()
