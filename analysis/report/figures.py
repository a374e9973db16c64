"""Figures as files. This is the only use of the plotting library: no global state, no pyplot."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from bocb_tune.analysis.core.cache import code, fingerprint
from bocb_tune.analysis.core.parallel import pool, workers
from bocb_tune.analysis.names.look import shown_together
from bocb_tune.analysis.report.drawing import answer, landscapes, lines, matrices, patterns, rows, samples, scatter
from bocb_tune.analysis.report.drawing.page import DARK
from bocb_tune.analysis.report.drawing.svg import inline, lean
from bocb_tune.analysis.report.plots import values
from bocb_tune.analysis.report.plots.values import Plot
from bocb_tune.core.collector import uncollected
from bocb_tune.core.progress import say

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
DPI, DPI_IN_SVG = 150, 100
"""Resolution of the PNG, and of the dense parts of an SVG that are drawn as pixels."""
_Part = tuple[Plot, tuple[str, ...], Path, str]
"""A plot, the names of the grid, the folder of its files, and the fingerprint of its data."""
FEWEST_PARALLEL = 4
"""Least number of figures for which other processes are started: fewer are drawn before those would be ready."""
HEAD, PNG_END = 4096, b"IEND\xaeB`\x82"
"""First bytes of a PNG that contain its notes, and its last bytes."""
DRAWERS: Mapping[type[Plot], Callable[[Any], Figure]] = {
    values.Winners: answer.winners,
    values.ReachScatter: answer.reach_scatter,
    values.Heatmap: matrices.heatmap,
    values.TransferPanels: matrices.transfer,
    values.Landscapes: landscapes.landscapes,
    values.Curves: lines.curves,
    values.Profiles: lines.profiles,
    values.Isolation: lines.isolation,
    values.TuningCurves: lines.tuning_curves,
    values.Strip: rows.strip,
    values.Forest: rows.forest,
    values.VarianceSplit: rows.variance_split,
    values.CriticalDifference: rows.critical_difference,
    values.CouplingScatter: scatter.coupling_scatter,
    values.CostScatter: scatter.cost_scatter,
    values.MarkedTable: samples.marked_table,
    values.Samples: samples.samples,
    values.Ridges: patterns.ridges,
    values.Bars: patterns.bars,
}


class Drawing:
    """The figures of one report, drawn by other processes while the rest of it is made; a context manager.

    Writes FOLDER/STEM.svg and .png of each plot, except for those that exist already, drawn from equal values.
    """

    def __init__(self, folder: Path, names: tuple[str, ...] = ()) -> None:
        """Take the folder, and the names of the grid, whose colours and markers must differ from one another."""
        self._folder = folder
        self._names = names
        self._stems: list[str] = []
        self._waiting: list[_Part] = []
        self._others: ProcessPoolExecutor | None = None
        self._begun: list[Future[None]] = []

    def __enter__(self) -> Drawing:
        self._folder.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        if self._others is not None:
            self._others.shutdown(cancel_futures=True)

    def start(self, plots: Sequence[Plot]) -> None:
        """Begin to draw some plots; a few are kept for later, since other processes take a while to start."""
        parts = [(plot, self._names, self._folder, fingerprint(code(), self._names, plot)) for plot in plots]
        self._stems += [plot.stem for plot in plots]
        self._waiting += [part for part in parts if not _is_drawn(part)]
        if self._others is None and len(self._waiting) >= FEWEST_PARALLEL and workers() > 1:
            self._others = pool(workers())
        if self._others is not None:
            self._begun += [self._others.submit(_write, part) for part in self._waiting]
            self._waiting = []

    def pictures(self) -> dict[str, tuple[str, ...]]:
        """Return the SVGs of each plot by stem, when all are drawn, for inlining; their ids are unique on the page."""
        for part in self._waiting:
            say(f"figure {part[0].stem}")
            _write(part)
        for done, each in enumerate(self._begun, start=1):
            say(f"figure {done} of {len(self._begun)}")
            each.result()
        paths = {stem: self._folder / f"{stem}.svg" for stem in self._stems}
        return {stem: inline(path.read_text(encoding="utf-8"), stem) for stem, path in paths.items()}


def _is_drawn(part: _Part) -> bool:
    """Tell whether both files are complete and contain the fingerprint of the plot."""
    plot, _, folder, mark = part
    try:
        svg, png = ((folder / f"{plot.stem}.{ending}").read_bytes() for ending in ("svg", "png"))
    except OSError:
        return False
    return svg.endswith(_foot(mark).encode()) and mark.encode() in png[:HEAD] and png.endswith(PNG_END)


def _foot(mark: str) -> str:
    return f"<!-- drawn from {mark} -->\n"


def _write(part: _Part) -> None:
    plot, names, folder, mark = part
    with look(), shown_together(names), uncollected():
        figure = draw(plot)
        note = {"Software": None, "Source": mark}
        figure.savefig(folder / f"{plot.stem}.png", dpi=DPI, metadata=note, pil_kwargs={"compress_level": 1})
        text = StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None}, dpi=DPI_IN_SVG)
    (folder / f"{plot.stem}.svg").write_text(lean(text.getvalue(), plot.stem) + _foot(mark), encoding="utf-8")


@contextmanager
def look() -> Iterator[None]:
    """Set the common style of all figures.

    A letter that the font lacks is a box in the PNG; in the SVG the reader's fonts have it.
    """
    with mpl.rc_context(RC), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def draw(plot: Plot) -> Figure:
    """Draw the figure of a plot value."""
    if type(plot) not in DRAWERS:
        raise NotImplementedError(type(plot))
    return DRAWERS[type(plot)](plot)
