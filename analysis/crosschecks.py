"""Importances by other people's methods (the metrics' C8): cross-checks of the functional ANOVA, never a headline.

PED-ANOVA (Watanabe et al. 2023, arXiv:2304.10255) asks how much the marginal of the best settings differs from that of
all of them: main effects only. Optuna's evaluators work on completed trials, a selection under early stopping; its
fANOVA cuts the range of the learning rate into equal parts of lr and not of its logarithm. They may therefore differ
from C7.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import numpy as np

from bocb_tune.analysis.draws import Array
from bocb_tune.analysis.estimate import Estimate, Reason
from bocb_tune.analysis.landscape import CellTrials, Landscape
from bocb_tune.analysis.surface import Box

TOP = 0.1
"""Share of the search space that counts as best."""
MIN_COMPLETED = 50
HYPERPARAMETERS = ("lr", "weight_decay")


def landscape_importance(cell: Landscape) -> dict[str, Estimate]:
    """PED-ANOVA on the mean surface, exact marginals, normalised to sum to 1, by hyper-parameter."""
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


def optuna_importance(trials: CellTrials, box: Box, evaluator: str, seed: int = 0) -> dict[str, Estimate]:
    """Optuna's importances of the completed trials, by hyper-parameter.

    Args:
        trials: of one cell.
        box: what they were drawn from; weight decay 0 is told to Optuna as one decade below it.
        evaluator: `fanova` or `ped-anova`.
    """
    done = trials.completed & np.isfinite(trials.last)
    method = f"cross-check: Optuna's {evaluator} on completed trials only"
    if done.sum() < MIN_COMPLETED:
        return _all(Estimate(value=None, counts=trials.counts, method=method, reason=Reason.TOO_FEW_COMPLETED))
    if np.ptp(trials.last[done]) == 0:
        return _all(Estimate(value=None, counts=trials.counts, method=method, reason=Reason.DEGENERATE_VARIANCE))
    decay = np.where(trials.weight_decay == 0, 10.0**box.zero_at, trials.weight_decay)
    found = _optuna(trials.lr[done], decay[done], trials.last[done], evaluator, seed)
    return {name: Estimate(value=found[name], counts=trials.counts, method=method) for name in HYPERPARAMETERS}


def _top(values: Array, weights: Array) -> Array:
    """Weights of the best `TOP` of the distribution, summing to 1; nodes that tie at its end share what is left."""
    order = np.argsort(-values, axis=None)
    mass = np.cumsum(weights.ravel()[order])
    last = values.ravel()[order[np.searchsorted(mass, TOP)]]
    above, level = weights * (values > last), weights * (values == last)
    top: Array = (above + level * (TOP - above.sum()) / level.sum()) / TOP
    return top


def _pearson(top: Array, reference: Array) -> float:
    """Integral of (top/reference - 1)^2 under the reference."""
    return float(np.sum((top / reference - 1) ** 2 * reference))


def _optuna(lr: Array, decay: Array, score: Array, evaluator: str, seed: int) -> Mapping[str, float]:
    import optuna
    from optuna.importance import FanovaImportanceEvaluator, PedAnovaImportanceEvaluator, get_param_importances

    evaluators = {"fanova": lambda: FanovaImportanceEvaluator(seed=seed), "ped-anova": PedAnovaImportanceEvaluator}
    study = optuna.create_study(direction="maximize", storage=optuna.storages.InMemoryStorage())
    ranges = {
        name: optuna.distributions.FloatDistribution(float(values.min()), float(values.max()), log=True)
        for name, values in zip(HYPERPARAMETERS, (lr, decay), strict=True)
    }
    for x, y, value in zip(lr, decay, score, strict=True):
        params = {"lr": float(x), "weight_decay": float(y)}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=ranges, value=float(value)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return dict(get_param_importances(study, evaluator=evaluators[evaluator]()))


def _all(refused: Estimate) -> dict[str, Estimate]:
    return dict.fromkeys(HYPERPARAMETERS, refused)
