"""The Ray cluster under a run: attached to, or started here."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray
from ray._private import ray_constants, services

KNOCK_S = 4.0
"""Seconds that a machine may take to answer; a host of two addresses is tried at both."""


class ClusterError(ValueError):
    """The cluster, or this machine, cannot do what the experiment asks for."""


@contextlib.contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Attach to a cluster, which stays as it was, or start Ray for the length of a run."""
    options: dict[str, Any] = {"log_to_driver": True, "logging_level": "ERROR", "namespace": "bocb-tune"}
    if address is None:
        options |= {"num_cpus": os.cpu_count(), "include_dashboard": False, "address": "local"}
    else:
        options |= {"address": address}
    try:
        if address is not None:
            _require_listener(address)
        with _on_loopback() if address is None else contextlib.nullcontext():
            ray.init(**options)
    except Exception as error:  # Ray raises that class itself where its processes were too slow, or died
        raise ClusterError(_why_not(address, error)) from error
    try:
        yield
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _on_loopback() -> Iterator[None]:
    """Have Ray's processes listen on 127.0.0.1 only, as they do on systems where it knows no clusters.

    `_node_ip_address` cannot say so: Ray replaces that address by the machine's own.
    """
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def _why_not(address: str | None, error: Exception) -> str:
    if address is not None:
        return (
            f"--address {address}: cannot attach to Ray there: {error}. Is it the address `ray start --head` printed?"
            " If that cluster asks for another token than this user's, name it in RAY_AUTH_TOKEN_PATH."
        )
    reason = str(error).rstrip(".")
    return (
        f"cannot start Ray on this machine: {reason}. Ray keeps a token in HOME ({Path.home()}) and its sockets in"
        f" RAY_TMPDIR ({os.environ.get('RAY_TMPDIR', '/tmp')}); set them to folders that can be written to."
        " If the machine was busy, type the same command again."
    )


def _require_listener(address: str) -> None:
    """Try to reach the machine of a cluster: Ray itself would do so for a quarter of an hour.

    Raises:
        OSError: if nothing answers within `KNOCK_S`.
        ValueError: if it is no address of a cluster.
    """
    if address.startswith("ray://"):
        raise ValueError(
            "ray:// is the address of a Ray client, which cannot drive a run; give HOST:PORT of the head node, from a"
            " machine of the cluster"
        )
    found = services.canonicalize_bootstrap_address(address)  # as ray.init reads `auto` and RAY_ADDRESS
    if found is None:
        return
    host, _, port = found.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=KNOCK_S).close()
    except OSError as error:
        raise ConnectionError(f"nothing answers at {found} ({error})") from error
