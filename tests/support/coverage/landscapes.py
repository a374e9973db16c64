"""Landscapes with exact answers, and trials simulated on them as a search under early stopping would run them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit, ndtri

from bocb_tune.analysis.core.arrays import Index
from bocb_tune.analysis.core.estimate import Counts
from bocb_tune.analysis.landscape.fit import Landscape
from bocb_tune.analysis.landscape.noise import NEIGHBOURS, Residuals
from bocb_tune.analysis.landscape.surface import Domain, SettingGrid, argmax
from bocb_tune.analysis.landscape.trials import CellTrials
from bocb_tune.analysis.landscape.validation import Validation

Array = NDArray[np.float64]
Surface = Callable[[Array, Array], Array]

BOX = Domain(lr=(-5.0, 0.0), weight_decay=(-6.0, -1.0))
BOX_WITH_ZERO = replace(BOX, zero_mass=0.15)
CENTRE = (-2.5, -3.5)
VALIDATION = Validation(
    num_trials=64,
    rmse=0.1,
    bias=0.0,
    spread=5.0,
    noise=0.1,
    standardised_sd=1.0,
    coverage90=0.9,
    rank_correlation=1.0,
    num_audit=0,
    audit_z=float("nan"),
)
"""Of a model that is as good as one may wish."""


@dataclass(frozen=True, kw_only=True)
class StoredDraws:
    """Draws of surfaces, stored as they are."""

    values: Array
    """[draws, lr, decay]"""

    def whole(self) -> Array:
        return self.values

    def at(self, row: Index, column: Index) -> Array:
        return self.values[:, row, column]


def bowl(u: Array, v: Array, centre: tuple[float, float] = CENTRE) -> Array:
    """S1, in points."""
    return 90 - 100 * (0.08 * (u - centre[0]) ** 2 + 0.02 * (v - centre[1]) ** 2) / 2


def ridge(u: Array, v: Array, centre: tuple[float, float] = CENTRE) -> Array:
    """S2, in points."""
    p, q = (u - centre[0] + v - centre[1]) / np.sqrt(2), (u - centre[0] - v + centre[1]) / np.sqrt(2)
    return 90 - 100 * (0.08 * p**2 + 0.005 * q**2) / 2


def cliff(u: Array, v: Array) -> Array:
    """S3, in points: what diverges scores 1."""
    return np.where(u > -1.5, 1.0, bowl(u, v))


def on_grid(surface: Surface, nodes: int = 2000, domain: Domain = BOX) -> tuple[Array, SettingGrid]:
    """Values [lr, decay] on a grid fine enough for exact answers."""
    grid = SettingGrid(domain=domain, num_lr=nodes, num_decay=nodes)
    return surface(grid.u[:, None], grid.v[None, :]), grid


@dataclass(frozen=True, kw_only=True)
class Planted:
    """A landscape in logits with curves that cross and a cliff (S14)."""

    centre: tuple[float, float]
    hessian: tuple[float, float, float]
    """(uu, uv, vv), logits per decade squared."""
    crossing: float = 0.25
    cliff: float = -0.8
    """log10 lr at which half of the trials diverge."""
    domain: Domain = BOX_WITH_ZERO
    floor: float = 1.0

    def logit(self, u: Array, v: Array) -> Array:
        du, dv = u - self.centre[0], v - self.centre[1]
        uu, uv, vv = self.hessian
        q = (uu * du**2 + 2 * uv * du * dv + vv * dv**2) / 2
        return 1.4 - 2.5 * (1 - np.exp(-q / 2.5))

    def unlearnt(self, u: Array, share: Array) -> Array:
        return (share**-0.35 - 1) * np.maximum(0.1, 0.6 + self.crossing * (u - self.centre[0]))

    def divergence(self, u: Array) -> Array:
        return expit((u - self.cliff) / 0.12)

    def expected(self, u: Array, v: Array) -> Array:
        """Points at full budget."""
        p = self.divergence(u)
        return (1 - p) * 100 * expit(self.logit(u, v)) + p * self.floor

    def expected_on(self, grid: SettingGrid) -> Array:
        """The same on a grid [lr, decay]."""
        return self.expected(grid.u[:, None], grid.v[None, :])


@dataclass(frozen=True, kw_only=True)
class Textbook(Planted):
    """A surface in points, with the same curves; whatever lies beyond the cliff diverges, and nothing else."""

    surface: Callable[..., Array]
    """Of u, v and the centre."""
    centre: tuple[float, float] = CENTRE
    hessian: tuple[float, float, float] = (0.0, 0.0, 0.0)
    domain: Domain = BOX
    cliff: float = float("inf")

    def logit(self, u: Array, v: Array) -> Array:
        return np.asarray(logit(self.surface(u, v, self.centre) / 100))

    def divergence(self, u: Array) -> Array:
        return np.where(u > self.cliff, 1.0, 0.0)

    def moved(self, decades: float) -> Textbook:
        """With its optimum at another learning rate."""
        return replace(self, centre=(self.centre[0] + decades, self.centre[1]))


BOWL = Planted(centre=(-2.6, -3.3), hessian=(1.6, 0.0, 0.25))
RIDGE = Planted(centre=(-2.2, -3.0), hessian=(0.9, 0.72, 0.9))
S1, S2, S3 = Textbook(surface=bowl), Textbook(surface=ridge), Textbook(surface=bowl, cliff=-1.5)
HARD = Planted(centre=(-1.6, -3.0), hessian=(1.2, 0.0, 0.2), crossing=0.45)


def simulate(
    planted: Planted,
    count: int,
    seed: int,
    *,
    rungs: tuple[float, ...] = (1 / 9, 1 / 3, 1.0),
    eta: float = 3.0,
    stop: bool = True,
    audit: float = 0.1,
    noise: tuple[float, float] = (0.05, 0.03),
) -> CellTrials:
    """Random search under asynchronous halving that stops a trial below the (1 - 1/eta) quantile of its rung so far."""
    rng = np.random.default_rng(seed)
    domain = planted.domain
    u, v = rng.uniform(*domain.lr, count), rng.uniform(*domain.weight_decay, count)
    zero = rng.random(count) < domain.zero_mass
    diverged = rng.random(count) < planted.divergence(u)
    exempt = rng.random(count) < audit
    base = planted.logit(u, np.where(zero, domain.zero_at, v)) + noise[0] * rng.standard_normal(count)
    seen: dict[float, list[float]] = {rung: [] for rung in rungs}
    share, trial, at, score = np.zeros(count), [], [], []
    for i in range(count):
        if diverged[i]:
            seen[rungs[0]].append(-np.inf)
            share[i] = rungs[0]
            continue
        for rung in rungs:
            value = float(base[i] - planted.unlearnt(u[i], np.array(rung)) + noise[1] * rng.standard_normal())
            trial.append(i)
            at.append(rung)
            score.append(100 * expit(value))
            share[i] = rung
            seen[rung].append(value)
            if stop and not exempt[i] and rung < 1 and value < np.quantile(seen[rung], 1 - 1 / eta, method="lower"):
                break
    return CellTrials(
        lr=10**u,
        weight_decay=np.where(zero, 0.0, 10**v),
        diverged=diverged,
        completed=~diverged & (share == 1),
        audit=exempt,
        share=share,
        record_trial=np.array(trial, dtype=np.intp),
        record_share=np.array(at),
        record_score=np.array(score),
    )


def normal_noise(sd: float) -> Residuals:
    """The same everywhere, at the middles of equal parts of its distribution."""
    middles = ndtri((np.arange(NEIGHBOURS) + 0.5) / NEIGHBOURS)
    return Residuals(x=np.zeros((NEIGHBOURS, 2)), value=sd * middles / middles.std())


def exact(
    surface: Surface, *, domain: Domain = BOX, nodes: int = 801, divergence_lr: float = 10.0, diverged: int = 0
) -> Landscape:
    """The landscape one would have if nothing were uncertain."""
    values, grid = on_grid(surface, nodes, domain)
    return Landscape(
        grid=grid,
        mean=values,
        surfaces=StoredDraws(values=np.repeat(values[None], 3, axis=0)),
        peaks=argmax(np.repeat(values[None], 3, axis=0)),
        divergence=np.repeat((grid.u > divergence_lr).astype(float)[:, None], len(grid.v), axis=1),
        divergence_lr=np.full(3, divergence_lr),
        log_steepness=np.full(3, 10.0),
        floor=1.0,
        noise=0.1,
        residuals=normal_noise(0.1),
        validation=VALIDATION,
        counts=Counts(n_trials=64, n_completed=20, n_stopped=44 - diverged, n_diverged=diverged),
    )
