"""Faults of a cluster under a real run on real Ray: processes killed and stopped, nodes lost and added, no room."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bocb_tune.cli.launch import cell_plans
from bocb_tune.core.types import TrialStatus
from bocb_tune.spec.model import load_spec
from tests.support.processes.nodes import Cluster, memory_mb, send
from tests.support.processes.runs import COMMAND, Run, command_line, count_lines, records_in, session_pids
from tests.support.simulated import Simulation, essence

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]

SPEC = """
name: faulty
task: {{name: synthetic, noise: 0.5, epoch_s: {epoch_s}}}
dataset: synthetic
backbones: [bowl]
optimizers: [sgd]
recipe: digits
budget: {{epochs: 4, trials_per_cell: 4}}
search: {{design: 2, asha: {{grace: 1, reduction_factor: 2}}}}
repeats: {{best: 1, default: 0}}
resources: {{max_slots: {slots}, patience_min: {patience}}}
"""
NOT_OF_A_SLOT = (b"ray::RayTrainWorker", b"ray::IDLE", b"ray::DashboardAgent", b"ray::RuntimeEnvAgent")
"""Processes of Ray that are a slot's workers, or there without one; those of a slot are the rest."""


def write_spec(tmp_path: Path, *, epoch_s: float = 0.5, slots: int = 1, patience: float = 10) -> Path:
    path = tmp_path / "spec.yaml"
    path.write_text(SPEC.format(epoch_s=epoch_s, slots=slots, patience=patience))
    return path


def undisturbed(spec: Path, folder: Path) -> dict[str, tuple[object, ...]]:
    return essence(Simulation(folder, cell_plans(load_spec(spec))).run())


def status(folder: Path) -> str:
    return subprocess.run([COMMAND, "status", str(folder)], capture_output=True, text=True, check=True).stdout


def listening(session: int) -> set[str]:
    """Addresses on which processes of a session listen."""
    said = subprocess.run(["ss", "-ltnpH"], capture_output=True, text=True, check=True).stdout
    pids = set(session_pids(session))
    lines = [line.split() for line in said.splitlines()]
    return {
        line[3].rpartition(":")[0] for line in lines if pids & {int(pid) for pid in re.findall(r"pid=(\d+)", line[-1])}
    }


@pytest.mark.slow
def test_a_local_run_listens_to_its_own_machine_and_outlives_its_mailbox_and_a_hang(tmp_path: Path) -> None:
    spec = write_spec(tmp_path, patience=0.1)
    run = Run(spec, tmp_path / "run")
    try:
        assert run.wait_until(lambda: count_lines(run.folder) >= 4)
        assert listening(run.process.pid) <= {"127.0.0.1", "[::ffff:127.0.0.1]"}
        commands = {pid: command_line(pid) for pid in session_pids(run.process.pid)}
        beside = [
            pid for pid, line in commands.items() if line.startswith(b"ray::") and not line.startswith(NOT_OF_A_SLOT)
        ]
        assert 0 < sum(map(memory_mb, beside)) < 800, {commands[pid][:40]: memory_mb(pid) for pid in beside}
        send(run.process.pid, "ray::Host", signal.SIGKILL)
        before = count_lines(run.folder)
        assert run.wait_until(lambda: count_lines(run.folder) >= before + 3)
        stopped = send(run.process.pid, "ray::RayTrainWorker", signal.SIGSTOP)
        assert run.wait_until(lambda: not os.path.exists(f"/proc/{stopped}"))
        assert run.wait_until(lambda: "resources.patience_min" in run.output)
        before = count_lines(run.folder)
        assert run.wait_until(lambda: count_lines(run.folder) >= before + 2)
        send(run.process.pid, "ray::TrainController", signal.SIGKILL)
        assert run.wait() == 0, run.output
    finally:
        run.close()
    records = records_in(run.folder)
    assert essence(records) == undisturbed(spec, tmp_path / "simulated")
    assert max(record.attempt for record in records.values()) >= 2


