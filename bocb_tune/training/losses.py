"""Classification losses, by the recipe's `loss`."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional

from bocb_tune.training.recipes import Loss

LossFunction = Callable[[Tensor, Tensor, float], Tensor]
"""Mean loss of logits [batch, classes], targets and label smoothing. Targets are labels, int64 [batch], or the shares
of the classes in mixed images, float [batch, classes]."""


def cross_entropy(logits: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    """Compute the mean cross-entropy; smoothing spreads its share of the target evenly over all classes.

    Source: arXiv:1512.00567, section 7.
    """
    return functional.cross_entropy(logits, targets, label_smoothing=smoothing)


def binary_cross_entropy(logits: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    """Average over images and classes, each class being a yes-or-no question of its own (arXiv:2110.00476).

    Every class present in a mixed image is a full yes, whatever its share. With smoothing e and K classes a yes
    becomes 1 - e + e/K and a no e/K, as in timm's `BinaryCrossEntropy`.
    """
    classes = logits.shape[1]
    if targets.ndim == 1:
        targets = functional.one_hot(targets, classes)
    yes = (targets > 0).to(logits.dtype)
    return functional.binary_cross_entropy_with_logits(logits, yes * (1 - smoothing) + smoothing / classes)


LOSSES: dict[Loss, LossFunction] = {"ce": cross_entropy, "bce": binary_cross_entropy}
