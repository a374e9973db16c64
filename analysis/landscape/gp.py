"""Gaussian process over learning rate, weight decay and fidelity, fitted on every record of every trial of a cell.

Notation, for n trials and N records: x = (u, v) are log10 learning rate and log10 weight decay scaled to [0, 1] over
the search space, z = 1 where weight decay is zero, tau in [0, 1] the distance to the full budget (0: full budget), y a
standardised score:

    y = f(x) + g(tau) h(x) + e_trial + e_record,        g(tau) = (exp(k tau) - 1) / (exp(k) - 1)
    f ~ GP(a1^2 M(u, v; lu, lv) + Q(u, v) + z z' a0^2 M(u; lu))         the landscape at full budget
    h ~ GP(a2^2 M(u, v; mu, mv) + 1 + c c')                             what is not learnt yet; lets curves cross
    e_trial ~ N(0, st^2), shared by the records of a trial (they are one seed);  e_record ~ N(0, se^2 + known variance)

With tau logarithmic in the budget, g represents every power law of the budget exactly; k is its exponent times log(R /
r_min). M is the Matern 5/2 correlation, Q the kernel of a quadratic polynomial, c = 2u - 1.

Why this is affordable: each record is linear in the 2n values (f + e_trial, h) of the trials, so that the N x N
covariance is a diagonal plus a matrix of rank 2n, and the likelihood and its gradient cost O(n^3) however many records
a trial has (Rasmussen & Williams, "Gaussian Processes for Machine Learning", 2006, sections 5.4 and A.3).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, cholesky, solve_triangular
from scipy.optimize import minimize

from bocb_tune.analysis.core.arrays import Array

NAMES = ("a1", "lu", "lv", "a0", "a2", "mu", "mv", "st", "se", "k")
"""The hyper-parameters; `theta` holds their natural logarithms in this order, and k as it is."""
PRIOR_MEDIAN = np.append(np.log([0.7, 0.3, 0.5, 0.3, 0.4, 0.5, 0.8, 0.05, 0.03]), 0.8)
PRIOR_SD = np.array([0.8, 0.6, 0.6, 0.8, 0.8, 0.6, 0.6, 0.8, 0.8, 0.8])
JITTER = 1e-8
_A1, _LU, _LV, _A0, _A2, _MU, _MV, _ST, _SE, _K = range(10)
_QUADRATIC_SD = np.array([2.0, 1.0, 1.0, 1.0, 1.0, 1.0])
"""Prior sd of the coefficients of 1, c, d, c^2, cd, d^2 with c = 2u - 1 and d = 2v - 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Records:
    """Data of the fit; trials are counted from 0 and each has at least one record."""

    x: Array
    """[trials, 2], scaled to [0, 1] over the search space; v may lie below 0 where weight decay is zero."""
    is_zero: Array
    """[trials], 1 where weight decay is zero."""
    trial: NDArray[np.intp]
    """[records], ascending."""
    tau: Array
    """[records]"""
    y: Array
    """[records]"""
    variance: Array
    """[records], the part of the record noise that is known, in units of y squared."""

    @property
    def num_trials(self) -> int:
        return len(self.x)

    @property
    def last(self) -> NDArray[np.intp]:
        """Index of each trial's last record [trials]."""
        return np.searchsorted(self.trial, np.arange(self.num_trials), side="right") - 1


def matern52(r2: Array) -> tuple[Array, Array]:
    """Compute the correlation at squared scaled distance r2, and w with dM/dlog(l) = w * (distance along l / l)^2."""
    r = np.sqrt(5 * r2)
    decay = np.exp(-r)
    slope = (1 + r) * decay
    return slope + (5 / 3) * r2 * decay, (5 / 3) * slope


def quadratic(x: Array) -> Array:
    """Compute the features [points, 6] whose outer product is the quadratic kernel."""
    c, d = 2 * x[:, 0] - 1, 2 * x[:, 1] - 1
    return np.asarray(np.column_stack([np.ones_like(c), c, d, c * c, c * d, d * d]) * _QUADRATIC_SD)


