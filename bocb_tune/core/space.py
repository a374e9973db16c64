"""Search space of an optimizer. A dimension owns its scale: nobody else takes a logarithm.

Besides learning rate and weight decay, which every optimizer has, a space may name some hyper-parameters that are the
optimizer's own, such as momentum or `beta2` (the second of its `betas`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Scale = Literal["log", "log_complement"]
"""log: decades of the value. log_complement: decades of 1 - value, as momentum and the decay of averages are searched
(arXiv:1910.05446)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dim:
    """One hyperparameter on a log10 scale, `[low, high]`, optionally with zero as a value of its own.

    In the unit interval zero takes `[0, zero_mass)` and stands at its middle; the range takes `[zero_mass, 1]`.
    """

    name: str
    low: float
    high: float
    zero_mass: float = 0.0
    scale: Scale = "log"

    def __post_init__(self) -> None:
        assert 0 < self.low < self.high or (self.scale == "log_complement" and 0 <= self.low < self.high < 1)
        assert 0 <= self.zero_mass < 1
        assert self.zero_mass == 0 or self.scale == "log"

    def _between(self, one: float, other: float) -> float:
        """Return the decades from one value up to the other."""
        return math.log10(other / one) if self.scale == "log" else math.log10((1 - one) / (1 - other))

    @property
    def decades(self) -> float:
        """Length of the range, without zero."""
        return self._between(self.low, self.high)

    def contains(self, value: float) -> bool:
        return self.low <= value <= self.high or (value == 0 and self.zero_mass > 0)

    def to_unit(self, value: float) -> float:
        """Return the place of a value in `[0, 1]`.

        Raises:
            ValueError: for a value outside.
        """
        if not self.contains(value):
            raise ValueError(f"{self.name} {value:g} lies outside {self}")
        if value == 0 and self.scale == "log":
            return self.zero_mass / 2
        return self.zero_mass + (1 - self.zero_mass) * self._between(self.low, value) / self.decades

    def from_unit(self, unit: float) -> float:
        """Return the value at a place in `[0, 1]`; inverse of `to_unit` to 1e-12 relative."""
        if unit < self.zero_mass:
            return 0.0
        share = (unit - self.zero_mass) / (1 - self.zero_mass)
        if self.scale == "log":
            value = self.low * 10 ** (share * self.decades)
        else:
            value = 1 - (1 - self.low) * 10 ** (-share * self.decades)
        return min(max(value, self.low), self.high)

    def edge_distance(self, value: float) -> float:
        """Return the decades from a positive value to the nearer end of the range; negative outside. Zero is at
        no edge."""
        if value == 0 and self.scale == "log":
            return math.inf
        return min(self._between(self.low, value), self._between(value, self.high))

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
    own: Mapping[str, Dim] = field(default_factory=dict)
    """Ranges of hyper-parameters that are the optimizer's own, in the order of the file: by the name of a number in
    `fixed`, or `beta1`, `beta2` ... for an element of `betas`."""

    @property
    def own_default(self) -> dict[str, float]:
        """The values in `fixed` of what `own` names."""
        return {name: own_value(self.fixed, name) for name in self.own}

    def to_unit(self, hparams: Mapping[str, float]) -> tuple[float, float]:
        """Return (lr, weight_decay) in the unit square."""
        return self.lr.to_unit(hparams["lr"]), self.weight_decay.to_unit(hparams["weight_decay"])

    def from_unit(self, unit: tuple[float, float]) -> dict[str, float]:
        return {"lr": self.lr.from_unit(unit[0]), "weight_decay": self.weight_decay.from_unit(unit[1])}

    def contains(self, other: SearchSpace) -> bool:
        """Tell whether every point of the other space lies in this one."""
        return self.lr.covers(other.lr) and self.weight_decay.covers(other.weight_decay)


def own_names(fixed: Mapping[str, Any]) -> list[str]:
    """List what may be named as the optimizer's own beside these fixed arguments: numbers, and elements of `betas`."""
    numbers = [name for name, value in fixed.items() if type(value) in (int, float)]
    betas = fixed.get("betas")
    return [*numbers, *(f"beta{place + 1}" for place in range(len(betas) if isinstance(betas, list) else 0))]


def own_value(fixed: Mapping[str, Any], name: str) -> float:
    """Return the value of one of `own_names`."""
    place = _beta(fixed, name)
    return float(fixed[name] if place is None else fixed["betas"][place])


def arguments(fixed: Mapping[str, Any], hparams: Mapping[str, float]) -> dict[str, Any]:
    """Return the arguments of an optimizer: the fixed ones, with a trial's values in their place."""
    changed = dict(fixed)
    for name, value in hparams.items():
        place = _beta(changed, name)
        if place is None:
            changed[name] = value
        else:
            changed["betas"] = [*changed["betas"][:place], value, *changed["betas"][place + 1 :]]
    return changed


def _beta(fixed: Mapping[str, Any], name: str) -> int | None:
    """Return the place in `betas` of what is called `beta1`, `beta2` ...; None if it is an argument by itself."""
    found = re.fullmatch(r"beta([1-9])", name)
    return int(found[1]) - 1 if found and name not in fixed and "betas" in fixed else None


def own_part(hparams: Mapping[str, float]) -> dict[str, float]:
    """Return what is the optimizer's own of the values of a trial."""
    return {name: value for name, value in hparams.items() if name not in ("lr", "weight_decay")}


def setting_text(hparams: Mapping[str, float]) -> str:
    """Write a setting in a line: `lr 0.1, wd 0.0001`, and what else was tuned."""
    short = {"weight_decay": "wd"}
    return ", ".join(f"{short.get(name, name)} {value:.3g}" for name, value in hparams.items())
