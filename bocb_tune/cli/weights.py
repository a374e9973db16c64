"""The weights that a run starts from: found where the experiment says, and kept in the run folder, so that the run does
not depend on what happens there later."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

from bocb_tune.core.files import write_atomically
from bocb_tune.core.progress import say
from bocb_tune.data import DATASETS
from bocb_tune.spec.grid import rows_of
from bocb_tune.spec.model import ExperimentSpec
from bocb_tune.spec.pretrained import FittedWeights, find_weights, fit_of, is_awaited, source_for
from bocb_tune.tasks import seen_size

FOLDER = "pretrained"


class StartError(ValueError):
    """Weights that a run cannot start from; the message names the entry of the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptWeights:
    """Weights in a run folder."""

    path: Path
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StartOfRow:
    """Weights that a row of the grid starts from."""

    row: str
    backbone: str
    source: str
    fit: FittedWeights

    @property
    def line(self) -> str:
        """Text that says where they are from, and which tensors do not begin as they were given."""
        return f"{self.row} starts from {self.fit.origin}; {'; '.join(self.fit.lines)}"


def kept_weights(folder: Path) -> Mapping[str, KeptWeights]:
    """Find the weights in a run folder, by row of the grid.

    Raises:
        StartError: if a file is damaged, or was not written by a run.
    """
    return {path.stem: _kept(path) for path in sorted((folder / FOLDER).glob("*.safetensors"))}


def _kept(path: Path) -> KeptWeights:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return KeptWeights(path=path, digest=file.metadata()["digest"])
    except (OSError, SafetensorError, TypeError, KeyError) as error:
        raise StartError(f"{path}: not readable as weights that a run started from ({error}); put it back") from error


def find_starts(
    spec: ExperimentSpec, folder: Path, warn: Callable[[str], None], *, file: Path | str, planned: bool = False
) -> list[StartOfRow]:
    """Find what each row starts from and try it, before a run folder is touched.

    Rows that start at random are left out, and, where it is only planned, those whose weights are still to come. What
    the run folder keeps already may be gone from where it came from.

    Raises:
        StartError: if weights cannot be loaded, do not fit, or are others than the folder's.
    """
    kept, found = kept_weights(folder), []
    channels = DATASETS[spec.dataset.name].channels
    for row, cell in rows_of(spec).items():
        entry = f"pretrained.{cell.pretrained}"
        source = source_for(spec.pretrained[cell.pretrained], cell.backbone)
        assert source is not None
        if planned and is_awaited(source, cell.backbone):
            continue
        say(f"weights of {row}")
        wanted = spec.recipe_of(cell.backbone)[1].image_size
        try:
            size = seen_size(spec.task.name, spec.dataset.name, spec.dataset.options, wanted)
            fit = fit_of(source, cell.backbone, channels, size, wanted)
        except ValueError as error:
            if row not in kept:
                raise StartError(f"{file}: {entry}: {error}") from error
            warn(f"{file}: {entry}: {error}; the run goes on with the weights that it keeps, {kept[row].path}")
            continue
        if fit is None:
            continue
        if row in kept and kept[row].digest != fit.digest:
            raise StartError(
                f"{file}: {entry}: {source} holds other weights now than those that this run started from, "
                f"{kept[row].path}; give that file as the source, or begin anew with --out"
            )
        found.append(StartOfRow(row=row, backbone=cell.backbone, source=source, fit=fit))
    return found


def keep_weights(starts: Iterable[StartOfRow], folder: Path) -> None:
    """Write the weights that are not in a run folder yet.

    Raises:
        OSError: if they cannot be written.
    """
    kept = kept_weights(folder)
    for start in starts:
        if start.row in kept:
            continue
        from safetensors.torch import save

        found = find_weights(start.source, start.backbone)
        assert found is not None
        tensors = {name: value.contiguous() for name, value in found.weights.items()}
        content = save(tensors, metadata={"digest": start.fit.digest, "origin": found.origin})
        write_atomically(folder / FOLDER / f"{start.row}.safetensors", partial(_write, content))


def _write(content: bytes, file: IO[bytes]) -> None:
    file.write(content)
