"""Sensitivity of one cell to its hyper-parameters: every number derived from its landscape, with interval or refusal.

The value is the functional of the mean surface, the interval the quantiles of the functional over the draws. Notation:
u = log10 lr, v = log10 weight decay, e = expected score.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
from scipy.special import expit, logit

from bocb_tune.analysis.core import bootstrap as drawn
from bocb_tune.analysis.core.arrays import Array, Flags
from bocb_tune.analysis.core.estimate import Estimate, Reason
from bocb_tune.analysis.landscape import surface
from bocb_tune.analysis.landscape.fit import Landscape

EPSILON = 1.0
"""Points within which a setting counts as good as the best."""
EDGE_SHARE, EDGE_PROBABILITY, LIKELY_EDGE = 0.05, 0.25, 0.5
"""The optimum may lie at an edge if the best point is within the first share of the range of an end, in the second
share of the draws. It does lie at an edge if it is near one and the same in the third share of the draws."""
WINDOW_DECADES = 3.0
NOISE_SDS = 2.0
"""Standard deviations of a trial's score that a tolerance must exceed, since smaller differences cannot be resolved."""
STOPPED_SPREAD = 1.3
"""Factor of the spread of scores and losses in points over draws where trials were stopped early: what those would have
come to is extrapolated by one model (compared on real landscapes in docs/LOG.md)."""
MIN_NODES, MAX_INDEFINITE = 12, 0.25
MIN_DIVERGED, MIN_NOT_DIVERGED = 3, 10
ROUND_BELOW = 1.5
"""Ratio of curvatures below which the optimum has no direction."""
METHOD = "joint model of all rungs, quantiles of draws"


def lr_star(cell: Landscape) -> Estimate:
    """Find the best learning rate."""
    row, _ = cell.best_node
    axis = cell.grid.u
    peak = _refined_peak(surface.lr_profile(cell.mean), axis, row)
    half = (axis[1] - axis[0]) / 2
    draws = axis[cell.peaks[0]]
    lo, hi = drawn.ends(draws)
    lo, hi = max(min(lo, peak) - half, axis[0]), min(max(hi, peak) + half, axis[-1])
    return _known(cell, 10**peak, (10**lo, 10**hi), "lr")


def wd_star(cell: Landscape) -> Estimate:
    """Find the best weight decay, 0 where that is best."""
    if cell.grid.domain.weight_decay is None:
        return _refused(cell, Reason.NOT_SEARCHED, "weight decay was not varied")
    grid, (_, column) = cell.grid, cell.best_node
    columns = cell.peaks[1]
    values = np.append(10 ** grid.v[: grid.num_decay], 0.0)
    draws = values[np.minimum(columns, grid.num_decay)]
    return _known(cell, float(values[min(column, grid.num_decay)]), _nearest(draws), "weight decay")


def zero_decay_probability(cell: Landscape) -> Estimate:
    """Compute the probability that weight decay 0 is best."""
    if not cell.grid.has_zero:
        return _refused(cell, Reason.PRIOR_MISMATCH, "weight decay 0 was not a choice")
    share = float(np.mean(cell.peaks[1] == cell.grid.num_decay))
    return replace(_known(cell, share, (None, None), ""), method="share of draws")


def best_score(cell: Landscape) -> Estimate:
    """Compute the expected score at the best point, the same for all draws: each draw's own best is biased upwards."""
    row, column = cell.best_node
    draws = np.clip(spread(cell, cell.draws[:, row, column]), cell.floor, cell.top)
    return _known(cell, float(cell.mean[row, column]), drawn.ends(draws), "points")


def spread(cell: Landscape, draws: Array) -> Array:
    """Move draws away from their mean where trials were stopped early."""
    if not cell.counts.n_stopped:
        return draws
    middle = draws.mean()
    return np.asarray(middle + STOPPED_SPREAD * (draws - middle))


def near_optimal_volume(cell: Landscape, epsilon: float = EPSILON) -> Estimate:
    """Compute the share of the search space within epsilon of the best, in [0, 1]; higher is more robust."""
    if _below_noise(cell, epsilon):
        return _refused(cell, Reason.EPS_BELOW_NOISE)
    return _functional(cell, lambda e: surface.near_optimal_volume(e, cell.grid, epsilon, cell.mean), "", 1.0)


