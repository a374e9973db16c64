"""The nodes of a cluster, and how many worker groups they hold."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from bocb_tune.core.groups import GroupShape, has_labels, labels_text, nearest_labels
from bocb_tune.core.names import listed
from bocb_tune.engine.cluster.connection import ClusterError
from bocb_tune.engine.cluster.room import Machine, Room

LABELS_NAMED = 8
"""Labels of nodes that a message lists."""


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
