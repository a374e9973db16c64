"""Augmentation: everything done to images between the dataset and the model."""

from __future__ import annotations

from bocb_tune.augment.decoded import image_transform
from bocb_tune.augment.memory import augmented, normalise
from bocb_tune.augment.mix import mixed

__all__ = ["augmented", "image_transform", "mixed", "normalise"]
