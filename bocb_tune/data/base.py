"""What the loop asks of a dataset of labelled images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from torch import Tensor

Batch = tuple[Tensor, Tensor]
"""Images, float32 [batch, channels, height, width], and labels, int64 [batch]."""


class Dataset(Protocol):
    """Images in the splits `train`, `val` and `test`. Which image is in which split never depends on a trial."""

    @property
    def num_classes(self) -> int: ...

    @property
    def in_chans(self) -> int: ...

    @property
    def image_size(self) -> int:
        """Height and width in pixels."""
        ...

    def count(self, split: str) -> int:
        """Images in the split; 0 if the dataset has no such split."""
        ...

    def batches(self, split: str, plan: Sequence[Tensor], *, augment: str = "none", seed: int = 0) -> Iterator[Batch]:
        """One batch for each index tensor [batch] of `plan`, in its order.

        How image i is augmented is a pure function of `seed` and i, whoever asks for it and in which batch.
        """
        ...
