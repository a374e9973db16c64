"""The parts a dataset is stored in, whether as folders or in one packed file."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import IO, Protocol

from bocb_tune.core.names import unknown
from bocb_tune.data.split import Indices

SUFFIXES = {".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"}


PARTS = ("train", "val", "test")


class Source(Protocol):
    """Encoded images with their labels, as they are stored."""

    @property
    def labels(self) -> Indices: ...

    def name(self, index: int) -> str:
        """What a user finds the image by."""
        ...

    def open(self, index: int) -> str | IO[bytes]:
        """What Pillow reads the image from. OSError or ValueError if it is not there."""
        ...


def require_known(found: Iterable[str], classes: Sequence[str], place: str) -> None:
    """ValueError for a class folder that `train` does not have."""
    for name in sorted(set(found).difference(classes)):
        raise unknown(f"class in {place}: train has no folder", name, classes)


def is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in SUFFIXES
