"""Folders of images, decoded by worker processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from PIL import Image
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor
from torch.utils.data import DataLoader, default_collate
from torchvision import transforms

from bocb_tune.data.base import Batch
from bocb_tune.data.layout import Item, Layout, scan
from bocb_tune.types import derive_seed


class UnreadableImage(ValueError):
    """An image file that cannot be decoded; the message names it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Folders:
    """A dataset of image files, three channels whatever the files hold."""

    layout: Layout
    image_size: int
    loader_workers: int
    """Processes that decode; 0 decodes in this one."""
    pin_memory: bool

    in_chans: int = 3

    @property
    def num_classes(self) -> int:
        return len(self.layout.classes)

    def count(self, split: str) -> int:
        return len(self.layout.splits.get(split, ()))

    def batches(self, split: str, plan: Sequence[Tensor], *, augment: str = "none", seed: int = 0) -> Iterator[Batch]:
        loader: DataLoader[Any] = DataLoader(
            _Images(self.layout.splits[split], _transform(self.image_size, augment), seed),  # type: ignore[arg-type]
            batch_sampler=[part.tolist() for part in plan],
            num_workers=self.loader_workers,
            pin_memory=self.pin_memory,
            collate_fn=_collate,
            generator=torch.Generator(),  # its own, so that the loader leaves the global one alone
        )
        for batch in loader:
            if isinstance(batch, UnreadableImage):
                raise batch
            yield batch


@lru_cache(maxsize=4)
def load_folder(options: tuple[tuple[str, Any], ...], device: str) -> Folders:
    """`options` are the resolved ones, as sorted pairs."""
    resolved = dict(options)
    return Folders(
        layout=scan(resolved),
        image_size=resolved["image_size"],
        loader_workers=resolved["loader_workers"],
        pin_memory=device.startswith("cuda"),
    )


class _Images:
    """Decoded and transformed images by index, each under random numbers of its own."""

    def __init__(self, items: Sequence[Item], transform: transforms.Compose, seed: int) -> None:
        self.items, self.transform, self.seed = items, transform, seed

    def __getitem__(self, index: int) -> tuple[Tensor, int] | UnreadableImage:
        path, label = self.items[index]
        try:
            with Image.open(path) as file:
                image = file.convert("RGB")
        except (OSError, SyntaxError, ValueError) as error:  # what Pillow raises, by format, for damaged files
            return UnreadableImage(f"image {path} cannot be decoded: {error}")
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(derive_seed(self.seed, index))
            return self.transform(image), label


def _collate(samples: Sequence[tuple[Tensor, int] | UnreadableImage]) -> Batch | UnreadableImage:
    """An error is handed on as a value: raised in a worker it would reach the user wrapped in a traceback."""
    for sample in samples:
        if isinstance(sample, UnreadableImage):
            return sample
    images, labels = default_collate(list(samples))
    return images, labels


def _transform(image_size: int, augment: str) -> transforms.Compose:
    """Plain: the middle 7/8 of the short side. flip_crop: a random 8-100 % of the area (arXiv:1409.4842, section 6)."""
    plain = [transforms.Resize(round(image_size / 0.875)), transforms.CenterCrop(image_size)]
    random = [transforms.RandomResizedCrop(image_size), transforms.RandomHorizontalFlip()]
    normalise = transforms.Normalize(IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
    return transforms.Compose([*(random if augment == "flip_crop" else plain), transforms.ToTensor(), normalise])
