"""From an experiment to a run: the run folder it belongs in, and what the engine is handed."""

from __future__ import annotations

from pathlib import Path

from bocb_tune.cli.status import GridStatus, cell_status, grid_status
from bocb_tune.core import journal
from bocb_tune.core.files import write_atomically
from bocb_tune.core.types import Objective
from bocb_tune.engine.policy import CellPlan, Plan, rung_budgets
from bocb_tune.spec.compare import compare, refusal
from bocb_tune.spec.grid import plan_grid
from bocb_tune.spec.model import ExperimentSpec, dump_resolved, load_spec, resolved
from bocb_tune.tasks import get_task

SPEC_FILE = "spec.yaml"


class FolderError(ValueError):
    """A run folder that this experiment cannot go on in, or no run folder at all."""


def claim_folder(spec: ExperimentSpec, folder: Path) -> None:
    """Make the folder the experiment's, or see to it that it already is; the resolved experiment is saved in it.

    Raises:
        FolderError: if it holds something else, or an experiment whose results would have been different.
        OSError: if it cannot be written.
    """
    saved = folder / SPEC_FILE
    if saved.exists():
        reason = refusal(compare(resolved(load_spec(saved)), resolved(spec)), str(folder))
        if reason:
            raise FolderError(reason)
    elif folder.exists() and any(folder.iterdir()):
        raise FolderError(
            f"{folder} is not empty and has no {SPEC_FILE}, so it is no run folder; give another with --out"
        )
    write_atomically(saved, lambda file: file.write(dump_resolved(spec).encode()))


def plan_of(spec: ExperimentSpec) -> Plan:
    asha = spec.search.asha
    return Plan(
        epochs=spec.budget.epochs,
        design=spec.search.design,
        search=spec.num_search,
        repeats_best=spec.repeats.best,
        repeats_default=spec.repeats.default,
        audit=spec.search.audit,
        rungs=rung_budgets(asha.grace, asha.reduction_factor, spec.budget.epochs) if asha else (),
        reduction_factor=asha.reduction_factor if asha else 1,
        sampler=spec.search.sampler,
        seed=spec.seed,
    )


def cell_plans(spec: ExperimentSpec, only: str = "*") -> tuple[CellPlan, ...]:
    plan = plan_of(spec)
    cells = plan_grid(spec, only).cells
    return tuple(CellPlan(cell=c.cell, space=c.space, settings=c.settings, plan=plan) for c in cells)


def objective_of(spec: ExperimentSpec) -> Objective:
    dataset = {"name": spec.dataset.name, **spec.dataset.options}
    return get_task(spec.task.name).objective(dataset, spec.task.options)


def read_status(folder: Path) -> GridStatus:
    """How far the run in a folder is, from its files alone.

    Raises:
        FolderError: if it is no run folder.
    """
    if not (folder / SPEC_FILE).exists():
        raise FolderError(f"{folder} is no run folder: it has no {SPEC_FILE}")
    spec = load_spec(folder / SPEC_FILE)
    plan = plan_of(spec)
    journals = {read.cell.key: read for read in journal.read_run(folder)}
    rows = []
    for planned in plan_grid(spec).cells:
        read = journals.get(planned.cell.key)
        records = journal.fold(planned.cell, read.events).values() if read else []
        rows.append(cell_status(planned.cell.key, plan.trials(records), records))
    return grid_status(rows, spec.resources.max_slots or 1)
