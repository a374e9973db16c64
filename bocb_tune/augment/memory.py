"""Augmentation of images in memory, in batch and on their device."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from bocb_tune.augment.geometry import cropped, moved
from bocb_tune.augment.policy import Policy
from bocb_tune.data.arrays import to_device
from bocb_tune.data.base import Batch, Dataset
from bocb_tune.training.recipes import Recipe

CPU = torch.device("cpu")
VIEWS_AT_A_TIME = 1024
"""Fewest views that are augmented together: a kernel for each operation costs the same for one image or for many."""
VIEWS_ON_A_GPU = 8192
"""The same on a GPU, which is idle between kernels while there is little for each to do."""

NOISE_SHEETS = 256
ATTEMPTS = 10
"""Draws of a box that is to fit into an image before there is none."""
CROP_ASPECT = (3 / 4, 4 / 3)
"""Aspect ratios of random resized crops (arXiv:1409.4842, section 6), as in torchvision."""
ERASE_AREA = (0.02, 1 / 3)
ERASE_ASPECT = (0.3, 1 / 0.3)
"""Aspect ratios of random erasing: arXiv:1708.04896 and timm's `RandomErasing`, whose noise by pixel is ours too."""


def augmented(
    dataset: Dataset, plan: Sequence[Tensor], recipe: Recipe, seed: int, device: torch.device = CPU
) -> Iterator[Batch]:
    """Give training batches, float32 and ready for a model, one for each tensor of views [batch] of the plan.

    `device` is where the images of the dataset are.
    """
    views_there = dataset.count("train") * recipe.repeated_augment
    epoch = Epoch.draw(recipe, views_there, (dataset.in_chans, dataset.image_size, dataset.image_size), seed, device)
    for pieces in _chunks(plan, VIEWS_AT_A_TIME if device.type == "cpu" else VIEWS_ON_A_GPU):
        views, sizes = torch.cat(pieces), [len(piece) for piece in pieces]
        ((images, labels),) = dataset.batches("train", [views])
        images = epoch.look(images, views, dataset.mean)
        # In floats by the batch: they then stay in the processor's cache.
        for piece, batch, targets in zip(pieces, torch.split(images, sizes), torch.split(labels, sizes), strict=True):
            yield epoch.finish(batch, piece, dataset), targets


