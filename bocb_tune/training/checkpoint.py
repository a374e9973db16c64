"""The checkpoint of a trial on disk. Torch is imported when one is read or written."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bocb_tune.core.files import write_atomically

logger = logging.getLogger(__name__)


class Checkpoints:
    """The folder of one trial, which holds at most one checkpoint: the latest."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)

    @property
    def path(self) -> Path:
        return self.folder / "latest.pt"

    def load(self) -> dict[str, Any] | None:
        """Read the saved state onto the CPU.

        Returns None if there is no checkpoint, or a damaged one: the trial then starts afresh.
        """
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
        """Replace the checkpoint atomically. Rank 0 alone calls this."""
        import torch

        write_atomically(self.path, lambda file: torch.save(dict(state), file))
