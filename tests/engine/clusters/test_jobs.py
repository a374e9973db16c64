"""Runs as jobs of a cluster: what is handed to its job server, what is refused, and on a real one the whole way."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from bocb_tune.cli.submitted import submit_experiment
from bocb_tune.engine import jobs
from bocb_tune.engine.cluster.connection import ClusterError
from tests.support.processes.nodes import Cluster
from tests.support.processes.runs import COMMAND, records_in

SPEC = """
name: mine
task: {name: synthetic, noise: 0.5, epoch_s: 0.2}
dataset: synthetic
backbones: [bowl]
optimizers: [sgd]
recipe: digits
budget: {epochs: 2, trials_per_cell: 3}
search: {design: 1, asha: null}
repeats: {best: 0, default: 0}
resources: {max_slots: 1}
"""


@dataclass
class Server:
    """What Ray's client of a job server does, with jobs that end when they are told to."""

    known: list[SimpleNamespace] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)
    """Files that the nodes would get."""
    _server_ray_version: str = ray.__version__

    def submit_job(self, **job: Any) -> str:
        places = [job["runtime_env"]["working_dir"], *job["runtime_env"]["py_modules"]]
        self.seen += [f"{Path(place).name}/{p.relative_to(place)}" for place in places for p in Path(place).rglob("*")]
        details = {"status": "RUNNING", "message": None, "start_time": len(self.known), "driver_exit_code": None}
        self.known.append(SimpleNamespace(**job, **details))
        return str(job["submission_id"])

    def list_jobs(self) -> list[SimpleNamespace]:
        return [*self.known, SimpleNamespace(metadata=None, submission_id="somebody's", status="RUNNING")]

    def stop_job(self, job: str) -> None:
        next(each for each in self.known if each.submission_id == job).status = "STOPPED"


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "spec.yaml"
    path.write_text(SPEC)
    return path


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    made = Server()
    monkeypatch.setattr(jobs, "_client", lambda _: made)
    monkeypatch.setattr(jobs.socket, "create_connection", lambda *_, **__: SimpleNamespace(close=lambda: None))
    return made


def test_the_package_and_the_experiment_travel_with_the_command(server: Server, spec: Path) -> None:
    code = submit_experiment(spec, "http://head:8265", None, "s3://b/mine", "*/sgd", ["seed=1"], wait=False)
    (job,) = server.known
    assert code == 0
    assert shlex.split(job.entrypoint)[:4] == ["python", "-m", "bocb_tune", "run"]
    assert shlex.split(job.entrypoint)[4:] == (
        ["experiment.yaml", "--out", "s3://b/mine", "--address", "auto", "--set", "seed=1", "--only", "*/sgd"]
    )
    assert "work/experiment.yaml" in server.seen
    for file in ("engine/jobs.py", "search_spaces/sgd.yaml", "analysis/__init__.py", "__main__.py"):
        assert f"bocb_tune/{file}" in server.seen  # links were followed
    assert not [name for name in server.seen if "__pycache__" in name]


def test_a_run_at_work_is_not_begun_twice_and_one_that_ended_goes_on_as_another_job(
    server: Server, spec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def submit() -> int:
        return submit_experiment(spec, "http://head:8265", None, "/shared/mine", "*", (), wait=False)

    submit()
    with pytest.raises(ClusterError, match=r"mine: job mine is at work on this run; `bocb-tune stop mine`"):
        submit()
    assert jobs.stop(server, "mine").status == "RUNNING"
    assert jobs.job_named(server, "mine").status == "STOPPED"
    submit()
    assert [job.id for job in jobs.jobs(server)] == ["mine", "mine-2"]
    assert "`bocb-tune status mine --address http://head:8265`" in capsys.readouterr().out
    with pytest.raises(ClusterError, match="unknown run of this cluster 'mime'; did you mean 'mine'"):
        jobs.job_named(server, "mime")


def test_a_relative_folder_says_nothing_to_a_cluster(spec: Path) -> None:
    with pytest.raises(ValueError, match=r"--out runs/mine: .* give a URI .* or an absolute path"):
        submit_experiment(spec, "http://head:8265", None, None, "*", (), wait=False)


@pytest.mark.parametrize("address", ["ray://head:10001", "head:6379", "auto", "http://"])
def test_what_is_no_job_server_is_refused_with_what_is(address: str) -> None:
    with pytest.raises(ClusterError, match=r"give http://HOST:8265") as error:
        jobs.client_at(address)
    assert "`bocb-tune run`" in str(error.value)


def test_a_server_that_does_not_answer_or_has_another_ray_is_refused(server: Server) -> None:
    server._server_ray_version = "2.59.1"
    with pytest.raises(ClusterError, match=rf"the cluster has Ray 2.59.1, this machine {ray.__version__}"):
        jobs.client_at("http://head:8265")
    server._server_ray_version = ray.__version__
    assert jobs.client_at("http://head:8265") is server


def test_where_nothing_listens_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ConnectionRefusedError("refused")

    monkeypatch.setattr(jobs.socket, "create_connection", refuse)
    with pytest.raises(ClusterError, match=r"--address http://127.0.0.1:1: nothing answers there \(refused\)"):
        jobs.client_at("http://127.0.0.1:1")


class WithJobServer(Cluster):
    """A head node with a job server on this machine's own address."""

    url = "http://127.0.0.1:28265"

    def start(self, *options: str) -> subprocess.Popen[bytes]:
        asked = [option for option in options if not option.startswith("--include-dashboard")]
        return super().start(*asked, "--include-dashboard=true", "--dashboard-port=28265", "--dashboard-host=127.0.0.1")


@pytest.mark.slow
@pytest.mark.ray
def test_a_real_job_server_drives_a_run_and_knows_it_by_name(
    tmp_path: Path, spec: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("aiohttp", reason="needs bocb-tune[cluster]")
    # `python` on the node is this one
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    nodes = WithJobServer(tmp_path, cpus=2)
    try:
        command = [COMMAND, "submit", str(spec), "--address", nodes.url, "--out", str(tmp_path / "run")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "[3/3]" in done.stdout or "bocb-tune analyze" in done.stdout
        assert len(records_in(tmp_path / "run")) == 3
        said = subprocess.run(
            [COMMAND, "status", "mine", "--address", nodes.url], capture_output=True, text=True, timeout=60, check=True
        )
        assert "mine: job mine, succeeded" in said.stdout
    finally:
        nodes.close()
