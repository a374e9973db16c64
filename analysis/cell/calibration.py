"""Calibration of the model of a cell: checks, in sentences, of its predictions against its trials.

Predictions of left-out trials are sound unless they differ from the trials by more than in 1 % of sound models; curves
are sound if their intervals overlap. The model is refused only when they are far apart (`Validation.is_poor`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.stats import binom, norm

from bocb_tune.analysis.cell.tuning_curves import SIZES, TuningCurve
from bocb_tune.analysis.core.estimate import Estimate, known
from bocb_tune.analysis.landscape.validation import Validation

SUSPICIOUS = 0.01
"""Share of sound models that a check wrongly calls unsound."""
MOST_Z = float(norm.isf(SUSPICIOUS / 2))
NOMINAL = 0.9
"""Nominal coverage of the predictive intervals of left-out trials."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """One check of a model against trials."""

    name: str
    is_sound: bool
    value: float | None
    """The quantity in `words`: a share, points or standard errors; None where there was nothing to compare."""
    words: str
    """Result of the check in a whole sentence; differences are in points."""

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "value": known(self.value)}


def calibration(
    validation: Validation, curve: TuningCurve | None, observed: Sequence[Estimate]
) -> tuple[Calibration, ...]:
    """Check a model, also one that was refused.

    Args:
        validation: of the trials left out.
        curve: of the model; None where it was refused.
        observed: curve of the trials themselves, one per size of `SIZES`; refused where they are not independent
            draws.
    """
    left_out = (_coverage(validation), _bias(validation), _audit(validation))
    return left_out if curve is None else (*left_out, *_curves(curve, observed))


def _coverage(found: Validation) -> Calibration:
    inside = round(found.coverage90 * found.num_trials)
    is_sound = bool(binom.cdf(inside, found.num_trials, NOMINAL) >= SUSPICIOUS)
    words = f"Of {found.num_trials} trials left out, {inside} lie where the model expects 90 % of them"
    words += "." if is_sound else ": it is too sure of itself, and its intervals are too narrow."
    return Calibration(name="coverage", is_sound=is_sound, value=found.coverage90, words=words)


def _bias(found: Validation) -> Calibration:
    is_sound = abs(found.bias_z) <= MOST_Z
    side = "above" if found.bias >= 0 else "below"
    words = f"Trials left out score {abs(found.bias):.2f} points {side} what the model predicts on average, "
    words += "no more than by chance." if is_sound else f"which is {abs(found.bias_z):.1f} standard errors."
    return Calibration(name="bias", is_sound=is_sound, value=found.bias, words=words)


def _audit(found: Validation) -> Calibration:
    if not found.num_audit:
        words = "No trial that was exempt from stopping looks into what stopping hides."
        return Calibration(name="exempt trials", is_sound=True, value=None, words=words)
    is_sound = abs(found.audit_z) <= MOST_Z
    side = "above" if found.audit_z >= 0 else "below"
    words = f"The {found.num_audit} trials exempt from stopping lie {abs(found.audit_z):.1f} standard errors {side} "
    words += (
        "prediction: no more than by chance." if is_sound else "prediction: what stopping hides is not as modelled."
    )
    return Calibration(name="exempt trials", is_sound=is_sound, value=found.audit_z, words=words)


def _curves(curve: TuningCurve, observed: Sequence[Estimate]) -> Iterator[Calibration]:
    """Compare curves at one trial and at the largest number for which the trials themselves give a value."""
    sizes = [n for n, each in zip(SIZES, observed, strict=True) if each.value is not None and each.lo is not None]
    for n in dict.fromkeys((sizes[0], sizes[-1]) if sizes else ()):
        seen, modelled = observed[SIZES.index(n)], curve.reported_at(n)
        is_sound = _overlap(seen, modelled)
        what = "The mean of random trials" if n == 1 else f"The best score of {n} random trials"
        gap = float(modelled.value or 0) - float(seen.value or 0)
        words = f"{what} is {gap:+.2f} points by the model beside that of the trials themselves, "
        words += "within the intervals of both." if is_sound else "beyond the intervals of both."
        yield Calibration(name=f"best of {n}", is_sound=is_sound, value=gap, words=words)


def _overlap(first: Estimate, second: Estimate) -> bool:
    ends = np.array([[each.lo, each.hi] for each in (first, second)], float)
    return not bool(ends[:, 0].max() > ends[:, 1].min())
