"""Shapes on noise: a small data set, drawn on first use in COCO's format, to try detection, masks and keypoints.

Discs, diamonds and triangles of random colour, size and tilt, none upon another, on a gradient under noise. The
keypoints of each are its ends: `top`, `left`, `right` and `bottom`, the last of which a triangle lacks. What is drawn
is a pure function of the options.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from bocb_tune.core.node_cache import explained, home
from bocb_tune.core.types import derive_seed, digest
from bocb_tune.data.coco.parts import AnnotatedPart, contents_of_parts, parts_of
from bocb_tune.data.contents import Contents, ImageSource

if TYPE_CHECKING:
    from bocb_tune.data.coco.dataset import Coco

KEYPOINTS = ("top", "left", "right", "bottom")
SKELETON = ((1, 2), (1, 3), (4, 2), (4, 3))
CLASSES: dict[str, tuple[float, ...]] = {
    "disc": tuple(i / 32 for i in range(32)),
    "diamond": (0.0, 0.25, 0.5, 0.75),
    "triangle": (0.0, 1 / 3, 2 / 3),
}
"""Corners of each class on a circle, in turns clockwise from the top."""
ENDS: dict[str, tuple[int | None, ...]] = {
    "disc": (0, 24, 8, 16),
    "diamond": (0, 3, 1, 2),
    "triangle": (0, 2, 1, None),
}
"""Corner that each keypoint lies on."""

MOST_SHAPES = 4
"""Shapes in one image, of which there is at least one."""
RADII = (0.1, 0.25)
"""Least and largest radius, as shares of the image's side."""
MOST_TILT = 20.0
"""Degrees from upright."""
NOISE = 12.0
"""Standard deviation of the noise, of 255."""
LEAST_CONTRAST = 60.0
"""Distance in one channel of a shape from the background's mean, of 255."""
TRIES = 20
"""Places tried for a shape before it is left out."""
FORMAT = 1
"""Changes when other images are drawn of the same options."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A shape in an image."""

    kind: str
    centre: tuple[float, float]
    radius: float
    tilt: float
    """Radians."""

    def corners(self) -> NDArray[np.float64]:
        """Return the corners [corners, 2], x and y in pixels."""
        angles = 2 * math.pi * np.array(CLASSES[self.kind]) + self.tilt
        return np.array(self.centre) + self.radius * np.stack([np.sin(angles), -np.cos(angles)], axis=1)

    def annotation(self) -> dict[str, Any]:
        """Return box, outline and keypoints in COCO's format."""
        corners = self.corners().round(2)
        (x, y), (right, bottom) = corners.min(0), corners.max(0)
        ends = [[*corners[at].tolist(), 2] if at is not None else [0, 0, 0] for at in ENDS[self.kind]]
        return {
            "category_id": 1 + list(CLASSES).index(self.kind),
            "bbox": [float(x), float(y), round(float(right - x), 2), round(float(bottom - y), 2)],
            "area": round(_area(corners), 2),
            "segmentation": [corners.flatten().tolist()],
            "keypoints": [number for end in ends for number in end],
            "num_keypoints": sum(at is not None for at in ENDS[self.kind]),
            "iscrowd": 0,
        }


def _area(corners: NDArray[np.float64]) -> float:
    x, y = corners.T
    return float(abs(x @ np.roll(y, 1) - y @ np.roll(x, 1)) / 2)


class Shapes:
    """Reads the drawn shapes, and draws them first where this node has none of these options."""

    def contents(self, options: Mapping[str, Any]) -> Contents:
        return contents_of_parts(_parts(options))

    def sources(self, options: Mapping[str, Any]) -> Mapping[str, ImageSource]:
        return _parts(options)

    def load(self, options: Mapping[str, Any], device: str) -> Coco:
        from bocb_tune.data.coco.dataset import coco_of

        return coco_of(lambda outlines: _parts(options, outlines=outlines), options, device)


reader = Shapes()


def _parts(options: Mapping[str, Any], *, outlines: bool = False) -> dict[str, AnnotatedPart]:
    places = {f"{split}_images": split for split in ("train", "val")}
    places |= {f"{split}_annotations": f"annotations/{split}.json" for split in ("train", "val")}
    return parts_of({"root": str(drawn(options)), **places}, outlines=outlines)


