"""Protocol of a dataset of labelled images, as the loop uses it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from PIL import Image
from torch import Tensor

Batch = tuple[Tensor, Tensor]
"""Images [batch, channels, height, width] and labels, int64 [batch].

uint8 images are raw, on the device, still to be augmented and normalised there, a batch at a time; float32 images are
ready for a model.
"""

Transform = Callable[[Image.Image], Tensor]
"""Makes a float32 tensor [3, height, width], ready for a model, of a decoded RGB image; draws its random numbers from
the global generators of Python, numpy and torch, which are seeded anew for each image."""


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

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean of each channel over the training images, pixel values in 0..1: what raw images are normalised by."""
        ...

    @property
    def std(self) -> tuple[float, ...]:
        """Standard deviation, as `mean`."""
        ...

    @property
    def in_memory(self) -> bool:
        """Whether the images are tensors on the device; otherwise worker processes decode them, with a `Transform`."""
        ...

    def count(self, split: str) -> int:
        """Count the images of a split; 0 if the dataset has no such split."""
        ...

    def batches(
        self,
        split: str,
        plan: Sequence[Tensor],
        *,
        transform: Transform | None = None,
        seed: int = 0,
        faults: set[str] | None = None,
    ) -> Iterator[Batch]:
        """Yield one batch for each index tensor [batch] of `plan`, in its order.

        Index i is image i % count(split), so that larger indices are further views of an image. What `transform`
        draws is a pure function of `seed` and the index, whoever asks for it and in which batch. Images in memory
        take no transform.

        An image that cannot be decoded is named in `faults`. In the training split another takes its place, elsewhere
        it is left out.

        Raises:
            ValueError: if too many images cannot be decoded.
        """
        ...
