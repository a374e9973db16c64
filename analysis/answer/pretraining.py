"""Sentences on fine-tuning: may it be by another optimizer than the pre-training, and what does that cost?"""

from __future__ import annotations

from collections.abc import Iterator

from bocb_tune.analysis.core.estimate import Estimate
from bocb_tune.analysis.coupling.pretraining import Transfer

LEAVING = {-1: "brings", 0: "neither brings nor costs significantly:", 1: "costs"}
"""Effect of leaving the optimizer of the pre-training, by the sign of the gap."""


def transfer_sentences(found: Transfer) -> tuple[str, ...]:
    """Say the answer in sentences, and name what is left out."""
    text = [*_after_each(found), _may_leave(found)] if found.gaps else []
    text.append(_advantage(found))
    if found.without_gap:
        text.append(f"Rows without a gap, as their pre-training's optimizer has no value there: {_names(found)}.")
    return tuple(text)


def _after_each(found: Transfer) -> Iterator[str]:
    """Say by pre-training optimizer what leaving it brings, where there are several and intervals."""
    for each in found.mean_gaps if len(found.mean_gaps) > 1 else ():
        low, value, high = each.gap.lo, each.gap.value, each.gap.hi
        if value is None or low is None or high is None:
            continue
        sign = _sign(each.gap)
        low, value, high = (low, value, high) if sign > 0 else (-high, -value, -low)
        over = f"{each.rows} rows" if each.rows > 1 else "one row"
        yield (
            f"After pre-training by {each.own}, another optimizer {LEAVING[sign]} {value:.2f} points "
            f"(95 % interval {low:.2f} to {high:.2f}; {over})."
        )


def _sign(number: Estimate) -> int:
    """Return 1 or -1 where the interval lies above or below zero; 0 where it does not, or there is none."""
    above, below = number.lo is not None and number.lo > 0, number.hi is not None and number.hi < 0
    return int(above) - int(below)


def _is_split(found: Transfer) -> bool:
    """Tell whether leaving pays after one pre-training and costs after another."""
    return {_sign(each.gap) for each in found.mean_gaps} >= {-1, 1}


def _names(found: Transfer) -> str:
    return ", ".join(found.without_gap)


def _may_leave(found: Transfer) -> str:
    """Say what leaving the pre-training's optimizer costs or brings, on average over rows."""
    gap = found.mean_gap
    assert gap.value is not None
    best = f"over {len(found.gaps)} rows the best other optimizer is {_signed(-gap.value)} points from the own one"
    if gap.lo is None or gap.hi is None:
        assert gap.reason is not None
        sure = f"how sure that is cannot be said: {gap.reason.sentence}; and the best of several is biased upwards"
        return f"{best[0].upper()}{best[1:]}; {sure}."
    shown = f"{best} (95 % interval {_signed(-gap.hi)} to {_signed(-gap.lo)})"
    if _is_split(found):
        return f"So it depends on the optimizer of the pre-training, and their average says little: {shown}."
    if _sign(gap) < 0:
        return f"Another optimizer than that of the pre-training may be used, and is better: {shown}."
    if _sign(gap) > 0:
        return f"Another optimizer than that of the pre-training costs: {shown}."
    return (
        f"Another optimizer than that of the pre-training may be used: {shown}, so that neither is shown to be better."
    )


def _advantage(found: Transfer) -> str:
    """Say whether optimizers are better on weights that they made themselves."""
    advantage: Estimate = found.home_advantage
    if advantage.value is None:
        assert advantage.reason is not None
        return f"Whether an optimizer does better on weights of its own cannot be said: {advantage.reason.sentence}."
    does = (
        f"Optimizers score {_signed(advantage.value)} points on weights that they made themselves, compared with "
        "weights that others made, after the main effects of both are taken out"
    )
    if advantage.lo is None or advantage.hi is None:
        assert advantage.reason is not None
        return f"{does}; how sure that is cannot be said: {advantage.reason.sentence}."
    sure = "" if _sign(advantage) else "; no such advantage is shown"
    return f"{does} (95 % interval {_signed(advantage.lo)} to {_signed(advantage.hi)}){sure}."


def _signed(value: float) -> str:
    return f"{value:+.2f}"
