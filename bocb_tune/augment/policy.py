"""RandAugment (arXiv:1909.13719) on batches of uint8 images: timm's fifteen "increasing" operations.

Magnitudes, signs and the probability of one half are those of timm's `rand_augment_transform("rand-...-inc1")`, which
images decoded from files go through; only posterize differs, as Pillow no longer keeps 0 bits: both keep one at least.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from bocb_tune.augment import geometry, pixels
from bocb_tune.data.arrays import to_device

Pixels = Callable[[Tensor, Tensor], Tensor]
Matrix = Callable[[Tensor, tuple[int, int]], Tensor]

APPLY_PROB = 0.5


def _whole(most: float) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda level, _sign: (level / 10 * most).floor()


def _signed(most: float) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda level, sign: sign * (level / 10 * most)


def _bits(level: Tensor, sign: Tensor) -> Tensor:
    return (4 - _whole(4)(level, sign)).clamp(min=1)


def _threshold(level: Tensor, sign: Tensor) -> Tensor:
    return 256 - _whole(256)(level, sign)


def _factor(level: Tensor, sign: Tensor) -> Tensor:
    return (1 + _signed(0.9)(level, sign)).clamp(min=0.1)


@dataclass(frozen=True, slots=True)
class Operation:
    """Operation, and how much of it is done at a level in 0..10 with a sign of -1 or 1."""

    name: str
    """Name, as timm calls it."""
    apply: Pixels | None = None
    matrix: Matrix | None = None
    amount: Callable[[Tensor, Tensor], Tensor] = lambda level, _sign: level

    def __call__(self, images: Tensor, level: Tensor, sign: Tensor, fill: Tensor) -> Tensor:
        amount = self.amount(level.double(), sign.double())  # as Python counts
        if self.apply is not None:
            return self.apply(images, amount)
        assert self.matrix is not None
        height, width = images.shape[2:]
        return geometry.affine(images, self.matrix(amount, (height, width)), fill)


OPERATIONS: tuple[Operation, ...] = (
    Operation("AutoContrast", lambda images, _: pixels.auto_contrast(images)),
    Operation("Equalize", lambda images, _: pixels.equalize(images)),
    Operation("Invert", lambda images, _: pixels.invert(images)),
    Operation("Rotate", matrix=geometry.rotate, amount=_signed(30)),
    Operation("PosterizeIncreasing", pixels.posterize, amount=_bits),
    Operation("SolarizeIncreasing", pixels.solarize, amount=_threshold),
    Operation("SolarizeAdd", pixels.solarize_add, amount=_whole(110)),
    Operation("ColorIncreasing", pixels.color, amount=_factor),
    Operation("ContrastIncreasing", pixels.contrast, amount=_factor),
    Operation("BrightnessIncreasing", pixels.brightness, amount=_factor),
    Operation("SharpnessIncreasing", pixels.sharpness, amount=_factor),
    Operation("ShearX", matrix=geometry.shear_x, amount=_signed(0.3)),
    Operation("ShearY", matrix=geometry.shear_y, amount=_signed(0.3)),
    Operation("TranslateXRel", matrix=geometry.translate_x, amount=_signed(0.45)),
    Operation("TranslateYRel", matrix=geometry.translate_y, amount=_signed(0.45)),
)


@dataclass(frozen=True, slots=True)
class Policy:
    """Operations of RandAugment on each of `views` images: tensors [views, layers] on the CPU."""

    operation: Tensor
    """Place in OPERATIONS, or -1 where the draw of one half says no; no operation twice for an image."""
    level: Tensor
    sign: Tensor

    @classmethod
    def draw(cls, views: int, magnitude: float, std: float, layers: int, generator: torch.Generator) -> Policy:
        """Draw levels from a normal distribution about `magnitude`, cut off at 0 and 10."""
        shape = (views, layers)
        drawn = torch.multinomial(torch.ones(views, len(OPERATIONS)), layers, generator=generator)
        applied = torch.rand(shape, generator=generator) < APPLY_PROB
        return cls(
            operation=torch.where(applied, drawn, -1),
            level=(magnitude + std * torch.randn(shape, generator=generator)).clamp(0, 10),
            sign=torch.randint(2, shape, generator=generator) * 2.0 - 1,
        )

    def __call__(self, images: Tensor, views: Tensor, fill: Tensor) -> Tensor:
        """Augment uint8 image k as view `views[k]`; `fill` [channels] is what comes in from beyond the border."""
        images = images.clone()
        for layer in range(self.operation.shape[1]):
            operation, level, sign = (values[views, layer] for values in (self.operation, self.level, self.sign))
            # Sorted out on the CPU and sent at once: each look at what is on a GPU would wait for it
            rows = operation.argsort(stable=True)
            drawn = torch.stack([rows.double(), level[rows].double(), sign[rows].double()])
            counts = torch.bincount(operation + 1, minlength=1 + len(OPERATIONS)).tolist()
            parts = torch.split(to_device(drawn, images.device), counts, dim=1)[1:]
            for operate, (chosen, levels, signs) in zip(OPERATIONS, parts, strict=True):
                if len(chosen):
                    images[chosen.long()] = operate(images[chosen.long()], levels, signs, fill)
        return images
