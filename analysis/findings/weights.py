"""Association of the patterns in the trained weights with the sensitivity and the coupling of the cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from bocb_tune.analysis.cell.modelling import CellModel, Key
from bocb_tune.analysis.core.arrays import Array
from bocb_tune.analysis.coupling.viable import median_polish
from bocb_tune.analysis.matrix.resample import SEED
from bocb_tune.analysis.matrix.twoway import Matrix
from bocb_tune.analysis.patterns.association import Association, associations
from bocb_tune.analysis.patterns.summary import OVER_DEPTH, RunPatterns

MARGIN, BEYOND_ADDITIVE = "divergence_margin", "beyond_additive"


def associations_of(
    patterns: Sequence[RunPatterns],
    names: tuple[Sequence[str], Sequence[str]],
    models: Mapping[Key, CellModel],
    decades: str,
    viable: Matrix,
) -> tuple[Association, ...]:
    """Measure how patterns of the final weights go with measures of their cells; empty where no weights were read.

    Args:
        names: backbones and optimizers of the grid.
        decades: key of the usable decades at the tolerance of the report.
        viable: [backbones, optimizers], scores of the cells that did not fail.
    """
    final = {(run.backbone, run.optimizer): run for run in patterns if not run.is_start}
    if not final:
        return ()
    x = {key: _matrix({cell: run.summary(key).value for cell, run in final.items()}, names) for key in OVER_DEPTH}
    y = {
        key: _matrix({cell: model.estimates[key].value for cell, model in models.items()}, names)
        for key in (decades, MARGIN)
    }
    return associations(x, y | {BEYOND_ADDITIVE: _beyond_additive(viable)}, np.random.default_rng(SEED))


def _matrix(values: Mapping[Key, float | None], names: tuple[Sequence[str], Sequence[str]]) -> Array:
    return np.array([[values.get((row, column)) for column in names[1]] for row in names[0]], dtype=float)


def _beyond_additive(values: Matrix) -> Array:
    """Compute the residuals of an additive fit by medians [backbones, optimizers]; NaN where a cell has no value."""
    known = np.isfinite(values)
    lines = np.ix_(known.any(axis=1), known.any(axis=0))
    found = np.full(values.shape, np.nan)
    if known.any():
        found[lines] = median_polish(values[lines]).residual
    return found
