"""The landscape of a cell: expected score over learning rate and weight decay at full budget, with its uncertainty.

A hurdle model of all records of all trials: `divergence.py` models where trials diverge, `gp.py` the scores of those
that do not, whatever budget they reached. Stopped trials need no special treatment: they were stopped because of
recorded scores only, so a likelihood of all records needs no weights (Rubin, Biometrika 1976), whereas completed
trials alone are a selection.

    e(x) = (1 - p(x)) s(x) + p(x) floor,   s = score of the Gaussian process at tau = 0

Draws vary the hyper-parameters (Laplace), the process and the boundary of divergence (quadrature).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from threadpoolctl import threadpool_limits

from bocb_tune.analysis.core.arrays import Array, Index
from bocb_tune.analysis.core.estimate import Counts, Reason
from bocb_tune.analysis.landscape import gp
from bocb_tune.analysis.landscape.divergence import Divergence, fit_divergence, probability
from bocb_tune.analysis.landscape.draws import CoarseDraws, MixedDraws, ProcessDraws, SurfaceDraws, leaning, stepped
from bocb_tune.analysis.landscape.noise import Residuals
from bocb_tune.analysis.landscape.outcomes import Outcomes
from bocb_tune.analysis.landscape.process import Process, Standardised
from bocb_tune.analysis.landscape.scale import Scale
from bocb_tune.analysis.landscape.stack import Stack, stack_models
from bocb_tune.analysis.landscape.surface import Domain, SettingGrid, argmax
from bocb_tune.analysis.landscape.trees import left_out, tree_draws
from bocb_tune.analysis.landscape.trials import CellTrials, in_canonical_order
from bocb_tune.analysis.landscape.validation import Validation, validate

MIN_TRIALS, MIN_COMPLETED, MIN_DISTINCT_LR, MIN_SPAN = 25, 5, 5, 0.6
NUM_DRAWS = 240
FLAT_TILT = 1e-4
"""Points by which the nodes of a flat surface differ, so that its best point is anywhere."""


@dataclass(frozen=True, kw_only=True)
class Landscape:
    """A fitted cell. Scores are in the objective's unit, larger is better."""

    grid: SettingGrid
    mean: Array
    """Expected score e [lr, decay]."""
    surfaces: SurfaceDraws
    """Draws of e."""
    peaks: tuple[Index, Index]
    """Best node of each draw: its indices along lr and along decay, each [draws]."""
    divergence: Array
    """Probability of diverging [lr, decay]."""
    divergence_lr: Array
    """Draws of the log10 lr at which half of the trials diverge, at the best weight decay [draws]."""
    log_steepness: Array
    """Draws of the steepness of the boundary [draws]: see `divergence.py`."""
    floor: float
    noise: float
    """sd of a trial's score near the best point: its seed and its last measurement."""
    validation: Validation
    counts: Counts
    residuals: Residuals
    """Differences between the trials and the expected scores."""
    top: float = np.inf
    """Upper limit of the score."""

    @classmethod
    def of(
        cls,
        surfaces: SurfaceDraws,
        grid: SettingGrid,
        *,
        divergence: Array,
        line: tuple[Array, Array, Array],
        residuals: Residuals,
        scale: Scale,
        validation: Validation,
        counts: Counts,
    ) -> Landscape:
        """Build a landscape from its draws; `line` holds draws of the boundary's place, log steepness and lean."""
        draws = surfaces.whole()
        mean = draws.mean(axis=0, dtype=float)
        row, column = argmax(mean)
        place, log_steepness, lean = line
        best = grid.domain.scaled(grid.u[[row]], grid.v[[column]])[0]
        cell = cls(
            grid=grid,
            mean=mean,
            surfaces=surfaces,
            peaks=argmax(draws),
            divergence=divergence,
            divergence_lr=place + lean * float(leaning(grid)[column]),
            log_steepness=log_steepness,
            floor=scale.floor,
            top=scale.top if scale.bounded else np.inf,
            noise=residuals.sd(best),
            residuals=residuals,
            validation=validation,
            counts=counts,
        )
        object.__setattr__(cell, "draws", draws)  # kept, so that `draws` need not compute them again
        return cell

    @cached_property
    def draws(self) -> Array:
        """All draws of e [draws, lr, decay]: forty times the size of what they are made from."""
        return self.surfaces.whole()

    @cached_property
    def best_node(self) -> tuple[int, int]:
        """Index of the best point of the mean surface along lr and along decay."""
        row, column = argmax(self.mean)
        return int(row), int(column)

    @property
    def best_draws(self) -> Array:
        """Draws of e at the best point of the mean surface [draws]."""
        row, column = self.best_node
        return self.surfaces.at(np.array([row]), np.array([column]))[:, 0]


