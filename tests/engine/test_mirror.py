"""A run whose folder is a URI: carried over within seconds, read from anywhere, gone on with from the URI alone."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bocb_tune.analysis.sources.load import load
from bocb_tune.core.files import DRIVER_FILE
from bocb_tune.core.remote_run import fetched
from bocb_tune.core.storage import storage_of
from bocb_tune.engine import mirror as module
from bocb_tune.engine.driver import FolderInUseError, announce, current_driver, only_driver
from bocb_tune.engine.mirror import Mirror
from tests.support.command import bocb
from tests.support.fakes import FakeRun, write_run
from tests.support.s3 import s3_server


@pytest.fixture
def uri(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "CARRY_S", 0.05)
    with s3_server(monkeypatch) as bucket:
        yield f"{bucket}/runs/mine"


def begun(uri: str) -> Mirror:
    """A run of two cells beside the driver, carried over."""
    mirror = Mirror(uri)
    mirror.bring()
    write_run(mirror.folder, FakeRun(backbones=("resnet18",), optimizers=("sgd", "adamw"), trials=8, epochs=3))
    with mirror.carried():
        pass
    return mirror


def journals(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "cells").iterdir()}


def soon(reached: Callable[[], bool]) -> bool:
    """Whether something comes true within seconds."""
    deadline = time.monotonic() + 5
    while not reached() and time.monotonic() < deadline:
        time.sleep(0.02)
    return reached()


def test_a_line_is_carried_over_within_seconds_and_the_driver_is_seen_from_elsewhere(uri: str) -> None:
    mirror, storage = begun(uri), storage_of(uri)
    journal = next((mirror.folder / "cells").iterdir())
    with only_driver(mirror.folder), mirror.carried():
        announce(mirror.folder, 2, ["node a lost"])
        with journal.open("ab") as file:
            file.write(b"one more line\n")
        assert soon(lambda: storage.read(f"cells/{journal.name}") == journal.read_bytes())
        assert soon(lambda: "node a lost" in str(storage.read(DRIVER_FILE)))
        with fetched(uri) as folder:
            driver = current_driver(folder)
            assert driver is not None
            assert (driver.slots, driver.news) == (2, ("node a lost",))
            assert journals(folder) == journals(mirror.folder)
    assert mirror.trouble() == []
    with fetched(uri) as folder:
        assert current_driver(folder) is None


def test_a_run_goes_on_on_another_machine_from_the_uri_alone(uri: str) -> None:
    first = begun(uri)
    kept = journals(first.folder)
    shutil.rmtree(first.folder)
    other = Mirror(uri)
    other.bring()
    assert journals(other.folder) == kept
    assert (other.folder / "spec.yaml").exists()


def test_what_was_not_carried_over_in_time_stays_and_what_went_on_elsewhere_is_taken(uri: str) -> None:
    mirror = begun(uri)
    longer, other = sorted((mirror.folder / "cells").iterdir())
    there = storage_of(uri)
    with longer.open("ab") as file:
        file.write(b"{}\n")
    with_more = longer.read_bytes()
    elsewhere = other.read_bytes() + b'{"from": "elsewhere"}\n'
    there.write(f"cells/{other.name}", elsewhere)
    with other.open("ab") as file:
        file.write(b'{"from": "here"}\n')
    Mirror(uri).bring()
    assert (longer.read_bytes(), other.read_bytes()) == (with_more, elsewhere)


def test_a_run_that_was_removed_there_begins_anew(uri: str) -> None:
    mirror = begun(uri)
    for name in ("cells", "spec.yaml"):
        storage_of(uri).remove(name)
    assert soon(lambda: not storage_of(uri).names())
    Mirror(uri).bring()
    assert not (mirror.folder / "cells").exists()


def test_a_driver_on_another_machine_keeps_others_out_until_it_is_silent(uri: str) -> None:
    mirror = begun(uri)
    said = json.dumps({"host": "elsewhere", "started": 0.0, "seen": time.time(), "slots": 1, "news": []}).encode()
    storage_of(uri).write(DRIVER_FILE, said)
    for _ in range(2):
        with pytest.raises(FolderInUseError, match=r"another machine .*elsewhere"):
            mirror.bring()
        (mirror.folder / DRIVER_FILE).write_text("{}")  # of a driver that was killed here before
    silent = said.replace(b'"seen": 1', b'"seen": 0')  # for decades
    storage_of(uri).write(DRIVER_FILE, silent)
    mirror.bring()


def test_what_cannot_be_carried_over_is_said_and_kept_here(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mirror = begun(uri)

    def refuse(name: str, content: bytes) -> None:
        del content
        raise OSError(f"no route to {name}")

    with pytest.raises(OSError, match=str(mirror.folder)), mirror.carried():  # noqa: PT012
        monkeypatch.setattr(mirror._storage, "write", refuse)
        next((mirror.folder / "cells").iterdir()).write_bytes(b"changed\n")
        assert soon(lambda: bool(mirror.trouble()))
        (line,) = mirror.trouble()
    assert "cannot be written to since" in line
    assert "no route to cells/" in line
    assert str(mirror.folder) in line


def test_commands_read_a_uri(
    uri: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    mirror = begun(uri)
    expected = load(str(mirror.folder))
    found = load(uri)
    assert found.trials.equals(expected.trials)
    assert (found.source.name, found.source.kind) == ("mine", "run")
    assert bocb(monkeypatch, "recommend", uri, "--json") == 0
    assert json.loads(capsys.readouterr().out)
    monkeypatch.chdir(tmp_path)
    assert bocb(monkeypatch, "analyze", uri) == 0
    assert (tmp_path / "report" / "report.html").exists()
    assert bocb(monkeypatch, "status", f"{uri}/none") == 2
    assert "there is no run" in capsys.readouterr().err
