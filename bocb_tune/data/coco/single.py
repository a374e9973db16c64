"""One drawn shape an image, in memory, its class the label: to pre-train the backbones of the tasks on `shapes`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bocb_tune.core.types import derive_seed
from bocb_tune.data.coco.shapes import CLASSES, scene
from bocb_tune.data.contents import Contents, ImageSource, StoredPart, count_splits, fingerprint_of
from bocb_tune.data.split import Chosen, Indices

if TYPE_CHECKING:
    from bocb_tune.data.arrays import Arrays

RADII = (0.25, 0.45)
"""Least and largest radius, as shares of the side: in 32 pixels about as large as the shapes of a scene of 64."""

Drawn = dict[str, tuple[NDArray[np.uint8], Indices]]
"""Images [images, 3, height, width] and labels [images] of each split."""


class SingleShapes:
    """Draws the images, anew in each process: it takes a second."""

    def contents(self, options: Mapping[str, Any]) -> Contents:
        labels = {split: found for split, (_, found) in _drawn_for(options).items()}
        classes = tuple(CLASSES)
        pixels = 3 * options["image_size"] ** 2
        stored = {
            split: StoredPart(
                labels=found, names=[b"%d" % row for row in range(len(found))], sizes=[pixels] * len(found)
            )
            for split, found in labels.items()
        }
        return Contents(
            classes=classes,
            splits=count_splits(_all(labels), labels, len(classes)),
            parts={split: split for split in labels},
            fingerprint=lambda: fingerprint_of(stored, classes),
        )

    def sources(self, options: Mapping[str, Any]) -> Mapping[str, ImageSource]:  # noqa: ARG002
        return {}

    def load(self, options: Mapping[str, Any], device: str) -> Arrays:
        from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

        from bocb_tune.data.arrays import load_arrays

        drawn = _drawn_for(options)
        labels = {split: found for split, (_, found) in drawn.items()}
        return load_arrays(
            {split: images for split, (images, _) in drawn.items()},
            labels,
            _all(labels),
            num_classes=len(CLASSES),
            mean=IMAGENET_DEFAULT_MEAN,  # as the tasks on `shapes` have it
            std=IMAGENET_DEFAULT_STD,
            device=device,
        )


reader = SingleShapes()


def _all(labels: Mapping[str, Indices]) -> Chosen:
    return {split: (split, np.arange(len(found))) for split, found in labels.items()}


def _drawn_for(options: Mapping[str, Any]) -> Drawn:
    return _drawn(*(options[name] for name in ("image_size", "images", "held_out", "draw_seed")))


@lru_cache(maxsize=1)
def _drawn(image_size: int, images: int, held_out: int, draw_seed: int) -> Drawn:
    counts = {"train": images, "val": held_out}
    return {
        split: _split(count, image_size, derive_seed("single shapes", draw_seed, split))
        for split, count in counts.items()
    }


def _split(count: int, size: int, seed: int) -> tuple[NDArray[np.uint8], Indices]:
    drawn = [scene(np.random.default_rng([seed, number]), size, most=1, radii=RADII) for number in range(count)]
    kinds = list(CLASSES)
    labels = np.array([kinds.index(shapes[0].kind) for _, shapes in drawn], dtype=np.int64)
    return np.stack([pixels.transpose(2, 0, 1) for pixels, _ in drawn]), labels
