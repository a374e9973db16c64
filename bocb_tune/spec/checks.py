"""Checks of an experiment file beyond its keys and types: names, options, and values that contradict each other."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, replace
from typing import Any

from bocb_tune.core.groups import label_fault
from bocb_tune.core.names import unknown
from bocb_tune.core.space import own_names
from bocb_tune.data import DATASETS, DatasetRow, resolve_options
from bocb_tune.optimizers import OPTIMIZERS
from bocb_tune.spec.experiment_file import Choice, SpaceChange, SpecFile
from bocb_tune.spec.pretrained import ANY, form_fault
from bocb_tune.spec.source import Finding, Location
from bocb_tune.spec.space_file import SpaceFile, available_spaces, space_file
from bocb_tune.spec.strict import like
from bocb_tune.tasks import TASKS
from bocb_tune.training.recipes import DEFAULTS, RECIPES, Recipe, odd_to_mix, unheeded

Check = Callable[[SpecFile], Iterator[Finding]]


def task_and_dataset(file: SpecFile) -> Iterator[Finding]:
    """Check names and options of task and dataset, and whether the task takes the dataset."""
    yield from _choice("task", file.task, TASKS)
    yield from _choice("dataset", file.dataset, DATASETS)
    if file.task.name in TASKS and file.dataset.name in DATASETS:
        accepted = [name for name, row in DATASETS.items() if row.holds == TASKS[file.task.name].takes]
        if file.dataset.name not in accepted:
            message = f"task {file.task.name!r} does not take {file.dataset.name!r}; it takes {', '.join(accepted)}"
            yield Finding(("dataset", "name"), message, needs=(("task",),))


def _choice(key: str, choice: Choice, table: Mapping[str, Any]) -> Iterator[Finding]:
    if choice.name not in table:
        yield Finding((key, "name"), str(unknown(key, choice.name, table)))
        return
    row = table[choice.name]
    for option, value in choice.options.items():
        if option not in row.options:
            yield Finding((key, option), str(unknown(f"option of {key} {choice.name!r}", option, row.options)))
        elif problem := _refusal(like, row.options[option], value):
            yield Finding((key, option), problem)


def task_options(file: SpecFile) -> Iterator[Finding]:
    """Check the values of the task's options, beside one another."""
    row = TASKS.get(file.task.name)
    given = file.task.options
    if row is None or any(
        option not in row.options or _refusal(like, row.options[option], value) for option, value in given.items()
    ):
        return  # found already
    options = {**row.options, **given}
    for option, (valid, wanted) in row.rules.items():
        if not valid(options[option], options):
            yield Finding(("task", option), f"is {options[option]!r}; it must be {wanted}")


def dataset_options(file: SpecFile) -> Iterator[Finding]:
    """Check the values of the dataset's options, each by itself, and that those without a default are given."""
    row = DATASETS.get(file.dataset.name)
    if row is None:
        return
    for option in row.required:
        if option not in file.dataset.options:
            yield Finding(
                ("dataset", option),
                f"dataset {row.name!r} needs the option {option!r}; write {{name: {row.name}, {option}: ...}}",
            )
    for option in row.options.keys() & file.dataset.options:
        value = file.dataset.options[option]
        given = dict.fromkeys(row.required, "given") | {option: value}
        unlike = _refusal(like, row.options[option], value)
        if not unlike and (message := _refusal(resolve_options, row.name, given)):
            yield Finding(("dataset", option), message)


def _refusal(action: Callable[..., Any], *args: Any, **kwargs: Any) -> str | None:
    try:
        action(*args, **kwargs)
    except ValueError as error:
        return str(error)
    return None


