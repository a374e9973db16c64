"""Commands that do more than look: run, trial, status."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from bocb_tune.cli.busy import busy, warn
from bocb_tune.cli.token import use_token
from bocb_tune.core.files import CHECKPOINTS, LOG_FILE, SPEC_FILE
from bocb_tune.core.groups import GroupShape
from bocb_tune.core.names import plain, unknown
from bocb_tune.core.progress import say
from bocb_tune.core.remote_run import fetched
from bocb_tune.core.space import setting_text
from bocb_tune.core.storage import is_uri, join, storage_of
from bocb_tune.core.types import Measurement, Phase, TrialRecord, TrialSpec, TrialStatus, alike
from bocb_tune.spec.environment import CAUTIONS, LOCAL, REMOTE, backbones, contents, data, is_visible, precision
from bocb_tune.spec.model import ExperimentSpec, load_spec
from bocb_tune.spec.series import experiments_in
from bocb_tune.training.checkpoint import Checkpoints

if TYPE_CHECKING:
    from bocb_tune.cli.status import GridStatus
    from bocb_tune.data.contents import Contents
    from bocb_tune.engine.mirror import Mirror
    from bocb_tune.engine.run import Outcome
    from bocb_tune.profiling.cost import Cost
    from bocb_tune.profiling.measure import Measured, Totals
    from bocb_tune.spec.checks import Check
    from bocb_tune.spec.grid import Grid
    from bocb_tune.training.context import Context

KILLED = (
    "the run was killed, or its Ray node died; nothing that had ended is lost. The same command goes on from there."
)


def show_plan(spec: ExperimentSpec, only: str, *, as_json: bool, measured: bool) -> None:
    """Print what an experiment will run; with `measured`, also what that takes on this machine."""
    from bocb_tune.cli.render import measured_json, plan_json, print_measured, print_plan
    from bocb_tune.cli.screen import screen
    from bocb_tune.cli.weights import find_starts
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
    print_plan(screen(), spec, grid, planned, there)
    for start in find_starts(spec, Path(spec.run_dir), warn, file=spec.name, planned=True):
        print(plain(start.line))
    if found:
        print_measured(screen(), spec, *found)


def _measure(spec: ExperimentSpec, grid: Grid, planned: Cost) -> tuple[list[Measured], Totals]:
    """Measure each backbone; says on stderr how far it is, and which cells do not fit."""
    from bocb_tune.profiling.measure import measure, totals, warnings

    rows, backbones = [], {planned.cell.backbone for planned in grid.cells}
    with busy("measuring"):
        for row in measure(spec, grid):
            rows.append(row)
            say(f"{len(rows)} of {len(backbones)} backbones, {row.backbone} last")
    total = totals(spec, grid, planned, rows)
    for warning in warnings(grid, rows, total.device):
        warn(warning)
    return rows, total


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A run that has come to an end, or has been interrupted."""

    spec: ExperimentSpec
    place: str
    """Run folder as the user names it: a path or a URI."""
    folder: Path
    """Run folder on this machine; of a URI, the copy beside the driver."""
    outcome: Outcome


def run_experiments(path: str, out: str | None, address: str | None, only: str, overrides: Sequence[str]) -> int:
    """Run or resume an experiment, or those of a series until one does not come to its end; returns the exit code.

    Raises:
        ValueError: as `train`, or if one run folder is named for several experiments.
        OSError: if a run folder cannot be written.
    """
    files = experiments_in(path)
    if out is not None and len(files) > 1:
        raise ValueError(f"--out {out}: each experiment of {path} has its own run folder; leave it out")
    for number, file in enumerate(files, start=1):
        if len(files) > 1:
            print(f"\n{file}, {number} of {len(files)} experiments", file=sys.stderr)
        code = _report_end(train(file, out, address, only, overrides))
        if code:
            if number < len(files):
                print(f"{file} is not complete; what follows it in {path} was not started", file=sys.stderr)
            return code
    return 0


