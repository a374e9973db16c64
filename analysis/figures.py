"""Figures as files: the only door to the plotting library; no global state, no pyplot."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from bocb_tune.analysis.drawing import lines, matrices, rows, scatter, surfaces
from bocb_tune.analysis.drawing.page import DARK
from bocb_tune.analysis.plots import values
from bocb_tune.analysis.plots.values import Plot

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
    "hatch.linewidth": 0.5,
    "svg.fonttype": "none",
    "svg.hashsalt": "bocb-tune",
}
DPI, DPI_IN_SVG = 150, 120
"""Of the PNG, and of the dense parts of an SVG that are drawn as pixels."""
DRAWERS: Mapping[type[Plot], Callable[[Any], Figure]] = {
    values.Heatmap: matrices.heatmap,
    values.Transfer: matrices.transfer,
    values.Landscapes: surfaces.landscapes,
    values.Curves: lines.curves,
    values.Profiles: lines.profiles,
    values.Isolation: lines.isolation,
    values.TuningCurves: lines.tuning_curves,
    values.Strip: rows.strip,
    values.Forest: rows.forest,
    values.VarianceSplit: rows.variance_split,
    values.CriticalDifference: rows.critical_difference,
    values.CouplingScatter: scatter.coupling_scatter,
}


def render(plot: Plot, folder: Path) -> str:
    """Write `folder`/STEM.svg and .png; return the SVG for inlining, its ids made unique on the page."""
    with look():
        figure = draw(plot)
        figure.savefig(folder / f"{plot.stem}.png", dpi=DPI, pil_kwargs={"compress_level": 3})
        text = StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None}, dpi=DPI_IN_SVG)
    svg = _lean(text.getvalue())
    (folder / f"{plot.stem}.svg").write_text(svg, encoding="utf-8")
    return _inline(svg, plot.stem)


@contextmanager
def look() -> Iterator[None]:
    """How all figures are drawn. A letter the font lacks is a box in the PNG; in the SVG the reader's fonts have it."""
    with mpl.rc_context(RC), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def draw(plot: Plot) -> Figure:
    """The figure of a plot value."""
    if type(plot) not in DRAWERS:
        raise NotImplementedError(type(plot))
    return DRAWERS[type(plot)](plot)


def _lean(svg: str) -> str:
    """Coordinates to a hundredth of a point, no indentation: a third less, with no difference to the eye."""
    tags = re.sub(r"<[a-z][^>]*>", lambda tag: re.sub(r"(\.\d\d)\d+", r"\1", tag[0]), svg)
    return re.sub(r"\n\s+<", "\n<", tags)


def _inline(svg: str, prefix: str) -> str:
    svg = svg[svg.index("<svg") :]
    return re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", svg)
