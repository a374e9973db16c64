"""The content of `metrics.json`: the numbers of the report, for programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from bocb_tune.analysis.cell.calibration import calibration
from bocb_tune.analysis.cell.tuning_curves import SIZES
from bocb_tune.analysis.core.arrays import Array
from bocb_tune.analysis.core.bootstrap import Refused
from bocb_tune.analysis.core.estimate import Estimate, known, of_metric
from bocb_tune.analysis.coupling.interaction_test import InteractionTest
from bocb_tune.analysis.coupling.pretraining import Transfer
from bocb_tune.analysis.findings import bocb_file
from bocb_tune.analysis.findings.collect import Findings, interaction_estimate
from bocb_tune.analysis.landscape.fit import NoLandscape
from bocb_tune.analysis.matrix.contrasts import Contrast
from bocb_tune.analysis.tuning.searches import CellSearch
from bocb_tune.core.types import Objective, TrialStatus

SCHEMA = 1
NEAR_BEST = (1.0, 2.0)
"""Points from the best of a backbone within which optimizers are counted."""


def to_json(findings: Findings) -> dict[str, Any]:
    """Return everything but the checks as a JSON-able mapping."""
    table = findings.table
    cells = {cell.key: _cell(findings, index) for index, cell in enumerate(findings.cells)}
    values = {
        "schema": SCHEMA,
        "source": asdict(table.source),
        "objective": _objective(table.objective),
        "grid": _grid(findings),
        "backbones": {name: _backbone(findings, row) for row, name in enumerate(table.backbones)},
        "optimizers": {name: _optimizer(findings, column) for column, name in enumerate(table.optimizers)},
        "refused_in_every_cell": refused_in_all(list(cells.values())),
        "cells": cells,
        "recommendation": _recommendation(findings),
    }
    if table.pretrainings:
        values["transfer"] = _transfer(findings.transfer)
    cleaned: dict[str, Any] = _without_nan(values)
    return cleaned


def _transfer(found: Transfer) -> dict[str, Any]:
    """Return fine-tuning by the optimizer of the pre-training against others, of grids that have a pre-training."""
    return {
        "mean_gap": found.mean_gap.to_json(),
        "mean_gaps": {each.own: {"rows": each.rows, "gap": each.gap.to_json()} for each in found.mean_gaps},
        "home_advantage": found.home_advantage.to_json(),
        "gaps": {
            gap.row: {"pretraining_optimizer": gap.own, "best_other": gap.other, "gap": gap.gap.to_json()}
            for gap in found.gaps
        },
        "without_gap": list(found.without_gap),
        "block": {"backbones": list(found.block[0]), "pretrainings": list(found.block[1])},
        "shares": {" x ".join(term.factors): term.share.to_json() for term in found.terms},
    }


def refused_in_all(cells: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Move refusals that are equal in all cells out of them, so that each is stated once; return them by key."""
    found: dict[str, Any] = {}
    if len(cells) < 2:
        return found
    for key, first in list(cells[0].items()):
        values = [cell[key] for cell in cells if isinstance(cell.get(key), dict)]
        if len(values) < len(cells):
            continue
        without_counts = [{name: v for name, v in value.items() if not name.startswith("n_")} for value in values]
        if first.get("status") == "refused" and all(each == without_counts[0] for each in without_counts):
            found[key] = without_counts[0]
            for cell in cells:
                del cell[key]
        elif "status" not in first and (within := refused_in_all(values)):
            found[key] = within
    return found


def _without_nan(value: Any) -> Any:
    """Replace NaN and infinity by null, since JSON has neither."""
    if isinstance(value, float):
        return known(value)
    if isinstance(value, dict):
        return {str(key): _without_nan(each) for key, each in value.items()}
    return [_without_nan(each) for each in value] if isinstance(value, (list, tuple)) else value


