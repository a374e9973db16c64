"""Numbers that the paper's measures leave open, each with the default that is stated beside every result."""

from __future__ import annotations

import math
from dataclasses import dataclass

from bocb_tune.analysis.patterns.summary import COMPONENTS

WEIGHTS = {"performance": 0.4, "settings": 0.2, "coupling": 0.2, "computation": 0.2}
"""Parts of the overall rank of arXiv:2410.06373, Table 4."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """The numbers that a user may set."""

    gap: float | None = None
    """Most points by which Eq. 1 lets a cell lie below the best of its backbone; None for what the paper takes: 1 on
    ImageNet, else 3."""
    step: float = 1 / 3
    """Decades of one step of a setting, where settings were drawn from a continuous range."""
    weights: tuple[float, ...] = tuple(WEIGHTS.values())
    """Weights of the overall rank, in the order of `WEIGHTS`."""
    components: int = COMPONENTS
    """Principal components whose energy is drawn; the paper does not say how many."""

    def __post_init__(self) -> None:
        """Refuse numbers that have no meaning.

        Raises:
            ValueError: naming the option, its value and what is allowed.
        """
        for name in ("gap", "step"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ValueError(f"--{name} {value:g}: give a number above 0")
        if self.components < 1:
            raise ValueError(f"--components {self.components}: give a whole number from 1")
        if len(self.weights) != len(WEIGHTS) or not all(0 <= each < math.inf for each in self.weights):
            given = " ".join(f"{each:g}" for each in self.weights)
            raise ValueError(f"--weights {given}: give {len(WEIGHTS)} numbers from 0, of {', '.join(WEIGHTS)}")
        if not sum(self.weights):
            raise ValueError("--weights: all are 0, so that nothing is left to rank by")


DEFAULT = Choices()


def choose(gap: float | None, step: float | None, weights: str | None, components: int | None) -> Choices:
    """Read the options of the command line; None where nothing is chosen.

    Raises:
        ValueError: naming the option, its value and what is allowed.
    """
    try:
        numbers = None if weights is None else tuple(float(each) for each in weights.split(","))
    except ValueError:
        raise ValueError(f"--weights {weights!r}: give {len(WEIGHTS)} numbers, such as .4,.2,.2,.2") from None
    return Choices(
        gap=gap,
        step=DEFAULT.step if step is None else step,
        weights=DEFAULT.weights if numbers is None else numbers,
        components=DEFAULT.components if components is None else components,
    )