def random_trials_needed(cell: Landscape, epsilon: float = EPSILON) -> Estimate:
    """Compute the trials of random search that land within epsilon of the best with a probability of 90 %."""
    volume = near_optimal_volume(cell, epsilon)
    if volume.value is None or volume.lo is None or volume.hi is None:
        return replace(volume, unit="trials")
    return replace(volume, value=n90(volume.value), lo=n90(volume.hi), hi=n90(volume.lo), unit="trials")


def n90(volume: float) -> float:
    """Compute the smallest n with 1 - (1 - volume)^n >= 0.9."""
    if volume <= 0:
        return float("inf")
    return 1.0 if volume >= 0.9 else float(np.ceil(np.log(0.1) / np.log1p(-volume)))


def usable_decades_lr(cell: Landscape, epsilon: float = EPSILON) -> Estimate:
    """Measure the decades of learning rate within epsilon of the best, at the best weight decay."""
    return _decades(cell, _lr_slice(cell), cell.grid.u, epsilon)


def usable_decades_lr_profile(cell: Landscape, epsilon: float = EPSILON) -> Estimate:
    """Measure the same with weight decay tuned anew for each learning rate."""
    return _decades(cell, surface.lr_profile, cell.grid.u, epsilon)


def usable_decades_wd(cell: Landscape, epsilon: float = EPSILON) -> Estimate:
    """Measure the decades of weight decay within epsilon of the best positive one, at the best learning rate."""
    grid = cell.grid
    if grid.domain.weight_decay is None:
        return _refused(cell, Reason.NOT_SEARCHED, "weight decay was not varied")
    line = partial(surface.decay_slice, best_on=cell.mean, grid=grid)
    return _decades(cell, line, grid.v[: grid.num_decay], epsilon)


def usable_decades_wd_profile(cell: Landscape, epsilon: float = EPSILON) -> Estimate:
    """Measure the same with the learning rate tuned anew for each weight decay."""
    grid = cell.grid
    if grid.domain.weight_decay is None:
        return _refused(cell, Reason.NOT_SEARCHED, "weight decay was not varied")
    return _decades(cell, lambda e: surface.decay_profile(e, grid), grid.v[: grid.num_decay], epsilon)


def curvature_lr(cell: Landscape) -> Estimate:
    """Compute H_uu, in points per decade squared; low is flat."""
    return _curvature(cell, lambda h: h[:, 0, 0], "points/decade^2")


def curvature_wd(cell: Landscape) -> Estimate:
    """Compute H_vv, in points per decade squared; low is flat."""
    return _curvature(cell, lambda h: h[:, 1, 1], "points/decade^2")


def curvature_correlation(cell: Landscape) -> Estimate:
    """Compute H_uv / sqrt(H_uu H_vv) in (-1, 1): positive where lr and weight decay trade off as a product."""
    return _curvature(cell, lambda h: h[:, 0, 1] / np.sqrt(np.maximum(h[:, 0, 0] * h[:, 1, 1], 1e-300)), "")


def anisotropy(cell: Landscape) -> Estimate:
    """Compute the ratio of the largest to the smallest curvature, at least 1."""
    return _curvature(cell, _ratio, "")


def orientation(cell: Landscape) -> Estimate:
    """Compute the direction of the flat axis in degrees from the lr axis, modulo 180.

    135 means that lr * wd is constant along it, 45 that lr / wd is.
    """
    ratio = anisotropy(cell)
    if ratio.value is None:
        return replace(ratio, unit="degrees")
    assert ratio.lo is not None
    if ratio.lo <= ROUND_BELOW:
        return replace(_refused(cell, Reason.ISOTROPIC), unit="degrees")
    return _curvature(cell, flat_direction, "degrees", circular=180.0)


def flat_direction(hessian: Array) -> Array:
    """Compute the angle [...] of the eigenvector of the smallest curvature of [..., 2, 2], in degrees in [0, 180)."""
    _, vectors = np.linalg.eigh(hessian)
    flat = vectors[..., :, 0]
    return np.asarray(np.degrees(np.arctan2(flat[..., 1], flat[..., 0])) % 180)


def edge_probability(cell: Landscape) -> Estimate:
    """Compute the probability that the best point lies within 5 % of an edge of the search space."""
    return replace(_known(cell, _edge_share(cell), (None, None), ""), method="share of draws")