def _objective(objective: Objective) -> dict[str, Any]:
    """Describe the scores, and the size of the points that differences are counted in."""
    return {
        "metric": objective.metric,
        "mode": str(objective.direction),
        "floor": known(objective.shown(objective.floor)),
        "unit": objective.unit,
        "point": objective.point,
    }


def _score(findings: Findings, score: float | None) -> float | None:
    """Convert a score to the metric."""
    return None if score is None else known(float(findings.table.objective.shown(score)))


def _estimate(findings: Findings, score: Estimate) -> dict[str, Any]:
    """Convert an estimate of a score to the metric."""
    return of_metric(score, findings.table.objective).to_json()


def _recommendation(findings: Findings) -> dict[str, Any]:
    objective = findings.table.objective
    general = findings.tuning.general.of_metric(objective).to_json()
    return {
        "leave_one_backbone_out": general.pop("held_out"),
        "general": general,
        "per_backbone": {
            name: found.of_metric(objective).to_json() for name, found in findings.tuning.per_backbone.items()
        },
    }


def _grid(findings: Findings) -> dict[str, Any]:
    grid, parts, table = findings.grid, findings.decomposition, findings.table
    without = grid.share_without and {
        "backbone": dict(zip(table.backbones, grid.share_without[0].tolist(), strict=True)),
        "optimizer": dict(zip(table.optimizers, grid.share_without[1].tolist(), strict=True)),
    }
    return {
        "grand_mean": parts and _score(findings, parts.mean),
        "ss_backbone": parts and parts.ss_backbone,
        "ss_optimizer": parts and parts.ss_optimizer,
        "ss_interaction": parts and parts.ss_interaction,
        "interaction_share": findings.interaction_share.to_json(),
        "interaction_share_total": findings.interaction_share_total.to_json(),
        "interaction_share_of_values": grid.shares[0].to_json(),
        "generalisation": grid.generalisation.to_json(),
        "interaction_share_viable": grid.verdict.share.to_json(),
        "failed_cells": [{"cell": cell.key, "why": cell.why} for cell in grid.verdict.failed],
        "kendall_w": findings.kendall_w.to_json(),
        "kendall_w_without_noise": grid.true_agreement.to_json(),
        "noise": grid.noise and {"sd": grid.noise.sd, "df": grid.noise.df},
        "interaction_test": _interaction_test(grid.verdict.test),
        "critical_difference": grid.critical_difference,
        "led_by_failures": grid.led_by_failures,
        "contrasts": [_contrast(grid.contrast)] if isinstance(grid.contrast, Contrast) else [],
        "median_polish": grid.polish and {"scale": grid.polish.scale, "l1_share": grid.polish.l1_share},
        "versions": {
            v.name: {"share": v.parts.share_of_optimizer_effect, "singular": known(v.singular)} for v in grid.versions
        },
        "null_singular": grid.null_singular_share,
        "interaction_share_without": without,
        "lr_variance": findings.lr_variance and asdict(findings.lr_variance),
        "claims": [
            {"statement": c.statement, "verdict": str(c.verdict), "evidence": [check.statement for check in c.checks]}
            for c in grid.claims
        ],
        "budget_ranks": _budget_ranks(findings),
        **bocb_file.of_grid(findings.bocb),
        "refining_gain": findings.refining.grid.to_json(),
        "refining_gain_over_backbones": findings.refining.over_backbones.to_json(),
        "refining_calls": findings.refining.calls,
        "pattern_association": [
            {"pattern": e.pattern, "measure": e.measure, "rho": e.rho.to_json(), "p": e.p, "p_holm": e.p_holm}
            for e in findings.associations
        ],
    }


def _interaction_test(test: InteractionTest | None) -> dict[str, Any] | None:
    return None if test is None else {"f": test.f, "df": test.df, "df_noise": test.df_noise, "p": test.p}


