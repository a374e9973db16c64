"""scikit-learn's digits, in memory. One channel, as the images have: every image backbone of timm can be built so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from bocb_tune.data.base import Batch

HELD_OUT = 300
"""Images in the validation split, and as many in the test split, drawn in equal proportion from each class."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrays:
    """A dataset whose images are tensors on the device they are trained on."""

    num_classes: int
    in_chans: int
    image_size: int
    splits: Mapping[str, Batch]

    def count(self, split: str) -> int:
        return len(self.splits[split][1]) if split in self.splits else 0

    def batches(self, split: str, plan: Sequence[Tensor], *, augment: str = "none", seed: int = 0) -> Iterator[Batch]:
        images, labels = self.splits[split]
        if augment == "shift":
            images = random_shift(images, self.image_size // 8, seed)
        order = torch.cat(list(plan)).to(images.device)
        for index in torch.split(order, [len(part) for part in plan]):
            yield images[index], labels[index]


def random_shift(images: Tensor, reach: int, seed: int) -> Tensor:
    """Each image [n, c, h, w] moved by up to `reach` pixels both ways, its border pixels repeated into the gap."""
    n, _, height, width = images.shape
    shifts = torch.randint(2 * reach + 1, (n, 2), generator=torch.Generator().manual_seed(seed)).to(images.device)
    padded = functional.pad(images, [reach] * 4, mode="replicate")
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)
    return windows[torch.arange(n, device=images.device), :, shifts[:, 0], shifts[:, 1]]


@lru_cache(maxsize=8)
def load_digits(image_size: int, split_seed: int, device: str) -> Arrays:
    """1,197 / 300 / 300 images resized bilinearly to `image_size`, to mean 0 and variance 1 over the training split."""
    from sklearn import datasets
    from sklearn.model_selection import train_test_split

    pixels, labels = datasets.load_digits(return_X_y=True)
    rest, test = train_test_split(np.arange(len(labels)), test_size=HELD_OUT, stratify=labels, random_state=split_seed)
    train, val = train_test_split(rest, test_size=HELD_OUT, stratify=labels[rest], random_state=split_seed)
    small = torch.from_numpy(pixels).float().reshape(-1, 1, 8, 8)
    images = functional.interpolate(small, size=image_size, mode="bilinear")
    std, mean = torch.std_mean(images[train])
    images, targets = ((images - mean) / std).to(device), torch.from_numpy(labels).long().to(device)
    splits = {"train": train, "val": val, "test": test}
    return Arrays(
        num_classes=10,
        in_chans=1,
        image_size=image_size,
        splits={name: (images[index], targets[index]) for name, index in splits.items()},
    )
