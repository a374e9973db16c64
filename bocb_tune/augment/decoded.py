"""Augmentation of images decoded from files, one at a time in a loader's worker: by torchvision and timm."""

from __future__ import annotations

from typing import Any

from timm.data.auto_augment import RandAugment, rand_augment_ops
from timm.data.random_erasing import RandomErasing
from timm.data.transforms import str_to_pil_interp
from torchvision import transforms
from torchvision.transforms import InterpolationMode

from bocb_tune.augment.policy import OPERATIONS
from bocb_tune.data.base import Transform
from bocb_tune.training.recipes import Recipe


def image_transform(
    recipe: Recipe, size: int, *, train: bool, mean: tuple[float, ...], std: tuple[float, ...]
) -> Transform:
    """Make float32 [channels, size, size] of an image: augmented as the recipe says if `train`, else the middle of it.

    Draws from the global generators of Python, numpy and torch.
    """
    crops = train and recipe.augment == "flip_crop"
    place = _augmented(recipe, size, mean) if crops else _middle(recipe, size)
    erasing = [RandomErasing(recipe.erase, mode="pixel", device="cpu")] if crops and recipe.erase else []
    composed: Transform = transforms.Compose([*place, transforms.ToTensor(), transforms.Normalize(mean, std), *erasing])
    return composed


def _middle(recipe: Recipe, size: int) -> list[Any]:
    mode = InterpolationMode(recipe.interpolation)
    return [transforms.Resize(round(size / recipe.eval_crop), mode), transforms.CenterCrop(size)]


def _augmented(recipe: Recipe, size: int, mean: tuple[float, ...]) -> list[Any]:
    crop = transforms.RandomResizedCrop(
        size, scale=(recipe.crop_min_area, 1.0), interpolation=InterpolationMode(recipe.interpolation)
    )
    jitter = [transforms.ColorJitter(*[recipe.color_jitter] * 3)] if recipe.color_jitter else []
    policy = [_rand_augment(recipe, mean)] if recipe.rand_augment else []
    return [crop, transforms.RandomHorizontalFlip(), *policy, *jitter]


def _rand_augment(recipe: Recipe, mean: tuple[float, ...]) -> RandAugment:
    settings = {
        "magnitude_std": recipe.rand_augment_std,
        "img_mean": tuple(round(255 * value) for value in mean),
        "interpolation": str_to_pil_interp(recipe.interpolation),
    }
    operations = rand_augment_ops(recipe.rand_augment, hparams=settings, transforms=[row.name for row in OPERATIONS])
    for operation in operations:
        if operation.name == "PosterizeIncreasing":
            operation.level_fn = _bits
    return RandAugment(operations, recipe.rand_augment_layers)


def _bits(level: float, _settings: object) -> tuple[int]:
    """Return bits to keep; timm's own comes to 0 bits at level 10, which Pillow refuses."""
    return (max(1, 4 - int(level / 10 * 4)),)
