"""Figures of fitted cells: the surface, the profile over learning rate, each hyper-parameter alone, variance shares."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bocb_tune.analysis.cell.marginals import Marginals, with_interval
from bocb_tune.analysis.cell.sensitivity import EPSILON
from bocb_tune.analysis.core.arrays import Array
from bocb_tune.analysis.core.estimate import points
from bocb_tune.analysis.landscape.fit import Landscape
from bocb_tune.analysis.landscape.trials import CellTrials
from bocb_tune.analysis.report.plots.values import (
    Band,
    FittedSurface,
    Isolation,
    IsolationPanel,
    ProfilePanel,
    Profiles,
    TrialDots,
    VariancePanel,
    VarianceSplit,
)
from bocb_tune.analysis.tuning.settings import best_setting

Cells = Mapping[str, tuple[CellTrials, Landscape | None]]
"""The searched cells of one backbone, by optimizer, in the order of their panels; None where there is no model."""


def fitted_surface(cell: Landscape, epsilon: float = EPSILON) -> FittedSurface:
    """Return the mean surface, its near-optimal region and its best point."""
    grid, (row, column) = cell.grid, cell.best_node
    return FittedSurface(
        u=grid.u,
        v=grid.v[: grid.num_decay],
        score=cell.mean[:, : grid.num_decay],
        zero=cell.mean[:, -1] if grid.has_zero else None,
        level=float(cell.mean[row, column]) - epsilon,
        best=best_setting(cell),
    )


def lr_profiles(number: int, backbone: str, cells: Cells, unit: str, epsilon: float = EPSILON) -> Profiles:
    """Show the expected score over learning rate at the best weight decay for each, and the divergence there.

    Args:
        number: of the backbone, for the file's name.
        backbone: name.
        cells: searched cells of the backbone.
        unit: of the score, as on the axis.
        epsilon: tolerance, points.
    """
    return Profiles(
        stem=f"profile-{number:02d}",
        title=backbone,
        caption="Line: expected score at full budget, weight decay being the best for each learning rate; band: 95 %. "
        f"Grey bar: learning rates within {points(epsilon)} of the best. Dots: last score of each trial, hollow if it "
        "was stopped before its full budget. Below: probability of diverging; crosses: trials that did. A cell without "
        "a line has no model of its landscape.",
        panels=tuple(_profile(name, trials, cell, epsilon) for name, (trials, cell) in cells.items()),
        unit=unit,
        epsilon=epsilon,
    )


def isolation(
    number: int, backbone: str, cells: Mapping[str, tuple[CellTrials, Marginals | None]], unit: str
) -> Isolation:
    """Show all trials against learning rate alone and weight decay alone (Sivaprasad et al. 2020, arXiv:1910.11758).

    Args:
        number: of the backbone, for the file's name.
        backbone: name.
        cells: searched cells of the backbone, by optimizer, in the order of their panels.
        unit: of the score, as on the axis.
    """
    return Isolation(
        stem=f"isolation-{number:02d}",
        title=backbone,
        caption="Last score of every trial against one hyper-parameter, whatever the other; hollow: stopped before its "
        "full budget. Line: mean of the model over the other hyper-parameter as trials are drawn; band: 95 %. Weight "
        "decay 0 stands apart at the left.",
        panels=tuple(_isolated(name, *cell) for name, cell in cells.items()),
        unit=unit,
    )


def variance_split(
    number: int, backbone: str, optimizers: tuple[str, ...], whole: Array, better_half: Array
) -> VarianceSplit:
    """Show the functional analysis of variance of each cell (Hutter et al. 2014).

    Args:
        number: of the backbone, for the file's name.
        backbone: name.
        optimizers: names.
        whole, better_half: shares of variance [optimizers, 2] due to lr alone and to weight decay alone over the whole
            search space and over its better half, in [0, 1], NaN where refused; the rest is their interaction.
    """
    regions = (("whole search space", whole), ("better half of it", better_half))
    return VarianceSplit(
        stem=f"variance-{number:02d}",
        title=backbone,
        caption="Share of the variance of the score over the search space that is due to learning rate alone, weight "
        "decay alone, and the two together. A region where much diverges swamps the rest, hence the better half.",
        optimizers=optimizers,
        panels=tuple(
            VariancePanel(title=title, shares=np.column_stack([shares, 1 - shares.sum(axis=1)]))
            for title, shares in regions
        ),
    )


def _profile(name: str, trials: CellTrials, cell: Landscape | None, epsilon: float) -> ProfilePanel:
    """Make the panel of one cell, its band at the weight decays of the mean's profile: a draw's best is biased."""
    dots = _dots(np.log10(trials.lr), trials)
    if cell is None:
        return ProfilePanel(title=name, trials=dots)
    best = cell.mean.argmax(axis=1)
    rows = np.arange(len(best))
    row, column = cell.best_node
    return ProfilePanel(
        title=name,
        score=_band(cell.grid.u, with_interval(cell.mean[rows, best], cell.surfaces.at(rows, best))),
        divergence=cell.divergence[rows, best],
        trials=dots,
        best=float(cell.grid.u[row]),
        level=float(cell.mean[row, column]) - epsilon,
    )


def _isolated(name: str, trials: CellTrials, alone: Marginals | None) -> IsolationPanel:
    drawn = trials.weight_decay
    positive = np.log10(drawn[drawn > 0])
    if alone is not None:
        low = alone.grid.domain.decay_ends[0]
    else:
        low = float(positive.min()) if positive.size else -4.0
    zero_at = low - 0.8
    lr_dots = _dots(np.log10(trials.lr), trials)
    decay_dots = _dots(np.where(drawn > 0, np.log10(np.where(drawn > 0, drawn, 1.0)), zero_at), trials)
    if alone is None:
        return IsolationPanel(title=name, lr_trials=lr_dots, decay_trials=decay_dots, zero_at=zero_at)
    grid, inside = alone.grid, slice(None, alone.grid.num_decay)
    return IsolationPanel(
        title=name,
        lr=_band(grid.u, alone.lr),
        lr_trials=lr_dots,
        decay=_band(grid.v[inside], alone.decay[:, inside]),
        decay_trials=decay_dots,
        zero=alone.decay[:, -1] if grid.has_zero else None,
        zero_at=zero_at,
    )


def _band(x: Array, curve: Array) -> Band:
    return Band(x=x, value=curve[0], lo=curve[1], hi=curve[2])


def _dots(x: Array, trials: CellTrials) -> TrialDots:
    score = np.where(trials.diverged, np.nan, trials.last)
    return TrialDots(x=x, score=score, completed=trials.completed, diverged=trials.diverged)
