"""Recipes: everything about a training that a grid holds fixed while it moves learning rate and weight decay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Precision = Literal["fp32", "bf16", "fp16"]
Augment = Literal["none", "shift", "flip_crop"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Raises ValueError, naming the field, for a value outside its range."""

    batch_size: int
    """Images an optimizer step sees, over all ranks and accumulation steps."""
    accumulation: int = 1
    """Micro-batches a rank adds up before an optimizer step."""
    precision: Precision = "fp32"
    """Autocast type of forward pass and loss; parameters stay fp32. fp16 scales the loss and needs a GPU."""
    clip_grad: float = 0.0
    """Largest global gradient norm; 0 turns clipping off."""
    warmup_epochs: float = 0.0
    """Epochs, or a fraction of one, over which the learning rate rises linearly to its peak."""
    min_lr_ratio: float = 0.0
    """Learning rate at the end of the cosine, as a share of its peak."""
    label_smoothing: float = 0.0
    """Share of the target spread evenly over all classes (arXiv:1512.00567, section 7)."""
    drop_path: float = 0.0
    """Rate of stochastic depth (arXiv:1603.09382) at the last block, rising linearly with depth."""
    augment: Augment = "none"
    """shift: random shift by up to 1/8 of the image. flip_crop: random resized crop and horizontal flip."""
    ema_decay: float = 0.0
    """Decay per optimizer step of the averaged weights, validated in place of the raw ones; 0 turns them off."""
    channels_last: bool = False
    """Memory layout of images and convolution weights."""
    compile: bool = False
    """Compile the model with `torch.compile`."""

    def __post_init__(self) -> None:
        _require(self.batch_size >= 1, "batch_size", self.batch_size, "at least 1")
        divides = self.accumulation >= 1 and self.batch_size % self.accumulation == 0
        _require(divides, "accumulation", self.accumulation, f"a divisor of batch_size ({self.batch_size})")
        _require(self.precision in get_args(Precision), "precision", self.precision, f"one of {get_args(Precision)}")
        _require(self.augment in get_args(Augment), "augment", self.augment, f"one of {get_args(Augment)}")
        _require(0 <= self.clip_grad < float("inf"), "clip_grad", self.clip_grad, "0 (off) or a positive norm")
        _require(0 <= self.warmup_epochs < float("inf"), "warmup_epochs", self.warmup_epochs, "0 or more epochs")
        _require(0 <= self.min_lr_ratio <= 1, "min_lr_ratio", self.min_lr_ratio, "between 0 and 1")
        _require(0 <= self.label_smoothing < 1, "label_smoothing", self.label_smoothing, "at least 0 and below 1")
        _require(0 <= self.drop_path < 1, "drop_path", self.drop_path, "at least 0 and below 1")
        _require(0 <= self.ema_decay < 1, "ema_decay", self.ema_decay, "0 (off) or below 1")


def _require(holds: bool, name: str, value: object, valid: str) -> None:
    if not holds:
        raise ValueError(f"recipe field {name!r} is {value!r}; it must be {valid}")


RECIPES: dict[str, Recipe] = {
    "digits": Recipe(batch_size=64, warmup_epochs=0.5, label_smoothing=0.1, augment="shift"),
    "imagenet": Recipe(
        batch_size=1024,
        precision="bf16",
        warmup_epochs=5.0,
        label_smoothing=0.1,
        augment="flip_crop",
        channels_last=True,
    ),
}

DESCRIPTIONS: dict[str, str] = {
    "digits": "seconds an epoch on one core for models of less than a million weights; our own choice",
    "imagenet": "warm-up of 5 epochs, crop and flip (arXiv:1706.02677); label smoothing 0.1 (arXiv:1512.00567)",
}
"""What each recipe is for, and where its values come from. Apart, because a recipe's fields name its trials."""
