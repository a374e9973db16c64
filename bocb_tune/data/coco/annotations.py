"""Annotations of one file in COCO's format as arrays: read once on a node, mapped by every process of it.

Format: https://cocodataset.org/#format-data. Boxes are `x, y, width, height` there and `x1, y1, x2, y2` here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from bocb_tune.core.collector import uncollected
from bocb_tune.core.node_cache import SharedArrays, shared_arrays
from bocb_tune.data.coco.entries import Entries, only_numbers, pieces_of, require_unique
from bocb_tune.data.coco.json_lists import JsonLists, json_lists
from bocb_tune.data.coco.outlines import are_polygons, outline_fault
from bocb_tune.data.contents import LeftOut, OmissionCounter

Floats = NDArray[np.float64]
Ids = NDArray[np.int64]

ARRAYS = (
    *("image_ids", "files", "sizes", "starts"),
    *("boxes", "labels", "areas", "crowds", "object_ids", "keypoints"),
    *("category_ids", "about"),
)
"""Id, name and `[width, height]` of each image, and where its objects start; what `Annotations` says of each object;
ids of the categories, and the rest as JSON."""
OUTLINES = ("outlines", "outline_spans")
"""Outlines of all objects as JSON, one after the other, and where that of each object begins and ends."""

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
    outline_spans: NDArray[np.int64] | None = None

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
        assert self.outline_spans is not None
        start, end = self.outline_spans[at]
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
    with uncollected():
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


# From a file to arrays


@dataclass(frozen=True, kw_only=True)
class Referents:
    """Contents of a file that its annotations refer to."""

    image_ids: Ids
    sizes: Ids
    """[images, 2], width and height."""
    category_ids: Ids
    """Ascending."""
    keypoint_names: Sequence[Sequence[str]]
    outlines: bool
    """Whether outlines are to be read."""

    @cached_property
    def by_id(self) -> Ids:
        """Order of the images by id."""
        return np.argsort(self.image_ids)


def _build(path: Path, outlines: bool) -> SharedArrays:
    lists, left_out, changed = json_lists(path), OmissionCounter(), OmissionCounter()
    arrays, about = _categories(_all_entries(lists, "categories"))
    arrays |= _images(list(pieces_of(lists, "images")))
    named = {name: arrays[name] for name in ("image_ids", "sizes", "category_ids")}
    known = Referents(**named, keypoint_names=about["keypoint_names"], outlines=outlines)
    parts = [_objects(entries, known, left_out, changed) for entries in pieces_of(lists, "annotations")]
    objects = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    _require_sound(path, objects, known)
    arrays |= _ordered(objects, len(known.image_ids), changed)
    about["left_out"] = [group.to_json() for group in left_out.left_out()]
    about["changed"] = [group.to_json() for group in changed.left_out()]
    arrays["about"] = np.frombuffer(json.dumps(about).encode(), dtype=np.uint8)
    return arrays


def _ordered(objects: SharedArrays, images: int, changed: OmissionCounter) -> SharedArrays:
    """Order objects by image, and say where those of each image start."""
    image_of, numbered = objects.pop("image_of"), objects.pop("numbered")
    for place in objects.pop("places")[~numbered]:
        changed.add("annotations without 'id', numbered", f"annotations[{place}]")
    if not numbered.all():
        objects["object_ids"] = np.arange(1, len(image_of) + 1)
    outlines = {name: objects.pop(name) for name in ("outlines", "outline_sizes") if name in objects}
    if outlines:
        ends = np.cumsum(outlines.pop("outline_sizes"))
        objects["outline_spans"] = np.stack([np.concatenate([[0], ends[:-1]]), ends], axis=1)
    del objects["stated"]
    order = np.argsort(image_of, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(image_of, minlength=images))]).astype(np.int64)
    return {name: column[order] for name, column in objects.items()} | outlines | {"starts": starts}


def _all_entries(lists: JsonLists, kind: str) -> Entries:
    rows = [row for entries in pieces_of(lists, kind) for row in entries.rows]
    return Entries(lists.path, kind, rows, range(len(rows)))


def _categories(categories: Entries) -> tuple[SharedArrays, dict[str, Any]]:
    ids = _ids(categories, "id")
    names = categories.column("name", (str,), "a name")
    categories.require("name", names, map(bool, names), "a name")
    keypoints = categories.column("keypoints", (list,), "a list of names", default=[])
    categories.require("keypoints", keypoints, map(_are_names, keypoints), "a list of names")
    for key, values in (("id", ids.tolist()), ("name", names)):
        require_unique(categories.path, categories.kind, key, values)
    order = np.argsort(ids)
    about = {
        "classes": [names[at] for at in order],
        "keypoint_names": [keypoints[at] for at in order],
        "skeletons": [_bones(categories, int(at), keypoints[at]) for at in order],
    }
    return {"category_ids": ids[order]}, about


def _ids(entries: Entries, key: str) -> Ids:
    values = entries.column(key, (int,), "a whole number")
    try:
        return np.array(values, dtype=np.int64)
    except OverflowError:
        entries.require(key, values, (abs(value) < 2**63 for value in values), "a whole number of 64 bits")
        raise


def _are_names(values: list[Any]) -> bool:
    return all(isinstance(name, str) for name in values)


def _bones(categories: Entries, at: int, names: Sequence[str]) -> list[tuple[int, int]]:
    """Return the joined keypoints of a category, counted from 0; in the file they are counted from 1."""
    bones = categories.rows[at].get("skeleton") or []
    known = range(1, len(names) + 1)
    if not all(isinstance(bone, list) and len(bone) == 2 and all(end in known for end in bone) for bone in bones):
        raise categories.fault(at, "skeleton", bones, f"a list of pairs of keypoints, counted from 1 to {len(names)}")
    return [(first - 1, second - 1) for first, second in bones]


def _images(parts: Sequence[Entries]) -> SharedArrays:
    ids = np.concatenate([_ids(images, "id") for images in parts])
    names = [name for images in parts for name in _file_names(images)]
    sides = [[side for images in parts for side in _sides(images, key)] for key in ("width", "height")]
    for key, values in (("id", ids.tolist()), ("file_name", names)):
        require_unique(parts[0].path, parts[0].kind, key, values)
    files = np.array([name.encode() for name in names], dtype=np.bytes_)
    return {"image_ids": ids, "files": files, "sizes": np.array(sides, dtype=np.int64).T.copy()}


def _file_names(images: Entries) -> list[str]:
    wanted = "the path of a file below the folder of images"
    names: list[str] = images.column("file_name", (str,), wanted)
    images.require("file_name", names, map(_is_path, names), wanted)
    return names


def _is_path(name: str) -> bool:
    return name != "" and not name.startswith("/") and ".." not in name.split("/")


def _sides(images: Entries, key: str) -> list[int]:
    sides: list[int] = images.column(key, (int,), "a number of pixels")
    images.require(key, sides, (0 < side < 2**31 for side in sides), "a number of pixels")
    return sides


def _objects(entries: Entries, known: Referents, left_out: OmissionCounter, changed: OmissionCounter) -> SharedArrays:
    """Return annotations of images that the file lists, whose box has an area: columns as of `ARRAYS`, and beside them
    image, place in the file, the box as it is stated, and whether there is an id."""
    entries, image_of = _of_known_images(entries, known, left_out)
    stated = entries.numbers("bbox", 4)
    boxes = _corners(entries, stated, known.sizes[image_of], changed)
    labels = _labels(entries, known)
    numbered = np.array(["id" in row for row in entries.rows], dtype=np.bool_)
    columns = {
        **{
            "image_of": image_of,
            "places": np.array(entries.places),
            "stated": stated,
            "boxes": boxes,
            "labels": labels,
        },
        "areas": _areas(entries, boxes, changed),
        "crowds": _crowds(entries),
        "numbered": numbered,
        "object_ids": _ids(entries, "id") if numbered.all() else np.zeros(len(labels), dtype=np.int64),
        "keypoints": _keypoints(entries, labels, known.keypoint_names),
    }
    kept = _with_area(entries, boxes, left_out)
    outlines = _outlines(entries, known.sizes[image_of], kept, left_out) if known.outlines else {}
    return {name: column[kept] for name, column in columns.items()} | outlines


def _of_known_images(entries: Entries, known: Referents, left_out: OmissionCounter) -> tuple[Entries, Ids]:
    """Return the annotations of images that the file lists, and the place of the image of each."""
    owners = _ids(entries, "image_id")
    at = np.minimum(np.searchsorted(known.image_ids, owners, sorter=known.by_id), len(known.image_ids) - 1)
    found = known.by_id[at]
    there = known.image_ids[found] == owners
    if there.all():
        return entries, found
    for index in np.flatnonzero(~there):
        left_out.add("annotations of images that the file does not list", entries.name(int(index)))
    rows = [row for row, is_there in zip(entries.rows, there, strict=True) if is_there]
    return Entries(entries.path, entries.kind, rows, np.array(entries.places)[there]), found[there]


def _corners(entries: Entries, stated: Floats, sizes: Ids, changed: OmissionCounter) -> Floats:
    """Return the corners of boxes, cut to their images."""
    corners = np.concatenate([stated[:, :2], stated[:, :2] + stated[:, 2:]], axis=1)
    within: Floats = np.clip(corners, 0, np.concatenate([sizes, sizes], axis=1))
    for index in np.flatnonzero((np.abs(within - corners) > BEYOND).any(1)):
        changed.add("boxes that reach beyond their image, cut to it", entries.name(int(index)))
    return within


def _labels(entries: Entries, known: Referents) -> Ids:
    wanted = "the id of one of the categories"
    numbers = entries.column("category_id", (int,), wanted)
    labels = {int(number): label for label, number in enumerate(known.category_ids)}
    found = [labels.get(number, -1) for number in numbers]
    entries.require("category_id", numbers, (label >= 0 for label in found), wanted)
    return np.array(found, dtype=np.int64)


def _areas(entries: Entries, boxes: Floats, changed: OmissionCounter) -> Floats:
    """Return stated areas; those of the box where none is stated."""
    stated = entries.column("area", (int, float, type(None)), "square pixels")
    areas = np.array([np.nan if value is None else value for value in stated], dtype=np.float64)
    missing = np.isnan(areas)
    for index in np.flatnonzero(missing):
        changed.add("annotations without 'area', given that of their box", entries.name(int(index)))
    widths, heights = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    return np.where(missing, widths * heights, areas)


def _crowds(entries: Entries) -> NDArray[np.bool_]:
    flags = entries.column("iscrowd", (int, bool), "0 or 1", default=0)
    entries.require("iscrowd", flags, (flag in (0, 1) for flag in flags), "0 or 1")
    return np.array(flags, dtype=np.bool_)


def _with_area(entries: Entries, boxes: Floats, left_out: OmissionCounter) -> NDArray[np.bool_]:
    """Tell which boxes have an area within their image."""
    kept: NDArray[np.bool_] = np.all(boxes[:, 2:] > boxes[:, :2], axis=1)
    for index in np.flatnonzero(~kept):
        left_out.add("annotations whose box has no area within its image", entries.name(int(index)))
    return kept


def _keypoints(entries: Entries, labels: Ids, names: Sequence[Sequence[str]]) -> NDArray[np.float32]:
    """Return the keypoints of each object; 0, not labelled, of classes that have fewer or none."""
    numbers = [len(of_class) for of_class in names]
    found = np.zeros((len(labels), 3 * max(numbers)), dtype=np.float32)
    keypoints = found.reshape(len(labels), max(numbers), 3)
    if not keypoints.size:
        return keypoints
    for index, (row, label) in enumerate(zip(entries.rows, labels.tolist(), strict=True)):
        given = row.get("keypoints")
        if not given:
            continue
        if not isinstance(given, list) or len(given) != 3 * numbers[label] or not only_numbers(given):
            wanted = f"x, y and visibility of the {numbers[label]} keypoints of its category"
            raise entries.fault(index, "keypoints", given, wanted)
        found[index, : len(given)] = given
    if wrong := np.flatnonzero(~np.isin(keypoints[..., 2], (0, 1, 2)).all(1)).tolist():
        raise entries.fault(wrong[0], "keypoints", entries.rows[wrong[0]]["keypoints"], "of visibility 0, 1 or 2")
    return keypoints


def _outlines(entries: Entries, sizes: Ids, kept: NDArray[np.bool_], left_out: OmissionCounter) -> SharedArrays:
    """Return the outlines of objects as JSON; those without one are taken out of `kept`."""
    texts = []
    outlines: list[Any] = [
        row.get("segmentation") if is_kept else [] for row, is_kept in zip(entries.rows, kept, strict=True)
    ]
    sound = are_polygons(outlines)
    for index in np.flatnonzero(kept).tolist():
        outline = outlines[index]
        if not outline:
            kept[index] = False
            left_out.add("annotations without a mask, 'segmentation'", entries.name(index))
        elif not (sound and isinstance(outline, list)) and (wanted := outline_fault(outline, *sizes[index].tolist())):
            raise entries.fault(index, "segmentation", outline, wanted)
        else:
            texts.append(orjson.dumps(outline))
    sizes_of_texts = np.array([len(text) for text in texts], dtype=np.int64)
    return {"outlines": np.frombuffer(b"".join(texts), dtype=np.uint8), "outline_sizes": sizes_of_texts}


def _require_sound(path: Path, objects: SharedArrays, known: Referents) -> None:
    """Check what only all annotations together tell.

    Raises:
        ValueError: if none is left, two have the same id, or boxes are two corners.
    """
    if not len(objects["labels"]):
        raise ValueError(f"{path}: no annotation with an area is of an image that the file lists; 'image_id' is its id")
    ids, counts = np.unique(objects["object_ids"], return_counts=True)
    if objects["numbered"].all() and (counts > 1).any():
        first, second = objects["places"][objects["object_ids"] == ids[counts > 1][0]][:2]
        raise ValueError(
            f"{path}: annotations[{second}] (id {ids[counts > 1][0]}): 'id' is that of annotations[{first}] too; each "
            "must have its own"
        )
    if message := corners_message(objects["stated"], known.sizes[objects["image_of"]]):
        place, text = message
        raise ValueError(f"{path}: annotations[{objects['places'][place]}]: {text}")


def corners_message(stated: Floats, sizes: Ids) -> tuple[int, str] | None:
    """Say if boxes were written as two corners in place of a corner, width and height, and give one of them.

    They were if all of them make sense as corners, and most reach beyond their image as they are meant.
    """
    limits = np.concatenate([sizes, sizes], axis=1) + BEYOND
    beyond = (stated[:, :2] + stated[:, 2:] > limits[:, :2]).any(1)
    as_corners = (stated[:, 2:] >= stated[:, :2]).all(1) & (stated <= limits).all(1)
    if beyond.sum() < FEWEST_XYXY or 2 * beyond.sum() <= len(stated) or not as_corners.all():
        return None
    index = int(np.flatnonzero(beyond)[0])
    x, y, x2, y2 = (f"{value:g}" for value in stated[index])
    return index, (
        f"'bbox' seems to be written as two corners, x1, y1, x2, y2: as x, y, width, height {beyond.sum()} of "
        f"{len(stated)} boxes reach beyond their image, and as corners none does. Write [{x}, {y}, {x2} - {x}, "
        f"{y2} - {y}], as COCO's format wants"
    )