def divergence_margin(cell: Landscape) -> Estimate:
    """Measure the decades from the best learning rate to the one at which half of the trials diverge."""
    return _margin(cell, 0.0)


def divergence_margin_10(cell: Landscape) -> Estimate:
    """Measure the decades from the best learning rate to the one at which a tenth of the trials diverge."""
    return _margin(cell, float(logit(0.1)))


def diverging_share(cell: Landscape) -> Estimate:
    """Compute the share of the search space that diverges, in [0, 1]."""
    value = float(surface.mean(cell.divergence, cell.grid))
    return replace(_known(cell, value, (None, None), ""), method="posterior mean of the line of divergence")


def lr_sensitivity(cell: Landscape) -> Estimate:
    """Compute the mean loss in points over log-uniform learning rates of the search space, at the best weight decay.

    Wortsman et al. 2023, arXiv:2309.14322, section 2.2, for a score: best minus mean of max(score, floor).
    """
    axis, line = cell.grid.u, _lr_slice(cell)
    return _loss(cell, lambda e: surface.line_sensitivity(line(e), axis, cell.floor))


def lr_sensitivity_window(cell: Landscape) -> Estimate:
    """Compute the same over three decades centred on the best learning rate, so that unlike ranges compare."""
    axis = cell.grid.u
    centre = axis[cell.best_node[0]]
    window = (centre - WINDOW_DECADES / 2, centre + WINDOW_DECADES / 2)
    if window[0] < axis[0] - 1e-9 or window[1] > axis[-1] + 1e-9:
        return _refused(cell, Reason.NO_SHARED_SUPPORT, "the window of 3 decades leaves the range searched")
    line = _lr_slice(cell)
    return _loss(cell, lambda e: surface.line_sensitivity(line(e), axis, cell.floor, window))


def prior_mean_regret(cell: Landscape) -> Estimate:
    """Compute the loss of a random setting of the search space against the best one, in points; lower is easier."""
    return _loss(cell, lambda e: surface.prior_mean_regret(e, cell.grid))


def lr_variance_share(cell: Landscape) -> Estimate:
    """Compute the share of the score's variance over the search space that is due to lr alone (functional ANOVA)."""
    return _variance_share(cell, 1, None)


def wd_variance_share(cell: Landscape) -> Estimate:
    """Compute the share due to weight decay alone, its jump at 0 included."""
    return _variance_share(cell, 2, None)


def lr_variance_share_top(cell: Landscape) -> Estimate:
    """Compute the share due to lr within the better half of the search space: a cliff swamps everything else."""
    return _variance_share(cell, 1, _better_half(cell))


def wd_variance_share_top(cell: Landscape) -> Estimate:
    """Compute the share due to weight decay within the better half of the search space."""
    return _variance_share(cell, 2, _better_half(cell))


def _known(cell: Landscape, value: float, interval: tuple[float | None, float | None], unit: str) -> Estimate:
    lo, hi = interval
    return Estimate(value=value, lo=lo, hi=hi, level=drawn.LEVEL, unit=unit, counts=cell.counts, method=METHOD)


def _refused(cell: Landscape, reason: Reason, method: str = METHOD) -> Estimate:
    return Estimate(value=None, counts=cell.counts, method=method, reason=reason)


def _nearest(draws: Array) -> tuple[float, float]:
    """Find the ends of the interval among the draws themselves, for values between which there is nothing."""
    lo, hi = np.quantile(draws, [(1 - drawn.LEVEL) / 2, (1 + drawn.LEVEL) / 2], method="nearest")
    return float(lo), float(hi)


def _functional(cell: Landscape, function: Callable[[Array], Array], unit: str, most: float = math.inf) -> Estimate:
    """Average the functional of the mean surface and its mean over the draws; the interval is moved accordingly.

    Draws are rougher than the truth and their mean is smoother, so that what depends on roughness (a maximum, a width)
    is off in opposite directions (compared on real landscapes in docs/LOG.md). Value and interval are limited to [0,
    most].
    """
    return _halfway(cell, float(function(cell.mean)), function(cell.draws), unit, most)


