"""Runs as jobs of a Ray cluster: its job server starts the driver there, with this package, and keeps what it says."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import shutil
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

import ray
from ray.exceptions import RayError

import bocb_tune
from bocb_tune.core.names import plain, unknown
from bocb_tune.core.version import VERSION
from bocb_tune.engine.cluster.connection import KNOCK_S, ClusterError

NAME_KEY = "bocb-tune"
FOLDER_KEY = "bocb-tune folder"
"""Keys under which a job's metadata hold the name of a run and the place of its folder."""
SPEC_NAME = "experiment.yaml"
STOP_S = 600
"""Seconds that a driver may take to finish the epochs in flight when its job is stopped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A run on a cluster, as its job server knows it."""

    id: str
    name: str
    status: str
    """Ray's word: PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED."""
    message: str
    folder: str
    started_ms: int
    exit_code: int | None
    """Exit code of the driver, once it has ended."""

    @property
    def is_over(self) -> bool:
        return self.status in ("STOPPED", "SUCCEEDED", "FAILED")


def client_at(address: str) -> Any:
    """Reach the job server of a cluster.

    Raises:
        ClusterError: if there is none, or it is of a version of Ray that does not go with this one.
    """
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ClusterError(
            f"--address {address}: is no address of a job server; give http://HOST:8265, as `ray start --head` printed"
            " it for the dashboard. A HOST:PORT of Ray itself is for `bocb-tune run`, on a machine of the cluster;"
            " ray://, Ray's client, cannot drive a run"
        )
    try:
        socket.create_connection((parts.hostname, parts.port or 8265), timeout=KNOCK_S).close()
    except OSError as error:
        raise ClusterError(f"--address {address}: nothing answers there ({error})") from error
    try:
        with _without_addresses():
            client = _client(address)
    except (RuntimeError, ConnectionError, ValueError, RayError) as error:
        raise ClusterError(f"--address {address}: {error}") from error
    _require_version(address, str(client._server_ray_version))  # `get_version` gives that of the API
    return client


def _client(address: str) -> Any:
    from ray.job_submission import JobSubmissionClient

    try:
        return JobSubmissionClient(address)
    except RuntimeError as error:
        if "ray[default]" in str(error):
            raise ClusterError("submitting needs `pip install 'bocb-tune[cluster]'` on this machine") from error
        raise


@contextlib.contextmanager
def _without_addresses() -> Iterator[None]:
    """Leave out the variables that Ray would take in place of the address it is given."""
    hidden = {name: os.environ.pop(name) for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS") if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)


def _require_version(address: str, there: str) -> None:
    if there.split(".")[:2] != ray.__version__.split(".")[:2]:
        raise ClusterError(
            f"--address {address}: the cluster has Ray {there}, this machine {ray.__version__}; bocb-tune {VERSION}"
            " runs on the latter: install the same on both"
        )


def submit(client: Any, name: str, spec: Path, folder: str, options: Sequence[str]) -> str:
    """Send an experiment, and this package, to a cluster; return the id of the job that drives it there.

    Args:
        folder: place of the run folder, as nodes see it.
        options: further options of `bocb-tune run`.

    Raises:
        ClusterError: if a run of that name is at work there, or the job server refuses the job.
    """
    earlier = [job for job in jobs(client) if job.name == name]
    if at_work := [job for job in earlier if not job.is_over]:
        raise ClusterError(
            f"{name}: job {at_work[0].id} is at work on this run; `bocb-tune stop {name}` ends it, and another --name"
            " begins another"
        )
    words = ["python", "-m", "bocb_tune", "run", SPEC_NAME, "--out", folder, "--address", "auto", *options]
    with TemporaryDirectory(prefix="bocb-tune-") as scratch:
        runtime_env = packed(Path(scratch), spec)
        try:
            return str(
                client.submit_job(
                    entrypoint=shlex.join(words),
                    submission_id=f"{name}-{len(earlier) + 1}" if earlier else name,
                    runtime_env=runtime_env,
                    metadata={NAME_KEY: name, FOLDER_KEY: folder},
                )
            )
        except (RuntimeError, OSError) as error:
            raise ClusterError(f"the job server refused the run: {error}") from error


def packed(scratch: Path, spec: Path) -> dict[str, Any]:
    """Put an experiment and this package where Ray takes them from for nodes that lack them; return Ray's description.

    The package is copied, since Ray follows no links.
    """
    (scratch / "work").mkdir()
    shutil.copy(spec, scratch / "work" / SPEC_NAME)
    package = scratch / "bocb_tune"
    shutil.copytree(Path(bocb_tune.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    return {
        "working_dir": str(scratch / "work"),
        "py_modules": [str(package)],
        "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_S)},
    }


def jobs(client: Any) -> list[Job]:
    """List the runs that a job server knows, the latest last."""
    found = [_job(details) for details in client.list_jobs() if NAME_KEY in (details.metadata or {})]
    return sorted(found, key=lambda job: job.started_ms)


def job_named(client: Any, name: str) -> Job:
    """Find the latest job of a run.

    Raises:
        ClusterError: if there is none; it names those that there are.
    """
    known = jobs(client)
    if of_name := [job for job in known if job.name == name]:
        return of_name[-1]
    if not known:
        raise ClusterError(f"{name}: no run was submitted to this cluster")
    raise ClusterError(str(unknown("run of this cluster", name, {job.name for job in known})))


def _job(details: Any) -> Job:
    return Job(
        id=details.submission_id,
        name=details.metadata[NAME_KEY],
        status=str(details.status),
        message=plain(details.message or ""),
        folder=details.metadata.get(FOLDER_KEY, ""),
        started_ms=details.start_time or 0,
        exit_code=getattr(details, "driver_exit_code", None),
    )


def follow(client: Any, name: str, write: Callable[[str], object]) -> Job:
    """Write what a run prints until it is over; return how it ended."""

    async def tail() -> None:
        async for text in client.tail_job_logs(job_named(client, name).id):
            write(plain(text))

    asyncio.run(tail())
    return job_named(client, name)


def stop(client: Any, name: str) -> Job:
    """Have the driver of a run finish the epochs in flight and end.

    Raises:
        ClusterError: if there is no such run.
    """
    job = job_named(client, name)
    if not job.is_over:
        client.stop_job(job.id)
    return job
