"""AlexNet in its one-column form (arXiv:1404.5997), as torchvision has it, for timm, which lacks it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import nn
from torchvision import models


class AlexNet(models.AlexNet):  # type: ignore[misc]
    """torchvision's, for any number of channels, with what timm's tools ask of a model."""

    def __init__(self, *, num_classes: int = 1000, in_chans: int = 3, drop_rate: float = 0.5) -> None:
        super().__init__(num_classes, dropout=drop_rate)
        if in_chans != 3:
            self.features[0] = nn.Conv2d(in_chans, 64, 11, stride=4, padding=2)
        self.num_classes, self.num_features = num_classes, 256
        taps = [("features.1", 64, 4), ("features.4", 192, 8), ("features.11", 256, 16), ("features.12", 256, 32)]
        self.feature_info: list[dict[str, Any]] = [
            {"module": module, "num_chs": width, "reduction": r} for module, width, r in taps
        ]

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """Return features [batch, 256, height / 32, width / 32], sizes rounded down."""
        features: torch.Tensor = self.features(x)
        return features

    def forward_intermediates(
        self, x: torch.Tensor, indices: Sequence[int] = (0, 1, 2, 3), intermediates_only: bool = False
    ) -> Any:
        """Return the last features and the list of those at the taps `indices`, or these alone."""
        found = {}
        for name, layer in self.features.named_children():
            found[f"features.{name}"] = x = layer(x)
        maps = [found[self.feature_info[index]["module"]] for index in indices]
        return maps if intermediates_only else (x, maps)

    def prune_intermediate_layers(
        self,
        indices: Sequence[int] = (3,),
        prune_norm: bool = False,  # noqa: ARG002
        prune_head: bool = True,
    ) -> list[int]:
        """Take the head away; the last of the features is always among those taken."""
        if prune_head:
            self.classifier = nn.Sequential()
        return list(indices)

    def get_classifier(self) -> nn.Module:
        """Return the last linear layer."""
        classifier: nn.Module = self.classifier[-1]
        return classifier

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:  # noqa: ARG002
        """Put in a fresh last layer for other classes; 0 takes it away."""
        self.num_classes = num_classes
        self.classifier[-1] = nn.Linear(4096, num_classes) if num_classes else nn.Identity()

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:  # noqa: ARG002
        """Return the depth of every parameter, for timm's layer decay."""
        return {"stem": r"^features\.0\.", "blocks": r"^features\.(\d+)", "head": r"^classifier\.(\d+)"}


default_cfgs = generate_default_cfgs(
    {"alexnet": {"first_conv": "features.0", "classifier": "classifier.6", "paper_ids": "arXiv:1404.5997"}}
)


@register_model  # type: ignore[untyped-decorator]
def alexnet(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Build AlexNet: 61.1 M parameters, 0.71 G multiplications at 224; images of at least 63 pixels."""
    feature_cfg = {"out_indices": (0, 1, 2, 3), "flatten_sequential": True}
    model: nn.Module = build_model_with_cfg(AlexNet, "alexnet", pretrained, feature_cfg=feature_cfg, **kwargs)
    return model
