"""Drawing of one row per optimizer: strips, interval bars, stacked shares, the critical-difference diagram."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from bocb_tune.analysis.names.look import backbone_look, label, optimizer_look
from bocb_tune.analysis.report.drawing.page import (
    DARK,
    GREY,
    INK,
    PAD,
    PALE,
    PHONE,
    Look,
    fixed,
    key,
    names_left,
    single,
    slots,
)
from bocb_tune.analysis.report.plots.values import (
    CriticalDifference,
    Forest,
    ForestPanel,
    Strip,
    VariancePanel,
    VarianceSplit,
)

PARTS = (("learning rate", "#4477aa", ""), ("weight decay", "#ddaa33", "////"), ("both together", "#d9d9d9", "\\" * 4))
"""Parts of variance with colour and hatch; hatches distinguish them without colour."""


def strip(plot: Strip) -> Figure:
    count, lines = len(plot.optimizers), -(-len(plot.backbones) // 7)
    row = 0.27 if len(plot.backbones) <= 8 else 0.38
    figure, axes = single(6.4, count * row, names_left(plot.optimizers), 0.3, 0.2, 0.5 + 0.17 * lines)
    offsets = np.linspace(-0.3, 0.3, len(plot.backbones)) if len(plot.backbones) > 1 else np.zeros(1)
    axes.hlines(range(count), 0, 1, color=PALE, lw=0.8, zorder=0, transform=axes.get_yaxis_transform())
    if plot.from_zero:
        axes.axvline(0, color=GREY, lw=0.9, zorder=0.5)
    for place, (backbone, offset) in enumerate(zip(plot.backbones, offsets, strict=True)):
        y, look = np.arange(count) + offset, backbone_look(backbone)
        if plot.lo is not None and plot.hi is not None:
            axes.hlines(y, plot.lo[place], plot.hi[place], colors=look.color, lw=0.7, alpha=0.35, zorder=1)
        axes.scatter(plot.values[place], y, c=look.color, marker=look.marker, s=14, alpha=0.8, lw=0.8, zorder=2)
    axes.vlines(plot.summary, np.arange(count) - 0.4, np.arange(count) + 0.4, color=INK, lw=2, zorder=3)
    _rows(axes, plot.optimizers)
    axes.set_xlabel(plot.axis)
    axes.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10], integer=not plot.from_zero))
    looks = {name: backbone_look(name) for name in plot.backbones}
    keys = [key(look.marker, label(name, 14), color=look.color) for name, look in looks.items()]
    figure.legend(handles=keys, loc="lower center", ncols=7, columnspacing=1, handletextpad=0.2, fontsize=6.8)
    return figure


def _rows(axes: Axes, names: tuple[str, ...]) -> None:
    """Label one row per name, the first on top."""
    fixed(axes, "y", range(len(names)), [label(name) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)


def forest(plot: Forest) -> Figure:
    count = len(plot.optimizers)
    row = 0.13 if plot.one_scale and len(plot.panels) > 3 else 0.2
    left, noted = names_left(plot.optimizers), any(panel.notes for panel in plot.panels)
    pad = 0.9 if noted else PAD
    wide = PHONE - left - pad if noted or len(plot.panels) <= 3 else 0.0
    boxes = slots(len(plot.panels), high=max(count * row, 0.4), left=left, pad=pad, wide=wide)
    limits = _reach(plot.panels) if plot.one_scale else None
    for slot, panel in zip(boxes, plot.panels, strict=True):
        axes = slot.axes()
        _bars(axes, plot.optimizers, panel, limits or _reach((panel,)))
        _rows(axes, plot.optimizers)
        slot.name(panel.title)
        axes.set_xlabel(panel.axis)
        if plot.one_scale and row < 0.2:
            axes.tick_params(axis="y", labelsize=6.5)
    return boxes[0].figure


def _reach(panels: tuple[ForestPanel, ...]) -> float:
    """Choose the axis to show every value; a very long interval is cut where it would hide the others."""
    values = np.concatenate([panel.ranges.value for panel in panels])
    ends = np.fmax(values, np.concatenate([panel.ranges.hi for panel in panels]))
    if np.isnan(values).all():
        return 1.0
    far = min(np.nanmax(ends), 1.5 * np.nanquantile(ends, 0.95))
    return float(max(np.nanmax(values), far)) * 1.06 or 1.0


def _bars(axes: Axes, names: tuple[str, ...], panel: ForestPanel, reach: float) -> None:
    ranges, y = panel.ranges, np.arange(len(names))
    colors = [optimizer_look(name).color for name in names]
    axes.hlines(y, 0, 1, color=PALE, lw=0.8, zorder=0, transform=axes.get_yaxis_transform())
    axes.set_xlim(0, reach)
    axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    axes.hlines(y, ranges.lo, np.minimum(ranges.hi, reach), colors=colors, lw=1.6, alpha=0.55, zorder=1)
    axes.scatter(ranges.value, y, c=colors, s=15, zorder=2, clip_on=False)
    ends = np.minimum(np.fmax(ranges.value, ranges.hi), reach)[ranges.at_least]
    axes.scatter(
        ends + 0.02 * reach, y[ranges.at_least], marker=">", s=16, c=np.array(colors)[ranges.at_least], clip_on=False
    )
    for refused in np.flatnonzero(np.isnan(ranges.value)):
        axes.text(0.02 * reach, float(refused), "n/a", size=6, color="#767676", va="center")
    beside: Look = {"size": 6, "color": "#5c5c5c", "va": "center", "transform": axes.get_yaxis_transform()}
    for place, note in enumerate(panel.notes):
        axes.text(1.01, place, label(note, 14), **beside)


def variance_split(plot: VarianceSplit) -> Figure:
    keys = [Patch(facecolor=color, hatch=hatch, edgecolor="white", label=name) for name, color, hatch in PARTS]
    high, left = max(0.2 * len(plot.optimizers), 0.4), names_left(plot.optimizers)
    boxes = slots(len(plot.panels), title=plot.title, keys=keys, high=high, left=left)
    for slot, panel in zip(boxes, plot.panels, strict=True):
        axes = slot.axes()
        _stack(axes, panel)
        _rows(axes, plot.optimizers)
        slot.name(panel.title)
        axes.set(xlim=(0, 1), xlabel="share of variance")
    return boxes[0].figure


def _stack(axes: Axes, panel: VariancePanel) -> None:
    known = np.flatnonzero(np.isfinite(panel.shares).all(axis=1))
    shares = np.clip(panel.shares[known], 0, 1)
    edges = np.cumsum(np.column_stack([np.zeros(len(known)), shares]), axis=1)
    for (start, _), share, (_, color, hatch) in zip(pairwise(edges.T), shares.T, PARTS, strict=True):
        axes.barh(known, share, 0.72, left=start, color=color, hatch=hatch, edgecolor="white", lw=0.4)
    for place in np.setdiff1d(np.arange(len(panel.shares)), known):
        axes.text(0.01, float(place), "n/a", size=6, color="#767676", va="center")


def critical_difference(plot: CriticalDifference) -> Figure:
    count = len(plot.optimizers)
    left_half = -(-count // 2)
    bars = 0.14 * len(plot.ties) + 0.12
    axis_at, depth = 0.35, bars + 0.19 * left_half
    margin = names_left(plot.optimizers) + 0.62
    figure, axes = single(5.6, axis_at + depth, margin, margin, 0.15, 0.15)
    axes.set(xlim=(1, max(count, 2)), ylim=(-depth, axis_at))
    axes.axis("off")
    _rank_axis(axes, count)
    for place, (name, rank) in enumerate(zip(plot.optimizers, plot.mean_ranks, strict=True)):
        on_left = place < left_half
        level = bars + 0.19 * (place if on_left else count - 1 - place) + 0.1
        _elbow(axes, name, float(rank), -level, on_left, count)
    for place, (first, last) in enumerate(plot.ties):
        ends = plot.mean_ranks[[first, last]] + np.array([-0.006, 0.006]) * count
        axes.plot(ends, [-0.12 - 0.14 * place] * 2, color=INK, lw=3.2, solid_capstyle="butt", clip_on=False)
    _ruler(axes, plot.difference, count, axis_at)
    return figure


def _rank_axis(axes: Axes, count: int) -> None:
    axes.plot([1, count], [0, 0], color=DARK, lw=0.9, clip_on=False)
    for rank in range(1, count + 1, max(1, count // 10)):
        axes.plot([rank, rank], [0, 0.05], color=DARK, lw=0.7, clip_on=False)
        axes.text(rank, 0.07, str(rank), ha="center", va="bottom", size=7)


def _elbow(axes: Axes, name: str, rank: float, y: float, on_left: bool, count: int) -> None:
    """Draw a line from the rank down and out to the name."""
    side = 1 - 0.02 * (count - 1) if on_left else count + 0.02 * (count - 1)
    color = optimizer_look(name).color
    axes.plot([rank, rank, side], [0, y, y], color=color, lw=1.0, clip_on=False)
    axes.plot(rank, 0, "o", color=color, ms=3.2, clip_on=False, zorder=3)
    text = f"{label(name)}  {rank:.2f}" if on_left else f"{rank:.2f}  {label(name)}"
    axes.text(side, y, f" {text} ", ha="right" if on_left else "left", va="center", size=7.5, color=INK)


def _ruler(axes: Axes, difference: float, count: int, top: float) -> None:
    """Draw the critical difference as a length, just above the axis' best end."""
    end = min(1 + difference, count)
    axes.plot([1, end], [top - 0.06] * 2, color=DARK, lw=1.1, marker="|", ms=5)
    axes.text((1 + end) / 2, top - 0.03, f"CD = {difference:.2f}", ha="center", va="bottom", size=7)
