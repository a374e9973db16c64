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
from scipy.interpolate import make_interp_spline
from scipy.special import expit, logit
from scipy.stats import spearmanr
from threadpoolctl import threadpool_limits

from bocb_tune.analysis import gp
from bocb_tune.analysis.divergence import Divergence, fit_divergence, probability
from bocb_tune.analysis.estimate import Counts, Reason
from bocb_tune.analysis.surface import Array, Box, Grid, argmax

Flags = NDArray[np.bool_]

MIN_TRIALS, MIN_COMPLETED, MIN_DISTINCT_LR, MIN_SPAN = 25, 5, 12, 0.6
NUM_HYPER, DRAWS_EACH = 60, 4
COARSE_LR, COARSE_DECAY = 17, 11
"""Nodes at which the process is drawn; cubic splines take the draws to the full grid."""
SURE = 1e-6
"""Shares of score nearer to 0 or 1 than this are taken as this."""
Z90 = 1.6448536269514722


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How scores are turned into what the process models, and back."""

    bounded: bool
    """Scores are points of 0..100 and modelled as logits; otherwise as they are."""
    floor: float
    """Score of a diverged trial."""
    num_images: float = np.inf
    """Images a score is the share of: its binomial noise is known then."""

    def forward(self, score: Array) -> Array:
        """Empirical logit (Cox & Snell, "Analysis of Binary Data", 1989, section 2.1.6)."""
        if not self.bounded:
            return np.asarray(score, float)
        share = np.clip(score / 100, 0, 1)
        if np.isfinite(self.num_images):
            share = (self.num_images * share + 0.5) / (self.num_images + 1)
        return np.asarray(logit(np.clip(share, SURE, 1 - SURE)))

    def variance(self, score: Array) -> Array:
        """Known part of the noise of `forward(score)`."""
        if not self.bounded or not np.isfinite(self.num_images):
            return np.zeros_like(score)
        share = expit(self.forward(score))
        return 1 / (self.num_images * share * (1 - share))

    def step(self, score: float, sd: float) -> float:
        """Change of the score for one sd of noise of its value, the known part included."""
        at = np.array([score])
        reach = np.sqrt(sd**2 + self.variance(at))
        value = self.forward(at)
        return float((self.backward(value + reach) - self.backward(value - reach))[0] / 2)

    def backward(self, value: Array) -> Array:
        if not self.bounded:
            return value
        share = expit(value)
        if np.isfinite(self.num_images):
            share = np.clip((share * (self.num_images + 1) - 0.5) / self.num_images, 0, 1)
        return 100 * share


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """How well the model predicts trials it has not seen: each trial left out with all its records."""

    rmse: float
    """At the trial's last record, in the unit of the score."""
    bias: float
    """Observed minus predicted."""
    spread: float
    """sd of the last records within their rung."""
    noise: float
    """sd of the model's own noise, in the unit of the score."""
    standardised_sd: float
    """sd of the residuals in units of their predicted sd: 1 if the model knows its own uncertainty."""
    coverage90: float
    """Share of the observations within their 90 % predictive interval."""
    rank_correlation: float
    """Spearman, predicted against observed, over completed trials."""
    num_audit: int
    """Trials exempt from stopping that reached the full budget: the only look into the censored region."""
    audit_z: float
    """Mean standardised residual of these times the root of their number; NaN without any."""

    @property
    def is_poor(self) -> bool:
        far_off = self.rmse > 0.5 * self.spread and self.rmse > 2 * self.noise
        return far_off or self.coverage90 < 0.70 or abs(self.audit_z) > 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A fitted cell as it is kept and passed on: small, since `landscape()` makes the draws anew, always the same."""

    box: Box
    scale: Scale
    process: Array
    """Draws of the process on the coarse grid [draws, lr, decay], in the terms of `Scale.forward`."""
    place: Array
    """Draws of the line of divergence: its place [draws] (see `divergence.py`)."""
    log_steepness: Array
    """[draws]"""
    lean: Array
    """[draws]"""
    noise: float
    """sd of a trial's value: its seed and its last measurement, in the terms of `Scale.forward`."""
    validation: Validation
    counts: Counts

    def landscape(self) -> Landscape:
        """The surface and its draws on the full grid."""
        grid = Grid(box=self.box)
        score = self.scale.backward(_refine(self.process.astype(float), _coarse(self.box), grid))
        d = np.clip(2 * self.box.scaled(np.zeros_like(grid.v), grid.v)[:, 1] - 1, -1, 1)
        line = (part[:, None, None] for part in (self.place, self.log_steepness, self.lean))
        p = probability(grid.u[:, None], d, *line)
        draws = score + p * (self.scale.floor - score)
        mean = draws.mean(axis=0)
        row, column = argmax(mean)
        return Landscape(
            grid=grid,
            mean=mean,
            draws=draws.astype(np.float32),
            divergence=p.mean(axis=0),
            divergence_lr=self.place + self.lean * float(d[column]),
            log_steepness=self.log_steepness,
            floor=self.scale.floor,
            noise=self.scale.step(float(score.mean(axis=0)[row, column]), self.noise),
            validation=self.validation,
            counts=self.counts,
        )


@dataclass(frozen=True, kw_only=True)
class Landscape:
    """A fitted cell. Scores are in the objective's unit, larger is better."""

    grid: Grid
    mean: Array
    """Expected score e [lr, decay]."""
    draws: Array
    """Draws of e [draws, lr, decay]."""
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

    @cached_property
    def best_node(self) -> tuple[int, int]:
        """Index of the best point of the mean surface along lr and along decay."""
        row, column = argmax(self.mean)
        return int(row), int(column)


