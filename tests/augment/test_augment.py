"""Augmentation: each operation against what it stands for, and the whole as a pure function of seed and view."""

from __future__ import annotations

import math
import pickle
import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import auto_augment
from torch import Tensor
from torch.nn import functional
from torchvision import transforms

from bocb_tune.augment import augmented, image_transform, memory, mixed, normalise
from bocb_tune.augment.decoded import _bits
from bocb_tune.augment.geometry import affine, cropped, moved
from bocb_tune.augment.memory import Erasing
from bocb_tune.augment.policy import OPERATIONS, Operation, Policy
from bocb_tune.data.arrays import Arrays, Rows
from bocb_tune.data.base import Batch
from bocb_tune.training.recipes import RECIPES, Recipe

NAMES = [row.name for row in OPERATIONS]
FILL = (125, 123, 114)
MODERN = RECIPES["cifar_deit"]


def noise(n: int, channels: int = 3, size: int = 32, seed: int = 0) -> Tensor:
    """uint8 images of many kinds: noise, little contrast, stripes, few values, one value."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (n, channels, size, size), generator=generator, dtype=torch.uint8)
    images[1::5] = images[1::5] // 4 + 70
    images[2::5] = images[2::5, :, :1]
    images[3::5] = images[3::5] // 128 * 200
    images[4::10] = images[4::10, :, :1, :1]
    return images


def to_pil(image: Tensor) -> Image.Image:
    return Image.fromarray(image[0].numpy() if len(image) == 1 else image.permute(1, 2, 0).numpy())


def from_pil(image: Image.Image) -> Tensor:
    return transforms.functional.pil_to_tensor(image)


def colour_images(n: int = 60, size: int = 32, classes: int = 7) -> Arrays:
    split = Rows(images=noise(n, size=size), labels=torch.arange(n) % classes, rows=torch.arange(n))
    return Arrays(
        num_classes=classes,
        in_chans=3,
        image_size=size,
        mean=(0.5, 0.48, 0.44),
        std=(0.25, 0.24, 0.26),
        splits={"train": split, "val": split},
    )


def gathered(batches: Any) -> Batch:
    images, labels = zip(*batches, strict=True)
    return torch.cat(images), torch.cat(labels)


# Places of pixels


@pytest.mark.parametrize("mirror", [True, False])
@pytest.mark.parametrize("channels", [1, 3])
def test_moving_is_flipping_padding_and_cropping(mirror: bool, channels: int) -> None:
    images, reach = noise(40, channels, 16).float(), 3
    shift = torch.randint(-reach, reach + 1, (40, 2), generator=torch.Generator().manual_seed(1))
    flip = torch.arange(40) % 3 == 0
    mode = "reflect" if mirror else "replicate"
    for image, result, (down, right), flipped in zip(
        images, moved(images, shift, flip, mirror=mirror), shift.tolist(), flip, strict=True
    ):
        padded = functional.pad(image.flip(2) if flipped else image, [reach] * 4, mode=mode)
        assert torch.equal(result, padded[:, down + reach :, right + reach :][:, :16, :16])


def test_moving_keeps_the_type() -> None:
    images = noise(3)
    still = moved(images, torch.zeros(3, 2, dtype=torch.long), torch.zeros(3, dtype=torch.bool), mirror=True)
    assert still.dtype == torch.uint8
    assert torch.equal(still, images)


def pillow(name: str, image: Image.Image, *amount: float) -> Image.Image:
    """timm's operation on one image."""
    settings = {"resample": Image.Resampling.BILINEAR, "fillcolor": FILL if image.mode == "RGB" else FILL[0]}
    result: Image.Image = auto_augment.NAME_TO_OP[name](image, *amount, **settings)
    return result


LEVELS = torch.tensor([0.0, 1.3, 4.9, 5.0, 7.2, 9.0, 9.99, 10.0]).repeat_interleave(8)
SIGNS = torch.tensor([-1.0, 1.0]).repeat(32)


