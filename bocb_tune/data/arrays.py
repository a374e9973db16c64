"""Images in memory: tensors on the device they are trained on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bocb_tune.data.base import Batch, Transform
from bocb_tune.data.split import Chosen, Indices


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
        """Yield images as they are stored: nothing is drawn here, and nothing can fail to be decoded."""
        assert transform is None, "images in memory are augmented on the device"
        chosen = self.splits[split]
        order = chosen.rows[to_device(torch.cat(list(plan)), chosen.rows.device) % len(chosen.rows)]
        for rows in torch.split(order, [len(part) for part in plan]):
            yield chosen.images.index_select(0, rows), chosen.labels[rows]


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Put a small tensor of the CPU on a device without waiting for it, as a copy from pageable memory would."""
    if device.type != "cuda" or tensor.is_cuda:
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def load_arrays(
    images: Mapping[str, NDArray[np.uint8]],
    labels: Mapping[str, Indices],
    chosen: Chosen,
    *,
    num_classes: int,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    device: str,
) -> Arrays:
    """Take images as they are stored; on the CPU the tensors are the files that all processes of the node map."""
    tensors = {part: torch.from_numpy(array).to(device) for part, array in images.items()}
    targets = {part: torch.from_numpy(array).to(device) for part, array in labels.items()}
    first = next(iter(images.values()))
    return Arrays(
        num_classes=num_classes,
        in_chans=first.shape[1],
        image_size=first.shape[2],
        mean=mean,
        std=std,
        splits={
            split: Rows(images=tensors[part], labels=targets[part], rows=torch.from_numpy(rows).to(device))
            for split, (part, rows) in chosen.items()
        },
    )
