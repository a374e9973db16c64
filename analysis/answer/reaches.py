"""Widths: how far the learning rate may be off before a cell leaves the neighbourhood of the best of its backbone.

Measured from a cell's own best, a cell that is flat far below the others looks safest; measured from the backbone's
best it has no good learning rate at all.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bocb_tune.analysis.answer.values import Reach
from bocb_tune.analysis.core import bootstrap as drawn
from bocb_tune.analysis.core.arrays import Array
from bocb_tune.analysis.core.estimate import Estimate
from bocb_tune.analysis.findings.collect import Findings, at_tolerance
from bocb_tune.analysis.landscape import surface
from bocb_tune.analysis.landscape.fit import Landscape

METHOD = "model, from the best of the backbone"


def reaches_of(findings: Findings) -> tuple[Reach, ...]:
    """Give the widths of all cells that have a model, within the one tolerance of the report."""
    table, found = findings.table, []
    for row, backbone in enumerate(table.backbones):
        cells = {o: findings.landscapes[backbone, o] for o in table.optimizers}
        fitted = {o: cell for o, cell in cells.items() if isinstance(cell, Landscape)}
        if not fitted:
            continue
        others = [findings.matrix[row, table.optimizers.index(o)] for o in cells if o not in fitted]
        top = _best(fitted, np.array(others, float))
        for optimizer, cell in fitted.items():
            own = findings.models[backbone, optimizer].estimates[at_tolerance("usable_decades_lr", findings.tolerance)]
            of_best = own if own.value is None else within(cell, top, findings.tolerance, own)
            found.append(Reach(backbone=backbone, optimizer=optimizer, of_own=own, of_best=of_best))
    return tuple(found)


def within(cell: Landscape, top: Array, tolerance: float, own: Estimate) -> Estimate:
    """Measure the decades of learning rate that stay within a tolerance of the best of the backbone, at the best weight
    decay.

    Args:
        top: score of the best of the backbone [1 + draws], the estimate first.
        own: the same from the cell's own best, which it cannot exceed.
    """
    row, column = np.arange(cell.grid.num_lr), np.full(cell.grid.num_lr, cell.best_node[1])
    lines = np.concatenate([cell.mean[row, column][None], cell.surfaces.at(row, column)])
    left = tolerance - (top[: len(lines)] - lines.max(axis=-1))
    width = surface.usable_decades(lines, cell.grid.u, np.maximum(left, 0.0)[:, None])[0]
    width = np.where(left > 0, width, 0.0)
    # Half way between the width of the mean surface and that of its draws, as all widths are.
    shift = (width[0] - width[1:].mean()) / 2
    value = max(float(width[1:].mean() + shift), 0.0)
    lo, hi = drawn.ends(width[1:] + shift)
    most = np.inf if own.value is None else own.value
    value = min(value, most)
    reason = own.reason if value > 0 else None  # a stretch of no length reaches no edge
    return replace(own, value=value, lo=max(min(lo, value), 0.0), hi=max(hi, value), method=METHOD, reason=reason)


def _best(fitted: dict[str, Landscape], others: Array) -> Array:
    """Give the best score of a backbone [1 + draws]: a model's at its best point, or a score without a model."""
    tops = {name: np.append(cell.mean[cell.best_node], cell.best_draws) for name, cell in fitted.items()}
    best = max(tops.values(), key=lambda top: float(top[0]))
    known = others[np.isfinite(others)]
    return np.full_like(best, known.max()) if known.size and known.max() > best[0] else best