def timm_amount(name: str, level: float, sign: float) -> tuple[float, ...]:
    """What timm makes of a level; its coin for the sign shows ours."""
    if name == "PosterizeIncreasing":
        return _bits(level, None)
    of_level = auto_augment.LEVEL_TO_ARG[name]
    if of_level is None:
        return ()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(auto_augment, "_randomly_negate", lambda value: sign * value)
        amount: tuple[float, ...] = of_level(level, {})
    return amount


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("row", OPERATIONS, ids=NAMES)
def test_an_operation_is_that_of_timm(row: Operation, channels: int) -> None:
    """Equal value by value; where places are interpolated, one in fifty may be off by one (float32, not double)."""
    images = noise(len(LEVELS), channels)
    ours = row(images, LEVELS, SIGNS, torch.tensor(FILL[:channels]).float())
    theirs = torch.stack(
        [
            from_pil(pillow(row.name, to_pil(image), *timm_amount(row.name, level, sign)))
            for image, level, sign in zip(images, LEVELS.tolist(), SIGNS.tolist(), strict=True)
        ]
    )
    assert ours.dtype == torch.uint8
    off = (ours.int() - theirs.int()).abs()
    if row.matrix is None:
        assert off.max() == 0
    else:
        assert off.max() <= 1
        assert off.float().mean() < 0.02


@pytest.mark.parametrize("shape", [(20, 32), (32, 20)])
def test_images_need_not_be_square(shape: tuple[int, int]) -> None:
    images = noise(16)[:, :, : shape[0], : shape[1]].contiguous()
    for row in (row for row in OPERATIONS if row.matrix):
        ours = row(images, torch.full((16,), 9.0), torch.ones(16), torch.tensor(FILL).float())
        amount = timm_amount(row.name, 9.0, 1.0)
        theirs = torch.stack([from_pil(pillow(row.name, to_pil(image), *amount)) for image in images])
        assert (ours.int() - theirs.int()).abs().max() <= 1


def test_the_operations_are_timms_increasing_ones() -> None:
    assert NAMES == auto_augment._RAND_INCREASING_TRANSFORMS


def test_an_affine_map_by_whole_pixels_is_exact() -> None:
    images, right_2_down_3 = noise(4), torch.tensor([[1.0, 0, -2], [0, 1, -3]]).expand(4, 2, 3)
    seen = affine(images, right_2_down_3, torch.tensor(FILL).float())
    assert torch.equal(seen[:, :, 3:, 2:], images[:, :, :-3, :-2])
    assert (seen[:, :, :3] == torch.tensor(FILL)[:, None, None]).all()
    assert (seen[:, :, :, :2] == torch.tensor(FILL)[:, None, None]).all()


# RandAugment


def drawn(views: int, magnitude: float = 9.0, std: float = 0.5, layers: int = 2, seed: int = 0) -> Policy:
    return Policy.draw(views, magnitude, std, layers, torch.Generator().manual_seed(seed))


def test_the_draws_of_rand_augment() -> None:
    policy = drawn(30_000)
    done = policy.operation >= 0
    assert done.float().mean().item() == pytest.approx(0.5, abs=0.01)
    counts = policy.operation[done].bincount(minlength=15)
    assert len(counts) == 15
    assert (counts / counts.sum()).tolist() == pytest.approx([1 / 15] * 15, abs=0.005)
    both = policy.operation[done.all(1)]
    assert (both[:, 0] != both[:, 1]).all()
    inside = policy.level[policy.level < 10]
    assert policy.level.max() == 10
    assert inside.median().item() == pytest.approx(9, abs=0.05)
    assert (policy.level == 10).float().mean().item() == pytest.approx(0.0228, abs=0.005)  # two deviations above
    assert policy.sign.unique().tolist() == [-1, 1]
    assert abs(policy.sign.mean().item()) < 0.02


