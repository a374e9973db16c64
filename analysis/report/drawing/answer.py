"""Drawing of the figures of the first screen, each as wide as a phone."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bocb_tune.analysis.names.look import backbone_look, label, optimizer_look
from bocb_tune.analysis.report.drawing.page import (
    GREY,
    INK,
    PALE,
    PHONE,
    Look,
    fixed,
    key,
    metric_ticks,
    names_left,
    single,
)
from bocb_tune.analysis.report.plots.values import ReachScatter, Winners

LONGEST, LONGEST_ROW = 14, 20
"""Characters of a name, and of one with its pre-training."""
MOST_IN_LEGEND = 9
OFF_SCALE = 20.0
"""Points below the best beyond which a cell is drawn at the edge of the figure."""


def winners(plot: Winners) -> Figure:
    longest = LONGEST_ROW if any("@" in name for name in plot.backbones) else LONGEST
    count, left, right = (
        len(plot.backbones),
        names_left(plot.backbones, longest),
        names_left(plot.optimizers, LONGEST) + 0.3,
    )
    lines = -(-len(plot.optimizers) // 4) if len(plot.optimizers) <= MOST_IN_LEGEND else 0
    row = 0.34 if len(plot.optimizers) <= MOST_IN_LEGEND else 0.24
    figure, axes = single(PHONE - left - right, count * row, left, right, 0.15, 0.5 + 0.18 * lines)
    low, high = _limits(plot)
    for place in range(len(plot.optimizers)):
        _optimizer(axes, plot, place, low)
    axes.set(xlim=(low - 0.03 * (high - low), high), xlabel=plot.unit)
    metric_ticks(axes.xaxis, plot.metric, 3)
    axes.grid(axis="x", color=PALE, lw=0.6)
    axes.set_axisbelow(True)
    fixed(axes, "y", range(count), [label(name, longest) for name in plot.backbones])
    axes.set_ylim(count - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    _named_best(axes, plot)
    if lines:
        looks = {name: optimizer_look(name) for name in plot.optimizers}
        keys = [key(look.marker, label(name, LONGEST), color=look.color) for name, look in looks.items()]
        figure.legend(handles=keys, loc="lower center", ncols=4, columnspacing=0.8, handletextpad=0.1, fontsize=7)
    return figure


def _limits(plot: Winners) -> tuple[float, float]:
    """Choose the axis, from the lowest score, if it is not far below the best ones, to the highest end of an
    interval."""
    known = plot.value[np.isfinite(plot.value)]
    best = [plot.value[row, place] for row, place in enumerate(plot.best) if place >= 0]
    low = float(known[known >= min(best) - OFF_SCALE].min())
    high = float(np.fmax(np.nanmax(plot.value), np.nanmax(plot.hi, initial=-np.inf)))
    room = max(high - low, 1e-6)
    return low - 0.04 * room, high + 0.06 * room


def _optimizer(axes: Axes, plot: Winners, place: int, low: float) -> None:
    """Draw one optimizer on all backbones, slightly apart from the others where they are few."""
    count, look = len(plot.optimizers), optimizer_look(plot.optimizers[place])
    offset = np.linspace(-0.26, 0.26, count)[place] if 1 < count <= MOST_IN_LEGEND else 0.0
    value, y = plot.value[:, place], np.arange(len(plot.backbones)) + offset
    is_best, near = np.array(plot.best) == place, plot.tied[:, place]
    shown = np.isfinite(value) & (value >= low)
    axes.plot(np.full((value < low).sum(), low), y[value < low], "<", color=look.color, ms=3.5, clip_on=False, zorder=3)
    for rows, face, size, width, order in (
        (shown & ~is_best & ~near, "white", 4.2, 1.0, 3),
        (shown & ~is_best & near, look.color, 4.2, 1.0, 3.5),
        (shown & is_best, look.color, 6.5, 2.2, 5),
    ):
        known = rows & np.isfinite(plot.lo[:, place])
        ends = np.maximum(plot.lo[known, place], low), plot.hi[known, place]
        if known.any():
            axes.hlines(y[known], *ends, color=look.color, lw=width, alpha=0.6, zorder=2)
        if rows.any():
            marker: Look = {"mfc": face, "mec": look.color, "mew": 0.9, "ms": size, "ls": "", "marker": look.marker}
            axes.plot(value[rows], y[rows], clip_on=False, zorder=order, **marker)


def _named_best(axes: Axes, plot: Winners) -> None:
    """Write the best of each row at its right, and how many tie with it."""
    for row, place in enumerate(plot.best):
        if place < 0:
            continue
        others = int(plot.tied[row].sum()) - 1
        text = label(plot.optimizers[place], LONGEST) + (f" +{others}" if others else "")
        axes.text(1.03, row, text, transform=axes.get_yaxis_transform(), size=7, va="center", color=INK)


def reach_scatter(plot: ReachScatter) -> Figure:
    names = list(dict.fromkeys(plot.optimizers)), list(dict.fromkeys(plot.backbones))
    listed = max(map(len, names)) <= MOST_IN_LEGEND
    lines = sum(-(-len(each) // 3) for each in names) if listed else 0
    figure, axes = single(PHONE - 0.75, 2.1, 0.55, 0.2, 0.15, 0.5 + 0.17 * lines)
    depth = np.minimum(plot.behind, OFF_SCALE)
    for place, (backbone, optimizer) in enumerate(zip(plot.backbones, plot.optimizers, strict=True)):
        color, marker = optimizer_look(optimizer).color, backbone_look(backbone).marker
        ends = plot.decades.lo[place], plot.decades.hi[place]
        axes.hlines(depth[place], *ends, color=color, lw=1.0, alpha=0.45)
        axes.plot(plot.decades.value[place], depth[place], marker, color=color, ms=5, clip_on=False, zorder=3)
        if plot.decades.at_least[place]:
            axes.plot(plot.decades.value[place] + 0.06, depth[place], ">", color=color, ms=2.5, clip_on=False)
    axes.axhline(plot.tolerance, color=GREY, lw=0.7, ls=(0, (3, 2)), zorder=0)
    bottom = max(float(depth.max()), plot.tolerance) * 1.12
    axes.set(xlabel="usable decades of learning rate", ylabel="points behind the best", ylim=(bottom, -0.04 * bottom))
    axes.set_xlim(0, None)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    if listed:
        shown: list[tuple[str, str, str]] = [("s", name, optimizer_look(name).color) for name in names[0]]
        shown += [(backbone_look(name).marker, name, "#777777") for name in names[1]]
        keys = [key(marker, label(name, LONGEST), color=color) for marker, name, color in shown]
        figure.legend(handles=keys, loc="lower center", ncols=3, columnspacing=0.8, handletextpad=0.1, fontsize=7)
    return figure
