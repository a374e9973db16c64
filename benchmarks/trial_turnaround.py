"""What one more trial costs: in a warm worker group of the engine, and with a TorchTrainer started for it.

Both sides train the same trials through the same generator: 3 epochs over two ranks (DDP over gloo, one thread each),
one trial at a time, each side on a Ray of its own in a fresh process. The cost of an added trial is

    (wall(long run) - wall(short run)) / added trials

so that whatever is paid once (starting Ray, the first worker group) cancels. The engine samples with TPE, journals, and
saves a checkpoint an epoch, all as by default; the documented pattern saves none, which is in its favour.

So that overhead shows, the training itself is tiny: timm's `test_mambaout` on digits at their own 8x8 pixels, in
batches of 512. What it takes by itself is measured too, on two bare ranks without Ray: the third column is what is left
of a trial's cost without it. Target: an added trial at least 50 times cheaper. Takes about ten minutes.
"""

from __future__ import annotations

import argparse
import statistics
import time

from documented_pattern import run_all
from harness import BareRanks, Clock, fresh, only_cell, run_engine
from machine import show, spread

from bocb_tune.core.types import Phase, TrialSpec, TrialStatus
from bocb_tune.tasks import get_task
from bocb_tune.training.context import Context, Ranks

EPOCHS = 3
EXPERIMENT = """
name: turnaround
task: classification
dataset: {{name: digits, image_size: 8}}
backbones: [test_mambaout]
optimizers: [sgd]
recipe: {{base: digits, batch_size: 512, augment: none, warmup_epochs: 0}}
budget: {{epochs: 3, trials_per_cell: {trials}}}
search: {{design: 2, asha: null}}
repeats: {{best: 0, default: 0}}
search_spaces: {{sgd: {{lr: {{low: 1.0e-3, high: 1.0e-1}}}}}}
resources: {{workers: 2, max_slots: 1}}
"""
"""Learning rates at which nothing diverges, since a trial that ends early would be a cheap one."""


def make_trials(count: int) -> list[TrialSpec]:
    """Trials that differ by their seeds."""
    cell = only_cell(EXPERIMENT.format(trials=count + 3))
    return [cell.trial(Phase.design, index, cell.space.default) for index in range(count)]


def engine_s(trials: int) -> float:
    """Seconds of wall time of a whole run of the engine."""
    clock = Clock()
    start = time.perf_counter()
    run_engine(EXPERIMENT.format(trials=trials), clock)
    seconds = time.perf_counter() - start
    require_all(trials, sum(record.status == TrialStatus.completed for record in clock.records))
    return seconds


def documented_s(trials: int) -> float:
    """Seconds of wall time of a whole run of the documented pattern."""
    start = time.perf_counter()
    whole = run_all(make_trials(trials))
    seconds = time.perf_counter() - start
    require_all(trials, whole)
    return seconds


def require_all(trials: int, whole: int) -> None:
    if whole != trials:
        raise RuntimeError(f"{whole} of {trials} trials trained to the end, so their time says nothing")


def training_s(ranks: Ranks, trials: int) -> list[float]:
    """Seconds that each trial takes on a bare rank; the first, which warms up, is left out."""
    seconds = []
    for trial in make_trials(trials + 1):
        start = time.perf_counter()
        for _ in get_task(trial.cell.task).run(trial, Context(ranks=ranks)):
            pass
        seconds.append(time.perf_counter() - start)
    return seconds[1:]


def added_s(side: str, short: int, long: int) -> float:
    """Seconds that an added trial costs on a side, `engine` or `documented`."""
    measure = {"engine": engine_s, "documented": documented_s}[side]
    seconds: float = (fresh(measure, long) - fresh(measure, short)) / (long - short)
    print(f"{side}: {seconds:.2f} s for an added trial", flush=True)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one short repetition: a smoke test, not a measurement")
    quick = parser.parse_args().quick
    engine_runs, documented_runs = ((4, 14), (1, 2)) if quick else ((5, 65), (1, 3))
    training, engine, documented = [], [], []
    for _ in range(1 if quick else 3):
        bare_ranks = BareRanks(2)
        training += bare_ranks(training_s, 10)
        bare_ranks.close()
        engine.append(added_s("engine", *engine_runs))
        documented.append(added_s("documented", *documented_runs))
    bare = statistics.median(training)
    rows = [["training itself, 2 bare ranks", spread(training), "", f"{len(training)} trials"]]
    for name, costs, (short, long) in (
        ("engine, warm group", engine, engine_runs),
        ("documented pattern", documented, documented_runs),
    ):
        n = f"{len(costs)} x {long - short} added to {short}"
        rows.append([name, spread(costs), f"{statistics.median(costs) - bare:.3f}", n])
    ratio = statistics.median(documented) / statistics.median(engine)
    rows.append(["documented / engine", f"{ratio:.1f}", "target >= 50", ""])
    columns = ["", "s for an added trial: median (min-max)", "of it not training", "n"]
    show(f"A {EPOCHS}-epoch trial over two ranks, added to a run", columns, rows)


if __name__ == "__main__":
    main()
