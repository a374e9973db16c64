"""The Ray cluster under a run: attached to or started here, and how many worker groups it holds."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray._private import ray_constants, services

from bocb_tune.core.groups import GroupShape, has_labels, labels_text, nearest_labels
from bocb_tune.core.names import listed
from bocb_tune.engine.room import Machine, Room

LABELS_NAMED = 8
"""Labels of nodes that a message lists."""
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
    except (OSError, ValueError, RuntimeError) as error:
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
    return (
        f"cannot start Ray on this machine: {error}. Ray keeps a token in HOME ({Path.home()}) and its sockets in"
        f" RAY_TMPDIR ({os.environ.get('RAY_TMPDIR', '/tmp')}); set them to folders that can be written to."
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


def machines_of(nodes: Sequence[dict[str, Any]]) -> tuple[Machine, ...]:
    """Describe the nodes that are alive."""
    return tuple(
        Machine(
            id=node["NodeID"],
            name=f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})",
            resources=node["Resources"],
            labels=node.get("Labels", {}),
        )
        for node in nodes
        if node["Alive"]
    )


def require_own_node(nodes: Sequence[dict[str, Any]], own: str) -> None:
    """Check that the node of this process, on which the processes that keep groups are, has not gone.

    Raises:
        ClusterError: if it has: no other node can take its place.
    """
    if not any(node["NodeID"] == own and node["Alive"] for node in nodes):
        raise ClusterError(
            "Ray has ended on this machine, where the run is driven from: its process was killed (for memory, say), or"
            " `ray stop` was typed. Start the run again by the same command: it goes on from its journals."
        )


def require_room(machines: Sequence[Machine], shapes: Iterable[GroupShape]) -> None:
    """Check that the cluster holds a group of each shape when nobody else uses it.

    Raises:
        ClusterError: if it does not; it says how much room there is, and of labels the nearest that nodes have.
    """
    for shape in shapes:
        if Room(machines).take(shape):
            continue
        if shape.labels and not any(has_labels(machine.labels, shape.labels) for machine in machines):
            raise ClusterError(_no_such_label(machines, shape))
        cpus, gpus = (sum(machine.resources.get(kind, 0) for machine in machines) for kind in ("CPU", "GPU"))
        raise ClusterError(
            f"resources: {shape} do not fit: Ray has {cpus:g} CPU and {gpus:g} GPU, room for"
            f" {groups_that_fit(machines, replace(shape, workers=1))} such worker(s)."
            " Ask for fewer workers, or attach to a larger cluster with --address."
        )


def _no_such_label(machines: Sequence[Machine], shape: GroupShape) -> str:
    there = nearest_labels(shape.labels, [machine.labels for machine in machines])
    known = f"nodes have {listed(there, LABELS_NAMED)}" if there else "no node has a label"
    return (
        f"resources.labels: no node has {labels_text(shape.labels)}; {known}. Correct it, or start nodes with"
        f' `ray start --labels="{labels_text(shape.labels).replace(", ", ",")}"`.'
    )


def groups_that_fit(machines: Sequence[Machine], shape: GroupShape) -> int:
    """Count the worker groups of a shape that the cluster holds at once when nobody else uses it."""
    room, count = Room(machines), 0
    while room.take(shape):
        count += 1
    return count
