"""Work of the analysis over several processes, whatever script asks for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import bocb_tune

SCRIPT = """
import math
import sys
from bocb_tune.analysis.core import parallel
parallel.workers = lambda: 2
before = dict(vars(sys.modules["__main__"]))
print(parallel.spread(math.factorial, range(8), fewest=2))
assert vars(sys.modules["__main__"]) == before
"""


@pytest.mark.parametrize("is_file", [True, False])
def test_a_script_needs_no_guard_of_its_main_module(tmp_path: Path, is_file: bool) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command, given = ([sys.executable, str(script)], None) if is_file else ([sys.executable, "-"], SCRIPT)
    done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "[1, 1, 2, 6, 24, 120, 720, 5040]", done.stderr


def test_new_processes_import_the_package_of_their_parent(tmp_path: Path) -> None:
    other = tmp_path / "checkout" / "bocb_tune"
    (other / "analysis" / "report").mkdir(parents=True)
    for module in ("__init__", "analysis/__init__", "analysis/report/__init__", "analysis/report/preload"):
        (other / f"{module}.py").touch()
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.replace("math.factorial, range(8)", "eval, ['__import__(\"bocb_tune\").__file__'] * 2"))
    ours = Path(bocb_tune.__file__).resolve()
    environment = os.environ | {"PYTHONPATH": str(ours.parents[1])}
    command = [sys.executable, str(script)]
    done = subprocess.run(command, cwd=other.parent, env=environment, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == str([str(ours)] * 2), done.stderr
