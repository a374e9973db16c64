"""COCO's format: objects as a slow reader has them, bad entries refused by name, and all that is left out counted."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bocb_tune.data import contents_of, load_dataset
from bocb_tune.data.coco import annotations as reading
from bocb_tune.data.coco.annotations import corners_message, read_annotations
from bocb_tune.data.coco.dataset import Coco, load_coco
from bocb_tune.data.coco.outlines import mask_of, outline_fault, outline_of, run_lengths
from bocb_tune.data.contents import Contents, OmissionCounter, differences
from bocb_tune.data.decode import RefusedImage
from tests.data.coco.made import CATEGORIES, SIZE, image, make_coco, paint, thing, without, write


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "shared"
    home.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(home))


def look(options: dict[str, Any]) -> Contents:
    return contents_of("coco", options)


def load(options: dict[str, Any]) -> Coco:
    return load_coco("coco", options, "cpu")


def counted(groups: Any, split: str = "train") -> dict[str, tuple[int, tuple[str, ...]]]:
    """Reasons of a split with counts and names."""
    ending = f" ({split})"
    return {one.reason.removesuffix(ending): (one.count, one.names) for one in groups if one.reason.endswith(ending)}


# What an image gives


def test_an_image_gives_its_objects(tmp_path: Path) -> None:
    cat = thing(2, 9, category_id=7, bbox=[1.5, 2, 20, 10], keypoints=[3, 4, 2, 0, 0, 0, 5, 6, 1])
    options = make_coco(tmp_path, [image(9), image(4)], [thing(5, 4), cat, thing(3, 9, area=12.5)])
    dataset = load(options)
    assert dataset.classes == ("dog", "cat")  # by ascending id, whatever the order in the file and the gaps
    assert dataset.category_ids == [3, 7]
    pixels, target = dataset.images("train", masks=True, keypoints=True)[0]
    assert pixels.shape == (3, SIZE[1], SIZE[0])
    assert pixels.dtype == torch.uint8
    assert target["image_id"] == 9
    assert target["boxes"].tolist() == [[1.5, 2, 21.5, 12], [4, 5, 14, 13]]
    assert target["labels"].tolist() == [1, 0]
    assert target["area"].tolist() == [80, 12.5]
    assert target["iscrowd"].tolist() == [False, False]
    assert target["masks"].shape == (2, SIZE[1], SIZE[0])
    assert target["masks"].flatten(1).sum(1).tolist() == [80, 80]
    assert target["keypoints"].tolist() == [[[3, 4, 2], [0, 0, 0], [5, 6, 1]], [[0, 0, 0]] * 3]
    types = {name: value.dtype for name, value in target.items() if isinstance(value, torch.Tensor)}
    assert types == {
        **dict.fromkeys(("boxes", "area", "keypoints"), torch.float32),
        **{"labels": torch.int64, "iscrowd": torch.bool, "masks": torch.uint8},
    }
    assert {"masks", "keypoints"}.isdisjoint(dataset.images("train").target(0))


def test_images_without_objects_are_validated_on_and_not_trained_on(tmp_path: Path) -> None:
    options = make_coco(tmp_path, [image(1), image(2)], [thing(1, 2)])
    dataset, contents = load(options), look(options)
    assert (dataset.count("train"), dataset.count("val")) == (1, 2)
    assert (contents.count("train"), contents.count("val")) == (1, 2)
    empty = dataset.images("val", masks=True, keypoints=True).target(0)
    shapes = {name: tuple(value.shape) for name, value in empty.items() if isinstance(value, torch.Tensor)}
    assert shapes == {
        **{"boxes": (0, 4), "labels": (0,), "area": (0,), "iscrowd": (0,)},
        **{"masks": (0, SIZE[1], SIZE[0]), "keypoints": (0, 3, 3)},
    }
    assert counted(contents.left_out) == {"training images without an object": (1, ("1.png",))}


def test_crowds_are_kept_apart(tmp_path: Path) -> None:
    crowd = thing(2, 1, iscrowd=1, segmentation={"size": [30, 40], "counts": [10, 20, 1170]})
    options = make_coco(tmp_path, [image(1), image(2)], [thing(1, 1), crowd, thing(3, 2, iscrowd=1)])
    dataset = load(options)
    assert dataset.images("train").target(0)["iscrowd"].tolist() == [False]
    with_crowds = dataset.images("train", masks=True, crowds=True).target(0)
    assert with_crowds["iscrowd"].tolist() == [False, True]
    assert with_crowds["masks"][1].sum() == 20
    assert dataset.count("train") == 1  # the other image holds a crowd alone
    assert look(options).splits["train"] == (1, 0)


def test_names_of_files_may_be_in_any_script_and_folder(tmp_path: Path) -> None:
    names = ["äöü ß.png", "日本/猫.png"]
    images = [image(number, file_name=name) for number, name in enumerate(names, start=1)]
    dataset = load(make_coco(tmp_path, images, [thing(1, 1), thing(2, 2)]))
    found = dataset.images("train")
    assert [Path(found.name(index)).name for index in range(2)] == ["äöü ß.png", "猫.png"]
    assert found[1][0].shape == (3, SIZE[1], SIZE[0])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from([3, 7]), st.booleans()), min_size=1, max_size=30))
def test_objects_are_those_of_a_slow_reader(tmp_path_factory: pytest.TempPathFactory, rows: Any) -> None:
    entries = [
        thing(100 - number, 50 - 7 * of, category_id=category, iscrowd=int(crowd), bbox=[number, 1, 5, 2 + number % 7])
        for number, (of, category, crowd) in enumerate(rows)
    ]
    path = write(
        tmp_path_factory.mktemp("slow"),
        {"images": [image(50 - 7 * of) for of in range(5)], "annotations": entries, "categories": CATEGORIES},
    )
    read = read_annotations(path)
    for at, image_id in enumerate(read.image_ids.tolist()):
        own = [entry for entry in entries if entry["image_id"] == image_id]
        place = read.objects(at)
        assert read.object_ids[place].tolist() == [entry["id"] for entry in own]
        assert read.category_ids[read.labels[place]].tolist() == [entry["category_id"] for entry in own]
        assert read.crowds[place].tolist() == [bool(entry["iscrowd"]) for entry in own]
        corners = [[x, y, min(x + w, SIZE[0]), y + h] for x, y, w, h in (entry["bbox"] for entry in own)]
        assert read.boxes[place].tolist() == corners


def test_a_file_is_read_once_on_a_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, {"images": [image(1)], "annotations": [thing(1, 1)], "categories": CATEGORIES})
    before = read_annotations(path)
    calls: list[Path] = []
    read = reading.json_lists
    monkeypatch.setattr(reading, "json_lists", lambda path: calls.append(path) or read(path))
    again = read_annotations(path)
    assert calls == []
    assert again.boxes.tolist() == before.boxes.tolist()
    path.write_text(path.read_text().replace("[4, 5, 10, 8]", "[4, 5, 11, 8]"))
    assert read_annotations(path).boxes[0, 2] == 15
    assert calls == [path]


# Masks


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**31), st.floats(0, 1))
def test_compressed_run_lengths_are_understood(height: int, width: int, seed: int, share: float) -> None:
    drawn = (np.random.default_rng(seed).random((height, width)) < share).astype(np.uint8)
    compressed = outline_of(drawn)
    columns = drawn.flatten(order="F")
    changes = np.flatnonzero(np.diff(columns)) + 1
    lengths = np.diff([0, *changes, columns.size]).tolist()
    expected = [0, *lengths] if columns[0] else lengths
    assert run_lengths(compressed["counts"]) == expected
    assert outline_fault(compressed, width, height) is None
    assert (mask_of(compressed, width, height) == drawn).all()
    assert (mask_of({"size": [height, width], "counts": expected}, width, height) == drawn).all()


def test_polygons_are_drawn_as_pycocotools_does() -> None:
    parts = [[2, 3, 12, 3, 12, 9, 2, 9], [20, 20, 30, 20, 25, 28.5]]
    both = mask_of(parts, *SIZE)
    assert both[3:9, 2:12].all()
    assert (both == np.maximum(mask_of(parts[:1], *SIZE), mask_of(parts[1:], *SIZE))).all()


# What is left out, or used in another form


def test_what_is_left_out_is_counted_and_named(tmp_path: Path) -> None:
    flat, outside = thing(2, 1, bbox=[3, 3, 5, 0]), thing(3, 1, bbox=[100, 100, 5, 5])
    options = make_coco(tmp_path, [image(1), image(2)], [thing(1, 1), flat, outside, thing(4, 99), thing(5, 2)])
    (tmp_path / "train2017" / "2.png").unlink()
    contents = look(options)
    assert counted(contents.left_out) == {
        "annotations whose box has no area within its image": (2, ("annotation 2", "annotation 3")),
        "annotations of images that the file does not list": (1, ("annotation 4",)),
        "images that are listed and not in train2017": (1, ("2.png",)),
    }
    assert contents.splits == {"train": (1, 0), "val": (2, 0)}
    assert len(load(options).images("train").target(0)["boxes"]) == 1
    shown = "\n".join(contents.lines())
    assert "left out: 2 annotations whose box has no area within its image (train): annotation 2, annotation 3" in shown
    assert "train: 1 images, 1 objects" in shown


def test_what_is_changed_is_counted_and_named(tmp_path: Path) -> None:
    bare = without(thing(0, 1), "id", "area", "iscrowd")
    options = make_coco(tmp_path, [image(1)], [thing(7, 1, bbox=[-5, 2, 100, 10]), bare])
    assert counted(look(options).changed) == {
        "boxes that reach beyond their image, cut to it": (1, ("annotation 7",)),
        "annotations without 'area', given that of their box": (1, ("annotations[1]",)),
        "annotations without 'id', numbered": (1, ("annotations[1]",)),
    }
    target = load(options).images("train").target(0)
    assert target["boxes"].tolist() == [[0, 2, SIZE[0], 12], [4, 5, 14, 13]]
    assert target["area"].tolist() == [80, 80]
    assert target["iscrowd"].tolist() == [False, False]
    assert [line["count"] for line in look(options).to_json()["changed"]] == [1] * 6


def test_objects_without_a_mask_are_left_out_of_masks_alone(tmp_path: Path) -> None:
    bare = [thing(2, 1, segmentation=[]), without(thing(3, 1), "segmentation")]
    dataset = load(make_coco(tmp_path, [image(1)], [thing(1, 1), *bare]))
    assert len(dataset.images("train").target(0)["boxes"]) == 3
    assert len(dataset.images("train", masks=True).target(0)["masks"]) == 1
    assert dataset.images("train", masks=True).part.left_out[0].names == ("annotation 2", "annotation 3")


def test_keypoints_that_are_all_invisible_are_zeros(tmp_path: Path) -> None:
    entry = thing(1, 1, category_id=7, keypoints=[0] * 9, num_keypoints=0)
    target = load(make_coco(tmp_path, [image(1)], [entry])).images("train", keypoints=True).target(0)
    assert target["keypoints"].abs().sum() == 0


def test_one_class_will_do(tmp_path: Path) -> None:
    options = make_coco(tmp_path, [image(1)], [thing(1, 1)], [{"id": 3, "name": "dog"}])
    assert load(options).num_classes == 1
    assert load(options).images("train").target(0)["labels"].tolist() == [0]


# What is refused

ONE = [image(1)]
BAD: dict[str, tuple[Any, str]] = {
    "no JSON": ("{", r"is no JSON: "),
    "NaN": ('{"images": [], "annotations": [], "categories": [NaN]}', r"is no JSON, from byte 49 on: "),
    "a list": ([], r"holds a JSON list; COCO's format is an object of lists"),
    "no annotations": (
        {"images": ONE, "categories": CATEGORIES},
        r"has no list 'annotations' \(its lists are categories, im",
    ),
    "empty annotations": ({"annotations": []}, r"the list 'annotations' is empty"),
    "empty images": ({"images": []}, r"the list 'images' is empty"),
    "no object": ({"annotations": [5]}, r"annotations\[0\] is 5; it must be an object"),
    "an image twice": (
        {"images": [image(1), image(2), image(1, file_name="other.png")]},
        r"images\[2\]: 'id' is 1, as that of images\[0\]; each must have its own",
    ),
    "a file twice": ({"images": [image(1), image(2, file_name="1.png")]}, r"images\[1\]: 'file_name' is '1.png', as"),
    "an annotation twice": (
        {"annotations": [thing(4, 1), thing(4, 1)]},
        r"annotations\[1\] \(id 4\): 'id' is that of annotations\[0\] too",
    ),
    "a category twice": ({"categories": [CATEGORIES[1], CATEGORIES[1]]}, r"categories\[1\]: 'id' is 3, as"),
    "a name twice": ({"categories": [*CATEGORIES, {"id": 8, "name": "dog"}]}, r"'name' is 'dog', as that of categor"),
    "an id that is no number": ({"images": [image(1, id="1")]}, r"images\[0\].*'id' is '1'; it must be a whole number"),
    "no size": ({"images": [without(image(1), "width")]}, r"'width' is missing; it must be a number of pixels"),
    "a path upwards": ({"images": [image(1, file_name="../x.png")]}, r"'file_name' is '../x.png'; it must be the path"),
    "an unknown category": (
        {"annotations": [thing(1, 1), thing(2, 1, category_id=4)]},
        r"annotations\[1\] \(id 2\): 'category_id' is 4; it must be the id of one of the categories",
    ),
    "no known image": (
        {"annotations": [thing(1, 5)]},
        r"no annotation with an area is of an image that the file lists",
    ),
    "three numbers": ({"annotations": [thing(1, 1, bbox=[1, 2, 3])]}, r"'bbox' is \[1, 2, 3\]; it must be 4 numbers"),
    "no numbers": ({"annotations": [thing(1, 1, bbox=[1, 2, 3, "4"])]}, r"'bbox' is .*'4'\]; it must be 4 numbers"),
    "no box": ({"annotations": [without(thing(1, 1), "bbox")]}, r"\(id 1\): 'bbox' is missing; it must be 4 numbers"),
    "another flag": ({"annotations": [thing(1, 1, iscrowd=2)]}, r"'iscrowd' is 2; it must be 0 or 1"),
    "area in words": ({"annotations": [thing(1, 1, area="big")]}, r"'area' is 'big'; it must be square pixels"),
    "keypoints of none": (
        {"annotations": [thing(1, 1, keypoints=[1, 2, 2])]},
        r"'keypoints' is \[1, 2, 2\]; it must be x, y and visibility of the 0 keypoints of its category",
    ),
    "visibility": (
        {"annotations": [thing(1, 1, category_id=7, keypoints=[1, 2, 3] * 3)]},
        r"'keypoints' .* it must be of visibility 0, 1 or 2",
    ),
    "a skeleton": (
        {"categories": [{**CATEGORIES[0], "skeleton": [[1, 4]]}, CATEGORIES[1]]},
        r"categories\[0\] .*'skeleton' is \[\[1, 4\]\]; it must be a list of pairs of keypoints, counted from 1 to 3",
    ),
    "crowds alone": ({"annotations": [thing(1, 1, iscrowd=1)]}, r"none of the images in .*train2017 holds an object"),
}


@pytest.mark.parametrize("fault", BAD)
def test_a_bad_file_is_refused_by_entry(tmp_path: Path, fault: str) -> None:
    change, message = BAD[fault]
    whole = {"images": ONE, "annotations": [thing(1, 1)], "categories": CATEGORIES}
    options = make_coco(tmp_path, ONE, [thing(1, 1)])
    if not isinstance(change, dict):
        content: Any = change
    else:
        content = change if "categories" in change and "images" in change else {**whole, **change}
    write(tmp_path, content)
    with pytest.raises(ValueError, match=message) as caught:
        look(options)
    assert "instances_train2017.json" in str(caught.value)


def test_an_entry_keeps_its_place_where_others_are_left_out(tmp_path: Path) -> None:
    options = make_coco(tmp_path, ONE, [thing(1, 99), thing(2, 1), thing(3, 1, category_id=5)])
    with pytest.raises(ValueError, match=r"annotations\[2\] \(id 3\): 'category_id' is 5"):
        look(options)


OUTLINES: dict[str, tuple[Any, str]] = {
    "two corners": ([[1, 2, 3, 4]], "polygons, each a list x, y"),
    "an odd number": ([[1, 2, 3, 4, 5, 6, 7]], "polygons, each a list"),
    "flat": ([1, 2, 3, 4, 5, 6], "polygons, each a list"),
    "words": ("mask", "polygons or run lengths"),
    "another size": ({"size": [40, 30], "counts": [1200]}, r"run lengths of 'size' \[30, 40\]"),
    "too few pixels": ({"size": [30, 40], "counts": [10, 20]}, "add up to the image's 1200 pixels"),
    "too few compressed": ({"size": [30, 40], "counts": outline_of(np.ones((2, 3), np.uint8))["counts"]}, "add up to"),
    "no compressed": ({"size": [30, 40], "counts": "\x01\x02"}, "add up to the image's 1200 pixels"),
}


@pytest.mark.parametrize("fault", OUTLINES)
def test_a_bad_outline_is_refused_where_masks_are_wanted(tmp_path: Path, fault: str) -> None:
    outline, message = OUTLINES[fault]
    dataset = load(make_coco(tmp_path, ONE, [thing(1, 1), thing(2, 1, segmentation=outline)]))
    assert len(dataset.images("train").target(0)["boxes"]) == 2
    with pytest.raises(ValueError, match=rf"annotations\[1\] \(id 2\): 'segmentation' is .* it must be .*{message}"):
        dataset.images("train", masks=True)


def test_two_corners_in_place_of_width_and_height_are_noticed(tmp_path: Path) -> None:
    corners = [thing(number, 1, bbox=[x, 8, x + 9, 29]) for number, x in enumerate((2, 16, 20, 25, 30))]
    with pytest.raises(ValueError, match=r"annotations\[0\]: 'bbox' seems to be .* two corners") as caught:
        look(make_coco(tmp_path, ONE, corners))
    assert "Write [2, 8, 11 - 2, 29 - 8]" in str(caught.value)


sides = st.floats(0, 1)


@settings(deadline=None)
@given(st.lists(st.tuples(sides, sides, sides, sides), min_size=1, max_size=20))
def test_boxes_within_their_image_are_never_taken_for_corners(shares: Any) -> None:
    width, height = SIZE
    boxes = np.array([[x * width, y * height, w * (1 - x) * width, h * (1 - y) * height] for x, y, w, h in shares])
    assert corners_message(boxes, np.tile(SIZE, (len(boxes), 1))) is None


def test_missing_files_are_refused(tmp_path: Path) -> None:
    options = make_coco(tmp_path, ONE, [thing(1, 1)])
    shutil.rmtree(tmp_path / "val2017")
    with pytest.raises(ValueError, match=r"none of the 1 images that .*val2017.json lists is in .*val2017, such as 1"):
        look(options)
    (tmp_path / "annotations" / "instances_val2017.json").unlink()
    with pytest.raises(
        ValueError, match=r"there is no file .*instances_val2017.json; it must hold annotations in COCO"
    ):
        look({**options, "loader_workers": 1})


def test_other_categories_to_validate_on_are_refused(tmp_path: Path) -> None:
    options = make_coco(tmp_path, ONE, [thing(1, 1)])
    content = {"images": ONE, "annotations": [thing(1, 1)], "categories": CATEGORIES[1:]}
    write(tmp_path, content, "val")
    with pytest.raises(ValueError, match=r"val2017.json: its categories differ .* category 7 \('cat'\) is in one"):
        look(options)


def test_an_image_of_another_size_is_refused(tmp_path: Path) -> None:
    dataset = load(make_coco(tmp_path, ONE, [thing(1, 1)]))
    paint(tmp_path, ["1.png"], size=(20, 20))
    with pytest.raises(RefusedImage, match=r"has 20 x 20 pixels, and 40 x 30 by .*instances_train2017.json"):
        dataset.images("train")[0]


@pytest.mark.parametrize("option", ["/data/train", "../train", 5])
def test_places_are_below_the_root(option: Any) -> None:
    with pytest.raises(ValueError, match=r"'train_images' of dataset 'coco' is .*; it must be a path below the root"):
        load_dataset("coco", {"root": ".", "train_images": option}, "cpu")


# Whether data are those of before


def test_a_fingerprint_knows_images_and_annotations(tmp_path: Path) -> None:
    options = make_coco(tmp_path / "a", [image(1), image(2)], [thing(1, 1), thing(2, 2)])
    found = look(options).fingerprint()
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert look({**options, "root": str(tmp_path / "b")}).fingerprint() == found
    shutil.copytree(tmp_path / "a", tmp_path / "c")
    content = json.loads((tmp_path / "c/annotations/instances_train2017.json").read_text())
    content["annotations"][0]["bbox"] = [1, 1, 2, 2]
    write(tmp_path / "c", content)
    other = look({**options, "root": str(tmp_path / "c")}).fingerprint()
    assert other["parts"] == found["parts"]
    assert re.fullmatch("[0-9a-f]{16}", other["digest"])
    assert differences(found, other) == [
        "as many images of the same sizes in each class, but other names or sizes of single images"
    ]


def test_a_tally_names_what_it_counts() -> None:
    tally = OmissionCounter()
    tally.add("odd", "x")
    assert tally.left_out()[0].to_json() == {"reason": "odd", "count": 1, "names": ["x"]}
