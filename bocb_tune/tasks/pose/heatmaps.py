"""Heat maps of keypoints: what a network is to give, and the keypoints in what it gave (arXiv:1804.06208, section 2).

Coordinates are continuous: the centre of the pixel in column i is at i + 1/2, so that a mirrored map needs no shift.
"""

from __future__ import annotations

import torch
from torch import Tensor

REACH = 3.0
"""Standard deviations of a keypoint's peak that have to lie at least in part within the map."""
OFFSET = 0.25
"""Pixels from the highest one towards the higher of its neighbours (arXiv:1603.06937, section 3.2)."""


def heat_maps(joints: Tensor, size: tuple[int, int], sigma: float) -> Tensor:
    """Draw a peak of height 1 at each keypoint: float32 [batch, K, height, width].

    Args:
        joints: [batch, K, 2], x and y in pixels of the map.
        size: height and width of the map.
        sigma: standard deviation of a peak in pixels of the map.
    """
    height, width = size
    rows, columns = (torch.arange(side, device=joints.device) + 0.5 for side in (height, width))
    across = torch.exp(-((columns - joints[..., :1]) ** 2) / (2 * sigma**2))
    down = torch.exp(-((rows - joints[..., 1:]) ** 2) / (2 * sigma**2))
    return down[..., :, None] * across[..., None, :]


def in_reach(joints: Tensor, size: tuple[int, int], sigma: float) -> Tensor:
    """Tell whose peak lies at least in part within the map: bool [batch, K]."""
    limits = torch.tensor(size[::-1], device=joints.device) + REACH * sigma
    return ((joints > -REACH * sigma) & (joints < limits)).all(-1)


def peaks(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Find the keypoints [batch, K, 2] in heat maps [batch, K, height, width], and the height of each peak [batch, K].

    A quarter of a pixel from the highest one, in each direction, towards the higher of its two neighbours.
    """
    height, width = maps.shape[-2:]
    heights, at = maps.flatten(2).max(-1)
    x, y = at % width, at // width
    padded = torch.nn.functional.pad(maps, (1, 1, 1, 1), mode="replicate").flatten(2)

    def value(dx: int, dy: int) -> Tensor:
        place = (y + 1 + dy) * (width + 2) + (x + 1 + dx)
        return padded.gather(-1, place[..., None])[..., 0]

    inner_x, inner_y = (x > 0) & (x < width - 1), (y > 0) & (y < height - 1)
    shift_x = torch.sign(value(1, 0) - value(-1, 0)) * inner_x
    shift_y = torch.sign(value(0, 1) - value(0, -1)) * inner_y
    found = torch.stack([x + 0.5 + OFFSET * shift_x, y + 0.5 + OFFSET * shift_y], dim=-1)
    return found, heights


def mean_of_mirrored(maps: Tensor, mirrored_maps: Tensor, mirrored: Tensor) -> Tensor:
    """Average heat maps of images with those of the mirrored images.

    Args:
        maps: [batch, K, height, width].
        mirrored_maps: of the images mirrored left to right.
        mirrored: [K], place of the keypoint that each becomes in a mirror.
    """
    return (maps + mirrored_maps.index_select(1, mirrored).flip(-1)) / 2


def heat_map_loss(maps: Tensor, wanted: Tensor, weights: Tensor) -> Tensor:
    """Return half the mean squared difference over all pixels, a keypoint without weight [batch, K] counting 0."""
    return ((maps.float() - wanted) ** 2 * weights[..., None, None]).mean() / 2
