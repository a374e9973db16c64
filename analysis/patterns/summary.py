"""Parameter patterns: the statistics of all layers of a model, summed up by run and compared between optimizers.

Eigenvalues of one matrix are no independent draws, so that no interval of a layer carries over to another training: the
unit of inference is the training seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from bocb_tune.analysis.core.arrays import Array
from bocb_tune.analysis.core.estimate import Counts, Estimate, Reason
from bocb_tune.analysis.core.intervals import welch_interval
from bocb_tune.analysis.patterns import spectra as s
from bocb_tune.analysis.patterns.spectra import Layer

NUM_COMPONENTS: dict[str, Callable[[int], int]] = {
    "1": lambda _: 1,
    "5": lambda _: 5,
    "tenth": lambda count: math.ceil(0.1 * count),
}
"""Principal components whose energy is told, of as many as there are."""


TOP_ENERGY = "pca_energy_top"
"""Key of the energy of as many components as are asked for."""
COMPONENTS = 10
"""Components of it, unless said otherwise."""
OVER_DEPTH = ("value_entropy", "frobenius_norm", TOP_ENERGY, "alpha")
"""Keys of the patterns that the paper draws over the layers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern:
    """One number per layer; none has a good direction by itself."""

    key: str
    """Name in `QUANTITIES`."""
    compute: Callable[[Layer], Estimate]


def top_energy(layer: Layer, components: int = COMPONENTS) -> Estimate:
    """Return the energy of so many principal components, or of all where there are fewer."""
    return s.energy(layer, lambda count: min(components, count))


PATTERNS: tuple[Pattern, ...] = (
    Pattern(key="alpha", compute=s.alpha),
    Pattern(
        key="alpha_by_position",
        compute=s.alpha_by_position,
    ),
    Pattern(key="stable_rank", compute=s.stable_rank),
    Pattern(key="entropy", compute=s.entropy),
    Pattern(key="effective_rank", compute=s.effective_rank),
    Pattern(key="value_entropy", compute=s.value_entropy),
    Pattern(key="frobenius_norm", compute=s.frobenius_norm),
    Pattern(key="rms", compute=s.rms),
    Pattern(key="spectral_norm", compute=s.spectral_norm),
    *(
        Pattern(
            key=f"pca_energy_{name}" if centred else f"pca_energy_{name}_uncentred",
            compute=partial(s.energy, components=components, centred=centred),
        )
        for centred in (True, False)
        for name, components in NUM_COMPONENTS.items()
    ),
    Pattern(key=TOP_ENERGY, compute=top_energy),
    Pattern(key="pca_components_90", compute=s.components90),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerPatterns:
    """Patterns of one layer."""

    name: str
    depth: float
    shape: tuple[int, int]
    estimates: Mapping[str, Estimate]
    """Estimates by key of `PATTERNS`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPatterns:
    """Patterns of the model of one trial."""

    backbone: str
    optimizer: str
    trial: str
    layers: tuple[LayerPatterns, ...]
    is_start: bool = False
    """Whether of the weights that the trial began with, before any step."""

    def profile(self, key: str) -> Array:
        """Return a pattern over the layers that have it: [layers, 2], depth and value."""
        found = [(layer.depth, layer.estimates[key].value) for layer in self.layers]
        return np.array([(depth, value) for depth, value in found if value is not None]).reshape(-1, 2)

    def share_within(self, key: str, low: float, high: float) -> Estimate:
        """Return the share of the layers that have the pattern whose value lies between two thresholds."""
        values = self.profile(key)[:, 1]
        if len(values) == 0:
            return Estimate(value=None, reason=Reason.TOO_FEW_EIGS)
        method = f"of {len(values)} of {len(self.layers)} layers"
        return Estimate(value=float(np.mean((values >= low) & (values <= high))), method=method)

    def summary(self, key: str) -> Estimate:
        """Return the median over the layers that have the pattern; the interval is their quartiles."""
        values = self.profile(key)[:, 1]
        if len(values) == 0:
            return Estimate(value=None, reason=Reason.TOO_FEW_EIGS)
        lo, middle, hi = (float(value) for value in np.quantile(values, (0.25, 0.5, 0.75)))
        method = f"median and quartiles of {len(values)} of {len(self.layers)} layers"
        return Estimate(value=middle, lo=lo, hi=hi, level=0.5, method=method, counts=Counts(n_trials=1, n_seeds=1))


def measure(layer: Layer, components: int = COMPONENTS) -> LayerPatterns:
    """Compute all patterns of a layer."""
    rows, columns = layer.weight.shape
    estimates = {pattern.key: pattern.compute(layer) for pattern in PATTERNS}
    estimates[TOP_ENERGY] = top_energy(layer, components)
    return LayerPatterns(name=layer.name, depth=layer.depth, shape=(rows, columns), estimates=estimates)


def contrast(first: Sequence[RunPatterns], second: Sequence[RunPatterns], key: str) -> Estimate:
    """Estimate how much larger a pattern is in the second group of runs than in the first, layer by layer.

    Args:
        first: one run a seed, of one cell.
        second: the same of another cell of the same backbone.

    Returns:
        The difference of the groups' means of each run's median deviation, over the layers that all runs share, from
        the layer's mean over all runs; Welch's interval over seeds where each group has two or more.
    """
    values = _shared_layers([*first, *second], key)
    counts = Counts(n_trials=len(values), n_seeds=min(len(first), len(second)))
    if values.shape[1] == 0:
        return Estimate(value=None, reason=Reason.TOO_FEW_EIGS, counts=counts)
    deviation = np.median(values - values.mean(axis=0), axis=1)
    groups = deviation[: len(first)], deviation[len(first) :]
    difference = float(groups[1].mean() - groups[0].mean())
    method = f"median over {values.shape[1]} paired layers"
    if min(len(first), len(second)) < 2:
        return Estimate(value=difference, method=method, counts=counts, reason=Reason.TOO_FEW_REPLICATES)
    sds = float(groups[0].std(ddof=1)), float(groups[1].std(ddof=1))
    lo, hi = welch_interval(difference, sds, (len(first), len(second)))
    return Estimate(value=difference, lo=lo, hi=hi, method=f"{method}, Welch's t over seeds", counts=counts)


def _shared_layers(runs: Sequence[RunPatterns], key: str) -> Array:
    """Return values [runs, layers] of the layers in which every run has the pattern."""
    found = [{layer.name: layer.estimates[key].value for layer in run.layers} for run in runs]
    shared = [name for name in found[0] if all(values.get(name) is not None for values in found)]
    return np.array([[values[name] for name in shared] for values in found], dtype=float)