def test_all_operations_can_be_asked_for() -> None:
    assert drawn(50, layers=15).operation.shape == (50, 15)
    assert drawn(50, std=0.0).level.unique().tolist() == [9.0]


def test_rand_augment_does_what_was_drawn_in_its_order() -> None:
    images, policy = noise(300), drawn(400, layers=3)
    views = torch.arange(100, 400)
    result = policy(images, views, torch.tensor(FILL).float())
    expected = [one_by_one(image, policy, view) for image, view in zip(images, views.tolist(), strict=True)]
    # an off-by-one of an affine map is carried on by what follows: equalize and solarize make much of it
    equal = (result == torch.stack(expected)).float().mean(dim=(1, 2, 3))
    assert equal.median() == 1
    assert equal.mean() > 0.985
    assert torch.equal(noise(300), images)


def one_by_one(image: Tensor, policy: Policy, view: int) -> Tensor:
    current = to_pil(image)
    for place, level, sign in zip(
        policy.operation[view].tolist(), policy.level[view].tolist(), policy.sign[view].tolist(), strict=True
    ):
        if place >= 0:
            current = pillow(NAMES[place], current, *timm_amount(NAMES[place], level, sign))
    return from_pil(current)


# Erasing and normalising


def test_normalised_images_have_mean_0_and_deviation_1() -> None:
    images = torch.tensor([[0, 51], [102, 255]], dtype=torch.uint8).expand(2, 2, 2, 2)
    result = normalise(images, (0.2, 0.4), (0.2, 0.5))
    assert torch.allclose(result[0, 0], torch.tensor([[-1.0, 0.0], [1.0, 4.0]]), atol=1e-6)
    assert torch.allclose(result[0, 1], torch.tensor([[-0.8, -0.4], [0.0, 1.2]]), atol=1e-6)


def test_erasing_fills_boxes_with_noise_and_nothing_else() -> None:
    erasing = Erasing.draw(0.25, 4000, (3, 32, 32), torch.Generator().manual_seed(0))
    images = torch.full((4000, 3, 32, 32), 9.0)
    result = erasing(images.clone(), torch.arange(4000))
    changed = (result != 9).any(1)
    erased = changed.any(2).any(1)
    assert erased.float().mean().item() == pytest.approx(0.25, abs=0.02)
    heights, widths = changed.any(2).sum(1)[erased], changed.any(1).sum(1)[erased]
    assert torch.equal(changed.sum((1, 2))[erased], heights * widths)  # boxes
    share, aspect = heights * widths / 1024, heights / widths
    assert share.min() > 0.01  # 0.02 of the area, rounded to whole pixels
    assert share.max() < 0.37
    assert aspect.min() > 0.2
    assert aspect.max() < 5
    assert aspect.log().mean().item() == pytest.approx(0, abs=0.1)
    values = result[erased][changed[erased][:, None].expand(-1, 3, -1, -1)]
    assert values.mean().item() == pytest.approx(0, abs=0.02)
    assert values.std().item() == pytest.approx(1, abs=0.02)
    assert changed[erased][:, [0, -1]].any(2).any(1).float().mean() > 0.05  # up to the border
    assert changed.any(0).float().mean() > 0.99


def test_a_box_that_does_not_fit_is_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "ERASE_AREA", (0.4, 0.9))
    erasing = Erasing.draw(1.0, 2000, (3, 32, 32), torch.Generator().manual_seed(0))
    top, left, bottom, right = erasing.box.unbind(1)
    assert (bottom > top).float().mean() > 0.97  # ten tries
    assert min(top.min(), left.min()) >= 0
    assert max(bottom.max(), right.max()) <= 32
    assert max((bottom - top).max(), (right - left).max()) == 31


def test_views_say_which_erasing() -> None:
    erasing = Erasing.draw(0.5, 50, (3, 8, 8), torch.Generator().manual_seed(0))
    images = torch.zeros(50, 3, 8, 8)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(1))
    assert torch.equal(erasing(images.clone(), torch.arange(50))[order], erasing(images.clone(), order))


