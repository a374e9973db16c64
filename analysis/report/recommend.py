"""The recommendation for a source, as `bocb-tune recommend` prints it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bocb_tune.analysis.answer.compose import answer_of
from bocb_tune.analysis.answer.sentences import Part, part, parts_of
from bocb_tune.analysis.findings.collect import find
from bocb_tune.analysis.matrix.resample import SEED
from bocb_tune.analysis.names.look import find_backbone
from bocb_tune.analysis.recommend.backbone import recommend
from bocb_tune.analysis.recommend.general import recommend_general
from bocb_tune.analysis.recommend.recommendation import General, Recommendation, check_trials
from bocb_tune.analysis.report.kept import kept_in
from bocb_tune.analysis.sources.load import load
from bocb_tune.analysis.sources.stated import NOTHING_STATED, Stated
from bocb_tune.analysis.tuning.refining import Refining
from bocb_tune.core.names import unknown


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """A recommendation with its cautions."""

    advice: Recommendation | General
    cautions: tuple[str, ...]
    """Cautions about how the source was read."""
    parts: tuple[Part, ...]
    """The advice, the cautions and the answer, in sentences."""


def recommendation(
    source: str,
    backbone: str | None,
    trials: int,
    spaces: Sequence[Path] = (),
    stated: Stated = NOTHING_STATED,
) -> Advice:
    """Recommend for one backbone of the grid, given by its name there or an alias, or for any backbone like them.

    Raises:
        ValueError: if the source cannot be read, if it has no such backbone, or if trials is below 1.
    """
    check_trials(trials)
    table = load(source, spaces, kept_in(source), stated)
    known = None if backbone is None else find_backbone(backbone, table.backbones)
    if backbone is not None and known is None:
        raise unknown("backbone", backbone, table.backbones)
    findings = find(table, kept_in(source))
    evidence = findings.tuning.evidence
    rng = np.random.default_rng(SEED)
    advice: Recommendation | General
    if known is None:
        advice = recommend_general(evidence, trials, rng).of_metric(table.objective)
    else:
        advice = with_refined(recommend(evidence, known, trials, rng), findings.refining).of_metric(table.objective)
    answer = answer_of(findings, source)
    answer = replace(answer, steps=tuple(step for step in answer.steps if " recommend " not in step.do))
    parts = (*part("Recommendation", advice.lines()), *part("Cautions", table.cautions), *parts_of(answer))
    return Advice(advice=advice, cautions=table.cautions, parts=parts)


def with_refined(advice: Recommendation, refining: Refining) -> Recommendation:
    """Add the optimizer's own hyper-parameters where refining them gained on this backbone, by its interval."""
    found = refining.cells.get((advice.backbone or "", advice.optimizer or ""))
    return replace(advice, own=found.own, gained=found.gain) if found and found.gains else advice
