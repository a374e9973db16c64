"""A source -> a recommendation: what `bocb-tune recommend` prints."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bocb_tune.analysis.core.cache import FOLDER
from bocb_tune.analysis.findings.collect import find
from bocb_tune.analysis.matrix.resample import SEED
from bocb_tune.analysis.names.look import find_backbone
from bocb_tune.analysis.recommend.backbone import recommend
from bocb_tune.analysis.recommend.general import recommend_general
from bocb_tune.analysis.recommend.recommendation import General, Recommendation, check_trials
from bocb_tune.analysis.sources.load import load
from bocb_tune.analysis.sources.stated import NOTHING_STATED, Stated
from bocb_tune.core.names import unknown


def recommendation(
    source: str,
    backbone: str | None,
    trials: int,
    spaces: Sequence[Path] = (),
    stated: Stated = NOTHING_STATED,
) -> tuple[Recommendation | General, tuple[str, ...]]:
    """Recommend for one backbone of the grid, named as there or by an alias, or for any like them.

    Beside it stands what to know of how the source was read.

    Raises:
        ValueError: if the source cannot be read, it has no such backbone, or trials is below 1.
    """
    check_trials(trials)
    table = load(source, spaces, _kept(source), stated)
    known = None if backbone is None else find_backbone(backbone, table.backbones)
    if backbone is not None and known is None:
        raise unknown("backbone", backbone, table.backbones)
    evidence = find(table, _kept(source)).tuning.evidence
    rng = np.random.default_rng(SEED)
    if known is None:
        return recommend_general(evidence, trials, rng).of_metric(table.objective), table.cautions
    return recommend(evidence, known, trials, rng).of_metric(table.objective), table.cautions


def _kept(source: str) -> Path | None:
    """What the report of a run keeps from one analysis to the next, if there is one."""
    folder = Path(source) / "report" / FOLDER
    return folder if folder.is_dir() and os.access(folder, os.W_OK) else None
