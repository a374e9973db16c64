"""The fast likelihood against a slow readable one, its gradient, and leave-one-trial-out against refitting by hand."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from bocb_tune.analysis.landscape import gp

Array = NDArray[np.float64]


def some_records(seed: int = 0, trials: int = 9, rungs: int = 3) -> gp.Records:
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, rungs + 1, trials)
    trial = np.repeat(np.arange(trials), counts)
    tau = np.concatenate([np.linspace(1, 0, rungs)[:count] for count in counts])
    x = rng.random((trials, 2))
    is_zero = (rng.random(trials) < 0.3).astype(float)
    y = -4 * (x[trial, 0] - 0.5) ** 2 - tau * (0.5 + x[trial, 0]) + 0.1 * rng.standard_normal(len(trial))
    variance = 0.002 * rng.random(len(trial))
    return gp.Records(x=x, is_zero=is_zero, trial=trial, tau=tau, y=y, variance=variance)


def dense_covariance(log_theta: Array, r: gp.Records) -> Array:
    """Covariance of all records, entry by entry as the model is written down."""
    a1, lu, lv, a0, a2, mu, mv, st, se = np.exp(log_theta[:9])
    g = np.expm1(log_theta[9] * r.tau) / np.expm1(log_theta[9])

    def matern(d2: float) -> float:
        d = np.sqrt(5 * d2)
        return float((1 + d + d * d / 3) * np.exp(-d))

    size = len(r.y)
    cov = np.empty((size, size))
    for i in range(size):
        for j in range(size):
            p, q = r.trial[i], r.trial[j]
            du, dv = r.x[p] - r.x[q]
            cp, cq = 2 * r.x[p, 0] - 1, 2 * r.x[q, 0] - 1
            k = a1**2 * matern((du / lu) ** 2 + (dv / lv) ** 2)
            k += float(gp.quadratic(r.x[[p]])[0] @ gp.quadratic(r.x[[q]])[0])
            k += r.is_zero[p] * r.is_zero[q] * a0**2 * matern((du / lu) ** 2)
            k += g[i] * g[j] * (a2**2 * matern((du / mu) ** 2 + (dv / mv) ** 2) + 1 + cp * cq)
            cov[i, j] = k + (st**2 if p == q else 0) + (se**2 + r.variance[i] if i == j else 0)
    return cov


@pytest.fixture
def likelihood() -> gp.Likelihood:
    return gp.Likelihood(some_records())


def thetas() -> list[Array]:
    rng = np.random.default_rng(1)
    return [gp.PRIOR_MEDIAN, *(gp.PRIOR_MEDIAN + gp.PRIOR_SD * rng.standard_normal((3, 10)))]


@pytest.mark.parametrize("log_theta", thetas())
def test_equals_the_dense_likelihood(likelihood: gp.Likelihood, log_theta: Array) -> None:
    cov, y = dense_covariance(log_theta, likelihood.records), likelihood.records.y
    expected = 0.5 * (y @ np.linalg.solve(cov, y) + np.linalg.slogdet(cov)[1] + len(y) * np.log(2 * np.pi))
    off = (log_theta - gp.PRIOR_MEDIAN) / gp.PRIOR_SD
    assert likelihood(log_theta)[0] == pytest.approx(expected + 0.5 * off @ off, rel=1e-6)


@pytest.mark.parametrize("log_theta", thetas())
def test_gradient(likelihood: gp.Likelihood, log_theta: Array) -> None:
    _, gradient = likelihood(log_theta)
    for k in range(10):
        step = np.zeros(10)
        step[k] = 1e-5
        slope = (likelihood(log_theta + step)[0] - likelihood(log_theta - step)[0]) / 2e-5
        assert gradient[k] == pytest.approx(slope, rel=1e-3, abs=1e-3)


def test_prediction_equals_the_dense_one(likelihood: gp.Likelihood) -> None:
    theta, r = thetas()[1], likelihood.records
    x, zero = np.array([[0.2, 0.3], [0.7, -0.2]]), np.array([0.0, 1.0])
    mean, covariance = likelihood.solved(theta).landscape(gp.Pairs(x, zero, x, zero), gp.Pairs(x, zero, r.x, r.is_zero))
    k = dense_covariance(theta, r)
    cross = gp.Pairs(x, zero, r.x, r.is_zero).covariance(theta)[:, r.trial]
    prior = gp.Pairs(x, zero, x, zero).covariance(theta)
    assert mean == pytest.approx(cross @ np.linalg.solve(k, r.y), abs=1e-5)
    assert covariance == pytest.approx(prior - cross @ np.linalg.solve(k, cross.T), abs=1e-5)


def test_leaving_a_trial_out_equals_predicting_it_from_the_others(likelihood: gp.Likelihood) -> None:
    theta, r = thetas()[2], likelihood.records
    mean, variance = likelihood.solved(theta).without_trial()
    k = dense_covariance(theta, r)
    for i in range(r.num_trials):
        own, others = np.flatnonzero(r.trial == i), np.flatnonzero(r.trial != i)
        last = own[-1]
        weights = np.linalg.solve(k[np.ix_(others, others)], k[others, last])
        assert mean[i] == pytest.approx(weights @ r.y[others], abs=1e-5)
        assert variance[i] == pytest.approx(k[last, last] - weights @ k[others, last], rel=1e-4)


def test_fit_finds_a_maximum() -> None:
    fitted = gp.fit(some_records(trials=40))
    value, gradient = fitted.likelihood(fitted.log_theta)
    assert np.abs(gradient).max() < 0.05 * abs(value) + 0.05
    assert value < fitted.likelihood(gp.PRIOR_MEDIAN)[0]


def test_draws_have_their_mean_and_covariance() -> None:
    rng = np.random.default_rng(0)
    covariance = np.array([[2.0, 0.8], [0.8, 1.0]])
    drawn = gp.draw_normal(np.array([1.0, -1.0]), covariance, rng.standard_normal((20000, 2)))
    assert drawn.mean(axis=0) == pytest.approx([1.0, -1.0], abs=0.05)
    assert np.cov(drawn.T) == pytest.approx(covariance, abs=0.06)


def test_progress_holds_every_power_law() -> None:
    budget = np.array([1.0, 3, 9, 27])
    tau = np.log(27 / budget) / np.log(27)
    g, _ = gp.progress(tau, 0.35 * np.log(27))
    lost = budget**-0.35 - 27**-0.35
    assert g == pytest.approx(lost / lost[0])
    assert gp.progress(tau, 0.0)[0] == pytest.approx(tau)
