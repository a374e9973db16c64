"""Files that are whole or not there."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import IO

SPEC_FILE = "spec.yaml"
"""Name of the file of a run folder that holds the experiment, resolved."""
DRIVER_FILE = ".driver.json"
"""Name of the file in which the driver says what it is at; there while it is at work."""
LOG_FILE = "ray.log"
"""Name of the file of a run folder that holds what Ray and the workers said."""
CHECKPOINTS, LATEST = "checkpoints", "latest.pt"
"""Names of the folder of a run folder that holds a folder a trial, and of the newest checkpoint there."""
CANNOT_BE_DECODED = "cannot be decoded and is skipped"
"""Words of that file after the name of an image that no trial was given."""


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Fill `path` through `write` so that a reader, and a crash at any moment, sees the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with temporary.open("xb") as file:  # its mode is the umask's, as of any other file
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