def names(file: SpecFile) -> Iterator[Finding]:
    """Check that there is every optimizer, with a search space, and that nothing stands twice."""
    for key in ("backbones", "optimizers"):
        values = getattr(file, key)
        for index, value in enumerate(values):
            first = values.index(value)
            if first != index:
                yield Finding((key, index), f"{value!r} is given twice, first as {key}[{first}]; remove one")
    for index, name in enumerate(file.optimizers):
        if name not in OPTIMIZERS:
            yield Finding(("optimizers", index), str(unknown("optimizer", name, OPTIMIZERS)))
        elif name not in available_spaces():
            message = f"{name!r} has no search space, and none is guessed; write search_spaces/{name}.yaml"
            yield Finding(("optimizers", index), message)


def derivatives(file: SpecFile) -> Iterator[Finding]:
    """Check that the task's models have the derivatives that the optimizers need."""
    once = TASKS[file.task.name].once if file.task.name in TASKS else ""
    for index, name in enumerate(file.optimizers if once else ()):
        if name in OPTIMIZERS and OPTIMIZERS[name].second_order:
            message = f"{name!r} needs second derivatives, and {once} of task {file.task.name!r} has none; leave it out"
            yield Finding(("optimizers", index), message, needs=(("task",),))


def pretrained(file: SpecFile) -> Iterator[Finding]:
    """Check names and forms of the sources of weights, and that they are for backbones of the grid."""
    if file.pretrained and not TASKS.get(file.task.name, TASKS["classification"]).has_models:
        yield Finding(
            ("pretrained",), f"task {file.task.name!r} has no weights to start from; remove this", (("task",),)
        )
    for name, sources in file.pretrained.items():
        if not re.fullmatch(r"[A-Za-z0-9]+([._+-][A-Za-z0-9]+)*", name):
            message = (
                f"{name!r} names files: it must be letters and digits, with one dot, underscore, plus or hyphen between"
            )
            yield Finding(("pretrained", name), message)
        for backbone, source in sources.items():
            # one source for all stands in the file without the star
            at: Location = ("pretrained", name) if backbone == ANY else ("pretrained", name, backbone)
            if backbone != ANY and backbone not in file.backbones:
                yield Finding(at, str(unknown("backbone of this grid", backbone, file.backbones)), (("backbones",),))
            if fault := form_fault(source):
                yield Finding(at, fault)


def frozen(file: SpecFile) -> Iterator[Finding]:
    """Check that nothing random is frozen."""
    for at, choice in file.recipe.choices() if not file.pretrained else ():
        chosen = sound_recipe(choice)[0] if choice.base in RECIPES else None
        for name in ("frozen_stages", "linear_probe", "frozen_norm"):
            if chosen and getattr(chosen, name):
                yield Finding((*at, name), "would freeze random weights; say by `pretrained:` what they start from")


def recipe(file: SpecFile) -> Iterator[Finding]:
    """Check the named recipes, the ranges of their fields, and the backbones that have one of their own."""
    for at, choice in file.recipe.choices():
        if choice.base not in RECIPES:
            yield Finding((*at, "base"), str(unknown("recipe", choice.base, RECIPES)))
            continue
        for key, message in sound_recipe(choice)[1].items():
            yield Finding((*at, key), message)
    for backbone in file.recipe.by_backbone:
        if backbone not in file.backbones:
            message = f"{unknown('backbone of this grid', backbone, file.backbones)}; add it there or remove this"
            yield Finding(("recipe", "by_backbone", backbone), message, needs=(("backbones",),))


def sound_recipe(choice: Any) -> tuple[Recipe, dict[str, str]]:
    """Return the recipe a file chooses with those of its changes that are in range, and what is wrong with the others.

    Field by field in the recipe's own order, as a range may rest on the fields above it.
    """
    chosen, faults = RECIPES[choice.base], {}
    if _refusal(replace, chosen, **choice.changes) is None:
        return replace(chosen, **choice.changes), {}
    for key in (entry.name for entry in fields(Recipe) if entry.name in choice.changes):
        change = {key: choice.changes[key]}
        if message := _refusal(replace, chosen, **change):
            faults[key] = message
        else:
            chosen = replace(chosen, **change)
    return chosen, faults


