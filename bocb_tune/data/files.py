"""Datasets of encoded images, decoded by worker processes."""

from __future__ import annotations

import contextlib
import logging
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor
from torch.utils.data import DataLoader, default_collate

from bocb_tune.core.files import CANNOT_BE_DECODED
from bocb_tune.core.types import derive_seed
from bocb_tune.data.base import Batch, Transform
from bocb_tune.data.contents import ImageSource
from bocb_tune.data.decode import MAX_UNREADABLE, UNREADABLE, RefusedImage, decode, no_limit
from bocb_tune.data.layout import Layout
from bocb_tune.data.split import Indices

logger = logging.getLogger(__name__)


class UnreadableImages(ValueError):
    """Too many image files cannot be decoded; the message names one."""


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
    loader_workers: int | None
    """Processes that decode, at most: 0 decodes in this one, None is as many as this one has threads."""
    pin_memory: bool
    max_pixels: int
    """Pixels of one image, at most; a larger one is refused."""

    in_chans: int = 3
    mean: tuple[float, ...] = IMAGENET_DEFAULT_MEAN
    std: tuple[float, ...] = IMAGENET_DEFAULT_STD
    in_memory: bool = False
    named: set[str] = field(default_factory=set)
    """Unreadable images the log has named."""

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
        """See `Dataset.batches`.

        Raises:
            UnreadableImages: if they are more than MAX_UNREADABLE of the plan.
            RefusedImage: for a sound image that cannot be read (see `bocb_tune.data.decode`).
        """
        assert transform is not None, "decoded images differ in size"
        planned, found = sum(map(len, plan)), set[str]()
        faults = set() if faults is None else faults
        for batch, unreadable, refused in self._loader(split, plan, transform, seed):
            for name, why in refused.items():
                raise RefusedImage(f"image {name} {why}")
            for name, why in unreadable.items():
                self._say(name, why)
            found.update(unreadable)
            faults.update(unreadable)
            if len(found) > _most_unreadable(planned):
                raise UnreadableImages(_too_many(found, unreadable, planned, split))
            if batch is not None:
                yield batch

    def _loader(self, split: str, plan: Sequence[Tensor], transform: Transform, seed: int) -> DataLoader[Any]:
        replaced = _most_unreadable(self.count(split)) if split == "train" else 0
        images = _Images(self.splits[split], transform, seed, replaced, self.max_pixels)
        return DataLoader(
            images,  # type: ignore[arg-type]
            batch_sampler=[part.tolist() for part in plan],
            num_workers=self._processes(),
            pin_memory=self.pin_memory,
            collate_fn=_collate,
            generator=torch.Generator(),  # its own, so that the loader leaves the global one alone
        )

    def _processes(self) -> int:
        """Count the processes that decode: never more than this one has threads, which are the CPUs it was given."""
        threads = torch.get_num_threads()
        return threads if self.loader_workers is None else min(self.loader_workers, threads)

    def _say(self, name: str, why: str) -> None:
        if name not in self.named:
            self.named.add(name)
            logger.warning("image %s %s: %s", name, CANNOT_BE_DECODED, why)


def _most_unreadable(images: int) -> int:
    """Return how many of some images may be unreadable."""
    return max(1, int(MAX_UNREADABLE * images))


def _too_many(found: set[str], last: Mapping[str, str], planned: int, split: str) -> str:
    name, why = next(iter(last.items()))
    return (
        f"image {name} cannot be decoded: {why}. It is one of {len(found)} among {planned} images to be read of "
        f"{split!r}; at most {_most_unreadable(planned)} may be unreadable. Restore or remove them"
    )


def load_files(layout: Layout, options: Mapping[str, Any], device: str) -> Files:
    """Return the images of a layout; `options` are resolved."""
    return Files(
        classes=layout.classes,
        splits={split: Split(source=layout.parts[part], indices=rows) for split, (part, rows) in layout.chosen.items()},
        image_size=options["image_size"],
        loader_workers=options.get("loader_workers"),
        pin_memory=device.startswith("cuda"),
        max_pixels=options["max_pixels"],
    )


Named = dict[str, str]
"""Reason why an image cannot be read, by its name."""
Sample = tuple[tuple[Tensor, int] | None, Named, Named]
"""Image and label, unless it cannot be read; the unreadable; the refused."""


class _Images:
    """Decoded and transformed images by index, each under random numbers of its own.

    Up to `replaced` unreadable images in a row are replaced by the next; a longer row is more than may be unreadable.
    """

    def __init__(self, split: Split, transform: Transform, seed: int, replaced: int, max_pixels: int) -> None:
        self.split, self.transform, self.seed = split, transform, seed
        self.replaced, self.max_pixels = replaced, max_pixels

    def __getitem__(self, index: int) -> Sample:
        unreadable: Named = {}
        for step in range(1 + self.replaced):
            at = int(self.split.indices[(index + step) % len(self.split.indices)])
            try:
                image = decode(self.split.source.open(at), self.max_pixels)
            except RefusedImage as error:
                return None, unreadable, {self.split.source.name(at): str(error)}
            except UNREADABLE as error:
                unreadable[self.split.source.name(at)] = str(error)
                continue
            with no_limit(), _seeded(derive_seed(self.seed, index)):
                return (self.transform(image), int(self.split.source.labels[at])), unreadable, {}
        return None, unreadable, {}


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed the global generators (transforms draw from all three), and restore them afterwards."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)  # torch.manual_seed would move the generators of GPUs too
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


def _collate(samples: Sequence[Sample]) -> tuple[Batch | None, Named, Named]:
    """Collate samples, and hand faults on as values: raised in a worker they would reach the user wrapped in a
    traceback.
    """
    unreadable = {name: why for _, faults, _ in samples for name, why in faults.items()}
    refused = {name: why for _, _, faults in samples for name, why in faults.items()}
    pairs = [pair for pair, _, _ in samples if pair is not None]
    if not pairs:
        return None, unreadable, refused
    images, labels = default_collate(pairs)
    return (images, labels), unreadable, refused
