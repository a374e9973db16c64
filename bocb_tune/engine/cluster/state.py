"""The cluster as it is at one moment: its nodes, what is free, and who waits for room."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import ray
from ray._private.state import state as ray_state
from ray.core.generated.gcs_pb2 import PlacementGroupTableData as Placement
from ray.util import list_named_actors, remove_placement_group
from ray.util.placement_group import PlacementGroup

from bocb_tune.engine.cluster.nodes import machines_of, require_own_node
from bocb_tune.engine.cluster.room import Machine

NAME = "bocb-tune"
"""Beginning of the names of the processes that keep groups, of all runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterState:
    """The cluster as it is at one moment."""

    machines: tuple[Machine, ...]
    """Nodes that are alive, and stay."""
    going: Mapping[str, str] = field(default_factory=dict)
    """Names of nodes that are about to be taken away, by id."""
    waiting: int
    """Worker groups of this run that wait for room."""
    free: Mapping[str, float]
    """Resources that nobody uses."""
    is_shared: bool = False
    """Whether another run on the cluster waits for room."""


def look_at_cluster(run_id: str) -> ClusterState:
    """Look at the cluster, and remove what dead processes of this run hold of it.

    Raises:
        ClusterError: if Ray has ended on the driver's machine.
    """
    own = ray.get_runtime_context().get_job_id()
    placements = placements_of_cluster()
    remove_orphans(placements, own)
    waiting = [placement for placement in placements if _waits(placement)]
    nodes = ray.nodes()
    require_own_node(nodes, ray.get_runtime_context().get_node_id())
    machines, going = machines_of(nodes), ray_state.get_draining_nodes()
    ours = sum(placement.creator_job_id.hex() == own for placement in waiting)
    return ClusterState(
        machines=tuple(machine for machine in machines if machine.id not in going),
        going={machine.id: machine.name for machine in machines if machine.id in going},
        waiting=ours,
        free=ray.available_resources() if waiting else {},
        is_shared=len(waiting) > ours and has_other_runs(run_id),
    )


def placements_of_cluster() -> list[Placement]:
    """Return the placement groups of the cluster, with who made them, which Ray's own table of them leaves out."""
    accessor = ray_state._connect_and_get_accessor()
    return [Placement.FromString(each) for each in accessor.get_placement_group_table()]


def remove_orphans(placements: Iterable[Placement], job: str) -> None:
    """Remove the placement groups of a job whose makers are dead, which Ray does only when the job ends."""
    drivers = ray.ActorID.nil().binary()  # the maker of placement groups that no actor made
    for each in placements:
        is_orphan = each.creator_actor_dead and each.creator_actor_id not in (b"", drivers)
        if is_orphan and each.creator_job_id.hex() == job and each.state != Placement.REMOVED:
            remove_placement_group(PlacementGroup(ray.PlacementGroupID(each.placement_group_id)))


def has_other_runs(run_id: str) -> bool:
    """Tell whether the processes that keep groups, which have names, are also those of other runs."""
    return any(name.startswith(f"{NAME}-") and not name.startswith(f"{NAME}-{run_id}-") for name in named_actors())


def named_actors() -> list[str]:
    """Return the names of the processes on the cluster that have one."""
    return [actor["name"] for actor in list_named_actors(all_namespaces=True)]


def _waits(placement: Placement) -> bool:
    """Tell whether a placement group is one of workers, and waits for room."""
    kinds = {kind for bundle in placement.bundles for kind in bundle.unit_resources}
    return placement.state in (Placement.PENDING, Placement.RESCHEDULING) and not kinds.isdisjoint(("CPU", "GPU"))
