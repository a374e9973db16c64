"""Checks of an experiment that look beyond its file: backbones that are installed, data on disk, this machine.

They go to `load_spec(checks=...)`, so that their errors stand beside all others.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import Any

from bocb_tune.backbones import BACKBONES, LoneImage, NoDropPath, Traits, list_backbones, traits
from bocb_tune.core.groups import GroupShape, labels_text
from bocb_tune.core.names import unknown
from bocb_tune.core.progress import say
from bocb_tune.data import DATASETS, check_dataset, contents_of, resolve_options
from bocb_tune.data.contents import Contents
from bocb_tune.spec.checks import Check, sound_recipe, task_options
from bocb_tune.spec.experiment_file import SpecFile
from bocb_tune.spec.model import ExperimentSpec
from bocb_tune.spec.pretrained import TIMM, fit_of, form_fault, is_awaited, source_for
from bocb_tune.spec.source import Finding, Location
from bocb_tune.tasks import TASKS, count_examples, get_task, seen_size
from bocb_tune.training.recipes import RECIPES, Recipe


def backbones(file: SpecFile) -> Iterator[Finding]:
    """Find backbones that the task lacks, or, of an unknown task, that every task lacks."""
    everywhere = [name for task in TASKS for name in get_task(task).backbones()]
    known = get_task(file.task.name).backbones() if file.task.name in TASKS else everywhere
    for index, name in enumerate(file.backbones):
        if name not in known:
            yield Finding(("backbones", index), str(unknown("backbone", name, known)))


def models(file: SpecFile) -> Iterator[Finding]:
    """Find backbones that cannot take the dataset's images, or what their recipe asks of them."""
    if file.task.name not in TASKS or not TASKS[file.task.name].has_models or file.dataset.name not in DATASETS:
        return
    try:
        resolve_options(file.dataset.name, file.dataset.options)
    except ValueError:
        return  # found without looking at the disk
    known = set(get_task(file.task.name).backbones())
    for index, name in ((index, name) for index, name in enumerate(file.backbones) if name in known):
        say(f"backbone {index + 1} of {len(file.backbones)}, {name}")
        wanted, place = _size_asked_for(file, index)
        if _is_skipped(file, name):
            continue
        try:
            found = _traits(name, seen_size(file.task.name, file.dataset.name, file.dataset.options, wanted), wanted)
            _require_maps(name, TASKS[file.task.name].strides)
        except ValueError as error:
            yield Finding(place, str(error), needs=(("task",), ("dataset",)))
        else:
            yield from _under_recipe(file, index, found)


def _size_asked_for(file: SpecFile, index: int) -> tuple[int, Location]:
    """Return the size that a backbone's recipe asks for, 0 if none, and the place of what decides it."""
    at, choice = file.recipe.of(file.backbones[index])
    wanted = sound_recipe(choice)[0].image_size if choice.base in RECIPES else 0
    return wanted, (*at, "image_size") if wanted else ("backbones", index)


_traits = cache(traits)


def _is_skipped(file: SpecFile, backbone: str) -> bool:
    """Tell whether the grid has no cell of a backbone, since it gives no feature maps."""
    row = BACKBONES.get(backbone)
    return TASKS[file.task.name].has_maps and row is not None and bool(row.no_maps)


@cache
def _require_maps(name: str, strides: tuple[int, ...]) -> None:
    """Refuse a backbone that does not give the feature maps of a task.

    Raises:
        NoMaps: if it does not.
    """
    if strides:
        from bocb_tune.backbones.features import feature_maps

        feature_maps(name, strides)


def weights(file: SpecFile) -> Iterator[Finding]:
    """Find weights that do not fit the backbone they are for, or cannot be read; but for those still to come."""
    if file.task.name not in TASKS or file.dataset.name not in DATASETS:
        return
    try:
        resolve_options(file.dataset.name, file.dataset.options)
    except ValueError:
        return  # found without looking at the disk
    channels = DATASETS[file.dataset.name].channels
    for at, backbone, source in _sources(file):
        if is_awaited(source, backbone) or _is_skipped(file, backbone):
            continue
        say(f"weights of {backbone} from {source}")
        wanted, _ = _size_asked_for(file, file.backbones.index(backbone))
        size = seen_size(file.task.name, file.dataset.name, file.dataset.options, wanted)
        try:
            fit_of(source, backbone, channels, size, wanted)
        except ValueError as error:
            yield Finding(at, str(error), needs=(("task",), ("dataset",), ("backbones",)))


