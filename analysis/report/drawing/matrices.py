"""Drawing of matrices: cell values, interaction residuals, transfer regret."""

from __future__ import annotations

from itertools import groupby
from textwrap import wrap

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure

from bocb_tune.analysis.core.arrays import Flags
from bocb_tune.analysis.names.look import label
from bocb_tune.analysis.report.drawing.page import (
    DARK,
    INK,
    PHONE,
    RED,
    WIDTH,
    Look,
    as_pixels,
    bare,
    color_bar,
    fixed,
    key,
    names_left,
    single,
    slots,
)
from bocb_tune.analysis.report.plots.values import FEW_COLUMNS, Heatmap, TransferPanels

MOST_NUMBERED = 24
"""Most columns of a heatmap that have room for its numbers."""
NO_VALUE = "#e4e4e4"
MOST_TEXTS = 200
"""Numbers of a figure beyond which they are drawn as pixels, so that a page with several such figures stays small."""


def heatmap(plot: Heatmap) -> Figure:
    rows, columns = plot.values.shape
    left, right = names_left(plot.rows) + 0.25 * bool(plot.row_groups), 0.85
    top = 0.2 + 0.25 * bool(plot.column_groups) + 0.2 * (plot.faint is not None)
    bottom = 0.15 + 0.75 * names_left(plot.columns)
    cell = min(0.62, (WIDTH - left - right) / columns)
    if columns <= FEW_COLUMNS:
        cell = min(cell, (PHONE - left - right) / columns)
    width, height = columns * cell, rows * min(0.36, max(cell * 0.75, 0.26))
    figure, axes = single(width, height, left, right, top, bottom)
    colors, norm, extend = _scale(plot)
    axes.imshow(np.ma.masked_invalid(plot.values), cmap=colors, norm=norm, aspect="auto")
    _matrix_names(axes, plot)
    group_lines(axes, (plot.row_groups, plot.column_groups), (height / rows, width / columns), (width, left))
    axes.set(xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5))
    if plot.faint is not None:
        _rings(axes, plot.faint & np.isfinite(plot.values))
    if plot.failed is not None:
        _crosses(axes, plot.failed)
    if plot.numbered and columns <= MOST_NUMBERED:
        _number(axes, plot, colors, norm, size=min(8.0, 15.5 * cell))
        if plot.values.size > MOST_TEXTS:
            as_pixels(axes)
    color_bar(
        figure, (left + width + 0.15, bottom, 0.1, min(height, 2.6)), (norm, colors), plot.unit, extend, plot.metric
    )
    return figure


def _matrix_names(axes: Axes, plot: Heatmap) -> None:
    rows, columns = plot.values.shape
    names = [label(name) for name in plot.columns]
    axes.set_xticks(range(columns), names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(rows), [label(name) for name in plot.rows])
    bare(axes)
    axes.vlines(np.arange(columns + 1) - 0.5, -0.5, rows - 0.5, color="white", lw=0.8)
    axes.hlines(np.arange(rows + 1) - 0.5, -0.5, columns - 0.5, color="white", lw=0.8)


def group_lines(
    axes: Axes,
    groups: tuple[tuple[str, ...], tuple[str, ...]],
    cell: tuple[float, float],
    widths: tuple[float, float],
) -> None:
    """Separate groups of rows and columns by a gap, and name them at the far left and the top.

    Args:
        axes: of the matrix.
        groups: group of each row and of each column.
        cell: height and width of a cell, inches.
        widths: of the axes and of the room at their left, inches.
    """
    width, left = widths
    across, down = axes.get_xaxis_transform(), axes.get_yaxis_transform()
    for first, count, name in _runs(groups[1]):
        axes.axvline(first - 0.5, color="white", lw=3.5 if first else 0)
        text = _in_lines(name, int(count * cell[1] / 0.062))
        axes.text(first + (count - 1) / 2, 1.015, text, transform=across, ha="center", va="bottom", size=7, color=DARK)
    for first, count, name in _runs(groups[0]):
        axes.axhline(first - 0.5, color="white", lw=3.5 if first else 0)
        where: Look = {"transform": down, "ha": "center", "va": "center", "rotation": 90, "size": 7, "color": DARK}
        text = _in_lines(name, int(count * cell[0] / 0.062))
        axes.text(-(left - 0.14) / width, first + (count - 1) / 2, text, **where)


def _in_lines(name: str, room: int) -> str:
    """Write a name on two lines of so many letters at most."""
    room = max(6, room)
    return "\n".join(label(line, room) for line in wrap(label(name, 60), room)[:2])