class Pairs:
    """Two sets of points, ready for the covariance of f between them at many hyper-parameters."""

    def __init__(self, x1: Array, zero1: Array, x2: Array, zero2: Array) -> None:
        self._du2 = (x1[:, :1] - x2[:, 0]) ** 2
        self._dv2 = (x1[:, 1:] - x2[:, 1]) ** 2
        self._quadratic = quadratic(x1) @ quadratic(x2).T
        self._zero = np.ix_(np.flatnonzero(zero1), np.flatnonzero(zero2))

    def covariance(self, log_theta: Array) -> Array:
        """Compute the prior covariance of f [points1, points2]."""
        a1, lu, lv, a0 = np.exp(log_theta[[_A1, _LU, _LV, _A0]])
        found = a1**2 * matern52(self._du2 / lu**2 + self._dv2 / lv**2)[0] + self._quadratic
        found[self._zero] += a0**2 * matern52(self._du2[self._zero] / lu**2)[0]
        return np.asarray(found)


def progress(tau: Array, k: float) -> tuple[Array, Array]:
    """Compute g(tau) and its derivative with respect to k."""
    if abs(k) < 1e-4:
        return tau + k * tau * (tau - 1) / 2, tau * (tau - 1) / 2
    top, whole = np.expm1(k * tau), np.expm1(k)
    return top / whole, (tau * np.exp(k * tau) * whole - top * np.exp(k)) / whole**2


class Likelihood:
    """The negative log posterior density of the hyper-parameters, with its gradient, for one set of records."""

    def __init__(self, records: Records) -> None:
        self.records = records
        x = records.x
        self._du2 = (x[:, :1] - x[:, 0]) ** 2
        self._dv2 = (x[:, 1:] - x[:, 1]) ** 2
        self._zero = np.outer(records.is_zero, records.is_zero)
        features = quadratic(x)
        self._quadratic = features @ features.T
        c = 2 * x[:, 0] - 1
        self._drift = 1 + np.outer(c, c)

    def __call__(self, log_theta: Array) -> tuple[float, Array]:
        """Compute the value and its gradient [10]."""
        state = Solved(self, log_theta)
        off = (log_theta - PRIOR_MEDIAN) / PRIOR_SD
        return state.value + 0.5 * float(off @ off), state.gradient() + off / PRIOR_SD

    def solved(self, log_theta: Array) -> Solved:
        """Compute everything that prediction needs at these hyper-parameters."""
        return Solved(self, log_theta)


