"""Common parts of all figures: sizes in inches, panels in rows, legends, log axes, colour bars."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedFormatter, FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from bocb_tune.analysis.names.look import label, optimizer_look
from bocb_tune.analysis.report.drawing.svg import BAR
from bocb_tune.core.types import Objective

WIDTH = 10.4
"""Inches of a full-width figure."""
COLUMNS = 4
ABOVE = 4.0
"""Drawing order of axes and their labels: above anything drawn as pixels, which would blur them."""
FEW_KEYS = 7
HEAD = 0
"""Number of the panel with the title and the legend."""
WIDEST = 1.75
"""Inches of a panel among several, such that three fit beside each other with their legend."""
PHONE = 3.7
"""Inches that fit on a phone, for a legend for example."""
PAD, NAME = 0.1, 0.24
"""Inches at the right of a panel, and for the name above it."""
GREY, PALE, DARK, INK, RED = "#9a9a9a", "#ececec", "#333333", "#111111", "#b2182b"
Look = dict[str, Any]
"""Keywords of the plotting library."""
SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
LONGEST_TITLE = 60
LETTER_OF_NAME = 0.092
"""Inches of a letter of a panel's name."""
LETTER = 0.062
"""Inches of a letter of a legend, on average."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PanelSlot:
    """The place of one panel in a figure."""

    figure: Figure
    x: float
    """Distance from the left, inches."""
    y: float
    """Distance from the bottom, inches."""
    width: float
    height: float
    margins: tuple[float, float, float]
    """Inches at its left, below it and at its right, for the names of its axes and notes."""
    number: int
    """Number among the panels of the figure, from 1."""

    def axes(self, bottom: float = 0.0, height: float | None = None) -> Axes:
        """Add axes as wide as the slot, `bottom` inches above its foot."""
        axes = add_axes(self.figure, self.x, self.y + bottom, self.width, height or self.height)
        axes.set_gid(self._mark(f"a{bottom:g}"))
        for part in (axes.xaxis, axes.yaxis, *axes.spines.values()):
            part.set_zorder(ABOVE)
        return axes

    def _mark(self, part: str) -> str:
        """Make the id by which the page takes the panel out of the figure."""
        left, bottom, right = self.margins
        box = (self.x - left, self.y - bottom, left + self.width + right, bottom + self.height + NAME)
        return panel_id(self.number, part, box)

    def name(self, text: str, optimizer: bool = False, note: str = "") -> None:
        """Write the name of the panel above it, an optimizer's with a square in its colour, and a small note at the
        right."""
        whole = self.figure.get_size_inches()
        y = (self.y + self.height + 0.05) / whole[1]
        look: Look = {"size": 8.5, "weight": "bold", "va": "bottom"}
        if optimizer:
            square = self.figure.text(self.x / whole[0], y, "■", color=optimizer_look(text).color, **look)
            square.set_gid(self._mark("square"))
        name = self.figure.text(
            (self.x + 0.14 * optimizer) / whole[0],
            y,
            label(text, max(6, int((self.width + self.margins[2]) / LETTER_OF_NAME))),
            color=INK,
            **look,
        )
        name.set_gid(self._mark("name"))
        if note:
            right = (self.x + self.width) / whole[0]
            told = self.figure.text(right, y, note, size=5.6, color="#5c5c5c", ha="right", va="bottom")
            told.set_gid(self._mark("note"))


def panel_id(number: int, part: str, box: tuple[float, float, float, float]) -> str:
    """Make the id of a part of a panel: number, part, and x, y, width, height of the panel in inches."""
    return "_".join([f"panel{number}", part, *(f"{each:.2f}" for each in box)])


def slots(
    count: int,
    *,
    title: str = "",
    keys: Sequence[Any] = (),
    high: float = 1.45,
    left: float = 0.62,
    right: float = 0.3,
    bottom: float = 0.48,
    gap: float = 0.3,
    pad: float = PAD,
    columns: int = COLUMNS,
    wide: float = 0.0,
) -> list[PanelSlot]:
    """Divide a new figure into panels, in rows of at most `columns`, under its title and legend; sizes in inches.

    Each has the names of its axes, so that the page may rearrange them, with `left` and `bottom` for these. The title
    is that of a backbone; a figure of the whole grid has its own on the page.
    """
    columns = min(count, columns)
    rows = -(-count // columns)
    gaps = left + pad, bottom + gap
    wide = wide or min(PHONE - gaps[0] if count == 1 else WIDEST, (WIDTH - left - right + gaps[0]) / columns - gaps[0])
    width = max(left + columns * (wide + gaps[0]) - gaps[0] + right, PHONE if keys else 0.3 + _title_width(title))
    lines = legend_lines(keys)
    top = NAME + 0.12 + 0.28 * bool(title) + 0.19 * lines
    height = top + rows * (high + gaps[1]) - gaps[1] + bottom
    figure = Figure(figsize=(width, height))
    head(figure, title, keys, top - NAME - 0.06)
    found = []
    for place in range(count):
        row, column = divmod(place, columns)
        found.append(
            PanelSlot(
                figure=figure,
                x=left + column * (wide + gaps[0]),
                y=height - top - row * (high + gaps[1]) - high,
                width=wide,
                height=high,
                margins=(left, bottom, pad),
                number=place + 1,
            )
        )
    return found


def single(width: float, height: float, left: float, right: float, top: float, bottom: float) -> tuple[Figure, Axes]:
    """Add one pair of axes of the given size to a new figure, with margins around it."""
    figure = Figure(figsize=(left + width + right, top + height + bottom))
    return figure, add_axes(figure, left, bottom, width, height)


def add_axes(figure: Figure, x: float, y: float, width: float, height: float) -> Axes:
    whole = figure.get_size_inches()
    return figure.add_axes((x / whole[0], y / whole[1], width / whole[0], height / whole[1]))


def legend_lines(keys: Sequence[Any]) -> int:
    """Count the lines that the legend needs under the title."""
    return -(-len(keys) // _legend_columns(keys)) if keys else 0


def head(figure: Figure, title: str, keys: Sequence[Any], high: float) -> None:
    """Write the title, and below it the legend, in the first `high` inches of a figure."""
    width, height = figure.get_size_inches()
    wide = _legend_columns(keys) * _key_widths(keys).max() + 0.3 if keys else 0.0
    box = (0.0, height - high, max(_title_width(title) + 0.3, wide), high)
    look: Look = {"columnspacing": 0.9, "handletextpad": 0.4, "handlelength": 1.4, "borderaxespad": 0, "borderpad": 0}
    if title:
        text = label(title, LONGEST_TITLE)
        shown = figure.text(0.12 / width, 1 - 0.1 / height, text, size=10, weight="bold", va="top")
        shown.set_gid(panel_id(HEAD, "title", box))
    if keys:
        corner = (0.12 / width, 1 - (0.34 if title else 0.1) / height)
        legend = figure.legend(
            handles=keys, loc="upper left", bbox_to_anchor=corner, ncols=_legend_columns(keys), **look
        )
        legend.set_gid(panel_id(HEAD, "legend", box))


def _title_width(title: str) -> float:
    return 0.085 * len(label(title, LONGEST_TITLE))


def _key_widths(keys: Sequence[Any]) -> Any:
    return np.array([0.32 + LETTER * len(str(key.get_label())) for key in keys])


def _legend_columns(keys: Sequence[Any]) -> int:
    """Choose the columns of the legend: few keys stand below one another, beside the panels."""
    if len(keys) <= FEW_KEYS:
        return 1
    return max(1, min(len(keys), int((PHONE - 0.2) / _key_widths(keys).max())))


def key(marker: str, text: str, **look: Any) -> Line2D:
    """Make a marker of the legend."""
    return Line2D([], [], **{"ls": "", "marker": marker, "ms": 5, "label": text, **look})


def line_key(text: str, **look: Any) -> Line2D:
    """Make a line of the legend."""
    return Line2D([], [], label=text, **look)


def color_bar(
    figure: Figure,
    box: tuple[float, float, float, float],
    scale: tuple[Normalize, Colormap | str],
    text: str,
    extend: str,
    metric: Objective | None = None,
) -> None:
    """Draw a slim colour bar at x, y, width, height in inches."""
    axes = add_axes(figure, *box)
    axes.set_gid(panel_id(BAR, "bar", (box[0] - 0.1, box[1] - 0.1, 0.85, box[3] + 0.2)))
    bar = figure.colorbar(ScalarMappable(*scale), cax=axes, extend=extend)
    bar.set_label(text, size=7)
    if metric is not None and not metric.is_score:
        metric_ticks(bar.ax.yaxis, metric)
    axes.tick_params(labelsize=6.5, length=2)


class _MetricTicks(MaxNLocator):
    """Ticks of an axis of scores at round values of the metric."""

    def __init__(self, metric: Objective, most: int) -> None:
        super().__init__(most)
        self._metric = metric

    def tick_values(self, vmin: float, vmax: float) -> list[float]:
        ends = sorted(float(self._metric.shown(end)) for end in (vmin, vmax))
        return sorted(float(self._metric.score(tick)) for tick in super().tick_values(*ends))


def metric_ticks(axis: Axis, metric: Objective | None, most: int = 4) -> None:
    """Place the ticks of an axis of scores, labelled by the metric; better is up, whatever the metric's sign."""
    if metric is None or metric.is_score:
        axis.set_major_locator(MaxNLocator(most))
        return
    axis.set_major_locator(_MetricTicks(metric, most))
    axis.set_major_formatter(FuncFormatter(lambda score, _: f"{metric.shown(score):.3g}"))


