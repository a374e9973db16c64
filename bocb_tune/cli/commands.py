"""What the commands that do more than look do: run, trial, status."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bocb_tune.core.types import Phase, TrialSpec, TrialStatus
from bocb_tune.spec.environment import LOCAL, REMOTE, backbones, contents, data, is_visible, missing_gpus, young_average
from bocb_tune.spec.model import ExperimentSpec, load_spec

if TYPE_CHECKING:
    from bocb_tune.data.contents import Contents
    from bocb_tune.profiling.cost import Cost
    from bocb_tune.profiling.measure import Measured, Totals
    from bocb_tune.spec.grid import Grid

LOG_FILE = "ray.log"
KILLED = (
    "the run was killed, or its Ray node died; nothing that had ended is lost. The same command goes on from there."
)


def show_plan(spec: ExperimentSpec, only: str, *, as_json: bool, measured: bool) -> None:
    """Print what an experiment will run; with `measured`, also what that takes on this machine."""
    from rich.console import Console

    from bocb_tune.cli.render import measured_json, plan_json, print_measured, print_plan
    from bocb_tune.profiling.cost import cost
    from bocb_tune.spec.grid import plan_grid

    grid, there = plan_grid(spec, only), contents(spec)
    planned = cost(spec, grid)
    found = _measure(spec, grid, planned) if measured else None
    if as_json:
        measurements = {"measured": measured_json(*found)} if found else {}
        described = {"data": there.to_json() if there else None}
        print(json.dumps(plan_json(spec, grid, planned) | described | measurements, indent=2))
        return
    print_plan(Console(), spec, grid, planned, there)
    if found:
        print_measured(Console(), spec, *found)


def _measure(spec: ExperimentSpec, grid: Grid, planned: Cost) -> tuple[list[Measured], Totals]:
    """Says on stderr how far it is, and which cells do not fit."""
    from bocb_tune.profiling.measure import measure, totals, warnings

    rows = []
    for row in measure(spec, grid):
        rows.append(row)
        print(f"measured {row.backbone}", file=sys.stderr)
    total = totals(spec, grid, planned, rows)
    for warning in warnings(grid, rows, total.device):
        print(f"warning: {warning}", file=sys.stderr)
    return rows, total


def run_experiment(spec_path: Path, out: Path | None, address: str | None, only: str, overrides: Sequence[str]) -> int:
    """Run or resume an experiment; returns the exit code."""
    if address is not None:
        _use_token()
    from bocb_tune.cli.launch import cell_plans, claim_folder, objective_of, unknown_data
    from bocb_tune.cli.progress import View, last_words, output_to
    from bocb_tune.engine import run as engine
    from bocb_tune.engine.cluster import Resources

    spec = load_spec(spec_path, overrides, LOCAL if address is None else REMOTE)
    there = contents(spec) if address is None or is_visible(spec) else None
    data = there.fingerprint() if there else None
    if address is None and (lacking := missing_gpus(spec)):
        raise ValueError(f"{spec_path}: resources.gpus_per_worker: {lacking}")
    folder = out or spec.run_dir
    cells = cell_plans(spec, only, folder)
    claim_folder(spec, folder, data)
    _say_of_data(there, young_average(spec, there), unknown_data(folder) if there else None)
    plan = engine.RunPlan(
        folder=folder,
        cells=cells,
        objective=objective_of(spec),
        resources=Resources(**spec.resources.model_dump()),
        checkpoint_every=spec.budget.checkpoint_every,
        address=address,
        data=data,
    )
    print(f"{spec.name}: {len(cells)} cells into {folder}; what Ray says goes to {folder / LOG_FILE}", file=sys.stderr)
    with last_words(KILLED), output_to(folder / LOG_FILE) as open_stream, open_stream() as stream:
        view = View(stream)
        with view.showing():
            outcome = engine.run(plan, view)
    return _report_end(spec, folder, outcome)


def _say_of_data(there: Contents | None, *warnings: str | None) -> None:
    """Print what is trained on, what is left out of it, and what to beware of."""
    for line in there.lines() if there else ():
        print(line, file=sys.stderr)
    for warning in filter(None, warnings):
        print(f"warning: {warning}", file=sys.stderr)


def _use_token() -> None:
    """Show the cluster this user's token, if there is one; before Ray is imported.

    `ray start` asks for a token as soon as the user has one (the first local run of Ray makes one), but
    `ray.init(address)` shows it only when told to. A cluster that asks for none does not mind.
    """
    if (Path.home() / ".ray" / "auth_token").exists():
        os.environ.setdefault("RAY_AUTH_MODE", "token")


def _report_end(spec: ExperimentSpec, folder: Path, outcome: object) -> int:
    from bocb_tune.engine.run import Outcome

    assert isinstance(outcome, Outcome)
    if outcome.interrupted:
        print(f"interrupted; everything so far is in {folder}. The same command goes on from there.", file=sys.stderr)
        return 130
    bad = [record for record in outcome.records if record.status in (TrialStatus.failed, TrialStatus.oom)]
    for record in bad:
        print(f"{record.cell.key} {record.phase} {record.index}: {record.status}: {record.message}", file=sys.stderr)
    if bad:
        print(f"{len(bad)} trial(s) of {spec.name} have no result; the same command tries them again.", file=sys.stderr)
    print(folder)
    return 1 if bad else 0


def run_trial(
    spec_path: Path, cell: str, lr: float | None, weight_decay: float | None, seed: int, overrides: Sequence[str]
) -> int:
    """Train one trial in this process and print its epochs; returns the exit code."""
    from dataclasses import replace

    from bocb_tune.cli.launch import cell_plans

    spec = load_spec(spec_path, [*overrides, "resources.workers=1"], (backbones, data))
    there = contents(spec)
    _say_of_data(there, young_average(spec, there))
    plans = {plan.cell.key: plan for plan in cell_plans(spec)}
    if cell not in plans:
        raise ValueError(f"--cell {cell!r} is none of the experiment's: {', '.join(plans)}")
    given = {"lr": lr, "weight_decay": weight_decay}
    hparams = {name: plans[cell].space.default[name] if value is None else value for name, value in given.items()}
    trial = replace(plans[cell].trial(Phase.default, 0, hparams), seed=seed)
    return _train(trial)


def _train(trial: TrialSpec) -> int:
    from bocb_tune.core.errors import Diverged, OutOfMemory
    from bocb_tune.tasks import get_task
    from bocb_tune.training.context import Context

    print(
        f"trial {trial.id}: {trial.cell.key} lr {trial.hparams['lr']:g} wd {trial.hparams['weight_decay']:g}",
        file=sys.stderr,
    )
    for divisor in (1, 2):
        try:
            for measurement in get_task(trial.cell.task).run(trial, Context(micro_batch_divisor=divisor)):
                numbers = " ".join(f"{name} {value:.4g}" for name, value in measurement.metrics.items())
                print(f"epoch {measurement.budget}/{trial.budget} {numbers}", flush=True)
            return 0
        except Diverged as error:
            print(f"diverged within epoch {error.budget}: {error.message}")
            return 0
        except OutOfMemory as error:
            print(f"out of memory within epoch {error.budget}: {error.message}", file=sys.stderr)
    return 1


def show_status(folder: Path, *, as_json: bool, watch: bool) -> None:
    """Print a run's status; with `watch`, until it is done or the user has seen enough."""
    from rich.console import Console
    from rich.live import Live

    from bocb_tune.cli.launch import read_status
    from bocb_tune.cli.status import room_for_rows, table

    if as_json:
        print(json.dumps(read_status(folder).to_json(), indent=2))
        return
    console = Console()
    status = read_status(folder)
    if not watch:
        console.print(table(status))
        return
    with Live(console=console, auto_refresh=False) as live:
        while True:
            status = read_status(folder)
            live.update(table(status, rows=room_for_rows(console)), refresh=True)
            if status.is_done:
                return
            time.sleep(2)
