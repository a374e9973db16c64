"""Drawing of curves: learning curves, profiles over learning rate, single hyper-parameters, tuning curves."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from bocb_tune.analysis.core.arrays import Array
from bocb_tune.analysis.names.look import label, optimizer_dash, optimizer_look
from bocb_tune.analysis.report.drawing.page import (
    DARK,
    GREY,
    INK,
    RED,
    Look,
    decades,
    fixed,
    key,
    line_key,
    metric_ticks,
    slots,
)
from bocb_tune.analysis.report.plots.values import (
    Band,
    CurvePanel,
    Curves,
    Isolation,
    IsolationPanel,
    ProfilePanel,
    Profiles,
    TrialDots,
    TuningCurves,
    TuningPanel,
)
from bocb_tune.core.types import TrialStatus

MOST_BANDS = 6
"""Most lines in a panel that all have bands; with more, only the best three do."""


def curves(plot: Curves) -> Figure:
    scores = np.concatenate([curve.score for panel in plot.panels for curve in panel.curves])
    low, high = float(np.quantile(scores, 0.005)), float(scores.max())
    room = 0.06 * max(high - low, 1e-9)
    boxes = slots(len(plot.panels), title=plot.title, keys=_curve_keys())
    for slot, panel in zip(boxes, plot.panels, strict=True):
        axes = slot.axes()
        _curve_lines(axes, panel)
        axes.set_ylim(low - room, high + room)
        metric_ticks(axes.yaxis, plot.metric)
        slot.name(panel.title, optimizer=True)
        axes.set_ylabel(plot.unit)
        axes.set_xlabel("epochs")
    return boxes[0].figure


def _curve_lines(axes: Axes, panel: CurvePanel) -> None:
    color = optimizer_look(panel.title).color
    axes.set_rasterization_zorder(2.8)
    for rung in panel.rungs:
        axes.axvline(rung, color="#bdbdbd", lw=0.8, ls=(0, (2, 2)), zorder=0)
    ended = {TrialStatus.stopped: (0.35, 0.8), TrialStatus.completed: (0.7, 0.9)}
    for status in sorted({curve.status for curve in panel.curves}):
        alpha, width = ended.get(TrialStatus(status), (0.35, 0.8))
        lines = [np.column_stack([c.budget, c.score]) for c in panel.curves if c.status == status and not c.is_best]
        axes.add_collection(LineCollection(lines, colors=color, alpha=alpha, lw=width, zorder=2))
    for curve in (curve for curve in panel.curves if curve.is_best):
        axes.plot(curve.budget, curve.score, color=INK, lw=1.3, zorder=3)
    for status, style in _END_MARKS.items():
        ends = [(curve.budget[-1], curve.score[-1]) for curve in panel.curves if curve.status == status]
        if ends:
            look = {"mfc": "white", "mec": color, **style}
            axes.plot(*zip(*ends, strict=True), ls="", mew=0.8, zorder=2.5, **look)
    last = max(float(curve.budget[-1]) for curve in panel.curves)
    axes.set_xlim(0, max([last, *panel.rungs]) * 1.04)
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))


_END_MARKS: dict[str, dict[str, Any]] = {
    TrialStatus.stopped: {"marker": "o", "ms": 2.6},
    TrialStatus.diverged: {"marker": "x", "ms": 3.8, "mec": RED},
    TrialStatus.failed: {"marker": "+", "ms": 4.5, "mec": DARK},
}


def _curve_keys() -> list[Line2D]:
    return [
        line_key("completed", color=GREY, lw=1),
        key("o", "stopped", ms=4, mfc="white", color=GREY),
        key("x", "diverged", color=RED),
        line_key("best setting", color=INK, lw=1.5),
        line_key("rung", color="#bdbdbd", lw=0.9, ls=(0, (2, 2))),
    ]


def profiles(plot: Profiles) -> Figure:
    limits = _limits(
        [panel.trials for panel in plot.panels], [panel.score for panel in plot.panels if panel.score is not None]
    )
    keys = [
        line_key("expected score, 95 % band", color=DARK, lw=1.5),
        *_dot_keys(),
        line_key(f"within {plot.epsilon:g} of the best", color="#d9d9d9", lw=5),
    ]
    boxes = slots(len(plot.panels), title=plot.title, keys=keys, high=1.75)
    for slot, panel in zip(boxes, plot.panels, strict=True):
        upper, lower = slot.axes(bottom=0.45, height=1.3), slot.axes(height=0.35)
        _profile(upper, panel, limits)
        _diverging(lower, panel)
        slot.name(panel.title, optimizer=True)
        _labels(upper, plot)
        lower.set_ylabel("P(div.)", size=7)
        lower.set_xlabel("learning rate")
    return boxes[0].figure


def _profile(axes: Axes, panel: ProfilePanel, limits: tuple[float, float]) -> None:
    color = optimizer_look(panel.title).color
    _dots(axes, panel.trials, color, limits)
    ends = _ends(panel.trials, panel.score)
    if panel.score is None:
        _no_model(axes)
    else:
        near = panel.score.value >= panel.level
        axes.fill_between(panel.score.x, *limits, where=near, color="#e3e3e3", lw=0, zorder=0)
        _band(axes, panel.score, color)
        top = float(np.interp(panel.best, panel.score.x, panel.score.value))
        axes.plot(panel.best, top, "*", ms=9, mfc="white", mec=INK, mew=0.8, zorder=5)
    axes.set(xlim=(ends[0] - 0.1, ends[1] + 0.1), ylim=limits)
    decades(axes, "x", *ends)
    axes.tick_params(labelbottom=False)


def _no_model(axes: Axes) -> None:
    axes.text(0.97, 0.04, "no model", transform=axes.transAxes, size=7, ha="right", color="#5c5c5c")


def _ends(dots: TrialDots, band: Band | None) -> tuple[float, float]:
    """Choose the range of an axis: the range searched, or else that of the trials."""
    x = dots.x if band is None else band.x
    return (float(x.min()), float(x.max())) if len(x) else (-4.0, -1.0)


def _diverging(axes: Axes, panel: ProfilePanel) -> None:
    ends = _ends(panel.trials, panel.score)
    if panel.score is not None and panel.divergence is not None:
        axes.fill_between(panel.score.x, 0, panel.divergence, color=RED, alpha=0.25, lw=0)
        axes.plot(panel.score.x, panel.divergence, color=RED, lw=1.0)
    _crosses(axes, panel.trials, 1.0)
    axes.set(xlim=(ends[0] - 0.1, ends[1] + 0.1), ylim=(0, 1.05))
    decades(axes, "x", *ends)
    fixed(axes, "y", [0, 1], ["0", "1"])


def isolation(plot: Isolation) -> Figure:
    dots = [panel.lr_trials for panel in plot.panels]
    bands = [band for panel in plot.panels for band in (panel.lr, panel.decay) if band is not None]
    limits = _limits(dots, bands)
    keys = [line_key("mean over the other hyper-parameter, 95 % band", color=DARK, lw=1.5), *_dot_keys()]
    boxes = slots(len(plot.panels), title=plot.title, keys=keys, high=2.45)
    for slot, panel in zip(boxes, plot.panels, strict=True):
        upper, lower = slot.axes(bottom=1.45, height=1.0), slot.axes(height=1.0)
        _isolated(upper, lower, panel, limits)
        slot.name(panel.title, optimizer=True)
        for axes, name in ((upper, "learning rate"), (lower, "weight decay")):
            _labels(axes, plot)
            axes.set_xlabel(name, size=7, labelpad=1)
    return boxes[0].figure


def _isolated(upper: Axes, lower: Axes, panel: IsolationPanel, limits: tuple[float, float]) -> None:
    color = optimizer_look(panel.title).color
    for axes, band, dots in ((upper, panel.lr, panel.lr_trials), (lower, panel.decay, panel.decay_trials)):
        _dots(axes, dots, color, limits)
        _crosses(axes, dots, limits[0])
        ends = _ends(dots, band)
        axes.set(xlim=(ends[0] - 0.1, ends[1] + 0.1), ylim=limits)
        decades(axes, "x", *ends)
        if band is None:
            _no_model(axes)
        else:
            _band(axes, band, color)
    if panel.zero is not None and panel.decay is not None:
        value, lo, hi = panel.zero
        strip = panel.zero_at + np.array([-0.25, 0.25])
        lower.fill_between(strip, lo, hi, color=color, alpha=0.22, lw=0, zorder=2.9)
        lower.plot(strip, [value, value], color=INK, lw=1.3, zorder=3)
        lower.set_xlim(panel.zero_at - 0.35, None)
        decades(lower, "x", panel.decay.x[0], panel.decay.x[-1], panel.zero_at)


def _limits(dots: list[TrialDots], bands: list[Band]) -> tuple[float, float]:
    """Choose the scores to show: those of interest, without the worst failures."""
    completed = np.concatenate([part.score[part.completed] for part in dots])
    tops = [float(each.max()) for each in (completed, *(band.hi for band in bands)) if each.size]
    high = max(tops, default=1.0)
    low = float(np.quantile(completed, 0.1)) if completed.size else high - 1.0
    reach = max(high - low, 1e-6)
    return low - 0.6 * reach, high + 0.06 * reach


def _dots(axes: Axes, dots: TrialDots, color: str, limits: tuple[float, float]) -> None:
    """Draw trials; those below the axis are drawn at its foot."""
    y = np.maximum(dots.score, limits[0])
    for chosen, face in ((~dots.completed, "none"), (dots.completed, color)):
        look: Look = {"mfc": face, "mec": color, "mew": 0.6, "ms": 2.8, "alpha": 0.75, "clip_on": False}
        axes.plot(dots.x[chosen], y[chosen], "o", zorder=2, **look)


def _crosses(axes: Axes, dots: TrialDots, y: float) -> None:
    """Draw diverged trials, all at one height."""
    where = dots.x[dots.diverged]
    axes.plot(where, np.full(len(where), y), "x", color=RED, ms=3, mew=0.7, clip_on=False)


def _band(axes: Axes, band: Band, color: str) -> None:
    axes.fill_between(band.x, band.lo, band.hi, color=color, alpha=0.22, lw=0, zorder=2.9)
    axes.plot(band.x, band.value, color=INK, lw=1.3, zorder=3)


def _dot_keys() -> list[Line2D]:
    return [
        key("o", "completed trial", ms=3.5, color=DARK),
        key("o", "stopped trial", ms=3.5, mfc="none", color=DARK),
        key("x", "diverged", ms=4, color=RED),
    ]


def _labels(axes: Axes, plot: Profiles | Isolation) -> None:
    metric_ticks(axes.yaxis, plot.metric)
    axes.set_ylabel(plot.unit)


def tuning_curves(plot: TuningCurves) -> Figure:
    keys = [
        line_key(label(name), color=optimizer_look(name).color, ls=optimizer_dash(name), lw=1.6)
        for name in plot.optimizers
    ]
    boxes = slots(len(plot.panels), keys=keys)
    for slot, panel in zip(boxes, plot.panels, strict=True):
        axes = slot.axes()
        _tuning(axes, panel, plot.optimizers)
        metric_ticks(axes.yaxis, plot.metric)
        slot.name(panel.title)
        axes.set_ylabel(plot.unit)
        axes.set_xlabel("trials")
    return boxes[0].figure


def _tuning(axes: Axes, panel: TuningPanel, optimizers: tuple[str, ...]) -> None:
    known = [row for row in np.argsort(-panel.value[:, -1], kind="stable") if np.isfinite(panel.value[row]).any()]
    banded = known if len(optimizers) <= MOST_BANDS else known[:3]
    x = np.log2(panel.n)
    for row in known:
        color = optimizer_look(optimizers[row]).color
        axes.plot(x, panel.value[row], color=color, ls=optimizer_dash(optimizers[row]), lw=1.2, zorder=3)
        if np.isfinite(panel.observed[row]).any():
            axes.plot(x, panel.observed[row], ls="none", marker="o", ms=2.5, color=color, zorder=4)
        if row in banded:
            axes.fill_between(x, panel.lo[row], panel.hi[row], color=color, alpha=0.16, lw=0, zorder=1)
    for row in np.flatnonzero(np.isfinite(panel.found).all(axis=1)):
        at = np.clip(np.log2(panel.found[row, 0]), x[0], x[-1])
        axes.plot(
            at, panel.found[row, 1], "*", ms=7, color=optimizer_look(optimizers[row]).color, zorder=5, clip_on=False
        )
    last = np.append(panel.value[known, -1], panel.found[np.isfinite(panel.found[:, 1]), 1])
    low = float(np.quantile(panel.value[known, 0], 0.2)) if known else 0.0
    axes.set(xlim=(x[0], x[-1]), ylim=_tuning_limits(low, last))
    step = max(1, len(panel.n) // 5)
    fixed(axes, "x", x[::step], [f"{n:g}" for n in panel.n[::step]])


def _tuning_limits(low: float, last: Array) -> tuple[float, float]:
    """Choose the axis, down to where most curves start."""
    high = float(last.max()) if len(last) else 1.0
    room = max(high - low, 1e-6)
    return low - 0.05 * room, high + 0.1 * room
