"""Section on fine-tuning: may it be by another optimizer than the pre-training, and what does that cost?"""

from __future__ import annotations

import pandas as pd

from bocb_tune.analysis.core.estimate import Estimate
from bocb_tune.analysis.coupling.pretraining import Transfer
from bocb_tune.analysis.findings.collect import Findings
from bocb_tune.analysis.report.cards.values import Card, DataTable, NotApplicable, or_nan, why

TITLE = "Fine-tuning by another optimizer than the pre-training"


def pretraining(findings: Findings) -> Card | NotApplicable | None:
    """Show the transfer gaps, and how much of the variation the pre-training takes part in."""
    if not findings.table.pretrainings:
        return None
    found = findings.transfer
    if not found.gaps and not found.terms:
        reason = "no row was pre-trained by an optimizer of the grid, and no two pre-trainings are complete"
        return NotApplicable(title=TITLE, reason=reason)
    tables = (_gaps(found), _terms(found)) if found.terms else (_gaps(found),)
    return Card(title=TITLE, text=tuple(sentences(found)), tables=tables)


def sentences(found: Transfer) -> list[str]:
    """Say the answer in sentences, and name what is left out."""
    text = [_may_leave(found)] if found.gaps else []
    text.append(_advantage(found))
    if found.without_gap:
        text.append(f"Rows without a gap, as their pre-training's optimizer has no value there: {_names(found)}.")
    if found.terms:
        backbones, pretrainings = found.block
        text.append(
            f"Shares are of the variation over {', '.join(backbones)} from {', '.join(pretrainings)}; rows from random "
            "weights are left out. Intervals hold the noise of seeds, not what other backbones would do."
        )
    return text


def _names(found: Transfer) -> str:
    return ", ".join(found.without_gap)


def _may_leave(found: Transfer) -> str:
    """Say what leaving the pre-training's optimizer costs or brings, on average over rows."""
    gap = found.mean_gap
    assert gap.value is not None
    best = f"over {len(found.gaps)} rows the best other optimizer is {_signed(-gap.value)} points from the own one"
    if gap.lo is None or gap.hi is None:
        sure = "without repeated seeds it cannot be said how sure that is, and the best of several is biased upwards"
        return f"{best[0].upper()}{best[1:]}; {sure}."
    shown = f"{best} (95 % interval {_signed(-gap.hi)} to {_signed(-gap.lo)})"
    if gap.hi < 0:
        return f"Another optimizer than that of the pre-training may be used, and is better: {shown}."
    if gap.lo > 0:
        return f"Another optimizer than that of the pre-training costs: {shown}."
    return (
        f"Another optimizer than that of the pre-training may be used: {shown}, so that neither is shown to be better."
    )


def _advantage(found: Transfer) -> str:
    """Say whether optimizers are better on weights that they made themselves."""
    advantage: Estimate = found.home_advantage
    if advantage.value is None:
        return f"Whether an optimizer does better on weights of its own cannot be said: {why(advantage)}."
    does = (
        f"Optimizers score {_signed(advantage.value)} points on weights that they made themselves, compared with "
        "weights that others made, after the main effects of both are taken out"
    )
    if advantage.lo is None or advantage.hi is None:
        return f"{does}; it cannot be said how sure that is."
    sure = "" if advantage.lo > 0 or advantage.hi < 0 else "; no such advantage is shown"
    return f"{does} (95 % interval {_signed(advantage.lo)} to {_signed(advantage.hi)}){sure}."


def _signed(value: float) -> str:
    return f"{value:+.2f}"


def _gaps(found: Transfer) -> DataTable:
    rows = [
        {
            "backbone": gap.row,
            "pretraining_optimizer": gap.own,
            "best_other": gap.other,
            "gap": or_nan(gap.gap.value),
            "gap_from": or_nan(gap.gap.lo),
            "gap_to": or_nan(gap.gap.hi),
        }
        for gap in found.gaps
    ]
    frame = pd.DataFrame(rows, columns=["backbone", "pretraining_optimizer", "best_other", "gap", "gap_from", "gap_to"])
    return DataTable(stem="transfer_gaps", frame=frame, formats=dict.fromkeys(("gap", "gap_from", "gap_to"), "+.2f"))


def _terms(found: Transfer) -> DataTable:
    rows = [
        {
            "factor": " x ".join(term.factors),
            "share": or_nan(term.share.value),
            "share_from": or_nan(term.share.lo),
            "share_to": or_nan(term.share.hi),
        }
        for term in found.terms
    ]
    formats = dict.fromkeys(("share", "share_from", "share_to"), ".2f")
    return DataTable(stem="transfer_shares", frame=pd.DataFrame(rows), formats=formats)
