"""Placement groups of processes that died, on real Ray: their room must not stay taken until the run ends."""

from __future__ import annotations

import time

import pytest
import ray
from ray.util.placement_group import placement_group

from bocb_tune.engine.cluster.connection import connected
from bocb_tune.engine.cluster.state import placements_of_cluster, remove_orphans

pytestmark = pytest.mark.ray


class Keeper:
    """A process that makes a placement group, as Ray Train's controller does, or has another one make it."""

    def hold(self) -> None:
        self._placement = placement_group([{"CPU": 0.25}])
        ray.get(self._placement.ready())

    def have_held(self) -> None:
        self._child = ray.remote(num_cpus=0)(Keeper).remote()
        ray.get(self._child.hold.remote())


def free_cpus() -> float:
    return float(ray.available_resources().get("CPU", 0.0))


def test_the_room_of_a_process_that_died_is_freed_and_that_of_others_is_not() -> None:
    with connected(None):
        total = ray.cluster_resources()["CPU"]
        ray.get(placement_group([{"CPU": 0.25}]).ready())  # of the driver itself
        makers = [ray.remote(num_cpus=0)(Keeper).remote() for _ in range(3)]
        ray.get([makers[0].hold.remote(), makers[1].hold.remote(), makers[2].have_held.remote()])
        for dead in makers[1:]:
            ray.kill(dead)
        deadline = time.monotonic() + 30
        while free_cpus() < total - 0.5 and time.monotonic() < deadline:
            remove_orphans(placements_of_cluster(), ray.get_runtime_context().get_job_id())
            time.sleep(0.5)
        assert free_cpus() == total - 0.5
        time.sleep(2)
        remove_orphans(placements_of_cluster(), ray.get_runtime_context().get_job_id())
        time.sleep(1)
        assert free_cpus() == total - 0.5
