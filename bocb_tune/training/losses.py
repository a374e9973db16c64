"""Losses of a classification, by the recipe's `loss`."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional

from bocb_tune.training.recipes import Loss

LossFunction = Callable[[Tensor, Tensor, float], Tensor]
"""Mean loss of logits [batch, classes], targets and label smoothing; targets are labels, int64 [batch], or the shares
of the classes in mixed images, float [batch, classes]."""


def cross_entropy(logits: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    """Smoothing spreads its share of the target evenly over all classes (arXiv:1512.00567, section 7)."""
    return functional.cross_entropy(logits, targets, label_smoothing=smoothing)


def binary_cross_entropy(logits: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    """Mean over images and classes, each class a yes or no of its own (arXiv:2110.00476).

    Every class that is in a mixed image is a full yes, whatever its share. Smoothing e of K classes makes a yes
    1 - e + e/K and a no e/K, as timm's `BinaryCrossEntropy` does.
    """
    classes = logits.shape[1]
    if targets.ndim == 1:
        targets = functional.one_hot(targets, classes)
    yes = (targets > 0).to(logits.dtype)
    return functional.binary_cross_entropy_with_logits(logits, yes * (1 - smoothing) + smoothing / classes)


LOSSES: dict[Loss, LossFunction] = {"ce": cross_entropy, "bce": binary_cross_entropy}
