"""The answer for a source without its page: the last lines of `run` and of `recommend`."""

from __future__ import annotations

import os
from pathlib import Path

from bocb_tune.analysis.answer.compose import answer_of
from bocb_tune.analysis.answer.values import Answer
from bocb_tune.analysis.core.cache import FOLDER
from bocb_tune.analysis.findings.collect import find
from bocb_tune.analysis.sources.load import load


def answer_for(folder: Path) -> Answer:
    """Analyse a run folder and return the answer; slow results are kept for the report if the folder is writable.

    Raises:
        ValueError: if the folder cannot be read.
    """
    kept = folder / "report" / FOLDER if os.access(folder, os.W_OK) else None
    return answer_of(find(load(str(folder), (), kept), kept), str(folder))
