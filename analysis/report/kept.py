"""Where a run's report keeps what need not be computed again."""

from __future__ import annotations

import os
from pathlib import Path

from bocb_tune.analysis.core.cache import FOLDER


def kept_in(source: str) -> Path | None:
    """What the report of a run keeps from one analysis to the next, if there is one."""
    folder = Path(source) / "report" / FOLDER
    return folder if folder.is_dir() and os.access(folder, os.W_OK) else None
