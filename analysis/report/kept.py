"""The folder where a run's report keeps results for the next analysis."""

from __future__ import annotations

import os
from pathlib import Path

from bocb_tune.analysis.core.cache import FOLDER


def kept_in(source: str) -> Path | None:
    """Return the folder of kept results of a run's report; None if there is none that can be written."""
    folder = Path(source) / "report" / FOLDER
    return folder if folder.is_dir() and os.access(folder, os.W_OK) else None
