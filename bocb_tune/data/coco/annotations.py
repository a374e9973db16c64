"""Annotations of one file in COCO's format as arrays: read once on a node, mapped by every process of it.

Format: https://cocodataset.org/#format-data. Boxes are `x, y, width, height` there and `x1, y1, x2, y2` here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from bocb_tune.data.coco.entries import Entries, entries_of, is_id, only_numbers
from bocb_tune.data.coco.outlines import outline_fault
from bocb_tune.data.contents import LeftOut, OmissionCounter
from bocb_tune.data.node_cache import SharedArrays, shared_arrays

Floats = NDArray[np.float64]

ARRAYS = (
    *("image_ids", "files", "sizes", "starts"),
    *("boxes", "labels", "areas", "crowds", "object_ids", "keypoints"),
    *("category_ids", "about"),
)
"""Id, name and `[width, height]` of each image, and where its objects start; what `Annotations` says of each object;
ids of the categories, and the rest as JSON."""
OUTLINES = ("outlines", "outline_starts")
"""Outlines of all objects as JSON, one after the other, and where each starts."""

BEYOND = 1.0
"""Pixels by which a box may reach beyond its image without a word."""
FEWEST_XYXY = 3
"""Boxes that must reach beyond their image before corners are suspected in place of width and height."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotations:
    """Images of one file with their objects, the objects ordered by image."""

    path: Path
    classes: tuple[str, ...]
    """Names of the categories by ascending id; a label is the place in here."""
    category_ids: NDArray[np.int64]
    image_ids: NDArray[np.int64]
    files: NDArray[np.bytes_]
    """Path of each image below the folder of images, UTF-8."""
    sizes: NDArray[np.int64]
    """[images, 2], width and height in pixels."""
    starts: NDArray[np.int64]
    """[images + 1]: objects `starts[i]` to `starts[i + 1]` are those of image i."""
    boxes: Floats
    """[objects, 4], `x1, y1, x2, y2` in pixels, within the image."""
    labels: NDArray[np.int64]
    areas: Floats
    """Square pixels, as stated."""
    crowds: NDArray[np.bool_]
    """Whether a box is that of a crowd, in which single objects are not told apart."""
    object_ids: NDArray[np.int64]
    keypoints: NDArray[np.float32]
    """[objects, K, 3], x, y in pixels and 0 (not labelled), 1 (hidden) or 2 (visible); K is 0 without any."""
    keypoint_names: tuple[tuple[str, ...], ...]
    """Names of the keypoints of each class; empty where it has none."""
    skeletons: tuple[tuple[tuple[int, int], ...], ...]
    """Pairs of keypoints that are joined, of each class, counted from 0."""
    left_out: tuple[LeftOut, ...]
    changed: tuple[LeftOut, ...]
    """Entries that are used in another form than they stand in the file."""
    outlines: NDArray[np.uint8] | None = None
    outline_starts: NDArray[np.int64] | None = None

    def file(self, image: int) -> str:
        """Return the path of an image below the folder of images."""
        name: bytes = self.files[image]
        return name.decode()

    def objects(self, image: int) -> slice:
        """Return the places of an image's objects."""
        return slice(int(self.starts[image]), int(self.starts[image + 1]))

    def outline(self, at: int) -> Any:
        """Return polygons or run lengths of an object, as they stand in the file."""
        assert self.outlines is not None, "read without outlines"
        assert self.outline_starts is not None
        start, end = self.outline_starts[at : at + 2]
        return orjson.loads(self.outlines[start:end].tobytes())