def awaited_weights(file: SpecFile) -> Iterator[Finding]:
    """Find weights that are still to be put on this machine or fetched, or whose run is still to be run."""
    found = {at: source for at, backbone, source in _sources(file) if is_awaited(source, backbone)}
    for at, source in found.items():
        fetched = source.startswith(TIMM)
        here = "is not on this machine, and nothing can be run here before it is"
        yield Finding(at, f"{source} is not on this machine yet, and is fetched when a run begins" if fetched else here)


def _sources(file: SpecFile) -> Iterator[tuple[Location, str, str]]:
    """Yield the place of each source of the right form, a backbone it is for, and the source as it is for that one."""
    known = set(list_backbones()) if file.pretrained else set()
    for name, backbone in product(file.pretrained, (name for name in file.backbones if name in known)):
        sources = file.pretrained[name]
        source = source_for(sources, backbone)
        if source is not None and not form_fault(source):
            yield ("pretrained", name, backbone) if backbone in sources else ("pretrained", name), backbone, source


def _under_recipe(file: SpecFile, index: int, found: Traits) -> Iterator[Finding]:
    name = file.backbones[index]
    at, choice = file.recipe.of(name)
    if choice.base not in RECIPES:
        return
    recipe, faults = sound_recipe(choice)
    needs: tuple[Location, ...] = (("task",), ("dataset",), ("backbones", index))
    if recipe.drop_path and not found.drop_path and "drop_path" not in faults:
        yield Finding((*at, "drop_path"), str(NoDropPath(name, recipe.drop_path)), needs)
    if recipe.frozen_stages > found.stages:
        message = f"backbone {name!r} has {found.stages} stages before its head; give fewer, or linear_probe: true"
        yield Finding((*at, "frozen_stages"), message, needs)
    if recipe.frozen_norm and not found.batch_norm:
        message = f"backbone {name!r} has no BatchNorm; leave it at false, or give this backbone a recipe of its own"
        yield Finding((*at, "frozen_norm"), message, needs)
    if TASKS[file.task.name].has_maps:
        return  # a map of one image has positions enough for BatchNorm
    parts = file.resources.of(name).workers * recipe.accumulation
    if recipe.batch_size == parts and found.batch_norm and not faults.keys() & {"batch_size", "accumulation"}:
        parted = (file.resources.place(name, "workers"), (*at, "accumulation"))
        yield Finding((*at, "batch_size"), str(LoneImage(name)), (*needs, *parted))


def data(file: SpecFile) -> Iterator[Finding]:
    """Find data that are missing or laid out wrongly."""
    name, options = file.dataset.name, file.dataset.options
    try:
        resolve_options(name, options)
    except ValueError:
        return  # found without looking at the disk
    say(f"the data of {name}")
    try:
        check_dataset(name, options)
    except ValueError as error:
        yield Finding(("dataset", "root") if "root" in options else ("dataset",), str(error))
    else:
        if DATASETS[name].target:
            yield from _trains_on(file)


def _trains_on(file: SpecFile) -> Iterator[Finding]:
    """Find data that the task cannot learn from, and batches larger than all of them."""
    name, options, row = file.dataset.name, file.dataset.options, TASKS.get(file.task.name)
    if row is None or not row.examples or row.takes != DATASETS[name].holds or any(task_options(file)):
        yield from _batches_fit(file, contents_of(name, options).count("train"), "training images")
        return
    try:
        count = count_examples(row, name, options, file.task.options)
    except ValueError as error:
        yield Finding(("task",), str(error), needs=(("dataset",),))
    else:
        yield from _batches_fit(file, count, "objects to train on")


def _batches_fit(file: SpecFile, count: int, what: str) -> Iterator[Finding]:
    for at, recipe, faults in _recipes(file):
        if recipe.batch_size > count and "batch_size" not in faults:
            message = f"a batch_size of {recipe.batch_size} is more than the {count} {what}; give fewer"
            yield Finding((*at, "batch_size"), message, needs=(("dataset",),))


def _recipes(file: SpecFile) -> Iterator[tuple[Location, Recipe, Mapping[str, str]]]:
    """Yield every recipe of the file with its place, as far as it is sound, and what is wrong with its other fields."""
    for at, choice in file.recipe.choices():
        if choice.base in RECIPES:
            yield at, *sound_recipe(choice)


