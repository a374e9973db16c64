"""The landscape of a cell: expected score over learning rate and weight decay at full budget, with its uncertainty.

A hurdle model of all records of all trials: `divergence.py` says where trials diverge, `gp.py` what those score that do
not, whatever budget they reached. Stopped trials are used as they are: what ended them depends on recorded scores only,
so a likelihood of all records needs no weights (Rubin, Biometrika 1976), while completed trials alone are a selection.

    e(x) = (1 - p(x)) s(x) + p(x) floor,   s = score of the Gaussian process at tau = 0

Draws carry the hyper-parameters (Laplace), the process and the line of divergence (quadrature).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from bocb_tune.analysis.cell import gp
from bocb_tune.analysis.cell.divergence import Divergence, fit_divergence
from bocb_tune.analysis.cell.scale import Scale
from bocb_tune.analysis.cell.surface import Box, Grid, argmax
from bocb_tune.analysis.cell.surfaces import Drawn, Surfaces, coarse, leaning
from bocb_tune.analysis.cell.validation import Validation, validate
from bocb_tune.analysis.core.arrays import Array, Flags, Index
from bocb_tune.analysis.core.estimate import Counts, Reason

MIN_TRIALS, MIN_COMPLETED, MIN_DISTINCT_LR, MIN_SPAN = 25, 5, 12, 0.6
NUM_HYPER, DRAWS_EACH = 60, 4


@dataclass(frozen=True, kw_only=True)
class CellTrials:
    """What happened in one cell. Failed trials are left out; repeats are in."""

    lr: Array
    """[trials]"""
    weight_decay: Array
    """[trials], zero included."""
    diverged: Flags
    """[trials]"""
    completed: Flags
    """[trials]"""
    audit: Flags
    """[trials], exempt from stopping by a draw made before the trial began."""
    share: Array
    """[trials], share of the full budget at which the trial ended."""
    record_trial: NDArray[np.intp]
    """[records], ascending; budgets ascend within a trial."""
    record_share: Array
    """[records], share of the full budget, in (0, 1]."""
    record_score: Array
    """[records], in the objective's unit."""

    @cached_property
    def last(self) -> Array:
        """Last recorded score [trials], NaN for a trial without records."""
        found = np.full(len(self.lr), np.nan)
        found[self.record_trial] = self.record_score
        return found

    @cached_property
    def survived(self) -> Array:
        """Share of the budget by which the trial had not diverged yet [trials]."""
        last = np.zeros(len(self.lr))
        last[self.record_trial] = self.record_share
        return np.where(self.diverged, np.minimum(last, self.share), self.share)

    @property
    def counts(self) -> Counts:
        stopped = ~self.completed & ~self.diverged
        return Counts(
            n_trials=len(self.lr),
            n_completed=int(self.completed.sum()),
            n_stopped=int(stopped.sum()),
            n_diverged=int(self.diverged.sum()),
        )


@dataclass(frozen=True, kw_only=True)
class Landscape:
    """A fitted cell. Scores are in the objective's unit, larger is better."""

    grid: Grid
    mean: Array
    """Expected score e [lr, decay]."""
    surfaces: Surfaces
    """Draws of e."""
    peaks: tuple[Index, Index]
    """Best node of each draw: its index along lr and along decay, each [draws]."""
    divergence: Array
    """Probability of diverging [lr, decay]."""
    divergence_lr: Array
    """Draws of the log10 lr at which half of the trials diverge, at the best weight decay [draws]."""
    log_steepness: Array
    """Draws of the steepness of the line [draws]: see `divergence.py`."""
    floor: float
    noise: float
    """sd of a trial's score near the best point: its seed and its last measurement."""
    validation: Validation
    counts: Counts

    @classmethod
    def of(cls, drawn: Drawn, noise: float, validation: Validation, counts: Counts) -> Landscape:
        """From its draws; `noise` is the sd of a trial's value in the terms of `Scale.forward`."""
        score, p = drawn.parts()
        draws, grid = drawn.expected(score, p), Grid(box=drawn.box)
        mean = draws.mean(axis=0)
        row, column = argmax(mean)
        cell = cls(
            grid=grid,
            mean=mean,
            surfaces=drawn,
            peaks=argmax(draws),
            divergence=p.mean(axis=0),
            divergence_lr=drawn.place + drawn.lean * float(leaning(grid)[column]),
            log_steepness=drawn.log_steepness,
            floor=drawn.scale.floor,
            noise=drawn.scale.step(float(score[:, row, column].mean()), noise),
            validation=validation,
            counts=counts,
        )
        object.__setattr__(cell, "draws", draws.astype(np.float32))  # at hand, so they need not be made anew
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
    """A cell whose data do not carry a model."""

    reason: Reason
    detail: str
    counts: Counts
    validation: Validation | None = None