class Solved:
    """The factorised covariance at given hyper-parameters. H = (C^-1 + G)^-1 for the prior covariance C of the 2n
    values and their precision G from the records."""

    def __init__(self, likelihood: Likelihood, log_theta: Array) -> None:
        self._of, self.log_theta = likelihood, log_theta
        self.records = records = likelihood.records
        theta = self._theta = np.exp(log_theta)
        self._g, self._g_slope = progress(records.tau, float(log_theta[_K]))
        du2, dv2 = likelihood._du2, likelihood._dv2
        self._u1, self._v1 = du2 / theta[_LU] ** 2, dv2 / theta[_LV] ** 2
        self._u2, self._v2 = du2 / theta[_MU] ** 2, dv2 / theta[_MV] ** 2
        self._m1, self._w1 = matern52(self._u1 + self._v1)
        self._m0, self._w0 = matern52(self._u1)
        self._m2, self._w2 = matern52(self._u2 + self._v2)
        identity = np.eye(records.num_trials)
        landscape = theta[_A1] ** 2 * self._m1 + likelihood._quadratic + theta[_A0] ** 2 * likelihood._zero * self._m0
        fidelity = self._fidelity = theta[_A2] ** 2 * self._m2 + likelihood._drift + JITTER * identity
        l1 = cholesky(landscape + (theta[_ST] ** 2 + JITTER) * identity, lower=True, check_finite=False)
        l2 = cholesky(fidelity, lower=True, check_finite=False)
        self.precision = 1 / (theta[_SE] ** 2 + records.variance)
        weights = [self.precision, self.precision * self._g, self.precision * self._g**2]
        self._s0, self._s1, self._s2 = (self._by_trial(weight) for weight in weights)
        self._b = np.concatenate([self._by_trial(weight * records.y) for weight in weights[:2]])
        self.h = self._posterior(l1, l2)
        yy = float(np.sum(self.precision * records.y**2))
        quad = yy - float(self._b @ self.h @ self._b)
        size = len(records.y) * np.log(2 * np.pi) - float(np.sum(np.log(self.precision)))
        self.value = 0.5 * (quad + size + self._log_det)

    def _by_trial(self, weight: Array) -> Array:
        return np.asarray(np.bincount(self.records.trial, weight, self.records.num_trials), float)

    def _posterior(self, l1: Array, l2: Array) -> Array:
        n = len(l1)
        m = np.eye(2 * n)
        m[:n, :n] += (l1.T * self._s0) @ l1
        m[:n, n:] = (l1.T * self._s1) @ l2
        m[n:, :n] = m[:n, n:].T
        m[n:, n:] += (l2.T * self._s2) @ l2
        root = cholesky(m, lower=True, check_finite=False)
        self._log_det = 2 * float(np.sum(np.log(np.diag(root))))
        left = np.zeros((2 * n, 2 * n))
        left[:n, :n], left[n:, n:] = l1.T, l2.T
        half = solve_triangular(root, left, lower=True, check_finite=False)
        h: Array = half.T @ half
        return h

    def _times_g(self, right: Array) -> Array:
        """Multiply G with `right`, [2n] or [2n, columns]."""
        n = self.records.num_trials
        shape = (n,) + (1,) * (right.ndim - 1)
        s0, s1, s2 = (s.reshape(shape) for s in (self._s0, self._s1, self._s2))
        top, bottom = right[:n], right[n:]
        return np.concatenate([s0 * top + s1 * bottom, s1 * top + s2 * bottom])

    @property
    def pull(self) -> Array:
        """A' K^-1 y [2n], with A the map from the 2n values to the records."""
        return self._b - self._times_g(self.h @ self._b)

    @property
    def information(self) -> Array:
        """A' K^-1 A [2n, 2n]."""
        n = self.records.num_trials
        g = np.block([[np.diag(self._s0), np.diag(self._s1)], [np.diag(self._s1), np.diag(self._s2)]])
        whole: Array = g - self._times_g(self._times_g(self.h).T)
        assert whole.shape == (2 * n, 2 * n)
        return whole

    def gradient(self) -> Array:
        n, theta, pull = self.records.num_trials, self._theta, self.pull
        p = self.information - np.outer(pull, pull)
        p1, p2 = p[:n, :n], p[n:, n:]
        zero = p1 * self._of._zero * theta[_A0] ** 2
        smooth, late = p1 * theta[_A1] ** 2, p2 * theta[_A2] ** 2
        return np.array(
            [
                np.sum(smooth * self._m1),
                0.5 * (np.sum(smooth * self._w1 * self._u1) + np.sum(zero * self._w0 * self._u1)),
                0.5 * np.sum(smooth * self._w1 * self._v1),
                np.sum(zero * self._m0),
                np.sum(late * self._m2),
                0.5 * np.sum(late * self._w2 * self._u2),
                0.5 * np.sum(late * self._w2 * self._v2),
                theta[_ST] ** 2 * np.trace(p1),
                theta[_SE] ** 2 * np.sum(self._record_terms()),
                np.sum(self._progress_terms(pull) * self._g_slope),
            ]
        )

    def _progress_terms(self, pull: Array) -> Array:
        """Compute the derivative of the value with respect to g of each record [records]."""
        n, trial, k = self.records.num_trials, self.records.trial, self._fidelity
        reach = self.h[:, :n] * self._s1 + self.h[:, n:] * self._s2
        spread = (reach[:n] * k).sum(axis=1)[trial] + self._g * (reach[n:] * k).sum(axis=1)[trial]
        known = self.precision * (self._g * np.diag(k)[trial] - spread)
        terms: Array = known - self._record_pull() * (k @ pull[n:])[trial]
        return terms

    def _record_terms(self) -> Array:
        """Compute diag(K^-1) - (K^-1 y)^2 [records]."""
        n, trial, g = self.records.num_trials, self.records.trial, self._g
        diagonal = np.diag(self.h)
        spread = diagonal[:n][trial] + 2 * g * np.diag(self.h[:n, n:])[trial] + g**2 * diagonal[n:][trial]
        terms: Array = self.precision - self.precision**2 * spread - self._record_pull() ** 2
        return terms

    def landscape(self, among: Pairs, to_trials: Pairs) -> tuple[Array, Array]:
        """Predict f: posterior mean [points] and covariance [points, points].

        Args:
            among: pairs of the points with each other.
            to_trials: pairs of the points and the trials.
        """
        n = self.records.num_trials
        cross = to_trials.covariance(self.log_theta)
        return cross @ self.pull[:n], among.covariance(self.log_theta) - cross @ self.information[:n, :n] @ cross.T

    def finals(self) -> tuple[Array, Array]:
        """Predict each trial at the full budget, f + e_trial: mean [trials] and covariance [trials, trials]."""
        n = self.records.num_trials
        return (self.h @ self._b)[:n], self.h[:n, :n]

    def without_trial(self) -> tuple[Array, Array]:
        """Predict each trial's last record from the other trials: mean and variance [trials], its own noise included.

        All records of the trial are left out (Rasmussen & Williams, section 5.4.2, by blocks).
        """
        records, n = self.records, self.records.num_trials
        mean, variance = np.empty(n), np.empty(n)
        starts = np.searchsorted(records.trial, np.arange(n + 1))
        pull = self._record_pull()
        for i in range(n):
            rows = slice(starts[i], starts[i + 1])
            a = np.column_stack([np.ones(starts[i + 1] - starts[i]), self._g[rows]])
            w = self.precision[rows]
            own = self.h[np.ix_([i, n + i], [i, n + i])]
            inverse = np.diag(w) - (w[:, None] * a) @ own @ (a.T * w)
            covariance = np.linalg.inv(inverse)
            mean[i] = records.y[rows][-1] - (covariance @ pull[rows])[-1]
            variance[i] = covariance[-1, -1]
        return mean, variance

    def _record_pull(self) -> Array:
        """Compute K^-1 y [records]."""
        n, trial = self.records.num_trials, self.records.trial
        mean = self.h @ self._b
        pull: Array = self.precision * (self.records.y - mean[trial] - self._g * mean[n + trial])
        return pull


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """Maximum a posteriori hyper-parameters and the Laplace approximation around them."""

    likelihood: Likelihood
    log_theta: Array
    """[10], hyper-parameters in the order of `NAMES`."""
    root: Array
    """[10, 10], a square root of the covariance of the hyper-parameters."""

    def hyper_draws(self, count: int, rng: np.random.Generator) -> Array:
        """Draw hyper-parameters [count, 10], limited to four sd of the prior around its median."""
        draws = self.log_theta + rng.standard_normal((count, len(NAMES))) @ self.root.T
        return np.clip(draws, PRIOR_MEDIAN - 4 * PRIOR_SD, PRIOR_MEDIAN + 4 * PRIOR_SD)


