"""Draws a grid as a marked table, and distributions of numbers: violins and boxes, one place a name."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import gaussian_kde

from bocb_tune.analysis.core.arrays import Array
from bocb_tune.analysis.names.look import backbone_look, label, optimizer_look
from bocb_tune.analysis.report.drawing.matrices import MOST_TEXTS, group_lines
from bocb_tune.analysis.report.drawing.page import (
    DARK,
    INK,
    PALE,
    WIDTH,
    as_pixels,
    bare,
    fixed,
    metric_ticks,
    names_left,
    single,
)
from bocb_tune.analysis.report.plots.values import MarkedTable, Samples

BEST, TOP, FAILED = "#3f6fb5", "#c3d7ef", "#bdbdbd"
"""Fills of the marks of a table."""
FENCE = 1.5
"""Quartile ranges from the quartiles beyond which a number is an outlier."""
WIDE, NAMES_SHARE = 0.36, 0.75
"""Half width of a violin or a box in places; room of slanted names, of what they take upright."""
MOST_AS_LINES = 12
"""Distributions beyond which they are drawn as pixels, so that the page stays small."""
SAME = 1e-6
"""Range of numbers below which they have no shape."""
LOWEST = 0.05
"""Share of all numbers that may lie below the axis of violins."""


def marked_table(plot: MarkedTable) -> Figure:
    rows, columns = plot.values.shape
    left, right = names_left(plot.rows) + 0.25 * bool(plot.row_groups), 0.15
    top, bottom = 0.2 + 0.25 * bool(plot.column_groups), 0.15 + NAMES_SHARE * names_left(plot.columns)
    cell = min(0.55, (WIDTH - left - right) / columns)
    lines = rows + len(plot.foot)
    width, height = columns * cell, lines * 0.2
    figure, axes = single(width, height, left, right, top, bottom)
    axes.imshow(_fills(plot), aspect="auto", extent=(-0.5, columns - 0.5, rows - 0.5, -0.5))
    group_lines(axes, (plot.row_groups, plot.column_groups), (height / lines, cell), (width, left))
    axes.set(xlim=(-0.5, columns - 0.5), ylim=(lines - 0.5, -0.5))
    names = [label(name) for name in (*plot.rows, *(name for name, _ in plot.foot))]
    fixed(axes, "y", range(lines), names)
    axes.set_xticks(range(columns), [label(name) for name in plot.columns], rotation=45, ha="right")
    bare(axes)
    axes.hlines(rows - 0.5, -0.5, columns - 0.5, color=DARK, lw=0.8)
    _numbers(axes, plot, min(7.0, 15 * cell))
    if plot.values.size > MOST_TEXTS:
        as_pixels(axes)
    return figure


def _fills(plot: MarkedTable) -> Array:
    """Choose the colours of the cells [rows, columns, 3]."""
    best = np.nanmax(np.where(np.isfinite(plot.values), plot.values, -np.inf), axis=0)
    found = np.ones((*plot.values.shape, 3))
    for color, cells in ((FAILED, plot.failed), (TOP, plot.top), (BEST, plot.values == best)):
        found[cells] = [int(color[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    return found


def _numbers(axes: Axes, plot: MarkedTable, size: float) -> None:
    best = np.nanmax(np.where(np.isfinite(plot.values), plot.values, -np.inf), axis=0)
    shown = plot.values if plot.metric is None else plot.metric.shown(plot.values)
    style = ".1f" if plot.metric is None or plot.metric.is_bounded else ".3g"
    for (row, column), value in np.ndenumerate(shown):
        if np.isfinite(value):
            color = "white" if plot.values[row, column] == best[column] else INK
            axes.text(column, row, f"{value:{style}}", ha="center", va="center", size=size, color=color)
    for line, (_, texts) in enumerate(plot.foot, start=len(plot.rows)):
        for column, text in enumerate(texts):
            axes.text(column, line, text, ha="center", va="center", size=size, color=INK)


def samples(plot: Samples) -> Figure:
    count = len(plot.names)
    width = min(WIDTH - 0.85, max(0.46 * count, 1.2))
    bottom = 0.15 + NAMES_SHARE * names_left(plot.names)
    figure, axes = single(width, 2.6, 0.65, 0.2, 0.15, bottom)
    every = np.concatenate(plot.samples) if plot.samples else np.zeros(1)
    low = _floor(every) if plot.as_violins else 0.0
    look = backbone_look if plot.are_backbones else optimizer_look
    for place, (name, values) in enumerate(zip(plot.names, plot.samples, strict=True)):
        if len(values) and plot.as_violins:
            _violin(axes, place, values, look(name).color, low)
        elif len(values):
            _box(axes, place, values, look(name).color)
    room = max(float(np.ptp(every[every >= low])), 1.0) * 0.06
    axes.set(xlim=(-0.6, count - 0.4), ylim=(low - room, float(every.max()) + room))
    axes.set_xticks(range(count), [label(name) for name in plot.names], rotation=45, ha="right", rotation_mode="anchor")
    metric_ticks(axes.yaxis, plot.metric, 6)
    axes.set_ylabel(plot.axis if len(plot.axis) < 40 else plot.axis.split(",")[0], size=7)
    axes.grid(axis="y", color=PALE, lw=0.6)
    axes.set_axisbelow(True)
    if count > MOST_AS_LINES:
        as_pixels(axes)
    return figure


def _floor(values: Array) -> float:
    """Choose the lowest number that the axis shows: a few failures must not flatten all the rest."""
    low, high = float(np.quantile(values, LOWEST)), float(values.max())
    return float(max(values.min(), low - 0.25 * (high - low)))


def _fences(values: Array) -> tuple[Array, Array, Array]:
    """Find the quartiles with the median, and the values within and beyond the fences."""
    quartiles = np.quantile(values, (0.25, 0.5, 0.75))
    reach = FENCE * (quartiles[2] - quartiles[0])
    inside = (values >= quartiles[0] - reach) & (values <= quartiles[2] + reach)
    return quartiles, values[inside], values[~inside]


def _violin(axes: Axes, place: int, values: Array, color: str, low: float) -> None:
    """Draw a shape with its quartiles; `low` is where the axis ends."""
    quartiles, inside, outside = _fences(values)
    if np.ptp(inside) > SAME:
        heights = np.linspace(inside.min(), inside.max(), 40)
        shape = gaussian_kde(inside)(heights)
        half = WIDE * shape / shape.max()
        axes.fill_betweenx(heights, place - half, place + half, color=color, alpha=0.45, lw=0)
    axes.vlines(place, quartiles[0], quartiles[2], color=DARK, lw=3)
    axes.plot(place, quartiles[1], "o", color="white", ms=2.6, zorder=3)
    seen = outside[outside >= low]
    axes.plot(np.full(len(seen), place), seen, "o", color=color, ms=3, mew=0)
    if (values < low).any():
        axes.plot(place, low, "v", color=color, ms=4.5, mew=0, zorder=3)


def _box(axes: Axes, place: int, values: Array, color: str) -> None:
    quartiles, inside, outside = _fences(values)
    axes.vlines(place, inside.min(), inside.max(), color=DARK, lw=0.8)
    axes.bar(place, quartiles[2] - quartiles[0], 2 * WIDE, bottom=quartiles[0], color=color, ec=DARK, lw=0.6, alpha=0.6)
    axes.hlines(quartiles[1], place - WIDE, place + WIDE, color=INK, lw=1.6)
    axes.plot(place, values.mean(), "D", color="white", mec=INK, mew=0.7, ms=3.2, zorder=3)
    axes.plot(np.full(len(outside), place), outside, "o", color=color, ms=3, mew=0)
