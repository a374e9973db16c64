"""The terminal as all commands write to it."""

from __future__ import annotations

from typing import IO

from rich.console import Console


def screen(stream: IO[str] | None = None, *, highlight: bool = True) -> Console:
    """Make a console that takes no text for markup, whoever wrote it; standard output unless a stream is given."""
    return Console(file=stream, markup=False, emoji=False, highlight=highlight)
