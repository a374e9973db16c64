"""Traces of training in one weight matrix: statistics of its spectrum, each an estimate or a refusal.

Notation: W [out, in] is the weight of a layer as a matrix, a convolution's being [out, in / groups * height * width];
M = min(out, in); lambda_1 >= ... >= lambda_M are the squares of its singular values, not divided by anything.
Vectors (biases, norms) have no spectrum and are left out.

Definitions: the power law's exponent as in Clauset, Shalizi and Newman, SIAM Review 51 (2009), sections 3 and 4, on the
spectra of Martin and Mahoney, arXiv:1810.01075.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import svdvals
from scipy.stats import norm

from bocb_tune.analysis.core.arrays import Array
from bocb_tune.analysis.core.estimate import Estimate, Reason

MIN_EIGS_POWER_LAW, MIN_TAIL = 50, 20
MIN_EIGS_ENERGY = 10
NUM_CUTS = 200
"""Places tried for the start of the tail; more move the exponent by less than its standard error."""
NUM_BOOTSTRAP = 100
"""Tells whether p is below 0.1 to within 0.03 (Clauset et al., section 4.1)."""
POOR_FIT = 0.1
RISKY = (2.0, 6.0)
"""Exponents below and above which arXiv:2410.06373, after WeightWatcher, calls a layer poorly trained."""
BINS = 100
"""Equal bins between the least and the largest weight of a layer, for the entropy of its values."""


@dataclass(frozen=True, kw_only=True)
class Layer:
    """The weight of one layer."""

    name: str
    """Name of its tensor, as in the checkpoint."""
    depth: float
    """Place among the model's layers in [0, 1], in the order of the checkpoint."""
    weight: Array
    """[out, in]"""
    is_depthwise: bool = False
    """Each row sees one channel: a stack of filters, not a matrix of connections."""
    positions: int = 1
    """Places of a convolution's kernel, which change fastest along a row; 1 for a linear layer."""

    @cached_property
    def eigenvalues(self) -> Array:
        """[M], descending."""
        return np.square(svdvals(self.weight))

    @cached_property
    def centred_eigenvalues(self) -> Array:
        """[M], descending, of the matrix with the mean of each column taken out: variances of its rows, times out."""
        return np.square(svdvals(self.weight - self.weight.mean(axis=0)))

    @cached_property
    def eigenvalues_by_position(self) -> Array:
        """Those of the matrices [out, in / groups] of all kernel positions, pooled, descending."""
        slices = self.weight.reshape(len(self.weight), -1, self.positions)
        pooled = [np.square(svdvals(slices[:, :, place])) for place in range(self.positions)]
        return np.sort(np.concatenate(pooled))[::-1]

    @cached_property
    def exponent(self) -> Estimate:
        """Exponent of the tail of the flattened matrix: costly, and for a linear layer the same in both modes."""
        return _exponent(self, self.eigenvalues)

    @property
    def is_zero(self) -> bool:
        return not self.weight.any()


