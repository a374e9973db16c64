"""Figures of the whole grid: matrices by family, forest plots, tuning curves, failures, ranks, drift, transfer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bocb_tune.analysis.core.arrays import Array, Flags
from bocb_tune.analysis.core.estimate import Estimate
from bocb_tune.analysis.names.look import backbone_class, optimizer_family
from bocb_tune.analysis.report.plots.values import (
    CouplingPanel,
    CouplingScatter,
    CriticalDifference,
    Forest,
    ForestPanel,
    Heatmap,
    Intervals,
    Strip,
    TransferPanel,
    TransferPanels,
    TuningCurves,
    TuningPanel,
)

Estimates = Mapping[tuple[str, str], Estimate]
"""Estimates by (backbone, optimizer)."""
Names = tuple[str, ...]


def cell_matrix(values: Array, backbones: Names, optimizers: Names, unit: str) -> Heatmap:
    """Show cell values [backbones, optimizers], NaN where missing."""
    return Heatmap(
        stem="cell-matrix",
        title="Best score of each cell",
        caption="Classes of backbones and families of optimizers stand together, best mean first. The colour scale is "
        "cut at its lowest twentieth so that a few failures do not hide the rest; grey: no value.",
        unit=unit,
        signed=False,
        **_by_family(values, values, None, backbones, optimizers),
    )


def interaction_matrix(
    interaction: Array, values: Array, backbones: Names, optimizers: Names, unit: str, significant: Flags | None = None
) -> Heatmap:
    """Show the residuals of the additive fit of cell values, in the order of `cell_matrix`.

    Args:
        interaction, values: [backbones, optimizers], points.
        backbones, optimizers: names.
        unit: of the interaction.
        significant: cells whose interval excludes zero, where there are intervals.
    """
    return Heatmap(
        stem="interaction",
        title="Interaction: what the averages do not predict",
        caption="Positive: the optimizer is better for this backbone than the averages of both predict. Rows "
        "and columns are centred, so one failed cell pushes the rest of its row and column in the opposite direction. "
        "The colour scale is cut at the largest twentieth.",
        unit=unit,
        signed=True,
        **_by_family(interaction, values, significant, backbones, optimizers),
    )


def _by_family(
    shown: Array, values: Array, significant: Flags | None, backbones: Names, optimizers: Names
) -> dict[str, Any]:
    """Arrange a matrix in the order of the families of its rows and columns."""
    classes, families = [*map(backbone_class, backbones)], [*map(optimizer_family, optimizers)]
    rows, columns = by_group(classes, values), by_group(families, values.T)
    place = np.ix_(rows, columns)
    return {
        "rows": _pick(backbones, rows),
        "columns": _pick(optimizers, columns),
        "values": shown[place],
        "row_groups": _pick(tuple(classes), rows) if len(set(classes)) > 1 else (),
        "column_groups": _pick(tuple(families), columns) if len(set(families)) > 1 else (),
        "faint": None if significant is None else ~significant[place],
    }


def by_group(groups: Sequence[str], values: Array) -> NDArray[np.intp]:
    """Order the rows of a matrix [rows, cells] so that groups stay together, best mean of the known cells first."""
    known = np.isfinite(values)
    total = np.where(known, values, 0.0)
    count = known.sum(axis=1)
    mean = np.where(count > 0, total.sum(axis=1) / np.maximum(count, 1), -np.inf)
    names = np.array(groups)
    of_group = np.array([total[names == name].sum() / max(known[names == name].sum(), 1) for name in groups])
    empty = np.array([not known[names == name].any() for name in groups])
    _, index = np.unique(names, return_inverse=True)
    return np.lexsort((-mean, index, -of_group, empty))


def usable_decades(found: Estimates, backbones: Names, optimizers: Names) -> Forest:
    """Show the decades of learning rate within tolerance of the backbone's best, one panel per backbone."""
    panels = tuple(
        ForestPanel(title=name, ranges=Intervals.of(found[name, other] for other in optimizers), axis="decades")
        for name in backbones
    )
    refused = Counter(why for panel in panels for why in panel.ranges.why if why)
    listed = "; ".join(f"in {count} cell{'s' * (count > 1)} {why}" for why, count in refused.most_common())
    return Forest(
        stem="usable-decades",
        title="Usable decades of learning rate",
        caption="Length of the stretch of learning rates around the best that stays within the tolerance of the best "
        "cell of the backbone; bar: 95 %. "
        "Arrow: the stretch reaches the edge of the search space, so that it is at least this long."
        + (f" Not known (n/a): {listed}." if listed else ""),
        optimizers=optimizers,
        panels=panels,
        one_scale=True,
    )


def overview(
    optimizers: Names, mean_regret: Intervals, worst_regret: Intervals, where: Names, usable: Intervals
) -> Forest:
    """Show which optimizer is best and how much that matters: each array is [optimizers], best mean regret first.

    Args:
        optimizers: names.
        mean_regret: points lost against the best optimizer of each backbone, mean over backbones.
        worst_regret: the same, on the worst backbone.
        where: that backbone, by optimizer.
        usable: usable decades of learning rate, over backbones.
    """
    order = np.argsort(np.where(np.isnan(mean_regret.value), np.inf, mean_regret.value), kind="stable")
    panels = (
        ForestPanel(title="mean regret", ranges=_rows(mean_regret, order), axis="points, less is better"),
        ForestPanel(
            title="worst regret",
            ranges=_rows(worst_regret, order),
            axis="points, less is better",
            notes=_pick(where, order),
        ),
        ForestPanel(title="usable decades", ranges=_rows(usable, order), axis="decades of learning rate"),
    )
    return Forest(
        stem="overview",
        title="Which optimizer, and how much does it matter?",
        caption="Regret: points below the best optimizer of the same backbone, mean over backbones and on the worst of "
        "them (named). Usable decades: how far the learning rate may be off within the tolerance of "
        "the backbone's best. Bars: 95 %.",
        optimizers=_pick(optimizers, order),
        panels=panels,
        one_scale=False,
    )