def precision(file: SpecFile) -> Iterator[Finding]:
    """Find recipes in fp16 where no trial gets a GPU."""
    message = "'fp16' needs a GPU, and resources.gpus_per_worker is 0; take 'fp32', or ask for GPUs"
    yield from _on_cpus(file, "fp16", message)


def slow_precision(file: SpecFile) -> Iterator[Finding]:
    """Find recipes in bf16 where no trial gets a GPU: most CPUs have no units for it."""
    message = "bf16 on a CPU was 3.5 to 90 times slower than fp32 where it was tried; take fp32, or GPUs"
    yield from _on_cpus(file, "bf16", message)


def _on_cpus(file: SpecFile, autocast: str, message: str) -> Iterator[Finding]:
    """Say `message` of each recipe that trains images in a precision on CPUs."""
    row = DATASETS.get(file.dataset.name)
    if row is None or not row.target:
        return
    for at, recipe, _ in _recipes(file):
        trained = [backbone for backbone in file.backbones if file.recipe.of(backbone)[0] == at]
        on_cpus = [backbone for backbone in trained if not file.resources.of(backbone).gpus_per_worker]
        if recipe.precision == autocast and (on_cpus or not (trained or file.resources.gpus_per_worker)):
            place = file.resources.place(on_cpus[0] if on_cpus else "", "gpus_per_worker")
            yield Finding((*at, "precision"), message, needs=(place, ("dataset",)))


def present_data(file: SpecFile) -> Iterator[Finding]:
    """Find what `data` does, but for data that are still to be put on this machine (see `missing_data`)."""
    if not _awaited(file.dataset.name, file.dataset.options):
        yield from data(file)


def awaited_data(file: SpecFile) -> Iterator[Finding]:
    """Find data that are still to be put on this machine."""
    if message := missing_data(file):
        yield Finding(("dataset", "root"), message)


def missing_data(spec: ExperimentSpec | SpecFile) -> str | None:
    """Say what to tell a user whose dataset has a `root` that is not there at all."""
    name, options = spec.dataset.name, spec.dataset.options
    if not _awaited(name, options):
        return None
    try:
        check_dataset(name, options)
    except ValueError as error:
        return f"the data are not on this machine, and nothing can be run here before they are: {error}"
    return None


def contents(spec: ExperimentSpec) -> Contents | None:
    """Look at the data of an experiment; None if it has none, or they are not on this machine."""
    name, options = spec.dataset.name, spec.dataset.options
    return None if _awaited(name, options) or not DATASETS[name].target else contents_of(name, options)


def is_visible(spec: ExperimentSpec) -> bool:
    """Tell whether the data can be looked at without fetching them: a cluster may see what this machine does not."""
    return Path(spec.dataset.options.get("root", "/")).exists() and not spec.dataset.options.get("download")


SMALL_SHARE = 0.05
"""Share of the first, random weights in averaged ones that is small enough to need no word."""


def young_average(file: SpecFile) -> Iterator[Finding]:
    """Find averaged weights (`ema_decay`) that are still made of the random first ones when they are judged."""
    averaged = [(at, recipe) for at, recipe, _ in _recipes(file) if recipe.ema_decay and not recipe.ema_warmup]
    images = _images_here(file) if averaged else None
    if images is None:
        return
    asha = file.search.asha
    epochs = asha.grace if asha else file.budget.epochs
    when = f"at the first rung, after epoch {epochs}," if asha else f"after all {epochs} epochs"
    for at, recipe in averaged:
        steps = images // recipe.batch_size * epochs
        share = recipe.ema_decay**steps
        if share > SMALL_SHARE:
            message = (
                f"{when} an average with a decay of {recipe.ema_decay:g} over {steps} steps is {share:.0%} random "
                "initial weights, so that its score says little; set ema_warmup: true, or a lower decay"
            )
            needs = (("dataset",), ("budget", "epochs"), ("search", "asha"), (*at, "batch_size"))
            yield Finding((*at, "ema_decay"), message, needs)


def _images_here(file: SpecFile) -> int | None:
    """Count the training images on this machine without fetching any; None where there are none to be trained on."""
    name, options = file.dataset.name, file.dataset.options
    if name not in DATASETS or not DATASETS[name].target:
        return None
    try:
        return contents_of(name, {**options, "download": False} if "download" in options else options).count("train")
    except ValueError:
        return None


def _awaited(name: str, options: Mapping[str, Any]) -> bool:
    try:
        resolved = resolve_options(name, options)
    except ValueError:
        return False
    return "root" in resolved and not Path(resolved["root"]).exists() and not resolved.get("download")


