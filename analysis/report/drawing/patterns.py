"""Draws patterns of trained weights: ridges over layer depth, and bars of exponents with thresholds."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bocb_tune.analysis.core.arrays import Array
from bocb_tune.analysis.names.look import label, optimizer_look
from bocb_tune.analysis.report.drawing.page import DARK, GREY, INK, PALE, fixed, names_left, slots
from bocb_tune.analysis.report.plots.values import BarPanel, Bars, Ridge, RidgePanel, Ridges

STEP, HEIGHT = 0.24, 1.8
"""Inches between ridges, and height of the highest in such steps."""
OVER = 1.15
"""Height at which a single layer above the scale is cut."""
HATCH = "////"


def ridges(plot: Ridges) -> Figure:
    names = [ridge.name for panel in plot.panels for ridge in panel.ridges]
    high = STEP * (max(len(panel.ridges) for panel in plot.panels) + HEIGHT * OVER - 1)
    boxes = slots(len(plot.panels), title=plot.title, high=high, left=names_left(names), wide=1.6)
    for slot, panel in zip(boxes, plot.panels, strict=True):
        axes = slot.axes()
        low, top = _reach(panel)
        for place, ridge in enumerate(panel.ridges):
            _ridge(axes, ridge, -place, low, top)
        count = len(panel.ridges)
        fixed(axes, "y", range(0, -count, -1), [label(ridge.name, 14) for ridge in panel.ridges])
        fixed(axes, "x", (0, 1), ("first", "last"))
        axes.set(xlim=(0, 1), ylim=(1 - count - 0.1, HEIGHT * OVER))
        axes.set_xlabel(f"layer; heights {low:.3g} to {top:.3g}", size=7)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        slot.name(panel.title)
    return boxes[0].figure


def _reach(panel: RidgePanel) -> tuple[float, float]:
    """Find the ends of the scale that the ridges of a panel share: single layers must not flatten all others."""
    values = np.concatenate([ridge.value for ridge in panel.ridges])
    low, high = np.quantile(values, (0.0, 0.98))
    return float(low), float(high if high > low else low + 1)


def _ridge(axes: Axes, ridge: Ridge, foot: float, low: float, high: float) -> None:
    color = GREY if ridge.is_start else optimizer_look(ridge.name).color
    heights: Array = foot + HEIGHT * np.clip((ridge.value - low) / (high - low), 0, OVER)
    axes.fill_between(ridge.depth, foot, heights, color=color, alpha=0.35, lw=0, zorder=2 - foot)
    axes.plot(ridge.depth, heights, color=color, lw=1.0, ls=(0, (3, 1.5)) if ridge.failed else "-", zorder=2.5 - foot)


def bars(plot: Bars) -> Figure:
    count = len(plot.optimizers)
    wide = max(0.24 * count, 1.2)
    bottom = 0.15 + 0.85 * names_left(plot.optimizers)
    columns = max(1, min(4, int(9.5 / (wide + 0.6))))
    boxes = slots(len(plot.panels), high=1.3, left=0.5, bottom=bottom, wide=wide, columns=columns)
    top = _top(plot)
    for slot, panel in zip(boxes, plot.panels, strict=True):
        axes = slot.axes()
        _bars(axes, plot, panel)
        names = [label(name, 14) for name in plot.optimizers]
        axes.set_xticks(range(count), names, rotation=90)
        axes.set(xlim=(-0.6, count - 0.4), ylim=(0, top))
        axes.set_ylabel(plot.axis, size=7)
        slot.name(panel.title)
    return boxes[0].figure


def _top(plot: Bars) -> float:
    ends = np.concatenate([np.fmax(panel.value, panel.hi) for panel in plot.panels])
    return float(1.08 * min(np.nanmax(ends), 2.5 * max(plot.thresholds))) if np.isfinite(ends).any() else 1.0


def _bars(axes: Axes, plot: Bars, panel: BarPanel) -> None:
    axes.grid(axis="y", color=PALE, lw=0.6)
    axes.set_axisbelow(True)
    for place, name in enumerate(plot.optimizers):
        if np.isnan(panel.value[place]):
            axes.text(place, 0, " n/a", size=6, color="#767676", rotation=90, ha="center", va="bottom")
            continue
        hatch = HATCH if panel.failed[place] else None
        axes.bar(place, panel.value[place], 0.72, color=optimizer_look(name).color, hatch=hatch, ec=INK, lw=0.4)
        axes.vlines(place, panel.lo[place], panel.hi[place], color=DARK, lw=1.0)
    for threshold in plot.thresholds:
        axes.axhline(threshold, color=DARK, lw=0.8, ls=(0, (4, 2)))