def layers_of(weights: Mapping[str, NDArray[np.floating]]) -> tuple[Layer, ...]:
    """List the layers of a model.

    Args:
        weights: tensors by name, in the model's order. Used are those called `...weight` with two axes or more:
            linear [out, in] and convolution [out, in / groups, ...].

    Raises:
        ValueError: if a weight is not finite.
    """
    used = {name: w for name, w in weights.items() if name.endswith("weight") and w.ndim > 1}
    if bad := [name for name, weight in used.items() if not np.isfinite(weight).all()]:
        raise ValueError(f"weights of {', '.join(bad[:3])} are not finite: the training diverged and has no patterns")
    last = max(1, len(used) - 1)
    return tuple(
        Layer(
            name=name,
            depth=place / last,
            weight=np.asarray(weight, dtype=float).reshape(len(weight), -1),
            is_depthwise=weight.ndim > 2 and weight.shape[1] == 1,
            positions=math.prod(weight.shape[2:]),
        )
        for place, (name, weight) in enumerate(used.items())
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Tail:
    """A power law p(x) ~ x^-alpha fitted to the largest eigenvalues."""

    alpha: float
    start: float
    """Smallest value of the tail."""
    size: int
    """Values in the tail."""
    distance: float
    """Largest difference between the tail's distribution and the law's, in [0, 1]."""

    @property
    def se(self) -> float:
        """Standard error of alpha if the values were independent draws."""
        return (self.alpha - 1) / math.sqrt(self.size)


def fit_tail(values: Array) -> Tail:
    """Fit the power law whose start minimises the distance, over tails of at least `MIN_TAIL` values.

    Args:
        values: [values], positive, in any order, more than `MIN_TAIL` of them distinct.
    """
    ordered = np.sort(values)
    logs = np.log(ordered)
    starts = np.unique(np.linspace(0, len(logs) - MIN_TAIL, NUM_CUTS).astype(int))
    starts = starts[logs[starts] < logs[-1]]
    sizes = len(logs) - starts
    alphas = 1 + sizes / (np.cumsum(logs[::-1])[::-1][starts] - sizes * logs[starts])
    distances = [_distance(logs[start:] - logs[start], alpha) for start, alpha in zip(starts, alphas, strict=True)]
    best = int(np.argmin(distances))
    return Tail(
        alpha=float(alphas[best]),
        start=float(ordered[starts[best]]),
        size=int(sizes[best]),
        distance=distances[best],
    )


def _distance(above: Array, alpha: float) -> float:
    """Measure the distance from a law to the shares of its tail that are not larger.

    The shares just before a value are left out, as in the published code for spectra: over samples from known laws that
    gives the smaller bias at the same error.

    Args:
        above: logarithms of the values of the tail over the smallest of them, ascending.
    """
    law = -np.expm1((1 - alpha) * above)
    shares = np.arange(1, len(above) + 1) / len(above)
    return float(np.abs(shares - law).max())


def fit_probability(values: Array, tail: Tail, rng: np.random.Generator) -> float:
    """Estimate the share of samples from the fitted law that lie farther from it than the values do: below 0.1 it does
    not fit.

    Values below the tail are resampled as they are (Clauset et al., section 4.1).
    """
    below = values[values < tail.start]
    farther = [
        fit_tail(_resampled(below, len(values), tail, rng)).distance >= tail.distance for _ in range(NUM_BOOTSTRAP)
    ]
    return float(np.mean(farther))


def _resampled(below: Array, count: int, tail: Tail, rng: np.random.Generator) -> Array:
    in_tail = rng.binomial(count, tail.size / count) if len(below) else count
    drawn = tail.start * (1 - rng.random(in_tail)) ** (-1 / (tail.alpha - 1))
    return np.concatenate([rng.choice(below, count - in_tail) if len(below) else below, drawn])


def alpha(layer: Layer) -> Estimate:
    """Fit the exponent of the spectrum's tail; given, and flagged, where a power law does not fit."""
    return layer.exponent


def alpha_by_position(layer: Layer) -> Estimate:
    """Fit the exponent of the tail of the pooled spectra of a convolution's kernel positions.

    As WeightWatcher takes them (commit d6fd015). The factor it scales them by is common to all and changes no exponent.
    """
    return layer.exponent if layer.positions == 1 else _exponent(layer, layer.eigenvalues_by_position)


def _exponent(layer: Layer, eigenvalues: Array) -> Estimate:
    values = _positive(eigenvalues)
    if layer.is_depthwise or len(values) < MIN_EIGS_POWER_LAW or len(np.unique(values)) <= MIN_TAIL:
        return Estimate(value=None, reason=Reason.TOO_FEW_EIGS)
    tail = fit_tail(values)
    p = fit_probability(values, tail, np.random.default_rng(0))
    half = float(norm.ppf(0.975)) * tail.se
    method = f"maximum likelihood, tail of {tail.size} of {len(values)}, distance {tail.distance:.3f}, p {p:.2f}"
    return Estimate(
        value=tail.alpha,
        lo=tail.alpha - half,
        hi=tail.alpha + half,
        method=f"{method}; interval as if eigenvalues were independent",
        reason=Reason.NOT_POWER_LAW if p < POOR_FIT else None,
    )


def stable_rank(layer: Layer) -> Estimate:
    """Sum of the eigenvalues over the largest, in [1, M]; low where one direction dominates."""
    return _spectral(layer, lambda values: float(values.sum() / values[0]))


def entropy(layer: Layer) -> Estimate:
    """Return Shannon entropy of the eigenvalues over that of a flat spectrum of the same rank, in [0, 1]."""
    rank = len(_positive(layer.eigenvalues))
    if rank < 2:
        return Estimate(value=None, reason=Reason.TOO_FEW_EIGS)
    return _spectral(layer, lambda values: _shannon(values) / math.log(rank))


def effective_rank(layer: Layer) -> Estimate:
    """Return the rank a flat spectrum of the same entropy would have, in [1, M]."""
    return _spectral(layer, lambda values: math.exp(_shannon(values)))


def frobenius_norm(layer: Layer) -> Estimate:
    """Return the root of the sum of squares of the weights."""
    return Estimate(value=float(np.linalg.norm(layer.weight)), method="exact")


def value_entropy(layer: Layer) -> Estimate:
    """Return Shannon entropy of the values, nats: of `BINS` equal bins from the least to the largest weight.

    As arXiv:2410.06373 has it, which does not say how values become probabilities: the scale of the weights cancels.
    """
    if np.ptp(layer.weight) == 0:
        return Estimate(value=None, reason=Reason.DEGENERATE_VARIANCE)
    counts, _ = np.histogram(layer.weight, bins=BINS)
    shares = counts[counts > 0] / counts.sum()
    return Estimate(value=float(-np.sum(shares * np.log(shares))), method=f"histogram of {BINS} equal bins")


def rms(layer: Layer) -> Estimate:
    """Return the root mean square of a weight; comparable across widths."""
    return Estimate(value=float(np.sqrt(np.mean(layer.weight**2))), method="exact")


def spectral_norm(layer: Layer) -> Estimate:
    """Return the largest singular value."""
    return Estimate(value=float(np.sqrt(layer.eigenvalues[0])), method="exact")


def energy(layer: Layer, components: Callable[[int], int], *, centred: bool = True) -> Estimate:
    """Return the share of the first `components(M)` principal components, in (0, 1]."""
    return _pca(layer, lambda shares: float(shares[components(len(shares)) - 1]), centred)


def components90(layer: Layer) -> Estimate:
    """Return the least number of principal components that hold 0.9 of the whole."""
    return _pca(layer, lambda shares: float(np.argmax(shares >= 0.9 - 1e-12) + 1), centred=True)


def _pca(layer: Layer, read: Callable[[Array], float], centred: bool) -> Estimate:
    values = layer.centred_eigenvalues if centred else layer.eigenvalues
    if layer.is_depthwise or len(values) < MIN_EIGS_ENERGY:
        return Estimate(value=None, reason=Reason.TOO_FEW_EIGS)
    if values[0] <= layer.eigenvalues[0] * (len(values) * np.finfo(float).eps) ** 2:
        return Estimate(value=None, reason=Reason.DEGENERATE_VARIANCE)
    return Estimate(
        value=read(np.cumsum(values) / values.sum()), method="columns centred" if centred else "not centred"
    )


def _spectral(layer: Layer, read: Callable[[Array], float]) -> Estimate:
    if layer.is_depthwise:
        return Estimate(value=None, reason=Reason.TOO_FEW_EIGS)
    if layer.is_zero:
        return Estimate(value=None, reason=Reason.DEGENERATE_VARIANCE)
    return Estimate(value=read(layer.eigenvalues), method="exact")


def _shannon(values: Array) -> float:
    shares = _positive(values) / values.sum()
    return float(-np.sum(shares * np.log(shares)))


def _positive(values: Array) -> Array:
    """Return the eigenvalues that are not zero up to rounding: as many as the matrix has rank."""
    above: Array = values[values > values[0] * (len(values) * np.finfo(float).eps) ** 2]
    return above
