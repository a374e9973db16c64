"""SIGKILL of the driver, of a worker, of Ray's node process at random moments: the run that is started again ends with
the records of one that was never disturbed, bit for bit, since one slot leaves nothing to the order of arrival."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from bocb_tune.cli.launch import cell_plans, objective_of
from bocb_tune.spec.model import load_spec
from tests.support.processes.runs import Run, count_lines, records_in
from tests.support.simulated import OBJECTIVE, Simulation, essence

SPEC = """
name: killed
task: {name: synthetic, noise: 0.5, epoch_s: 0.05}
dataset: synthetic
backbones: [bowl, cliff]
optimizers: [sgd, adamw]
recipe: digits
budget: {epochs: 9, trials_per_cell: 10}
search: {design: 4, asha: {grace: 1, reduction_factor: 3}, refine: 3}
repeats: {best: 2, default: 1}
resources: {max_slots: 1}
"""
TARGETS = ("driver", "worker", "node")

pytestmark = pytest.mark.ray


def kill_and_resume(tmp_path: Path, kills: int, seed: int) -> None:
    spec_file = tmp_path / "spec.yaml"
    spec_file.write_text(SPEC)
    spec = load_spec(spec_file)
    assert objective_of(spec) == OBJECTIVE
    undisturbed = tmp_path / "undisturbed"
    expected = essence(Simulation(undisturbed, cell_plans(spec)).run())
    total = count_lines(undisturbed)

    generator = random.Random(seed)
    moments = sorted(generator.uniform(0.0, 0.95) for _ in range(kills))
    folder = tmp_path / "run"
    finished: dict[str, tuple[object, ...]] = {}
    waiting = list(enumerate(moments))
    while waiting:
        run = Run(spec_file, folder)
        try:
            while waiting:
                number, moment = waiting[0]
                if not run.wait_until(lambda moment=moment: count_lines(folder) >= moment * total):  # type: ignore[misc]
                    break
                waiting.pop(0)
                target = TARGETS[number % len(TARGETS)]
                run.kill(target)
                if target != "worker":
                    break
            if waiting or TARGETS[(kills - 1) % len(TARGETS)] != "worker":
                run.wait()
            else:
                assert run.wait() == 0, run.output
        finally:
            run.close()
        kept = essence({key: record for key, record in records_in(folder).items() if record.status.is_result})
        assert finished.items() <= kept.items(), "a finished trial was lost or changed"
        finished = kept

    last = Run(spec_file, folder)
    try:
        assert last.wait() == 0, last.output
    finally:
        last.close()
    assert essence(records_in(folder)) == expected
    simulated, real = Simulation(undisturbed, cell_plans(spec)), Simulation(folder, cell_plans(spec))
    assert {key: rungs.table() for key, rungs in real.rungs.items()} == {
        key: rungs.table() for key, rungs in simulated.rungs.items()
    }


def test_three_kills(tmp_path: Path) -> None:
    kill_and_resume(tmp_path, kills=3, seed=1)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_twenty_kills_at_random_moments(tmp_path: Path) -> None:
    kill_and_resume(tmp_path, kills=20, seed=2)
