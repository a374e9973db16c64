"""Tunability: the gain of tuning an optimizer for each backbone over one setting for all, and the dimensions it takes.

Settings are chosen on mean surfaces and scored on the draws: the best of each draw would be biased upwards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from bocb_tune.analysis.cell.sensitivity import EPSILON
from bocb_tune.analysis.core import bootstrap as drawn
from bocb_tune.analysis.core.arrays import Array
from bocb_tune.analysis.core.bootstrap import Refused
from bocb_tune.analysis.core.estimate import Estimate, Reason
from bocb_tune.analysis.landscape.fit import Landscape
from bocb_tune.analysis.tuning.settings import (
    Cells,
    Setting,
    at_node,
    best_setting,
    common_default,
    draws_at,
    score_at,
    without_common_ground,
)

MIN_BACKBONES = 3
REACHED = 0.95
"""Share of the tuned score that counts as reached."""
METHOD = "settings from mean surfaces, bootstrap over backbones and draws"

Tuned = tuple[str, ...]
"""Names of the hyper-parameters that are tuned for each backbone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tunability:
    """Gain of tuning over a default setting (Probst et al. 2019, arXiv:1802.09596)."""

    backbones: tuple[str, ...]
    default: tuple[Setting, ...]
    """Default by backbone; identical for all backbones unless computed leave-one-out."""
    gain: tuple[Estimate, ...]
    """Gain by backbone, points: score of the tuned setting minus score of the default."""
    gain_lr: tuple[float, ...]
    """Gain by backbone, points, from tuning lr alone, weight decay at the default."""
    gain_decay: tuple[float, ...]
    """Gain by backbone, points, from tuning weight decay alone, lr at the default."""
    gain_joint: tuple[float, ...]
    """Gain by backbone, points, that only tuning both brings."""
    mean: Estimate
    """Mean over backbones, points, lower is better. For the best common default this is Phi of Adkins et al. 2024 as
    well."""
    median: Estimate
    worst: Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class Dimension:
    """Effective dimension (Adkins et al. 2024, arXiv:2412.07165): the fewest hyper-parameters to tune for each
    backbone, the others staying at the best common setting."""

    by_share: Tuned
    """Hyper-parameters that suffice for 95 % of the tuned score, counted from the floor."""
    by_regret: Tuned
    """Hyper-parameters that suffice for a mean regret below the tolerance, which is stricter."""


def tunability(
    cells: Cells, defaults: Callable[[Cells], Mapping[str, Setting]], rng: np.random.Generator
) -> Tunability | Refused:
    """Compute the tunability of one optimizer.

    Args:
        cells: landscapes by backbone.
        defaults: gives the default for each backbone: `held_out_defaults`, `common_defaults`, or the published
            setting.
        rng: of the bootstrap.
    """
    if refused := without_common_ground(cells, MIN_BACKBONES):
        return refused
    default = defaults(cells)
    pairs = [(cell, default[name]) for name, cell in cells.items()]
    scores = np.stack([draws_at(cell, [best_setting(cell), setting]) for cell, setting in pairs], axis=1)
    if np.isnan(scores).any():
        detail = f"the default lies outside the range searched: {next(iter(default.values()))}"
        return Refused(reason=Reason.NO_SHARED_SUPPORT, detail=detail)
    gain = scores[..., 0] - scores[..., 1]
    alone = np.array([tuned_alone(cell, setting) for cell, setting in pairs]) - scores[0, :, 1:]
    counts = [cell.counts for cell in cells.values()]
    replicates = _resampled(gain[1:], rng)
    mean, median, worst = (
        drawn.estimate(
            float(average(gain[0])),
            average(replicates, axis=1),
            unit="points",
            counts=drawn.add_counts(counts),
            method=METHOD,
        )
        for average in (np.mean, np.median, np.max)
    )
    return Tunability(
        backbones=tuple(cells),
        default=tuple(setting for _, setting in pairs),
        gain=tuple(
            drawn.estimate(values[0], values[1:], unit="points", counts=each, method=METHOD)
            for values, each in zip(gain.T, counts, strict=True)
        ),
        gain_lr=tuple(alone[:, 0].tolist()),
        gain_decay=tuple(alone[:, 1].tolist()),
        gain_joint=tuple((gain[0] - alone.max(axis=1)).tolist()),
        mean=mean,
        median=median,
        worst=worst,
    )


def effective_dimension(
    cells: Cells, tuned_best: Mapping[str, float], tolerance: float = EPSILON
) -> Dimension | Refused:
    """Compute the effective dimension of one optimizer.

    Args:
        cells: landscapes by backbone.
        tuned_best: best tuned score of any optimizer by backbone: 1 on the scale whose 0 is the floor.
        tolerance: points within which settings count as equally good.
    """
    if refused := without_common_ground(cells, MIN_BACKBONES):
        return refused
    setting = common_default(cells)
    alone = np.array([tuned_alone(cell, setting) for cell in cells.values()])
    choices: dict[Tuned, Array] = {
        (): np.array([score_at(cell.mean, cell.grid, [setting])[0] for cell in cells.values()]),
        ("lr",): alone[:, 0],
        ("weight_decay",): alone[:, 1],
        ("lr", "weight_decay"): np.array([cell.mean[cell.best_node] for cell in cells.values()]),
    }
    floor = np.array([cell.floor for cell in cells.values()])
    height = np.array([tuned_best[name] for name in cells]) - floor
    tuned = choices["lr", "weight_decay"]
    enough = REACHED * np.mean((tuned - floor) / height)
    return Dimension(
        by_share=_fewest(choices, lambda score: bool(np.mean((score - floor) / height) >= enough)),
        by_regret=_fewest(choices, lambda score: bool(np.mean(tuned - score) < tolerance - 1e-9)),
    )


def tuned_alone(cell: Landscape, default: Setting) -> tuple[float, float]:
    """Find the best mean score over lr at the default weight decay, and over weight decay at the default lr."""
    grid = cell.grid
    lrs = [Setting(at_node(grid, row, 0).lr, default.weight_decay) for row in range(grid.num_lr)]
    decays = [Setting(default.lr, at_node(grid, 0, column).weight_decay) for column in range(grid.shape[1])]
    lr, decay = (float(score_at(cell.mean, grid, [*line, default]).max()) for line in (lrs, decays))
    return lr, decay


def _fewest(choices: Mapping[Tuned, Array], is_enough: Callable[[Array], bool]) -> Tuned:
    return min((tuned for tuned, score in choices.items() if is_enough(score)), key=len)


def _resampled(values: Array, rng: np.random.Generator) -> Array:
    """Resample backbones with replacement, each with its own draw [replicates, backbones], from [draws, backbones]."""
    picked = drawn.pick_draws(values[..., None], rng)[..., 0]
    return np.take_along_axis(picked, rng.integers(picked.shape[1], size=picked.shape), axis=1)