def _loss(cell: Landscape, function: Callable[[Array], Array]) -> Estimate:
    """Estimate a functional in points, whose draws are spread where trials were stopped early."""
    return _halfway(cell, float(function(cell.mean)), spread(cell, function(cell.draws)), "points", math.inf)


def _halfway(cell: Landscape, of_mean: float, draws: Array, unit: str, most: float) -> Estimate:
    shift = (of_mean - float(draws.mean())) / 2
    value, (lo, hi) = float(draws.mean()) + shift, drawn.ends(draws + shift)
    low, middle, high = (min(max(end, 0.0), most) for end in (min(lo, value), value, max(hi, value)))
    return _known(cell, middle, (low, high), unit)


def _lr_slice(cell: Landscape) -> Callable[[Array], Array]:
    """Take lines over lr at one weight decay for all draws, the best of the mean surface.

    Slicing each draw at its own best weight decay overstates the loss where lr and weight decay trade off, and the
    interval would lie above the truth.
    """
    return partial(surface.lr_slice, best_on=cell.mean)


def _below_noise(cell: Landscape, epsilon: float) -> bool:
    return bool(epsilon < NOISE_SDS * cell.noise)


def _decades(cell: Landscape, line: Callable[[Array], Array], axis: Array, epsilon: float) -> Estimate:
    if _below_noise(cell, epsilon):
        return replace(_refused(cell, Reason.EPS_BELOW_NOISE), unit="decades")
    _, at_edge, stretches = surface.usable_decades(line(cell.mean), axis, epsilon)
    found = _functional(cell, lambda e: surface.usable_decades(line(e), axis, epsilon)[0], "decades")
    parts = [METHOD]
    if at_edge:
        parts.append("at least: the stretch reaches the edge of the search space")
    if stretches > 1:
        parts.append(f"{int(stretches) - 1} more stretch(es) not counted")
    return replace(found, method="; ".join(parts), reason=Reason.OPTIMUM_AT_EDGE if at_edge else None)


def edge_of(cell: Landscape) -> str | None:
    """Find the edge at which the best point lies in more than half of the draws; None if there is none."""
    shares = {name: float(np.mean(near)) for name, near in _near_edges(cell).items()}
    likeliest = max(shares, key=lambda name: shares[name])
    return likeliest if shares[likeliest] > LIKELY_EDGE else None


def _edge_share(cell: Landscape) -> float:
    return float(np.mean(np.any(list(_near_edges(cell).values()), axis=0)))


def _near_edges(cell: Landscape) -> dict[str, Flags]:
    """Say whether the best point of each draw lies near an edge [draws]; weight decay 0 lies at none."""
    rows, columns = cell.peaks
    lr = rows / (cell.grid.num_lr - 1)
    inside = (columns < cell.grid.num_decay) & (cell.grid.num_decay > 1)
    decay = np.where(inside, columns / max(cell.grid.num_decay - 1, 1), 0.5)
    return {
        f"{end} {name}": near
        for name, x in (("lr", lr), ("weight decay", decay))
        for end, near in (("lowest", x < EDGE_SHARE), ("highest", x > 1 - EDGE_SHARE))
    }


def is_at_edge(cell: Landscape) -> bool:
    """Say whether the optimum may lie beyond the search space."""
    return _edge_share(cell) > EDGE_PROBABILITY


def _no_interior_optimum(cell: Landscape) -> Reason | None:
    if cell.best_node[1] >= cell.grid.num_decay:
        return Reason.OPTIMUM_AT_WD0
    return Reason.OPTIMUM_AT_EDGE if is_at_edge(cell) else None


def hessians(cell: Landscape) -> Array | None:
    """Estimate minus the Hessian of the score at the best point, by least squares near it [1 + draws, 2, 2].

    The mean surface comes first. Returns None if too few nodes are near.
    """
    grid = cell.grid
    inside = cell.mean[:, : grid.num_decay]
    top = float(inside.max())
    near = inside >= top - _half_logit(top, inside)
    if near.sum() < MIN_NODES:
        return None
    u, v = (axis[near] for axis in np.meshgrid(grid.u, grid.v[: grid.num_decay], indexing="ij"))
    u, v = u - u.mean(), v - v.mean()
    features = np.column_stack([np.ones_like(u), u, v, u * u / 2, u * v, v * v / 2])
    stack = np.concatenate([inside[None], cell.draws[:, :, : grid.num_decay]])[:, near]
    _, _, _, uu, uv, vv = -(np.linalg.pinv(features) @ stack.T)
    return np.stack([np.stack([uu, uv], -1), np.stack([uv, vv], -1)], -2)


