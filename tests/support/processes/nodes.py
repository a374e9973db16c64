"""Ray clusters of real node processes on this machine, and how much of them is in use."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.support.processes.runs import command_line, end_session, session_pids

RAY = str(Path(sys.executable).parent / "ray")
PORT = 26379

FREE = """
import json, sys, time, ray
from ray._private.state import actors
ray.init(address=sys.argv[1], logging_level="ERROR", log_to_driver=False)
for _ in range(150):
    total, free = ray.cluster_resources(), ray.available_resources()
    left = [a["ActorClassName"] for a in actors().values() if a["State"] != "DEAD"]
    groups = [g for g in ray.util.placement_group_table().values() if g["state"] != "REMOVED"]
    if free.get("CPU") == total["CPU"] and not left and not groups:
        break
    time.sleep(0.2)
print(json.dumps({"used": total["CPU"] - free.get("CPU", 0.0), "actors": left, "groups": len(groups)}))
"""
HOLD = """
import sys, time, ray
ray.init(address=sys.argv[1], logging_level="ERROR", log_to_driver=False)
held = ray.remote(num_cpus=float(sys.argv[2]))(type("Held", (), {"here": lambda self: True})).remote()
ray.get(held.here.remote())
print("held", flush=True)
time.sleep(10000)
"""


def with_token() -> dict[str, str]:
    """This environment, in which Ray shows the user's token: a head asks for it as soon as there is one."""
    return {**os.environ, "RAY_AUTH_MODE": "token"}


class Cluster:
    """A head node and others beside it, each a session of its own."""

    def __init__(self, folder: Path, *, cpus: int) -> None:
        self.folder = folder
        self.address = f"127.0.0.1:{PORT}"
        self._sessions: list[subprocess.Popen[bytes]] = []
        self.head = self.start("--head", f"--port={PORT}", f"--num-cpus={cpus}", "--include-dashboard=false")

    def start(self, *options: str) -> subprocess.Popen[bytes]:
        """Start a node and wait until it says that it is up."""
        log = self.folder / f"node{len(self._sessions)}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                [RAY, "start", "--block", *options], stdout=file, stderr=file, start_new_session=True, env=with_token()
            )
        self._sessions.append(process)
        deadline = time.monotonic() + 90
        while "started" not in log.read_text():
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        return process

    def add(self, *, cpus: int) -> subprocess.Popen[bytes]:
        return self.start(f"--address={self.address}", f"--num-cpus={cpus}")

    def kill(self, node: subprocess.Popen[bytes]) -> None:
        """Have a node gone, as by the loss of its machine."""
        end_session(node.pid)
        node.wait(10)

    def hold(self, cpus: float) -> subprocess.Popen[bytes]:
        """Have another user of the cluster take CPUs."""
        process = self._script(HOLD, str(cpus))
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        self._sessions.append(process)
        return process

    def left(self) -> dict[str, object]:
        """What is in use, after as long as it may take to become nothing."""
        out, _ = self._script(FREE).communicate(timeout=90)
        found: dict[str, object] = json.loads(out.splitlines()[-1])
        return found

    def _script(self, text: str, *args: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", text, self.address, *args]
        return subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True, env=with_token())

    def close(self) -> None:
        for process in reversed(self._sessions):
            end_session(process.pid)
            process.wait(10)
            if process.stdout:
                process.stdout.close()


def send(session: int, title: str, number: signal.Signals) -> int:
    """Send a signal to a process of a session whose title begins so; return its id."""
    pid = next(pid for pid in session_pids(session) if command_line(pid).startswith(title.encode()))
    os.kill(pid, number)
    return pid


def memory_mb(pid: int) -> float:
    """Memory of a process in MB; what several share counts for each in part."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith("Pss:"))) / 1024