def _contrast(found: Contrast) -> dict[str, Any]:
    return {
        "name": found.name,
        "inside": found.inside,
        "outside": found.outside,
        "psi": found.psi.to_json(),
        "p_points": found.on_points.p,
        "p_ranks": found.on_ranks.p,
        "p_points_two_sided": found.on_points.p_two_sided,
        "p_ranks_two_sided": found.on_ranks.p_two_sided,
    }


def _budget_ranks(findings: Findings) -> dict[str, Any]:
    found = findings.tuning.ranks
    if isinstance(found, Refused):
        return {"status": "refused", "reason": found.reason, "detail": found.detail}
    return {
        "status": "ok",
        "trials": list(SIZES),
        "ranks": {name: [rank.to_json() for rank in ranks] for name, ranks in found.ranks.items()},
        "left_out": list(found.left_out),
    }


def _backbone(findings: Findings, row: int) -> dict[str, Any]:
    grid, values = findings.grid, findings.matrix[row]
    best = None if np.isnan(values).all() else findings.table.optimizers[int(np.nanargmax(values))]
    sd, spread = grid.spread_without_worst()
    return {
        "mean": _score(findings, values.mean()),
        "coupling": grid.coupling[0][row].to_json(),
        "viable_coupling": grid.viable[0][row].to_json(),
        "failures": int(grid.failed[row].sum()),
        "std_drop_worst": known(sd[row]),
        "range_drop_worst": known(spread[row]),
        "best_optimizer": best,
        "near_best": {f"{within:g}": _count(grid.near_best(within)[row], values) for within in NEAR_BEST},
        "polish_scale": None if grid.polish is None else float(grid.polish.row_scale[row]),
        **bocb_file.of_backbone(findings.bocb, row),
    }


def _count(number: float, values: Array) -> int | None:
    """Return a count for a complete row or column; None for any other."""
    return int(number) if np.isfinite(values).all() else None


def _optimizer(findings: Findings, column: int) -> dict[str, Any]:
    grid, values = findings.grid, findings.matrix[:, column]
    name = findings.table.optimizers[column]
    cost = grid.regret[:, column]
    mean_rank = grid.mean_rank
    found = findings.tuning.optimizers[name]
    return {
        "mean": _score(findings, values.mean()),
        "coupling": grid.coupling[1][column].to_json(),
        "viable_coupling": grid.viable[1][column].to_json(),
        "failures": int(grid.failed[:, column].sum()),
        "mean_rank": None if mean_rank is None else float(mean_rank[column]),
        "mean_regret": known(cost.mean()),
        "worst_regret": known(cost.max()),
        "top4": int(grid.top[:, column].sum()) if np.isfinite(findings.matrix).all() else None,
        "lr_sensitivity": mean_over_backbones(findings, name, "lr_sensitivity").to_json(),
        "transfer_regret": _part(found.transfer, "mean"),
        "tunability": _part(found.tunability, "mean"),
        "tunability_median": _part(found.tunability, "median"),
        "tunability_worst": _part(found.tunability, "worst"),
        "worth_tuning": None if isinstance(found.dimension, Refused) else list(found.dimension.by_regret),
        "drift": _drift(findings, name),
        **bocb_file.of_optimizer(findings.bocb, column),
        "refining_gain": findings.refining.optimizers[name].to_json(),
    }


def _drift(findings: Findings, name: str) -> dict[str, Any] | None:
    """Return the distances of the best settings from the reference, in decades; None where too few are known."""
    found = findings.drifts.get(name)
    if found is None:
        return None
    return {
        "lr": found.reference.lr,
        "weight_decay": found.reference.weight_decay,
        "mean_lr": found.mean_lr,
        "mean_weight_decay": found.mean_weight_decay,
        "share_beyond_half_a_decade": found.share_beyond(),
        "by_backbone": dict(zip(findings.table.backbones, found.lr.tolist(), strict=True)),
    }


