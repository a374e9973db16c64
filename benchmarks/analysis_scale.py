"""From journals to the finished report of a large grid: time, memory, and how both grow.

The run folder is made here: synthetic landscapes under random search with early stopping at 3, 9, 27 and 81 of 200
epochs, 64 trials a cell, about 50 measurements each. Loading, the whole way from journals to report, and the same again
after one cell has changed are timed as commands of their own, seconds of wall time and of CPU, for the grid and for
half of its cells. Beside the model of a cell Optuna's PED-ANOVA and fANOVA on the last scores of its trials: they know
neither budgets nor divergence, and take the scores as they are.

Targets at 400 cells (`--cells 400`): loading 20 s, journals to report 6 minutes and 4 GiB on 2 cores, twice the cells
at most 2.2 times the time, a cell's model 1 s of CPU, 30 s after one cell has changed. By default 40 cells.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from harness import fresh
from machine import show
from ruamel.yaml import YAML

from bocb_tune.analysis.cell.crosschecks import EVALUATORS, optuna_importance
from bocb_tune.analysis.cell.modelling import model_cells
from bocb_tune.analysis.landscape.surface import Domain
from bocb_tune.analysis.sources.load import load
from bocb_tune.core.errors import Diverged
from bocb_tune.core.journal import end_event, header, measure_event, start_event
from bocb_tune.core.provenance import provenance
from bocb_tune.core.types import Cell, Measurement, Objective, Phase, TrialSpec, derive_seed
from bocb_tune.spec.space_file import load_space
from bocb_tune.tasks import get_task
from bocb_tune.tasks.synthetic import OPTIMA, SHAPES
from bocb_tune.training.context import Context, Ranks

EPOCHS, RUNGS, TRIALS, KEEP = 200, (3, 9, 27, 81), 64, 1 / 3
SOME = 8
OBJECTIVE = Objective(metric="score", unit="points", floor=1.0)
SETTINGS: dict[str, Any] = {"task": {"noise": 0.5, "epoch_s": 0.0}, "dataset": {"name": "synthetic"}}


def make_run(folder: Path, cells: int) -> int:
    """A run folder of so many cells; returns the number of measurements."""
    optimizers = list(OPTIMA)[: max(1, min(len(OPTIMA), math.isqrt(cells)))]
    rows = math.ceil(cells / len(optimizers))
    (folder / "cells").mkdir(parents=True)
    spaces = {name: load_space(name) for name in optimizers}
    plain = {
        name: {
            "lr": {"low": space.lr.low, "high": space.lr.high},
            "weight_decay": {
                "low": space.weight_decay.low,
                "high": space.weight_decay.high,
                "zero": space.weight_decay.zero_mass,
            },
        }
        for name, space in spaces.items()
    }
    with (folder / "spec.yaml").open("w") as file:
        YAML().dump({"search_spaces": plain}, file)
    count = 0
    for index in range(cells):
        row, column = divmod(index, len(optimizers))
        assert row < rows
        backbone = f"{list(SHAPES)[row % len(SHAPES)]} {row // len(SHAPES)}"
        lines = list(_cell(backbone, optimizers[column]))
        count += sum(line["event"] == "measure" for line in lines)
        path = folder / "cells" / f"{backbone}__{optimizers[column]}.jsonl"
        path.write_text("".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines))
    return count


def _cell(backbone: str, optimizer: str) -> Iterator[dict[str, Any]]:
    cell = Cell(task="synthetic", dataset="synthetic", backbone=backbone, optimizer=optimizer)
    yield header(cell, OBJECTIVE, SETTINGS)
    planted = Cell(task="synthetic", dataset="synthetic", backbone=backbone.split()[0], optimizer=optimizer)
    rng = random.Random(derive_seed(backbone, optimizer))
    space, seen = load_space(optimizer), {rung: [-math.inf] for rung in RUNGS}
    for index in range(TRIALS):
        trial = TrialSpec(
            cell=planted,
            phase=Phase.search,
            index=index,
            hparams=space.from_unit((rng.random(), rng.random())),
            seed=derive_seed(backbone, optimizer, index),
            budget=EPOCHS,
            settings=SETTINGS,
            rungs=RUNGS,
            audit=rng.random() < 0.1,
        )
        yield start_event(trial, attempt=1, time=0.0, provenance=_provenance())
        yield from _train(trial, seen)


@cache
def _provenance() -> dict[str, Any]:
    return provenance()


def _train(trial: TrialSpec, seen: dict[int, list[float]]) -> Iterator[dict[str, Any]]:
    """A trial's events; below the best third of those that came to a rung it is stopped there."""
    last: Measurement | None = None
    status, message = "completed", ""
    try:
        ranks = Ranks(rank=0, world_size=1, local_rank=0)
        for last in get_task("synthetic").run(trial, Context(ranks=ranks)):
            yield measure_event(trial.id, last)
            if last.budget in seen and not trial.audit and _is_stopped(last, seen[last.budget]):
                status = "stopped"
                break
    except Diverged as error:
        status, message = "diverged", error.message
        yield _end(trial, status, OBJECTIVE.floor, error.budget, message)
        return
    assert last is not None
    yield _end(trial, status, last.score, last.budget, message)


