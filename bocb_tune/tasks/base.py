"""The seam between the engine and everything that trains: a task turns a trial into a stream of measurements."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol

from bocb_tune.core.types import Measurement, Objective, TrialSpec

logger = logging.getLogger(__name__)


class _TrialEnded(Exception):
    """A trial ended before its budget for a reason that is an outcome of its own."""

    def __init__(self, budget: int, message: str) -> None:
        super().__init__(budget, message)
        self.budget = budget
        """The epoch, counted from 1, within which it ended."""
        self.message = message

    def __str__(self) -> str:
        return self.message


class Diverged(_TrialEnded):
    """Loss or parameters became non-finite: a result, never an error. Raised by all ranks together."""


class OutOfMemory(_TrialEnded):
    """The device, or the machine, had no memory left for the trial."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """Where this process stands among those that train one trial together; one process is not a special case."""

    rank: int = 0
    world_size: int = 1
    """More than 1 needs the default process group of `torch.distributed`, made by the caller."""
    local_rank: int = 0
    device: str = "cpu"
    """As torch names it: `cpu`, `cuda:0`."""


class Checkpoints:
    """The folder of one trial, which holds at most one checkpoint: the latest."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)

    @property
    def path(self) -> Path:
        return self.folder / "latest.pt"

    def load(self) -> dict[str, Any] | None:
        """The saved state, on the CPU. None if there is none, or if it is damaged: the trial then starts afresh."""
        if not self.path.exists():
            return None
        import torch

        try:
            state: dict[str, Any] = torch.load(self.path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch promises no exception type for a damaged file
            logger.warning("checkpoint %s cannot be read and is ignored: %s", self.path, error)
            return None
        return state

    def save(self, state: Mapping[str, Any]) -> None:
        """Replaces the checkpoint atomically. Called by rank 0 alone."""
        import torch

        write_atomically(self.path, lambda file: torch.save(dict(state), file))


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Fills `path` through `write` so that a reader, and a crash at any moment, sees the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """How a trial is run: nothing in here is part of its identity."""

    ranks: Ranks = field(default_factory=Ranks)
    checkpoints: Checkpoints | None = None
    """None: nothing is saved and nothing is resumed."""
    checkpoint_every: int = 1
    """Epochs between checkpoints; the last epoch is always saved."""
    micro_batch_divisor: int = 1
    """Cuts each micro-batch into this many pieces and accumulates them, to fit into less memory."""


class Task(Protocol):
    """What a grid trains for. One file in this folder, one row in `TASKS`."""

    def objective(self, dataset: Mapping[str, Any], options: Mapping[str, Any]) -> Objective:
        """What a score means on `dataset` (`name` and resolved options) under the task's resolved `options`."""
        ...

    def backbones(self) -> Sequence[str]:
        """The names a trial's `backbone` may have."""
        ...

    def run(self, trial: TrialSpec, context: Context) -> Generator[Measurement, None, None]:
        """Yields the whole curve, one measurement an epoch from 1 to `trial.budget`.

        What a checkpoint already holds is yielded first, from its curve; training goes on from there. The checkpoint of
        an epoch is saved before its measurement is yielded. Closing the generator stops the trial. All ranks drive
        it in lockstep and are given the same measurements. Raises `Diverged` and `OutOfMemory`.
        """
        ...