def train(spec_path: str, out: str | None, address: str | None, only: str, overrides: Sequence[str]) -> Trained:
    """Train what an experiment still owes, and say on stderr how far it is.

    Args:
        spec_path: an experiment file, or the URI of a run, which goes on as its own file says.
        out: the run folder, a path or a URI.

    Raises:
        ValueError: if the experiment, the data, the folder or the cluster are not as they must be.
        OSError: if the run folder cannot be written.
    """
    if address is not None:
        use_token()
    with busy("checking what is installed and what the data are"):
        from bocb_tune.cli.launch import cell_plans, claim_folder, objective_of, resources_of, unknown_data
        from bocb_tune.cli.progress import View, last_words, output_to
        from bocb_tune.cli.weights import find_starts, keep_weights
        from bocb_tune.engine import run as engine
        from bocb_tune.spec.grid import plan_grid

        spec, place, mirror = _located(spec_path, out, overrides, LOCAL if address is None else REMOTE)
        there = contents(spec) if address is None or is_visible(spec) else None
        say("the sizes of its files")
        fingerprint = there.fingerprint() if there else None
        folder = mirror.folder if mirror else Path(place)
        plan_grid(spec, only)  # its errors come before the folder is made
        starts = find_starts(spec, folder, warn, file=spec_path)
    claim_folder(spec, folder, fingerprint)
    keep_weights(starts, folder)
    cells = cell_plans(spec, only, folder)
    _say_of_data(there)
    for start in starts:
        print(plain(start.line), file=sys.stderr)
    if there and (unknown := unknown_data(folder)):
        warn(unknown)
    plan = engine.RunPlan(
        folder=folder,
        checkpoints=join(place if mirror else str(folder.resolve()), CHECKPOINTS),
        cells=cells,
        objective=objective_of(spec),
        resources=resources_of(spec),
        checkpoint_every=spec.budget.checkpoint_every,
        checkpoint_every_s=spec.budget.checkpoint_every_s,
        address=address,
        data=fingerprint,
        trouble=mirror.trouble if mirror else tuple,
    )
    log = folder / LOG_FILE
    print(f"{spec.name}: {len(cells)} cells into {place}; what Ray and the workers say: {log}", file=sys.stderr)
    with last_words(KILLED), output_to(log) as open_stream, open_stream() as stream:
        view = View(stream)
        with view.showing(), mirror.carried() if mirror else nullcontext():
            outcome = engine.run(plan, view)
    return Trained(spec=spec, place=place, folder=folder, outcome=outcome)


def _located(
    spec_path: str, out: str | None, overrides: Sequence[str], checks: Sequence[Check]
) -> tuple[ExperimentSpec, str, Mirror | None]:
    """Load an experiment, and find the place of its run; a remote one is brought here.

    Raises:
        ValueError: if the experiment or the place are not as they must be.
        OSError: if the place cannot be reached.
    """
    from bocb_tune.engine.mirror import Mirror

    goes_on = is_uri(spec_path)
    if goes_on and out is not None:
        raise ValueError(f"--out {out}: {spec_path} goes on where it is; give an experiment file to begin another run")
    place = spec_path if goes_on else out
    mirror = Mirror(place) if place and is_uri(place) else None
    if mirror:
        mirror.bring()
    file = mirror.folder / SPEC_FILE if mirror and goes_on else Path(spec_path)
    spec = load_spec(file, overrides, checks, CAUTIONS, warn)
    if place is None and is_uri(spec.run_dir):
        mirror = Mirror(spec.run_dir)
        mirror.bring()
    return spec, place or spec.run_dir, mirror


def _say_of_data(there: Contents | None) -> None:
    """Print what is trained on, and what is left out of it."""
    for line in there.lines() if there else ():
        print(plain(line), file=sys.stderr)