def fit(records: Records) -> Fit:
    """Fit by L-BFGS from the prior's medians."""
    likelihood = Likelihood(records)
    bounds = [(m - 4 * s, m + 4 * s) for m, s in zip(PRIOR_MEDIAN, PRIOR_SD, strict=True)]
    found = minimize(likelihood, PRIOR_MEDIAN, jac=True, method="L-BFGS-B", bounds=bounds, options={"ftol": 1e-8})
    return Fit(likelihood=likelihood, log_theta=found.x, root=_laplace(likelihood, found.x))


def _laplace(likelihood: Likelihood, log_theta: Array, step: float = 0.02) -> Array:
    """Compute a square root of the inverse Hessian.

    No direction is more certain than the data say, nor less certain than the prior.
    """
    size = len(log_theta)
    rows = []
    for k in range(size):
        move = np.zeros(size)
        move[k] = step
        rows.append((likelihood(log_theta + move)[1] - likelihood(log_theta - move)[1]) / (2 * step))
    scaled = (np.array(rows) + np.array(rows).T) / 2 * np.outer(PRIOR_SD, PRIOR_SD)
    curvature, axes = np.linalg.eigh(scaled)
    return np.asarray(PRIOR_SD[:, None] * axes / np.sqrt(np.maximum(curvature, 1.0)))


def draw_normal(mean: Array, covariance: Array, z: Array) -> Array:
    """Transform standard normals z [draws, points] to draws with this mean and covariance [draws, points]."""
    scale = float(np.mean(np.diag(covariance))) + 1e-12
    root = None
    for jitter in (1e-8, 1e-6, 1e-4):
        try:
            root = cholesky(covariance + jitter * scale * np.eye(len(mean)), lower=True, check_finite=False)
            break
        except LinAlgError:
            continue
    if root is None:
        values, vectors = np.linalg.eigh(covariance)
        root = vectors * np.sqrt(np.maximum(values, 0))
    drawn: Array = mean + z @ root.T
    return drawn