@dataclass(frozen=True, slots=True, kw_only=True)
class NoLandscape:
    """A cell whose data do not support a model."""

    reason: Reason
    detail: str
    counts: Counts
    validation: Validation | None = None


def fit_landscape(trials: CellTrials, domain: Domain, scale: Scale, seed: int = 0) -> Landscape | NoLandscape:
    """Fit the landscape of a cell, or say why there is none.

    Args:
        trials: all trials of the cell that ended, or are running with records.
        domain: the search space they were drawn from.
        scale: meaning of a score.
        seed: of the draws; the same data and seed give the same landscape, whatever the order of the trials.
    """
    with threadpool_limits(limits=1):  # matrices this small are slower on several threads
        return _fit(in_canonical_order(trials), domain, scale, seed)


def _fit(trials: CellTrials, domain: Domain, scale: Scale, seed: int) -> Landscape | NoLandscape:
    if refused := _too_little(trials, domain):
        return NoLandscape(reason=refused[0], detail=refused[1], counts=trials.counts)
    data = Standardised.of(trials, domain, scale)
    if data.unit < 1e-9:
        return NoLandscape(reason=Reason.DEGENERATE_VARIANCE, detail="all scores are equal", counts=trials.counts)
    rng = np.random.default_rng(seed)
    process = Process(data, gp.fit(data.records), domain, scale)
    line = _fit_line(trials, domain)
    outcomes = Outcomes.of(trials, process, line, domain, scale)
    stack = _weigh(outcomes, process, rng)
    validation = _validate(stack, outcomes, trials, process)
    if validation.is_poor:
        return NoLandscape(
            reason=Reason.SURROGATE_POOR,
            detail=str(validation),
            counts=trials.counts,
            validation=validation,
        )
    return _mixed(stack, outcomes, process, line, validation, trials, rng)


def _weigh(outcomes: Outcomes, process: Process, rng: np.random.Generator) -> Stack:
    """Weigh the models by their predictions of completed or diverged trials from the other trials."""
    final, value = np.flatnonzero(outcomes.is_known), outcomes.value
    score, variance = process.predict(outcomes.x, outcomes.is_zero)
    score[outcomes.fitted], variance[outcomes.fitted] = process.predicted()
    p, floor = outcomes.p_diverging, outcomes.floor
    smooth = score + p * (floor - score)
    smooth_variance = (1 - p) * (variance + score**2) + p * floor**2 - smooth**2
    stepwise, stepwise_variance = left_out(outcomes.x, value, rng)
    others = len(value) - 1
    flat = (value.sum() - value) / others
    flat_variance = np.full(len(value), value.var() * (1 + 1 / others) + 1e-12)
    return stack_models(
        final,
        value[final],
        np.array([smooth, stepwise, flat])[:, final],
        np.array([smooth_variance, stepwise_variance, flat_variance])[:, final],
    )