# The whole, in memory


def epoch_of(recipe: Recipe, plan: Sequence[Tensor], seed: int = 3) -> Batch:
    return gathered(augmented(colour_images(), plan, recipe, seed))


@pytest.mark.parametrize(
    "recipe", [MODERN, RECIPES["cifar_torch"], Recipe(batch_size=8)], ids=["deit", "torch", "none"]
)
def test_a_view_is_a_pure_function_of_the_seed(monkeypatch: pytest.MonkeyPatch, recipe: Recipe) -> None:
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    state = torch.get_rng_state()
    images, labels = epoch_of(recipe, [order])
    monkeypatch.setattr(memory, "VIEWS_AT_A_TIME", 16)
    for plan in (order.split(7), order.split(20)):
        again = epoch_of(recipe, plan)
        assert torch.equal(again[0], images)
        assert torch.equal(again[1], labels)
    assert torch.equal(labels, order % 7)
    assert (images.dtype, images.shape) == (torch.float32, (60, 3, 32, 32))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(epoch_of(recipe, [order], seed=4)[0], images) == (recipe.augment == "none")


def test_batches_are_those_of_the_plan() -> None:
    plan = torch.arange(60).split([7, 1, 30, 22])
    batches = list(augmented(colour_images(), plan, MODERN, 0))
    assert [len(images) for images, _ in batches] == [7, 1, 30, 22]
    assert [labels.tolist() for _, labels in batches] == [(piece % 7).tolist() for piece in plan]


def test_nothing_asked_for_is_nothing_done() -> None:
    data = colour_images()
    images, _ = epoch_of(Recipe(batch_size=8), [torch.arange(60)])
    assert torch.equal(images, normalise(data.splits["train"].images, data.mean, data.std))


def test_crop_and_flip_alone() -> None:
    """Each image is one of the 9 x 9 x 2 there can be, and all kinds occur."""
    data = colour_images(600)
    images, _ = gathered(augmented(data, [torch.arange(600)], RECIPES["cifar_torch"], 0))
    epoch = memory.Epoch.draw(RECIPES["cifar_torch"], 600, (3, 32, 32), 0)
    assert epoch.shift.unique().tolist() == list(range(-4, 5))
    assert epoch.flip.float().mean().item() == pytest.approx(0.5, abs=0.06)
    expected = moved(data.splits["train"].images, epoch.shift, epoch.flip, mirror=True)
    assert torch.equal(images, normalise(expected, data.mean, data.std))


def test_a_crop_is_stretched_to_the_whole_image() -> None:
    """As torch enlarges the box bicubically, but where its border is: there the image goes on."""
    images = colour_images(6).splits["train"].images
    box = torch.tensor([[3.0, 5.0, 20.0, 24.0]]).expand(6, 4)
    seen = cropped(images, box)
    expected = functional.interpolate(images[:, :, 3:23, 5:29].float(), size=(32, 32), mode="bicubic")
    inner = (slice(None), slice(None), slice(5, -5), slice(5, -5))
    assert (seen.float() - expected.clamp(0, 255))[inner].abs().max() <= 1
    whole = torch.tensor([[0.0, 0.0, 32.0, 32.0]]).expand(6, 4)
    assert torch.equal(cropped(images, whole), images)