def _runs(groups: tuple[str, ...]) -> list[tuple[int, int, str]]:
    """Find first index, length and name of each run of equal names."""
    found, first = [], 0
    for name, run in groupby(groups):
        count = len(list(run))
        found.append((first, count, name))
        first += count
    return found


def _rings(axes: Axes, faint: Flags) -> None:
    """Draw a small ring in the corner of each cell whose interval includes zero."""
    rows, columns = np.nonzero(faint)
    axes.scatter(columns + 0.37, rows - 0.33, s=5, marker="o", facecolors="white", edgecolors=DARK, lw=0.5, zorder=3)
    keys = [key("o", "interval includes zero", ms=3, mfc="white", mec=DARK, mew=0.5)]
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.legend(handles=keys, loc="upper right", borderaxespad=0.1, handletextpad=0.1, fontsize=7)


def _crosses(axes: Axes, failed: Flags) -> None:
    """Draw a cross in each cell that fails."""
    rows, columns = np.nonzero(failed)
    axes.scatter(columns, rows, s=22, marker="x", c=RED, lw=1.2, zorder=3)


def _scale(plot: Heatmap) -> tuple[Colormap, Normalize, str]:
    known = plot.values[np.isfinite(plot.values)]
    known = known if known.size else np.zeros(1)
    if plot.signed:
        reach = max(float(np.quantile(np.abs(known), 0.95)), 1e-9)
        colors, norm, extend = mpl.colormaps["PuOr_r"], Normalize(-reach, reach), "both"
    else:
        low, high = float(np.quantile(known, 0.05)), float(known.max())
        colors, norm = mpl.colormaps["viridis"], Normalize(low, high if high > low else low + 1)
        extend = "min" if known.min() < low else "neither"
    return colors.with_extremes(bad=NO_VALUE), norm, extend


def _number(axes: Axes, plot: Heatmap, colors: Colormap, norm: Normalize, size: float) -> None:
    text = "{:+.1f}" if plot.signed else "{:.1f}" if plot.metric is None or plot.metric.is_bounded else "{:.3g}"
    for (row, column), value in np.ndenumerate(plot.values):
        if np.isfinite(value):
            red, green, blue, _ = colors(float(norm(value)))
            ink = "white" if 0.299 * red + 0.587 * green + 0.114 * blue < 0.52 else INK
            axes.text(column, row, text.format(_shown(plot, value)), ha="center", va="center", size=size, color=ink)


def _shown(plot: Heatmap, value: float) -> float:
    """Convert a value to its metric, without a minus before zero."""
    shown = float(value if plot.metric is None else plot.metric.shown(value))
    return round(shown, 1) + 0.0 if plot.metric is None or plot.metric.is_bounded else shown


def transfer(plot: TransferPanels) -> Figure:
    known = np.concatenate([panel.regret[np.isfinite(panel.regret)] for panel in plot.panels] + [np.array([0.0])])
    norm = Normalize(0, max(float(np.quantile(known, 0.95)), 1e-9))
    colors = mpl.colormaps["magma_r"].with_extremes(bad=NO_VALUE)
    margin = names_left(plot.backbones, 12) + 0.15
    columns = min(5, len(plot.panels))
    high = min(2.2, (WIDTH - margin - 0.95 + 0.22) / max(columns, 3) - 0.22)
    look: Look = {"left": margin, "right": 0.95, "bottom": margin + 0.1}
    boxes = slots(len(plot.panels), high=high, columns=columns, wide=high, **look)
    size = min(7.0, 58 * high / len(plot.backbones))
    names = [label(name, 12) for name in plot.backbones]
    every = range(len(names))
    for slot, panel in zip(boxes, plot.panels, strict=True):
        axes = slot.axes()
        axes.imshow(np.ma.masked_invalid(panel.regret), cmap=colors, norm=norm, aspect="auto")
        slot.name(panel.title, optimizer=True)
        fixed(axes, "y", every, names)
        fixed(axes, "x", every, names)
        bare(axes)
        axes.tick_params(labelsize=size)
        axes.tick_params(axis="x", rotation=90)
        axes.set_ylabel("from", size=7)
        axes.set_xlabel("to", size=7)
    figure = boxes[0].figure
    width = figure.get_size_inches()[0]
    color_bar(figure, (width - 0.75, boxes[-1].y, 0.1, min(high, 1.6)), (norm, colors), plot.unit, "max")
    return figure
