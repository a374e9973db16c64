"""Optimizer steps a second inside the engine, against the same training in a plain loop.

Both sides train the same trials: timm's `test_vit` on digits at 32x32 in batches of 64, 18 steps and one validation
an epoch, one thread a rank, with one worker and with two (DDP over gloo). The engine runs them in a warm worker group
as always: the loop of `bocb_tune.train`, a checkpoint and a measurement sent to the driver each epoch, journals, the
next trial from the searcher.
The bare side is the loop one would write by hand around the same model, optimizer and batches: no Ray, no
checkpoints, no watch over the loss. That the mathematics is the same is checked: both sides must reach the same score.

The clock of a trial runs from the end of the trial before it to its own end; the first trial of a group, which
warms up, is left out. The sides alternate, each time in fresh processes. Target: at least 0.97 of the bare steps/s.
Takes about ten minutes.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Sequence

from harness import fresh, on_bare_ranks, only_cell, run_engine
from machine import show, spread
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from bocb_tune.schedule import epoch_order, epoch_plan, lr_factor
from bocb_tune.tasks.base import Context, Ranks
from bocb_tune.tasks.classification import build_training
from bocb_tune.train import Training
from bocb_tune.types import TrialRecord, TrialSpec, derive_seed

EXPERIMENT = """
name: steps
task: classification
dataset: {{name: digits, image_size: 32}}
backbones: [test_vit]
optimizers: [adamw]
recipe: digits
budget: {{epochs: {epochs}, trials_per_cell: {trials}}}
search: {{design: 1, asha: null}}
repeats: {{best: 0, default: 0}}
search_spaces: {{adamw: {{lr: {{low: 1.0e-4, high: 1.0e-2}}}}}}
resources: {{workers: {workers}, max_slots: 1}}
"""


def engine_side(experiment: str) -> tuple[list[TrialRecord], list[float]]:
    """The trials in the order in which they ended, and the seconds of each but the first."""
    clock = run_engine(experiment)
    return clock.records, [end - start for start, end in itertools.pairwise(clock.wall_s)]


def bare_side(ranks: Ranks, experiment: str, records: Sequence[TrialRecord]) -> list[float]:
    """The seconds of each of the same trials but the first. RuntimeError if one of them reaches another score."""
    cell = only_cell(experiment)
    seconds = []
    for record in records:
        trial = cell.trial(record.phase, record.index, record.hparams, seed=record.seed)
        start = time.perf_counter()
        score = train(build_training(trial, Context(ranks=ranks)), trial, ranks)
        seconds.append(time.perf_counter() - start)
        if score != record.score:
            raise RuntimeError(f"trial {record.id} scores {record.score} in the engine and {score} in the bare loop")
    return seconds[1:]


def train(training: Training, trial: TrialSpec, ranks: Ranks) -> float:
    """The plain loop; returns the last validation score."""
    model: nn.Module = training.model if ranks.world_size == 1 else DistributedDataParallel(training.model)
    peak = training.optimizer.param_groups[0]["lr"]
    steps = training.num_images // training.recipe.batch_size
    warmup = round(training.recipe.warmup_epochs * steps)
    step, metrics = 0, {"score": 0.0}
    for epoch in range(1, trial.budget + 1):
        plan = epoch_plan(epoch_order(training.num_images, trial.seed, epoch), training.recipe, ranks)
        model.train()
        for batch in training.batches([piece for (piece,) in plan], derive_seed(trial.seed, "augment", epoch)):
            lr = peak * lr_factor(step, total=steps * trial.budget, warmup=warmup, min_ratio=0.0)
            for group in training.optimizer.param_groups:
                group["lr"] = lr
            training.loss(model, batch).backward()  # type: ignore[no-untyped-call]
            training.optimizer.step()
            training.optimizer.zero_grad()
            step += 1
        metrics = training.evaluate(training.model, epoch == trial.budget)
    return metrics["score"]


def compare(workers: int, epochs: int, trials: int, rounds: int) -> list[str]:
    """One row of the table: steps/s of both sides, and their ratio round by round."""
    experiment = EXPERIMENT.format(workers=workers, epochs=epochs, trials=trials)
    steps = epochs * (1197 // 64)
    engine, bare, ratios = [], [], []
    for _ in range(rounds):
        records, seconds = fresh(engine_side, experiment)
        engine += [steps / s for s in seconds]
        bare_seconds = on_bare_ranks(bare_side, workers, experiment, records)
        bare += [steps / s for s in bare_seconds]
        ratios.append(statistics.median(bare_seconds) / statistics.median(seconds))
        print(f"{workers} worker(s): engine / bare {ratios[-1]:.3f}", flush=True)
    n = f"{rounds} rounds x {trials - 1} trials x {steps} steps"
    return [str(workers), spread(engine, 1), spread(bare, 1), spread(ratios), n]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round of short trials: a smoke test, no measurement")
    epochs, trials, rounds = (3, 3, 1) if parser.parse_args().quick else (15, 5, 4)
    rows = [compare(workers, epochs, trials, rounds) for workers in (1, 2)]
    columns = ["workers", "engine steps/s", "bare steps/s", "engine / bare", "n"]
    show("Steps/s, median (min-max); target for engine / bare: >= 0.97", columns, rows)


if __name__ == "__main__":
    main()
