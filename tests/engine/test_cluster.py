"""Attaching to a cluster, and how many worker groups it holds. No Ray process is started."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from hypothesis import given
from hypothesis import strategies as st
from ray._private import services
from ray._private.authentication import authentication_token_setup as token_setup

from bocb_tune.core.groups import GroupShape
from bocb_tune.engine.cluster import connection
from bocb_tune.engine.cluster.connection import ClusterError, connected
from bocb_tune.engine.cluster.nodes import groups_that_fit, machines_of, require_own_node, require_room


@pytest.fixture
def closed() -> str:
    """An address at which nothing listens."""
    with socket.create_server(("", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def silent() -> Iterator[str]:
    """An address whose machine drops what is sent there: a server whose queue is full."""
    with socket.create_server(("", 0), backlog=0) as server:
        waiting = [socket.socket() for _ in range(4)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(("127.0.0.1", server.getsockname()[1]))
        yield f"127.0.0.1:{server.getsockname()[1]}"
        for each in waiting:
            each.close()


@pytest.fixture(autouse=True)
def _no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**options: Any) -> None:
        raise AssertionError(f"Ray was asked to attach: {options}")

    monkeypatch.setattr(ray, "init", init)


def refused(address: str) -> str:
    start = time.monotonic()
    with pytest.raises(ClusterError) as error, connected(address):
        pass
    assert time.monotonic() - start < 10
    return str(error.value)


def silence_at(address: str) -> str:
    """What is said of it; Ray puts this machine's own address in the place of 127.0.0.1."""
    return f"nothing answers at {services.canonicalize_bootstrap_address(address)} "


def test_an_address_at_which_nothing_listens_is_an_error_at_once(closed: str) -> None:
    assert silence_at(closed) in refused(closed)


def test_a_machine_that_keeps_silent_is_an_error_in_time(silent: str) -> None:
    assert silence_at(silent) in refused(silent)


def test_what_auto_stands_for_is_knocked_at_too(closed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", closed)
    assert silence_at(closed) in refused("auto")


def test_a_home_that_takes_no_token_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(ray, "init", lambda **_: token_setup.generate_and_save_token())
    with pytest.raises(ClusterError, match=rf"cannot start Ray .*HOME \({tmp_path}/home\)"), connected(None):
        pass


@pytest.mark.parametrize("error", [Exception("timed out during startup"), TimeoutError(), ConnectionError()])
def test_a_ray_that_does_not_start_on_a_busy_machine_is_an_error_for_the_user(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def init(**_: Any) -> None:
        raise error

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(ClusterError, match="type the same command again"), connected(None):
        pass


@pytest.mark.parametrize("address", ["ray://127.0.0.1:10001", "nonsense"])
def test_what_is_no_address_of_a_cluster_is_refused(address: str) -> None:
    assert refused(address).startswith(f"--address {address}: ")


def test_two_addresses_are_knocked_at_within_ten_seconds() -> None:
    assert 2 * connection.KNOCK_S < 10


def node(*, cpus: float = 1000.0, gpus: float = 0.0, alive: bool = True, **labels: str) -> dict[str, Any]:
    named = {"NodeID": "1", "NodeManagerHostname": "far", "NodeManagerAddress": "10.0.0.7"}
    return {"Alive": alive, "Resources": {"CPU": cpus, "GPU": gpus}, "Labels": labels, **named}


def groups(nodes: list[dict[str, Any]], *, workers: int = 1, cpus: float = 1, gpus: float = 0) -> int:
    shape = GroupShape(workers=workers, cpus_per_worker=cpus, gpus_per_worker=gpus)
    require_room(machines_of(nodes), [shape])
    return groups_that_fit(machines_of(nodes), shape)


@pytest.mark.parametrize(
    ("share", "on_eight"),
    [(0.1, 80), (0.2, 40), (0.25, 32), (0.3, 24), (0.4, 16), (0.5, 16), (0.6, 8), (1, 8), (2, 4), (3, 2), (8, 1)],
)
def test_shares_of_gpus_are_counted_a_gpu_at_a_time(share: float, on_eight: int) -> None:
    assert groups([node(gpus=8)], gpus=share) == on_eight
    assert groups([node(gpus=8)] * 3, gpus=share) == 3 * on_eight
    assert groups([node(gpus=8), node(gpus=8, alive=False), node()], gpus=share) == on_eight


@given(share=st.sampled_from([0.05, 0.1, 0.15, 0.2, 0.3, 1 / 3, 0.35, 0.45, 0.7]), gpus=st.integers(1, 16))
def test_workers_laid_out_one_by_one_find_as_much_room(share: float, gpus: int) -> None:
    """Each goes to the first GPU with room for it, as Ray does, in Ray's own steps of a ten-thousandth."""
    need, rooms, placed = round(share * 10_000), [10_000] * gpus, 0
    while (place := next((i for i, room in enumerate(rooms) if room >= need), None)) is not None:
        rooms[place] -= need
        placed += 1
    assert groups([node(gpus=gpus)], gpus=share) == placed


@pytest.mark.parametrize(
    ("on_node", "workers", "cpus", "room"), [(20, 1, 4, 5), (24, 8, 1, 3), (24, 5, 1, 4), (24, 24, 1, 1)]
)
def test_the_scarcer_resource_and_the_size_of_a_group_decide(on_node: int, workers: int, cpus: int, room: int) -> None:
    assert groups([node(cpus=on_node, gpus=8)], workers=workers, cpus=cpus, gpus=0.3) == room


def test_no_room_for_one_group_is_an_error_that_says_how_much_there_is() -> None:
    with pytest.raises(ClusterError, match=r"25 worker\(s\) .* 8 GPU, room for 24"):
        groups([node(gpus=8)], workers=25, gpus=0.3)


def test_a_driver_whose_own_node_is_gone_is_told_to_start_again() -> None:
    nodes = [{"NodeID": "a", "Alive": False}, {"NodeID": "b", "Alive": True}]
    require_own_node(nodes, "b")
    for gone in ("a", "c"):
        with pytest.raises(ClusterError, match=r"Ray has ended on this machine.* Start the run again"):
            require_own_node(nodes, gone)


def test_a_label_that_no_node_has_is_an_error_with_those_that_there_are() -> None:
    nodes = machines_of([node(gpu="a100", zone="eu"), node(gpu="h100"), node(alive=False, gpu="a10")])
    require_room(nodes, [GroupShape(labels=(("gpu", "in(a100, v100)"),))])
    with pytest.raises(ClusterError) as error:
        require_room(nodes, [GroupShape(), GroupShape(labels=(("gpu", "a10"),))])
    said = "resources.labels: no node has gpu=a10; nodes have gpu=a100, gpu=h100, zone=eu."
    assert str(error.value).startswith(said)
    assert 'ray start --labels="gpu=a10"' in str(error.value)
    with pytest.raises(ClusterError, match="no node has a label"):
        require_room(machines_of([node()]), [GroupShape(labels=(("gpu", "a10"),))])


def test_only_nodes_with_the_labels_are_room() -> None:
    nodes = machines_of([node(cpus=4, gpu="a100"), node(cpus=8)])
    assert groups_that_fit(nodes, GroupShape(labels=(("gpu", "a100"),))) == 4
    assert groups_that_fit(nodes, GroupShape(labels=(("gpu", "!a100"),))) == 8
    with pytest.raises(ClusterError, match=r"5 worker\(s\) of 1 CPU on nodes with gpu=a100 do not fit: .* room for 4"):
        require_room(nodes, [GroupShape(workers=5, labels=(("gpu", "a100"),))])