def read_annotations(path: Path, *, outlines: bool = False) -> Annotations:
    """Read an annotation file, or take what another process of this node read.

    Args:
        path: of the file.
        outlines: whether masks are wanted; objects without one are then left out.

    Raises:
        ValueError: naming the file and the entry that cannot be used.
    """
    if not path.is_file():
        raise ValueError(f"there is no file {path}; it must hold annotations in COCO's format")
    names = ARRAYS + OUTLINES if outlines else ARRAYS
    arrays = shared_arrays([path], names, lambda: _build(path, outlines), variant=f"coco {outlines}")
    about = json.loads(arrays.pop("about").tobytes())
    return Annotations(
        path=path,
        classes=tuple(about["classes"]),
        keypoint_names=tuple(map(tuple, about["keypoint_names"])),
        skeletons=tuple(tuple((a, b) for a, b in bones) for bones in about["skeletons"]),
        left_out=_groups(about["left_out"]),
        changed=_groups(about["changed"]),
        **arrays,
    )


def _groups(values: Sequence[Mapping[str, Any]]) -> tuple[LeftOut, ...]:
    return tuple(LeftOut(reason=one["reason"], count=one["count"], names=tuple(one["names"])) for one in values)


def load_json(path: Path) -> dict[str, Any]:
    """Read an annotation file as it is.

    Raises:
        ValueError: naming the file, if it is no JSON object.
    """
    try:
        content = orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError as error:
        raise ValueError(f"{path}: is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: holds a JSON {type(content).__name__}; COCO's format is an object of lists")
    return content


# From a file to arrays


def _build(path: Path, outlines: bool) -> SharedArrays:
    content = load_json(path)
    categories = entries_of(path, content, "categories")
    images = entries_of(path, content, "images")
    objects = entries_of(path, content, "annotations")
    left_out, changed = OmissionCounter(), OmissionCounter()
    arrays, about = _categories(categories)
    arrays |= _images(images)
    objects, image_of = _of_known_images(objects, arrays["image_ids"], left_out)
    sizes = arrays["sizes"][image_of]
    columns = _objects(objects, arrays["category_ids"], sizes, changed)
    columns["keypoints"] = _keypoints(objects, columns["labels"], about["keypoint_names"])
    kept = _with_area(objects, columns["boxes"], left_out)
    texts = _outlines(objects, sizes, kept, left_out) if outlines else []
    order = np.flatnonzero(kept)[np.argsort(image_of[kept], kind="stable")]
    counts = np.bincount(image_of[order], minlength=len(images.rows))
    arrays |= {name: column[order] for name, column in columns.items()}
    arrays["starts"] = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    if outlines:
        arrays |= _joined([texts[at] for at in order])
    about["left_out"] = [asdict(group) for group in left_out.left_out()]
    about["changed"] = [asdict(group) for group in changed.left_out()]
    arrays["about"] = np.frombuffer(json.dumps(about).encode(), dtype=np.uint8)
    return arrays


def _categories(categories: Entries) -> tuple[SharedArrays, dict[str, Any]]:
    ids = categories.column("id", is_id, "a whole number")
    categories.require_unique("id", ids)
    names = categories.column("name", lambda name: isinstance(name, str) and name != "", "a name")
    categories.require_unique("name", names)
    order = np.argsort(ids)
    keypoints = categories.column("keypoints", _are_names, "a list of names", default=[])
    bones = [_bones(categories, int(at), keypoints[at]) for at in order]
    about = {
        "classes": [names[at] for at in order],
        "keypoint_names": [keypoints[at] for at in order],
        "skeletons": bones,
    }
    return {"category_ids": np.array(ids, dtype=np.int64)[order]}, about


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _bones(categories: Entries, at: int, names: Sequence[str]) -> list[tuple[int, int]]:
    """Return the joined keypoints of a category, counted from 0; in the file they are counted from 1."""
    bones = categories.rows[at].get("skeleton") or []
    known = range(1, len(names) + 1)
    if not all(isinstance(bone, list) and len(bone) == 2 and all(end in known for end in bone) for bone in bones):
        raise categories.fault(at, "skeleton", bones, f"a list of pairs of keypoints, counted from 1 to {len(names)}")
    return [(first - 1, second - 1) for first, second in bones]


