"""Optimizers: one frozen row each, and the one function that builds them. Importing this module imports no torch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from bocb_tune.core.names import unknown
from bocb_tune.optimizers.additional import ADDITIONAL
from bocb_tune.optimizers.published import PUBLISHED
from bocb_tune.optimizers.row import Decay, OptimizerRow

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

__all__ = ["OPTIMIZERS", "Decay", "OptimizerRow", "build_optimizer", "param_groups"]

OPTIMIZERS: dict[str, OptimizerRow] = {row.name: row for row in (*PUBLISHED, *ADDITIONAL)}


def build_optimizer(
    model: nn.Module, name: str, *, lr: float, weight_decay: float, layer_decay: float = 1.0, **fixed: Any
) -> Optimizer:
    """Build optimizer `name` over the trainable parameters of `model`, in a decayed and an undecayed group.

    With a `layer_decay` below 1 each group is split by layer (see `lr_shares`). `fixed` are arguments that the search
    does not vary, such as betas.

    Raises:
        ValueError: for an unknown name, or an argument the optimizer does not take.
    """
    if name not in OPTIMIZERS:
        raise unknown("optimizer", name, OPTIMIZERS)
    row = OPTIMIZERS[name]
    for argument in fixed:
        if argument not in row.takes:
            raise unknown(f"argument of optimizer {name!r}", argument, row.takes)
    groups = param_groups(model, weight_decay)
    if layer_decay < 1 and row.one_lr:
        raise ValueError(
            f"recipe field 'layer_decay' is {layer_decay:g}, but optimizer {name!r} has one learning rate for all "
            "layers; set it to 1 or leave this optimizer out"
        )
    if layer_decay < 1:
        from bocb_tune.optimizers.layers import lr_shares, split_by_layer

        groups = split_by_layer(groups, lr_shares(model, layer_decay), lr)
    module, attribute = row.target.split(":")
    fast = {"fused": True} if row.fused and all(p.is_cuda for group in groups for p in group["params"]) else {}
    build = getattr(importlib.import_module(module), attribute)
    optimizer: Optimizer = build(groups, lr=lr, **row.always, **fast, **fixed)
    return optimizer


def param_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Divide the trainable parameters into a decayed and an undecayed group; an empty group is left out.

    Undecayed are parameters of at most one dimension (biases, norms, scales), those called `bias`, and those that the
    model names in `no_weight_decay()` (arXiv:1812.01187, section 3.1).
    """
    named_by_model: set[str] = getattr(model, "no_weight_decay", set)()
    decayed: list[nn.Parameter] = []
    undecayed: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        exempt = parameter.ndim <= 1 or name.endswith("bias") or name in named_by_model
        (undecayed if exempt else decayed).append(parameter)
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": undecayed, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]