@dataclass(frozen=True, slots=True, kw_only=True)
class NoLandscape:
    """A cell whose data do not carry a model."""

    reason: Reason
    detail: str
    counts: Counts
    validation: Validation | None = None


def fit_landscape(trials: CellTrials, box: Box, scale: Scale, seed: int = 0) -> Landscape | NoLandscape:
    """The landscape of a cell, or why there is none; see `fit_model`."""
    model = fit_model(trials, box, scale, seed)
    return model if isinstance(model, NoLandscape) else model.landscape()


def fit_model(trials: CellTrials, box: Box, scale: Scale, seed: int = 0) -> Model | NoLandscape:
    """Model a cell, or say why it cannot be modelled.

    Args:
        trials: all trials of the cell that ended, or are running with records.
        box: the distribution they were drawn from.
        scale: what a score means.
        seed: of the draws; the same data and seed give the same landscape, whatever the order of the trials.
    """
    with threadpool_limits(limits=1):  # matrices this small are slower on several threads
        return _fit_model(_in_canonical_order(trials), box, scale, seed)


def _fit_model(trials: CellTrials, box: Box, scale: Scale, seed: int) -> Model | NoLandscape:
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
            detail=_why_poor(validation),
            counts=trials.counts,
            validation=validation,
        )
    rng = np.random.default_rng(seed)
    process = data.centre + data.unit * _draw_process(fitted, box, rng)
    place, log_steepness, lean = _fit_line(trials, box).draws(len(process), rng)
    return Model(
        box=box,
        scale=scale,
        process=process.astype(np.float32),
        place=place,
        log_steepness=log_steepness,
        lean=lean,
        noise=data.unit * _noise_sd(fitted),
        validation=validation,
        counts=trials.counts,
    )


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
    solved = fitted.likelihood.solved(fitted.log_theta)
    mean, variance = solved.without_trial()
    records = data.records
    last = np.searchsorted(records.trial, np.arange(records.num_trials), side="right") - 1
    observed, tau = records.y[last], records.tau[last]
    z = (observed - mean) / np.sqrt(variance)
    seen, predicted = (scale.backward(data.centre + data.unit * y) for y in (observed, mean))
    done = trials.completed[data.trial]
    audit = trials.audit[data.trial] & done
    noise = data.unit * _noise_sd(fitted)
    return Validation(
        rmse=float(np.sqrt(np.mean((seen - predicted) ** 2))),
        bias=float(np.mean(seen - predicted)),
        spread=_spread_within(seen, tau),
        noise=float(np.median([scale.step(float(score), noise) for score in predicted])),
        standardised_sd=float(np.std(z)),
        coverage90=float(np.mean(np.abs(z) <= Z90)),
        rank_correlation=float(spearmanr(predicted[done], seen[done]).statistic) if np.ptp(seen[done]) > 0 else np.nan,
        num_audit=int(audit.sum()),
        audit_z=float(z[audit].mean() * np.sqrt(audit.sum())) if audit.any() else float("nan"),
    )


def _noise_sd(fitted: gp.Fit) -> float:
    """sd of a trial's y: its seed and one measurement."""
    return float(np.hypot(*np.exp(fitted.log_theta[[gp.NAMES.index("st"), gp.NAMES.index("se")]])))


def _spread_within(values: Array, group: Array) -> float:
    """sd of the values about the mean of their group."""
    _, index = np.unique(np.round(group, 9), return_inverse=True)
    means = np.bincount(index, values) / np.bincount(index)
    return float(np.sqrt(np.mean((values - means[index]) ** 2)))


def _why_poor(found: Validation) -> str:
    return (
        f"trials left out are predicted with an error of {found.rmse:.2f} (spread {found.spread:.2f}, noise "
        f"{found.noise:.2f}), {found.coverage90:.0%} within their 90 % interval, audit z {found.audit_z:.1f}"
    )


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
    coarse = _coarse(box)
    x, is_zero = coarse.nodes()
    draws = []
    for log_theta in fitted.hyper_draws(NUM_HYPER, rng):
        mean, covariance = fitted.likelihood.solved(log_theta).landscape(x, is_zero)
        z = rng.standard_normal((DRAWS_EACH // 2, len(mean)))
        draws.append(gp.draw_normal(mean, covariance, np.concatenate([z, -z])))
    return np.concatenate(draws).reshape(-1, *coarse.shape)


def _coarse(box: Box) -> Grid:
    return Grid(box=box, num_lr=COARSE_LR, num_decay=COARSE_DECAY)


def _refine(values: Array, coarse: Grid, grid: Grid) -> Array:
    """Cubic splines from the coarse to the full grid, weight decay 0 apart."""
    along_lr = make_interp_spline(coarse.u, np.eye(COARSE_LR))(grid.u)
    inside = slice(None, COARSE_DECAY)
    along_decay = make_interp_spline(coarse.v[inside], np.eye(COARSE_DECAY))(grid.v[: grid.num_decay])
    by_lr = np.einsum("ui,dij->duj", along_lr, values, optimize=True)
    fine = by_lr[..., inside] @ along_decay.T
    return np.concatenate([fine, by_lr[..., COARSE_DECAY:]], axis=-1)
