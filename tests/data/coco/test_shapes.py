"""The drawn shapes: the same of the same options, in COCO's format, and annotated where they are."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bocb_tune.data import contents_of
from bocb_tune.data.coco.shapes import CLASSES, KEYPOINTS, draw, drawn, scene
from tests.data.coco.made import shapes


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "shared"
    home.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(home))


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_same_options_draw_the_same(tmp_path: Path) -> None:
    options: dict[str, Any] = {"image_size": 48, "images": 3, "held_out": 2}
    for place, seed in (("a", 0), ("b", 0), ("c", 1)):
        draw(tmp_path / place, **options, draw_seed=seed)
    first, again, other = (digests(tmp_path / place) for place in "abc")
    assert first == again
    assert len(first) == 7
    assert all(first[name] != other[name] for name in first)
    images = [first[name] for name in first if name.endswith(".png")]
    assert len(set(images)) == 5  # the splits differ too


def test_they_are_drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"image_size": 48, "images": 2, "held_out": 1, "draw_seed": 0}
    folder = drawn(options)
    monkeypatch.setattr("bocb_tune.data.coco.shapes.draw", None)
    assert drawn(options) == folder
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]  # no draft is left


def test_objects_are_annotated_where_they_are() -> None:
    dataset = shapes(images=30, held_out=1, image_size=96)
    images = dataset.images("train", masks=True, keypoints=True)
    assert dataset.classes == tuple(CLASSES)
    counts = np.zeros(len(CLASSES))
    for index in range(len(images)):
        target = images.target(index)
        assert 1 <= len(target["labels"]) <= 4
        assert target["masks"].sum(0).max() <= 1  # none upon another
        for label, box, mask, joints, area in zip(
            *(target[key] for key in ("labels", "boxes", "masks", "keypoints", "area")), strict=True
        ):
            counts[label] += 1
            assert abs(mask.sum() - area) < 0.1 * area + 10
            rows, columns = mask.nonzero().T
            assert (box.numpy() - [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]).__abs__().max() < 1.5
            labelled = joints[joints[:, 2] > 0, :2]
            assert len(labelled) == len(KEYPOINTS) - (CLASSES["triangle"] == list(CLASSES.values())[label])
            assert (labelled >= box[:2] - 0.1).all()
            assert (labelled <= box[2:] + 0.1).all()
            top, left, right = joints[:3, :2]
            assert abs(top[1] - box[1]) < 0.1 or label != 0  # a disc does not tilt
            assert left[0] < right[0]
    assert counts.min() > 5


def test_objects_stand_out_from_the_background() -> None:
    random = np.random.default_rng(0)
    for _ in range(20):
        pixels, objects = scene(random, 64)
        assert pixels.shape == (64, 64, 3)
        assert objects


def test_contents_say_what_there_is() -> None:
    contents = contents_of("shapes", {"images": 5, "held_out": 4, "image_size": 64})
    assert (contents.count("train"), contents.count("val")) == (5, 4)
    assert contents.left_out == contents.changed == ()
    assert contents.fingerprint()["parts"]["train"]["all"][0] == 5
