"""Checks of a cell's model against its trials: which it fails, and in which words."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bocb_tune.analysis.cell.calibration import calibration
from bocb_tune.analysis.cell.tuning_curves import LONGEST, TuningCurve, observed_curve, tuning_curve
from bocb_tune.analysis.core.estimate import Counts, Estimate
from bocb_tune.analysis.landscape.validation import Validation
from tests.support.coverage.curves import landscape
from tests.support.coverage.landscapes import VALIDATION, bowl

AUDITED = replace(VALIDATION, num_audit=6, audit_z=0.4)


def observed(shift: float = 0.0) -> tuple[Estimate, ...]:
    """Curve of 64 random trials on the bowl, `shift` points above it."""
    rng = np.random.default_rng(0)
    scores = bowl(rng.uniform(-5, 0, 64), rng.uniform(-6, -1, 64)) + 0.3 * rng.standard_normal(64) + shift
    return observed_curve(scores, True, Counts(), rng)


@pytest.fixture(scope="module")
def curve() -> TuningCurve:
    return tuning_curve(landscape(bowl))


def unsound(validation: Validation, curve: TuningCurve | None, seen: tuple[Estimate, ...]) -> set[str]:
    found = calibration(validation, curve, seen)
    assert all(check.words.endswith(".") for check in found)
    return {check.name for check in found if not check.is_sound}


def test_a_model_that_says_what_its_trials_say_is_sound(curve: TuningCurve) -> None:
    found = calibration(AUDITED, curve, observed())
    assert [check.name for check in found] == ["coverage", "bias", "exempt trials", "best of 1", "best of 16"]
    assert unsound(AUDITED, curve, observed()) == set()


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"coverage90": 0.75}, "coverage"),
        ({"bias": -1.5, "bias_z": -3.1}, "bias"),
        ({"audit_z": 2.9}, "exempt trials"),
    ],
)
def test_each_check_fails_by_itself(curve: TuningCurve, change: dict[str, float], name: str) -> None:
    assert unsound(replace(AUDITED, **change), curve, observed()) == {name}  # type: ignore[arg-type]


def test_a_curve_that_its_trials_do_not_follow_is_told(curve: TuningCurve) -> None:
    assert unsound(AUDITED, curve, observed(10.0)) == {"best of 1", "best of 16"}
    gap = {check.name: check.value for check in calibration(AUDITED, curve, observed(10.0))}
    assert gap["best of 16"] == pytest.approx(-10, abs=1.5)


def test_what_cannot_be_compared_is_left_out_or_said(curve: TuningCurve) -> None:
    adaptive = observed_curve(np.arange(LONGEST, dtype=float), False, Counts(), np.random.default_rng(0))
    assert [check.name for check in calibration(VALIDATION, curve, adaptive)] == ["coverage", "bias", "exempt trials"]
    assert calibration(VALIDATION, None, observed())[-1].value is None
    assert calibration(VALIDATION, None, observed())[-1].is_sound