def _chunks(plan: Sequence[Tensor], at_a_time: int) -> Iterator[list[Tensor]]:
    chunk: list[Tensor] = []
    for piece in plan:
        chunk.append(piece)
        if sum(map(len, chunk)) >= at_a_time:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def normalise(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Scale uint8 [n, channels, height, width] to float32; `mean` and `std` of each channel are of values in 0..1."""
    shift, scale = (_by_channel(values, images.device) for values in (mean, std))
    return images.float().sub_(shift).div_(scale)


@lru_cache(maxsize=16)
def _by_channel(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Keep the values on the device: sending them with each batch would wait for the device each time."""
    return torch.tensor(values, device=device)[:, None, None] * 255


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """Everything that is drawn for the views of one epoch, on the CPU: a pure function of the seed.

    View v is image v % count; how it looks depends on neither its batch nor the rank that asks for it.
    """

    shift: Tensor
    """Pixels [views, 2]."""
    crop: Tensor | None
    """First row, first column, height and width [views, 4] of what is seen of each image; None: all of it."""
    flip: Tensor
    """[views]."""
    mirror: bool
    policy: Policy | None
    erasing: Erasing | None

    @classmethod
    def draw(
        cls,
        recipe: Recipe,
        views: int,
        shape: tuple[int, int, int],
        seed: int,
        device: torch.device = CPU,
    ) -> Epoch:
        """Draw what becomes of every view; `shape` is that of an image, (channels, height, width).

        `device` is where the images are.
        """
        generator = torch.Generator().manual_seed(seed)
        reach = shape[2] // 8 if recipe.augment in ("shift", "flip_shift") else 0
        shift = torch.randint(2 * reach + 1, (views, 2), generator=generator) - reach
        flips = recipe.augment in ("flip_shift", "flip_crop")
        flip = torch.rand(views, generator=generator) < 0.5 if flips else torch.zeros(views, dtype=torch.bool)
        crop = _crops(recipe.crop_min_area, views, shape[1:], generator) if recipe.augment == "flip_crop" else None
        policy = erasing = None
        if recipe.rand_augment:
            std, layers = recipe.rand_augment_std, recipe.rand_augment_layers
            policy = Policy.draw(views, recipe.rand_augment, std, layers, generator)
        if recipe.erase:
            erasing = Erasing.draw(recipe.erase, views, shape, generator, device)
        return cls(shift=shift, crop=crop, flip=flip, mirror=flips, policy=policy, erasing=erasing)

    def look(self, images: Tensor, views: Tensor, mean: tuple[float, ...]) -> Tensor:
        """Return image k as view `views[k]`, not yet normalised. Images that are floats, and so were ready, are only
        moved.
        """
        device = images.device
        shift, flip = (to_device(drawn[views], device) for drawn in (self.shift, self.flip))
        images = moved(images, shift, flip, mirror=self.mirror)
        if self.crop is not None:
            images = cropped(images, to_device(self.crop[views], device))
        if self.policy is None:
            return images
        return self.policy(images, views, _by_channel(mean, device).flatten().round())

    def finish(self, images: Tensor, views: Tensor, dataset: Dataset) -> Tensor:
        """Make what `look` gave ready for a model."""
        if images.dtype != torch.uint8:
            return images
        images = normalise(images, dataset.mean, dataset.std)
        return self.erasing(images, views) if self.erasing else images


@dataclass(frozen=True, slots=True, kw_only=True)
class Erasing:
    """Boxes of noise, for images normalised already."""

    box: Tensor
    """First row, first column, and those after the last, [views, 4]; empty where nothing is erased."""
    sheet: Tensor
    """Number of the noise, [views]: drawn apart for each view it would fill the memory of the epoch many times."""
    noise: Tensor
    """[sheets, channels, height, width], normal, on the device of the images."""

    @classmethod
    def draw(
        cls,
        probability: float,
        views: int,
        shape: tuple[int, int, int],
        generator: torch.Generator,
        device: torch.device = CPU,
    ) -> Erasing:
        """Draw area and aspect ratio until the box is smaller than the image both ways, ten times at most."""
        limits = torch.tensor(shape[1:])
        sides = _sides(ERASE_AREA, ERASE_ASPECT, views, shape[1:], generator)
        fits = (sides < limits).all(2)
        chosen = sides[torch.arange(views), fits.int().argmax(1)]
        erased = fits.any(1) & (torch.rand(views, generator=generator) < probability)
        chosen = torch.where(erased[:, None], chosen, 0)
        first = (torch.rand(views, 2, generator=generator) * (limits - chosen + 1)).floor()
        return cls(
            box=torch.cat([first, first + chosen], 1).long(),
            sheet=torch.randint(NOISE_SHEETS, (views,), generator=generator),
            noise=to_device(torch.randn(NOISE_SHEETS, *shape, generator=generator), device),
        )

    def __call__(self, images: Tensor, views: Tensor) -> Tensor:
        """Erase in place; image k is view `views[k]`."""
        box = self.box[views]
        rows = (box[:, 2] > box[:, 0]).nonzero()[:, 0]
        top, left, bottom, right = to_device(box[rows], images.device)[:, :, None, None].unbind(1)
        height, width = images.shape[2:]
        y = torch.arange(height, device=images.device)[:, None]
        x = torch.arange(width, device=images.device)
        inside = (y >= top) & (y < bottom) & (x >= left) & (x < right)
        noise = self.noise[to_device(self.sheet[views[rows]], images.device)]
        rows = to_device(rows, images.device)
        images[rows] = torch.where(inside[:, None], noise, images[rows])
        return images


def _crops(min_area: float, views: int, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Draw boxes [views, 4] as torchvision's `RandomResizedCrop` does; the whole image where none of ten fits."""
    limits = torch.tensor(size)
    sides = _sides((min_area, 1.0), CROP_ASPECT, views, size, generator)
    fits = (sides <= limits).all(2)
    chosen = torch.where(fits.any(1)[:, None], sides[torch.arange(views), fits.int().argmax(1)], limits)
    first = (torch.rand(views, 2, generator=generator) * (limits - chosen + 1)).floor()
    return torch.cat([first, chosen], 1)


def _sides(
    area: tuple[float, float],
    aspect: tuple[float, float],
    views: int,
    size: tuple[int, int],
    generator: torch.Generator,
) -> Tensor:
    """Draw whole heights and widths [views, ATTEMPTS, 2] of boxes: area as a share of the image, aspect ratio by its
    logarithm.
    """
    tries = (views, ATTEMPTS)
    pixels = _uniform(area, tries, generator) * (size[0] * size[1])
    ratio = _uniform((math.log(aspect[0]), math.log(aspect[1])), tries, generator).exp()
    return torch.stack([(pixels * ratio).sqrt().round(), (pixels / ratio).sqrt().round()], 2)


def _uniform(ends: tuple[float, float], shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return ends[0] + (ends[1] - ends[0]) * torch.rand(shape, generator=generator)
