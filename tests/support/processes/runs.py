"""Real runs as a user starts them: the command in its own process, watched through its journals, killed for real."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bocb_tune.core.journal import fold, read_run
from bocb_tune.core.types import TrialRecord

COMMAND = str(Path(sys.executable).parent / "bocb-tune")


class Run:
    """`bocb-tune run` in the background, in a session of its own."""

    def __init__(self, spec: Path, folder: Path, *options: str) -> None:
        self.folder = folder
        self._start("run", str(spec), "--out", str(folder), *options)

    @classmethod
    def command(cls, *words: str) -> Run:
        """Start any command of bocb-tune's."""
        run = cls.__new__(cls)
        run._start(*words)
        return run

    def _start(self, *words: str) -> None:
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 -- closed by close()
        self._said = ""
        self.process = subprocess.Popen(
            [COMMAND, *words],
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def wait(self, timeout_s: float = 240) -> int:
        """Exit code; whatever is left of the run's processes afterwards is ended."""
        try:
            return self.process.wait(timeout_s)
        finally:
            end_session(self.process.pid)

    @property
    def output(self) -> str:
        """What the command has printed so far, both streams."""
        if not self._output.closed:
            self._output.seek(0)
            self._said = self._output.read().decode()
        return self._said

    def close(self) -> None:
        end_session(self.process.pid)
        self.process.wait(10)
        self._said = self.output
        self._output.close()

    def wait_until(self, reached: Callable[[], bool], timeout_s: float = 180) -> bool:
        """Whether `reached` came true before the run ended."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if reached():
                return True
            if self.process.poll() is not None:
                return False
            time.sleep(0.02)
        raise TimeoutError(f"nothing happened for {timeout_s} s:\n{self.output}")

    def kill(self, target: str) -> None:
        """SIGKILL to the `driver`, to a training `worker`, or to the `node` process of Ray."""
        if target == "driver":
            os.kill(self.process.pid, signal.SIGKILL)
            return
        needle = {"worker": b"ray::RayTrainWorker", "node": b"raylet/raylet"}[target]
        for pid in session_pids(self.process.pid):
            if needle in command_line(pid):
                os.kill(pid, signal.SIGKILL)
                return


def session_pids(session: int) -> list[int]:
    """Processes of a session; Ray's stay in the session of the command that started it."""
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [pid for pid in pids if _session_of(pid) == session]


def _session_of(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except (ProcessLookupError, PermissionError):
        return None


def command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def end_session(session: int) -> None:
    for pid in session_pids(session):
        if pid != os.getpid():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


def count_lines(folder: Path) -> int:
    """Journal lines of a run so far."""
    return sum(path.read_bytes().count(b"\n") for path in folder.glob("cells/*.jsonl"))


def records_in(folder: Path) -> dict[str, TrialRecord]:
    """Records of a run folder so far, by trial id."""
    return {key: record for read in read_run(folder) for key, record in fold(read.cell, read.events).items()}