def fit_landscape(trials: CellTrials, box: Box, scale: Scale, seed: int = 0) -> Landscape | NoLandscape:
    """The landscape of a cell, or why there is none.

    Args:
        trials: all trials of the cell that ended, or are running with records.
        box: the distribution they were drawn from.
        scale: what a score means.
        seed: of the draws; the same data and seed give the same landscape, whatever the order of the trials.
    """
    with threadpool_limits(limits=1):  # matrices this small are slower on several threads
        return _fit(_in_canonical_order(trials), box, scale, seed)


def _fit(trials: CellTrials, box: Box, scale: Scale, seed: int) -> Landscape | NoLandscape:
    if refused := _too_little(trials, box):
        return NoLandscape(reason=refused[0], detail=refused[1], counts=trials.counts)
    data = _Standardised.of(trials, box, scale)
    if data.unit < 1e-9:
        return NoLandscape(reason=Reason.DEGENERATE_VARIANCE, detail="all scores are equal", counts=trials.counts)
    fitted = gp.fit(data.records)
    validation = _validate(trials, data, fitted, scale)
    if validation.is_poor:
        return NoLandscape(
            reason=Reason.SURROGATE_POOR,
            detail=str(validation),
            counts=trials.counts,
            validation=validation,
        )
    rng = np.random.default_rng(seed)
    process = data.centre + data.unit * _draw_process(fitted, box, rng)
    place, log_steepness, lean = _fit_line(trials, box).draws(len(process), rng)
    drawn = Drawn(
        box=box,
        scale=scale,
        process=process.astype(np.float32),
        place=place,
        log_steepness=log_steepness,
        lean=lean,
    )
    return Landscape.of(drawn, data.unit * _noise_sd(fitted), validation, trials.counts)


def _in_canonical_order(trials: CellTrials) -> CellTrials:
    """Trials sorted by what they are, so that their order of arrival changes nothing."""
    order = np.lexsort((np.nan_to_num(trials.last, nan=-np.inf), trials.share, trials.weight_decay, trials.lr))
    place = np.argsort(order)
    records = np.argsort(place[trials.record_trial], kind="stable")
    return CellTrials(
        lr=trials.lr[order],
        weight_decay=trials.weight_decay[order],
        diverged=trials.diverged[order],
        completed=trials.completed[order],
        audit=trials.audit[order],
        share=trials.share[order],
        record_trial=place[trials.record_trial][records],
        record_share=trials.record_share[records],
        record_score=trials.record_score[records],
    )


