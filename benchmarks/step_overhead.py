"""Optimizer steps a second inside the engine, against the same training in a plain loop.

Both sides train the same trials: timm's `test_vit` on digits at 32x32 in batches of 64, 18 steps and one validation
an epoch, one thread a rank, with one worker and with two (DDP over gloo). The engine runs them in a warm worker group
as always: the loop of `bocb_tune.train`, a checkpoint and a measurement sent to the driver each epoch, journals, the
next trial from the searcher. The bare side is the loop one would write by hand around the same model, optimizer and
batches: no Ray, no checkpoints, no watch over the loss. That the mathematics is the same is checked: both sides must
reach the same score.

The sides alternate trial by trial: when the engine has ended a trial, it is held up while the bare ranks train the same
one. So both see the same state of the machine, Ray's idle processes included. The first trial of each side, which warms
up, is left out. Two ratios: of the epochs by themselves (training and validation; target: at least 0.97 of the bare
steps/s), and of whole trials, with what the engine adds between epochs (a checkpoint and a report each) and between
trials. Epochs of 18 steps of a model this small are the worst case of the second. Takes about five minutes.
"""

from __future__ import annotations

import argparse
import time

from harness import BareRanks, fresh, only_cell, run_engine
from machine import show, spread
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from bocb_tune.engine.policy import CellPlan
from bocb_tune.engine.run import Watcher
from bocb_tune.schedule import epoch_order, epoch_plan, lr_factor
from bocb_tune.tasks.base import Context, Ranks
from bocb_tune.tasks.classification import build_training
from bocb_tune.types import TrialRecord, TrialSpec, derive_seed

STEPS_PER_EPOCH = 1197 // 64
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


class Alternate(Watcher):
    """Trains each trial that the engine has ended once more on bare ranks, before the engine is given the next.

    RuntimeError if the scores differ.
    """

    def __init__(self, cell: CellPlan, bare: BareRanks) -> None:
        self.engine: list[tuple[float, float]] = []
        """Seconds of each trial: in its epochs, and in all."""
        self.bare: list[tuple[float, float]] = []
        self._cell = cell
        self._bare = bare
        self._start = time.perf_counter()

    def ended(self, record: TrialRecord) -> None:
        self.engine.append((record.elapsed_s, time.perf_counter() - self._start))
        trial = self._cell.trial(record.phase, record.index, record.hparams, seed=record.seed)
        score, *seconds = self._bare(train, trial)
        if score != record.score:
            raise RuntimeError(f"trial {record.id} scores {record.score} in the engine and {score} in the bare loop")
        self.bare.append((seconds[0], seconds[1]))
        self._start = time.perf_counter()


def train(ranks: Ranks, trial: TrialSpec) -> tuple[float, float, float]:
    """The plain loop; returns the last validation score, the seconds of its epochs, and those of all of it."""
    start = time.perf_counter()
    training = build_training(trial, Context(ranks=ranks))
    model: nn.Module = training.model if ranks.world_size == 1 else DistributedDataParallel(training.model)
    peak = training.optimizer.param_groups[0]["lr"]
    steps = training.num_images // training.recipe.batch_size
    warmup = round(training.recipe.warmup_epochs * steps)
    step, metrics = 0, {"score": 0.0}
    first_epoch = time.perf_counter()
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
    end = time.perf_counter()
    return metrics["score"], end - first_epoch, end - start


def compare(workers: int, epochs: int, trials: int) -> list[str]:
    """One row of the table: steps/s of both sides, and their ratio trial by trial."""
    experiment = EXPERIMENT.format(workers=workers, epochs=epochs, trials=trials)
    bare = BareRanks(workers)
    watcher = Alternate(only_cell(experiment), bare)
    run_engine(experiment, watcher)
    bare.close()
    steps = epochs * STEPS_PER_EPOCH
    engine, bare_side = watcher.engine[1:], watcher.bare[1:]
    rates = [spread([steps / seconds for seconds, _ in side], 1) for side in (engine, bare_side)]
    ratios = [
        spread([bare[part] / ours[part] for ours, bare in zip(engine, bare_side, strict=True)]) for part in (0, 1)
    ]
    return [str(workers), *rates, *ratios, f"{len(engine)} trials x {steps} steps"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few short trials: a smoke test, not a measurement")
    epochs, trials = (3, 4) if parser.parse_args().quick else (10, 13)
    rows = [fresh(compare, workers, epochs, trials) for workers in (1, 2)]
    columns = ["workers", "engine steps/s", "bare steps/s", "engine / bare", "whole trials", "n"]
    show("Steps/s, median (min-max); target for engine / bare: >= 0.97", columns, rows)


if __name__ == "__main__":
    main()
