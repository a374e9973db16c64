"""A backbone, and deconvolutions on its last map that give heat maps (arXiv:1804.06208, section 2)."""

from __future__ import annotations

import math
from itertools import pairwise

from torch import Tensor, nn

from bocb_tune.backbones.features import FeatureMaps, OnMaps

STRIDE = 4
"""Pixels of the image a side of a pixel of the heat maps."""
STARTING_STD = 0.001
"""Standard deviation of the first weights of the head (its code, `PoseResNet.init_weights`)."""


class PoseNetwork(OnMaps, nn.Module):
    """Images [batch, 3, height, width] to heat maps [batch, keypoints, height / 4, width / 4]."""

    maps_at = "maps"

    def __init__(self, maps: FeatureMaps, keypoints: int, channels: int) -> None:
        super().__init__()
        self.maps = maps
        doublings = int(math.log2(maps.strides[-1] / STRIDE))
        widths = [maps.channels[-1], *[channels] * doublings]
        pairs = pairwise(widths)
        self.deconvolutions = nn.Sequential(*(layer for pair in pairs for layer in _doubling(*pair)))
        self.last = nn.Conv2d(widths[-1], keypoints, 1)
        for module in (*self.deconvolutions, self.last):
            _begin(module)

    def forward(self, images: Tensor) -> Tensor:
        maps: Tensor = self.last(self.deconvolutions(self.maps(images)[-1]))
        return maps


def _doubling(in_channels: int, out_channels: int) -> tuple[nn.Module, ...]:
    """Build a deconvolution that doubles height and width."""
    layer = nn.ConvTranspose2d(in_channels, out_channels, 4, stride=2, padding=1, bias=False)
    return layer, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True)


def _begin(module: nn.Module) -> None:
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.normal_(module.weight, std=STARTING_STD)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
