"""Importances by other methods: cross-checks of the functional ANOVA, never a headline.

PED-ANOVA (Watanabe et al. 2023, arXiv:2304.10255) asks how much the marginal of the best settings differs from that of
all of them: main effects only. Optuna's evaluators work on completed trials, a selection under early stopping; its
fANOVA divides the range of the learning rate into equal parts of lr rather than of its logarithm. They may therefore
differ from the functional ANOVA.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np

from bocb_tune.analysis.core.arrays import Array, Flags
from bocb_tune.analysis.core.estimate import Estimate, Reason
from bocb_tune.analysis.landscape.fit import Landscape
from bocb_tune.analysis.landscape.surface import Domain
from bocb_tune.analysis.landscape.trials import CellTrials
from bocb_tune.analysis.sources.table import HYPERPARAMETERS

TOP = 0.1
"""Share of the search space that counts as best."""
MIN_COMPLETED = 50
PED_ANOVA, FANOVA = EVALUATORS = ("ped-anova", "fanova")
MOST_FANOVA = 24
"""Most cells to compute Optuna's fANOVA for: it takes half a second per cell, its PED-ANOVA a fiftieth of that."""

Importance = dict[str, Estimate]
"""Importance by hyper-parameter; the values sum to 1."""


def lr_importance(cell: Landscape) -> Estimate:
    """Take the learning rate's part of `landscape_importance`."""
    return landscape_importance(cell)["lr"]


def wd_importance(cell: Landscape) -> Estimate:
    """Take the weight decay's part of `landscape_importance`."""
    return landscape_importance(cell)["weight_decay"]


def landscape_importance(cell: Landscape) -> Importance:
    """Compute PED-ANOVA on the mean surface, from exact marginals, normalised to sum to 1."""
    top = _top(cell.mean, cell.grid.weights)
    divergences = [_pearson(top.sum(axis=axis), cell.grid.weights.sum(axis=axis)) for axis in (1, 0)]
    total = sum(divergences)
    method = f"cross-check: PED-ANOVA of the best {TOP:.0%} of the landscape, main effects only"
    if total < 1e-12:
        return _all(Estimate(value=None, counts=cell.counts, method=method, reason=Reason.DEGENERATE_VARIANCE))
    return {
        name: Estimate(value=float(each / total), counts=cell.counts, method=method)
        for name, each in zip(HYPERPARAMETERS, divergences, strict=True)
    }


def optuna_importances(cells: Iterable[tuple[CellTrials, Domain | None]]) -> list[dict[str, Importance]]:
    """Compute Optuna's importances of each cell by evaluator; fANOVA for the first `MOST_FANOVA` cells only."""
    found: list[dict[str, Importance]] = []
    slow = 0
    for trials, domain in cells:
        none = _refusal(trials, domain, FANOVA)
        if none is None and slow == MOST_FANOVA:
            none = Estimate(value=None, counts=trials.counts, method=_method(FANOVA), reason=Reason.TOO_COSTLY)
        slow += none is None
        quick = optuna_importance(trials, domain, PED_ANOVA)
        found.append({PED_ANOVA: quick, FANOVA: _all(none) if none else optuna_importance(trials, domain, FANOVA)})
    return found


def optuna_importance(trials: CellTrials, domain: Domain | None, evaluator: str, seed: int = 0) -> Importance:
    """Compute Optuna's importances of the completed trials, by hyper-parameter.

    Args:
        trials: of one cell.
        domain: search space they were drawn from, None if not known; Optuna is given one decade below it for weight
            decay 0.
        evaluator: one of `EVALUATORS`.
    """
    if refused := _refusal(trials, domain, evaluator):
        return _all(refused)
    assert domain is not None
    done = _done(trials)
    decay = np.where(trials.weight_decay == 0, 10.0**domain.zero_at, trials.weight_decay)
    found = _optuna(trials.lr[done], decay[done], trials.last[done], evaluator, seed)
    return {
        name: Estimate(value=float(found[name]), counts=trials.counts, method=_method(evaluator))
        for name in HYPERPARAMETERS
    }


def _refusal(trials: CellTrials, domain: Domain | None, evaluator: str) -> Estimate | None:
    done = _done(trials)
    if domain is None:
        reason = Reason.NO_SPACE
    elif done.sum() < MIN_COMPLETED:
        reason = Reason.TOO_FEW_COMPLETED
    elif np.ptp(trials.last[done]) == 0:
        reason = Reason.DEGENERATE_VARIANCE
    else:
        return None
    return Estimate(value=None, counts=trials.counts, method=_method(evaluator), reason=reason)


def _done(trials: CellTrials) -> Flags:
    return np.asarray(trials.completed & np.isfinite(trials.last))


def _method(evaluator: str) -> str:
    return f"cross-check: Optuna's {evaluator} on completed trials only"


def _top(values: Array, weights: Array) -> Array:
    """Restrict the weights to the best `TOP` of the distribution, summing to 1; ties at its end share the rest."""
    order = np.argsort(-values, axis=None)
    mass = np.cumsum(weights.ravel()[order])
    last = values.ravel()[order[np.searchsorted(mass, TOP)]]
    above, level = weights * (values > last), weights * (values == last)
    top: Array = (above + level * (TOP - above.sum()) / level.sum()) / TOP
    return top


def _pearson(top: Array, reference: Array) -> float:
    """Integrate (top/reference - 1)^2 under the reference."""
    return float(np.sum((top / reference - 1) ** 2 * reference))


def _optuna(lr: Array, decay: Array, score: Array, evaluator: str, seed: int) -> Mapping[str, float]:
    import optuna
    from optuna.importance import FanovaImportanceEvaluator, PedAnovaImportanceEvaluator, get_param_importances

    evaluators = {FANOVA: lambda: FanovaImportanceEvaluator(seed=seed), PED_ANOVA: PedAnovaImportanceEvaluator}
    ranges = {
        name: optuna.distributions.FloatDistribution(float(values.min()), float(values.max()), log=True)
        for name, values in zip(HYPERPARAMETERS, (lr, decay), strict=True)
    }
    with _quiet():
        study = optuna.create_study(direction="maximize", storage=optuna.storages.InMemoryStorage())
        for x, y, value in zip(lr, decay, score, strict=True):
            params = {"lr": float(x), "weight_decay": float(y)}
            study.add_trial(optuna.trial.create_trial(params=params, distributions=ranges, value=float(value)))
        return dict(get_param_importances(study, evaluator=evaluators[evaluator]()))


@contextmanager
def _quiet() -> Iterator[None]:
    """Let Optuna work without its messages about every study and about experimental evaluators."""
    import optuna

    was = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(was)


def _all(refused: Estimate) -> Importance:
    return dict.fromkeys(HYPERPARAMETERS, refused)
