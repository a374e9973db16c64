"""Tables of trials for the tests of reading them."""

from __future__ import annotations

from pathlib import Path

from bocb_tune.analysis.checks.run import run_checks
from bocb_tune.analysis.findings.collect import Findings

HEADER = "backbone,optimizer,score"


def write(path: Path, *lines: str) -> str:
    """Write the lines of a file and return its name."""
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def messages_of(findings: Findings, name: str) -> list[str]:
    """Messages of the checks of this name."""
    return [check.message for check in run_checks(findings) if check.name == name]
