"""Optimizer steps a second inside the engine, against the same training in a plain loop.

Both sides train the same trials: timm's `test_vit` on digits at 32x32 in batches of 16, 74 steps and one validation
an epoch, one thread a rank, with one worker and with two (DDP over gloo). The engine runs them in a warm worker group
as always: the loop of `bocb_tune.training.loop`, a checkpoint and a measurement sent to the driver each epoch,
journals, the next trial from the searcher. The bare side is the loop one would write by hand around the same model,
optimizer and batches: no Ray, no checkpoints, no watch over the loss. That the mathematics is the same is checked:
both sides must reach the same score.

The sides alternate trial by trial, a trial being one epoch, so every second or two: when the engine has ended a trial,
it is held up while the bare ranks train the same one. So both see the same state of the machine, Ray's idle processes
included. The first trial of each side, which warms up, is left out. Three ratios: of the steps/s within epochs
(training and validation), each trial of the engine against the bare trials before and after it, so that a drift of the
machine cancels (target: at least 0.97); the same from the fastest quarter of each side's epochs, which a noisy machine
disturbs least; and of whole trials, with what the engine adds between epochs (a checkpoint and a report each) and
between trials. Trials of one epoch of a second or two are the worst case of the last.

Two processes that run the very same loop differ by up to three per cent for as long as they live, so there are several
runs, each with new processes on both sides, and the intervals are those of the mean over runs. Takes twenty
minutes.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from harness import BareRanks, fresh, only_cell, run_engine
from machine import show, spread
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from bocb_tune.analysis.core.intervals import mean_interval
from bocb_tune.core.types import TrialRecord, TrialSpec, derive_seed
from bocb_tune.engine.policy import CellPlan
from bocb_tune.engine.run import Watcher
from bocb_tune.tasks.classification import build_training
from bocb_tune.training.context import Context, Ranks
from bocb_tune.training.schedule import epoch_order, epoch_plan, lr_factor

STEPS_PER_EPOCH = 1197 // 16
EXPERIMENT = """
name: steps
task: classification
dataset: {{name: digits, image_size: 32}}
backbones: [test_vit]
optimizers: [adamw]
recipe: {{base: digits, batch_size: 16}}
budget: {{epochs: 1, trials_per_cell: {trials}}}
search: {{design: 1, asha: null}}
repeats: {{best: 0, default: 0}}
search_spaces: {{adamw: {{lr: {{low: 1.0e-4, high: 1.0e-2}}}}}}
resources: {{workers: {workers}, max_slots: 1}}
"""


@dataclass(frozen=True, kw_only=True)
class Seconds:
    """Wall time of one trial."""

    epoch: float
    whole: float


@dataclass(frozen=True, kw_only=True)
class TimedRun:
    """One pair of processes, trial by trial."""

    engine: list[Seconds]
    bare: list[Seconds]

    def ratio(self, seconds: Callable[[Seconds], float]) -> float:
        """Median of bare over engine. Bare trial k ran after trial k of the engine."""
        bare = [math.sqrt(seconds(before) * seconds(after)) for before, after in pairwise(self.bare)]
        return statistics.median(of_bare / seconds(trial) for trial, of_bare in zip(self.engine[1:], bare, strict=True))


class Alternate(Watcher):
    """Trains each trial that the engine has ended once more on bare ranks, before the engine is given the next.

    RuntimeError if the scores differ.
    """

    def __init__(self, cell: CellPlan, bare: BareRanks) -> None:
        self.engine: list[Seconds] = []
        self.bare: list[Seconds] = []
        self._cell = cell
        self._bare = bare
        self._start = time.perf_counter()

    def ended(self, record: TrialRecord) -> None:
        (measured,) = record.measurements
        self.engine.append(Seconds(epoch=measured.metrics["seconds"], whole=time.perf_counter() - self._start))
        trial = self._cell.trial(record.phase, record.index, record.hparams, seed=record.seed)
        score, seconds = self._bare(train, trial)
        if score != record.score:
            raise RuntimeError(f"trial {record.id} scores {record.score} in the engine and {score} in the bare loop")
        self.bare.append(seconds)
        self._start = time.perf_counter()


def train(ranks: Ranks, trial: TrialSpec) -> tuple[float, Seconds]:
    """The plain loop; returns the last validation score and what it took."""
    start = time.perf_counter()
    training = build_training(trial, Context(ranks=ranks))
    model: nn.Module = training.model if ranks.world_size == 1 else DistributedDataParallel(training.model)
    peak = training.optimizer.param_groups[0]["lr"]
    steps = training.num_images // training.recipe.batch_size
    warmup = round(training.recipe.warmup_epochs * steps)
    first_step = time.perf_counter()
    plan = epoch_plan(epoch_order(training.num_images, trial.seed, 1), training.recipe, ranks)
    model.train()
    batches = training.batches([piece for (piece,) in plan], derive_seed(trial.seed, "augment", 1))
    for step, batch in enumerate(batches):
        lr = peak * lr_factor(step, total=steps, warmup=warmup, min_ratio=0.0)
        for group in training.optimizer.param_groups:
            group["lr"] = lr
        training.loss(model, batch).backward()  # type: ignore[no-untyped-call]
        training.optimizer.step()
        training.optimizer.zero_grad()
    metrics = training.evaluate(training.model, True)
    end = time.perf_counter()
    return metrics["score"], Seconds(epoch=end - first_step, whole=end - start)


def run_both(workers: int, trials: int) -> TimedRun:
    """The same trials on both sides, the first left out."""
    experiment = EXPERIMENT.format(workers=workers, trials=trials)
    bare = BareRanks(workers)
    watcher = Alternate(only_cell(experiment), bare)
    run_engine(experiment, watcher)
    bare.close()
    return TimedRun(engine=watcher.engine[1:], bare=watcher.bare[1:])


def compare(workers: int, runs: int, trials: int) -> list[str]:
    """One row of the table: steps/s of both sides, and their ratios."""
    found = [fresh(run_both, workers, trials) for _ in range(runs)]
    sides = [[trial.epoch for run in found for trial in side(run)] for side in (lambda r: r.engine, lambda r: r.bare)]
    rates = [spread([STEPS_PER_EPOCH / seconds for seconds in side], 1) for side in sides]
    fastest = [sum(sorted(side)[: len(side) // 4]) for side in sides]
    within, whole = ([run.ratio(seconds) for run in found] for seconds in (lambda s: s.epoch, lambda s: s.whole))
    n = f"{runs} runs x {len(found[0].engine)} trials"
    return [str(workers), *rates, mean(within), f"{fastest[1] / fastest[0]:.3f}", mean(whole), n]


def mean(ratios: list[float]) -> str:
    """Over runs, with its 95 % interval and the range."""
    low, high = mean_interval(np.array(ratios))
    return f"{statistics.mean(ratios):.3f} ({low:.3f}-{high:.3f}; runs {min(ratios):.3f}-{max(ratios):.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few short trials: a smoke test, not a measurement")
    runs, trials = (2, 5) if parser.parse_args().quick else (6, 11)
    rows = [compare(workers, runs, trials) for workers in (1, 2)]
    columns = ["workers", "engine steps/s", "bare steps/s", "engine / bare", "fastest quarter", "whole trials", "n"]
    show("Steps/s, median (min-max), ratios with 95 % intervals; target for engine / bare: >= 0.97", columns, rows)


if __name__ == "__main__":
    main()
