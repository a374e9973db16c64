"""The command as a user types it, run in this process."""

from __future__ import annotations

import sys

import pytest

from bocb_tune.cli import main as cli


def bocb(monkeypatch: pytest.MonkeyPatch, *args: object) -> int:
    """Exit code of a command run in this process."""
    monkeypatch.setattr(sys, "argv", ["bocb-tune", *map(str, args)])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    return int(exit_.value.code or 0)
