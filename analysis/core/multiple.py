"""Several tests at once."""

from __future__ import annotations

from collections.abc import Sequence


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Raise p-values for there being several (Holm, Scand. J. Statist. 1979); None where no test was made."""
    tested = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    corrected: dict[int, float] = {}
    least = 0.0
    for rank, (p, place) in enumerate(tested):
        least = max(least, min(1.0, p * (len(tested) - rank)))
        corrected[place] = least
    return [corrected.get(place) for place in range(len(p_values))]
