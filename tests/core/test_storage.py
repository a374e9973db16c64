"""Storage of a run's files: a folder, a real S3 API on this machine, and one of fsspec's keep the same contract."""

from __future__ import annotations

import contextlib
import pickle
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bocb_tune.core.storage import Storage, is_uri, join, name_of, storage_of
from tests.support.s3 import s3_server


@pytest.fixture(params=["folder", "s3", "fsspec"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    if request.param == "s3":
        with s3_server(monkeypatch) as bucket:
            yield f"{bucket}/runs/mine"
    else:
        yield str(tmp_path / "mine") if request.param == "folder" else f"memory://{uuid.uuid4().hex}/mine"


def soon(reached: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 10
    while not reached() and time.monotonic() < deadline:
        time.sleep(0.02)
    return reached()


def test_a_storage_keeps_files_by_name(place: str) -> None:
    storage = storage_of(place)
    assert str(storage) == place
    assert storage.read("cells/a") is None
    assert storage.names("cells") == []
    storage.write("cells/a", b"1")
    storage.write("cells/a", b"22")
    storage.write("cells/deep/b", b"3")
    storage.write("top", b"")
    assert (storage.read("cells/a"), storage.read("cells/deep/b"), storage.read("top")) == (b"22", b"3", b"")
    assert (storage.names("cells"), storage.names()) == (["a"], ["top"])
    inner = storage.within("cells")
    assert (str(inner), inner.read("a"), inner.names()) == (join(place, "cells"), b"22", ["a"])


def test_moving_and_removing(place: str) -> None:
    storage = storage_of(place)
    storage.write("x/new", b"1")
    storage.move("x/none", "x/kept")
    storage.move("x/new", "x/kept")
    assert storage.read("x/kept") == b"1"
    storage.write("x/new", b"2")
    storage.move("x/new", "x/kept")
    assert storage.read("x/kept") == b"2"
    storage.write("y", b"")
    storage.remove("none")
    storage.remove("x")
    assert soon(lambda: storage.read("x/kept") is None)
    assert storage.read("y") == b""
    storage.remove("y")
    assert soon(lambda: storage.names() == [])
    storage.write("z/whole/file", b"")
    storage.within("z").within("whole").remove("")
    assert soon(lambda: storage.read("z/whole/file") is None)


def test_a_folder_that_another_makes_meanwhile_is_removed_or_left(tmp_path: Path) -> None:
    """A stopped trial's checkpoints are removed while its worker may still write one."""
    storage, ends = storage_of(tmp_path), time.monotonic() + 1

    def write() -> None:
        while time.monotonic() < ends:
            with contextlib.suppress(OSError):
                storage.write("trial/latest.pt", b"state")

    writer = threading.Thread(target=write)
    writer.start()
    while writer.is_alive():
        storage.remove("trial")
    storage.remove("trial")
    assert not (tmp_path / "trial").exists()


def test_a_storage_can_be_sent_to_another_process(place: str) -> None:
    storage_of(place).write("a/b", b"1")
    sent: Storage = pickle.loads(pickle.dumps(storage_of(place).within("a")))
    assert sent.read("b") == b"1"


def test_places() -> None:
    assert is_uri("s3://bucket/a")
    assert not is_uri("/a/b:c//d")
    assert join("s3://bucket/a/?region=x", "b") == "s3://bucket/a/b?region=x"
    assert join("/a/what?", "b") == "/a/what?/b"
    assert name_of("s3://bucket/runs/mine/?region=x") == "mine"


@pytest.mark.parametrize("uri", ["nonsense://a/b", "s3://"])
def test_a_uri_that_no_file_system_is_known_for_is_refused_with_it(uri: str) -> None:
    with pytest.raises(ValueError, match=uri):
        storage_of(uri)


def test_a_bucket_that_is_not_there_is_an_error_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with s3_server(monkeypatch), pytest.raises(OSError, match="nobucket"):
        storage_of("s3://nobucket/a").write("b", b"")