def recipe_fits(file: SpecFile) -> Iterator[Finding]:
    """Check the recipes against the epochs, the ranks and the dataset, but for fields that are wrong in themselves."""
    for at, choice in file.recipe.choices():
        if choice.base in RECIPES:
            yield from _fits(file, at, *sound_recipe(choice))


def _fits(file: SpecFile, at: Location, chosen: Recipe, faults: Mapping[str, str]) -> Iterator[Finding]:
    if chosen.warmup_epochs >= file.budget.epochs:
        shown = f"{chosen.warmup_epochs:g} warmup_epochs do not end within budget.epochs ({file.budget.epochs})"
        yield Finding((*at, "warmup_epochs"), f"{shown}; give fewer", needs=(("budget", "epochs"),))
    if chosen.lr_steps and chosen.lr_steps[-1] >= file.budget.epochs:
        message = f"a fall after epoch {chosen.lr_steps[-1]} is not within budget.epochs ({file.budget.epochs})"
        yield Finding((*at, "lr_steps"), f"{message}; give earlier ones, or [] for a cosine", (("budget", "epochs"),))
    if not faults.keys() & {"batch_size", "accumulation"}:
        for workers, place in _ranks_under(file, at).items():
            yield from _batch(chosen, workers, at, place)
    if file.dataset.name in DATASETS and DATASETS[file.dataset.name].target:
        yield from _suits(chosen, DATASETS[file.dataset.name], at)
    for name in TASKS[file.task.name].ignores if file.task.name in TASKS else ():
        if getattr(chosen, name) != DEFAULTS[name]:
            message = f"is {getattr(chosen, name)!r}, and task {file.task.name!r} has no use for it"
            yield Finding((*at, name), f"{message}; leave it at {DEFAULTS[name]!r}", needs=(("task",),))


def _suits(chosen: Recipe, row: DatasetRow, at: Location) -> Iterator[Finding]:
    needs = (("dataset", "name"), (*at, "augment"))
    if chosen.augment not in row.augments:
        message = f"augment {chosen.augment!r} does not suit dataset {row.name!r}; it takes {', '.join(row.augments)}"
        yield Finding((*at, "augment"), message, needs=needs)
        return
    for name, message in unheeded(chosen, row.is_decoded):
        yield Finding((*at, name), f"{message}; those of dataset {row.name!r} are in memory", needs=needs)


def _ranks_under(file: SpecFile, at: Location) -> dict[int, Location]:
    """Return the numbers of ranks by which a recipe is trained, each with a place that says it."""
    trained = [backbone for backbone in file.backbones if file.recipe.of(backbone)[0] == at]
    places = {file.resources.of(backbone).workers: file.resources.place(backbone, "workers") for backbone in trained}
    return places or {file.resources.workers: ("resources", "workers")}


def _batch(chosen: Recipe, workers: int, at: Location, place: Location) -> Iterator[Finding]:
    parts, needs = workers * chosen.accumulation, (place, (*at, "accumulation"))
    if chosen.batch_size % parts:
        nearest = max(round(chosen.batch_size / parts), 1) * parts
        message = (
            f"a batch_size of {chosen.batch_size} cannot be shared evenly by {workers} workers x {chosen.accumulation} "
            f"accumulation steps; the nearest that can is {nearest}"
        )
        yield Finding((*at, "batch_size"), message, needs=needs)
    elif odd := odd_to_mix(chosen, workers):
        yield Finding((*at, "batch_size"), odd, needs=needs)


def budget(file: SpecFile) -> Iterator[Finding]:
    """Check that there are trials enough for the design, and that rungs lie within the epochs."""
    trials, design = file.budget.trials_per_cell, file.search.design
    if trials < 1 + design:
        message = f"{trials} trials do not hold the default and a design of {design}; give at least {1 + design}"
        yield Finding(("budget", "trials_per_cell"), message, needs=(("search", "design"),))
    asha, epochs = file.search.asha, file.budget.epochs
    if asha and asha.grace >= epochs:
        way_out = f"lower it to {epochs - 1} or less, or set" if epochs > 1 else "set"
        message = f"the first rung, {asha.grace}, is not below budget.epochs ({epochs}); {way_out} search.asha: null"
        yield Finding(("search", "asha", "grace"), message, needs=(("budget", "epochs"),))


