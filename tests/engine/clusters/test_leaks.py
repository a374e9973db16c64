"""What a run leaves behind on a cluster that goes on: its records, and nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bocb_tune.core.types import TrialStatus
from tests.support.processes.nodes import Cluster
from tests.support.processes.runs import Run, command_line, records_in, session_pids

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]

SPEC = """
name: stops
task: {name: synthetic, noise: 0.5}
dataset: synthetic
backbones: [bowl, cliff]
optimizers: [sgd, adamw]
recipe: digits
budget: {epochs: 4, trials_per_cell: 72}
search: {design: 20, asha: {grace: 1, reduction_factor: 2}}
repeats: {best: 1, default: 0}
resources: {max_slots: 2}
"""
OF_A_RUN = (b"ray::RayTrainWorker", b"ray::TrainController", b"ray::Host", b"ray::ResourceTrainable")


def of_a_run(pid: int) -> bool:
    return command_line(pid).startswith(OF_A_RUN)


def test_nothing_is_left_of_a_run_of_a_hundred_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")  # sockets need short paths
    nodes = Cluster(tmp_path, cpus=2)
    head = nodes.head.pid
    shared = set(os.listdir("/dev/shm"))
    spec = tmp_path / "spec.yaml"
    spec.write_text(SPEC)
    run = Run(spec, tmp_path / "run", "--address", nodes.address)
    try:
        assert run.wait_until(lambda: any(map(of_a_run, session_pids(head))))
        assert run.wait(600) == 0, run.output
        assert nodes.left() == {"used": 0.0, "actors": [], "groups": 0}
        assert not [command_line(pid) for pid in session_pids(head) if of_a_run(pid)]
        assert set(os.listdir("/dev/shm")) <= shared
        left = [path.name for path in temporary.iterdir()]
        assert not [name for name in left if not name.startswith("torchinductor_")]  # torch's cache, one for all runs
    finally:
        run.close()
        nodes.close()
    stopped = [record for record in records_in(run.folder).values() if record.status == TrialStatus.stopped]
    assert len(stopped) >= 100
    kept = {".lock", "cells", "checkpoints", "ray.log", "report", "spec.yaml"}
    assert {path.name for path in run.folder.iterdir()} == kept
    assert not [path for path in run.folder.rglob("*") if path.suffix in (".tmp", ".part")]