def check_resources(spec: ExperimentSpec | SpecFile, cpus: int) -> Iterator[Finding]:
    """Find a trial on CPUs alone that one machine of `cpus` CPUs cannot hold."""
    for backbone, shape in _shapes(spec):
        if shape.gpus_per_worker == 0 and shape.workers * shape.cpus_per_worker > cpus:
            message = (
                f"{shape.workers} workers x {shape.cpus_per_worker} CPUs are more than the {cpus} of this machine; "
                f"ask for {cpus} or fewer in all, or run on a cluster with --address"
            )
            place = partial(spec.resources.place, backbone)
            yield Finding(place("workers"), message, needs=(place("cpus_per_worker"),))


def _shapes(spec: ExperimentSpec | SpecFile) -> Iterator[tuple[str, GroupShape]]:
    """Yield each shape of worker group once, with a backbone that is trained by it."""
    of = {spec.resources.of(backbone): backbone for backbone in reversed(spec.backbones)}
    for shape, backbone in reversed(of.items()):
        yield backbone, shape


def gpu_shares(file: SpecFile) -> Iterator[Finding]:
    """Find numbers of GPUs that Ray does not give: more than one, but not whole."""
    for backbone, shape in _shapes(file):
        share = shape.gpus_per_worker
        if share > 1 and share != int(share):
            message = f"{share:g} GPUs are neither a part of one nor a whole number; ask for {round(share)}"
            yield Finding(file.resources.place(backbone, "gpus_per_worker"), message)


def idle_gpus(file: SpecFile) -> Iterator[Finding]:
    """Find fractions that leave a part of each GPU to nobody."""
    for backbone, shape in _shapes(file):
        share = shape.gpus_per_worker
        together = int(1 / share + 1e-9) if 0 < share < 1 else 0
        if together and 1 - together * share > 0.01:
            message = (
                f"{together} worker(s) of {share:g} GPU fit on one, and {1 - together * share:.0%} of it would stay "
                f"idle; {math.floor(1000 / together) / 1000:g} gives each of them more"
            )
            yield Finding(file.resources.place(backbone, "gpus_per_worker"), message)


def missing_gpus(file: SpecFile) -> Iterator[Finding]:
    """Find trials that need GPUs which this machine does not have."""
    on_gpus = [(backbone, shape) for backbone, shape in _shapes(file) if shape.gpus_per_worker]
    if not on_gpus:
        return
    import torch

    gpus = torch.cuda.device_count()
    for backbone, shape in on_gpus:
        wanted, place = shape.needs["GPU"], partial(file.resources.place, backbone)
        if gpus < wanted:
            message = (
                f"a trial needs {wanted:g} GPUs and this machine has {gpus}; run on a cluster with --address, "
                f"or set {'.'.join(map(str, place('gpus_per_worker')))} to 0"
            )
            yield Finding(place("gpus_per_worker"), message, needs=(place("workers"),))


def missing_labels(file: SpecFile) -> Iterator[Finding]:
    """Find labels of nodes that are asked for where there are no nodes but this machine."""
    for backbone, shape in _shapes(file):
        if shape.labels:
            message = f"{labels_text(shape.labels)}: this machine has no labels; run on a cluster with --address"
            yield Finding(file.resources.place(backbone, "labels"), message)


def local_resources(file: SpecFile) -> Iterator[Finding]:
    """Find a trial on CPUs alone that this machine cannot hold."""
    yield from check_resources(file, os.cpu_count() or 1)


PLANNED: tuple[Check, ...] = (backbones, models, weights, precision, gpu_shares, present_data, local_resources)
"""Checks to plan for this machine."""
CAUTIONS: tuple[Check, ...] = (slow_precision, young_average, idle_gpus)
"""Checks that keep nothing from running, and whose findings a user should know of."""
PLANNED_CAUTIONS: tuple[Check, ...] = (missing_gpus, missing_labels, awaited_data, awaited_weights, *CAUTIONS)
"""Cautions of a plan: also what this machine lacks to run it."""
LOCAL: tuple[Check, ...] = (
    *(backbones, models, precision, gpu_shares, data),
    *(local_resources, missing_gpus, missing_labels),
)
"""Checks to run on this machine."""
REMOTE: tuple[Check, ...] = (backbones, models, precision, gpu_shares)
"""Checks to run on a cluster, whose disks and processors are not seen from here."""
