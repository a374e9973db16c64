"""Work of the analysis over several processes, whatever script asks for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

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