def _validate(stack: Stack, outcomes: Outcomes, trials: CellTrials, process: Process) -> Validation:
    """Compare each trial's last record with its prediction: by all models if it ended, else by the process."""
    records, fitted = process.data.records, process.data.trial
    predicted, _ = process.predicted()
    place = np.full(len(outcomes.value), -1)
    place[stack.trial] = np.arange(len(stack.trial))
    known = place[outcomes.fitted]
    predicted = np.where(known >= 0, stack.mean[known], predicted)
    return validate(
        trials.last[fitted],
        predicted,
        np.where(known >= 0, stack.z[known], process.z),
        rung=records.tau[records.last],
        noise=float(np.sqrt(np.mean((stack.observed - stack.mean) ** 2))),
        completed=trials.completed[fitted],
        audit=trials.audit[fitted] & ~trials.completed.all(),
        weights=stack.weights,
        predicts=stack.predicts,
    )


def _mixed(
    stack: Stack,
    outcomes: Outcomes,
    process: Process,
    line: Divergence,
    validation: Validation,
    trials: CellTrials,
    rng: np.random.Generator,
) -> Landscape:
    """Draw from each model of the stack in proportion to its weight."""
    domain, scale = process.domain, process.scale
    smooth, stepwise, flat = stack.shares(NUM_DRAWS)
    place, log_steepness, lean = line.draws(NUM_DRAWS, rng)
    nodes, shape = stepped(domain).nodes()[0], stepped(domain).shape
    parts: list[ProcessDraws | CoarseDraws] = []
    if smooth:
        parts.append(process.drawn(smooth, place[:smooth], log_steepness[:smooth], lean[:smooth], rng))
    if stepwise:
        drawn = tree_draws(outcomes.x, outcomes.drawn(stepwise, rng), nodes, rng)
        parts.append(CoarseDraws(domain=domain, values=drawn.reshape(-1, *shape).astype(np.float32)))
    if flat:
        levels = outcomes.levels(flat, rng)[:, None] + FLAT_TILT * rng.standard_normal((flat, len(nodes)))
        parts.append(CoarseDraws(domain=domain, values=levels.reshape(-1, *shape).astype(np.float32)))
    grid = SettingGrid(domain=domain)
    p = probability(grid.u[:, None], leaning(grid), *(e[:, None, None] for e in (place, log_steepness, lean)))
    surfaces = MixedDraws(parts=tuple(parts))
    row, column = grid.nearest(outcomes.x[stack.trial], outcomes.is_zero[stack.trial])
    return Landscape.of(
        surfaces,
        grid,
        divergence=p.mean(axis=0),
        line=(place, log_steepness, lean),
        residuals=outcomes.residuals(stack, surfaces.at(row, column).var(axis=0)),
        scale=scale,
        validation=validation,
        counts=trials.counts,
    )


def _too_little(trials: CellTrials, domain: Domain) -> tuple[Reason, str] | None:
    u = np.log10(trials.lr)
    completed, distinct = int(trials.completed.sum()), len(np.unique(np.round(u, 6)))
    if len(u) and trials.diverged.all():
        return Reason.ALL_DIVERGED, f"all {len(u)} trials diverged"
    if len(u) < MIN_TRIALS:
        return Reason.TOO_FEW_TRIALS, f"{len(u)} trials, {MIN_TRIALS} are needed"
    if completed < MIN_COMPLETED:
        return Reason.TOO_FEW_COMPLETED, f"{completed} trials reached the full budget, {MIN_COMPLETED} are needed"
    span = float(np.ptp(u)) / (domain.lr[1] - domain.lr[0])
    if distinct < MIN_DISTINCT_LR or span < MIN_SPAN:
        text = (
            f"{distinct} learning rates over {span:.0%} of the range, {MIN_DISTINCT_LR} over {MIN_SPAN:.0%} are needed"
        )
        return Reason.TOO_FEW_TRIALS, text
    return None


def _fit_line(trials: CellTrials, domain: Domain) -> Divergence:
    u, v = np.log10(trials.lr), domain.log_decay(trials.weight_decay)
    d = np.clip(2 * domain.scaled(u, v)[:, 1] - 1, -1, 1)
    return fit_divergence(u, d, trials.diverged, trials.share, trials.survived, domain.lr)