@pytest.mark.slow
def test_a_trial_that_hangs_three_groups_has_failed_and_the_rest_goes_on(tmp_path: Path) -> None:
    spec = write_spec(tmp_path, epoch_s=0.5, patience=0.05)
    run = Run(spec, tmp_path / "run")
    try:
        assert run.wait_until(lambda: count_lines(run.folder) >= 3)
        for _ in range(3):
            stopped = send(run.process.pid, "ray::RayTrainWorker", signal.SIGSTOP)
            assert run.wait_until(lambda stopped=stopped: not os.path.exists(f"/proc/{stopped}"))  # type: ignore[misc]
            lines = count_lines(run.folder)
            assert run.wait_until(lambda lines=lines: count_lines(run.folder) > lines)  # type: ignore[misc]
        assert run.wait() == 1, run.output
    finally:
        run.close()
    failed = [record for record in records_in(run.folder).values() if record.status == TrialStatus.failed]
    assert len(failed) == 1
    assert failed[0].message.endswith("3 times while it trained this trial")


@pytest.fixture
def one_cpu(tmp_path: Path) -> Iterator[Cluster]:
    nodes = Cluster(tmp_path, cpus=2)
    yield nodes
    nodes.close()


@pytest.mark.slow
def test_a_full_cluster_trains_on_the_group_that_has_room_and_says_what_it_waits_for(
    tmp_path: Path, one_cpu: Cluster
) -> None:
    one_cpu.hold(1)
    spec = write_spec(tmp_path, slots=2)
    run = Run(spec, tmp_path / "run", "--address", one_cpu.address)
    said = r"1 of 2 groups ready, waiting for 1 CPU since \d\d:\d\d:\d\d"
    try:
        assert run.wait_until(lambda: count_lines(run.folder) >= 4)
        assert run.wait_until(lambda: re.search(said, status(run.folder)) is not None)
        assert run.wait() == 0, run.output
    finally:
        run.close()
    assert re.search(said, run.output)
    assert re.search(said, (run.folder / "ray.log").read_text())
    assert len(records_in(run.folder)) == 5


@pytest.mark.slow
def test_nodes_that_are_added_get_groups_and_those_that_leave_take_theirs_away(tmp_path: Path) -> None:
    nodes = Cluster(tmp_path, cpus=1)
    spec = write_spec(tmp_path, epoch_s=4, slots=3)
    run = Run(spec, tmp_path / "run", "--address", nodes.address)
    running = lambda: sum(r.status == TrialStatus.running for r in records_in(run.folder).values())  # noqa: E731
    try:
        assert run.wait_until(lambda: running() == 1)
        added = nodes.add(cpus=1)
        start = time.monotonic()
        assert run.wait_until(lambda: running() == 2)
        assert time.monotonic() - start < 60
        nodes.kill(added)
        assert run.wait_until(lambda: re.search(r"node \S+ \(\S+\) lost at", run.output) is not None)
        assert "lost at" in status(run.folder)
        assert run.wait(400) == 0, run.output
        assert nodes.left() == {"used": 0.0, "actors": [], "groups": 0}
    finally:
        run.close()
        nodes.close()
    records = records_in(run.folder)
    assert len(records) == 5
    assert all(record.status.is_result for record in records.values())


@pytest.mark.slow
def test_workers_that_end_before_they_are_ready_are_given_up_with_what_they_said(tmp_path: Path) -> None:
    """A node without torch, as far as its workers can tell."""
    (tmp_path / "torch.py").write_text("raise ImportError('no torch on this node')\n")
    spec = write_spec(tmp_path)
    sitecustomize = "import os, sys\nif 'default_worker' in ' '.join(sys.orig_argv): sys.path.insert(0, {!r})\n"
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(sitecustomize.format(str(tmp_path)))
    paths = f"{tmp_path / 'site'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", paths)
        run = Run(spec, tmp_path / "run")
    try:
        assert run.wait() == 2, run.output
        assert "its workers end before they are ready" in run.output
        assert "no torch on this node" in run.output
    finally:
        run.close()


@pytest.mark.slow
def test_two_runs_on_one_cluster_both_make_progress(tmp_path: Path, one_cpu: Cluster) -> None:
    spec = write_spec(tmp_path, epoch_s=8, slots=2)  # the first must not end before the second starts
    first = Run(spec, tmp_path / "first", "--address", one_cpu.address)
    second: Run | None = None
    try:
        assert first.wait_until(lambda: count_lines(first.folder) >= 4)
        second = Run(spec, tmp_path / "second", "--address", one_cpu.address)
        folder = second.folder
        assert first.wait_until(lambda: count_lines(folder) >= 4)
        assert first.process.poll() is None
        assert "another run waits for room: this one keeps 1 of 2 groups" in first.output
        assert (first.wait(), second.wait()) == (0, 0), second.output
    finally:
        first.close()
        if second:
            second.close()
    assert len(records_in(first.folder)) == len(records_in(second.folder)) == 5
