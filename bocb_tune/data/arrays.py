"""Images in memory: tensors on the device they are trained on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bocb_tune.data.base import Batch, Transform
from bocb_tune.data.cifar import VARIANTS, read_cifar


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """A split: some of the images of a tensor."""

    images: Tensor
    """[images, channels, height, width]."""
    labels: Tensor
    """int64 [images]."""
    rows: Tensor
    """int64 [count]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrays:
    """A dataset whose images are tensors, raw ones as uint8."""

    num_classes: int
    in_chans: int
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    splits: Mapping[str, Rows]

    in_memory: bool = True

    def count(self, split: str) -> int:
        return len(self.splits[split].rows) if split in self.splits else 0

    def batches(
        self,
        split: str,
        plan: Sequence[Tensor],
        *,
        transform: Transform | None = None,
        seed: int = 0,  # noqa: ARG002
        faults: set[str] | None = None,  # noqa: ARG002
    ) -> Iterator[Batch]:
        """Images as they are stored: nothing is drawn here, and nothing can fail to be decoded."""
        assert transform is None, "images in memory are augmented on the device"
        chosen = self.splits[split]
        order = chosen.rows[torch.cat(list(plan)).to(chosen.rows.device) % len(chosen.rows)]
        for rows in torch.split(order, [len(part) for part in plan]):
            yield chosen.images.index_select(0, rows), chosen.labels[rows]


def load_arrays(name: str, options: Mapping[str, Any], device: str) -> Arrays:
    """CIFAR, raw; on the CPU the tensors are the files that all processes of the node map. `options` are resolved."""
    variant, stored = VARIANTS[name], read_cifar(name, options)
    images = {part: torch.from_numpy(array).to(device) for part, array in stored.images.items()}
    labels = {part: torch.from_numpy(array).to(device) for part, array in stored.labels.items()}
    return Arrays(
        num_classes=variant.num_classes,
        in_chans=3,
        image_size=32,
        mean=variant.mean,
        std=variant.std,
        splits={
            split: Rows(images=images[part], labels=labels[part], rows=torch.from_numpy(rows).to(device))
            for split, (part, rows) in stored.chosen.items()
        },
    )
