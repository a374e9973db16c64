"""The row type of the table of optimizers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Decay = Literal["coupled_l2", "decoupled_times_lr", "decoupled_independent"]

FIXED_LR = "fixed lr, momentum gradient"
ADAPTIVE_LR = "adaptive lr, momentum gradient"
ESTIMATED_LR = "estimated lr, momentum gradient"
PLAIN_GRADIENT = "adaptive lr, current gradient"
OTHER = "other"
"""Family of optimizers that arXiv:2410.06373 does not place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerRow:
    """An optimizer: its implementation, and the meaning of its learning rate and weight decay."""

    name: str
    target: str
    """Import path, `module:Class`."""
    family: str
    """One of the four of arXiv:2410.06373, section 2, or `other`."""
    decay: Decay
    """Form of weight decay. coupled_l2: `weight_decay * p` joins the gradient. decoupled_times_lr: p shrinks apart from
    the gradient, by a share proportional to `lr * weight_decay`. decoupled_independent: by a share independent of
    lr."""
    takes: tuple[str, ...]
    """Fixed arguments it accepts besides lr and weight_decay."""
    source: str
    """Reference of the paper."""
    note: str = ""
    """Anything that a reader of `weight_decay` or `lr` would otherwise get wrong."""
    choice: str = ""
    """Reason for this implementation, where libraries differ."""
    always: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the class without which it would be another optimizer."""
    first_step: Literal["linear", "none"] = "linear"
    """Effect of lr on the first step. linear: weights move in proportion to it. none: nothing moves yet."""
    schedule: Literal["recipe", "own"] = "recipe"
    """Learning rate after the warm-up. recipe: the recipe's schedule. own: constant at its peak."""
    fused: bool = False
    """Whether torch has a GPU kernel of the whole step, equivalent to its loop over parameters."""
    second_order: bool = False
    """Whether it needs second derivatives of the loss (`SecondOrder`)."""
    one_lr: bool = False
    """Whether all parameters share one learning rate, so that layers cannot have their own."""
