"""Optimizers: one frozen row each, and the one function that builds them. Importing this module imports no torch."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from bocb_tune.names import unknown

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

Decay = Literal["coupled_l2", "decoupled_times_lr", "decoupled_independent"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerRow:
    """What one optimizer is, and what its learning rate and weight decay mean."""

    name: str
    target: str
    """`module:Class`."""
    family: str
    """One of the four of arXiv:2410.06373, section 2."""
    decay: Decay
    """coupled_l2: `weight_decay * p` joins the gradient. decoupled_times_lr: p shrinks apart from the gradient, by
    a share proportional to `lr * weight_decay`. decoupled_independent: by a share that does not depend on lr."""
    takes: tuple[str, ...]
    """Fixed arguments it accepts besides lr and weight_decay."""
    source: str
    """The paper."""
    note: str = ""
    """What a reader of `weight_decay` or `lr` would otherwise get wrong."""


FIXED_LR = "fixed lr, momentum gradient"
ADAPTIVE_LR = "adaptive lr, momentum gradient"

OPTIMIZERS: dict[str, OptimizerRow] = {
    "sgd": OptimizerRow(
        name="sgd",
        target="torch.optim:SGD",
        family=FIXED_LR,
        decay="coupled_l2",
        takes=("momentum", "dampening", "nesterov"),
        source="Sutskever et al. 2013, ICML (momentum)",
        note="decay enters the momentum buffer with the gradient",
    ),
    "sgdp": OptimizerRow(
        name="sgdp",
        target="timm.optim:SGDP",
        family=FIXED_LR,
        decay="decoupled_times_lr",
        takes=("momentum", "dampening", "nesterov", "eps", "delta", "wd_ratio"),
        source="arXiv:2006.08217",
        note="the share is lr * weight_decay / (1 - momentum), times wd_ratio where a weight looks scale-invariant",
    ),
    "lion": OptimizerRow(
        name="lion",
        target="timm.optim:Lion",
        family=FIXED_LR,
        decay="decoupled_times_lr",
        takes=("betas",),
        source="arXiv:2302.06675",
        note="every weight moves by exactly lr a step, so lr is about a tenth of AdamW's and weight_decay ten times",
    ),
    "adam": OptimizerRow(
        name="adam",
        target="torch.optim:Adam",
        family=ADAPTIVE_LR,
        decay="coupled_l2",
        takes=("betas", "eps", "amsgrad"),
        source="arXiv:1412.6980",
        note="the decay term is normalised with the gradient: weights with large gradients decay less",
    ),
    "adamw": OptimizerRow(
        name="adamw",
        target="torch.optim:AdamW",
        family=ADAPTIVE_LR,
        decay="decoupled_times_lr",
        takes=("betas", "eps", "amsgrad"),
        source="arXiv:1711.05101",
    ),
    "lamb": OptimizerRow(
        name="lamb",
        target="timm.optim:Lamb",
        family=ADAPTIVE_LR,
        decay="decoupled_times_lr",
        takes=("betas", "eps", "max_grad_norm", "trust_clip", "always_adapt"),
        source="arXiv:1904.00962",
        note=(
            "decay joins Adam's update before the trust ratio |p| / |update| rescales both: their proportion counts; "
            "groups with weight_decay 0 get no trust ratio, and so are plain Adam, unless always_adapt; "
            "gradients are clipped to a global norm of max_grad_norm (1) before anything else"
        ),
    ),
    "adan": OptimizerRow(
        name="adan",
        target="timm.optim:Adan",
        family=ADAPTIVE_LR,
        decay="decoupled_times_lr",
        takes=("betas", "eps", "no_prox"),
        source="arXiv:2208.06677",
        note="proximal: p / (1 + lr * weight_decay) after the step, unless no_prox; betas are three",
    ),
}


def build_optimizer(model: nn.Module, name: str, *, lr: float, weight_decay: float, **fixed: Any) -> Optimizer:
    """Optimizer `name` over the trainable parameters of `model`, in a decayed and an undecayed group.

    `fixed` are arguments the search does not move, such as betas. ValueError: unknown name, or an argument
    the optimizer does not take.
    """
    if name not in OPTIMIZERS:
        raise unknown("optimizer", name, OPTIMIZERS)
    row = OPTIMIZERS[name]
    for argument in fixed:
        if argument not in row.takes:
            raise unknown(f"argument of optimizer {name!r}", argument, row.takes)
    module, attribute = row.target.split(":")
    optimizer: Optimizer = getattr(importlib.import_module(module), attribute)(
        param_groups(model, weight_decay), lr=lr, **fixed
    )
    return optimizer


def param_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """The decayed group, then the undecayed one; an empty group is left out.

    Undecayed are parameters of at most one dimension (biases, norms, scales), those called `bias`, and those
    that the model names in `no_weight_decay()` (arXiv:1812.01187, section 3.1).
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