def _images(images: Entries) -> SharedArrays:
    ids = images.column("id", is_id, "a whole number")
    images.require_unique("id", ids)
    names = images.column("file_name", _is_path, "the path of a file below the folder of images")
    images.require_unique("file_name", names)
    sides = [images.column(key, _is_side, "a number of pixels") for key in ("width", "height")]
    return {
        "image_ids": np.array(ids, dtype=np.int64),
        "files": np.array([name.encode() for name in names], dtype=np.bytes_),
        "sizes": np.array(sides, dtype=np.int64).T,
    }


def _is_path(value: Any) -> bool:
    return isinstance(value, str) and value != "" and not value.startswith("/") and ".." not in value.split("/")


def _is_side(value: Any) -> bool:
    return type(value) is int and 0 < value < 2**31


def _of_known_images(
    objects: Entries, image_ids: NDArray[np.int64], left_out: OmissionCounter
) -> tuple[Entries, NDArray[np.int64]]:
    """Return the annotations of images that the file lists, and the place of the image of each."""
    owners = np.array(objects.column("image_id", is_id, "a whole number"), dtype=np.int64)
    by_id = np.argsort(image_ids)
    at = np.minimum(np.searchsorted(image_ids, owners, sorter=by_id), len(image_ids) - 1)
    found = by_id[at]
    known = image_ids[found] == owners
    if known.all():
        return objects, found
    for index in np.flatnonzero(~known):
        left_out.add("annotations of images that the file does not list", _name(objects, int(index)))
    rows = [row for row, is_known in zip(objects.rows, known, strict=True) if is_known]
    if not rows:
        raise ValueError(f"{objects.path}: no annotation is of an image that the file lists; 'image_id' is that id")
    return Entries(objects.path, objects.kind, rows), found[known]


def _name(objects: Entries, index: int) -> str:
    row = objects.rows[index]
    return f"annotation {row['id']}" if "id" in row else f"annotations[{index}]"


def _objects(
    objects: Entries, category_ids: NDArray[np.int64], sizes: NDArray[np.int64], changed: OmissionCounter
) -> SharedArrays:
    boxes = objects.numbers("bbox", 4)
    _require_not_corners(objects, boxes, sizes)
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
    limits = np.concatenate([sizes, sizes], axis=1)
    within = np.clip(corners, 0, limits)
    for index in np.flatnonzero((np.abs(within - corners) > BEYOND).any(1)):
        changed.add("boxes that reach beyond their image, cut to it", _name(objects, int(index)))
    return {
        "boxes": within,
        "labels": _labels(objects, category_ids),
        "areas": _areas(objects, within, changed),
        "crowds": np.array(objects.column("iscrowd", _is_flag, "0 or 1", default=0), dtype=np.bool_),
        "object_ids": _ids(objects, changed),
    }


def _labels(objects: Entries, category_ids: NDArray[np.int64]) -> NDArray[np.int64]:
    labels = {int(number): label for label, number in enumerate(category_ids)}
    wanted = "the id of one of the categories"
    found = objects.column("category_id", lambda value: type(value) is int and value in labels, wanted)
    return np.array([labels[number] for number in found], dtype=np.int64)


def _is_flag(value: Any) -> bool:
    return value in (0, 1)


def _areas(objects: Entries, boxes: Floats, changed: OmissionCounter) -> Floats:
    """Return stated areas; those of the box where none is stated."""
    stated = objects.column("area", lambda value: value is None or only_numbers([value]), "square pixels")
    areas = np.array([np.nan if value is None else value for value in stated], dtype=np.float64)
    missing = np.isnan(areas)
    for index in np.flatnonzero(missing):
        changed.add("annotations without 'area', given that of their box", _name(objects, int(index)))
    widths, heights = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    return np.where(missing, widths * heights, areas)


def _ids(objects: Entries, changed: OmissionCounter) -> NDArray[np.int64]:
    """Return the ids of annotations; none but those who score need them, and there is one for each in `scores`."""
    ids = objects.column("id", lambda value: value is None or is_id(value), "a whole number")
    given = [number for number in ids if number is not None]
    if len(given) == len(ids):
        objects.require_unique("id", given)
        return np.array(ids, dtype=np.int64)
    for index in (index for index, number in enumerate(ids) if number is None):
        changed.add("annotations without 'id', numbered", f"annotations[{index}]")
    return np.arange(1, len(ids) + 1)