def drawn(options: Mapping[str, Any]) -> Path:
    """Return the folder of the shapes on this node, drawing them if it is not there.

    Raises:
        ValueError: if the folder for temporary files cannot take them.
    """
    wanted = {name: options[name] for name in ("image_size", "images", "held_out", "draw_seed")}
    with explained():
        folder = home() / f"shapes-{digest([FORMAT, wanted])}"
        if not folder.exists():
            draft = Path(tempfile.mkdtemp(dir=folder.parent))
            draw(draft, **wanted)
            _put(draft, folder)
    return folder


def _put(draft: Path, folder: Path) -> None:
    """Move what was drawn to its place, unless another process was faster: it drew the same."""
    try:
        draft.rename(folder)
    except OSError:
        if not folder.exists():
            raise
        shutil.rmtree(draft)


def draw(folder: Path, *, image_size: int, images: int, held_out: int, draw_seed: int) -> None:
    """Draw a training and a validation split into a folder, with their annotations."""
    os.makedirs(folder / "annotations", exist_ok=True)
    for split, count in (("train", images), ("val", held_out)):
        os.makedirs(folder / split, exist_ok=True)
        content = _split(folder / split, count, image_size, derive_seed("shapes", draw_seed, split))
        (folder / "annotations" / f"{split}.json").write_text(json.dumps(content), encoding="utf-8")


def _split(folder: Path, count: int, size: int, seed: int) -> dict[str, Any]:
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in range(1, count + 1):
        name = f"{number:06}.png"
        pixels, shapes = scene(np.random.default_rng([seed, number]), size)
        Image.fromarray(pixels).save(folder / name)
        images.append({"id": number, "file_name": name, "width": size, "height": size})
        for shape in shapes:
            annotations.append({"id": len(annotations) + 1, "image_id": number, **shape.annotation()})
    joints = {"keypoints": list(KEYPOINTS), "skeleton": [list(bone) for bone in SKELETON]}
    categories = [{"id": number, "name": name, **joints} for number, name in enumerate(CLASSES, start=1)]
    return {"images": images, "annotations": annotations, "categories": categories}


def scene(
    random: np.random.Generator, size: int, most: int = MOST_SHAPES, radii: tuple[float, float] = RADII
) -> tuple[NDArray[np.uint8], list[Shape]]:
    """Draw an image uint8 [size, size, 3] with one to `most` shapes of `radii`, as shares of its side."""
    shapes: list[Shape] = []
    for _ in range(random.integers(1, most + 1)):
        tries = (_random_shape(random, size, radii) for _ in range(TRIES))
        placed = (shape for shape in tries if _is_free(shape, shapes))
        shapes += [shape] if (shape := next(placed, None)) else []
    background = random.uniform(40, 215, size=3)
    slope = random.uniform(-20, 20, size=(2, 3)) / size
    rows, columns = np.mgrid[:size, :size] - size / 2
    canvas = background + rows[..., None] * slope[0] + columns[..., None] * slope[1]
    for shape in shapes:
        canvas[_inside(shape, size)] = _colour(random, background)
    canvas += random.normal(0, NOISE, size=canvas.shape)
    return canvas.clip(0, 255).astype(np.uint8), shapes


def _random_shape(random: np.random.Generator, size: int, radii: tuple[float, float]) -> Shape:
    radius = random.uniform(*radii) * size
    x, y = random.uniform(radius, size - radius, size=2)
    kind = list(CLASSES)[random.integers(len(CLASSES))]
    tilt = math.radians(random.uniform(-MOST_TILT, MOST_TILT)) if kind != "disc" else 0.0
    return Shape(kind=kind, centre=(float(x), float(y)), radius=float(radius), tilt=tilt)


def _is_free(shape: Shape, others: list[Shape]) -> bool:
    return all(math.dist(shape.centre, other.centre) > shape.radius + other.radius for other in others)


def _colour(random: np.random.Generator, background: NDArray[np.float64]) -> NDArray[np.float64]:
    """Draw a colour that differs from the background in one channel at least."""
    colour = random.uniform(0, 255, size=3)
    channel = random.integers(3)
    away = LEAST_CONTRAST if background[channel] < 128 else -LEAST_CONTRAST
    if abs(colour[channel] - background[channel]) < LEAST_CONTRAST:
        colour[channel] = background[channel] + away
    return colour


def _inside(shape: Shape, size: int) -> NDArray[np.bool_]:
    picture = Image.new("1", (size, size))
    ImageDraw.Draw(picture).polygon([(x - 0.5, y - 0.5) for x, y in shape.corners().tolist()], fill=1)
    return np.array(picture)