def _too_little(trials: CellTrials, box: Box) -> tuple[Reason, str] | None:
    u = np.log10(trials.lr)
    completed, distinct = int(trials.completed.sum()), len(np.unique(np.round(u, 6)))
    if len(u) and trials.diverged.all():
        return Reason.ALL_DIVERGED, f"all {len(u)} trials diverged"
    if len(u) < MIN_TRIALS:
        return Reason.TOO_FEW_TRIALS, f"{len(u)} trials, {MIN_TRIALS} are needed"
    if completed < MIN_COMPLETED:
        return Reason.TOO_FEW_COMPLETED, f"{completed} trials reached the full budget, {MIN_COMPLETED} are needed"
    span = float(np.ptp(u)) / (box.lr[1] - box.lr[0])
    if distinct < MIN_DISTINCT_LR or span < MIN_SPAN:
        text = (
            f"{distinct} learning rates over {span:.0%} of the range, {MIN_DISTINCT_LR} over {MIN_SPAN:.0%} are needed"
        )
        return Reason.TOO_FEW_TRIALS, text
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Standardised:
    """The records as the process takes them: y = (forward(score) - centre) / unit."""

    records: gp.Records
    trial: NDArray[np.intp]
    """[fitted trials], their place among all trials."""
    centre: float
    unit: float

    @classmethod
    def of(cls, trials: CellTrials, box: Box, scale: Scale) -> _Standardised:
        """Trials that did not diverge and have a record."""
        usable = ~trials.diverged[trials.record_trial] & np.isfinite(trials.record_score)
        trial, index = np.unique(trials.record_trial[usable], return_inverse=True)
        score, share = trials.record_score[usable], trials.record_share[usable]
        value = scale.forward(score)
        last = scale.forward(trials.last[trial])
        centre, unit = float(np.median(last)), float(np.std(last))
        decay = trials.weight_decay[trial]
        zero = decay == 0
        v = np.where(zero, box.zero_at, np.log10(np.where(zero, 1.0, decay)))
        smallest = min(float(share.min()), 0.999)
        records = gp.Records(
            x=box.scaled(np.log10(trials.lr[trial]), v),
            is_zero=zero.astype(float),
            trial=index,
            tau=np.log(1 / share) / np.log(1 / smallest),
            y=(value - centre) / max(unit, 1e-12),
            variance=scale.variance(score) / max(unit, 1e-12) ** 2,
        )
        return cls(records=records, trial=trial, centre=centre, unit=unit)


def _validate(trials: CellTrials, data: _Standardised, fitted: gp.Fit, scale: Scale) -> Validation:
    mean, variance = fitted.likelihood.solved(fitted.log_theta).without_trial()
    records = data.records
    last = np.searchsorted(records.trial, np.arange(records.num_trials), side="right") - 1
    observed = records.y[last]
    seen, predicted = (scale.backward(data.centre + data.unit * y) for y in (observed, mean))
    noise = data.unit * _noise_sd(fitted)
    return validate(
        seen,
        predicted,
        (observed - mean) / np.sqrt(variance),
        rung=records.tau[last],
        noise=np.array([scale.step(float(score), noise) for score in predicted]),
        completed=trials.completed[data.trial],
        audit=trials.audit[data.trial],
    )


def _noise_sd(fitted: gp.Fit) -> float:
    """sd of a trial's y: its seed and one measurement."""
    return float(np.hypot(*np.exp(fitted.log_theta[[gp.NAMES.index("st"), gp.NAMES.index("se")]])))


def _fit_line(trials: CellTrials, box: Box) -> Divergence:
    zero = trials.weight_decay == 0
    v = np.where(zero, box.zero_at, np.log10(np.where(zero, 1.0, trials.weight_decay)))
    u = np.log10(trials.lr)
    d = np.clip(2 * box.scaled(u, v)[:, 1] - 1, -1, 1)
    return fit_divergence(u, d, trials.diverged, trials.share, trials.survived, box.lr, _best_lr(trials))


def _best_lr(trials: CellTrials) -> float:
    """log10 lr of the best trial that reached the full budget."""
    score = np.where(trials.completed & np.isfinite(trials.last), trials.last, -np.inf)
    return float(np.log10(trials.lr[int(score.argmax())]))


def _draw_process(fitted: gp.Fit, box: Box, rng: np.random.Generator) -> Array:
    """Draws of f on the coarse grid [draws, lr, decay], in mirrored pairs so that their mean is that of the process."""
    grid = coarse(box)
    nodes, records = grid.nodes(), fitted.likelihood.records
    among, to_trials = gp.Pairs(*nodes, *nodes), gp.Pairs(*nodes, records.x, records.is_zero)
    draws = []
    for log_theta in fitted.hyper_draws(NUM_HYPER, rng):
        mean, covariance = fitted.likelihood.solved(log_theta).landscape(among, to_trials)
        z = rng.standard_normal((DRAWS_EACH // 2, len(mean)))
        draws.append(gp.draw_normal(mean, covariance, np.concatenate([z, -z])))
    return np.concatenate(draws).reshape(-1, *grid.shape)
