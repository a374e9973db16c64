"""Datasets of encoded images, decoded by worker processes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor

from bocb_tune.data.base import Batch, Transform
from bocb_tune.data.contents import ImageSource
from bocb_tune.data.decode import decode
from bocb_tune.data.layout import Layout
from bocb_tune.data.loader import Loader, UnreadableImages
from bocb_tune.data.split import Indices

__all__ = ["Files", "Split", "UnreadableImages", "load_files"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Some of the images of a source."""

    source: ImageSource
    indices: Indices


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """Encoded images, three channels whatever the files hold."""

    classes: Sequence[str]
    """A label is a place in here."""
    splits: Mapping[str, Split]
    image_size: int
    loader: Loader
    max_pixels: int
    """Pixels of one image, at most; a larger one is refused."""

    in_chans: int = 3
    mean: tuple[float, ...] = IMAGENET_DEFAULT_MEAN
    std: tuple[float, ...] = IMAGENET_DEFAULT_STD
    in_memory: bool = False

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    def count(self, split: str) -> int:
        return len(self.splits[split].indices) if split in self.splits else 0

    def batches(
        self,
        split: str,
        plan: Sequence[Tensor],
        *,
        transform: Transform | None = None,
        seed: int = 0,
        faults: set[str] | None = None,
    ) -> Iterator[Batch]:
        """See `Dataset.batches`; raises as `Loader.batches` does."""
        assert transform is not None, "decoded images differ in size"
        images = _Images(self.splits[split], transform, self.max_pixels)
        return self.loader.batches(images, split, plan, seed=seed, faults=faults)


def load_files(layout: Layout, options: Mapping[str, Any], device: str) -> Files:
    """Return the images of a layout; `options` are resolved."""
    return Files(
        classes=layout.classes,
        splits={split: Split(source=layout.parts[part], indices=rows) for split, (part, rows) in layout.chosen.items()},
        image_size=options["image_size"],
        loader=Loader(workers=options.get("loader_workers"), pin_memory=device.startswith("cuda")),
        max_pixels=options["max_pixels"],
    )


@dataclass(frozen=True, slots=True)
class _Images:
    """Transformed images of a split with their labels."""

    split: Split
    transform: Transform
    max_pixels: int

    def __len__(self) -> int:
        return len(self.split.indices)

    def name(self, index: int) -> str:
        return self.split.source.name(int(self.split.indices[index]))

    def read(self, index: int) -> Image.Image:
        return decode(self.split.source.open(int(self.split.indices[index])), self.max_pixels)

    def made(self, decoded: Image.Image, index: int) -> tuple[Tensor, int]:
        return self.transform(decoded), int(self.split.source.labels[self.split.indices[index]])
