"""Operations on the values of pixels, a batch at a time: images are uint8 [n, channels, height, width], amounts [n].

Equal, value by value, to what Pillow does to one image (ImageOps and ImageEnhance, as timm's RandAugment calls them).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def auto_contrast(images: Tensor) -> Tensor:
    """Stretch each channel to 0..255."""
    values = images.flatten(2)
    low, high = values.amin(2, keepdim=True).double(), values.amax(2, keepdim=True).double()
    scale = torch.full_like(low, 255).div((high - low).clamp(min=1))  # `255 / x` would be 255 * (1 / x)
    table = (_levels(images).double() * scale - low * scale).trunc().clamp(0, 255)
    return _look_up(images, torch.where(high > low, table, _levels(images).double()))


def equalize(images: Tensor) -> Tensor:
    """Give each channel a histogram as flat as can be."""
    counts = _histograms(images)
    last = counts.gather(2, torch.where(counts > 0, _levels(images), 0).amax(2, keepdim=True))
    step = (images.shape[2] * images.shape[3] - last).div(255, rounding_mode="floor")
    before = counts.cumsum(2) - counts
    table = (step.div(2, rounding_mode="floor") + before).div(step.clamp(min=1), rounding_mode="floor").clamp(max=255)
    return _look_up(images, torch.where(step > 0, table, _levels(images)))


def invert(images: Tensor) -> Tensor:
    return 255 - images


def posterize(images: Tensor, bits: Tensor) -> Tensor:
    """Keep the highest `bits` (whole numbers in 0..8) of each value."""
    return images & (256 - 2 ** (8 - bits.long())).to(torch.uint8)[:, None, None, None]


def solarize(images: Tensor, threshold: Tensor) -> Tensor:
    """Invert values from `threshold` (in 0..256) on."""
    return torch.where(images < threshold[:, None, None, None], images, 255 - images)


def solarize_add(images: Tensor, amount: Tensor) -> Tensor:
    """Add `amount` (whole numbers in 0..128) to values below 128."""
    added = (images + amount[:, None, None, None].short()).clamp(max=255).to(torch.uint8)
    return torch.where(images < 128, added, images)


def color(images: Tensor, factor: Tensor) -> Tensor:
    """Change the saturation: 0 is grey, 1 the image, 2 twice its saturation; as for all factors below."""
    return blend(_grey(images), images, factor)


def contrast(images: Tensor, factor: Tensor) -> Tensor:
    mean = (_grey(images).flatten(1).double().mean(1) + 0.5).floor().float()
    return blend(mean[:, None, None, None], images, factor)


def brightness(images: Tensor, factor: Tensor) -> Tensor:
    return blend(images.new_zeros(1), images, factor)


def sharpness(images: Tensor, factor: Tensor) -> Tensor:
    """Change the sharpness: 0 is Pillow's SMOOTH, a 3x3 mean with weight 5 in the middle, the border left as it is."""
    channels = images.shape[1]
    kernel = torch.ones(channels, 1, 3, 3, device=images.device)
    kernel[:, :, 1, 1] = 5
    smooth = images.clone()
    mean = functional.conv2d(images.float(), kernel, groups=channels) / 13
    smooth[:, :, 1:-1, 1:-1] = mean.round().to(torch.uint8)
    return blend(smooth, images, factor)


def blend(base: Tensor, images: Tensor, factor: Tensor) -> Tensor:
    """Blend `base` at factor 0 with the images at 1; cut off at 0 and 255, and rounded down."""
    mixed = base + factor.float()[:, None, None, None] * (images.float() - base)
    return mixed.clamp_(0, 255).to(torch.uint8)


def _grey(images: Tensor) -> Tensor:
    """Return luma of ITU-R 601 in Pillow's fixed point, [n, 1, height, width]; one channel is grey already."""
    if images.shape[1] == 1:
        return images
    red, green, blue = images.int().unbind(1)
    return ((19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16)[:, None]


def _levels(images: Tensor) -> Tensor:
    return torch.arange(256, device=images.device)


def _histograms(images: Tensor) -> Tensor:
    """Return counts, int64 [n, channels, 256]."""
    n, channels = images.shape[:2]
    first = 256 * torch.arange(n * channels, device=images.device).view(n, channels, 1, 1)
    counts = torch.zeros(n * channels * 256, dtype=torch.int64, device=images.device)
    places = (images + first).flatten()
    return counts.scatter_add_(0, places, torch.ones_like(places)).view(n, channels, 256)  # bincount waits for a GPU


def _look_up(images: Tensor, table: Tensor) -> Tensor:
    """Replace each value by `table[image, channel, value]`."""
    return table.to(torch.uint8).gather(2, images.flatten(2).long()).view_as(images)
