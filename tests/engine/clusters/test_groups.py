"""Groups of several shapes, and labels of nodes, on real Ray."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bocb_tune.cli.launch import cell_plans
from bocb_tune.core.files import DRIVER_FILE
from bocb_tune.spec.model import load_spec
from tests.support.processes.nodes import Cluster
from tests.support.processes.runs import Run, command_line, count_lines, records_in, session_pids
from tests.support.simulated import Simulation, essence

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]

SPEC = """
name: shapes
task: {{name: synthetic, noise: 0.5, epoch_s: {epoch_s}}}
dataset: synthetic
backbones: [bowl, cliff]
optimizers: [sgd]
recipe: digits
budget: {{epochs: 2, trials_per_cell: 3}}
search: {{design: 1, asha: null}}
repeats: {{best: 1, default: 0}}
resources: {resources}
"""


def write_spec(tmp_path: Path, resources: str, epoch_s: float = 0.2) -> Path:
    path = tmp_path / "spec.yaml"
    path.write_text(SPEC.format(resources=resources, epoch_s=epoch_s))
    return path


def test_a_backbone_of_two_ranks_and_one_of_one_share_two_cpus(tmp_path: Path) -> None:
    spec = write_spec(tmp_path, "{by_backbone: {bowl: {workers: 2}}}")
    run = Run(spec, tmp_path / "run")
    try:
        assert run.wait() == 0, run.output
    finally:
        run.close()
    records = records_in(run.folder)
    assert essence(records) == essence(Simulation(tmp_path / "simulated", cell_plans(load_spec(spec))).run())
    assert {(record.cell.backbone, record.world_size) for record in records.values()} == {("bowl", 2), ("cliff", 1)}


@pytest.mark.slow
def test_only_nodes_with_the_labels_train_and_a_label_of_none_is_refused(tmp_path: Path) -> None:
    nodes = Cluster(tmp_path, cpus=2)
    try:
        labelled = nodes.start(f"--address={nodes.address}", "--num-cpus=1", "--labels=kind=big,zone=eu")
        refused = Run(write_spec(tmp_path, "{labels: {kind: bigg}}"), tmp_path / "none", "--address", nodes.address)
        try:
            assert refused.wait(120) == 2
            assert "no node has kind=bigg; nodes have kind=big, zone=eu" in refused.output
        finally:
            refused.close()
        spec = write_spec(tmp_path, "{labels: {kind: 'in(big, huge)'}}", epoch_s=1)
        run = Run(spec, tmp_path / "run", "--address", nodes.address)
        try:
            assert run.wait_until(lambda: count_lines(run.folder) >= 4)
            assert json.loads((run.folder / DRIVER_FILE).read_text())["slots"] == 1
            workers = [pid for pid in session_pids(labelled.pid) if b"RayTrainWorker" in command_line(pid)]
            assert len(workers) == 1
            assert run.wait() == 0, run.output
        finally:
            run.close()
    finally:
        nodes.close()
