"""Backbones by name. All of timm's; timm is imported only when one is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bocb_tune.names import unknown

if TYPE_CHECKING:
    from torch import nn


def list_backbones() -> list[str]:
    """Every name `build_backbone` takes."""
    import timm

    names: list[str] = timm.list_models()
    return names


def build_backbone(name: str, *, num_classes: int, in_chans: int, image_size: int, drop_path: float = 0.0) -> nn.Module:
    """A freshly initialised classifier of images [batch, in_chans, image_size, image_size], in training mode.

    Weights are drawn from torch's global generator. ValueError: unknown name, or a size or a `drop_path` rate
    that the backbone cannot take.
    """
    import timm

    if not timm.is_model(name):
        raise unknown("backbone", name, list_backbones())
    arguments: dict[str, Any] = {"num_classes": num_classes, "in_chans": in_chans}
    if timm.get_pretrained_cfg(name).fixed_input_size:
        arguments["img_size"] = image_size
    if drop_path:
        arguments["drop_path_rate"] = drop_path
    try:
        model: nn.Module = timm.create_model(name, pretrained=False, **arguments)
        _require_logits(model, (1, in_chans, image_size, image_size), num_classes)
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        wanted = ", ".join(f"{key} {value}" for key, value in arguments.items())
        raise ValueError(f"backbone {name!r} cannot take images of {image_size} pixels ({wanted}): {error}") from error
    return model


def _require_logits(model: nn.Module, shape: tuple[int, ...], num_classes: int) -> None:
    """One forward pass tells what no table does: which sizes the model can take. Leaves no trace in the model."""
    import torch

    with torch.no_grad():
        logits = model.eval()(torch.zeros(shape))
    model.train()
    if tuple(logits.shape) != (1, num_classes):
        raise ValueError(f"it gives {tuple(logits.shape)} instead of one logit a class")
