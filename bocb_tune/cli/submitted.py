"""Commands on runs that a cluster's job server drives: submit, status by name, stop."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from bocb_tune.cli.busy import busy, warn
from bocb_tune.core.storage import is_uri
from bocb_tune.engine import jobs
from bocb_tune.spec.environment import CAUTIONS, REMOTE
from bocb_tune.spec.grid import plan_grid
from bocb_tune.spec.model import load_spec

ENDS = {"SUCCEEDED": 0, "STOPPED": 130}
"""Exit codes by how a job ended, where its driver's is not known."""


def submit_experiment(
    spec_path: Path, address: str, name: str | None, out: str | None, only: str, overrides: Sequence[str], *, wait: bool
) -> int:
    """Send an experiment to a cluster and follow what it prints; returns the exit code.

    Raises:
        ValueError: if the experiment, the place of its run folder or the cluster are not as they must be.
    """
    with busy("checking the experiment"):
        spec = load_spec(spec_path, overrides, REMOTE, CAUTIONS, warn)
        plan_grid(spec, only)
    folder = out or spec.run_dir
    if not is_uri(folder) and not Path(folder).is_absolute():
        raise ValueError(
            f"--out {folder}: the run is driven by a machine of the cluster, which a relative path says nothing to;"
            " give a URI such as s3://bucket/runs/mine, or an absolute path that all nodes see"
        )
    run_name = name or spec.name
    with busy(f"reaching {address}"):
        client = jobs.client_at(address)
        options = [word for change in overrides for word in ("--set", change)]
        options += ["--only", only] if only != "*" else []
        job = jobs.submit(client, run_name, spec_path, folder, options)
    print(f"job {job} at {address}: `bocb-tune status {run_name} --address {address}`, `bocb-tune stop {run_name} ...`")
    if not wait:
        return 0
    return _end_of(jobs.follow(client, run_name, lambda text: print(text, end="", flush=True)))


def _end_of(job: jobs.Job) -> int:
    print(f"{job.name}: {job.status.lower()}. {job.message}", file=sys.stderr)
    return job.exit_code if job.exit_code is not None else ENDS.get(job.status, 1)


def show_submitted(name: str, address: str) -> str:
    """Print how a run on a cluster stands; returns the place of its folder."""
    with busy(f"reaching {address}"):
        job = jobs.job_named(jobs.client_at(address), name)
    print(f"{job.name}: job {job.id}, {job.status.lower()}. {job.message}")
    return job.folder


def stop_submitted(name: str, address: str) -> None:
    """Have a run on a cluster end after the epochs in flight."""
    with busy(f"reaching {address}"):
        job = jobs.stop(jobs.client_at(address), name)
    if job.is_over:
        print(f"{job.name}: job {job.id} is over: {job.status.lower()}")
    else:
        print(
            f"{job.name}: job {job.id} finishes its epochs in flight and ends; the same submission goes on from there"
        )
