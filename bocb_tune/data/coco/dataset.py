"""Images with their objects as tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor

from bocb_tune.data import load_dataset
from bocb_tune.data.coco.outlines import mask_of
from bocb_tune.data.coco.parts import AnnotatedPart
from bocb_tune.data.decode import RefusedImage, decode
from bocb_tune.data.loader import Loader

Target = dict[str, Any]
"""Objects of an image: see `ObjectImages`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectImages:
    """Images of a split by index, each a pair of the image, uint8 [3, height, width], and its target.

    The target holds `image_id` (int), and for its n objects `boxes` (float32 [n, 4], x1, y1, x2, y2 in pixels),
    `labels` (int64 [n], places among the classes), `area` (float32 [n]), `iscrowd` (bool [n]); where asked for, `masks`
    (uint8 [n, height, width]) and `keypoints` (float32 [n, K, 3], see `Annotations.keypoints`).
    """

    part: AnnotatedPart
    max_pixels: int
    masks: bool = False
    keypoints: bool = False
    crowds: bool = False
    """Whether crowds are among the objects; no model is trained on them."""

    def __len__(self) -> int:
        return len(self.part.images)

    def name(self, index: int) -> str:
        """Return what a user finds the image by."""
        return self.part.name(index)

    def size(self, index: int) -> tuple[int, int]:
        """Return height and width as they are annotated, in pixels; nothing is decoded."""
        width, height = self.part.annotations.sizes[self.part.images[index]].tolist()
        return height, width

    def __getitem__(self, index: int) -> tuple[Tensor, Target]:
        """Decode an image.

        Raises:
            RefusedImage: if it is not as large as annotated, or too large.
            OSError, ValueError: and others of Pillow, if it is damaged.
        """
        return torch.from_numpy(self.pixels(index)).permute(2, 0, 1).contiguous(), self.target(index)

    def read(self, index: int) -> tuple[Tensor, Target]:
        """Decode an image, as `bocb_tune.data.loader.SampleSource` does."""
        return self[index]

    def pixels(self, index: int) -> Any:
        """Decode an image to uint8 [height, width, 3]; raises as `__getitem__` does."""
        image = decode(self.part.open(index), self.max_pixels)
        height, width = self.size(index)
        if image.size != (width, height):
            raise RefusedImage(
                f"has {image.width} x {image.height} pixels, and {width} x {height} by {self.part.annotations.path}, "
                "so that its boxes lie elsewhere; correct 'width' and 'height' there, or restore the image"
            )
        return np.array(image)

    def target(self, index: int) -> Target:
        """Return what is annotated of an image; nothing is decoded."""
        annotations, at = self.part.annotations, int(self.part.images[index])
        places = np.arange(len(annotations.labels))[annotations.objects(at)]
        if not self.crowds:
            places = places[~annotations.crowds[places]]
        target: Target = {
            "image_id": int(annotations.image_ids[at]),
            "boxes": torch.from_numpy(annotations.boxes[places]).float(),
            "labels": torch.from_numpy(annotations.labels[places]),
            "area": torch.from_numpy(annotations.areas[places]).float(),
            "iscrowd": torch.from_numpy(annotations.crowds[places]),
        }
        if self.masks:
            target["masks"] = self._masks(at, places)
        if self.keypoints:
            target["keypoints"] = torch.from_numpy(annotations.keypoints[places])
        return target

    def _masks(self, at: int, places: Any) -> Tensor:
        width, height = self.part.annotations.sizes[at].tolist()
        drawn = [mask_of(self.part.annotations.outline(int(place)), width, height) for place in places]
        return torch.from_numpy(np.stack(drawn) if drawn else np.zeros((0, height, width), dtype=np.uint8))


@dataclass(frozen=True, kw_only=True)
class Coco:
    """A dataset of images with objects."""

    read: Callable[[bool], Mapping[str, AnnotatedPart]]
    """Parts by split; with outlines of the objects, if so asked."""
    max_pixels: int
    loader: Loader

    in_chans: int = 3
    mean: tuple[float, ...] = IMAGENET_DEFAULT_MEAN
    std: tuple[float, ...] = IMAGENET_DEFAULT_STD
    in_memory: bool = False

    @cached_property
    def parts(self) -> Mapping[str, AnnotatedPart]:
        """The parts, without outlines."""
        return self.read(False)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes; a label is a place in here."""
        return self.parts["train"].annotations.classes

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def category_ids(self) -> list[int]:
        """The category in the annotation files of each label."""
        ids: list[int] = self.parts["train"].annotations.category_ids.tolist()
        return ids

    def count(self, split: str) -> int:
        """Count the images of a split."""
        return len(self.parts[split].images) if split in self.parts else 0

    def images(self, split: str, *, masks: bool = False, keypoints: bool = False, crowds: bool = False) -> ObjectImages:
        """Return the images of a split, with what is asked for of their objects."""
        part = (self.read(True) if masks else self.parts)[split]
        return ObjectImages(part=part, max_pixels=self.max_pixels, masks=masks, keypoints=keypoints, crowds=crowds)


def load_coco(name: str, options: Mapping[str, Any], device: str) -> Coco:
    """Load a dataset of images with objects, as `load_dataset` does."""
    dataset: object = load_dataset(name, options, device)
    assert isinstance(dataset, Coco), name
    return dataset


def coco_of(read: Callable[[bool], Mapping[str, AnnotatedPart]], options: Mapping[str, Any], device: str) -> Coco:
    """Return the dataset of some parts; `options` are resolved."""
    loader = Loader(workers=options["loader_workers"], pin_memory=device.startswith("cuda"))
    return Coco(read=read, max_pixels=options["max_pixels"], loader=loader)
