"""Signs of life: at once on a terminal, rarely in a log, and never from what is quick."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bocb_tune.cli import busy as module
from bocb_tune.cli.busy import WIPE, Busy, busy, warn
from bocb_tune.core.progress import heard_by, say


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_is_told_at_once_and_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    with busy("counting"):
        assert stream.getvalue() == f"{WIPE}counting (0 s)"
    assert stream.getvalue().endswith(WIPE)


def test_a_log_is_told_after_a_while_and_only_what_is_new(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    stream = io.StringIO()
    shown = Busy("counting", stream)
    for now, stage in [(0.0, ""), (1.1, "1 of 9"), (2.0, "2 of 9"), (11.2, "2 of 9"), (30.0, "2 of 9")]:  # noqa: B007
        shown.stage(stage)
        shown.show()
    shown.wipe()
    assert stream.getvalue().splitlines() == ["counting: 1 of 9", "counting: 2 of 9"]


def test_stages_reach_the_innermost_listener_and_nobody_when_there_is_none() -> None:
    outer: list[str] = []
    inner: list[str] = []
    say("nobody")
    with heard_by(outer.append):
        with heard_by(inner.append):
            say("inner")
        say("outer")
    assert (outer, inner) == (["outer"], ["inner"])


def test_the_stage_is_shown_while_the_work_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REPAINT_S", 0.001)
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    with busy("counting"):
        say("3 of 9")
        deadline = time.monotonic() + 10
        while "counting: 3 of 9" not in stream.getvalue() and time.monotonic() < deadline:
            time.sleep(0.005)
    assert "counting: 3 of 9" in stream.getvalue()


def test_a_warning_does_not_stand_behind_the_line_of_work(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    warn("beware")
    assert stream.getvalue() == f"{WIPE}warning: beware\n"


@pytest.mark.parametrize(
    "command", [["check", "SPEC"], ["run", "SPEC", "--set", "nothing=1"], ["analyze", "paper:none"], ["status", "SPEC"]]
)
def test_a_command_speaks_before_it_imports_what_is_slow(tmp_path: Path, command: list[str]) -> None:
    """The first sign takes at most half as long as the whole, of which nearly all is imports."""
    spec = tmp_path / "x.yaml"
    spec.write_text("name: x\n")
    args = [str(spec) if arg == "SPEC" else arg for arg in command]
    reading, writing = pty.openpty()
    started = time.monotonic()
    with subprocess.Popen(
        [sys.executable, "-m", "bocb_tune", *args], stderr=writing, stdout=subprocess.DEVNULL
    ) as process:
        os.close(writing)
        first = os.read(reading, 1000)
        spoke = time.monotonic() - started
        assert process.wait() == 2
    assert first.startswith(WIPE.encode())
    assert spoke < (time.monotonic() - started) / 2
    os.close(reading)
