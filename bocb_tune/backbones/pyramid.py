"""Parts that the families of this folder share: the shape of the network, and the layers more than one of them has."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from timm.models import build_model_with_cfg
from torch import nn

INPUT: dict[str, Any] = {"pool_size": (7, 7), "first_conv": "stages.0.embed.0", "classifier": "head.fc"}
"""Entries of timm's `default_cfg` of every pyramid, besides timm's own defaults."""


class Pyramid(nn.Module):
    """Images [batch, in_chans, height, width] to logits [batch, num_classes] through stages and a head.

    Stage i gives features [batch, widths[i], height / 2**(i + 2), width / 2**(i + 2)], sizes rounded up, and holds an
    `embed` (the downsampling), `blocks` and perhaps a `norm`.
    """

    def __init__(
        self, stages: Sequence[nn.Module], head: nn.Module, *, widths: Sequence[int], num_classes: int
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.num_features = widths[-1]
        self.feature_info = [
            {"num_chs": width, "reduction": 4 * 2**i, "module": f"stages.{i}"} for i, width in enumerate(widths)
        ]
        self.stages = nn.Sequential(*stages)
        self.head: Any = head

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """Return features of the last stage."""
        features: torch.Tensor = self.stages(x)
        return features

    def forward_intermediates(
        self, x: torch.Tensor, indices: Sequence[int] = (0, 1, 2, 3), intermediates_only: bool = False
    ) -> Any:
        """Return features of the last stage and the list of those of the stages `indices`, or these alone."""
        found = []
        for stage in self.stages:
            x = stage(x)
            found.append(x)
        maps = [found[index] for index in indices]
        return maps if intermediates_only else (x, maps)

    def prune_intermediate_layers(
        self,
        indices: Sequence[int] = (3,),
        prune_norm: bool = False,  # noqa: ARG002
        prune_head: bool = True,
    ) -> list[int]:
        """Take the head away; every stage is needed for the last, which is always among those taken."""
        if prune_head:
            self.head = nn.Identity()
        return list(indices)

    def forward_head(self, x: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        """Return logits of the last stage's features, or what the linear layer takes."""
        logits: torch.Tensor = self.head(x, pre_logits=pre_logits)
        return logits

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.forward_head(self.forward_features(x))

    def get_classifier(self) -> nn.Module:
        """Return the last linear layer."""
        classifier: nn.Module = self.head.fc
        return classifier

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Put in a fresh last layer for other classes; 0 takes it away."""
        self.num_classes = num_classes
        self.head.reset(num_classes, global_pool)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Return the depth of every parameter, for timm's layer decay: each block is a layer, an `embed` joins its
        first
        one.
        """
        blocks = [
            (r"^stages\.(\d+)\.embed", (0,)),
            (r"^stages\.(\d+)\.blocks\.(\d+)", None),
            (r"^stages\.(\d+)\.norm", (99999,)),
        ]
        return {"blocks": r"^stages\.(\d+)" if coarse else blocks}


def build(model: type[Pyramid], name: str, pretrained: bool, **arguments: Any) -> nn.Module:
    """Build what timm's `create_model` gives for the name; `features_only` cuts after each stage."""
    features = {"out_indices": (0, 1, 2, 3), "flatten_sequential": True}
    built: nn.Module = build_model_with_cfg(model, name, pretrained, feature_cfg=features, **arguments)
    return built


def depthwise(dim: int, kernel: int, *, dilation: int = 1, bias: bool = True) -> nn.Conv2d:
    """Build a convolution with one odd kernel a channel; it keeps height and width."""
    padding = dilation * (kernel // 2)
    return nn.Conv2d(dim, dim, kernel, padding=padding, dilation=dilation, groups=dim, bias=bias)


def halving(in_dim: int, dim: int) -> nn.Conv2d:
    """Build the 3 x 3 convolution of stride 2 that all three families downsample with."""
    return nn.Conv2d(in_dim, dim, 3, stride=2, padding=1)


def init_fan_out(module: nn.Module) -> None:
    """Initialise linear layers from a normal of 0.02, cut at 2; convolutions from a normal of variance 2 / fan-out of
    one group; biases with zero.
    """
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
    elif isinstance(module, nn.Conv2d):
        fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
    else:
        return
    if module.bias is not None:
        nn.init.zeros_(module.bias)
