"""Parts of the pose task: heat maps and what is read from them, crops and their keypoints, names, and the network."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bocb_tune.backbones.features import feature_maps
from bocb_tune.data.coco.annotations import Annotations, read_annotations
from bocb_tune.data.coco.dataset import load_coco
from bocb_tune.tasks.pose.crops import PADDING, Crops, CropWindow, cut_out, varied, view_of
from bocb_tune.tasks.pose.heatmaps import heat_map_loss, heat_maps, in_reach, mean_of_mirrored, peaks
from bocb_tune.tasks.pose.joints import COCO_SIGMAS, Joints, joints_of
from bocb_tune.tasks.pose.network import PoseNetwork
from tests.data.coco.made import CATEGORIES, image, make_coco, thing, write

KNOWN: dict[str, Any] = {"sigmas": None, "flip_pairs": None}
HEIGHT, WIDTH = 16, 12


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "shared"
    home.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(home))


# Heat maps


inner = st.tuples(st.floats(1.5, WIDTH - 1.5), st.floats(1.5, HEIGHT - 1.5))


@given(st.lists(inner, min_size=1, max_size=3), st.floats(0.7, 3))
def test_keypoints_are_found_where_they_were_drawn(points: Any, sigma: float) -> None:
    joints = torch.tensor([points])
    found, heights = peaks(heat_maps(joints, (HEIGHT, WIDTH), sigma))
    assert (found - joints).abs().max() <= 0.25 + 1e-3
    assert (heights > math.exp(-0.25 / sigma**2) - 1e-4).all()


def test_a_heat_map_is_a_gaussian_pixel_by_pixel() -> None:
    joints = torch.tensor([[[3.2, 7.9], [0.0, 0.0]]])
    maps = heat_maps(joints, (HEIGHT, WIDTH), 2.0)
    for joint, (x, y) in enumerate(joints[0].tolist()):
        for row in range(HEIGHT):
            for column in range(WIDTH):
                distance = (column + 0.5 - x) ** 2 + (row + 0.5 - y) ** 2
                assert maps[0, joint, row, column].item() == pytest.approx(math.exp(-distance / 8), abs=1e-6)


@given(st.lists(inner, min_size=3, max_size=3))
def test_mirrored_images_are_averaged_without_a_shift(points: Any) -> None:
    joints, mirrored = torch.tensor([points]), torch.tensor([1, 0, 2])
    maps = heat_maps(joints, (HEIGHT, WIDTH), 2.0)
    other = joints[:, mirrored] * torch.tensor([-1, 1]) + torch.tensor([WIDTH, 0])
    both = mean_of_mirrored(maps, heat_maps(other, (HEIGHT, WIDTH), 2.0), mirrored)
    assert torch.allclose(both, maps, atol=1e-5)


def test_keypoints_far_outside_have_no_weight() -> None:
    joints = torch.tensor([[[5.0, 5.0], [-5.9, 5.0], [-6.1, 5.0], [5.0, HEIGHT + 5.9], [5.0, HEIGHT + 6.1]]])
    assert in_reach(joints, (HEIGHT, WIDTH), 2.0).tolist() == [[True, True, False, True, False]]


def test_the_loss_is_half_the_mean_square_of_what_is_labelled() -> None:
    generator = torch.Generator().manual_seed(0)
    maps, wanted = (torch.rand(2, 3, 4, 5, generator=generator) for _ in range(2))
    weights = torch.tensor([[True, False, True], [False, True, True]])
    total = 0.0
    for one in range(2):
        for joint in range(3):
            if weights[one, joint]:
                total += ((maps[one, joint] - wanted[one, joint]) ** 2).sum().item()
    assert heat_map_loss(maps, wanted, weights).item() == pytest.approx(total / 2 / maps.numel(), rel=1e-5)


# Crops


def test_a_view_is_the_padded_box_in_the_shape_of_the_crop() -> None:
    wide, tall = (view_of(np.array(box), (64, 48)) for box in ([10, 20, 70, 40], [10, 20, 20, 100]))
    assert wide == CropWindow(centre=(40, 30), width=60 * PADDING, height=80 * PADDING)
    assert tall == CropWindow(centre=(15, 60), width=60 * PADDING, height=80 * PADDING)
    corners = wide.to_image((64, 48)) @ np.array([[0, 48], [0, 64], [1, 1]])
    assert corners == pytest.approx(np.array([[40 - 37.5, 40 + 37.5], [30 - 50, 30 + 50]]))


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**31), st.booleans())
def test_pixels_and_keypoints_move_alike(seed: int, mirrors: bool) -> None:
    """A bright disc is found at the keypoint at its centre, however the crop is turned, scaled and mirrored."""
    np.random.seed(seed)
    view = varied(CropWindow(centre=(45, 40), width=60, height=80), scale=0.3, turn=40, flip=False)
    view = CropWindow(centre=view.centre, width=view.width, height=view.height, turn=view.turn, mirrors=mirrors)
    rows, columns = np.mgrid[:90, :90] + 0.5
    disc = (rows - 50) ** 2 + (columns - 38) ** 2 <= 16
    pixels = np.repeat(disc[..., None], 3, axis=2).astype(np.uint8) * 255
    to_image = view.to_image((64, 48))
    crop = cut_out(pixels, to_image, (64, 48))[..., 0].astype(float)
    x, y = (np.array([38, 50]) - to_image[:, 2]) @ np.linalg.inv(to_image[:, :2]).T
    down, across = np.mgrid[:64, :48] + 0.5
    assert (crop * across).sum() / crop.sum() == pytest.approx(x, abs=0.15)
    assert (crop * down).sum() / crop.sum() == pytest.approx(y, abs=0.15)


def crops_of(tmp_path: Path, annotations: list[dict[str, Any]], changes: dict[str, Any] | None = None) -> Crops:
    dataset = load_coco("coco", make_coco(tmp_path, [image(1), image(2)], annotations), "cpu")
    images = dataset.images("train", keypoints=True)
    joints = joints_of(dataset.parts["train"].annotations, {**KNOWN, "sigmas": [0.1] * 3})
    return Crops(images=images, joints=joints, size=(64, 64), changes=changes)


CAT = {"category_id": 7, "keypoints": [5, 6, 2, 13, 7, 1, 0, 0, 0]}


def test_objects_with_a_labelled_keypoint_are_trained_on(tmp_path: Path) -> None:
    crops = crops_of(
        tmp_path,
        [
            thing(1, 1, **CAT),
            thing(2, 1),
            thing(3, 2, **CAT, iscrowd=1),
            thing(4, 2, category_id=7, keypoints=[0] * 9),
            thing(5, 2, **CAT),
        ],
    )
    assert [crops.images.part.annotations.object_ids[place] for place in crops.objects[:, 0]] == [1, 5]
    assert [Path(crops.name(index)).name for index in range(len(crops))] == ["1.png", "2.png"]


def test_keypoints_come_back_to_where_they_were(tmp_path: Path) -> None:
    crops = crops_of(tmp_path, [thing(1, 1, **CAT), thing(2, 2, **{**CAT, "bbox": [0, 0, 30, 20]})])
    made = [crops.made(crops.read(index), index) for index in range(2)]
    points = torch.stack([joints for _, joints, _, _ in made]).double().numpy()
    assert crops.to_images(points, [0, 1])[:, :2] == pytest.approx(np.array([[[5, 6], [13, 7]]] * 2), abs=1e-4)
    assert [labelled.tolist() for _, _, labelled, _ in made] == [[True, True, False]] * 2
    assert made[0][0].shape == (3, 64, 64)
    assert made[0][0].dtype == torch.uint8


def test_a_mirror_swaps_what_has_a_side(tmp_path: Path) -> None:
    crops = crops_of(tmp_path, [thing(1, 1, **CAT)], {"scale": 0.0, "turn": 0.0, "flip": True})
    plain = Crops(images=crops.images, joints=crops.joints, size=crops.size)
    _, straight, labelled, _ = plain.made(plain.read(0), 0)
    seen = set()
    for seed in range(20):
        np.random.seed(seed)
        _, joints, now, _ = crops.made(crops.read(0), 0)
        mirrored = not torch.allclose(joints[:2], straight[:2])
        seen.add(mirrored)
        if mirrored:  # the right end of the object is now called left
            assert torch.allclose(joints[[1, 0]] * torch.tensor([-1, 1]) + torch.tensor([64, 0]), straight[:2])
            assert now.tolist() == labelled[[1, 0, 2]].tolist()
    assert seen == {True, False}


# Names


def annotations_of(tmp_path: Path, categories: list[dict[str, Any]], **entry: Any) -> Annotations:
    content = {"images": [image(1)], "annotations": [thing(1, 1, **entry)], "categories": categories}
    return read_annotations(write(tmp_path, content))


def test_sigmas_of_coco_are_those_of_pycocotools(tmp_path: Path) -> None:
    from pycocotools.cocoeval import Params

    names = list(COCO_SIGMAS)
    person = {"id": 3, "name": "person", "keypoints": names}
    found = joints_of(annotations_of(tmp_path, [person], keypoints=[1, 1, 2] * 17), KNOWN)
    assert found.sigmas == pytest.approx(Params(iouType="keypoints").kpt_oks_sigmas)
    others = [names[at] for at in found.mirrored]
    assert others == [name.replace("left", "x").replace("right", "left").replace("x", "right") for name in names]


def test_what_names_do_not_say_is_asked_for(tmp_path: Path) -> None:
    marks = {"id": 3, "name": "mark", "keypoints": ["a", "b", "c"]}
    found = annotations_of(tmp_path, [marks], keypoints=[1, 1, 2] * 3)
    with pytest.raises(ValueError, match=r"not the 3 of this data set \(a, b, c\); give its option sigmas"):
        joints_of(found, {"sigmas": None, "flip_pairs": []})
    with pytest.raises(ValueError, match=r"'sigmas' of task 'pose' has 2 numbers; this data set has 3 keypoints"):
        joints_of(found, {"sigmas": [0.1, 0.1], "flip_pairs": []})
    with pytest.raises(ValueError, match=r"\(a, b, c\) do not say by 'left' and 'right' .* give the option flip_pairs"):
        joints_of(found, {"sigmas": [0.1] * 3, "flip_pairs": None})
    with pytest.raises(
        ValueError, match=r"unknown keypoint in option 'flip_pairs' of task 'pose' 'd' \(known: a, b, c"
    ):
        joints_of(found, {"sigmas": [0.1] * 3, "flip_pairs": [["a", "d"]]})
    with pytest.raises(ValueError, match=r"names 'a' twice"):
        joints_of(found, {"sigmas": [0.1] * 3, "flip_pairs": [["a", "b"], ["a", "c"]]})
    given_pairs = joints_of(found, {"sigmas": [0.1, 0.2, 0.3], "flip_pairs": [["a", "c"]]})
    assert given_pairs == Joints(names=("a", "b", "c"), mirrored=(2, 1, 0), sigmas=(0.1, 0.2, 0.3), labels=(0,))


def test_data_without_keypoints_are_refused(tmp_path: Path) -> None:
    bare = annotations_of(tmp_path / "a", [CATEGORIES[1]])
    with pytest.raises(ValueError, match=r"no category has 'keypoints' .* such as person_keypoints_train2017.json"):
        joints_of(bare, KNOWN)
    unlabelled = annotations_of(tmp_path / "b", CATEGORIES, category_id=7, keypoints=[0] * 9)
    with pytest.raises(ValueError, match=r"no category has 'keypoints' that some annotation labels"):
        joints_of(unlabelled, KNOWN)
    others = [*CATEGORIES, {"id": 9, "name": "bird", "keypoints": ["beak"]}]
    unlike = annotations_of(tmp_path / "c", others, category_id=7, keypoints=[1, 1, 2] * 3)
    with pytest.raises(ValueError, match=r"the keypoints of categories 'cat' and 'bird' differ"):
        joints_of(unlike, KNOWN)


# The network


@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit"])
def test_heat_maps_are_a_fourth_of_the_image(backbone: str) -> None:
    torch.manual_seed(0)
    network = PoseNetwork(feature_maps(backbone, (32,)), keypoints=5, channels=16)
    assert network.eval()(torch.zeros(2, 3, 64, 96)).shape == (2, 5, 16, 24)
    deconvolutions = [layer for layer in network.deconvolutions if isinstance(layer, torch.nn.ConvTranspose2d)]
    assert len(deconvolutions) == {"test_resnet": 3, "test_vit": 2}[backbone]
    for layer in (*deconvolutions, network.last):
        assert layer.weight.std().item() == pytest.approx(0.001, rel=0.25)
