"""Landscapes whose surface is given, for what is computed from landscapes."""

from __future__ import annotations

import numpy as np

from bocb_tune.analysis.core.estimate import Counts
from bocb_tune.analysis.landscape.fit import Landscape
from bocb_tune.analysis.landscape.surface import Domain, SettingGrid, argmax
from tests.support.coverage.landscapes import BOX, VALIDATION, StoredDraws, Surface, normal_noise


def landscape(
    surface: Surface,
    *,
    domain: Domain = BOX,
    spread: float = 0.2,
    noise: float = 0.3,
    num_draws: int = 40,
    floor: float = 1.0,
    seed: int = 0,
    divergence: Surface | None = None,
) -> Landscape:
    """A landscape whose mean is the surface, and whose draws are it moved up and down by `spread` points."""
    grid = SettingGrid(domain=domain)
    u, v = grid.u[:, None], grid.v[None, :]
    mean = np.broadcast_to(surface(u, v), grid.shape).astype(float)
    shift = np.random.default_rng(seed).normal(0, spread, num_draws // 2)
    shift = np.concatenate([shift, -shift])
    draws = (mean + shift[:, None, None]).astype(np.float32)
    p = np.zeros(grid.shape) if divergence is None else np.broadcast_to(divergence(u, v), grid.shape)
    return Landscape(
        grid=grid,
        mean=mean,
        surfaces=StoredDraws(values=draws),
        peaks=argmax(draws),
        divergence=p,
        divergence_lr=np.full(num_draws, domain.lr[1] + 1.0),
        log_steepness=np.zeros(num_draws),
        floor=floor,
        noise=noise,
        residuals=normal_noise(noise),
        validation=VALIDATION,
        counts=Counts(n_trials=64, n_completed=12, n_stopped=48, n_diverged=4),
    )
