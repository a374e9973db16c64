"""Encoded images as eight-bit RGB: conversions, refusals, and a search for those that cannot be read."""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import IO

import numpy as np
from PIL import Image

from bocb_tune.core.progress import say
from bocb_tune.data.contents import ImageSource

SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N")
"""Pillow's modes of grey images with 16 bits a pixel."""
READ_AS_32_BITS = ("PPM",)
"""Formats of grey images with 16 bits a pixel that Pillow reads into 32 (mode I), as 0 to 65535."""


MAX_UNREADABLE = 0.001
"""Share of the images a rank was to read in an epoch that may be unreadable, and one in any case; more is an error."""

UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error)
"""Errors that Pillow raises, by format, for damaged files."""


class RefusedImage(ValueError):
    """An image that is sound, and that this program cannot or may not read; never skipped."""


def decode(file: str | IO[bytes], max_pixels: int) -> Image.Image:
    """Decode an image to RGB: palette, grey and CMYK as Pillow does, transparency on white, 16 bits by their range.

    Raises:
        RefusedImage: if it has more than `max_pixels`, or pixels of 32 bits or floating point, which have no range.
        OSError, ValueError, SyntaxError: and others of Pillow, if it is damaged.
    """
    with no_limit(), Image.open(file) as image:
        if image.width * image.height > max_pixels:
            raise RefusedImage(
                f"has {image.width} x {image.height} pixels, more than {max_pixels}; "
                f"make it smaller, or set the dataset's option 'max_pixels' to {image.width * image.height}"
            )
        return _to_rgb(image)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in SIXTEEN_BITS or (image.mode == "I" and image.format in READ_AS_32_BITS):
        values = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((values + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        kind = "floating-point" if image.mode == "F" else "32-bit"
        raise RefusedImage(
            f"has {kind} pixels, and nothing says which values are black and white; save it with 8 or 16 bits a channel"
        )
    if not image.has_transparency_data:
        return image.convert("RGB")
    shown = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", shown.size, "white"), shown).convert("RGB")


@contextlib.contextmanager
def no_limit() -> Iterator[None]:
    """Take away Pillow's own limit of pixels, which names no option, and holds for opening images and for crops."""
    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


# All images of a dataset

AT_A_TIME = 256
"""Images handed to the threads at once: the decoded ones of a million would fill the memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BadImage:
    """An image that no trial can be given."""

    name: str
    """Path, or place in a packed file, that a user finds it by."""
    why: str
    is_refused: bool
    """Whether it is sound but of a kind that is never skipped: every trial that meets it fails."""


def bad_images(sources: Mapping[str, ImageSource], max_pixels: int) -> Iterator[BadImage]:
    """Decode every image, on all CPUs, and yield those that cannot be, in the order they are stored."""
    images = [(source, index) for source in sources.values() for index in range(len(source.labels))]
    with no_limit(), ThreadPoolExecutor(os.cpu_count()) as threads:
        for start in range(0, len(images), AT_A_TIME):
            say(f"image {start} of {len(images)}")
            yield from filter(None, threads.map(partial(_try, max_pixels), images[start : start + AT_A_TIME]))


def _try(max_pixels: int, image: tuple[ImageSource, int]) -> BadImage | None:
    source, index = image
    try:
        decode(source.open(index), max_pixels)
    except RefusedImage as error:
        return BadImage(name=source.name(index), why=str(error), is_refused=True)
    except UNREADABLE as error:
        return BadImage(name=source.name(index), why=str(error), is_refused=False)
    return None