def test_crops_are_drawn_as_torchvision_draws_them() -> None:
    """Area and aspect ratio within their ranges, both used to the full, anywhere in the image."""
    recipe = RECIPES["cifar_torch_224"]
    epoch = memory.Epoch.draw(recipe, 5000, (3, 32, 32), 0)
    assert epoch.crop is not None
    top, left, height, width = epoch.crop.unbind(1)
    area = height * width / 32**2
    assert 0.76 < area.min() < 0.82  # whole pixels
    assert area.max() == 1
    drawn = [transforms.RandomResizedCrop.get_params(Image.new("L", (32, 32)), [0.8, 1.0], [3 / 4, 4 / 3])]
    for _ in range(4999):
        drawn.append(transforms.RandomResizedCrop.get_params(Image.new("L", (32, 32)), [0.8, 1.0], [3 / 4, 4 / 3]))
    theirs = torch.tensor(drawn, dtype=torch.float)
    assert (epoch.crop.mean(0) - theirs.mean(0)).abs().max() < 0.2
    assert (epoch.crop.std(0) - theirs.std(0)).abs().max() < 0.2
    assert ((top + height <= 32) & (left + width <= 32) & (top >= 0) & (left >= 0)).all()


def test_views_of_an_image_differ() -> None:
    recipe = Recipe(batch_size=6, augment="flip_shift", rand_augment=9.0, repeated_augment=3)
    views = torch.tensor([5, 65, 125])
    images, labels = epoch_of(recipe, [views])
    assert labels.tolist() == [5, 5, 5]
    assert len(images.flatten(1).unique(dim=0)) == 3


def test_ready_images_are_only_moved() -> None:
    ready = noise(20, 1).float() / 100
    split = Rows(images=ready, labels=torch.zeros(20, dtype=torch.long), rows=torch.arange(20))
    data = Arrays(num_classes=2, in_chans=1, image_size=32, mean=(0.1,), std=(0.2,), splits={"train": split})
    images, _ = gathered(augmented(data, [torch.arange(20)], Recipe(batch_size=4, augment="shift"), 0))
    shifts = torch.randint(9, (20, 2), generator=torch.Generator().manual_seed(0))  # as releases before this drew them
    padded = functional.pad(ready, [4] * 4, mode="replicate")
    for image, before, (down, right) in zip(images, padded, shifts.tolist(), strict=True):
        assert torch.equal(image, before[:, down : down + 32, right : right + 32])


# Mixing


