"""Speed at which an experiment's images are read, decoded and augmented by the trials' own loader, without a model."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from bocb_tune.data import load_dataset
from bocb_tune.spec.model import ExperimentSpec
from bocb_tune.tasks.classification import Pictures
from bocb_tune.training.context import Context, Ranks
from bocb_tune.training.recipes import Recipe

PASSES = 3
"""Number of times it is timed; the spread is between these."""
PASS_S = 2.0
"""Seconds of a pass, after which no further batch is waited for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loading:
    """Time that one rank's loader takes."""

    start_s: float
    """Seconds from the start of an epoch to its first batch: processes start and decode it."""
    images_per_s: float
    """Images a second after that."""

    def epoch_s(self, images: int, batch: int) -> float:
        """Estimate the seconds to load `images`, in batches of `batch`."""
        return self.start_s + max(0, images - batch) / self.images_per_s


def time_loading(spec: ExperimentSpec, recipe: Recipe, device: str) -> tuple[Loading, ...]:
    """Measure the loader on the experiment's own images, `PASSES` times; nothing if they are in memory.

    Args:
        recipe: `batch_size` is what a rank sees of a batch.
        device: where batches are put.
    """
    dataset = load_dataset(spec.dataset.name, spec.dataset.options, device)
    if dataset.in_memory:
        return ()
    pictures = Pictures(dataset, recipe, Context(ranks=Ranks(device=device)))
    batch = recipe.batch_size // recipe.accumulation
    return tuple(_one_pass(pictures, batch, seed) for seed in range(PASSES))


def _one_pass(pictures: Pictures, batch: int, seed: int) -> Loading:
    order = torch.randperm(pictures.dataset.count("train"), generator=torch.Generator().manual_seed(seed))
    started = first = now = time.monotonic()
    sizes: list[int] = []
    for _, labels in pictures.train(torch.split(order, batch), seed):
        now = time.monotonic()
        sizes.append(len(labels))
        first = now if len(sizes) == 1 else first
        if now - first > PASS_S:
            break
    start_s = first - started
    if len(sizes) < 2:  # all there are in one batch, so that its time is all that is known
        return Loading(start_s=start_s, images_per_s=sizes[0] / start_s)
    return Loading(start_s=start_s, images_per_s=sum(sizes[1:]) / (now - first))
