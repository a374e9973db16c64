"""Additive fit of matrices by weighted least squares, many at once."""

from __future__ import annotations

import numpy as np

from bocb_tune.analysis.matrix.twoway import Matrix


def weighted_residuals(values: Matrix, weight: Matrix) -> Matrix:
    """Compute the residuals of an additive fit [..., backbones, optimizers]; cells of weight 0 are ignored."""
    return _fit(values, weight)[0]


def residuals_and_spare(values: Matrix, weight: Matrix) -> tuple[Matrix, Matrix]:
    """Compute the residuals and the share of a cell's variance, if that is 1 / weight, that is left in them."""
    left, system = _fit(values, weight)
    total = _total(weight)
    part = weight / total
    inverse = np.linalg.inv(system)
    through = part @ inverse
    own = np.diagonal(inverse, axis1=-2, axis2=-1)[..., None, :]
    leverage = weight * (1 / total + own - 2 * through + np.sum(through * part, axis=-1, keepdims=True))
    return left, np.clip(1 - leverage, 1e-6, 1.0)


def reduced_system(weight: Matrix) -> Matrix:
    """Build the normal equations of the optimizers, backbones adjusted for [..., optimizers, optimizers].

    They are singular: in each set of connected optimizers, one equation follows from the others.
    """
    columns = weight.sum(axis=-2)
    cross = np.swapaxes(weight, -1, -2) @ (weight / _total(weight))
    return np.asarray(np.eye(weight.shape[-1]) * columns[..., None, :] - cross)


def _fit(values: Matrix, weight: Matrix) -> tuple[Matrix, Matrix]:
    system = reduced_system(weight)
    # In each connected set a constant may be moved from backbones to optimizers: any positive number here fixes it.
    trace = np.trace(system, axis1=-2, axis2=-1)[..., None, None]
    system = system + np.where(trace > 0, trace / system.shape[-1] ** 2, 1.0) * _connected(weight)
    total = _total(weight)
    means = (weight * values).sum(axis=-1, keepdims=True) / total
    right = (weight * (values - means)).sum(axis=-2)
    optimizer = np.linalg.solve(system, right[..., None])[..., 0][..., None, :]
    backbone = (weight * (values - optimizer)).sum(axis=-1, keepdims=True) / total
    return values - backbone - optimizer, system


def _connected(weight: Matrix) -> Matrix:
    """Tell which optimizers are connected [..., optimizers, optimizers]: by a backbone that has weight on both, or by
    others; 1 or 0."""
    has_weight = (weight > 0).astype(float)
    linked = np.swapaxes(has_weight, -1, -2) @ has_weight + np.eye(weight.shape[-1])
    for _ in range((weight.shape[-1] - 1).bit_length()):
        linked = np.minimum(linked @ linked, 1.0)
    return np.asarray(np.minimum(linked, 1.0))


def _total(weight: Matrix) -> Matrix:
    """Add the weights of each backbone [..., backbones, 1]; 1 where there are none, so that division is safe."""
    total = weight.sum(axis=-1, keepdims=True)
    return np.where(total > 0, total, 1.0)