def _half_logit(top: float, values: Array) -> float:
    """Compute half a logit below the best, in points; a tenth of the range for a score that is not a share."""
    if 0 < top < 100:
        return top - 100 * float(expit(logit(top / 100) - 0.5))
    return 0.1 * float(top - values.min())


def _curvature(
    cell: Landscape, function: Callable[[Array], Array], unit: str, circular: float | None = None
) -> Estimate:
    if cell.grid.domain.weight_decay is None:
        return replace(_refused(cell, Reason.NOT_SEARCHED, "weight decay was not varied"), unit=unit)
    found = None if (no_optimum := _no_interior_optimum(cell)) else hessians(cell)
    if found is None:
        return replace(_refused(cell, no_optimum or Reason.SURROGATE_POOR), unit=unit)
    definite = (found[:, 0, 0] > 0) & (np.linalg.det(found) > 0)
    if not definite[0] or np.mean(~definite[1:]) > MAX_INDEFINITE:
        return replace(_refused(cell, Reason.SURROGATE_POOR, "the optimum is not a clear peak"), unit=unit)
    values = function(found[definite])
    point, draws = float(values[0]), values[1:]
    if circular:
        draws = point + (draws - point + circular / 2) % circular - circular / 2
    return _known(cell, point, drawn.ends(draws), unit)


def _ratio(hessian: Array) -> Array:
    small, large = np.moveaxis(np.linalg.eigvalsh(hessian), -1, 0)
    return np.asarray(large / small)


def _margin(cell: Landscape, log_odds: float) -> Estimate:
    """Measure the decades from the best lr to where the log odds of diverging are `log_odds`."""
    diverged, others = cell.counts.n_diverged, cell.counts.n_trials - cell.counts.n_diverged
    if others < MIN_NOT_DIVERGED:
        return replace(_refused(cell, Reason.TOO_FEW_COMPLETED), unit="decades")
    axis = cell.grid.u
    best_u = float(axis[cell.best_node[0]])
    if diverged < MIN_DIVERGED:
        lowest, _ = drawn.ends(cell.divergence_lr)
        bound = min(lowest, float(axis[-1])) - best_u
        text = f"at least: only {diverged} trials diverged"
        known = Estimate(value=bound, lo=bound, unit="decades", counts=cell.counts, method=text)
        return replace(known, reason=Reason.NO_DIVERGENCE)
    line = cell.divergence_lr + log_odds / np.exp(cell.log_steepness)
    draws = line - axis[cell.peaks[0]]
    point = float(np.median(line)) - best_u
    lo, hi = drawn.ends(draws)
    return _known(cell, point, (min(lo, point), max(hi, point)), "decades")


def _better_half(cell: Landscape) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """Select the nodes whose expected score is at least the median under pi."""
    order = np.argsort(-cell.mean, axis=None)
    mass = np.cumsum(cell.grid.weights.ravel()[order])
    keep = np.zeros(cell.mean.size, dtype=bool)
    keep[order[: int(np.searchsorted(mass, 0.5)) + 1]] = True
    return keep.reshape(cell.mean.shape)


def _variance_share(
    cell: Landscape, part: int, keep: np.ndarray[tuple[int, ...], np.dtype[np.bool_]] | None
) -> Estimate:
    total = float(surface.variance_shares(cell.mean, cell.grid, keep)[0])
    if total <= cell.noise**2:
        return _refused(cell, Reason.DEGENERATE_VARIANCE)
    return _functional(cell, lambda e: surface.variance_shares(e, cell.grid, keep)[part], "", 1.0)


def _refined_peak(line: Array, axis: Array, top: int) -> float:
    """Locate the maximum of a parabola through the best node and its neighbours."""
    if top in (0, len(axis) - 1):
        return float(axis[top])
    left, middle, right = line[top - 1 : top + 2]
    bend = left - 2 * middle + right
    shift = 0.5 * (left - right) / bend if bend < 0 else 0.0
    return float(axis[top] + shift * (axis[1] - axis[0]))
