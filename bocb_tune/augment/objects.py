"""Resizing and flips of an image together with the boxes and masks of its objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

Scene = tuple[Tensor, dict[str, Any]]
"""An image, uint8 [3, height, width], and its target (see `bocb_tune.data.coco.dataset`)."""

LEAST_SIDE = 0.01
"""Pixels of the sides of a box, at least: float32 cannot tell the ends of a narrower one apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneTransform:
    """Resizes a scene so that its shorter side becomes `shorter` pixels, but its longer one `longer` at most."""

    shorter: int
    longer: int
    shorter_from: int = 0
    """Least shorter side in training, drawn evenly from here to `shorter`; 0: always `shorter`."""
    flips: bool = False
    """Whether every other image is mirrored."""

    def __call__(self, scene: Scene) -> Scene:
        """Transform a scene; draws from torch's global generator."""
        image, target = scene
        if self.flips and torch.rand(()) < 0.5:
            image, target = mirrored(image, target)
        return resized(image, target, fitted(image.shape[-2:], self._shorter(), self.longer))

    def _shorter(self) -> int:
        if not self.shorter_from:
            return self.shorter
        return int(torch.randint(self.shorter_from, self.shorter + 1, ()))


def fitted(size: Sequence[int], shorter: int, longer: int) -> tuple[int, int]:
    """Compute height and width of an image whose shorter side is to be `shorter`, but its longer one `longer` at most;
    rounded down, as torchvision's detectors do.
    """
    scale = min(shorter / min(size), longer / max(size))
    height, width = (max(1, int(side * scale)) for side in size)
    return height, width


def resized(image: Tensor, target: dict[str, Any], size: tuple[int, int]) -> Scene:
    """Resize an image bilinearly, without smoothing, and its masks to the nearest pixel."""
    height, width = image.shape[-2:]
    factors = torch.tensor([size[1] / width, size[0] / height]).repeat(2)
    boxes = target["boxes"] * factors
    boxes[:, 2:] = torch.maximum(boxes[:, 2:], boxes[:, :2] + LEAST_SIDE)
    new = {**target, "boxes": boxes}
    if "masks" in target:
        new["masks"] = functional.interpolate(target["masks"][:, None], size=size, mode="nearest")[:, 0]
    pixels = functional.interpolate(image[None].float(), size=size, mode="bilinear", align_corners=False)[0]
    return pixels.round().to(torch.uint8), new


def mirrored(image: Tensor, target: dict[str, Any]) -> Scene:
    """Flip an image and its objects from left to right."""
    boxes = target["boxes"].clone()
    boxes[:, [0, 2]] = image.shape[-1] - target["boxes"][:, [2, 0]]
    new = {**target, "boxes": boxes}
    if "masks" in target:
        new["masks"] = target["masks"].flip(-1)
    return image.flip(-1), new
