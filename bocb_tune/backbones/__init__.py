"""Backbones by name: those of the table, and all others of timm, which is imported only when one is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bocb_tune.backbones.table import BACKBONES, FULL, SMALL, BackboneRow
from bocb_tune.core.names import unknown

if TYPE_CHECKING:
    from torch import nn

__all__ = [
    "BACKBONES",
    "FULL",
    "SMALL",
    "BackboneRow",
    "LoneImage",
    "NoDropPath",
    "Traits",
    "adapted",
    "build_backbone",
    "drops_paths",
    "layers_of",
    "list_backbones",
    "registered",
    "renamed",
    "require_batch",
    "stages_of",
    "traits",
]


class NoDropPath(ValueError):
    """Stochastic depth was asked of a backbone that has none."""

    def __init__(self, name: str, rate: float) -> None:
        super().__init__(
            f"backbone {name!r} has no stochastic depth and cannot take drop_path_rate {rate:g}; "
            "set the recipe's drop_path to 0 for it"
        )


class LoneImage(ValueError):
    """A backbone with BatchNorm was to be trained on one image at a time."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"backbone {name!r} has BatchNorm, which cannot normalise a batch of 1: give each rank at least 2 "
            "images at a time, by a larger batch_size or fewer workers or accumulation steps, or take another backbone"
        )


def list_backbones() -> list[str]:
    """List every name `build_backbone` takes: the table's, then timm's."""
    import timm

    return list(dict.fromkeys([*BACKBONES, *timm.list_models()]))


def adapted(name: str, image_size: int, resized_to: int = 0) -> dict[str, Any]:
    """Say how a backbone differs, for images of `image_size` pixels, from timm's model of that name.

    Any of `model` (another of timm's names), `image_size` (what images are resized to) and `small` (its form for small
    images). It stands in the settings of a trial, whose result depends on it. `resized_to` is the size the backbone is
    to see; 0 leaves it to the table.
    """
    row = BACKBONES.get(name)
    seen = resized_to or image_size
    if row and not resized_to and image_size <= SMALL and not row.reshape:
        seen = FULL
    change: dict[str, Any] = renamed(name)
    if seen != image_size:
        change["image_size"] = seen
    if row and row.reshape and seen <= SMALL:
        change["small"] = True
    return change


def renamed(name: str) -> dict[str, str]:
    """Return timm's name of a backbone as `model`, where it is another."""
    row = BACKBONES.get(name)
    return {"model": row.model} if row and row.model != name else {}


def registered(name: str) -> str:
    """Return timm's name of a backbone, after seeing to it that timm knows it.

    Raises:
        ValueError: if there is no such backbone.
    """
    import timm

    row = BACKBONES.get(name)
    if row and row.module:
        importlib.import_module(row.module)
    model_name = row.model if row else name
    if not timm.is_model(model_name):
        raise unknown("backbone", name, list_backbones())
    return model_name


def build_backbone(
    name: str, *, num_classes: int, in_chans: int, image_size: int, resized_to: int = 0, drop_path: float = 0.0
) -> nn.Module:
    """Build a freshly initialised classifier of images [batch, in_chans, image_size, image_size], in training mode.

    Weights are drawn from torch's global generator. `resized_to` is as of `adapted`.

    Raises:
        ValueError: for an unknown name, or a size or a `drop_path` rate that the backbone cannot take.
    """
    import timm

    model_name = registered(name)
    change = adapted(name, image_size, resized_to)
    arguments: dict[str, Any] = {"num_classes": num_classes, "in_chans": in_chans}
    published = timm.get_pretrained_cfg(model_name)
    if published and published.fixed_input_size:
        arguments["img_size"] = change.get("image_size", image_size)
    if drop_path:
        arguments["drop_path_rate"] = drop_path
    try:
        model: nn.Module = timm.create_model(model_name, pretrained=False, **arguments)
        _adapt(model, name, change)
        _require_logits(model, (1, in_chans, image_size, image_size), num_classes)
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        if "drop_path_rate" in str(error):
            raise NoDropPath(name, drop_path) from error
        wanted = ", ".join(f"{key} {value}" for key, value in arguments.items())
        size, owner = (resized_to, "its recipe") if resized_to else (image_size, "the dataset")
        raise ValueError(
            f"backbone {name!r} cannot take images of {size} pixels ({wanted}): {error}; "
            f"give {owner} another image_size, such as {_published_size(published)}, or take another backbone"
        ) from error
    if drop_path and not drops_paths(model):
        raise NoDropPath(name, drop_path)
    return model


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """Traits that decide which recipes a backbone can be trained by."""

    drop_path: bool
    """Whether it has stochastic depth."""
    batch_norm: bool
    stages: int
    """Stages before its head, the stem among them: those that can be frozen."""


