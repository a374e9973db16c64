"""Content of each figure, as values; `drawing/` only draws them.

Learning rates and weight decays on an axis are u = log10 lr and v = log10 weight decay; unknown values are NaN.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from bocb_tune.analysis.core.arrays import Array, Flags
from bocb_tune.analysis.core.estimate import Estimate, Reason
from bocb_tune.analysis.tuning.settings import Setting
from bocb_tune.core.types import Objective

FEW_COLUMNS = 5
"""Most columns of a heatmap that is drawn as narrow as a phone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """Base of all figures."""

    stem: str
    """File name without the ending; never made from users' names."""
    title: str
    caption: str
    """Explanation of how to read it."""
    alt: str = ""
    """Its content in words, for those who do not see it."""

    @property
    def alternative(self) -> str:
        """Text alternative of the figure."""
        return f"{self.title}. {self.alt or self.caption}"

    @property
    def is_wide(self) -> bool:
        """Whether it needs the whole width of a page."""
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Intervals:
    """Numbers with their intervals, NaN where refused."""

    value: Array
    """[rows]"""
    lo: Array
    hi: Array
    at_least: Flags
    """Whether the value is only a lower bound."""
    why: tuple[str, ...]
    """Reason for each refused row, in words; empty for the others."""

    @classmethod
    def of(cls, estimates: Iterable[Estimate]) -> Intervals:
        rows = list(estimates)
        value, lo, hi = (np.array([getattr(row, name) for row in rows], dtype=float) for name in ("value", "lo", "hi"))
        bound = (Reason.OPTIMUM_AT_EDGE, Reason.NO_DIVERGENCE)
        return cls(
            value=value,
            lo=lo,
            hi=hi,
            at_least=np.array([row.value is not None and row.reason in bound for row in rows], dtype=bool),
            why=tuple(row.reason.sentence if row.value is None and row.reason else "" for row in rows),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Heatmap(Plot):
    """A matrix of numbers."""

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: Array
    """[rows, columns], NaN where there is none."""
    unit: str
    signed: bool
    """Whether zero is the middle of the scale."""
    row_groups: tuple[str, ...] = ()
    """Group of each row; rows of one group stand together. Empty: no groups."""
    column_groups: tuple[str, ...] = ()
    faint: Flags | None = None
    """[rows, columns], cells whose interval includes zero."""
    failed: Flags | None = None
    """[rows, columns], cells that are marked as failed and not coloured."""
    numbered: bool = True
    """Whether each cell has its number."""
    metric: Objective | None = None
    """Metric whose values label the colour scale; None to label scores as they are."""

    @property
    def is_wide(self) -> bool:
        """Whether its columns are too many for a third of a page."""
        return len(self.columns) > FEW_COLUMNS


@dataclass(frozen=True, slots=True, kw_only=True)
class Strip(Plot):
    """One row per optimizer, one marker and colour per backbone."""

    optimizers: tuple[str, ...]
    backbones: tuple[str, ...]
    values: Array
    """[backbones, optimizers]"""
    summary: Array
    """[optimizers], position of the bar in each row."""
    axis: str
    lo: Array | None = None
    """[backbones, optimizers]"""
    hi: Array | None = None
    from_zero: bool = False
    """Whether zero is a reference to show."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedSurface:
    """The expected score of one cell over its search space."""

    u: Array
    """[lr]"""
    v: Array
    """[decay], positive weight decays"""
    score: Array
    """[lr, decay]"""
    zero: Array | None
    """[lr] at weight decay 0, where that is a choice."""
    level: float
    """Score from which a setting counts as good as the best."""
    best: Setting
    """Setting of the best point."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LandscapePanel:
    """The trials of one cell over learning rate and weight decay, and the surface fitted to them."""

    title: str
    lr: Array
    """[trials]"""
    weight_decay: Array
    """[trials], zero included."""
    score: Array
    """[trials], in the objective's unit"""
    progress: Array
    """[trials], share of the full budget reached."""
    status: tuple[str, ...]
    is_default: Flags
    is_best: Flags
    box: tuple[tuple[float, float], tuple[float, float]] | None
    """Bounds of u and of v, where the search space is known."""
    zero_is_choice: bool
    fit: FittedSurface | None = None
    note: str = ""
    """Reason for there being no fit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Landscapes(Plot):
    """Landscapes of one backbone, one panel per optimizer."""

    panels: tuple[LandscapePanel, ...]
    unit: str
    epsilon: float = 1.0
    """Points within which a score counts as good as the best."""
    metric: Objective | None = None
    """Metric whose values label the colour scale; None to label scores as they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialDots:
    """Last score of each trial of a cell at its value of one hyper-parameter; diverged ones have none."""

    x: Array
    """[trials], log10"""
    score: Array
    """[trials]"""
    completed: Flags
    diverged: Flags


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """A curve and its interval."""

    x: Array
    """[nodes]"""
    value: Array
    lo: Array
    hi: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfilePanel:
    """Expected score of one cell over learning rate, at the best weight decay for each; or only its trials."""

    title: str
    trials: TrialDots
    score: Band | None = None
    divergence: Array | None = None
    """[nodes], probability of diverging along the profile."""
    best: float = math.nan
    """log10 of the best learning rate."""
    level: float = math.nan
    """Score from which a setting counts as good as the best."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profiles(Plot):
    """Profiles of one backbone, one panel per optimizer."""

    panels: tuple[ProfilePanel, ...]
    unit: str
    epsilon: float
    """Points within which a score counts as good as the best."""
    metric: Objective | None = None
    """Metric whose values label the axis; None to label scores as they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IsolationPanel:
    """Score of one cell against each hyper-parameter alone."""

    title: str
    lr_trials: TrialDots
    decay_trials: TrialDots
    """Trials by weight decay; 0 is placed at `zero_at`."""
    zero_at: float
    lr: Band | None = None
    """Mean over the distribution of weight decay; None without a model."""
    decay: Band | None = None
    """Mean over learning rate, at positive weight decays."""
    zero: Array | None = None
    """Value, lower and upper end of the mean at weight decay 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Isolation(Plot):
    """Scores of one backbone against each hyper-parameter alone, one pair of panels per optimizer."""

    panels: tuple[IsolationPanel, ...]
    unit: str
    metric: Objective | None = None
    """Metric whose values label the axis; None to label scores as they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """Score of one trial by budget."""

    budget: Array
    score: Array
    status: str
    is_best: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvePanel:
    """The curves of one cell."""

    title: str
    curves: tuple[Curve, ...]
    rungs: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Curves(Plot):
    """Learning curves of one backbone, one panel per optimizer."""

    panels: tuple[CurvePanel, ...]
    unit: str
    metric: Objective | None = None
    """Metric whose values label the axis; None to label scores as they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TuningPanel:
    """Expected best score of one backbone by number of trials."""

    title: str
    n: Array
    """[budgets]"""
    value: Array
    """[optimizers, budgets]"""
    lo: Array
    hi: Array
    observed: Array
    """Curve of the trials themselves, NaN where they give none."""
    found: Array
    """[optimizers, 2], trials and score of the search of each cell that has no model; NaN for the others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TuningCurves(Plot):
    """Tuning curves, one panel per backbone and one line per optimizer."""

    optimizers: tuple[str, ...]
    panels: tuple[TuningPanel, ...]
    unit: str
    metric: Objective | None = None
    """Metric whose values label the axis; None to label scores as they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ForestPanel:
    """One quantity of each optimizer."""

    title: str
    ranges: Intervals
    """[optimizers]"""
    axis: str
    notes: tuple[str, ...] = ()
    """Notes beside each row, such as the backbone concerned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forest(Plot):
    """Interval bars, one row per optimizer."""

    optimizers: tuple[str, ...]
    panels: tuple[ForestPanel, ...]
    one_scale: bool
    """Whether all panels show the same quantity."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VariancePanel:
    """Shares of variance of each optimizer's landscape."""

    title: str
    shares: Array
    """[optimizers, 3], of lr alone, weight decay alone and both together, summing to 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VarianceSplit(Plot):
    """One panel per region of the search space, one bar per optimizer."""

    optimizers: tuple[str, ...]
    panels: tuple[VariancePanel, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CouplingPanel:
    """Failures against coupling among viable cells, of all backbones or of all optimizers."""

    title: str
    names: tuple[str, ...]
    failures: Array
    """[names], cells that fail"""
    coupling: Intervals
    """[names]"""
    are_backbones: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CouplingScatter(Plot):
    """Backbones and optimizers side by side."""

    panels: tuple[CouplingPanel, ...]
    unit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CriticalDifference(Plot):
    """Mean ranks on an axis."""

    optimizers: tuple[str, ...]
    """Optimizers, best first."""
    mean_ranks: Array
    """[optimizers]"""
    difference: float
    """Difference of mean ranks below which two optimizers do not differ significantly."""
    ties: tuple[tuple[int, int], ...]
    """First and last optimizer of each longest run within the critical difference."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferPanel:
    """Loss from reusing the best setting of one backbone on another, with one optimizer."""

    title: str
    regret: Array
    """[from, to], points; NaN where the setting lies outside the range searched there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferPanels(Plot):
    """Transfer between backbones, one panel per optimizer."""

    backbones: tuple[str, ...]
    panels: tuple[TransferPanel, ...]
    unit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Winners(Plot):
    """Scores of all optimizers, one row per backbone, the best of each named."""

    backbones: tuple[str, ...]
    optimizers: tuple[str, ...]
    value: Array
    """[backbones, optimizers], points; NaN where there is none."""
    lo: Array
    hi: Array
    best: tuple[int, ...]
    """Index of the best optimizer of each backbone, -1 where there is none."""
    tied: Flags
    """[backbones, optimizers], not significantly worse than the best, or within the tolerance of it."""
    failed: Flags
    """[backbones, optimizers]"""
    unit: str
    metric: Objective | None = None
    """Metric whose values label the axis; None to label scores as they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReachScatter(Plot):
    """Tolerance to a wrong learning rate against distance from the backbone's best score, one point per cell."""

    backbones: tuple[str, ...]
    """[cells]"""
    optimizers: tuple[str, ...]
    """[cells]"""
    behind: Array
    """[cells], points below the best of the backbone."""
    decades: Intervals
    """[cells]"""
    tolerance: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkedTable(Plot):
    """A grid of scores with its best cells and its failures marked, as a table."""

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: Array
    """[rows, columns], points, NaN where there is none."""
    top: Flags
    """[rows, columns], among the best four of the column."""
    failed: Flags
    """[rows, columns]"""
    foot: tuple[tuple[str, tuple[str, ...]], ...]
    """Name of each line below the table, and its texts [columns]."""
    row_groups: tuple[str, ...] = ()
    column_groups: tuple[str, ...] = ()
    metric: Objective | None = None
    """Metric that the scores are named by; None: as they are."""

    @property
    def is_wide(self) -> bool:
        """Whether its columns are too many for a third of a page."""
        return len(self.columns) > FEW_COLUMNS


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples(Plot):
    """Distributions of the numbers of each name."""

    names: tuple[str, ...]
    samples: tuple[Array, ...]
    """Known numbers of each name."""
    axis: str
    are_backbones: bool
    as_violins: bool
    """Whether the shape of each distribution is drawn, or its quartiles."""
    metric: Objective | None = None
    """Metric that the scores are named by; None: as they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CostScatter(Plot):
    """Mean score of each optimizer against what it costs."""

    optimizers: tuple[str, ...]
    score: Array
    """[optimizers], points"""
    cost: Array
    """[optimizers]"""
    front: Flags
    """[optimizers], beaten by no other."""
    axis: str
    unit: str
    metric: Objective | None = None
    """Metric that the scores are named by; None: as they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ridge:
    """A pattern of one model over its layers."""

    name: str
    """Optimizer, or what else it is."""
    depth: Array
    """[layers], places in [0, 1]."""
    value: Array
    """[layers]"""
    is_start: bool = False
    """Whether it is of the weights before training."""
    failed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RidgePanel:
    """One pattern of all optimizers of a backbone, best score first."""

    title: str
    ridges: tuple[Ridge, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ridges(Plot):
    """One panel a pattern, one ridge an optimizer."""

    panels: tuple[RidgePanel, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BarPanel:
    """One number of each optimizer on a backbone."""

    title: str
    value: Array
    """[optimizers], NaN where there is none."""
    lo: Array
    hi: Array
    failed: Flags
    """[optimizers]"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bars(Plot):
    """One panel per backbone, one bar per optimizer."""

    optimizers: tuple[str, ...]
    panels: tuple[BarPanel, ...]
    axis: str
    thresholds: tuple[float, ...]
    """Values that lines are drawn at."""
