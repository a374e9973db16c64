"""Drawing of landscapes: trials by outcome over learning rate and weight decay, above the fitted surface."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from bocb_tune.analysis.core.arrays import Array, Flags
from bocb_tune.analysis.report.drawing.page import DARK, GREY, INK, RED, Look, color_bar, decades, key, line_key, slots
from bocb_tune.analysis.report.plots.values import FittedSurface, LandscapePanel, Landscapes
from bocb_tune.core.types import TrialStatus

LEVELS = 12
COLORS = "viridis"
STRIP = (-1.0, -0.25)
"""Position of weight decay 0, in decades below the axis."""


def landscapes(plot: Landscapes) -> Figure:
    norm = _completed_range(plot.panels)
    keys = _keys(any(panel.fit for panel in plot.panels), plot.epsilon)
    boxes = slots(len(plot.panels), title=plot.title, keys=keys, right=0.95)
    for slot, panel in zip(boxes, plot.panels, strict=True):
        axes = slot.axes()
        _panel(axes, panel, norm)
        slot.name(panel.title, optimizer=True, note=panel.note)
        axes.set_ylabel("weight decay")
        axes.set_xlabel("learning rate")
    figure = boxes[0].figure
    size = figure.get_size_inches()
    room = (size[0] - 0.75, 0.5, 0.1, min(1.6, size[1] - 1.2))
    color_bar(figure, room, (norm, COLORS), plot.unit, "min", plot.metric)
    return figure


def _completed_range(panels: tuple[LandscapePanel, ...]) -> Normalize:
    """Choose the colours from completed trials, without their lowest tenth; in steps where surfaces are shown."""
    each = [panel.score[np.array(panel.status) == TrialStatus.completed] for panel in panels]
    scores = np.concatenate([*each, [] if any(map(len, each)) else [0.0, 1.0]])
    low, high = float(np.quantile(scores, 0.1)), float(scores.max())
    if any(panel.fit for panel in panels):
        return BoundaryNorm(MaxNLocator(LEVELS).tick_values(low, high + 1e-9), 256, extend="min")
    return Normalize(low, high + 1e-9)


def _panel(axes: Axes, panel: LandscapePanel, norm: Normalize) -> None:
    x, decay = np.log10(panel.lr), panel.weight_decay
    positive = np.log10(decay[decay > 0])
    x_low, x_high = _limits(panel.box and panel.box[0], x)
    y_low, y_high = _limits(panel.box and panel.box[1], positive)
    zero = y_low + sum(STRIP) / 2
    has_zero = panel.zero_is_choice or bool((decay == 0).any())
    foot = y_low + STRIP[0] if has_zero else y_low - 0.15
    axes.set(xlim=(x_low - 0.15, x_high + 0.15), ylim=(foot, y_high + 0.15))
    axes.set_rasterization_zorder(3)
    if has_zero:
        axes.axhspan(y_low + STRIP[0], y_low + STRIP[1], color="#f1f1f1", lw=0, zorder=0)
    if panel.fit:
        _surface(axes, panel.fit, norm, y_low)
    y = np.where(decay > 0, np.log10(np.where(decay > 0, decay, 1.0)), zero)
    _trials(axes, panel, x, y, norm)
    best = _best(panel, x, y, zero)
    axes.scatter(*best, s=105, marker="*", c="white", edgecolors=INK, lw=0.8, zorder=2.9)
    decades(axes, "x", x_low, x_high)
    decades(axes, "y", y_low, y_high, zero if has_zero else None)


def _limits(bounds: tuple[float, float] | None, values: Array) -> tuple[float, float]:
    """Choose the range to show: the search space where known, and all trials in any case."""
    shown = [*(bounds or ()), *values] or [-4.0, -1.0]
    return float(min(shown)), float(max(shown))


def _surface(axes: Axes, fit: FittedSurface, norm: Normalize, y_low: float) -> None:
    parts = [(fit.v, fit.score)]
    if fit.zero is not None:
        parts.append((y_low + np.array(STRIP), np.column_stack([fit.zero, fit.zero])))
    for v, score in parts:
        extent = (fit.u[0], fit.u[-1], v[0], v[-1])
        look: Look = {"cmap": COLORS, "norm": norm, "aspect": "auto", "zorder": 0.5, "alpha": 0.8}
        axes.imshow(score.T, origin="lower", extent=extent, interpolation="bilinear", **look)
        if fit.level < score.max():
            near: Look = {"levels": [fit.level], "linestyles": "solid"}
            axes.contour(fit.u, v, score.T, colors="white", linewidths=2.4, zorder=1.5, **near)
            axes.contour(fit.u, v, score.T, colors=INK, linewidths=1.1, zorder=1.6, **near)


def _trials(axes: Axes, panel: LandscapePanel, x: Array, y: Array, norm: Normalize) -> None:
    """Draw trials with a pale rim, so that they are visible on any colour."""
    status = np.array(panel.status)
    completed, stopped = status == TrialStatus.completed, status == TrialStatus.stopped
    failed = np.isin(status, [TrialStatus.failed, TrialStatus.oom])
    hollow: Look = {"s": 5 + 12 * panel.progress, "facecolors": "none"}
    looks: list[tuple[Flags, Look]] = [
        (stopped, {**hollow, "edgecolors": "white", "lw": 1.5}),
        (stopped, {**hollow, "edgecolors": DARK, "lw": 0.6}),
        (status == TrialStatus.running, {"s": 5, "color": GREY}),
        (status == TrialStatus.diverged, {"s": 17, "marker": "x", "color": "white", "lw": 2.0}),
        (status == TrialStatus.diverged, {"s": 15, "marker": "x", "color": RED, "lw": 0.9}),
        (failed, {"s": 24, "marker": "+", "color": "white", "lw": 2.0}),
        (failed, {"s": 22, "marker": "+", "color": DARK, "lw": 0.9}),
        (completed, {"s": 20, "c": panel.score, "lw": 0.6, "edgecolors": "white", "norm": norm, "cmap": COLORS}),
        (panel.is_default, {"s": 58, "marker": "s", "facecolors": "none", "edgecolors": "white", "lw": 1.8}),
        (panel.is_default, {"s": 58, "marker": "s", "facecolors": "none", "edgecolors": INK, "lw": 0.9}),
    ]
    for order, (chosen, look) in enumerate(looks):
        if chosen.any():
            picked: Look = {
                name: value[chosen] if isinstance(value, np.ndarray) else value for name, value in look.items()
            }
            axes.scatter(x[chosen], y[chosen], zorder=2 + order / 20, **picked)


def _best(panel: LandscapePanel, x: Array, y: Array, zero: float) -> tuple[Any, Any]:
    """Locate the model's best point, or else that of the trials."""
    if panel.fit is None:
        at = panel.is_best & (np.array(panel.status) == TrialStatus.completed)
        return x[at], y[at]
    best = panel.fit.best
    return [np.log10(best.lr)], [np.log10(best.weight_decay) if best.weight_decay > 0 else zero]


def _keys(fitted: bool, epsilon: float) -> list[Line2D]:
    hollow: Look = {"mfc": "none", "color": DARK, "mew": 0.9}
    found = [
        key("o", "completed", color="#21918c"),
        key("o", "stopped (smaller: earlier)", ms=3.8, **hollow),
        key("x", "diverged", color=RED),
        key("+", "failed", color=DARK),
        key("s", "default", ms=7, **hollow),
        key("*", "best", ms=9, mfc="white", mec=INK, mew=0.8),
    ]
    return [*found, line_key(f"within {epsilon:g} of the best", color=INK, lw=1.3)] if fitted else found