def _is_stopped(measured: Measurement, scores: list[float]) -> bool:
    scores.append(measured.score)
    return measured.score < sorted(scores)[int((1 - KEEP) * (len(scores) - 1))]


def _end(trial: TrialSpec, status: str, score: float, budget: int, message: str) -> dict[str, Any]:
    return end_event(trial.id, status=status, score=score, budget=budget, elapsed_s=0.0, message=message)


@dataclass
class Took:
    """What a command cost, with all processes it started (Linux)."""

    wall_s: float = 0.0
    cpu_s: float = 0.0
    gib: float = 0.0
    """Most memory at one time; what processes share is counted for each."""

    def __str__(self) -> str:
        return f"{self.wall_s:.1f} ({self.cpu_s:.1f})"


def took(code: str, *arguments: str) -> Took:
    """Run Python code in a process of its own and watch it."""
    found, start = Took(), time.perf_counter()
    process = subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.DEVNULL)
    while process.poll() is None:
        seen = [each for each in map(_usage, _family(process.pid)) if each]
        found.cpu_s = max(found.cpu_s, sum(cpu_s for cpu_s, _ in seen))
        found.gib = max(found.gib, sum(gib for _, gib in seen))
        time.sleep(0.1)
    if process.returncode:
        raise RuntimeError(f"{code} {arguments} ended with {process.returncode}")
    found.wall_s = time.perf_counter() - start
    return found


def _family(process: int) -> Iterator[int]:
    yield process
    with suppress(OSError):  # it may have ended by now
        for below in Path(f"/proc/{process}/task/{process}/children").read_text().split():
            yield from _family(int(below))


def _usage(process: int) -> tuple[float, float] | None:
    """Seconds of CPU, those of its ended children too, and GiB in memory."""
    with suppress(OSError):
        fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
        ticks = sum(map(int, fields[11:15]))
        return ticks / os.sysconf("SC_CLK_TCK"), pages * os.sysconf("SC_PAGE_SIZE") / 2**30
    return None


LOAD = "import sys; from bocb_tune.analysis.sources.load import load; load(sys.argv[1])"
ANALYZE = "from bocb_tune.cli.main import main; main()"


def analysed(folder: Path) -> list[str]:
    """Loading, the first analysis, one after a cell has changed, the most memory and the size of the page."""
    loaded, first = took(LOAD, str(folder)), took(ANALYZE, "analyze", str(folder))
    changed = min((folder / "cells").glob("*.jsonl"))
    lines = changed.read_text().splitlines(keepends=True)
    changed.write_text("".join(lines[:-1]))  # its last trial has not ended
    again = took(ANALYZE, "analyze", str(folder))
    page = (folder / "report" / "report.html").stat().st_size / 1e6
    return [*map(str, (loaded, first, again)), f"{max(first.gib, again.gib):.2f}", f"{page:.0f}"]


def model_s(folder: str) -> float:
    """Seconds of CPU for the model and the metrics of a cell, median of some."""
    table = load(folder)
    seconds = []
    for backbone in table.backbones[:SOME]:
        start = time.process_time()
        model_cells(replace(table, backbones=(backbone,), optimizers=table.optimizers[:1]))
        seconds.append(time.process_time() - start)
    return statistics.median(seconds)


def optuna_s(folder: str, evaluator: str) -> float:
    """Seconds of CPU for Optuna's importances of a cell, median of the same cells: of the last scores of all trials, as
    if they had come to the end."""
    table = load(folder)
    optimizer = table.optimizers[0]
    dims, seconds = table.spaces[optimizer], []
    some = replace(table, backbones=table.backbones[:SOME], optimizers=(optimizer,))
    for cell in model_cells(some).values():
        trials = replace(cell.trials, completed=np.isfinite(cell.trials.last))
        start = time.process_time()
        found = optuna_importance(trials, Domain.of(dims["lr"], dims["weight_decay"]), evaluator)
        seconds.append(time.process_time() - start)
        if any(estimate.value is None for estimate in found.values()):
            raise RuntimeError(f"Optuna's {evaluator} was refused, so its time says nothing: {found}")
    return statistics.median(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=40)
    cells = parser.parse_args().cells
    rows = []
    with tempfile.TemporaryDirectory(prefix="bocb-tune-bench-") as root:
        for size in (cells // 2, cells):
            folder = Path(root) / f"grid{size}"
            count = make_run(folder, size)
            parts = [f"{fresh(model_s, str(folder)):.2f}", *analysed(folder)]
            others = [f"{fresh(optuna_s, str(folder), name):.2f}" for name in EVALUATORS]
            rows.append([str(size), str(count), *parts, *others])
    columns = ["cells", "measurements", "model s a cell", "load s", "journals to report s", "one cell changed s"]
    columns += ["GiB", "page MB", *(f"{name} s a cell" for name in EVALUATORS)]
    show(f"Analysis of a grid of {TRIALS} trials a cell, one run each; seconds of wall time (of CPU)", columns, rows)


if __name__ == "__main__":
    main()
