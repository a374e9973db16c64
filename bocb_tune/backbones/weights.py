"""Weights of a model: read from a file that others may have written, and named by what they hold. Nothing is unpickled
but tensors and plain containers."""

from __future__ import annotations

import hashlib
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

Weights = dict[str, "Tensor"]

HOLDERS = ("ema", "state_dict_ema", "model_ema", "model", "state_dict")
"""Keys under which checkpoints hold a model, of ours and of timm's; averaged weights first, as they are what was
scored."""


class WeightsError(ValueError):
    """A file of weights that cannot be used as it stands; the message names it."""


def read_weights(path: Path) -> Weights:
    """Read the tensors of the model in a safetensors file or a checkpoint, by name.

    Raises:
        WeightsError: if it is not there, is damaged, holds other objects than tensors, or no model.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: there is no such file")
    state = _safetensors(path) if path.suffix == ".safetensors" else _checkpoint(path)
    import torch
    from timm.models import clean_state_dict

    held = next((state[key] for key in HOLDERS if isinstance(state.get(key), Mapping)), state)
    weights = {name: value for name, value in clean_state_dict(dict(held)).items() if isinstance(value, torch.Tensor)}
    if not weights:
        raise WeightsError(f"{path}: holds no model; a checkpoint has its weights under one of {', '.join(HOLDERS)}")
    for name, value in weights.items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise WeightsError(f"{path}: {name} holds numbers that are not finite, so it is of a diverged training")
    return weights


def _safetensors(path: Path) -> Mapping[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise _unreadable(path, error) from error


def _checkpoint(path: Path) -> Mapping[str, Any]:
    import torch

    try:
        with warnings.catch_warnings(action="ignore"):  # of what the error then says
            state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        why = "it holds objects other than tensors, which are never unpickled, or is damaged"
        raise WeightsError(f"{path}: not read: {why}; save its model as .safetensors") from error
    except Exception as error:  # torch promises no exception type for a damaged file
        raise _unreadable(path, error) from error
    return state if isinstance(state, Mapping) else {}


def _unreadable(path: Path, error: Exception) -> WeightsError:
    lines = str(error).strip().splitlines()
    return WeightsError(f"{path}: not readable as weights ({lines[0] if lines else type(error).__name__})")


def digest_of(weights: Mapping[str, Tensor]) -> str:
    """Hash names, types, shapes and values of all tensors: the same whatever file holds them (64 hex digits)."""
    import torch

    found = hashlib.sha256()
    for name, value in sorted(weights.items()):
        found.update(f"{name}\0{value.dtype}\0{tuple(value.shape)}\0".encode())
        found.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()
