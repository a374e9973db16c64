"""Search space of an optimizer. A dimension owns its scale: nobody else takes a logarithm."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Dim:
    """One hyperparameter on a log10 scale, `[low, high]`, optionally with zero as a value of its own.

    In the unit interval zero takes `[0, zero_mass)` and stands at its middle; the range takes `[zero_mass, 1]`.
    """

    name: str
    low: float
    high: float
    zero_mass: float = 0.0

    def __post_init__(self) -> None:
        assert 0 < self.low < self.high
        assert 0 <= self.zero_mass < 1

    @property
    def decades(self) -> float:
        """Length of the range, without zero."""
        return math.log10(self.high / self.low)

    def contains(self, value: float) -> bool:
        return self.low <= value <= self.high or (value == 0 and self.zero_mass > 0)

    def to_unit(self, value: float) -> float:
        """Return the place of a value in `[0, 1]`.

        Raises:
            ValueError: for a value outside.
        """
        if not self.contains(value):
            raise ValueError(f"{self.name} {value:g} lies outside {self}")
        if value == 0:
            return self.zero_mass / 2
        return self.zero_mass + (1 - self.zero_mass) * math.log10(value / self.low) / self.decades

    def from_unit(self, unit: float) -> float:
        """Return the value at a place in `[0, 1]`; inverse of `to_unit` to 1e-12 relative."""
        if unit < self.zero_mass:
            return 0.0
        share = (unit - self.zero_mass) / (1 - self.zero_mass)
        return min(max(self.low * 10 ** (share * self.decades), self.low), self.high)

    def edge_distance(self, value: float) -> float:
        """Return the decades from a positive value to the nearer end of the range; negative outside. Zero is at
        no edge."""
        if value == 0:
            return math.inf
        return min(math.log10(value / self.low), math.log10(self.high / value))

    def covers(self, other: Dim) -> bool:
        """Tell whether every value of the other lies in this one."""
        return self.low <= other.low and other.high <= self.high and (self.zero_mass > 0 or other.zero_mass == 0)

    def __str__(self) -> str:
        return f"{self.low:g} .. {self.high:g}" + (" or 0" if self.zero_mass else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSpace:
    """The learning rates and weight decays an optimizer is tuned over, and what stays fixed."""

    optimizer: str
    lr: Dim
    weight_decay: Dim
    default: Mapping[str, float]
    """The published setting: `lr` and `weight_decay`."""
    fixed: Mapping[str, Any]
    """Arguments of the optimizer that are never tuned, such as `betas`."""
    decay: str
    """Kind of weight decay, by how it enters the update: one of those in `bocb_tune.optimizers.Decay`."""
    source: str
    note: str = ""

    def to_unit(self, hparams: Mapping[str, float]) -> tuple[float, float]:
        """Return (lr, weight_decay) in the unit square."""
        return self.lr.to_unit(hparams["lr"]), self.weight_decay.to_unit(hparams["weight_decay"])

    def from_unit(self, unit: tuple[float, float]) -> dict[str, float]:
        return {"lr": self.lr.from_unit(unit[0]), "weight_decay": self.weight_decay.from_unit(unit[1])}

    def contains(self, other: SearchSpace) -> bool:
        """Tell whether every point of the other space lies in this one."""
        return self.lr.covers(other.lr) and self.weight_decay.covers(other.weight_decay)