def spaces(file: SpecFile) -> Iterator[Finding]:
    """Check changes to search spaces: of optimizers in the grid, the right way up, with arguments they take."""
    for name in file.search_spaces:
        if name not in OPTIMIZERS:
            yield Finding(("search_spaces", name), str(unknown("optimizer", name, OPTIMIZERS)))
        elif name not in file.optimizers:
            message = f"{name!r} is not among the optimizers, so this would change nothing; add it there or remove this"
            yield Finding(("search_spaces", name), message, needs=(("optimizers",),))
    named = dict.fromkeys([*file.optimizers, *file.search_spaces])
    for name in (name for name in named if name in OPTIMIZERS and name in available_spaces()):
        for found in _space(name, merged_space(file, name)):
            yield Finding(("search_spaces", name, *found.at), found.message)


def refining(file: SpecFile) -> Iterator[Finding]:
    """Check that what is to be refined has ranges."""
    known = [name for name in file.optimizers if name in OPTIMIZERS and name in available_spaces()]
    bare = [name for name in known if not merged_space(file, name).own]
    if file.search.refine and bare:
        numbers = own_names(merged_space(file, bare[0]).fixed) or ["an argument that is a number, given under `fixed`"]
        message = (
            f"nothing is named to refine of {', '.join(bare)}; write search_spaces: {{{bare[0]}: {{own: {{NAME: "
            f"{{low: ..., high: ...}}}}}}}}, NAME being one of {', '.join(numbers)}, or set search.refine to 0"
        )
        yield Finding(("search", "refine"), message, needs=(("optimizers",), ("search_spaces",)))


def merged_space(file: SpecFile, optimizer: str) -> SpaceFile:
    """Return the optimizer's search space with the experiment's changes."""
    return file.search_spaces.get(optimizer, SpaceChange()).over(space_file(optimizer))


def _space(name: str, space: SpaceFile) -> Iterator[Finding]:
    yield from space.findings()
    row = OPTIMIZERS[name]
    if space.decay != row.decay:
        yield Finding(("decay",), f"is {space.decay!r}, but the weight decay of {name!r} is {row.decay!r}; correct it")
    faults = list(_fixed(name, space))
    yield from faults or space.own_findings()


def _fixed(name: str, space: SpaceFile) -> Iterator[Finding]:
    takes = OPTIMIZERS[name].takes
    for argument, value in space.fixed.items():
        if argument not in takes:
            yield Finding(("fixed", argument), str(unknown(f"argument of optimizer {name!r}", argument, takes)))
        elif problem := _refusal(like, space_file(name).fixed.get(argument), value):
            yield Finding(("fixed", argument), problem)


def groups(file: SpecFile) -> Iterator[Finding]:
    """Check that resources of their own are for backbones of the grid, and the form of labels."""
    for backbone in file.resources.by_backbone:
        if backbone not in file.backbones:
            message = f"{unknown('backbone of this grid', backbone, file.backbones)}; add it there or remove this"
            yield Finding(("resources", "by_backbone", backbone), message, needs=(("backbones",),))
    own = {name: group.labels or {} for name, group in file.resources.by_backbone.items()}
    for at, labels in ((("resources",), file.resources.labels), *_at_backbones(own)):
        for key, value in labels.items():
            if fault := label_fault(key, value):
                yield Finding((*at, "labels", key), fault)


def _at_backbones(own: Mapping[str, Mapping[str, str]]) -> Iterator[tuple[Location, Mapping[str, str]]]:
    for backbone, labels in own.items():
        yield ("resources", "by_backbone", backbone), labels


CHECKS: tuple[Check, ...] = (
    task_and_dataset,
    task_options,
    dataset_options,
    names,
    derivatives,
    pretrained,
    recipe,
    frozen,
    recipe_fits,
    budget,
    spaces,
    refining,
    groups,
)
