"""What to use on a backbone of the grid: optimizer, learning rate and weight decay, and how sure that is.

The choice is made on the landscapes of the backbone's cells, else on its row of scores.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bocb_tune.analysis.cell.sensitivity import EPSILON
from bocb_tune.analysis.core import bootstrap as drawn
from bocb_tune.analysis.core.estimate import Estimate, Reason
from bocb_tune.analysis.recommend.offers import Offer, make_offer
from bocb_tune.analysis.recommend.recommendation import (
    FROM_LANDSCAPES,
    FROM_SCORES,
    LIKELY,
    Evidence,
    Recommendation,
    check_trials,
)
from bocb_tune.analysis.tuning.settings import Setting
from bocb_tune.core.names import unknown

MIN_OPTIMIZERS = 2


def recommend(evidence: Evidence, backbone: str, trials: int, rng: np.random.Generator) -> Recommendation:
    """The best use of a number of trials on a backbone of the grid.

    Raises:
        ValueError: if the grid has no such backbone, or trials is below 1.
    """
    if backbone not in evidence.backbones:
        raise unknown("backbone", backbone, evidence.backbones)
    check_trials(trials)
    cells = evidence.of_backbone(backbone)
    if len(cells) < MIN_OPTIMIZERS:
        return _from_row(evidence, backbone, trials)
    offers = {name: make_offer(cell, trials, rng) for name, cell in cells.items()}
    pick = max(offers, key=lambda name: offers[name].merit)
    best = offers[pick]
    scores = np.column_stack([rng.permutation(each.draws) for each in offers.values()])
    regret = scores.max(axis=1, keepdims=True) - scores
    place = list(offers).index(pick)
    counts = drawn.add_counts([each.counts for each in offers.values()])
    method = f"{FROM_LANDSCAPES}, quantiles of draws"
    tied = {name for name, column in zip(offers, regret.T, strict=True) if np.mean(column <= EPSILON) >= LIKELY}
    return Recommendation(
        backbone=backbone,
        trials=trials,
        optimizer=pick,
        setting=best.setting,
        box=best.box,
        expected=drawn.estimate(best.expected, best.draws, unit="points", counts=best.counts, method=method),
        p_best=float(np.mean(regret[:, place] == 0)),
        regret=drawn.estimate(
            float(regret[:, place].mean()), regret[:, place], unit="points", counts=counts, method=method
        ),
        cost=evidence.cost([backbone], pick, trials),
        tied=_by_robustness(offers, tied - {pick}),
        not_judged=evidence.not_judged(backbone),
        method=FROM_LANDSCAPES,
    )


def _from_row(evidence: Evidence, backbone: str, trials: int) -> Recommendation:
    """From the scores of the backbone's cells, which say nothing of their own uncertainty."""
    row = evidence.backbones.index(backbone)
    scores = evidence.scores[row]
    known = np.isfinite(scores)
    if known.sum() < MIN_OPTIMIZERS:
        reasons = [reason for _, reason in evidence.not_judged(backbone)]
        detail = f"{known.sum()} optimizers have a score on it, {MIN_OPTIMIZERS} are needed."
        return Recommendation.refused(backbone, trials, reasons[0] if reasons else Reason.INCOMPLETE_MATRIX, detail)
    best = int(np.nanargmax(scores))
    others = [o for o in np.argsort(-scores) if known[o] and o != best and scores[best] - scores[o] <= EPSILON]
    return Recommendation(
        backbone=backbone,
        trials=trials,
        optimizer=evidence.optimizers[best],
        setting=_setting(evidence.lr[row, best], evidence.weight_decay[row, best]),
        expected=_single(float(scores[best])),
        regret=_unknown(),
        tied=tuple(evidence.optimizers[o] for o in others),
        not_judged=tuple((evidence.optimizers[o], Reason.INCOMPLETE_MATRIX) for o in np.flatnonzero(~known)),
        method=FROM_SCORES,
    )


def _by_robustness(offers: Mapping[str, Offer], names: set[str]) -> tuple[str, ...]:
    """Larger near-optimal volume first, then larger divergence margin."""
    return tuple(sorted(names, key=lambda name: offers[name].robustness, reverse=True))


def _single(value: float) -> Estimate:
    return Estimate(value=value, unit="points", method=FROM_SCORES, reason=Reason.TOO_FEW_REPLICATES)


def _unknown() -> Estimate:
    return Estimate(value=None, unit="points", reason=Reason.TOO_FEW_REPLICATES)


def _setting(lr: float, weight_decay: float) -> Setting | None:
    return None if np.isnan(lr) or np.isnan(weight_decay) else Setting(float(lr), float(weight_decay))
