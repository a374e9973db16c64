"""The additive fit of many matrices at once equals a plain least-squares fit of each, whatever cells are missing."""

from __future__ import annotations

import numpy as np
import pytest

from bocb_tune.analysis.matrix.noise import seed_noise
from bocb_tune.analysis.matrix.twoway import Matrix
from bocb_tune.analysis.matrix.weighted import residuals_and_spare, weighted_residuals


def reference(values: Matrix, weight: Matrix) -> tuple[Matrix, Matrix]:
    """Residuals and their share of each cell's variance, by dummy variables and a pseudo-inverse."""
    rows, columns = values.shape
    design = np.hstack([np.repeat(np.eye(rows), columns, axis=0), np.tile(np.eye(columns), (rows, 1))])
    root = np.sqrt(weight.ravel())[:, None]
    hat = root * design @ np.linalg.pinv(root * design)
    fitted = design @ np.linalg.pinv(root * design) @ (root[:, 0] * values.ravel())
    return (values.ravel() - fitted).reshape(values.shape), (1 - np.diagonal(hat)).reshape(values.shape)


@pytest.mark.parametrize("share", [0.15, 0.3, 0.6, 1.0])
@pytest.mark.parametrize("shape", [(1, 3), (3, 1), (3, 3), (6, 5)])
def test_the_fit_is_least_squares(shape: tuple[int, int], share: float) -> None:
    """Also where cells fall into sets that no backbone connects, and where a backbone or an optimizer has none."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(40, *shape))
    weight = rng.uniform(0.1, 10, values.shape) * (rng.random(values.shape) < share)
    residuals, (_, spare) = weighted_residuals(values, weight), residuals_and_spare(values, weight)
    for own, part, value, each in zip(residuals, spare, values, weight, strict=True):
        known = each > 0
        left, expected = reference(value, each)
        np.testing.assert_allclose(own[known], left[known], atol=1e-9)
        np.testing.assert_allclose(part[known], np.clip(expected[known], 1e-6, 1.0), atol=1e-6)


def test_noise_of_cells_that_share_no_line() -> None:
    """Three cells with seeds on a diagonal: each knows its own variance, and nothing breaks."""
    seeds = np.eye(3) * 3
    noise = seed_noise(np.diag([1.0, 2.0, 3.0]), seeds)
    assert noise is not None
    assert np.isfinite(noise.cell_variance).all()
    assert (np.diagonal(noise.cell_variance) > 0).all()
