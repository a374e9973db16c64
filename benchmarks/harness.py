"""How the benchmarks run what they compare: the engine as `bocb-tune run` runs it, and bare ranks without it."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from bocb_tune.cli.launch import cell_plans, objective_of, resources_of
from bocb_tune.cli.progress import output_to
from bocb_tune.core.types import TrialRecord
from bocb_tune.engine.policy import CellPlan
from bocb_tune.engine.run import RunPlan, Watcher, run
from bocb_tune.spec.model import ExperimentSpec, load_spec
from bocb_tune.training.context import Ranks

os.environ["OMP_NUM_THREADS"] = "1"  # inherited by every process started here; Ray does the same for workers of one CPU

SPAWN = get_context("spawn")
NICENESS = 15
"""Of Ray's workers, which is why bare ranks get it too: on a full machine the scheduler would favour them otherwise."""


@dataclass
class Clock(Watcher):
    """When each trial of a run ended, in seconds of wall time and of CPU time of the driver's process."""

    records: list[TrialRecord] = field(default_factory=list)
    wall_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)

    def ended(self, record: TrialRecord) -> None:
        self.records.append(record)
        self.wall_s.append(time.perf_counter())
        self.cpu_s.append(time.process_time())


def run_engine(experiment: str, watcher: Watcher) -> None:
    """Run an experiment, given as YAML, to its end in a folder that is then deleted. RuntimeError if interrupted."""
    with tempfile.TemporaryDirectory(prefix="bocb-tune-bench-") as folder:
        spec = _load(experiment)
        plan = RunPlan(
            folder=Path(folder) / "run",
            checkpoints=str(Path(folder) / "run" / "checkpoints"),
            cells=cell_plans(spec),
            objective=objective_of(spec),
            resources=resources_of(spec),
            checkpoint_every=spec.budget.checkpoint_every,
            checkpoint_every_s=spec.budget.checkpoint_every_s,
            address=None,
        )
        with output_to(Path(folder) / "ray.log"):
            interrupted = run(plan, watcher).interrupted
        if interrupted:
            raise RuntimeError("the run was interrupted, so its timings say nothing")


def only_cell(experiment: str) -> CellPlan:
    """The one cell of an experiment given as YAML."""
    (cell,) = cell_plans(_load(experiment))
    return cell


def _load(experiment: str) -> ExperimentSpec:
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(experiment)
        file.flush()
        return load_spec(file.name)


def fresh(function: Callable[..., Any], *arguments: Any) -> Any:
    """The function's value, from a process of its own: no Ray and no warm caches are left over from the call before."""
    with ProcessPoolExecutor(1, mp_context=SPAWN) as pool:
        return pool.submit(function, *arguments).result()


class BareRanks:
    """Fresh processes joined over gloo, one thread each, without Ray."""

    def __init__(self, workers: int) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="bocb-tune-bench-")
        meeting = f"file://{self._folder.name}/meeting"
        self._ranks = [Ranks(rank=rank, world_size=workers, local_rank=rank) for rank in range(workers)]
        self._pools = [
            ProcessPoolExecutor(1, mp_context=SPAWN, initializer=_join, initargs=(rank, meeting))
            for rank in self._ranks
        ]

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What `function(ranks, *arguments)` gives on rank 0; all ranks call it."""
        pairs = zip(self._pools, self._ranks, strict=True)
        first, *others = [pool.submit(function, ranks, *arguments) for pool, ranks in pairs]
        for other in others:
            other.result()
        return first.result()

    def close(self) -> None:
        for pool in self._pools:
            pool.shutdown()
        self._folder.cleanup()


def _join(ranks: Ranks, meeting: str) -> None:
    os.nice(NICENESS)
    torch.set_num_threads(1)
    if ranks.world_size > 1:
        distributed.init_process_group("gloo", init_method=meeting, rank=ranks.rank, world_size=ranks.world_size)
