"""Figures: the values are exact, every drawing keeps its texts on the page, the page works with any name."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import combinations, pairwise
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PathCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text

from bocb_tune.analysis.answer.sentences import Line, Part
from bocb_tune.analysis.cell.marginals import marginals
from bocb_tune.analysis.core.estimate import Estimate, Reason
from bocb_tune.analysis.landscape.fit import Landscape
from bocb_tune.analysis.landscape.trials import CellTrials
from bocb_tune.analysis.names.table import BACKBONES, OPTIMIZERS
from bocb_tune.analysis.report import figures
from bocb_tune.analysis.report.cards.values import Card, CellPage, DataTable, NotApplicable
from bocb_tune.analysis.report.drawing import svg
from bocb_tune.analysis.report.drawing.scatter import label_heights, spread
from bocb_tune.analysis.report.figures import DRAWERS
from bocb_tune.analysis.report.plots import of_coupling, of_landscapes, values
from bocb_tune.analysis.report.plots.of_coupling import by_group
from bocb_tune.analysis.report.plots.values import (
    Curve,
    CurvePanel,
    Curves,
    Intervals,
    LandscapePanel,
    Landscapes,
    Plot,
    Strip,
    TuningPanel,
)
from bocb_tune.analysis.report.sections.first import FirstScreen
from bocb_tune.core.types import Objective
from tests.support.coverage.landscapes import BOWL, BOX, CENTRE, StoredDraws, bowl, exact, ridge, simulate

NASTY = ("<script>alert(1)</script>", "\"q\" & 'q' ]]>\n../../e", "$x_2$ \\frac {{ 7*7 }}", "x" * 80, "名前")
WITH_ZERO = replace(BOX, zero_mass=0.15)


@dataclass(frozen=True)
class RandomGrid:
    """Names and random numbers of a grid, from which every figure can be made."""

    backbones: tuple[str, ...]
    optimizers: tuple[str, ...]
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.backbones), len(self.optimizers)

    def ranges(self, count: int) -> Intervals:
        """The last but one is only a bound, the last is refused."""
        value = self.rng.uniform(0.5, 3, count)
        known = [Estimate(value=float(v), lo=float(v * 0.8), hi=float(v * 1.4)) for v in value]
        known[-1] = Estimate(value=None, reason=Reason.SURROGATE_POOR)
        return Intervals.of([replace(e, reason=Reason.OPTIMUM_AT_EDGE) if e is known[0] else e for e in known])


SMALL = RandomGrid(("r50", "swint", "mogas"), ("sgdm", "adamw", "lamb", "adan"))
ONE = RandomGrid(("r50",), ("adamw",))
HOSTILE = RandomGrid(NASTY, NASTY)
LARGE = RandomGrid(tuple(row.key for row in BACKBONES), tuple(row.key for row in OPTIMIZERS))


def render(plot: Plot, folder: Path) -> str:
    with figures.Drawing(folder) as drawing:
        drawing.start([plot])
        return "".join(drawing.pictures()[plot.stem])


def trials(seed: int = 0) -> CellTrials:
    return simulate(BOWL, 30, seed)


def cells(grid: RandomGrid) -> dict[str, tuple[CellTrials, Landscape]]:
    return {name: (trials(n), exact(bowl, domain=WITH_ZERO, nodes=31)) for n, name in enumerate(grid.optimizers)}


def landscape_panel(name: str, found: CellTrials, fitted: bool) -> LandscapePanel:
    first = np.arange(len(found.lr)) == 0
    status = np.where(found.diverged, "diverged", np.where(found.completed, "completed", "stopped"))
    return LandscapePanel(
        title=name,
        lr=found.lr,
        weight_decay=found.weight_decay,
        score=found.last,
        progress=found.share,
        status=tuple(status),
        is_default=first,
        is_best=found.last == np.nanmax(found.last[found.completed]),
        box=(BOX.lr, BOX.weight_decay) if fitted else None,
        zero_is_choice=fitted,
        fit=of_landscapes.fitted_surface(exact(bowl, domain=WITH_ZERO, nodes=31)) if fitted else None,
        note="" if fitted else "no model: TOO_FEW_TRIALS",
    )


def landscapes(grid: RandomGrid) -> Plot:
    panels = tuple(landscape_panel(name, trials(n), n % 2 == 0) for n, name in enumerate(grid.optimizers))
    return Landscapes(stem="landscape-01", title=grid.backbones[0], caption="", panels=panels, unit="top1 [points]")


def curves(grid: RandomGrid) -> Plot:
    ends = {"completed": 30, "stopped": 10, "diverged": 3, "failed": 4}
    lines = tuple(
        Curve(budget=np.arange(1.0, end + 1), score=np.log(np.arange(1.0, end + 1)), status=status, is_best=end == 30)
        for status, end in ends.items()
    )
    panels = tuple(CurvePanel(title=name, curves=lines, rungs=(3, 10)) for name in grid.optimizers)
    return Curves(stem="curves-01", title=grid.backbones[0], caption="", panels=panels, unit="top1 [points]")


def interaction(grid: RandomGrid) -> Plot:
    matrix = grid.rng.normal(0, 3, grid.shape)
    return of_coupling.interaction_matrix(matrix, matrix, grid.backbones, grid.optimizers, "points", np.abs(matrix) > 3)


def cell_matrix(grid: RandomGrid) -> Plot:
    matrix = grid.rng.uniform(60, 80, grid.shape)
    matrix[-1, -1] = np.nan if matrix.size > 1 else 70.0
    return of_coupling.cell_matrix(matrix, grid.backbones, grid.optimizers, "top1 [points]")


def overview(grid: RandomGrid) -> Plot:
    mean, worst, usable = (grid.ranges(len(grid.optimizers)) for _ in range(3))
    where = (grid.backbones[0],) * len(grid.optimizers)
    return of_coupling.overview(grid.optimizers, mean, worst, where, usable)


def usable(grid: RandomGrid) -> Plot:
    found = {
        (b, o): Estimate(value=None, reason=Reason.ALL_DIVERGED) if o == grid.optimizers[-1] else Estimate(value=0.7)
        for b in grid.backbones
        for o in grid.optimizers
    }
    return of_coupling.usable_decades(found, grid.backbones, grid.optimizers)


def tuning(grid: RandomGrid) -> Plot:
    n = np.array([1.0, 2, 4, 8, 16, 32])
    value = 70 + 5 * np.log2(n) + grid.rng.normal(0, 3, (len(grid.optimizers), 1))
    value[-1] = np.nan if len(value) > 1 else value[-1]
    observed = np.where(n <= 8, value + 0.5, np.nan)
    curves = {"n": n, "value": value, "lo": value - 1, "hi": value + 1, "observed": observed}
    curves["found"] = np.where(np.isnan(value[:, :1]), [[16.0, 80.0]], np.nan)
    panels = tuple(TuningPanel(title=name, **curves) for name in grid.backbones)
    return of_coupling.tuning_curves(grid.optimizers, panels, "")


def coupling(grid: RandomGrid) -> Plot:
    counts = tuple(grid.rng.integers(0, 3, count).astype(float) for count in grid.shape)
    ranges = tuple(grid.ranges(count) for count in grid.shape)
    return of_coupling.coupling_scatter(grid.backbones, grid.optimizers, (counts[0], counts[1]), (ranges[0], ranges[1]))


def critical(grid: RandomGrid) -> Plot:
    count = len(grid.optimizers)
    return of_coupling.critical_difference(grid.optimizers, np.arange(1, count + 1) * 0.7 + 0.15 * count, 0.3 * count)


def drift(grid: RandomGrid) -> Plot:
    value = grid.rng.normal(0, 0.4, grid.shape)
    value[:, -1] = np.nan if value.shape[1] > 1 else 0.0
    return of_coupling.drift(grid.backbones, grid.optimizers, value, value - 0.2, value + 0.2)


def transfer(grid: RandomGrid) -> Plot:
    count = len(grid.backbones)
    regret = {name: grid.rng.gamma(1, 2, (count, count)) for name in grid.optimizers}
    regret[grid.optimizers[0]][0, -1] = np.nan
    return of_coupling.transfer(grid.backbones, regret)


def variance(grid: RandomGrid) -> Plot:
    shares = grid.rng.dirichlet([1, 1, 1], len(grid.optimizers))[:, :2]
    refused = np.where(np.arange(len(shares))[:, None] == 0, np.nan, shares)
    return of_landscapes.variance_split(1, grid.backbones[0], grid.optimizers, shares, refused)


def profiles(grid: RandomGrid) -> Plot:
    return of_landscapes.lr_profiles(1, grid.backbones[0], cells(grid), "top1 [points]")


def isolation(grid: RandomGrid) -> Plot:
    alone = {name: (found, marginals(cell)) for name, (found, cell) in cells(grid).items()}
    return of_landscapes.isolation(1, grid.backbones[0], alone, "top1 [points]")


def winners(grid: RandomGrid) -> Plot:
    value = grid.rng.normal(80, 5, grid.shape)
    value[0, 0] = np.nan if value.shape[1] > 1 else value[0, 0]
    value[-1, -1] = 10.0 if value.shape[1] > 1 else value[-1, -1]
    best = tuple(int(place) for place in np.nanargmax(value, axis=1))
    far = value < np.nanmax(value, axis=1, keepdims=True) - 3
    return values.Winners(
        stem="winners",
        title="Winners",
        caption="",
        backbones=grid.backbones,
        optimizers=grid.optimizers,
        value=value,
        lo=value - 1,
        hi=value + 1,
        best=best,
        tied=~far,
        failed=value < 20,
        unit="top1 [points]",
    )


def reach(grid: RandomGrid) -> Plot:
    pairs = [(backbone, optimizer) for backbone in grid.backbones for optimizer in grid.optimizers]
    return values.ReachScatter(
        stem="sensitivity-score",
        title="Reach",
        caption="",
        backbones=tuple(backbone for backbone, _ in pairs),
        optimizers=tuple(optimizer for _, optimizer in pairs),
        behind=grid.rng.gamma(1, 3, len(pairs)),
        decades=grid.ranges(len(pairs)) if len(pairs) > 1 else Intervals.of([Estimate(value=1.0, lo=0.5, hi=2.0)]),
        tolerance=1.0,
    )


def marked(grid: RandomGrid) -> Plot:
    matrix = grid.rng.uniform(60, 80, grid.shape).T
    return values.MarkedTable(
        stem="paper-table",
        title="Table",
        caption="",
        rows=grid.optimizers,
        columns=grid.backbones,
        values=matrix,
        top=matrix > 75,
        failed=matrix < 65,
        foot=(("mean", ("70.1",) * len(grid.backbones)), ("fails, as marked", ("1",) * len(grid.backbones))),
        row_groups=("adaptive lr, momentum gradient",) * len(grid.optimizers),
        column_groups=("modern",) * len(grid.backbones),
    )


def violins(grid: RandomGrid) -> Plot:
    """The first has an outlier far below, the last numbers that are all equal."""
    found = [grid.rng.normal(70, 2, 12) for _ in grid.backbones]
    found[0][0], found[-1] = 5.0, np.full(3, 70.0)
    return values.Samples(
        stem="paper-violins",
        title="Violins",
        caption="",
        names=grid.backbones,
        samples=tuple(found),
        axis="top1 [points]",
        are_backbones=True,
        as_violins=True,
    )


def boxes(grid: RandomGrid) -> Plot:
    found = tuple(grid.rng.integers(0, 7, 14).astype(float) for _ in grid.optimizers)
    return values.Samples(
        stem="settings-distance-optimizers",
        title="Boxes",
        caption="",
        names=grid.optimizers,
        samples=found,
        axis="steps from the mode, learning rate and weight decay added",
        are_backbones=False,
        as_violins=False,
    )


def cost(grid: RandomGrid) -> Plot:
    count = len(grid.optimizers)
    score = grid.rng.normal(75, 2, count)
    return values.CostScatter(
        stem="score-computation",
        title="Cost",
        caption="",
        optimizers=grid.optimizers,
        score=score,
        cost=np.linspace(1, 2, count),
        front=score == score.max(),
        axis="computation, relative to sgd",
        unit="top1 [points]",
    )


def ridges(grid: RandomGrid) -> Plot:
    depth = np.linspace(0, 1, 9)
    lines = [
        values.Ridge(name=name, depth=depth, value=grid.rng.gamma(2, 1, 9), failed=place == 1)
        for place, name in enumerate(grid.optimizers)
    ]
    lines.append(values.Ridge(name="at the start", depth=depth, value=np.ones(9), is_start=True))
    panels = tuple(values.RidgePanel(title=title, ridges=tuple(lines)) for title in ("L2 norm", "top PCA energy"))
    return values.Ridges(stem="ridges-01", title=grid.backbones[0], caption="", panels=panels)


def bars(grid: RandomGrid) -> Plot:
    count = len(grid.optimizers)
    value = grid.rng.uniform(1, 7, count)
    value[-1] = np.nan if count > 1 else 3.0
    failed = np.arange(count) == 0
    panels = tuple(
        values.BarPanel(title=name, value=value, lo=value - 0.5, hi=value + 0.5, failed=failed)
        for name in grid.backbones
    )
    return values.Bars(
        stem="exponents",
        title="Exponents",
        caption="",
        optimizers=grid.optimizers,
        panels=panels,
        axis="alpha",
        thresholds=(2.0, 6.0),
    )


MAKERS: tuple[Callable[[RandomGrid], Plot], ...] = (
    landscapes,
    profiles,
    isolation,
    curves,
    cell_matrix,
    interaction,
    overview,
    usable,
    tuning,
    coupling,
    critical,
    drift,
    transfer,
    variance,
    winners,
    reach,
    marked,
    violins,
    boxes,
    cost,
    ridges,
    bars,
)


def by_name(maker: Callable[[RandomGrid], Plot]) -> str:
    return maker.__name__


def test_every_kind_of_plot_has_a_drawer_and_is_made_here() -> None:
    kinds = {kind for kind in vars(values).values() if isinstance(kind, type) and issubclass(kind, Plot)} - {Plot}
    assert kinds == set(DRAWERS)
    assert {type(make(SMALL)) for make in MAKERS} == kinds


@pytest.mark.parametrize("make", MAKERS, ids=by_name)
@pytest.mark.parametrize("grid", [ONE, SMALL, HOSTILE], ids=["one cell", "small", "hostile names"])
def test_no_text_leaves_the_figure(make: Callable[[RandomGrid], Plot], grid: RandomGrid) -> None:
    with figures.look():
        figure = figures.draw(make(grid))
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        page = figure.bbox.padded(1.5)
        boxes = {text.get_text(): text.get_window_extent(canvas.get_renderer()) for text in drawn_texts(figure)}
    assert boxes
    outside = {text for text, box in boxes.items() if not (page.contains(*box.min) and page.contains(*box.max))}
    assert not outside


def drawn_texts(figure: Figure) -> list[Text]:
    """Ticks beyond the limits of their axis exist and are not drawn."""
    axes = [axis for part in figure.axes for axis in (part.xaxis, part.yaxis) if part.axison]
    hidden = {
        tick.label1 for part in figure.axes for axis in (part.xaxis, part.yaxis) for tick in axis.get_major_ticks()
    }
    hidden -= {tick.label1 for axis in axes for tick in axis._update_ticks()}
    return [
        text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip() and text not in hidden
    ]


@pytest.mark.parametrize("make", MAKERS, ids=by_name)
def test_files_are_sound_whatever_the_names(make: Callable[[RandomGrid], Plot], tmp_path: Path) -> None:
    plot = make(HOSTILE)
    inline = render(plot, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {f"{plot.stem}.svg", f"{plot.stem}.png"}
    ElementTree.fromstring((tmp_path / f"{plot.stem}.svg").read_bytes())
    assert "<script" not in inline
    ids = re.findall(r'\bid="([^"]+)"', inline)
    assert len(ids) == len(set(ids))
    assert all(name.startswith(f"{plot.stem}-") for name in ids)
    used = set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', inline))
    assert {first or second for first, second in used} <= set(ids)


def test_the_same_plot_gives_the_same_bytes(tmp_path: Path) -> None:
    plot, folders = critical(SMALL), (tmp_path / "one", tmp_path / "other")
    for folder in folders:
        folder.mkdir()
    assert render(plot, folders[0]) == render(plot, folders[1])
    one, other = ([path.read_bytes() for path in sorted(folder.iterdir())] for folder in folders)
    assert one == other


def test_a_figure_is_drawn_again_only_if_its_values_changed_or_its_file_is_broken(tmp_path: Path) -> None:
    plot = critical(SMALL)
    inline, svg, png = render(plot, tmp_path), tmp_path / f"{plot.stem}.svg", tmp_path / f"{plot.stem}.png"
    whole = {path: path.read_bytes() for path in (svg, png)}
    written = [path.stat().st_mtime_ns for path in (svg, png)]
    assert render(plot, tmp_path) == inline
    assert [path.stat().st_mtime_ns for path in (svg, png)] == written
    render(replace(plot, mean_ranks=plot.mean_ranks + 0.25), tmp_path)
    assert svg.read_bytes() != whole[svg]
    assert render(plot, tmp_path) == inline
    for path in (svg, png):
        path.write_bytes(whole[path][:-20])
        assert render(plot, tmp_path) == inline
        assert path.read_bytes() == whole[path]


def test_figures_drawn_by_other_processes_are_the_same(tmp_path: Path) -> None:
    """Those that are started at once, in two portions, and those drawn one by one in this process."""
    plots = [make(SMALL) for make in MAKERS]
    with figures.Drawing(tmp_path / "together") as drawing:
        drawing.start(plots[:3])
        drawing.start(plots[3:])
        together = drawing.pictures()
    assert {stem: "".join(parts) for stem, parts in together.items()} == {
        plot.stem: render(plot, tmp_path / "alone") for plot in plots
    }
    names = {path.name for path in (tmp_path / "together").iterdir()}
    assert names == {f"{plot.stem}.{ending}" for plot in plots for ending in ("svg", "png")}


def test_rounding_coordinates_leaves_names_alone(tmp_path: Path) -> None:
    name = "net-1.23456"
    plot = of_coupling.cell_matrix(np.array([[1.0, 2.0]]), (name,), ("a", "b"), "points")
    text = render(plot, tmp_path)
    assert name in text
    assert not re.search(r' [xy]="-?\d+\.\d{3}', text)


@pytest.mark.slow
@pytest.mark.parametrize("make", MAKERS, ids=by_name)
def test_a_whole_grid_of_twenty_by_twenty_is_drawn(make: Callable[[RandomGrid], Plot], tmp_path: Path) -> None:
    svg = render(make(LARGE), tmp_path)
    assert len(svg) < 1_500_000


def test_fitted_surface_is_that_of_the_landscape() -> None:
    found = of_landscapes.fitted_surface(exact(ridge, nodes=201), epsilon=2.0)
    assert np.log10(found.best) == pytest.approx(CENTRE, abs=0.0126)
    assert found.level == pytest.approx(88.0, abs=0.01)
    assert found.zero is None
    assert found.score.shape == (201, 201)


def test_weight_decay_zero_has_its_own_strip_and_can_be_best() -> None:
    found = of_landscapes.fitted_surface(exact(lambda u, v: 90 - u**2 - (v + 7) ** 2, domain=WITH_ZERO, nodes=51))
    assert found.best[1] == 0.0
    assert found.zero is not None
    assert found.zero.max() == pytest.approx(90.0)
    assert found.score.shape == (51, 51)


def test_profile_follows_the_ridge() -> None:
    """Along the best weight decay of each lr the curvature is 1 / (inverse Hessian)_uu = .08 * .005 / .0425."""
    cell = exact(ridge, nodes=401)
    panel = of_landscapes.lr_profiles(3, "b", {"o": (trials(), cell)}, "points").panels[0]
    u = panel.score.x
    inside = np.abs(u - CENTRE[0]) < 1.5
    falls = 100 * (0.08 * 0.005) / ((0.08 + 0.005) / 2) / 2 * (u - CENTRE[0]) ** 2
    assert panel.score.value[inside] == pytest.approx((90 - falls)[inside], abs=1e-3)
    assert panel.best == pytest.approx(CENTRE[0], abs=0.0126)
    assert panel.level == pytest.approx(89, abs=0.01)


def test_the_band_of_a_profile_holds_it_and_is_not_lifted_by_the_best_of_each_draw() -> None:
    """Weight decay does nothing here and draws are noise about 50: the band stays about 50."""
    cell = exact(lambda u, v: 50 + 0 * u * v, nodes=41)
    noise = np.random.default_rng(0).normal(0, 1, (200, 41, 41))
    noisy = replace(cell, surfaces=StoredDraws(values=cell.mean + noise))
    band = of_landscapes.lr_profiles(1, "b", {"o": (trials(), noisy)}, "points").panels[0].score
    assert (band.lo <= band.value).all()
    assert (band.value <= band.hi).all()
    assert np.mean(band.hi) == pytest.approx(50 + 1.96, abs=0.15)
    assert np.mean(band.lo) == pytest.approx(50 - 1.96, abs=0.15)


def test_isolation_is_the_mean_over_the_other() -> None:
    """E (v - centre)^2 over the box is (2.5^3 + 2.5^3) / 15 = 2.0833, and the same for u."""
    panel = of_landscapes.isolation(1, "b", {"o": (trials(), marginals(exact(bowl, nodes=401)))}, "points").panels[0]
    u, v = panel.lr.x, panel.decay.x
    assert panel.lr.value == pytest.approx(90 - 4 * (u - CENTRE[0]) ** 2 - 1 * 25 / 12, abs=1e-3)
    assert panel.decay.value == pytest.approx(90 - 1 * (v - CENTRE[1]) ** 2 - 4 * 25 / 12, abs=1e-3)
    assert panel.zero is None


def test_isolation_shows_every_trial() -> None:
    found = trials()
    alone = {"o": (found, marginals(exact(bowl, domain=WITH_ZERO, nodes=21)))}
    panel = of_landscapes.isolation(1, "b", alone, "points").panels[0]
    for dots in (panel.lr_trials, panel.decay_trials):
        assert len(dots.x) == len(found.lr)
        assert np.isnan(dots.score).sum() == found.diverged.sum()
    assert (panel.decay_trials.x == panel.zero_at).sum() == (found.weight_decay == 0).sum() > 0
    assert panel.zero_at < WITH_ZERO.weight_decay[0]
    assert panel.zero is not None


def test_shares_of_variance_sum_to_one() -> None:
    whole = np.array([[0.94, 0.06], [0.1697, 0.1697]])
    plot = of_landscapes.variance_split(1, "b", ("s1", "s2"), whole, np.full((2, 2), np.nan))
    assert plot.panels[0].shares.sum(axis=1) == pytest.approx(1)
    assert plot.panels[0].shares[1, 2] == pytest.approx(0.6606)
    assert np.isnan(plot.panels[1].shares).all()


@pytest.mark.parametrize("difference", [0.0, 0.5, 1.0, 2.5, 100.0])
def test_ties_are_the_longest_runs_within_the_critical_difference(difference: float) -> None:
    ranks = np.sort(np.random.default_rng(1).uniform(1, 8, 8))
    within = [(i, j) for i, j in combinations(range(8), 2) if ranks[j] - ranks[i] < difference]
    longest = [(i, j) for i, j in within if not any(a <= i and j <= b and (a, b) != (i, j) for a, b in within)]
    shuffled = np.random.default_rng(2).permutation(8)
    plot = of_coupling.critical_difference(tuple(f"o{place}" for place in shuffled), ranks[shuffled], difference)
    assert plot.optimizers == tuple(f"o{place}" for place in range(8))
    assert plot.ties == tuple(longest)


def test_families_stand_together_best_first() -> None:
    rng = np.random.default_rng(3)
    groups = list(rng.choice(["a", "b", "c"], 12))
    matrix = rng.normal(size=(12, 5))
    matrix[4] = np.nan
    order = by_group(groups, matrix)
    assert sorted(order) == list(range(12))
    runs = [
        name for place, name in enumerate(np.array(groups)[order]) if place == 0 or name != groups[order[place - 1]]
    ]
    assert len(runs) == len(set(groups))
    means = [np.nanmean(matrix[np.array(groups) == name]) for name in runs]
    assert means == sorted(means, reverse=True)
    for name in runs:
        own = [matrix[line].mean() for line in order if groups[line] == name and line != 4]
        assert own == sorted(own, reverse=True)


def test_matrix_and_interaction_share_their_order() -> None:
    names = LARGE.backbones, LARGE.optimizers
    matrix = np.random.default_rng(4).uniform(50, 90, tuple(map(len, names)))
    scores = of_coupling.cell_matrix(matrix, *names, "points")
    residual = of_coupling.interaction_matrix(matrix - 70, matrix, *names, "points", matrix > 70)
    assert (scores.rows, scores.columns) == (residual.rows, residual.columns)
    assert residual.values == pytest.approx(scores.values - 70)
    assert residual.faint is not None
    assert (residual.faint == (scores.values <= 70)).all()


def test_a_backbone_is_told_by_marker_and_colour_in_every_row() -> None:
    shape = len(LARGE.backbones), len(LARGE.optimizers)
    plot = Strip(
        stem="s",
        title="",
        caption="",
        optimizers=LARGE.optimizers,
        backbones=LARGE.backbones,
        values=np.ones(shape),
        summary=np.ones(shape[1]),
        axis="",
    )
    drawn = [part for part in figures.draw(plot).axes[0].collections if isinstance(part, PathCollection)]
    signs = {(to_hex(part.get_facecolor()[0]), part.get_paths()[0].vertices.tobytes()) for part in drawn}
    assert len(drawn) == len(signs) == shape[0]
    assert [to_hex(part.get_facecolor()[0][:3]) for part in drawn] == [row.color for row in BACKBONES]


def test_ranges_tell_bounds_from_refusals() -> None:
    found = Intervals.of(
        [
            Estimate(value=1.0, lo=0.5, hi=2.0),
            Estimate(value=2.0, reason=Reason.OPTIMUM_AT_EDGE),
            Estimate(value=3.0, lo=2.0, hi=4.0, reason=Reason.TOO_FEW_REPLICATES),
            Estimate(value=None, reason=Reason.EPS_BELOW_NOISE),
        ]
    )
    assert found.value[:3].tolist() == [1.0, 2.0, 3.0]
    assert np.isnan(found.value[3])
    assert found.at_least.tolist() == [False, True, False, False]
    assert found.why == ("", "", "", Reason.EPS_BELOW_NOISE.sentence)


def test_refused_cells_are_listed_with_their_reason() -> None:
    plot = usable(SMALL)
    assert f"in 3 cells {Reason.ALL_DIVERGED.sentence}." in plot.caption


def test_overview_and_drift_put_the_best_first() -> None:
    ranges = Intervals.of(Estimate(value=value) for value in (3.0, 1.0, 2.0))
    ranges = replace(ranges, value=np.array([3.0, np.nan, 2.0]))
    plot = of_coupling.overview(("a", "b", "c"), ranges, ranges, ("x", "y", "z"), ranges)
    assert plot.optimizers == ("c", "a", "b")
    assert plot.panels[1].notes == ("z", "x", "y")
    away = np.array([[0.5, -0.1, np.nan], [-0.5, 0.1, np.nan]])
    shown_first = of_coupling.drift(("r", "s"), ("a", "b", "c"), away, away, away)
    assert shown_first.optimizers == ("b", "a", "c")


def test_names_beside_markers_keep_apart() -> None:
    rng = np.random.default_rng(5)
    column, y = rng.integers(0, 3, 30), rng.uniform(0, 1, 30)
    x, heights = spread(column, y), label_heights(column, y, 0.1)
    for of_column in (np.flatnonzero(column == value) for value in range(3)):
        order = of_column[np.argsort(y[of_column])]
        assert (np.diff(heights[order]) >= 0.1 - 1e-9).all()
        assert (np.diff(x[order]) > 0).all()
        assert np.round(x[order] + 0.2).tolist() == column[order].tolist()


# The page.


def page(cards: tuple[Card | NotApplicable, ...], cells: tuple[CellPage, ...] = ()) -> str:
    environment = Environment(
        loader=PackageLoader("bocb_tune.analysis.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    objective = Objective(metric="top1", unit="points", floor=1.0)
    table = SimpleNamespace(
        source=SimpleNamespace(name=NASTY[0]),
        backbones=NASTY,
        optimizers=NASTY,
        trials=(),
        refined=(),
        objective=objective,
    )
    template = environment.get_template("report.html")
    first = FirstScreen(
        parts=(Part(title=NASTY[0], lines=(Line(text=NASTY[1], code=NASTY[0]),)),),
        tables=(),
        figures=(),
        checks=(),
        num_checks=0,
    )
    return template.render(
        table=table,
        first=first,
        cards=[card for card in cards if isinstance(card, Card)],
        not_applicable=[card for card in cards if isinstance(card, NotApplicable)],
        cells=cells,
        most_drawn=60,
        pictures={},
        zip=zip,
    )


def matrix_card() -> Card:
    frame = pd.DataFrame(np.arange(25.0).reshape(5, 5), columns=list(NASTY))
    frame.insert(0, "backbone", list(NASTY))
    return Card(title="Matrix", tables=(DataTable(stem="cell_matrix", frame=frame),))


def all_cells() -> tuple[CellPage, ...]:
    pairs = [(b, o) for b in NASTY for o in NASTY]
    rows = (("best score", "1 <b>±</b> 2"), ("usable decades", "n/a: TOO_FEW_TRIALS"))
    return tuple(CellPage(key=f"{b}/{o}", anchor=f"cell-{number}", rows=rows) for number, (b, o) in enumerate(pairs))


def test_the_matrix_leads_to_every_cell() -> None:
    html = page((matrix_card(),), all_cells())
    ids = re.findall(r'\bid="([^"]+)"', html)
    links = re.findall(r'href="#(cell-\d+)"', html)
    assert len(ids) == len(set(ids))
    assert sorted(links) == sorted(f"cell-{number}" for number in range(25))
    assert set(re.findall(r'href="#([^"]+)"', html)) <= set(ids)
    assert html.count('<details class="cell">') == 25
    first = html.index('href="#cell-1"')
    assert html[first : first + 30].startswith('href="#cell-1">1.0</a>')


def test_the_page_holds_no_markup_of_the_data() -> None:
    html = page((matrix_card(), NotApplicable(title="T", reason="<i>x</i>")), all_cells())
    assert html.count("<script") == html.count("</script") == 1
    assert "<b>±" not in html
    assert "<i>x" not in html
    assert "&lt;script&gt;alert(1)" in html
    assert "&lt;i&gt;x" in html
    assert "1 section does not apply" in html


def test_the_page_works_without_cells() -> None:
    html = page((matrix_card(),))
    assert '<details class="cell">' not in html
    assert 'href="#cells"' not in html
    assert html.count('href="#cell-') == 0


def test_the_script_builds_nothing_from_text_and_fetches_nothing() -> None:
    html = page(())
    script = html[html.index("<script>") : html.index("</script>")]
    for forbidden in (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "fetch(",
        "import",
        "http",
    ):
        assert forbidden not in script
    assert not re.search(r'(?:src|href)="(?!#|tables/)', html)


def test_a_page_lays_out_the_panels_of_a_figure_anew(tmp_path: Path) -> None:
    """Each panel is a picture of its own with all that it holds, the legend another; nothing is lost or told twice."""
    plot = profiles(SMALL)
    with figures.Drawing(tmp_path) as drawing:
        drawing.start([plot])
        parts = drawing.pictures()[plot.stem]
    assert len(parts) == 1 + len(SMALL.optimizers)
    for number, (part, name) in enumerate(zip(parts[1:], SMALL.optimizers, strict=True), start=1):
        assert f'id="{plot.stem}-p{number}"' in part
        assert f">{name}<" in part
        assert "learning rate<" in part
    assert "completed trial<" in parts[0]
    whole = (tmp_path / f"{plot.stem}.svg").read_text(encoding="utf-8")
    assert sum(part.count("<text") for part in parts) == whole.count("<text")
    assert sum(part.count("<path") for part in parts) == whole.count("<path") - 1, "all but the background"


def test_panels_fit_on_a_phone(tmp_path: Path) -> None:
    for make in (landscapes, profiles, isolation, curves, usable, tuning, coupling, variance, winners, reach):
        widths = [float(width) for width in re.findall(r'<svg [^>]*?width="(\d+)"', render(make(SMALL), tmp_path))]
        assert max(widths) <= 375


def vertices(path: str) -> list[tuple[float, float]]:
    """Read the corners of a path of lines that `_steps` wrote."""
    numbers = [float(number) for number in re.findall(r"-?\d*\.?\d+", path)]
    steps = np.array(numbers).reshape(-1, 2)
    return [(float(x), float(y)) for x, y in np.cumsum(steps, axis=0)]


@pytest.mark.parametrize("kind", ["stairs", "smooth", "noise"])
def test_a_short_path_is_the_long_one(kind: str) -> None:
    """What is left out lies within a tenth of a point of the lines that are left; marks are never left out."""
    rng = np.random.default_rng(0)
    x = np.linspace(0, 120, 60)
    y = {
        "stairs": np.repeat(rng.normal(0, 20, 12), 5),
        "smooth": 30 * np.sin(x / 40),
        "noise": rng.normal(0, 20, 60),
    }[kind]
    path = "M " + " L ".join(f"{a:.4f} {b:.4f}" for a, b in zip(x, y, strict=True))
    every, few = (vertices(svg._steps(path, thin=thin)) for thin in (False, True))
    np.testing.assert_allclose(every, np.stack([x, y], axis=1), atol=0.051)
    assert len(few) <= {"stairs": 24, "smooth": 20, "noise": 60}[kind]
    for place in every:
        assert min(svg._distance(place, *ends) for ends in pairwise(few)) < 0.11