def _report_end(trained: Trained) -> int:
    spec, outcome = trained.spec, trained.outcome
    if outcome.interrupted:
        print(
            f"interrupted; everything so far is in {trained.place}. The same command goes on from there.",
            file=sys.stderr,
        )
        return 130
    bad = [record for record in outcome.records if record.status in (TrialStatus.failed, TrialStatus.oom)]
    for line in failure_lines(bad):
        print(line, file=sys.stderr)
    if outcome.given_up:
        print(
            "given up: the last trials failed one after another, so the rest was not started. Mend the cause; the same"
            " command goes on, and proposes anew what was proposed meanwhile.",
            file=sys.stderr,
        )
    elif bad:
        print(f"{len(bad)} trial(s) of {spec.name} have no result; the same command tries them again.", file=sys.stderr)
    for line in closing_lines(trained.folder, trained.place):
        print(plain(line), file=sys.stderr)
    print(trained.place)
    return 1 if bad else 0


def failure_lines(bad: Sequence[TrialRecord]) -> list[str]:
    """Give a line for each kind of failure: how many trials, the first of them, and what it said."""
    groups: dict[str, list[TrialRecord]] = {}
    for record in bad:
        groups.setdefault(f"{record.status}: {alike(record.message)}", []).append(record)
    lines = []
    for records in sorted(groups.values(), key=len, reverse=True):
        first = records[0]
        others = f" ({len(records)} trials failed alike)" if len(records) > 1 else ""
        lines.append(f"{first.cell.key} {first.phase} {first.index}: {first.status}: {first.message}{others}")
    return lines


def closing_lines(folder: Path, place: str) -> list[str]:
    """Give the last lines of a run, before its folder: what it found, and the command to type next."""
    from bocb_tune.analysis.answer.sentences import parts_of, terminal
    from bocb_tune.analysis.report.answer import answer_for

    following = f"next: bocb-tune analyze {shlex.quote(place)}"
    try:
        with busy("looking for the answer"):
            found = answer_for(folder)
    except Exception as error:  # the run is done and recorded: nothing that fails here may take its place
        return [f"no answer: {error}", following]
    return [*terminal(parts_of(found)), following]


def run_trial(
    spec_path: Path,
    cell: str,
    lr: float | None,
    weight_decay: float | None,
    seed: int,
    overrides: Sequence[str],
    profile: Path | None = None,
) -> int:
    """Train one trial in this process and print its epochs; returns the exit code."""
    from dataclasses import replace

    with busy("checking what is installed and what the data are"):
        from bocb_tune.cli.launch import cell_plans
        from bocb_tune.cli.weights import find_starts, keep_weights

        alone = [*overrides, "resources.workers=1"]
        loaded = load_spec(spec_path, alone, (backbones, precision, data), CAUTIONS, warn)
        spec = replace(loaded, resources=loaded.resources.alone())
    _say_of_data(contents(spec))
    with TemporaryDirectory() as folder:
        keep_weights(find_starts(spec, Path(folder), warn, file=spec_path), Path(folder))
        plans = {plan.cell.key: plan for plan in cell_plans(spec, folder=Path(folder))}
        if cell not in plans:
            raise ValueError(f"--cell: {unknown('cell', cell, plans)}")
        given = {"lr": lr, "weight_decay": weight_decay}
        hparams = {name: plans[cell].space.default[name] if value is None else value for name, value in given.items()}
        trial = replace(plans[cell].trial(Phase.default, 0, hparams), seed=seed)
        return _train(trial, spec.resources.of(trial.cell.backbone), profile)


def repeat_trial(place: str, trial_id: str, profile: Path | None = None, *, keep: bool = False) -> int:
    """Train a trial that a run has recorded once more in this process, and keep its checkpoint if asked to; returns the
    exit code.

    Raises:
        ValueError: if the place is no run folder, or the run has no such trial, or several.
    """
    from bocb_tune.cli.launch import recorded_trial

    with _read(place) as folder:
        spec, trial, record = recorded_trial(folder, trial_id)
    if record.world_size > 1:
        warn(
            f"the run trained it over {record.world_size} workers, this is one process: scores will be near, not equal"
        )
    kept = Checkpoints(storage_of(place).within(CHECKPOINTS).within(trial.id)) if keep else None
    code = _train(trial, spec.resources.of(trial.cell.backbone), profile, kept)
    score = "no score" if record.score is None else f"score {record.score:.4g}"
    print(f"recorded: {record.status}, {score} after epoch {record.budget}", file=sys.stderr)
    return code


