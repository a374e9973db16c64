"""Boxes of objects cut out of their images, turned, scaled and mirrored at random to train on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import default_collate

from bocb_tune.data.coco.dataset import ObjectImages
from bocb_tune.tasks.pose.joints import Joints

PADDING = 1.25
"""Side of a crop in sides of the box (arXiv:1804.06208's code, `JointsDataset`)."""
TURNED = 0.6
"""Share of the training crops that are turned (as PADDING)."""

Floats = NDArray[np.float64]
Crop = tuple[Tensor, Tensor, Tensor, int]
"""Pixels, uint8 [3, height, width]; keypoints, float32 [K, 2], in pixels of the crop; whether each is labelled, bool
[K]; place of the object among all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CropWindow:
    """Part of an image that a crop shows."""

    centre: tuple[float, float]
    width: float
    height: float
    turn: float = 0.0
    """Radians, clockwise."""
    mirrors: bool = False

    def to_image(self, size: tuple[int, int]) -> Floats:
        """Return the affine map [2, 3] from pixels of a crop of `size`, height and width, to those of the image."""
        height, width = size
        x, y = self.width / width * (-1 if self.mirrors else 1), self.height / height
        cos, sin = np.cos(self.turn), np.sin(self.turn)
        linear = np.array([[cos * x, -sin * y], [sin * x, cos * y]])
        shift = np.array(self.centre) - linear @ (width / 2, height / 2)
        return np.concatenate([linear, shift[:, None]], axis=1)


def view_of(box: Floats, size: tuple[int, int]) -> CropWindow:
    """Return the view of a box x1, y1, x2, y2: widened to the shape of the crop, `size`, and padded."""
    height, width = size
    across, down = box[2] - box[0], box[3] - box[1]
    across, down = max(across, down * width / height), max(down, across * height / width)
    centre = (float(box[0] + box[2]) / 2, float(box[1] + box[3]) / 2)
    return CropWindow(centre=centre, width=PADDING * across, height=PADDING * down)


def varied(view: CropWindow, scale: float, turn: float, flip: bool) -> CropWindow:
    """Change a view at random, as arXiv:1804.06208's code does; `turn` in degrees.

    The scale is normal around 1 with deviation `scale`, cut there; the turn normal with deviation `turn`, cut at twice
    that, in TURNED of the cases; with `flip` every other view is mirrored.
    """
    factor = float(np.clip(1 + scale * np.random.randn(), 1 - scale, 1 + scale))
    degrees = float(np.clip(turn * np.random.randn(), -2 * turn, 2 * turn))
    turns, mirrors = np.random.rand() < TURNED, flip and np.random.rand() < 0.5
    return CropWindow(
        centre=view.centre,
        width=view.width * factor,
        height=view.height * factor,
        turn=np.radians(degrees) if turns else 0.0,
        mirrors=bool(mirrors),
    )


@dataclass(frozen=True, kw_only=True)
class Crops:
    """Objects of a split with a labelled keypoint, as `bocb_tune.data.loader.SampleSource`."""

    images: ObjectImages
    joints: Joints
    size: tuple[int, int]
    """Height and width of a crop in pixels."""
    changes: Mapping[str, Any] | None = None
    """Arguments of `varied`; None: nothing is random."""

    @cached_property
    def objects(self) -> NDArray[np.int64]:
        """Place of each object in the annotations, and of its image in the split [objects, 2], by image."""
        annotations, images = self.images.part.annotations, self.images.part.images
        counts = np.diff(annotations.starts)[images]
        image_of = np.repeat(np.arange(len(images)), counts)
        firsts = np.repeat(annotations.starts[images] - np.concatenate([[0], np.cumsum(counts)[:-1]]), counts)
        places = firsts + np.arange(len(image_of))
        labelled = (annotations.keypoints[places, :, 2] > 0).any(1)
        wanted = labelled & ~annotations.crowds[places] & np.isin(annotations.labels[places], self.joints.labels)
        return np.stack([places[wanted], image_of[wanted]], axis=1)

    def __len__(self) -> int:
        return len(self.objects)

    def name(self, index: int) -> str:
        return self.images.name(int(self.objects[index, 1]))

    def read(self, index: int) -> Any:
        return self.images.pixels(int(self.objects[index, 1]))

    def made(self, decoded: Any, index: int) -> Crop:
        view = self.view(index)
        if self.changes is not None:
            view = varied(view, **self.changes)
        to_image = view.to_image(self.size)
        points = self.images.part.annotations.keypoints[self.objects[index, 0]]
        if view.mirrors:
            points = points[list(self.joints.mirrored)]
        moved = (points[:, :2] - to_image[:, 2]) @ np.linalg.inv(to_image[:, :2]).T
        pixels = torch.from_numpy(cut_out(decoded, to_image, self.size)).permute(2, 0, 1).contiguous()
        return pixels, torch.from_numpy(moved).float(), torch.from_numpy(points[:, 2] > 0), index

    def view(self, index: int) -> CropWindow:
        """Return the view of an object's box."""
        return view_of(self.images.part.annotations.boxes[self.objects[index, 0]], self.size)

    def to_images(self, points: Floats, indices: Sequence[int]) -> Floats:
        """Take points [objects, K, 2] of crops without random changes back into their images."""
        maps = np.stack([self.view(index).to_image(self.size) for index in indices])
        moved: Floats = np.einsum("nij,nkj->nki", maps[:, :, :2], points) + maps[:, None, :, 2]
        return moved


def cut_out(pixels: NDArray[np.uint8], to_image: Floats, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resample an image [height, width, 3] bilinearly into a crop of `size`; outside of it is black."""
    height, width = size
    image = Image.fromarray(pixels)
    coefficients = tuple(to_image.flatten().tolist())
    return np.array(image.transform((width, height), Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR))


def collate(crops: list[Crop]) -> list[Tensor]:
    """Put crops into a batch: pixels, keypoints, whether they are labelled, places of the objects."""
    batch: list[Tensor] = default_collate(crops)
    return batch