def _part(found: Any, name: str) -> dict[str, Any]:
    if isinstance(found, Refused):
        return Estimate(value=None, unit="points", reason=found.reason, method=found.detail).to_json()
    estimate: Estimate = getattr(found, name)
    return estimate.to_json()


def mean_over_backbones(findings: Findings, optimizer: str, key: str) -> Estimate:
    """Average a metric over the backbones that have it."""
    cells = [findings.models[name, optimizer].estimates[key] for name in findings.table.backbones]
    return mean_of(cells)


def mean_of(estimates: Sequence[Estimate]) -> Estimate:
    """Average the estimates that have a value; cells are independent, so their errors add in squares."""
    given = [e for e in estimates if e.value is not None]
    if not given:
        first = estimates[0]
        return Estimate(value=None, unit=first.unit, reason=first.reason, method="no cell has a value")
    value = float(np.mean([e.value for e in given]))
    method = f"mean over {len(given)} of {len(estimates)} backbones"
    if any(e.lo is None or e.hi is None for e in given):
        return Estimate(value=value, unit=given[0].unit, method=method)
    below = float(np.sqrt(np.sum([(e.value - e.lo) ** 2 for e in given])) / len(given))  # type: ignore[operator]
    above = float(np.sqrt(np.sum([(e.hi - e.value) ** 2 for e in given])) / len(given))  # type: ignore[operator]
    return Estimate(value=value, lo=value - below, hi=value + above, unit=given[0].unit, method=method)


def _cell(findings: Findings, index: int) -> dict[str, Any]:
    cell = findings.cells[index]
    row, column = divmod(index, len(findings.table.optimizers))
    refined = findings.refining.cells[cell.backbone, cell.optimizer]
    return {
        "best": _estimate(findings, cell.best),
        "interaction": interaction_estimate(findings, row, column).to_json(),
        "counts": {str(status): cell.counts.get(status, 0) for status in TrialStatus},
        "landscape": _landscape(findings, index),
        "checks": _checks(findings, index),
        **{key: estimate.to_json() for key, estimate in findings.stated(cell.backbone, cell.optimizer).items()},
        "search": _search(findings, findings.searches[cell.backbone, cell.optimizer]),
        "refining_gain": refined.gain.to_json(),
        "refined": {"trials": refined.trials, "own": dict(refined.own)} if refined.trials else None,
        "cross_checks": {
            evaluator: {name: estimate.to_json() for name, estimate in found.items()}
            for evaluator, found in findings.importances[cell.backbone, cell.optimizer].items()
        },
    }


def _search(findings: Findings, found: CellSearch) -> dict[str, Any]:
    return {
        "trials": found.trials,
        "epochs": found.epochs,
        "reported": _score(findings, found.reported),
        "random": _estimate(findings, found.random),
        "random_reported": _estimate(findings, found.random_reported),
        "early": _estimate(findings, found.early),
        "observed": {str(n): _estimate(findings, e) for n, e in zip(SIZES, found.observed, strict=True)},
        "modelled": {str(n): _estimate(findings, e) for n, e in zip(SIZES, found.modelled, strict=True)},
    }


def _checks(findings: Findings, index: int) -> list[dict[str, Any]]:
    """Check whether the model agrees with the trials; empty where there is no model."""
    cell = findings.cells[index]
    found, search = findings.model(cell), findings.searches[cell.backbone, cell.optimizer]
    if found.model.validation is None:
        return []
    return [check.to_json() for check in calibration(found.model.validation, found.curve, search.observed)]


def _landscape(findings: Findings, index: int) -> dict[str, Any]:
    model = findings.model(findings.cells[index]).model
    checked = None if model.validation is None else {k: known(v) for k, v in asdict(model.validation).items()}
    if isinstance(model, NoLandscape):
        return {"status": "refused", "reason": model.reason, "detail": model.detail, "validation": checked}
    return {"status": "ok", "reason": None, "detail": "", "validation": checked}
