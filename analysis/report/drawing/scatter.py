"""Drawing of scatters of few named points: coupling against failures, score against computation."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from bocb_tune.analysis.core.arrays import Array
from bocb_tune.analysis.names.look import backbone_look, label, optimizer_look
from bocb_tune.analysis.report.drawing.page import DARK, INK, fixed, metric_ticks, single, slots
from bocb_tune.analysis.report.plots.values import CostScatter, CouplingPanel, CouplingScatter

MARKERS, NAMES = (-0.4, 0.0), 0.06
"""Positions of the markers and the names within a column, in columns."""


def coupling_scatter(plot: CouplingScatter) -> Figure:
    boxes = slots(len(plot.panels), high=3.4, left=0.6, wide=3.0)
    for slot, panel in zip(boxes, plot.panels, strict=True):
        axes = slot.axes()
        _panel(axes, panel)
        refused = [name for name, value in zip(panel.names, panel.coupling.value, strict=True) if np.isnan(value)]
        slot.name(panel.title, note=label(f"n/a: {', '.join(refused)}", 60) if refused else "")
        axes.set_xlabel("cells that fail")
        axes.set_ylabel(f"coupling among viable cells [{plot.unit}]")
    return boxes[0].figure


def _panel(axes: Axes, panel: CouplingPanel) -> None:
    """Draw one column per number of failures: most names share the lowest and would hide each other on a true scale."""
    known = np.flatnonzero(np.isfinite(panel.coupling.value))
    y, lo, hi = (part[known] for part in (panel.coupling.value, panel.coupling.lo, panel.coupling.hi))
    counts, index = np.unique(panel.failures[known], return_inverse=True)
    column = index.astype(float)
    high = float(np.fmax(hi, y).max(initial=0.0)) * 1.05 or 1.0
    x, heights = spread(column, y), label_heights(column, y, 0.034 * high)
    for place, name in enumerate(panel.names[row] for row in known):
        look = backbone_look(name) if panel.are_backbones else optimizer_look(name)
        axes.vlines(x[place], lo[place], hi[place], color=look.color, lw=1.0, alpha=0.4)
        axes.plot(x[place], y[place], look.marker, color=look.color, ms=5, mew=1.0, zorder=3)
        at = column[place] + NAMES
        axes.plot([x[place], at], [y[place], heights[place]], color="#c8c8c8", lw=0.5, zorder=1)
        axes.text(at, heights[place], f" {label(name, 12)}", size=6.5, va="center", color=INK, zorder=4)
    for edge in range(1, len(counts)):
        axes.axvline(edge - 0.46, color="#e3e3e3", lw=0.7, zorder=0)
    fixed(axes, "x", range(len(counts)), [f"{count:g}" for count in counts])
    axes.set(xlim=(-0.5, max(len(counts) - 0.4, 0.6)), ylim=(0, high))


def spread(column: Array, y: Array) -> Array:
    """Place points within their columns, lowest to highest from left to right [points]."""
    places = column.astype(float)
    for of_column in _columns(column, y):
        places[of_column] += np.linspace(*MARKERS, len(of_column)) if len(of_column) > 1 else sum(MARKERS) / 2
    return places


def label_heights(column: Array, y: Array, gap: float) -> Array:
    """Place names near their markers but at least `gap` apart within a column: heights [points]."""
    heights = y.astype(float)
    for of_column in _columns(column, y):
        steps = gap * np.arange(len(of_column))
        pushed = np.maximum.accumulate(y[of_column] - steps) + steps
        heights[of_column] = pushed - (pushed - y[of_column]).mean()
    return heights


def _columns(column: Array, y: Array) -> list[NDArray[np.intp]]:
    """List the indices of the points of each column, lowest first."""
    order = np.lexsort((y, column))
    return np.split(order, np.flatnonzero(np.diff(column[order])) + 1) if len(order) else []


def cost_scatter(plot: CostScatter) -> Figure:
    figure, axes = single(4.6, 3.0, 0.75, 0.9, 0.15, 0.5)
    known = np.flatnonzero(np.isfinite(plot.score + plot.cost))
    score, cost = plot.score[known], plot.cost[known]
    front = known[plot.front[known]]
    order = front[np.argsort(plot.cost[front])]
    axes.step(plot.cost[order], plot.score[order], where="post", color=DARK, lw=0.9, zorder=0)
    reach = float(np.ptp(cost)) or 1.0
    heights = label_heights(np.round(cost / reach * 4), score, 0.045 * (float(np.ptp(score)) or 1.0))
    for place, index in enumerate(known):
        look = optimizer_look(plot.optimizers[index])
        axes.plot(cost[place], score[place], look.marker, color=look.color, ms=5, zorder=3)
        at = cost[place] + 0.03 * reach
        axes.plot([cost[place], at], [score[place], heights[place]], color="#c8c8c8", lw=0.5, zorder=1)
        axes.text(at, heights[place], label(plot.optimizers[index], 14), size=6.5, va="center", color=INK)
    axes.margins(0.08)
    metric_ticks(axes.yaxis, plot.metric, 6)
    axes.set_xlabel(plot.axis)
    axes.set_ylabel(plot.unit)
    return figure
