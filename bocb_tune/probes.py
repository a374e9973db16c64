"""Checks of an experiment that look beyond its file: backbones that are installed, data on disk, this machine.

They go to `load_spec(checks=...)`, so that their errors stand beside all others.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from bocb_tune.data import check_dataset, resolve_options
from bocb_tune.names import unknown
from bocb_tune.spec import ExperimentSpec
from bocb_tune.spec_checks import Check
from bocb_tune.spec_file import SpecFile
from bocb_tune.tasks import TASKS, get_task
from bocb_tune.yaml_source import Finding


def backbones(file: SpecFile) -> Iterator[Finding]:
    """Backbones the task does not have."""
    if file.task.name not in TASKS:
        return
    known = set(get_task(file.task.name).backbones())
    for index, name in enumerate(file.backbones):
        if name not in known:
            yield Finding(("backbones", index), str(unknown("backbone", name, known)), needs=(("task",),))


def data(file: SpecFile) -> Iterator[Finding]:
    """A data folder that is missing or laid out wrongly."""
    name, options = file.dataset.name, file.dataset.options
    try:
        resolve_options(name, options)
    except ValueError:
        return  # found without looking at the disk
    try:
        check_dataset(name, options)
    except ValueError as error:
        yield Finding(("dataset", "root") if "root" in options else ("dataset",), str(error))


def check_resources(spec: ExperimentSpec | SpecFile, cpus: int) -> Iterator[Finding]:
    """A trial on CPUs alone that one machine of `cpus` CPUs cannot hold."""
    resources = spec.resources
    asked = resources.workers * resources.cpus_per_worker
    if resources.gpus_per_worker == 0 and asked > cpus:
        message = (
            f"{resources.workers} workers x {resources.cpus_per_worker} CPUs are more than the {cpus} of this machine; "
            f"ask for {cpus} or fewer in all, or run on a cluster with --address"
        )
        yield Finding(("resources", "workers"), message, needs=(("resources", "cpus_per_worker"),))


def missing_gpus(spec: ExperimentSpec) -> str | None:
    """What to tell a user whose trials need GPUs that this machine does not have."""
    wanted = spec.resources.gpus_per_worker * spec.resources.workers
    if wanted == 0:
        return None
    import torch

    gpus = torch.cuda.device_count()
    if gpus >= wanted:
        return None
    return (
        f"a trial needs {wanted:g} GPUs and this machine has {gpus}; run on a cluster with --address, "
        "or set resources.gpus_per_worker to 0"
    )


def local_resources(file: SpecFile) -> Iterator[Finding]:
    """`check_resources` for this machine."""
    yield from check_resources(file, os.cpu_count() or 1)


LOCAL: tuple[Check, ...] = (backbones, data, local_resources)
"""What must hold to run on this machine."""
