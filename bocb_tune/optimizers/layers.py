"""Layer decay: smaller learning rates for layers nearer to the image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from timm.models import group_parameters
from timm.optim import auto_group_layers
from torch import nn


def lr_shares(model: nn.Module, factor: float) -> dict[nn.Parameter, float]:
    """Compute each parameter's share of the learning rate: `factor` ** (number of layers after its own).

    The last layer gets 1. Layers are timm's: by the model's `group_matcher`, else blocks in order of definition
    (arXiv:2106.08254).

    Raises:
        ValueError: for a model that is all one layer.
    """
    matcher: Any = getattr(model, "group_matcher", None)
    layers: Mapping[str, int] = (
        group_parameters(model, matcher(coarse=False), reverse=True) if matcher else auto_group_layers(model)
    )
    last = max(layers.values())
    if last == 0:
        raise ValueError(
            f"recipe field 'layer_decay' is {factor:g}, but all parameters of {type(model).__name__} are one layer to "
            "timm, so it would do nothing; leave it at 1"
        )
    return {parameter: factor ** (last - layers.get(name, last)) for name, parameter in model.named_parameters()}


def split_by_layer(
    groups: Sequence[Mapping[str, Any]], shares: Mapping[nn.Parameter, float], lr: float
) -> list[dict[str, Any]]:
    """Split each group of parameters by their share of the learning rate, which each part holds as its `lr`."""
    return [
        {**group, "params": [p for p in group["params"] if shares[p] == share], "lr": lr * share}
        for group in groups
        for share in sorted({shares[p] for p in group["params"]}, reverse=True)
    ]
