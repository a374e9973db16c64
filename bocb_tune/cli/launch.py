"""Steps from an experiment to a run: the run folder it belongs in, and what the engine is handed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from bocb_tune.cli.status import GridStatus, cell_status, grid_status
from bocb_tune.cli.time_left import seconds_left, work_of
from bocb_tune.cli.weights import KeptWeights, kept_weights
from bocb_tune.core import journal
from bocb_tune.core.files import SPEC_FILE, write_atomically
from bocb_tune.core.types import Objective, TrialRecord, TrialSpec, TrialStatus
from bocb_tune.data import free_options
from bocb_tune.data.contents import Fingerprint, differences
from bocb_tune.engine.cluster.room import Capacity
from bocb_tune.engine.design import superseded
from bocb_tune.engine.driver import Driver, current_driver
from bocb_tune.engine.policy import CellPlan, Plan, rung_budgets
from bocb_tune.engine.store import spec_of
from bocb_tune.spec.compare import compare, refusal
from bocb_tune.spec.grid import PlannedCell, plan_grid
from bocb_tune.spec.model import ExperimentSpec, dump_resolved, load_spec, resolved
from bocb_tune.tasks import TASKS, get_task

if TYPE_CHECKING:
    from bocb_tune.tasks.base import ModelTask


class FolderError(ValueError):
    """A run folder that this experiment cannot go on in, or no run folder at all."""


def claim_folder(spec: ExperimentSpec, folder: Path, data: Fingerprint | None = None) -> None:
    """Make the folder the experiment's, or see to it that it already is; the resolved experiment is saved in it.

    Args:
        data: of the experiment's data, if they are seen from here.

    Raises:
        FolderError: if it holds something else, or an experiment, or data, whose results would have been different.
        OSError: if it cannot be written.
    """
    saved = folder / SPEC_FILE
    if saved.exists():
        reason = refusal(compare(resolved(load_spec(saved)), resolved(spec)), str(folder))
        if reason:
            raise FolderError(reason)
        _require_same_data(spec, folder, data)
    elif folder.exists() and any(folder.iterdir()):
        raise FolderError(
            f"{folder} is not empty and has no {SPEC_FILE}, so it is no run folder; give another with --out"
        )
    write_atomically(saved, lambda file: file.write(dump_resolved(spec).encode()))


def _require_same_data(spec: ExperimentSpec, folder: Path, data: Fingerprint | None) -> None:
    """Compare the data to those that the journals were begun with, whatever their paths.

    Where no trial has a result yet, they may have been mended.

    Raises:
        FolderError: if they differ.
    """
    for begun in journal.read_headers(folder) if data else ():
        found = differences(dict(begun.data), data) if data and begun.data else []
        if found and _has_results(folder):
            listing = "\n".join(f"  {line}" for line in found)
            raise FolderError(
                f"{folder} was begun with other data than {spec.dataset.options.get('root', spec.dataset.name)} holds "
                f"now:\n{listing}\nRestore them, or give a new folder with --out."
            )


def _has_results(folder: Path) -> bool:
    records = (record for read in journal.read_run(folder) for record in journal.fold(read.cell, read.events).values())
    return any(record.status.is_result for record in records)


def unknown_data(folder: Path) -> str | None:
    """Warn of a run whose journals are too old to tell what its data were that nothing has compared them."""
    begun = journal.read_headers(folder)
    if not begun or all(header.data for header in begun):
        return None
    return f"{folder} does not say what data it was begun with: that they are the same as now could not be checked"


def plan_of(spec: ExperimentSpec) -> Plan:
    asha = spec.search.asha
    return Plan(
        epochs=spec.budget.epochs,
        design=spec.search.design,
        search=spec.num_search,
        refine=spec.search.refine,
        repeats_best=spec.repeats.best,
        repeats_default=spec.repeats.default,
        audit=spec.search.audit,
        rungs=rung_budgets(asha.grace, asha.reduction_factor, spec.budget.epochs) if asha else (),
        reduction_factor=asha.reduction_factor if asha else 1,
        sampler=spec.search.sampler,
        seed=spec.seed,
    )


def resources_of(spec: ExperimentSpec) -> Capacity:
    """Describe the worker groups of an experiment to the engine."""
    asked = spec.resources
    return Capacity(
        groups={backbone: asked.of(backbone) for backbone in spec.backbones},
        max_slots=asked.max_slots,
        warm=asked.warm,
        patience_min=asked.patience_min,
        share=asked.share,
        turns=asked.turns,
    )


def cell_plans(spec: ExperimentSpec, only: str = "*", folder: Path | None = None) -> tuple[CellPlan, ...]:
    """Plan the cells of the grid; those that a run folder has begun go on under the identity that they have there."""
    begun = {header.cell: header.settings for header in journal.read_headers(folder)} if folder else {}
    kept = kept_weights(folder) if folder else {}
    return tuple(
        CellPlan(
            cell=planned.cell,
            space=planned.space,
            settings=_as_begun(planned, begun.get(planned.cell), kept),
            plan=plan_of(spec),
            data_options=free_options(spec.dataset.name, spec.dataset.options),
            weights=str(kept[planned.cell.row].path.resolve()) if planned.cell.row in kept else "",
        )
        for planned in plan_grid(spec, only).cells
    )


def _as_begun(
    planned: PlannedCell, begun: Mapping[str, Any] | None, kept: Mapping[str, KeptWeights]
) -> Mapping[str, Any]:
    """Add to the settings what only the run folder tells: the digest of the first weights, and the path of the data
    where an old journal has it in the identity of its trials.
    """
    settings, begun = planned.settings, begun or {}
    if planned.cell.row in kept:
        settings = {**settings, "pretrained": kept[planned.cell.row].digest}
    if "pretrained" in begun:
        settings = {**settings, "pretrained": begun["pretrained"]}
    root = begun.get("dataset", {}).get("root")
    return {**settings, "dataset": {**settings["dataset"], "root": root}} if root else settings


def objective_of(spec: ExperimentSpec) -> Objective:
    dataset = {"name": spec.dataset.name, **spec.dataset.options}
    return get_task(spec.task.name).objective(dataset, spec.task.options)


def read_status(folder: Path) -> GridStatus:
    """Read how far the run in a folder is, from its files alone.

    Raises:
        FolderError: if it is no run folder.
    """
    if not (folder / SPEC_FILE).exists():
        raise FolderError(f"{folder} is no run folder: it has no {SPEC_FILE}")
    spec = load_spec(folder / SPEC_FILE)
    plan, driver = plan_of(spec), current_driver(folder)
    journals = {read.cell.key: read for read in journal.read_run(folder)}
    rows, work = [], []
    for cell in cell_plans(spec, folder=folder):
        read = journals.get(cell.cell.key)
        records = journal.fold(cell.cell, read.events) if read else {}
        again = _owed_again(records, read.events if read else (), driver)
        if driver is None:  # what was in flight is owed, and nobody trains it
            records = {key: record for key, record in records.items() if record.status != TrialStatus.running}
        earlier = superseded(cell, records)
        owed = plan.trials(records.values()) + earlier
        garbled = sum(not problem.torn for problem in read.problems) if read else 0
        rows.append(cell_status(cell.cell.key, owed, records.values(), again, garbled))
        work.append(work_of(plan, records.values(), again, earlier))
    if driver is None:
        return grid_status(rows, None, is_running=False)
    left_s = seconds_left(plan, work, driver.slots) if driver.slots else None
    return grid_status(rows, left_s, news=driver.news)


def _owed_again(
    records: Mapping[str, TrialRecord], events: Iterable[Mapping[str, Any]], driver: Driver | None
) -> frozenset[str]:
    """Return the ids of failed trials that the driver at work now is still to start again; without one all, since
    the next driver will.
    """
    started = {event["trial"]: event.get("time", 0.0) for event in events if event["event"] == "start"}
    failed = (record for record in records.values() if record.status in (TrialStatus.failed, TrialStatus.oom))
    return frozenset(record.id for record in failed if driver is None or started[record.id] < driver.started)


def recorded_trial(folder: Path, trial_id: str) -> tuple[ExperimentSpec, TrialSpec, TrialRecord]:
    """Find a trial of a run by its id, or by how the id begins.

    Raises:
        FolderError: if it is no run folder, or the run has no such trial, or several.
    """
    if not (folder / SPEC_FILE).exists():
        raise FolderError(f"{folder} is no run folder: it has no {SPEC_FILE}")
    spec = load_spec(folder / SPEC_FILE)
    records = [record for read in journal.read_run(folder) for record in journal.fold(read.cell, read.events).values()]
    found = [record for record in records if record.id.startswith(trial_id)]
    if len(found) != 1:
        some = "no trial" if not found else f"{len(found)} trials"
        raise FolderError(
            f"--id {trial_id}: {folder} has {some} whose id begins so, of {len(records)}; "
            f"`bocb-tune analyze {folder}` writes them all into report/tables/trials.csv, column 'trial'"
        )
    (record,) = found
    plan = next((plan for plan in cell_plans(spec, folder=folder) if plan.cell == record.cell), None)
    if plan is None:
        raise FolderError(f"--id {trial_id}: its cell {record.cell.key} is not in {folder / SPEC_FILE}")
    return spec, spec_of(plan, record), record


def starting_weights(folder: Path, trial_id: str) -> dict[str, Any]:
    """Build the tensors that a trial of a run began with, by name, as NumPy arrays.

    Raises:
        ValueError: if its model cannot be built here, such as for want of its data.
    """
    _, trial, _ = recorded_trial(folder, trial_id)
    if not TASKS[trial.cell.task].has_models:
        raise FolderError(f"--patterns: a trial of task {trial.cell.task!r}, which trains no model")
    from bocb_tune.training.context import Context

    task = cast("ModelTask", get_task(trial.cell.task))
    tensors = task.training(trial, Context()).model.state_dict().items()
    return {name: each.detach().float().numpy() for name, each in tensors if each.is_floating_point()}