def tuning_curves(optimizers: Names, panels: tuple[TuningPanel, ...], unit: str) -> TuningCurves:
    """Show the expected best score by number of trials, one panel per backbone."""
    has_found = any(np.isfinite(panel.found).any() for panel in panels)
    has_observed = any(np.isfinite(panel.observed).any() for panel in panels)
    return TuningCurves(
        stem="tuning-curves",
        title="What a budget of trials buys",
        caption="Expected score of the best of n random trials. Bands: 95 %, for the best three at the largest n where "
        "there are many. A curve that rises late needs tuning; one that starts high does not."
        + " Star: what the search of a cell without a model found, at its number of trials." * has_found
        + " Dots: the trials themselves, by the scores they were selected by, which are biased upwards." * has_observed,
        optimizers=optimizers,
        panels=panels,
        unit=unit,
    )


def coupling_scatter(
    backbones: Names,
    optimizers: Names,
    failures: tuple[Array, Array],
    coupling: tuple[Intervals, Intervals],
) -> CouplingScatter:
    """Show coupling among viable cells against failures.

    Args:
        backbones, optimizers: names.
        failures: number of cells that fail, of each backbone and of each optimizer.
        coupling: rms interaction among viable cells, points, of each backbone and of each optimizer.
    """
    return CouplingScatter(
        stem="coupling-failures",
        title="Coupling against failures",
        caption="Columns: how many cells fail outright, lowest coupling at the left of each. Up: how far cells that do "
        "not fail stray from what the averages predict; bars: 95 %.",
        panels=(
            CouplingPanel(
                title="backbones", names=backbones, failures=failures[0], coupling=coupling[0], are_backbones=True
            ),
            CouplingPanel(
                title="optimizers", names=optimizers, failures=failures[1], coupling=coupling[1], are_backbones=False
            ),
        ),
        unit="points",
    )


def critical_difference(optimizers: Names, mean_ranks: Array, difference: float) -> CriticalDifference:
    """Show mean ranks in a critical-difference diagram (Demsar, JMLR 7, 2006, section 3.2.2).

    Args:
        optimizers: names.
        mean_ranks: [optimizers], 1 = best.
        difference: of mean ranks that is significant at 5 %.
    """
    order = np.argsort(mean_ranks, kind="stable")
    return CriticalDifference(
        stem="critical-difference",
        title="Which optimizers can be told apart",
        caption="Mean rank over backbones, 1 is best. Optimizers joined by a bar differ by less than the critical "
        "difference (CD) of the Nemenyi test at 5 %. Backbones of one family are not independent: read it loosely.",
        optimizers=_pick(optimizers, order),
        mean_ranks=mean_ranks[order],
        difference=difference,
        ties=_ties(mean_ranks[order], difference),
    )


def drift(
    backbones: Names, optimizers: Names, values: Array, lo: Array, hi: Array, reference: str = "the most frequent one"
) -> Strip:
    """Show the decades between each cell's best learning rate and the optimizer's reference [backbones, optimizers]."""
    size = np.array([np.nanmean(np.abs(column)) if np.isfinite(column).any() else np.inf for column in values.T])
    order = np.argsort(size, kind="stable")
    middle = [np.nanmedian(column) if np.isfinite(column).any() else np.nan for column in values.T]
    return Strip(
        stem="drift",
        title="Drift of the best learning rate between backbones",
        caption=f"One marker per backbone: decades from {reference} of the optimizer to the best learning rate there; "
        "thin bars: 95 %; thick bar: median. Steadiest optimizers on top.",
        optimizers=_pick(optimizers, order),
        backbones=backbones,
        values=values[:, order],
        summary=np.array(middle)[order],
        axis="log10 of best learning rate minus reference [decades]",
        lo=lo[:, order],
        hi=hi[:, order],
        from_zero=True,
    )


def transfer(backbones: Names, regret: Mapping[str, Array]) -> TransferPanels:
    """Show the loss from reusing the best setting of a backbone on another, points [from, to], by optimizer."""
    return TransferPanels(
        stem="transfer",
        title="What it costs to reuse the best setting of another backbone",
        caption="Rows: where the setting comes from; columns: where it is used. Darker costs more; the scale is cut at "
        "the largest twentieth. Grey: the setting lies outside the range searched there.",
        backbones=backbones,
        panels=tuple(TransferPanel(title=name, regret=values) for name, values in regret.items()),
        unit="points",
    )


def _ties(ranks: Array, difference: float) -> tuple[tuple[int, int], ...]:
    """Find the longest runs of two or more ascending ranks whose ends are less than `difference` apart."""
    last = np.searchsorted(ranks, ranks + difference, side="left") - 1
    runs = [(first, int(end)) for first, end in enumerate(last) if end > first]
    return tuple(run for place, run in enumerate(runs) if place == 0 or run[1] > runs[place - 1][1])


def _rows(ranges: Intervals, order: NDArray[np.intp]) -> Intervals:
    return Intervals(
        value=ranges.value[order],
        lo=ranges.lo[order],
        hi=ranges.hi[order],
        at_least=ranges.at_least[order],
        why=_pick(ranges.why, order),
    )


def _pick(names: Names, order: NDArray[np.intp]) -> Names:
    return tuple(names[index] for index in order)
