"""How busy the slots of a large run are, what the controller costs a trial, and how long such a run takes to go on.

400 cells of 64 trials (25,600) and one repeat each on 64 slots, in simulated time: real search (TPE), scheduler, ASHA,
journals, slots and allotment; groups and nodes are simulated. How long trials are follows from ASHA itself, which stops
them at its rungs (1, 3 and 9 of 27 epochs); an epoch takes 5 to 60 s by backbone. The driver takes 57 ms for each
trial, what it was measured to take on Ray (`controller_scale.py`), and hands out no other meanwhile.

Controller time is that of this process in the real code, without Ray's. Then the run is read again as `bocb-tune run`
does when it goes on. Targets: slots busy at least 95 % of the time until the last 2 % of the run; time a trial of the
last 1,000 at most 1.3 times that of the first; 1.5 GiB; 30 s.
"""

from __future__ import annotations

import argparse
import logging
import resource
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from machine import show

sys.path.insert(0, str(Path(__file__).parents[1]))

from bocb_tune.core.groups import GroupShape
from bocb_tune.core.types import TrialSpec, derive_seed
from bocb_tune.engine.allotment import everything
from bocb_tune.engine.cluster.room import Capacity, Machine
from bocb_tune.engine.policy import CellPlan, rung_budgets
from tests.support.events.cluster import EventCluster
from tests.support.simulated import make_cells, make_plan

SLOTS, GPUS = 64, 8
EPOCHS = 27
SYNTHETIC = ("bowl", "ridge", "cliff", "shifted", "flat")
OPTIMIZERS = ("sgd", "adamw", "lamb", "lion", "adan", "sgdp", "adam")


def cells_of(count: int, trials: int, sampler: str) -> tuple[CellPlan, ...]:
    """Cells by the task's five landscapes, each many times over under seeds of its own."""
    made: list[CellPlan] = []
    seed = 0
    while len(made) < count:
        plan = make_plan(
            epochs=EPOCHS,
            design=8,
            search=trials - 9,
            repeats_best=1,
            repeats_default=0,
            rungs=rung_budgets(1, 3, EPOCHS),
            sampler=sampler,
            seed=seed,
        )
        made += [
            replace(cell, settings=cell.settings | {"copy": seed}) for cell in make_cells(plan, SYNTHETIC, OPTIMIZERS)
        ]
        seed += 1
    named = [replace(cell, cell=replace(cell.cell, pretrained=f"p{number}")) for number, cell in enumerate(made)]
    return tuple(named[:count])


def epoch_s(trial: TrialSpec) -> float:
    """5 to 60 s, by the cell."""
    return float(5 * 12 ** (derive_seed(trial.cell.pretrained) % 1000 / 1000))


def busy_share(world: EventCluster, slots: int, last: float = 0.02) -> float:
    """Share of the slots' time that was trained in, from the first start of a trial until the last part of the run."""
    start, end = world.started[0][0], (1 - last) * world.now
    trained = sum(max(0.0, min(stop, end) - max(begin, start)) for _, begin, stop in world.busy)
    return trained / slots / (end - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=400)
    parser.add_argument("--trials", type=int, default=64, help="a cell, without its repeat")
    parser.add_argument("--sampler", default="tpe")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    machines = [
        Machine(id=str(number), name=str(number), resources={"CPU": 64, "GPU": GPUS}) for number in range(SLOTS // GPUS)
    ]
    shape = GroupShape(gpus_per_worker=1)
    resources = Capacity(groups=dict.fromkeys(SYNTHETIC, shape), max_slots=SLOTS, warm=True, patience_min=10, share=0.5)
    assert len(everything(resources)) == 1
    with tempfile.TemporaryDirectory(prefix="bocb-tune-bench-") as folder:
        place = Path(folder) / "run"
        cells = cells_of(arguments.cells, arguments.trials, arguments.sampler)
        world = EventCluster(place, cells, machines, resources, epoch_s=epoch_s, handle_s=0.057, tick_s=60.0)
        cpu_s: list[float] = []
        world.store.on_end = lambda _: cpu_s.append(time.process_time())
        records = world.run()
        window = min(1000, len(cpu_s) // 5)
        first, end = (
            1000 * (part[-1] - part[0]) / (len(part) - 1) for part in (cpu_s[: window + 1], cpu_s[-window - 1 :])
        )
        whole = 1000 * (cpu_s[-1] - cpu_s[0]) / (len(cpu_s) - 1)
        journals = sum(path.stat().st_size for path in place.rglob("*.jsonl"))
        started = time.perf_counter()
        EventCluster(place, cells, machines, resources).store.close()
        resumed_s = time.perf_counter() - started
    epochs = sum(record.budget for record in records.values())
    busy, idle_end = busy_share(world, SLOTS), busy_share(world, SLOTS, last=0.0)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    rows = [
        ["slots busy until the last 2 %", f"{busy:.1%}", ">= 95 %"],
        ["slots busy, all of the run", f"{idle_end:.1%}", ""],
        ["simulated days", f"{world.now / 86400:.2f}", ""],
        ["ms of CPU a trial: all, first and last 1,000", f"{whole:.1f}, {first:.1f}, {end:.1f}", ""],
        ["last / first", f"{end / first:.2f}", "<= 1.3"],
        ["peak memory of the process, GiB", f"{peak:.2f}", "<= 1.5"],
        ["s to read it all and go on", f"{resumed_s:.1f}", "<= 30"],
        ["journals, MB", f"{journals / 1e6:.0f}", ""],
    ]
    title = f"{len(records)} trials, {epochs} epochs, {len(cells)} cells, {SLOTS} slots, {arguments.sampler}; one run"
    show(title, ["", "found", "target"], rows)


if __name__ == "__main__":
    main()
