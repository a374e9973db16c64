"""Resizing and flips of images with their objects."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import masks_to_boxes

from bocb_tune.augment.objects import LEAST_SIDE, Scene, SceneTransform, fitted, mirrored, resized


def scene(height: int = 40, width: int = 60) -> Scene:
    """Noise with two rectangles, whose masks fill their boxes."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(256, (3, height, width), dtype=torch.uint8, generator=generator)
    boxes = torch.tensor([[4.0, 8.0, 20.0, 28.0], [30.0, 2.0, 58.0, 38.0]])
    masks = torch.zeros(2, height, width, dtype=torch.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.int().tolist(), strict=True):
        mask[y1:y2, x1:x2] = 1
    return image, {"boxes": boxes, "masks": masks, "labels": torch.tensor([0, 1]), "image_id": 7}


@pytest.mark.parametrize(
    ("size", "wanted"),
    [((480, 640), (800, 1066)), ((640, 480), (1066, 800)), ((100, 1000), (133, 1333)), ((800, 1333), (800, 1333))],
)
def test_sizes_are_those_of_the_papers(size: tuple[int, int], wanted: tuple[int, int]) -> None:
    assert fitted(size, 800, 1333) == wanted


@pytest.mark.parametrize("size", [(40, 60), (60, 60), (40, 90)])
def test_resizing_is_torchvisions(size: tuple[int, int]) -> None:
    """Up to the rounding of pixels to whole numbers."""
    image, target = scene(*size)
    theirs = GeneralizedRCNNTransform(64, 100, [0.0] * 3, [1.0] * 3)
    wanted, their_target = theirs.eval().resize(image.float() / 255, {k: target[k] for k in ("boxes", "masks")})
    ours, our_target = resized(image, target, fitted(image.shape[-2:], 64, 100))
    assert ours.shape == wanted.shape
    assert (ours.float() / 255 - wanted).abs().max() <= 0.5 / 255 + 1e-5
    torch.testing.assert_close(our_target["boxes"], their_target["boxes"])
    assert torch.equal(our_target["masks"], their_target["masks"])


def test_mirrored_twice_is_nothing() -> None:
    image, target = scene()
    again, twice = mirrored(*mirrored(image, target))
    assert torch.equal(again, image)
    assert all(torch.equal(twice[key], target[key]) for key in ("boxes", "masks", "labels"))
    assert not torch.equal(mirrored(image, target)[0], image)


@pytest.mark.parametrize("seed", range(4))
def test_boxes_and_masks_stay_together(seed: int) -> None:
    torch.manual_seed(seed)
    transform = SceneTransform(shorter=80, longer=200, shorter_from=50, flips=True)
    image, target = transform(scene())
    assert 50 <= min(image.shape[-2:]) <= 80
    around = masks_to_boxes(target["masks"]) + torch.tensor([0.0, 0.0, 1.0, 1.0])
    assert (around - target["boxes"]).abs().max() <= 1.0
    assert target["image_id"] == 7


def test_multi_scale_draws_every_side_and_validation_one() -> None:
    torch.manual_seed(0)
    drawn = {min(SceneTransform(shorter=36, longer=99, shorter_from=32)(scene())[0].shape[-2:]) for _ in range(60)}
    assert drawn == set(range(32, 37))
    assert {min(SceneTransform(shorter=36, longer=99)(scene())[0].shape[-2:]) for _ in range(3)} == {36}


def test_a_sliver_keeps_an_area() -> None:
    image, target = scene(400, 600)
    sliver: dict[str, Any] = {"boxes": torch.tensor([[500.0, 3.0, 500.0, 9.0]])}
    boxes = resized(image, sliver, (200, 300))[1]["boxes"]
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    assert boxes[0, 2] - boxes[0, 0] <= 2 * LEAST_SIDE
    assert "masks" in target


def test_an_image_without_objects_stays_one() -> None:
    image, _ = scene()
    empty = {"boxes": torch.zeros(0, 4), "masks": torch.zeros(0, 40, 60, dtype=torch.uint8)}
    for made in (resized(image, empty, (20, 30)), mirrored(image, empty)):
        assert made[1]["boxes"].shape == (0, 4)
        assert len(made[1]["masks"]) == 0
