"""Outlines of objects as masks: polygons, run lengths, and run lengths that are compressed."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bocb_tune.data.coco.entries import only_numbers

FEWEST_COORDINATES = 6
"""Numbers of a polygon: three corners."""


def outline_fault(outline: Any, width: int, height: int) -> str | None:
    """Say what the outline of an object in an image of `width` x `height` must be; None if it is."""
    if isinstance(outline, list):
        sound = all(_is_polygon(polygon) for polygon in outline)
        return None if sound else "polygons, each a list x, y, x, y, ... of three corners or more"
    if not isinstance(outline, dict) or not isinstance(outline.get("counts"), str | list):
        return "polygons or run lengths, {'size': [height, width], 'counts': ...}"
    if outline.get("size") != [height, width]:
        return f"run lengths of 'size' [{height}, {width}], as the image has"
    counts = outline["counts"]
    lengths = counts if isinstance(counts, list) else run_lengths(counts)
    if not _are_lengths(lengths) or sum(lengths) != width * height:
        return f"run lengths that add up to the image's {width * height} pixels"
    return None


def _is_polygon(value: Any) -> bool:
    return _has_length(value) and only_numbers(value)


def _has_length(value: Any) -> bool:
    return isinstance(value, list) and len(value) >= FEWEST_COORDINATES and len(value) % 2 == 0


def are_polygons(outlines: Iterable[Any]) -> bool:
    """Tell whether all outlines are of polygons: quicker than looking at one after the other."""
    polygons = [polygon for outline in outlines if isinstance(outline, list) for polygon in outline]
    return all(map(_has_length, polygons)) and only_numbers(chain.from_iterable(polygons))


def _are_lengths(values: list[Any]) -> bool:
    return set(map(type, values)) <= {int} and min(values, default=0) >= 0


def run_lengths(text: str) -> list[int]:
    """Return the run lengths that a compressed string stands for; nothing if it stands for none.

    Five bits a character from 48 on, lowest first, a sixth saying that more follow, the sign in the last; from the
    fourth on, a length is the difference to the last but one (pycocotools' `maskApi.c`, `rleFrString`).
    """
    lengths: list[int] = []
    value = shift = 0
    for code in (ord(character) - 48 for character in text):
        if not 0 <= code < 64:
            return []
        value |= (code & 31) << shift
        shift += 5
        if code & 32:
            continue
        value -= 1 << shift if code & 16 else 0
        lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
        value = shift = 0
    return [] if shift else lengths


def mask_of(outline: Any, width: int, height: int) -> NDArray[np.uint8]:
    """Draw an outline as pycocotools does: uint8 [height, width], 1 within."""
    from pycocotools import mask

    with quiet():
        if isinstance(outline, list):
            runs: Any = mask.merge(mask.frPyObjects(outline, height, width))
        elif isinstance(outline["counts"], list):
            runs = mask.frPyObjects(outline, height, width)
        else:
            runs = {"size": [height, width], "counts": outline["counts"].encode()}
        drawn: NDArray[np.uint8] = mask.decode(runs)
    return drawn


def outline_of(drawn: NDArray[np.uint8]) -> dict[str, Any]:
    """Return the compressed run lengths of a mask [height, width], JSON-able: the form of COCO's results."""
    from pycocotools import mask

    with quiet():
        runs = mask.encode(np.asfortranarray(drawn))
    return {"size": [int(side) for side in runs["size"]], "counts": runs["counts"].decode()}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep to itself what pycocotools prints, and numpy's word on how it makes arrays."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
        yield
