"""The Ray cluster under a run: attached to or started here, and how many worker groups it holds."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import ray


class ClusterError(ValueError):
    """The cluster, or this machine, cannot do what the experiment asks for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """Resources of one worker group, and how many groups there may be."""

    workers: int
    cpus_per_worker: float
    gpus_per_worker: float
    max_slots: int | None
    warm: bool


@contextlib.contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Attach to a cluster, which stays as it was, or start Ray for the length of a run."""
    options: dict[str, Any] = {"log_to_driver": True, "logging_level": "ERROR", "namespace": "bocb-tune"}
    if address is None:
        options |= {"num_cpus": os.cpu_count(), "include_dashboard": False, "address": "local"}
    else:
        options |= {"address": address}
    try:
        ray.init(**options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ClusterError(
            f"--address {address}: cannot attach to Ray there: {error}. Is it the address `ray start --head` printed?"
            " If that cluster asks for another token than this user's, name it in RAY_AUTH_TOKEN_PATH."
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def slots_that_fit(nodes: Sequence[dict[str, Any]], resources: Resources) -> int:
    """Count the worker groups the cluster holds at once.

    Raises:
        ClusterError: if it does not hold one.
    """
    workers = sum(_workers_that_fit(node["Resources"], resources) for node in nodes if node["Alive"])
    groups = workers // resources.workers
    if groups == 0:
        cpus, gpus = (sum(node["Resources"].get(kind, 0) for node in nodes if node["Alive"]) for kind in ("CPU", "GPU"))
        raise ClusterError(
            f"resources: {resources.workers} worker(s) of {resources.cpus_per_worker:g} CPU and"
            f" {resources.gpus_per_worker:g} GPU do not fit: Ray has {cpus:g} CPU and {gpus:g} GPU,"
            f" room for {workers} such worker(s). Ask for fewer workers, or attach to a larger cluster with --address."
        )
    return groups if resources.max_slots is None else min(groups, resources.max_slots)


def _workers_that_fit(node: dict[str, float], resources: Resources) -> int:
    rooms = [node.get("CPU", 0) / resources.cpus_per_worker if resources.cpus_per_worker else float("inf")]
    if resources.gpus_per_worker:
        rooms.append(_workers_on_gpus(node.get("GPU", 0), resources.gpus_per_worker))
    return int(min(rooms) + 1e-9)


def _workers_on_gpus(gpus: float, share: float) -> float:
    """Count the workers that GPUs hold: one with a fraction sits on one GPU, so that of 0.4 each four fit on two."""
    return int(gpus) * int(1 / share + 1e-9) if share < 1 else gpus / share
