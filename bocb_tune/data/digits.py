"""scikit-learn's digits, in memory. One channel, as the images have: every image backbone of timm can be built so."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional

from bocb_tune.data.arrays import Arrays, Rows

HELD_OUT = 300
"""Images in the validation split, and as many in the test split, drawn in equal proportion from each class."""


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
        mean=(mean.item(),),
        std=(std.item(),),
        splits={
            name: Rows(images=images, labels=targets, rows=torch.from_numpy(index).to(device))
            for name, index in splits.items()
        },
    )
