"""Section on fine-tuning: may it be by another optimizer than the pre-training, and what does that cost?"""

from __future__ import annotations

import pandas as pd

from bocb_tune.analysis.answer.pretraining import transfer_sentences
from bocb_tune.analysis.coupling.pretraining import Transfer
from bocb_tune.analysis.findings.collect import Findings
from bocb_tune.analysis.report.cards.values import Card, DataTable, NotApplicable, or_nan

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
    return Card(title=TITLE, text=(*transfer_sentences(found), *_about_shares(found)), tables=tables)


def _about_shares(found: Transfer) -> tuple[str, ...]:
    if not found.terms:
        return ()
    backbones, pretrainings = found.block
    return (
        f"Shares are of the variation over {', '.join(backbones)} from {', '.join(pretrainings)}; rows from random "
        "weights are left out. Intervals hold the noise of seeds, not what other backbones would do.",
    )


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
