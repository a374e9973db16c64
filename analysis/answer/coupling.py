"""The one statement on coupling: which cells fail, how much of the rest is interaction, whether that is beyond noise,
and what carries it."""

from __future__ import annotations

import numpy as np

from bocb_tune.analysis.core.estimate import Estimate
from bocb_tune.analysis.coupling.verdict import CouplingVerdict
from bocb_tune.analysis.matrix.twoway import MIN_CELLS_A_LINE
from bocb_tune.core.names import listed

MOST_NAMED = 5
LARGEST = 3
"""Single cells that are named where they cannot be tested."""

Names = tuple[str, ...]


def coupling_sentences(verdict: CouplingVerdict, names: tuple[Names, Names]) -> tuple[str, ...]:
    """Say which cells fail, what is interaction, and what carries it.

    Args:
        names: of backbones and of optimizers.
    """
    if len(verdict.failed) == verdict.viability.values.size:
        return (_failures(verdict),)
    return (_failures(verdict), _interaction(verdict), *_carried(verdict, names))


def _failures(verdict: CouplingVerdict) -> str:
    count = verdict.viability.values.size
    by_reason: dict[str, list[str]] = {}
    for cell in verdict.failed:
        by_reason.setdefault(cell.why, []).append(cell.key)
    told = "; ".join(f"{why}: {listed(cells, MOST_NAMED)}" for why, cells in by_reason.items())
    failed = len(verdict.failed)
    none = "The cell does not fail" if count == 1 else f"None of {count} cells fails"
    some = f"{failed} of {count} cells fail{'s' * (failed == 1)}"
    text = f"{'Every cell fails' if failed == count else some} ({told})" if failed else none
    if verdict.viability.collapsed:
        lost = listed([f"{lost} of {seeds} in {key}" for key, lost, seeds in verdict.viability.collapsed], MOST_NAMED)
        text += f". Seeds that collapsed are left out of viable cells: {lost}"
    return f"{text}."


def _interaction(verdict: CouplingVerdict) -> str:
    share, test = verdict.share, verdict.test
    viable = int(np.isfinite(verdict.viability.values).sum())
    among = f"among the {viable} viable cell{'s' * (viable != 1)}"
    if share.value is None and test is not None:
        return (
            f"No backbone-optimizer interaction can be shown {among} (test against noise, p = {test.p:.2g}); its share "
            f"is not estimated, as all differences between optimizers together are within noise (p = {test.p_any:.2g})."
        )
    if share.value is None:
        return f"Whether there is a backbone-optimizer interaction {among} cannot be said: {why_unknown(verdict)}."
    kept = f" ({listed(verdict.left_out, MOST_NAMED)} left out: fewer than {MIN_CELLS_A_LINE} viable cells)"
    among += kept * bool(verdict.left_out)
    part = "of the optimizer-related variance is specific to the backbone"
    if test is None or share.lo is None or share.hi is None:
        return (
            f"{_percent(share.value)} {part} {among}, noise included; without repeated seeds it cannot be tested "
            "whether that is more than noise."
        )
    ends = f"95 % CI {100 * share.lo:.0f} to {_percent(share.hi)}"
    if verdict.is_shown:
        return f"{_percent(share.value)} {part} {among} ({ends}; test against noise, p = {test.p:.2g})."
    return (
        f"No backbone-optimizer interaction can be shown {among} (test against noise, p = {test.p:.2g}); its share of "
        f"the optimizer-related variance is estimated at {_percent(share.value)} ({ends})."
    )


def why_unknown(verdict: CouplingVerdict) -> str:
    """Say why nothing can be said of interaction, in words."""
    shape, least = verdict.viability.values.shape, MIN_CELLS_A_LINE
    if min(shape) < least:
        return f"the grid is {shape[0]} x {shape[1]}, and {least} x {least} are needed"
    if np.isnan(verdict.viability.values).any():
        return f"too few cells are left, each backbone and each optimizer needs {least} of them"
    assert verdict.share.reason is not None
    return verdict.share.reason.sentence


def _carried(verdict: CouplingVerdict, names: tuple[Names, Names]) -> tuple[str, ...]:
    if not verdict.lines:
        return ()
    parts = zip(verdict.lines, ("backbones", "optimizers"), names, strict=True)
    told = [
        f"that of {each.name}, {_part(each.share)} (equal parts of {len(own)} {kind}: {_percent(1 / len(own))})"
        for each, kind, own in parts
    ]
    text = f"The largest parts of this interaction are {' and '.join(told)}."
    if verdict.test is None:
        return (f"{text} The largest single cells are {', '.join(_largest(verdict, names))}.",)
    cells = listed(verdict.cells, MOST_NAMED)
    beyond = f"Significant by themselves: {cells}" if verdict.cells else "No single cell is significant by itself"
    return (f"{text} {beyond}.",)


def _largest(verdict: CouplingVerdict, names: tuple[Names, Names]) -> list[str]:
    """Name the cells with the largest parts of the interaction among viable cells, and what part."""
    assert verdict.interaction is not None
    squares = np.nan_to_num(verdict.interaction) ** 2
    order = np.argsort(-squares.ravel(), kind="stable")[:LARGEST]
    places = zip(*np.unravel_index(order, squares.shape), strict=True)
    return [f"{names[0][b]}/{names[1][o]} {_percent(float(squares[b, o] / squares.sum()))}" for b, o in places]


def _part(share: Estimate) -> str:
    span = "" if share.lo is None or share.hi is None else f" ({100 * share.lo:.0f} to {_percent(share.hi)})"
    return f"{_percent(share.value or 0.0)}{span}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
