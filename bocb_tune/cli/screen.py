"""The terminal as all commands write to it."""

from __future__ import annotations

import os
from typing import IO

from rich.console import Console

LOG_WIDTH = 160
"""Columns of what is no terminal."""


def screen(stream: IO[str] | None = None, *, highlight: bool = True) -> Console:
    """Make a console that takes no text for markup, whoever wrote it; standard output unless a stream is given.

    A file or a pipe has no width that tables would have to be cut to.
    """
    console = Console(file=stream, markup=False, emoji=False, highlight=highlight)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = LOG_WIDTH
    return console
