"""Weights of another training in a fresh model: all but its head, strictly, each change named."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bocb_tune.backbones.weights import Weights, WeightsError, digest_of, read_weights
from bocb_tune.core.names import listed

if TYPE_CHECKING:
    from torch import Tensor, nn

NAMED = 4
"""Tensors named in a message, of those that are wrong for one reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Tensors of a model that do not begin as they were given."""

    fresh: tuple[str, ...]
    """Tensors of the model that begin at random: those of its head."""
    skipped: tuple[str, ...]
    """Tensors of the weights that are not used."""
    adapted: tuple[str, ...]
    """Tensors that are used in another shape, with both shapes."""

    def lines(self) -> Iterator[str]:
        """Say what is not as it was given."""
        yield f"begins at random: {', '.join(self.fresh)}"
        if self.skipped:
            yield f"not used: {', '.join(self.skipped)}"
        if self.adapted:
            yield f"adapted: {', '.join(self.adapted)}"


def start_from(model: nn.Module, weights: Mapping[str, Tensor]) -> Start:
    """Put weights into a fresh model, all but its head, whose classes are others.

    A stem for another number of channels is summed or repeated, and position embeddings and patch embeddings of another
    size are resized, as timm does both. Nothing else may differ.

    Raises:
        WeightsError: if tensors are missing, are left over, or have another shape: they are of another architecture.
    """
    wanted, head = model.state_dict(), head_of(model)
    body = {name: value for name, value in wanted.items() if not _under(name, head)}
    given = {name: value for name, value in weights.items() if not _under(name, head)}
    if _misfits(given, body, first_convolutions(model)):
        converted = _converted(model, weights)
        given = {name: value for name, value in converted.items() if not _under(name, head)}
    fitted = {name: _adapted(name, value, body.get(name), model) for name, value in given.items()}
    if faults := list(_faults(fitted, body)):
        raise WeightsError(f"holds another architecture than {type(model).__name__}: {'; '.join(faults)}")
    model.load_state_dict(fitted, strict=False)
    shapes = {name: (tuple(weights[name].shape), tuple(body[name].shape)) for name in body if name in weights}
    return Start(
        fresh=tuple(name for name in wanted if name not in fitted),
        skipped=tuple(name for name in weights if name not in fitted),
        adapted=tuple(f"{name} {old} to {new}" for name, (old, new) in shapes.items() if old != new),
    )


def head_of(model: nn.Module) -> tuple[str, ...]:
    """Return the names of the modules that make logits of features."""
    heads = model.get_classifier()  # type: ignore[operator]
    several = heads if isinstance(heads, (tuple, list)) else (heads,)
    return tuple(name for name, module in model.named_modules() if any(module is head for head in several))


def first_convolutions(model: nn.Module) -> tuple[str, ...]:
    """Return the names of the layers that see the channels of the images, as timm has them."""
    config: Mapping[str, Any] = getattr(model, "pretrained_cfg", None) or {}
    first = config.get("first_conv") or ()
    return (first,) if isinstance(first, str) else tuple(first)


def _under(name: str, modules: tuple[str, ...]) -> bool:
    return any(name.startswith(f"{module}.") for module in modules)


def _misfits(given: Mapping[str, Tensor], body: Mapping[str, Tensor], stems: tuple[str, ...]) -> bool:
    """Tell whether names or shapes differ by more than the channels of the stem."""
    if given.keys() - body.keys() or _missing(given, body):
        return True
    return any(value.shape != body[name].shape and not _under(name, stems) for name, value in given.items())


def _missing(given: Mapping[str, Tensor], body: Mapping[str, Tensor]) -> list[str]:
    """Return the tensors that are not given; counts of batches are in no file of old, and change nothing."""
    return [name for name in body if name not in given and not name.endswith("num_batches_tracked")]


def _converted(model: nn.Module, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Change weights by what timm has for the family: names of the authors' files, embeddings of another size."""
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if convert is None:
        return weights
    arguments = (dict(weights), model)[: len(inspect.signature(convert).parameters)]
    try:
        found: Mapping[str, Tensor] = convert(*arguments)
    except (KeyError, IndexError, AttributeError, RuntimeError, ValueError, AssertionError):
        return weights  # of another family, which the comparison of names then says
    return found


def _adapted(name: str, value: Tensor, wanted: Tensor | None, model: nn.Module) -> Tensor:
    """Return a stem's weights for as many channels as the model's has; anything else as it is."""
    from timm.models import adapt_input_conv

    stem = name in {f"{layer}.weight" for layer in first_convolutions(model)}
    if not stem or wanted is None or value.ndim != 4 or value.shape[1] == wanted.shape[1]:
        return value
    if value.shape[::2] != wanted.shape[::2] or value.shape[3] != wanted.shape[3]:
        return value
    adapted: Tensor = adapt_input_conv(wanted.shape[1], value, base_chans=value.shape[1])
    return adapted


def _faults(given: Mapping[str, Tensor], body: Mapping[str, Tensor]) -> Iterator[str]:
    missing, left_over = _missing(given, body), [name for name in given if name not in body]
    if missing:
        yield f"{len(missing)} of {len(body)} tensors are missing ({listed(missing, NAMED)})"
    if left_over:
        yield f"{len(left_over)} are left over ({listed(left_over, NAMED)})"
    shapes = [
        f"{name} {tuple(value.shape)} for {tuple(body[name].shape)}"
        for name, value in given.items()
        if name in body and value.shape != body[name].shape
    ]
    if shapes:
        yield f"{len(shapes)} have another shape ({listed(shapes, NAMED)})"


@lru_cache(maxsize=2)
def verified(path: str, digest: str) -> Weights:
    """Read weights that have to be those of a digest; kept in the process from one trial to the next.

    Raises:
        WeightsError: if they cannot be read, or are others.
    """
    weights = read_weights(Path(path))
    if digest_of(weights) != digest:
        raise WeightsError(f"{path}: holds other weights than the trial starts from; put the file back")
    return weights


WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
"""Names of the file of weights in a repository of timm's."""


def is_to_fetch(model: str, tag: str) -> bool:
    """Tell whether weights that timm publishes are still to be fetched to this machine."""
    import timm
    import torch
    from huggingface_hub import try_to_load_from_cache

    published = timm.get_pretrained_cfg(f"{model}.{tag}") if f"{model}.{tag}" in timm.list_pretrained() else None
    if published is None:
        return False
    if published.hf_hub_id:
        names = (published.hf_hub_filename,) if published.hf_hub_filename else WEIGHT_FILES
        return not any(isinstance(try_to_load_from_cache(published.hf_hub_id, name), str) for name in names)
    return not (Path(torch.hub.get_dir()) / "checkpoints" / Path(published.url or "").name).is_file()


def timm_weights(model: str, tag: str) -> Weights:
    """Fetch weights that timm publishes, or take them from its cache.

    Raises:
        WeightsError: if timm has none of that tag, or they cannot be fetched.
    """
    import timm

    known = [name.partition(".")[2] for name in timm.list_pretrained(f"{model}.*")] if timm.is_model(model) else []
    if tag not in known:
        raise WeightsError(f"timm has no weights {tag!r} of {model}; it has {', '.join(known) or 'none'}")
    try:
        return dict(timm.create_model(f"{model}.{tag}", pretrained=True).state_dict())
    except (OSError, RuntimeError, ValueError) as error:
        why = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise WeightsError(
            f"the weights {model}.{tag} cannot be fetched ({why}); fetch them where there is a network, and give the "
            "file instead"
        ) from error
