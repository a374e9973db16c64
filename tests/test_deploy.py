"""Files that start a run on a cluster, checked as far as that goes without one: by Ray's own schema, by bash, by our
own command line, and the Slurm script with programs that stand for Slurm's."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import ray
import typer
from ruamel.yaml import YAML

from bocb_tune.cli import main as cli
from bocb_tune.spec.model import load_spec

DEPLOY = Path(__file__).parents[1] / "deploy"


def documents(name: str) -> list[Any]:
    return list(YAML(typ="safe").load_all(DEPLOY / name))


def require_parses(command: str) -> None:
    group: Any = typer.main.get_command(cli.app)
    program, name, *args = shlex.split(command)
    assert program == "bocb-tune"
    assert group.commands[name].make_context(name, args).args == []


def test_the_manifest_of_kuberay_starts_our_command_on_an_experiment_that_loads(tmp_path: Path) -> None:
    config, job = documents("kuberay.yaml")
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    require_parses(job["spec"]["entrypoint"])
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["rayVersion"] == ray.__version__
    (volume,) = cluster["headGroupSpec"]["template"]["spec"]["volumes"]
    assert volume["configMap"]["name"] == config["metadata"]["name"]
    (tmp_path / "spec.yaml").write_text(config["data"]["spec.yaml"])
    assert load_spec(tmp_path / "spec.yaml").resources.gpus_per_worker == 0.25
    (workers,) = cluster["workerGroupSpecs"]
    assert workers["minReplicas"] >= 1  # a run needs room for one group to begin


def test_the_launchers_file_is_what_rays_schema_asks_for() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    (config,) = documents("cluster.yaml")
    validate_config(prepare_config(config))
    comment = (DEPLOY / "cluster.yaml").read_text().split('"')
    require_parses(next(text for text in comment if text.startswith("bocb-tune run")))


SLURM = {
    "scontrol": 'echo "scontrol $*" >> "$CALLS"; [ "$1" = show ] && exec seq -f n%g 20000; true',
    "hostname": "echo 10.0.0.1",
    "ray": 'echo "ray $*" >> "$CALLS"; [ "$1" = start ] && sleep 60; true',
    "bocb-tune": 'echo "bocb-tune $*" >> "$CALLS"; trap "exit 130" TERM; sleep 60 & wait $!',
    "srun": 'while [ "${1#-}" != "$1" ]; do [ "$1" = -w ] && shift; shift; done; exec "$@"',
}
"""Programs that stand for Slurm's and those that it would start: each writes down how it was called. The list of nodes
is longer than a pipe holds, so that whoever reads its first line only ends the program that writes it."""


@pytest.fixture
def slurm(tmp_path: Path) -> dict[str, str]:
    for name, text in SLURM.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    job = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n[1-2]", "SLURM_JOB_NUM_NODES": "2", "SLURM_CPUS_PER_TASK": "16"}
    return os.environ | job | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "CALLS": str(tmp_path / "calls")}


def calls_of_preempted_job(calls: Path, slurm: dict[str, str], after: str) -> list[str]:
    """Send SIGTERM to a job once it has called `after`, and list what it called until its end."""
    command = ["bash", str(DEPLOY / "slurm.sh"), "mine.yaml", "s3://bucket/mine"]
    process = subprocess.Popen(command, env=slurm, start_new_session=True)
    try:
        deadline = time.monotonic() + 60
        while after not in (calls.read_text() if calls.exists() else "") and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGTERM)
        process.wait(60)
    finally:
        with contextlib.suppress(ProcessLookupError):  # nothing that it started is left
            os.killpg(process.pid, signal.SIGKILL)
    return calls.read_text().splitlines()


def test_a_slurm_job_that_is_preempted_finishes_its_epochs_and_is_put_into_the_queue_again(
    tmp_path: Path, slurm: dict[str, str]
) -> None:
    said = calls_of_preempted_job(tmp_path / "calls", slurm, after="bocb-tune")
    (run,) = (line for line in said if line.startswith("bocb-tune"))
    require_parses(run)
    assert run == "bocb-tune run mine.yaml --out s3://bucket/mine --address 10.0.0.1:6379"
    assert sum(line.startswith("ray start --head") for line in said) == 1
    assert sum(line.startswith("ray start --address=10.0.0.1:6379") for line in said) == 1
    assert said[-1] == "scontrol requeue 7"


def test_a_slurm_job_that_is_preempted_while_ray_starts_is_put_into_the_queue_again(
    tmp_path: Path, slurm: dict[str, str]
) -> None:
    late = SLURM["ray"].replace("true", "true; [ $1 != health-check ] || { sleep 0.2; exit 1; }")
    (tmp_path / "ray").write_text(f"#!/bin/bash\n{late}\n")
    said = calls_of_preempted_job(tmp_path / "calls", slurm, after="ray health-check")
    assert not any(line.startswith("bocb-tune") for line in said)
    assert said[-1] == "scontrol requeue 7"