def mixed_once(recipe: Recipe, n: int = 8, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    images = torch.randn(n, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(n) % 5
    ((result, shares),) = mixed(iter([(images.clone(), labels)]), recipe, 5, seed)
    return images, labels, result, shares


@pytest.mark.parametrize("seed", range(5))
def test_mixup_blends_image_and_label_alike(seed: int) -> None:
    images, labels, result, shares = mixed_once(Recipe(batch_size=8, mixup=0.8), seed=seed)
    own = functional.one_hot(labels, 5).float()
    share = ((shares - own.flip(0))[0, 0] / (own - own.flip(0))[0, 0]).item()
    assert torch.allclose(result, share * images + (1 - share) * images.flip(0), atol=1e-5)
    assert torch.allclose(shares, share * own + (1 - share) * own.flip(0), atol=1e-6)
    assert torch.allclose(shares.sum(1), torch.ones(8))


@pytest.mark.parametrize("seed", range(5))
def test_cutmix_pastes_the_share_it_says(seed: int) -> None:
    images, labels, result, shares = mixed_once(Recipe(batch_size=8, cutmix=1.0), seed=seed)
    pasted = (result != images).all(1)
    assert torch.equal(torch.where(pasted[:, None], images.flip(0), images), result)
    own = functional.one_hot(labels, 5).float()
    share = 1 - pasted[0].float().mean()
    assert torch.allclose(shares, share * own + (1 - share) * own.flip(0), atol=1e-6)


def test_mixing_is_drawn_by_seed_and_place_and_leaves_the_generators_alone() -> None:
    recipe = Recipe(batch_size=4, mixup=0.8, cutmix=1.0, switch_prob=0.5)
    images, labels = torch.randn(6, 4, 3, 8, 8), torch.tensor([0, 1, 2, 3])

    def run(seed: int) -> list[Tensor]:
        return [shares for _, shares in mixed(((image.clone(), labels) for image in images), recipe, 4, seed)]

    before = np.random.get_state()[1].tolist(), random.getstate(), torch.get_rng_state().tolist()
    first = run(1)
    assert (np.random.get_state()[1].tolist(), random.getstate(), torch.get_rng_state().tolist()) == before
    assert torch.equal(torch.stack(run(1)), torch.stack(first))
    assert not torch.equal(torch.stack(run(2)), torch.stack(first))
    assert len({shares[0, 0].item() for shares in first}) > 3


def test_which_of_the_two() -> None:
    for share, recipe in ((0.0, Recipe(batch_size=4, mixup=0.8, cutmix=1.0, switch_prob=0.0)), (1.0, None)):
        chosen = recipe or Recipe(batch_size=4, mixup=0.8, cutmix=1.0, switch_prob=1.0)
        pasted = 0
        for seed in range(10):
            images, _, result, _ = mixed_once(chosen, seed=seed)
            pasted += int(((result == images) | (result == images.flip(0))).all())
        assert pasted == 10 * share


# Images decoded from files

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def seeded(transform: Callable[[Image.Image], Tensor], image: Image.Image, seed: int) -> Tensor:
    random.seed(seed), np.random.seed(seed), torch.manual_seed(seed)
    return transform(image)


def picture(height: int = 60, width: int = 90) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def decoded(recipe: Recipe, train: bool = True) -> Callable[[Image.Image], Tensor]:
    return image_transform(recipe, 32, train=train, mean=MEAN, std=STD)


def test_validation_keeps_the_middle() -> None:
    for crop in (0.5, 0.875, 1.0):
        recipe = Recipe(batch_size=2, eval_crop=crop, interpolation="bicubic")
        resized = picture().resize((int(90 * round(32 / crop) / 60), round(32 / crop)), Image.Resampling.BICUBIC)
        middle = transforms.functional.center_crop(resized, [32, 32])
        expected = (from_pil(middle) / 255 - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
        assert torch.allclose(decoded(recipe, train=False)(picture()), expected, atol=1e-6)
    assert torch.equal(decoded(Recipe(batch_size=2))(picture()), decoded(Recipe(batch_size=2), train=False)(picture()))


def test_crop_and_flip_are_those_of_releases_before() -> None:
    before = transforms.Compose(
        [
            transforms.RandomResizedCrop(32),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    now = decoded(Recipe(batch_size=2, augment="flip_crop"))
    for seed in range(5):
        assert torch.equal(seeded(now, picture(), seed), seeded(before, picture(), seed))


TURNED: dict[str, Any] = {
    "rand_augment": 9.0,
    "erase": 1.0,
    "crop_min_area": 0.9,
    "color_jitter": 0.4,
    "interpolation": "bicubic",
}


@pytest.mark.parametrize("name", sorted(TURNED))
def test_every_field_of_decoded_images_acts(name: str) -> None:
    recipe = Recipe(batch_size=2, augment="flip_crop")
    turned = Recipe(batch_size=2, augment="flip_crop", **{name: TURNED[name]})
    assert any(
        not torch.equal(seeded(decoded(turned), picture(), seed), seeded(decoded(recipe), picture(), seed))
        for seed in range(8)
    )
    assert torch.equal(seeded(decoded(turned), picture(), 1), seeded(decoded(turned), picture(), 1))


def test_the_strongest_rand_augment_can_be_done() -> None:
    """At level 10 timm asks Pillow to keep 0 bits, which it refuses."""
    recipe = Recipe(batch_size=2, augment="flip_crop", rand_augment=10.0, rand_augment_std=0.0, rand_augment_layers=15)
    transform = decoded(recipe)
    for seed in range(10):
        assert seeded(transform, picture(), seed).isfinite().all()
    assert math.isclose(_bits(10.0, None)[0], 1)


def test_transforms_travel_to_loader_workers() -> None:
    transform = decoded(RECIPES["deit"])
    again = pickle.loads(pickle.dumps(transform))
    assert torch.equal(seeded(again, picture(), 0), seeded(transform, picture(), 0))
