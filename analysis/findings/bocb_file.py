"""The paper's measures in `metrics.json`: of the grid, of each backbone and of each optimizer."""

from __future__ import annotations

from typing import Any

import numpy as np

from bocb_tune.analysis.bocb.claims import PaperClaim
from bocb_tune.analysis.bocb.ranking import WeightedRanking
from bocb_tune.analysis.core.bootstrap import Refused
from bocb_tune.analysis.core.estimate import known
from bocb_tune.analysis.findings.bocb import BocbFindings


def of_grid(found: BocbFindings) -> dict[str, Any]:
    """Return the numbers of the whole grid as a JSON-able mapping."""
    return {
        "failures_by_equation": None if found.failures_refused else int(found.by_equation.sum()),
        "failures_by_median": None if found.failures_refused else int(found.by_median.sum()),
        "failure_gap": found.gap,
        "settings_step": found.steps.how,
        "overall_rank": _ranking(found.ranking),
        "paper_contrasts": [
            {"category": e.category, "where": e.where, "psi": e.psi.to_json(), "p": e.p, "p_holm": e.p_holm}
            for e in found.contrasts
        ],
        "training_loss": _loss(found),
        "paper_claims": [_claim(each) for each in found.claims],
    }


def of_backbone(found: BocbFindings, row: int) -> dict[str, Any]:
    """Return the numbers of one backbone as a JSON-able mapping."""
    told = found.failures_refused is None
    return {
        "failures_by_equation": int(found.by_equation[row].sum()) if told else None,
        "failures_by_median": int(found.by_median[row].sum()) if told else None,
        "mean_drop_worst": known(float(found.table.objective.shown(found.mean_without_worst[row]))),
        "settings_distance": found.mean_distances.backbones[row].to_json(),
        "settings_distance_drawn": found.mean_distances.backbones_drawn[row].to_json(),
    }


def of_optimizer(found: BocbFindings, column: int) -> dict[str, Any]:
    """Return the numbers of one optimizer as a JSON-able mapping."""
    told, ranking = found.failures_refused is None, found.ranking
    return {
        "failures_by_equation": int(found.by_equation[:, column].sum()) if told else None,
        "failures_by_median": int(found.by_median[:, column].sum()) if told else None,
        "settings_distance": found.mean_distances.optimizers[column].to_json(),
        "overall_rank": None if isinstance(ranking, Refused) else int(ranking.overall[column]),
        "p_first": None if isinstance(ranking, Refused) else float(ranking.p_first[column]),
        "step_cost": found.computation.step[column].to_json(),
        "state_cost": found.computation.state[column].to_json(),
        "on_pareto_front": bool(found.pareto[column]) if np.isfinite(found.cost[column]) else None,
    }


def _ranking(found: WeightedRanking | Refused) -> dict[str, Any]:
    if isinstance(found, Refused):
        return _refused(found)
    weights = dict(found.weights)
    return {"status": "ok", "weights": weights, "left_out": list(found.left_out), "n_backbones": found.backbones}


def _loss(found: BocbFindings) -> dict[str, Any]:
    loss = found.loss
    if isinstance(loss, Refused):
        return _refused(loss)
    same, of = loss.best_alike
    return {
        "status": "ok",
        "interaction_share": loss.share.to_json(),
        "rank_correlation": loss.agreement.to_json(),
        "same_best": same,
        "n_backbones": of,
    }


def _refused(found: Refused) -> dict[str, Any]:
    return {"status": "refused", "reason": found.reason, "detail": found.detail}


def _claim(claim: PaperClaim) -> dict[str, Any]:
    points = [{"statement": p.statement, "verdict": str(p.verdict), "evidence": p.evidence} for p in claim.points]
    return {"claim": str(claim.number), "statement": claim.statement, "points": points}
