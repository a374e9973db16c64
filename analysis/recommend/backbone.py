"""Recommendation for a backbone of the grid: optimizer, learning rate and weight decay, with its uncertainty.

The choice is made on the landscapes of the backbone's cells, or else on its row of scores. Repeated seeds count as far
as they are precise. Another optimizer may lead by them alone, not significantly: that is said.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from bocb_tune.analysis.core import bootstrap as drawn
from bocb_tune.analysis.core.arrays import Array
from bocb_tune.analysis.core.estimate import Estimate, Reason
from bocb_tune.analysis.recommend.candidates import Candidate, Seeds, make_candidate, with_seeds
from bocb_tune.analysis.recommend.recommendation import (
    FROM_LANDSCAPES,
    FROM_SCORES,
    FROM_SEEDS,
    WORSE,
    Evidence,
    Recommendation,
    check_trials,
)
from bocb_tune.analysis.tuning.settings import Setting
from bocb_tune.core.names import unknown

MIN_OPTIMIZERS = 2


def recommend(evidence: Evidence, backbone: str, trials: int, rng: np.random.Generator) -> Recommendation:
    """Recommend the best use of a number of trials on a backbone of the grid.

    Raises:
        ValueError: if the grid has no such backbone, or trials is below 1.
    """
    if backbone not in evidence.backbones:
        raise unknown("backbone", backbone, evidence.backbones)
    check_trials(trials)
    cells = evidence.of_backbone(backbone)
    by_seeds = _by_seeds(evidence, backbone)
    if not cells or len({*cells, *by_seeds}) < MIN_OPTIMIZERS:
        return _from_row(evidence, backbone, trials)
    candidates = {name: make_candidate(cell, trials, rng, evidence.tolerance) for name, cell in cells.items()}
    for name in [name for name in candidates if name in by_seeds]:
        candidates[name] = with_seeds(candidates[name], cells[name], by_seeds[name], rng)
    others = {name: known for name, known in by_seeds.items() if name not in cells}
    merits = {name: candidate.merit for name, candidate in candidates.items()} | {
        name: known.score for name, known in others.items()
    }
    size = len(next(iter(candidates.values())).draws)
    draws = {name: rng.permutation(candidate.draws) for name, candidate in candidates.items()}
    draws |= {name: known.draws(size, rng) for name, known in others.items()}
    worse = evidence.worse_on(backbone)
    pick = max([name for name in merits if name not in worse] or merits, key=lambda name: merits[name])
    leader = max(by_seeds, key=lambda name: by_seeds[name].score) if pick in by_seeds else pick
    chosen = _chosen(evidence, backbone, trials, pick, candidates, others, draws)
    return replace(chosen, leader=leader if leader != pick else None)


def _by_seeds(evidence: Evidence, backbone: str) -> dict[str, Seeds]:
    """Collect the cells whose standard error is known."""
    if evidence.sd is None:
        return {}
    row = evidence.backbones.index(backbone)
    return {
        name: Seeds(
            score=float(evidence.scores[row, o]),
            sd=float(evidence.sd[row, o]),
            setting=_setting(evidence.lr[row, o], evidence.weight_decay[row, o]),
        )
        for o, name in enumerate(evidence.optimizers)
        if np.isfinite(evidence.scores[row, o]) and np.isfinite(evidence.sd[row, o])
    }


def _chosen(
    evidence: Evidence,
    backbone: str,
    trials: int,
    pick: str,
    candidates: Mapping[str, Candidate],
    others: Mapping[str, Seeds],
    draws: Mapping[str, Array],
) -> Recommendation:
    """Make the recommendation of one optimizer, compared with all others that are known."""
    scores = np.column_stack(list(draws.values()))
    place = list(draws).index(pick)
    regret = scores.max(axis=1, keepdims=True) - scores
    counts = drawn.add_counts([each.counts for each in candidates.values()])
    method = f"{FROM_LANDSCAPES}, quantiles of draws"
    as_good = np.mean(scores >= scores[:, [place]], axis=0)
    tied = {name for name, chance in zip(draws, as_good, strict=True) if chance >= WORSE} - evidence.worse_on(backbone)
    candidate = candidates.get(pick)
    expected = others[pick].score if candidate is None else candidate.expected
    return Recommendation(
        backbone=backbone,
        trials=trials,
        optimizer=pick,
        setting=others[pick].setting if candidate is None else candidate.setting,
        search_range=None if candidate is None else candidate.search_range,
        expected=drawn.estimate(expected, draws[pick], unit="points", counts=counts, method=method),
        p_best=float(np.mean(regret[:, place] == 0)),
        regret=drawn.estimate(
            float(regret[:, place].mean()), regret[:, place], unit="points", counts=counts, method=method
        ),
        cost=evidence.cost([backbone], pick, trials),
        tied=_by_robustness(candidates, tied - {pick}),
        by_seeds=tuple(others),
        not_judged=tuple(each for each in evidence.not_judged(backbone) if each[0] not in others),
        method=FROM_LANDSCAPES if not evidence.has_seeds else f"{FROM_LANDSCAPES} and {FROM_SEEDS}",
    )


def _from_row(evidence: Evidence, backbone: str, trials: int) -> Recommendation:
    """Recommend from the scores of the backbone's cells, whose uncertainty is unknown."""
    row = evidence.backbones.index(backbone)
    scores = evidence.scores[row]
    known = np.isfinite(scores)
    if known.sum() < MIN_OPTIMIZERS:
        reasons = [reason for _, reason in evidence.not_judged(backbone)]
        detail = f"Optimizers with a score on it: {known.sum()}, of {MIN_OPTIMIZERS} that are needed."
        return Recommendation.refused(backbone, trials, reasons[0] if reasons else Reason.INCOMPLETE_MATRIX, detail)
    best = int(np.nanargmax(scores))
    unknown_error = Estimate(value=None, unit="points", reason=Reason.TOO_FEW_REPLICATES)
    is_near = known & (scores[best] - scores <= evidence.tolerance)
    others = [o for o in np.argsort(-scores) if is_near[o] and o != best]
    return Recommendation(
        backbone=backbone,
        trials=trials,
        optimizer=evidence.optimizers[best],
        setting=_setting(evidence.lr[row, best], evidence.weight_decay[row, best]),
        expected=replace(unknown_error, value=float(scores[best]), method=FROM_SCORES),
        regret=unknown_error,
        tied=tuple(evidence.optimizers[o] for o in others),
        not_judged=tuple((evidence.optimizers[o], Reason.INCOMPLETE_MATRIX) for o in np.flatnonzero(~known)),
        method=FROM_SCORES,
    )


def _by_robustness(candidates: Mapping[str, Candidate], names: set[str]) -> tuple[str, ...]:
    """Sort by near-optimal volume, then divergence margin, largest first; optimizers without a landscape come last."""
    none = (-1.0, 0.0)
    return tuple(
        sorted(names, key=lambda name: candidates[name].robustness if name in candidates else none, reverse=True)
    )


def _setting(lr: float, weight_decay: float) -> Setting | None:
    return None if np.isnan(lr) else Setting(float(lr), float(weight_decay))
