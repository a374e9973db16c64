"""Samples that processes of their own decode: in the order of a plan, each under random numbers of its own, with those
that cannot be decoded counted, named and replaced."""

from __future__ import annotations

import contextlib
import logging
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, default_collate

from bocb_tune.core.files import CANNOT_BE_DECODED
from bocb_tune.core.types import derive_seed
from bocb_tune.data.decode import MAX_UNREADABLE, UNREADABLE, RefusedImage, no_limit

logger = logging.getLogger(__name__)


class UnreadableImages(ValueError):
    """Too many image files cannot be decoded; the message names one."""


class SampleSource(Protocol):
    """Samples to learn from or to score by, by index."""

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """Return what a user finds the image of a sample by."""
        ...

    def read(self, index: int) -> Any:
        """Decode a sample.

        Raises:
            RefusedImage: if it is sound and may not be read.
            OSError, ValueError: and others of Pillow, if it is damaged.
        """
        ...

    def made(self, decoded: Any, index: int) -> Any:
        """Transform what `read` gave; random numbers are of the global generators, which are seeded anew each time."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Loader:
    """Loader of samples."""

    workers: int | None = None
    """Processes that decode, at most: 0 decodes in this one, None is as many as this one has threads."""
    pin_memory: bool = False
    named: set[str] = field(default_factory=set)
    """Unreadable images the log has named."""

    def batches(
        self,
        samples: SampleSource,
        split: str,
        plan: Sequence[Tensor],
        *,
        seed: int = 0,
        faults: set[str] | None = None,
        collate: Callable[[list[Any]], Any] = default_collate,
    ) -> Iterator[Any]:
        """Yield one batch for each index tensor [batch] of `plan`: see `Dataset.batches`.

        Raises:
            UnreadableImages: if they are more than MAX_UNREADABLE of the plan.
            RefusedImage: for a sound image that cannot be read (see `bocb_tune.data.decode`).
        """
        planned, found = sum(map(len, plan)), set[str]()
        faults = set() if faults is None else faults
        for batch, unreadable, refused in self._loader(samples, split, plan, seed, collate):
            for name, why in refused.items():
                raise RefusedImage(f"image {name} {why}")
            for name, why in unreadable.items():
                self._say(name, why)
            found.update(unreadable)
            faults.update(unreadable)
            if len(found) > _most_unreadable(planned):
                raise UnreadableImages(_too_many(found, unreadable, planned, split))
            if batch is not None:
                yield batch

    def _loader(
        self, samples: SampleSource, split: str, plan: Sequence[Tensor], seed: int, collate: Callable[[list[Any]], Any]
    ) -> DataLoader[Any]:
        replaced = _most_unreadable(len(samples)) if split == "train" else 0
        return DataLoader(
            _Seeded(samples, seed, replaced),  # type: ignore[arg-type]
            batch_sampler=[part.tolist() for part in plan],
            num_workers=self._processes(),
            pin_memory=self.pin_memory,
            collate_fn=_Collate(collate),
            generator=torch.Generator(),  # its own, so that the loader leaves the global one alone
        )

    def _processes(self) -> int:
        """Count the processes that decode: never more than this one has threads, which are the CPUs it was given."""
        threads = torch.get_num_threads()
        return threads if self.workers is None else min(self.workers, threads)

    def _say(self, name: str, why: str) -> None:
        if name not in self.named:
            self.named.add(name)
            logger.warning("image %s %s: %s", name, CANNOT_BE_DECODED, why)


def _most_unreadable(images: int) -> int:
    """Return how many of some images may be unreadable."""
    return max(1, int(MAX_UNREADABLE * images))


def _too_many(found: set[str], last: dict[str, str], planned: int, split: str) -> str:
    name, why = next(iter(last.items()))
    return (
        f"image {name} cannot be decoded: {why}. It is one of {len(found)} among {planned} images to be read of "
        f"{split!r}; at most {_most_unreadable(planned)} may be unreadable. Restore or remove them"
    )


Named = dict[str, str]
"""Reason why an image cannot be read, by its name."""
Loaded = tuple[Any, Named, Named]
"""The sample, None if it cannot be read; the unreadable; the refused."""


@dataclass(frozen=True, slots=True)
class _Seeded:
    """Samples by index, each under random numbers of its own.

    Up to `replaced` unreadable images in a row are replaced by the next; a longer row is more than may be unreadable.
    """

    samples: SampleSource
    seed: int
    replaced: int

    def __getitem__(self, index: int) -> Loaded:
        unreadable: Named = {}
        for step in range(1 + self.replaced):
            at = (index + step) % len(self.samples)
            try:
                decoded = self.samples.read(at)
            except RefusedImage as error:
                return None, unreadable, {self.samples.name(at): str(error)}
            except UNREADABLE as error:
                unreadable[self.samples.name(at)] = str(error)
                continue
            with no_limit(), _seeded(derive_seed(self.seed, index)):
                return self.samples.made(decoded, at), unreadable, {}
        return None, unreadable, {}


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed the global generators (transforms draw from all three), and restore them afterwards."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)  # torch.manual_seed would move the generators of GPUs too
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


@dataclass(frozen=True, slots=True)
class _Collate:
    """Collates samples, and hands faults on as values: raised in a worker they would reach the user wrapped in a
    traceback."""

    collate: Callable[[list[Any]], Any]

    def __call__(self, loaded: Sequence[Loaded]) -> Loaded:
        unreadable = {name: why for _, faults, _ in loaded for name, why in faults.items()}
        refused = {name: why for _, _, faults in loaded for name, why in faults.items()}
        samples = [sample for sample, _, _ in loaded if sample is not None]
        return self.collate(samples) if samples else None, unreadable, refused