def _train(trial: TrialSpec, shape: GroupShape, profile: Path | None, checkpoints: Checkpoints | None = None) -> int:
    """Train as a worker of a run does: on as many threads, or on a GPU if the experiment asks for one."""
    import torch

    from bocb_tune.training.context import Context, Ranks

    torch.set_num_threads(int(shape.cpus_per_worker))
    ranks = Ranks(device="cuda:0" if shape.gpus_per_worker and torch.cuda.is_available() else "cpu")

    print(
        f"trial {trial.id}: {trial.cell.key} {setting_text(trial.hparams)}",
        file=sys.stderr,
    )
    if profile is None:
        return _train_on(trial, Context(ranks=ranks, checkpoints=checkpoints))
    return _profiled(trial, Context(ranks=ranks, checkpoints=checkpoints), profile)


def _profiled(trial: TrialSpec, context: Context, path: Path) -> int:
    from dataclasses import replace

    from bocb_tune.profiling.trace import StepTrace, part_lines

    trace = StepTrace(context.ranks.device)
    code = _train_on(trial, replace(context, after_step=trace.after_step))
    for line in part_lines(trace.close(path)):
        print(line)
    print(f"trace: {path}; open it in chrome://tracing or https://ui.perfetto.dev", file=sys.stderr)
    return code


def _train_on(trial: TrialSpec, context: Context) -> int:
    """Train, a second time with half the micro-batch if memory runs out, and print the epochs."""
    from dataclasses import replace

    from bocb_tune.core.errors import Diverged, OutOfMemory
    from bocb_tune.tasks import get_task

    for divisor in (1, 2):
        try:
            epochs = get_task(trial.cell.task).run(trial, replace(context, micro_batch_divisor=divisor))
            for measurement in _with_signs(epochs, trial.budget):
                numbers = " ".join(f"{name} {value:.4g}" for name, value in measurement.metrics.items())
                print(f"epoch {measurement.budget}/{trial.budget} {numbers}", flush=True)
            return 0
        except Diverged as error:
            print(f"diverged within epoch {error.budget}: {error.message}")
            return 0
        except OutOfMemory as error:
            print(f"out of memory within epoch {error.budget}: {error.message}", file=sys.stderr)
    return 1


def _with_signs(epochs: Iterator[Measurement], budget: int) -> Iterator[Measurement]:
    """Show which epoch is trained while it is."""
    for number in count(1):
        with busy(f"training epoch {min(number, budget)} of {budget}"):
            measurement = next(epochs, None)
        if measurement is None:
            return
        yield measurement


def show_status(place: str, *, as_json: bool, watch: bool) -> None:
    """Print a run's status; with `watch`, until it is done or the user has seen enough."""
    from rich.live import Live

    from bocb_tune.cli.screen import screen
    from bocb_tune.cli.status import room_for_rows, table

    with busy(f"reading {place}"):
        status = _status_at(place)
    if as_json:
        print(json.dumps(status.to_json(), indent=2))
        return
    console = screen()
    if not watch:
        console.print(table(status))
        return
    with Live(console=console, auto_refresh=False) as live:
        while True:
            status = _status_at(place)
            live.update(table(status, rows=room_for_rows(console)), refresh=True)
            if status.is_done or not status.is_running:
                return
            time.sleep(10 if is_uri(place) else 2)


def _status_at(place: str) -> GridStatus:
    from bocb_tune.cli.launch import read_status

    with _read(place) as folder:
        return read_status(folder)


def _read(place: str) -> AbstractContextManager[Path]:
    """Give the run folder at a place, to be read."""
    return fetched(place) if is_uri(place) else nullcontext(Path(place))
