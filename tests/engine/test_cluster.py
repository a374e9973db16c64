"""Attaching to a cluster, and how many worker groups it holds. No Ray process is started."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray._private import services
from ray._private.authentication import authentication_token_setup as token_setup

from bocb_tune.engine import cluster
from bocb_tune.engine.cluster import ClusterError, connected


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


@pytest.mark.parametrize("address", ["ray://127.0.0.1:10001", "nonsense"])
def test_what_is_no_address_of_a_cluster_is_refused(address: str) -> None:
    assert refused(address).startswith(f"--address {address}: ")


def test_two_addresses_are_knocked_at_within_ten_seconds() -> None:
    assert 2 * cluster.KNOCK_S < 10