def traits(name: str, image_size: int, resized_to: int = 0) -> Traits:
    """Return the traits of the backbone at these image sizes, as of `build_backbone`.

    Raises:
        ValueError: as `build_backbone`.
    """
    try:
        model, drop_path = _probe(name, image_size, resized_to, 0.1), True
    except NoDropPath:
        model, drop_path = _probe(name, image_size, resized_to, 0.0), False
    return Traits(drop_path=drop_path, batch_norm=_has_batch_norm(model), stages=max(stages_of(model).values()))


def stages_of(model: nn.Module) -> dict[str, int]:
    """Return the stage of each parameter, as timm groups them: 0 is the stem, the last holds the head."""
    return layers_of(model, coarse=True)


def layers_of(model: nn.Module, *, coarse: bool) -> dict[str, int]:
    """Return the layer of each parameter, or with `coarse` its stage, as timm groups them."""
    from timm.models import group_parameters
    from timm.optim import auto_group_layers

    matcher: Any = getattr(model, "group_matcher", None)
    if matcher is None:
        return dict(auto_group_layers(model))
    return dict(group_parameters(model, matcher(coarse=coarse), reverse=True))


def _probe(name: str, image_size: int, resized_to: int, drop_path: float) -> nn.Module:
    """Build a classifier without weights, which is quicker, where the model can be without."""
    import torch

    def build() -> nn.Module:
        sizes = {"image_size": image_size, "resized_to": resized_to}
        return build_backbone(name, num_classes=10, in_chans=3, **sizes, drop_path=drop_path)

    try:
        with torch.device("meta"):
            return build()
    except NoDropPath:
        raise
    except ValueError:
        return build()


def require_batch(model: nn.Module, name: str, images: int) -> None:
    """Refuse a batch too small for the model to be trained on; `images` are those of a rank in one forward pass.

    Raises:
        LoneImage: if it is.
    """
    if images < 2 and _has_batch_norm(model):
        raise LoneImage(name)


def _has_batch_norm(model: nn.Module) -> bool:
    from torch.nn.modules.batchnorm import _BatchNorm

    return any(isinstance(module, _BatchNorm) for module in model.modules())


def _adapt(model: nn.Module, name: str, change: Mapping[str, Any]) -> None:
    if "image_size" in change:
        from bocb_tune.backbones.small import resize

        resize(model, change["image_size"])
    if "small" in change:
        module, function = BACKBONES[name].reshape.split(":")
        getattr(importlib.import_module(module), function)(model)


def _require_logits(model: nn.Module, shape: tuple[int, ...], num_classes: int) -> None:
    """Try one forward pass, which tells what no table does: which sizes the model can take. Leaves no trace in the
    model.
    """
    import torch

    with torch.no_grad():
        logits = model.eval()(torch.zeros(shape))
    model.train()
    if tuple(logits.shape) != (1, num_classes):
        raise ValueError(f"it gives {tuple(logits.shape)} instead of one logit a class")


def drops_paths(model: nn.Module) -> bool:
    """Tell whether a model has stochastic depth that is on."""
    from timm.layers import DropPath

    return any(isinstance(module, DropPath) for module in model.modules())


def _published_size(published: Any) -> int:
    return published.input_size[-1] if published else FULL
