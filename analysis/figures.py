"""Draws the values of `plots.py`. The only module that imports a plotting library; no global state, no pyplot."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import singledispatch
from io import StringIO
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from bocb_tune.analysis.plots import CurvePanel, Curves, Heatmap, LandscapePanel, Landscapes, Plot, RankDots
from bocb_tune.analysis.style import backbone_marker, label, optimizer_color
from bocb_tune.types import TrialStatus

WIDTH = 10.4
"""Inches of a full-width figure."""
GREY, DARK, RED = "#9a9a9a", "#333333", "#b2182b"
RC: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "text.parse_math": False,  # a name may hold a dollar sign
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.edgecolor": DARK,
    "axes.titlesize": 8.5,
    "axes.titlelocation": "left",
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.frameon": False,
    "legend.fontsize": 7.5,
    "svg.fonttype": "none",
    "svg.hashsalt": "bocb-tune",
}
# More lines or points than this in one figure are drawn as pixels inside the SVG: the page stays light.
MOST_VECTORS = 5000
# A heatmap with more columns than this has no room for its numbers.
MOST_NUMBERED = 24
COLUMNS = 5


def render(plot: Plot, folder: Path) -> str:
    """Write `folder`/STEM.svg and .png; return the SVG for inlining, its ids made unique on the page."""
    with mpl.rc_context(RC):
        figure = draw(plot)
        figure.savefig(folder / f"{plot.stem}.png", dpi=150)
        text = StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None}, dpi=150)
    (folder / f"{plot.stem}.svg").write_text(text.getvalue(), encoding="utf-8")
    return _inline(text.getvalue(), plot.stem)


def _inline(svg: str, prefix: str) -> str:
    svg = svg[svg.index("<svg") :]
    return re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", svg)


@singledispatch
def draw(plot: Plot) -> Figure:
    """The figure of a plot value."""
    raise NotImplementedError(type(plot))


@draw.register
def _heatmap(plot: Heatmap) -> Figure:
    rows, columns = plot.values.shape
    cell = min(0.62, (WIDTH - 2.2) / columns)
    left, right, top, bottom = 1.35, 0.85, 0.25, 0.35 + 0.055 * max(len(label(name)) for name in plot.columns)
    width, height = columns * cell, rows * min(0.36, max(cell * 0.75, 0.26))
    figure, axes = _page(width, height, left, right, top, bottom)
    colors, norm, extend = _scale(plot)
    axes.imshow(np.ma.masked_invalid(plot.values), cmap=colors, norm=norm, aspect="auto")
    axes.set_xticks(
        range(columns), [label(name) for name in plot.columns], rotation=45, ha="right", rotation_mode="anchor"
    )
    axes.set_yticks(range(rows), [label(name) for name in plot.rows])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    for edges, line in ((range(columns + 1), axes.axvline), (range(rows + 1), axes.axhline)):
        for edge in edges:
            line(edge - 0.5, color="white", lw=0.8)
    if columns <= MOST_NUMBERED:
        _number(axes, plot, colors, norm, size=min(8.0, 15.5 * cell))
    size = figure.get_size_inches()
    bar = figure.add_axes(
        ((left + width + 0.15) / size[0], bottom / size[1], 0.1 / size[0], min(height, 2.6) / size[1])
    )
    figure.colorbar(ScalarMappable(norm, colors), cax=bar, extend=extend).set_label(plot.unit, size=7)
    bar.tick_params(labelsize=6.5, length=2)
    return figure


def _page(width: float, height: float, left: float, right: float, top: float, bottom: float) -> tuple[Figure, Axes]:
    """One axes of the given size in inches, margins around it."""
    whole = (left + width + right, top + height + bottom)
    figure = Figure(figsize=whole)
    return figure, figure.add_axes((left / whole[0], bottom / whole[1], width / whole[0], height / whole[1]))


def _scale(plot: Heatmap) -> tuple[Colormap, Normalize, str]:
    known = plot.values[np.isfinite(plot.values)]
    if plot.signed:
        reach = max(float(np.quantile(np.abs(known), 0.95)), 1e-9)
        colors, norm, extend = mpl.colormaps["PuOr_r"], Normalize(-reach, reach), "both"
    else:
        low, high = float(np.quantile(known, 0.05)), float(known.max())
        colors, norm = mpl.colormaps["viridis"], Normalize(low, max(high, low + 1e-9))
        extend = "min" if known.min() < low else "neither"
    return colors.with_extremes(bad="#e4e4e4"), norm, extend


def _number(axes: Axes, plot: Heatmap, colors: Colormap, norm: Normalize, size: float) -> None:
    text = "{:+.1f}" if plot.signed else "{:.1f}"
    for (row, column), value in np.ndenumerate(plot.values):
        if np.isfinite(value):
            red, green, blue, _ = colors(float(norm(value)))
            ink = "white" if 0.299 * red + 0.587 * green + 0.114 * blue < 0.52 else "#111111"
            axes.text(column, row, text.format(round(value, 1) + 0.0), ha="center", va="center", size=size, color=ink)


@draw.register
def _rank_dots(plot: RankDots) -> Figure:
    count = len(plot.optimizers)
    lines = -(-len(plot.backbones) // 7)
    figure, axes = _page(
        6.2,
        count * (0.27 if len(plot.backbones) <= 8 else 0.38),
        left=1.2,
        right=0.3,
        top=0.2,
        bottom=0.55 + 0.2 * lines,
    )
    offsets = np.linspace(-0.28, 0.28, len(plot.backbones)) if len(plot.backbones) > 1 else [0.0]
    for place, (name, ranks) in enumerate(zip(plot.optimizers, plot.ranks.T, strict=True)):
        axes.axhline(place, color="#ececec", lw=0.8, zorder=0)
        for backbone, rank, offset in zip(plot.backbones, ranks, offsets, strict=True):
            marker = backbone_marker(backbone)
            axes.plot(rank, place + offset, marker, ms=3.6, color=optimizer_color(name), alpha=0.75, mew=0.8)
        axes.plot([ranks.mean()] * 2, [place - 0.4, place + 0.4], color="#111111", lw=2, solid_capstyle="butt")
    axes.set_yticks(range(count), [label(name) for name in plot.optimizers])
    axes.set(ylim=(count - 0.4, -0.6), xlim=(0.5, count + 0.5), xlabel="rank within the backbone (1 = best)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.tick_params(axis="y", length=0)
    keys = [_key(backbone_marker(name), label(name, 14), color=DARK) for name in plot.backbones]
    figure.legend(handles=keys, loc="lower center", ncols=7, columnspacing=1, handletextpad=0.2, fontsize=6.8)
    return figure


def _key(marker: str, text: str, **look: Any) -> Line2D:
    return Line2D([], [], **{"ls": "", "marker": marker, "ms": 5, "label": text, **look})


@draw.register
def _landscapes(plot: Landscapes) -> Figure:
    norm = _completed_range(plot.panels)
    pixels = sum(len(panel.status) for panel in plot.panels) > MOST_VECTORS
    figure = _grid(
        plot.panels, lambda axes, panel: _landscape(axes, panel, norm, pixels), "learning rate", "weight decay"
    )
    _head(figure, plot.title, _landscape_keys())
    size = figure.get_size_inches()
    bar = figure.add_axes((1 - 0.75 / size[0], 0.55 / size[1], 0.1 / size[0], min(1.6, size[1] - 1.2) / size[1]))
    figure.colorbar(ScalarMappable(norm, "viridis"), cax=bar, extend="min").set_label(plot.unit, size=7)
    bar.tick_params(labelsize=6.5, length=2)
    return figure


def _completed_range(panels: tuple[LandscapePanel, ...]) -> Normalize:
    """Colour range of the completed trials, without their lowest tenth."""
    each = [panel.score[np.array(panel.status) == TrialStatus.completed] for panel in panels]
    scores = np.concatenate([*each, [] if any(map(len, each)) else [0.0, 1.0]])
    return Normalize(float(np.quantile(scores, 0.1)), float(scores.max()) + 1e-9)


def _landscape(axes: Axes, panel: LandscapePanel, norm: Normalize, pixels: bool) -> None:
    axes.set(xscale="log", yscale="log")
    positive = panel.weight_decay[panel.weight_decay > 0]
    x_low, x_high = _limits(panel, "lr", panel.lr)
    y_low, y_high = _limits(panel, "weight_decay", positive)
    zero = y_low / 10**0.55
    y = np.where(panel.weight_decay > 0, panel.weight_decay, zero)
    status = np.array(panel.status)
    for look, (chosen, style) in _looks(panel, status, norm).items():
        if chosen.any():
            axes.scatter(panel.lr[chosen], y[chosen], **style, zorder=look, rasterized=pixels)
    has_zero = bool((panel.weight_decay == 0).any()) or (
        panel.dims is not None and panel.dims["weight_decay"].zero_mass > 0
    )
    if has_zero:
        axes.axhspan(y_low / 10**1.0, y_low / 10**0.15, color="#f1f1f1", lw=0, zorder=0)
    axes.set(xlim=(x_low / 1.5, x_high * 1.5), ylim=(y_low / 10**1.0 if has_zero else y_low / 1.5, y_high * 1.5))
    _decades(axes, "x", x_low, x_high)
    _decades(axes, "y", y_low, y_high, zero if has_zero else None)


def _looks(panel: LandscapePanel, status: Any, norm: Normalize) -> dict[float, tuple[Any, dict[str, Any]]]:
    """Which trials are drawn how, by z-order."""
    scored = {"norm": norm, "cmap": "viridis"}
    completed, stopped = status == TrialStatus.completed, status == TrialStatus.stopped
    failed = np.isin(status, [TrialStatus.failed, TrialStatus.oom])
    best = panel.is_best & completed
    rim = mpl.colormaps["viridis"](norm(np.nan_to_num(panel.score[stopped])))
    return {
        2.0: (stopped, {"s": 6 + 16 * panel.progress[stopped], "facecolors": "none", "edgecolors": rim, "lw": 0.9}),
        2.1: (status == TrialStatus.running, {"s": 5, "color": GREY}),
        2.2: (status == TrialStatus.diverged, {"s": 17, "marker": "x", "color": RED, "lw": 0.9}),
        2.3: (failed, {"s": 24, "marker": "+", "color": DARK, "lw": 0.9}),
        2.4: (completed, {"s": 22, "c": panel.score[completed], "lw": 0.3, "edgecolors": "white", **scored}),
        2.5: (panel.is_default, {"s": 58, "marker": "s", "facecolors": "none", "edgecolors": "#111111", "lw": 0.9}),
        2.6: (best, {"s": 105, "marker": "*", "c": panel.score[best], "edgecolors": "#111111", "lw": 0.8, **scored}),
    }


def _landscape_keys() -> list[Line2D]:
    hollow = {"mfc": "none", "color": DARK, "mew": 0.9}
    return [
        _key("o", "completed", color="#21918c"),
        _key("o", "stopped (smaller: earlier)", ms=3.8, **hollow),
        _key("x", "diverged", color=RED),
        _key("+", "failed", color=DARK),
        _key(".", "running", color=GREY),
        _key("s", "default", ms=7, **hollow),
        _key("*", "best", ms=9, mfc="#fde725", mec="#111111", mew=0.8),
    ]


def _limits(panel: LandscapePanel, name: str, values: Any) -> tuple[float, float]:
    """Range to show: the search space where known, and all trials in any case."""
    bounds = [panel.dims[name].low, panel.dims[name].high] if panel.dims else []
    shown = [*bounds, *values] or [1e-4, 1e-1]
    return float(min(shown)), float(max(shown))


def _decades(axes: Axes, which: str, low: float, high: float, zero: float | None = None) -> None:
    """At most four powers of ten, and zero on its strip."""
    powers = np.arange(np.ceil(np.log10(low) - 0.2), np.floor(np.log10(high) + 0.2) + 1)
    ticks = list(10.0 ** powers[:: max(1, -(-len(powers) // 4))])
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(FixedLocator(ticks if zero is None else [zero, *ticks]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: "0" if value == zero else f"1e{round(np.log10(value))}"))
    axis.set_minor_locator(NullLocator())


@draw.register
def _curves(plot: Curves) -> Figure:
    scores = np.concatenate([curve.score for panel in plot.panels for curve in panel.curves])
    low, high = float(np.quantile(scores, 0.005)), float(scores.max())
    room = 0.06 * max(high - low, 1e-9)
    pixels = sum(len(panel.curves) for panel in plot.panels) > MOST_VECTORS

    def one(axes: Axes, panel: CurvePanel) -> None:
        _curve_lines(axes, panel, pixels)
        axes.set_ylim(low - room, high + room)

    figure = _grid(plot.panels, one, "epochs", plot.unit)
    _head(figure, plot.title, _curve_keys())
    return figure


def _curve_lines(axes: Axes, panel: CurvePanel, pixels: bool) -> None:
    color = optimizer_color(panel.optimizer)
    for rung in panel.rungs:
        axes.axvline(rung, color="#bdbdbd", lw=0.8, ls=(0, (2, 2)), zorder=0)
    ended = {TrialStatus.stopped: (0.35, 0.8), TrialStatus.completed: (0.7, 0.9)}
    for status in sorted({curve.status for curve in panel.curves}):
        alpha, width = ended.get(TrialStatus(status), (0.35, 0.8))
        lines = [np.column_stack([c.budget, c.score]) for c in panel.curves if c.status == status and not c.is_best]
        axes.add_collection(LineCollection(lines, colors=color, alpha=alpha, lw=width, zorder=2, rasterized=pixels))
    for curve in (curve for curve in panel.curves if curve.is_best):
        axes.plot(curve.budget, curve.score, color="#111111", lw=1.3, zorder=3)
    for status, style in _END_MARKS.items():
        ends = [(curve.budget[-1], curve.score[-1]) for curve in panel.curves if curve.status == status]
        if ends:
            look = {"mfc": "white", "mec": color, **style}
            axes.plot(*zip(*ends, strict=True), ls="", mew=0.8, zorder=2.5, rasterized=pixels, **look)
    last = max(float(curve.budget[-1]) for curve in panel.curves)
    axes.set_xlim(0, max([last, *panel.rungs]) * 1.04)
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(4))


_END_MARKS: dict[str, dict[str, Any]] = {
    TrialStatus.stopped: {"marker": "o", "ms": 2.6},
    TrialStatus.diverged: {"marker": "x", "ms": 3.8, "mec": RED},
    TrialStatus.failed: {"marker": "+", "ms": 4.5, "mec": DARK},
}


def _curve_keys() -> list[Line2D]:
    return [
        Line2D([], [], color=GREY, lw=1, label="completed"),
        _key("o", "stopped", ms=4, mfc="white", color=GREY),
        _key("x", "diverged", color=RED),
        Line2D([], [], color="#111111", lw=1.5, label="best setting"),
        Line2D([], [], color="#bdbdbd", lw=0.9, ls=(0, (2, 2)), label="rung"),
    ]


def _head(figure: Figure, title: str, keys: list[Line2D]) -> None:
    """The backbone at the left, the legend beside it."""
    width, height = figure.get_size_inches()
    figure.text(0.12 / width, 1 - 0.1 / height, label(title), size=10, weight="bold", va="top")
    corner, spacing = (1 - 0.1 / width, 1 - 0.02 / height), {"columnspacing": 0.9, "handletextpad": 0.3}
    figure.legend(handles=keys, loc="upper right", bbox_to_anchor=corner, ncols=len(keys), handlelength=1.4, **spacing)


def _grid(panels: tuple[Any, ...], one: Callable[[Axes, Any], None], x_label: str, y_label: str) -> Figure:
    """Small multiples in rows of at most five, axes labelled once a row and once a column."""
    columns = min(len(panels), COLUMNS)
    rows = -(-len(panels) // columns)
    wide, high = (3.6, 2.6) if len(panels) == 1 else (min(2.6, (WIDTH - 1.0) / columns - 0.42), 1.45)
    left, right, top, bottom, gap_x, gap_y = 0.62, 0.95, 0.62, 0.48, 0.42, 0.52
    size = (max(left + columns * (wide + gap_x) - gap_x + right, 7.4), top + rows * (high + gap_y) - gap_y + bottom)
    figure = Figure(figsize=size)
    for place, panel in enumerate(panels):
        row, column = divmod(place, columns)
        x, y = left + column * (wide + gap_x), size[1] - top - row * (high + gap_y) - high
        axes = figure.add_axes((x / size[0], y / size[1], wide / size[0], high / size[1]))
        one(axes, panel)
        axes.text(
            0,
            1.03,
            label(panel.title),
            transform=axes.transAxes,
            size=8.5,
            weight="bold",
            color=optimizer_color(panel.title),
        )
        if column == 0:
            axes.set_ylabel(y_label)
        if place + columns >= len(panels):
            axes.set_xlabel(x_label)
    return figure
