"""Notices that a worker is about to be ended, on real Ray: its trial goes on from a step within an epoch."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import pytest

from bocb_tune.core.types import TrialRecord
from tests.support.processes.nodes import RAY, Cluster, send, with_token
from tests.support.processes.runs import Run, count_lines, records_in

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]

SPEC = """
name: handed
task: classification
dataset: digits
backbones: [test_vit]
optimizers: [sgd]
recipe: {base: digits, batch_size: 4, augment: none, warmup_epochs: 0}
budget: {epochs: 2, trials_per_cell: 1, checkpoint_every: 100}
search: {design: 0, asha: null}
repeats: {best: 0, default: 0}
resources: {max_slots: 1}
"""


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "spec.yaml"
    path.write_text(SPEC)
    return path


def curve(folder: Path) -> list[dict[str, float]]:
    """What was measured, but for times."""
    (record,) = records_in(folder).values()
    times = ("images_per_s", "seconds", "peak_memory_gib")
    return [{k: v for k, v in each.metrics.items() if k not in times} for each in record.measurements]


def only(folder: Path) -> TrialRecord:
    (record,) = records_in(folder).values()
    return record


def checkpoints(folder: Path) -> list[Path]:
    return list(folder.glob("checkpoints/*/latest*"))


def calm(spec: Path, folder: Path) -> list[dict[str, float]]:
    run = Run(spec, folder)
    try:
        assert run.wait(400) == 0, run.output
    finally:
        run.close()
    return curve(folder)


def test_sigterm_of_a_worker_leaves_a_checkpoint_within_the_epoch_and_the_trial_goes_on(
    tmp_path: Path, spec: Path
) -> None:
    run = Run(spec, tmp_path / "run")
    try:
        assert run.wait_until(lambda: count_lines(run.folder) >= 2)
        time.sleep(2)  # the order is on its way
        assert not checkpoints(run.folder)
        send(run.process.pid, "ray::RayTrainWorker", signal.SIGTERM)
        assert run.wait_until(lambda: bool(checkpoints(run.folder)))
        assert only(run.folder).budget == 0  # no epoch has ended
        assert run.wait(400) == 0, run.output
    finally:
        run.close()
    assert only(run.folder).attempt >= 2
    assert curve(run.folder) == calm(spec, tmp_path / "calm")


def test_a_node_about_to_be_taken_away_hands_its_trial_to_another(tmp_path: Path, spec: Path) -> None:
    nodes = Cluster(tmp_path, cpus=0)
    run: Run | None = None
    try:
        nodes.add(cpus=1)
        run = Run(spec, tmp_path / "run", "--address", nodes.address)
        folder = run.folder
        assert run.wait_until(lambda: count_lines(folder) >= 2)
        drained = node_id(nodes)
        nodes.add(cpus=1)
        subprocess.run(
            [RAY, "drain-node", f"--address={nodes.address}", f"--node-id={drained}", *DRAIN],
            check=True,
            timeout=60,
            env=with_token(),
        )
        assert run.wait_until(lambda: bool(checkpoints(folder)))
        assert "is about to be taken away" in run.output
        assert run.wait(400) == 0, run.output
    finally:
        if run:
            run.close()
        nodes.close()
    assert only(tmp_path / "run").attempt == 2
    assert curve(tmp_path / "run") == calm(spec, tmp_path / "calm")


DRAIN = ("--reason=DRAIN_NODE_REASON_PREEMPTION", "--reason-message=soon", "--deadline-remaining-seconds=120")
ALIVE = """
import sys, ray
ray.init(address=sys.argv[1], logging_level="ERROR", log_to_driver=False)
print([n["NodeID"] for n in ray.nodes() if n["Alive"] and n["Resources"].get("CPU")][0])
"""


def node_id(nodes: Cluster) -> str:
    """Id of the only node with CPUs."""
    out, _ = nodes._script(ALIVE).communicate(timeout=60)
    return out.decode().split()[-1]
