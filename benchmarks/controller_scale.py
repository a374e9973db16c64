"""What the controller costs a trial, and whether that stays flat as the records grow.

A grid of 5 synthetic backbones x 7 optimizers goes through the whole engine on Ray (worker groups, Tune, TPE, ASHA,
journals) with as many slots as there are CPUs. The trials train nothing (up to 9 epochs of no time each), so that all
of their time is overhead. Each end of a trial is stamped with wall time and with the CPU time of the driver's process.
Rungs end late trials sooner than early ones, so the epochs a trial are shown beside the times.

Targets: at most 100 ms of wall time a trial, and the last 1,000 of 5,000 at most 1.3 times the first 1,000. Takes
under ten minutes.
"""

from __future__ import annotations

import argparse
import itertools
import math
from collections import Counter
from collections.abc import Sequence

from harness import Clock, run_engine
from machine import show

CELLS = 35
EXPERIMENT = """
name: scale
task: {{name: synthetic, epoch_s: 0}}
dataset: synthetic
backbones: [bowl, ridge, cliff, shifted, flat]
optimizers: [sgd, sgdp, lion, adam, adamw, lamb, adan]
recipe: digits
budget: {{epochs: 9, trials_per_cell: {trials_per_cell}}}
search: {{design: 8, asha: {{grace: 1, reduction_factor: 3}}}}
repeats: {{best: 0, default: 0}}
"""


def row(name: str, stamps: Sequence[float], window: int) -> list[str]:
    """What a clock gained a trial: over all trials, the first and the last `window` of them, and how these compare."""
    whole, first, last = (
        (part[-1] - part[0]) / (len(part) - 1) for part in (stamps, stamps[: window + 1], stamps[-window - 1 :])
    )
    return [name, f"{whole:.1f}", f"{first:.1f}", f"{last:.1f}", f"{last / first:.2f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=5000, help="at least this many, in equal number for each cell")
    parser.add_argument("--quick", action="store_true", help="420 trials: a smoke test, not a measurement")
    arguments = parser.parse_args()
    wanted = 420 if arguments.quick else arguments.trials
    clock = Clock()
    run_engine(EXPERIMENT.format(trials_per_cell=math.ceil(wanted / CELLS)), clock)
    count = len(clock.records)
    window = min(1000, count // 5)
    epochs = list(itertools.accumulate(record.budget for record in clock.records))
    rows = [
        row("ms of wall time", [1000 * s for s in clock.wall_s], window),
        ["target", "<= 100", "", "", "<= 1.3"],
        row("ms of CPU time of the driver", [1000 * s for s in clock.cpu_s], window),
        row("epochs", epochs, window),
    ]
    outcomes = ", ".join(f"{n} {status}" for status, n in Counter(str(r.status) for r in clock.records).items())
    columns = ["a trial", f"all {count}", f"first {window}", f"last {window}", "last / first"]
    show(f"{count} trials in {CELLS} cells, one run: {outcomes}", columns, rows)


if __name__ == "__main__":
    main()