def decades(axes: Axes, which: str, low: float, high: float, zero: float | None = None) -> None:
    """Place the ticks of an axis in log10: at most four powers of ten, and zero at its place."""
    powers = np.arange(np.ceil(low - 0.2), np.floor(high + 0.2) + 1)
    powers = powers[:: max(1, -(-len(powers) // 4))]
    names = ["10" + str(int(power)).translate(SUPERSCRIPT) for power in powers]
    fixed(axes, which, [*([] if zero is None else [zero]), *powers], [*([] if zero is None else ["0"]), *names])


def fixed(axes: Axes, which: str, places: Iterable[float], names: Sequence[str]) -> None:
    """Place ticks at the given positions only."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(FixedLocator(list(places)))
    axis.set_major_formatter(FixedFormatter(list(names)))
    axis.set_minor_locator(NullLocator())


def as_pixels(axes: Axes) -> None:
    """Draw what is within the axes as pixels, and the axes themselves as lines and letters."""
    for part in (axes.xaxis, axes.yaxis, *axes.spines.values()):
        part.set_zorder(ABOVE)
    axes.set_rasterization_zorder(ABOVE - 0.5)


def bare(axes: Axes) -> None:
    """Remove frame and tick marks."""
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def names_left(names: Iterable[str], longest: int = 22) -> float:
    """Compute the inches that row labels need."""
    return 0.25 + 0.066 * max(len(label(name, longest)) for name in names)
