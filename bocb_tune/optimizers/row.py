"""What a row of the table of optimizers says."""

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
"""Of optimizers that arXiv:2410.06373 does not place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerRow:
    """What one optimizer is, and what its learning rate and weight decay mean."""

    name: str
    target: str
    """`module:Class`."""
    family: str
    """One of the four of arXiv:2410.06373, section 2, or `other`."""
    decay: Decay
    """coupled_l2: `weight_decay * p` joins the gradient. decoupled_times_lr: p shrinks apart from the gradient, by
    a share proportional to `lr * weight_decay`. decoupled_independent: by a share that does not depend on lr."""
    takes: tuple[str, ...]
    """Fixed arguments it accepts besides lr and weight_decay."""
    source: str
    """The paper."""
    note: str = ""
    """What a reader of `weight_decay` or `lr` would otherwise get wrong."""
    choice: str = ""
    """Why this implementation, where libraries differ."""
    always: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the class without which it would be another optimizer."""
    first_step: Literal["linear", "none"] = "linear"
    """What lr does to the first step. linear: weights move in proportion to it. none: nothing moves yet."""
    schedule: Literal["recipe", "own"] = "recipe"
    """own: the learning rate stays at its peak after the recipe's warm-up, whatever the recipe does from there."""
    fused: bool = False
    """Whether torch has a kernel of the whole step for GPUs, the same update as its loop over parameters."""
    one_lr: bool = False
    """Whether all parameters share one learning rate, so that layers cannot have their own."""
