"""Mixup and CutMix, by timm."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from timm.data import Mixup

from bocb_tune.core.types import derive_seed
from bocb_tune.data.base import Batch
from bocb_tune.training.recipes import Recipe


def mixed(batches: Iterator[Batch], recipe: Recipe, num_classes: int, seed: int, first: int = 0) -> Iterator[Batch]:
    """Mix each batch within itself, image k with image -1-k, by one share a batch.

    Labels become float32 [batch, num_classes], the share of each class, which sum to 1; the loss smooths them. What
    is drawn for a batch is a pure function of the seed and its place. Batches are even and changed in place; the place
    of the first is given.
    """
    mixup = Mixup(
        mixup_alpha=recipe.mixup,
        cutmix_alpha=recipe.cutmix,
        switch_prob=recipe.switch_prob,
        label_smoothing=0.0,
        num_classes=num_classes,
    )
    for place, (images, labels) in enumerate(batches, start=first):
        with _numpy_seeded(derive_seed(seed, "mix", place)):
            batch = mixup(images, labels)
        yield batch


@contextmanager
def _numpy_seeded(seed: int) -> Iterator[None]:
    """Seed numpy's global generator, which timm draws from, and restore it afterwards."""
    state = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(state)
