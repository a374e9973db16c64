"""Runs whose folder is a URI, on real Ray, a real S3 API and three real nodes: the driver and its copy are lost."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from bocb_tune.cli.launch import cell_plans
from bocb_tune.core.remote_run import GONE_AFTER_S, fetched
from bocb_tune.core.storage import is_uri, storage_of
from bocb_tune.core.types import TrialRecord
from bocb_tune.spec.model import load_spec
from tests.support.processes.nodes import Cluster
from tests.support.processes.runs import Run, records_in
from tests.support.s3 import s3_server
from tests.support.simulated import Simulation, essence

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(1200)]

SPEC = """
name: remote
task: {name: synthetic, noise: 0.5, epoch_s: 0.5}
dataset: synthetic
backbones: [bowl]
optimizers: [sgd]
recipe: digits
budget: {epochs: 4, trials_per_cell: 4}
search: {design: 2, asha: {grace: 1, reduction_factor: 2}}
repeats: {best: 1, default: 0}
resources: {max_slots: 1}
"""


@pytest.fixture
def uri(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with s3_server(monkeypatch) as bucket:
        yield f"{bucket}/runs/mine"


def records_at(place: str) -> dict[str, TrialRecord]:
    """Records of a run, as far as its place knows; none before it has begun."""
    if not is_uri(place):
        return records_in(Path(place))
    try:
        with fetched(place) as folder:
            return records_in(folder)
    except ValueError:
        return {}


def ended(place: str) -> int:
    """Trials that have ended."""
    return sum(record.status.is_result for record in records_at(place).values())


def test_a_run_whose_driver_and_its_folder_are_gone_goes_on_from_the_uri_alone(tmp_path: Path, uri: str) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(SPEC)
    expected = essence(Simulation(tmp_path / "simulated", cell_plans(load_spec(spec))).run())
    first = Run.command("run", str(spec), "--out", uri)
    try:
        assert first.wait_until(lambda: ended(uri) >= 2)
        os.kill(first.process.pid, signal.SIGKILL)
        first.wait()
    finally:
        first.close()
    shutil.rmtree(tmp_path / "cache")
    refused = Run.command("run", uri)
    try:
        assert refused.wait(60) == 2
        assert "another machine is at work on this run" in refused.output
    finally:
        refused.close()
    storage_of(uri).remove(".driver.json")  # instead of waiting until it is taken to be gone
    assert GONE_AFTER_S <= 60
    second = Run.command("run", uri)
    try:
        assert second.wait() == 0, second.output
        assert f"next: bocb-tune analyze {uri}" in second.output
    finally:
        second.close()
    assert essence(records_at(uri)) == expected
    kept = [name for trial in expected if (name := storage_of(uri).read(f"checkpoints/{trial}/synthetic.json"))]
    assert len(kept) == 1  # of the cell's best trial


DDP = """
name: three
task: classification
dataset: digits
backbones: [test_vit]
optimizers: [sgd]
recipe: {base: digits, batch_size: 64, augment: none, warmup_epochs: 0}
budget: {epochs: 4, trials_per_cell: 2}
search: {design: 1, asha: null}
repeats: {best: 1, default: 0}
resources: {workers: 2, max_slots: 1}
"""


@pytest.mark.parametrize("remote", [True, False], ids=["s3", "shared path"])
def test_a_grid_over_three_nodes_outlives_a_lost_node_and_its_driver(tmp_path: Path, uri: str, remote: bool) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(DDP)
    place = uri if remote else str(tmp_path / "shared")
    nodes = Cluster(tmp_path, cpus=1)
    first, other = nodes.add(cpus=1), nodes.add(cpus=1)
    run = Run.command("run", str(spec), "--out", place, "--address", nodes.address)
    try:
        assert run.wait_until(lambda: any(record.budget for record in records_at(place).values()))
        nodes.kill(first)
        nodes.add(cpus=1)
        assert run.wait_until(lambda: ended(place) >= 1)
        os.kill(run.process.pid, signal.SIGKILL)
        run.wait()
        if remote:
            shutil.rmtree(tmp_path / "cache")
            storage_of(uri).remove(".driver.json")
        again = Run.command("run", *([uri] if remote else [str(spec), "--out", place]), "--address", nodes.address)
        try:
            assert again.wait(400) == 0, again.output
        finally:
            again.close()
        calm = Run(spec, tmp_path / "calm", "--address", nodes.address)
        try:
            assert calm.wait(400) == 0, calm.output
        finally:
            calm.close()
        assert other.poll() is None
        assert essence(records_at(place)) == essence(records_in(tmp_path / "calm"))
    finally:
        run.close()
        nodes.close()
