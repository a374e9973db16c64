"""Kept checkpoints of a run -> the patterns in their weights. The only module here that imports torch, and only when
a checkpoint is read. Nothing is unpickled but tensors and plain containers."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bocb_tune.analysis.patterns.spectra import layers_of
from bocb_tune.analysis.patterns.summary import COMPONENTS, RunPatterns, measure
from bocb_tune.analysis.sources.table import CELL, SourceError, TrialTable
from bocb_tune.core.files import CHECKPOINTS, LATEST
from bocb_tune.core.types import TrialStatus

NAMES = (LATEST, "model.safetensors")
"""Names of the files that a trial's folder may hold."""

Weights = dict[str, NDArray[np.floating]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A checkpoint of a completed trial."""

    backbone: str
    optimizer: str
    trial: str
    score: float
    path: Path


def find_kept(run: Path, table: TrialTable) -> tuple[Kept, ...]:
    """Find the checkpoint of the best completed trial of each cell, of those in a run folder.

    A run keeps one a cell; an interruption may leave another beside it.
    """
    files = {path.parent.name: path for name in NAMES for path in (run / CHECKPOINTS).glob(f"*/{name}")}
    trials = table.trials
    kept = trials[(trials["status"] == TrialStatus.completed) & trials["trial"].astype(str).isin(files)]
    best = kept.sort_values("score", ascending=False, kind="stable").drop_duplicates(list(CELL)).sort_index()
    cells = zip(*(best[column].astype(str) for column in (*CELL, "trial")), best["score"], strict=True)
    return tuple(Kept(backbone=b, optimizer=o, trial=t, score=score, path=files[t]) for b, o, t, score in cells)


def patterns_of(kept: Kept, components: int = COMPONENTS) -> RunPatterns:
    """Compute all patterns of all layers of one checkpoint.

    Raises:
        SourceError: if it cannot be read, or its weights are not finite.
    """
    try:
        return _measured(kept, read_weights(kept.path), components)
    except ValueError as error:
        raise error if isinstance(error, SourceError) else SourceError(f"{kept.path}: {error}") from error


def patterns_at_start(kept: Kept, weights: Weights, components: int = COMPONENTS) -> RunPatterns:
    """Compute the same of the weights that a trial began with, in the layers that its checkpoint has.

    Args:
        weights: tensors by name, in the model's order.
    """
    return replace(_measured(kept, weights, components), is_start=True)


def _measured(kept: Kept, weights: Weights, components: int) -> RunPatterns:
    found = tuple(measure(layer, components) for layer in layers_of(weights))
    return RunPatterns(backbone=kept.backbone, optimizer=kept.optimizer, trial=kept.trial, layers=found)


def read_weights(path: Path) -> Weights:
    """Read the tensors of a model by name, in its order: of the averaged model (EMA) where there is one, as it is
    scored.

    Raises:
        SourceError: if the file is damaged, holds other objects than tensors, or no model.
    """
    tensors = _safetensors(path) if path.suffix == ".safetensors" else _model(path, _torch_file(path))
    return {name: tensor.detach().float().numpy() for name, tensor in tensors if tensor.is_floating_point()}


def _safetensors(path: Path) -> list[tuple[str, Any]]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return list(load_file(path).items())
    except (OSError, SafetensorError) as error:
        raise _unreadable(path, error) from error


def _torch_file(path: Path) -> Any:
    import torch

    try:
        with warnings.catch_warnings(action="ignore"):  # of what the error then says
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        why = "it holds objects other than tensors, which are never unpickled, or is damaged"
        raise SourceError(f"{path}: not read: {why}; save its model as .safetensors") from error
    except Exception as error:  # torch promises no exception type for a damaged file
        raise _unreadable(path, error) from error


def _model(path: Path, state: Any) -> list[tuple[str, Any]]:
    model = (state.get("ema") or state.get("model")) if isinstance(state, Mapping) else None
    if not isinstance(model, Mapping):
        raise SourceError(f"{path}: holds no model; a checkpoint has its weights under 'model' or 'ema'")
    return list(model.items())


def _unreadable(path: Path, error: Exception) -> SourceError:
    lines = str(error).strip().splitlines()
    return SourceError(f"{path}: not readable as a checkpoint ({lines[0] if lines else type(error).__name__})")
