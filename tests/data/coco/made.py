"""Small data sets in COCO's format, results for them, and pycocotools as a user would run it by hand."""

from __future__ import annotations

import contextlib
import io
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bocb_tune.data.coco.dataset import Coco, load_coco
from bocb_tune.data.coco.outlines import outline_of

SIZE = (40, 30)
"""Width and height of the images."""
JOINTS = ["left_end", "right_end", "middle"]
CATEGORIES = [{"id": 7, "name": "cat", "keypoints": JOINTS}, {"id": 3, "name": "dog"}]


def image(number: int, **changes: Any) -> dict[str, Any]:
    """An entry of an image."""
    return {"id": number, "file_name": f"{number}.png", "width": SIZE[0], "height": SIZE[1], **changes}


def thing(number: int, image_id: int, **changes: Any) -> dict[str, Any]:
    """An entry of an object: a rectangle of 10 x 8 pixels."""
    corners = [4, 5, 14, 5, 14, 13, 4, 13]
    entry = {"id": number, "image_id": image_id, "category_id": 3, "bbox": [4, 5, 10, 8], "area": 80, "iscrowd": 0}
    return {**entry, "segmentation": [corners], **changes}


def without(entry: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key not in keys}


def write(root: Path, content: Any, split: str = "train") -> Path:
    """Write an annotation file where the reader expects it."""
    path = root / "annotations" / f"instances_{split}2017.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def paint(root: Path, names: Sequence[str], split: str = "train", size: tuple[int, int] = SIZE) -> None:
    """Paint images under the reader's folder of a split."""
    for number, name in enumerate(names):
        path = root / f"{split}2017" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (number % 256, 100, 200)).save(path)


def make_coco(
    root: Path,
    images: Sequence[dict[str, Any]],
    annotations: Sequence[dict[str, Any]],
    categories: Sequence[dict[str, Any]] = CATEGORIES,
) -> dict[str, Any]:
    """Write a data set whose validation split is its training split; the options of the data set."""
    for split in ("train", "val"):
        content = {"images": list(images), "annotations": list(annotations), "categories": list(categories)}
        write(root, content, split)
        paint(root, [entry["file_name"] for entry in images], split)
    return {"root": str(root), "loader_workers": 0}


def guesses(dataset: Coco, seed: int, kind: str) -> dict[int, list[dict[str, Any]]]:
    """Imperfect results of the validation split by image: shifted objects, false alarms, ties, and images without."""
    random = np.random.default_rng(seed)
    images = dataset.images("val", masks=kind == "segm", keypoints=kind == "keypoints")
    found: dict[int, list[dict[str, Any]]] = {}
    for index in range(0, len(images), 1 if kind == "keypoints" else 2):
        target = images.target(index)
        results = []
        for at in range(len(target["labels"])):
            for _ in range(random.integers(0, 4)):
                result = {
                    "image_id": target["image_id"],
                    "category_id": dataset.category_ids[int(target["labels"][at])],
                    "score": float(random.integers(1, 20)) / 20,
                }
                results.append(result | _form(kind, target, at, random))
        found[target["image_id"]] = results
    return found


def _form(kind: str, target: dict[str, Any], at: int, random: np.random.Generator) -> dict[str, Any]:
    if kind == "bbox":
        x, y, right, bottom = (target["boxes"][at].numpy() + random.normal(0, 2, 4)).tolist()
        return {"bbox": [x, y, max(right - x, 1.0), max(bottom - y, 1.0)]}
    if kind == "segm":
        shift = random.integers(-3, 4, 2).tolist()
        return {"segmentation": outline_of(np.roll(target["masks"][at].numpy(), shift, (0, 1)))}
    points = target["keypoints"][at].numpy().astype(float)
    points[:, :2] += random.normal(0, 2, points[:, :2].shape)
    return {"keypoints": points.flatten().tolist()}


def by_hand(annotations: Path, dumped: Path, kind: str, sigmas: Sequence[float] | None = None) -> np.ndarray:
    """The statistics of pycocotools for a file of results, as its demo takes them."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        truth = COCO(str(annotations))
        scorer = COCOeval(truth, truth.loadRes(str(dumped)), kind)
        if sigmas is not None:
            scorer.params.kpt_oks_sigmas = np.array(sigmas)
        scorer.evaluate()
        scorer.accumulate()
        scorer.summarize()
    return np.array(scorer.stats)


def shapes(**options: Any) -> Coco:
    return load_coco("shapes", options, "cpu")
