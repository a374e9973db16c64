"""Parts of a pre-trained model that a training leaves as they are."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from timm.layers import DropPath
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from bocb_tune.backbones import stages_of
from bocb_tune.backbones.pretrained import head_of
from bocb_tune.optimizers.interfaces import Averaging
from bocb_tune.training.recipes import Recipe


def freeze(model: nn.Module, recipe: Recipe) -> None:
    """Keep the first stages of a model, or all but its head, as the recipe says: their parameters, the statistics of
    their norms, and no dropout within them. With `frozen_norm` the statistics of every BatchNorm are kept.

    Raises:
        ValueError: if the model has too few stages.
    """
    frozen = frozen_parameters(model, recipe)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in frozen)
    for module in _within_frozen(model) if frozen else ():
        if isinstance(module, (_BatchNorm, _DropoutNd, DropPath)):
            module.register_forward_pre_hook(_as_in_validation)
    for module in model.modules() if recipe.frozen_norm else ():
        if isinstance(module, _BatchNorm):
            module.register_forward_pre_hook(_as_in_validation)


def frozen_parameters(model: nn.Module, recipe: Recipe) -> frozenset[str]:
    """Name the parameters that a recipe leaves as they are.

    Raises:
        ValueError: if the model has too few stages.
    """
    names = [name for name, _ in model.named_parameters()]
    if recipe.linear_probe:
        head = head_of(model)
        return frozenset(name for name in names if not any(name.startswith(f"{each}.") for each in head))
    if not recipe.frozen_stages:
        return frozenset()
    stages = stages_of(model)
    last = max(stages.values())
    if recipe.frozen_stages > last:
        raise ValueError(
            f"recipe field 'frozen_stages' is {recipe.frozen_stages}, and {type(model).__name__} has {last} before its "
            "head; give fewer, or linear_probe: true"
        )
    return frozenset(name for name in names if stages.get(name, last) < recipe.frozen_stages)


def _within_frozen(model: nn.Module) -> Iterator[nn.Module]:
    """Yield every module within one all of whose parameters are frozen."""
    own = list(model.parameters())
    if own and not any(parameter.requires_grad for parameter in own):
        yield from model.modules()
        return
    for child in model.children():
        yield from _within_frozen(child)


def _as_in_validation(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:  # noqa: ARG001
    """Switch a module to validation, whatever `model.train()` did; as a hook, so that parameters keep their names."""
    module.training = False


def require_own_statistics(model: nn.Module, optimizer: object, name: str, recipe: Recipe) -> None:
    """Refuse an optimizer at whose average statistics of BatchNorm are estimated anew, where some are frozen.

    Raises:
        ValueError: if it is one.
    """
    norms = (module for module in model.modules() if isinstance(module, _BatchNorm))
    if isinstance(optimizer, Averaging) and any(recipe.frozen_norm or _is_frozen(norm) for norm in norms):
        raise ValueError(
            f"optimizer {name!r} estimates BatchNorm's statistics anew, and frozen ones stay; set the recipe's "
            "frozen_stages to 0, linear_probe and frozen_norm to false, or leave this optimizer out"
        )


def _is_frozen(module: nn.Module) -> bool:
    own = list(module.parameters(recurse=False))
    return bool(own) and not any(parameter.requires_grad for parameter in own)