def _require_not_corners(objects: Entries, boxes: Floats, sizes: NDArray[np.int64]) -> None:
    """Refuse boxes that were written as two corners in place of a corner, width and height.

    Raises:
        ValueError: if all boxes make sense as corners, and most of them reach beyond their image as they are meant.
    """
    limits = np.concatenate([sizes, sizes], axis=1) + BEYOND
    beyond = (boxes[:, :2] + boxes[:, 2:] > limits[:, :2]).any(1)
    as_corners = (boxes[:, 2:] >= boxes[:, :2]).all(1) & (boxes <= limits).all(1)
    if beyond.sum() < FEWEST_XYXY or 2 * beyond.sum() <= len(boxes) or not as_corners.all():
        return
    index = int(np.flatnonzero(beyond)[0])
    x, y, x2, y2 = (f"{value:g}" for value in boxes[index])
    raise ValueError(
        f"{objects.place(index)}: 'bbox' seems to be written as two corners, x1, y1, x2, y2: as x, y, width, height "
        f"{beyond.sum()} of {len(boxes)} boxes reach beyond their image, and as corners none does. Write "
        f"[{x}, {y}, {x2} - {x}, {y2} - {y}], as COCO's format wants"
    )


def _with_area(objects: Entries, boxes: Floats, left_out: OmissionCounter) -> NDArray[np.bool_]:
    """Tell which boxes have an area within their image."""
    kept: NDArray[np.bool_] = np.all(boxes[:, 2:] > boxes[:, :2], axis=1)
    for index in np.flatnonzero(~kept):
        left_out.add("annotations whose box has no area within its image", _name(objects, int(index)))
    return kept


def _keypoints(objects: Entries, labels: NDArray[np.int64], names: Sequence[Sequence[str]]) -> NDArray[np.float32]:
    """Return the keypoints of each object; 0, not labelled, of classes that have fewer or none."""
    numbers = [len(of_class) for of_class in names]
    found = np.zeros((len(labels), 3 * max(numbers)), dtype=np.float32)
    if not max(numbers):
        return found.reshape(len(labels), 0, 3)
    for index, (row, label) in enumerate(zip(objects.rows, labels.tolist(), strict=True)):
        given = row.get("keypoints")
        if not given:
            continue
        if not isinstance(given, list) or len(given) != 3 * numbers[label] or not only_numbers(given):
            wanted = f"x, y and visibility of the {numbers[label]} keypoints of its category"
            raise objects.fault(index, "keypoints", given, wanted)
        found[index, : len(given)] = given
    keypoints = found.reshape(len(labels), -1, 3)
    if wrong := np.flatnonzero(~np.isin(keypoints[..., 2], (0, 1, 2)).all(1)).tolist():
        raise objects.fault(wrong[0], "keypoints", objects.rows[wrong[0]]["keypoints"], "of visibility 0, 1 or 2")
    return keypoints


def _outlines(
    objects: Entries, sizes: NDArray[np.int64], kept: NDArray[np.bool_], left_out: OmissionCounter
) -> list[bytes]:
    """Return the outline of each object as JSON; those without one are taken out of `kept`."""
    texts = []
    for index, (row, (width, height)) in enumerate(zip(objects.rows, sizes.tolist(), strict=True)):
        outline = row.get("segmentation")
        if kept[index] and not outline:
            kept[index] = False
            left_out.add("annotations without a mask, 'segmentation'", _name(objects, index))
        elif kept[index] and (wanted := outline_fault(outline, width, height)):
            raise objects.fault(index, "segmentation", outline, wanted)
        texts.append(orjson.dumps(outline))
    return texts


def _joined(texts: Sequence[bytes]) -> SharedArrays:
    return {
        "outlines": np.frombuffer(b"".join(texts), dtype=np.uint8),
        "outline_starts": np.concatenate([[0], np.cumsum([len(text) for text in texts])]).astype(np.int64),
    }
