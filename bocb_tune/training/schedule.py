"""Schedules as pure functions of the step: the images it sees, and its share of the peak learning rate."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from bocb_tune.core.types import derive_seed
from bocb_tune.training.context import Ranks
from bocb_tune.training.recipes import Recipe, odd_to_mix

FALL = 0.1
"""Factor on the learning rate at each step of a step schedule."""


def lr_factor(step: int, *, total: int, warmup: int, min_ratio: float, falls: Sequence[int] = ()) -> float:
    """Return the share of the peak learning rate at `step`, counted from 0, of `total` steps.

    Linear warm-up, then half a cosine (arXiv:1608.03983, equation 5) that would reach `min_ratio` at step `total`; or
    with `falls`, steps that are given, a tenth from each of them on.
    """
    if step < warmup:
        return (step + 1) / warmup
    if falls:
        return float(FALL ** sum(step >= fall for fall in falls))
    progress = (step - warmup) / (total - warmup)
    return min_ratio + (1 - min_ratio) * (1 + math.cos(math.pi * progress)) / 2


def epoch_order(num_images: int, seed: int, epoch: int) -> Tensor:
    """Draw a permutation [num_images] of the training images; it depends on the trial's seed and the epoch alone."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "order", epoch))
    return torch.randperm(num_images, generator=generator)


def repeated(order: Tensor, recipe: Recipe) -> Tensor:
    """Repeat the first n / repeated_augment images of `order` [n], so that there are n views (arXiv:1901.09335).

    View v is image v % n. The views of an image fall into one batch, or two consecutive ones, and stand far apart in
    it, so that ranks see different ones, as in the sampler of arXiv:2012.12877.
    """
    n, times = len(order), recipe.repeated_augment
    if times == 1:
        return order
    views = (order[:, None] + n * torch.arange(times)).flatten()[:n]
    batches = torch.split(views, recipe.batch_size)
    return torch.cat([batch[torch.argsort(batch // n, stable=True)] for batch in batches])


def epoch_plan(order: Tensor, recipe: Recipe, ranks: Ranks, divisor: int = 1) -> list[list[Tensor]]:
    """Divide an epoch into the indices of this rank's micro-batches: `plan[step][piece]`.

    Step s takes the s-th `batch_size` images of `order`, whatever the number of ranks. The rest of the epoch, less
    than a batch, is left out; it consists of other images in the next epoch.

    Raises:
        ValueError: if there is not even one batch, or if a batch does not divide among ranks and accumulation steps,
            or
            only into odd numbers of images where they are mixed in pairs.
    """
    per_rank, left = divmod(recipe.batch_size, ranks.world_size)
    if left or per_rank % recipe.accumulation:
        share = ranks.world_size * recipe.accumulation
        nearest = max(1, round(recipe.batch_size / share)) * share
        raise ValueError(
            f"recipe field 'batch_size' is {recipe.batch_size}; with {ranks.world_size} ranks and accumulation "
            f"{recipe.accumulation} it must be a multiple of {share}, such as {nearest}"
        )
    steps = len(order) // recipe.batch_size
    if steps == 0:
        raise ValueError(
            f"recipe field 'batch_size' is {recipe.batch_size}, more than the {len(order)} training images there are"
        )
    own = order[: steps * recipe.batch_size].view(steps, ranks.world_size, per_rank)[:, ranks.rank]
    micro = max(1, per_rank // recipe.accumulation // divisor)
    if recipe.mixes:
        if message := odd_to_mix(recipe, ranks.world_size):
            raise ValueError(f"recipe field 'batch_size': {message}")
        micro += micro % 2
    return [list(torch.split(images, micro)) for images in own]
