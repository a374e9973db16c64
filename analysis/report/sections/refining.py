"""The section on refining: whether tuning beyond learning rate and weight decay pays."""

from __future__ import annotations

from statistics import median

import pandas as pd

from bocb_tune.analysis.core.estimate import Estimate
from bocb_tune.analysis.findings.collect import Findings
from bocb_tune.analysis.report.cards.values import Card, DataTable, or_nan, shown

HOW = (
    "Each cell's best setting and the best of its refined ones were trained anew with the same fresh seeds: the gain "
    "is the mean of the differences, free of how the two were chosen, and negative where the refined setting is worse."
)
ENDS = ("from", "to")


def refining(findings: Findings) -> Card | None:
    """State what refining gained by cell, by optimizer and in all; None where nothing was refined."""
    found = findings.refining
    tried = {key: cell for key, cell in found.cells.items() if cell.trials}
    if not tried:
        return None
    rows = [
        {
            "backbone": backbone,
            "optimizer": optimizer,
            "refine_trials": cell.trials,
            "refined": ", ".join(f"{name} {value:.3g}" for name, value in cell.own.items()) or "–",
            **_gain(cell.gain),
        }
        for (backbone, optimizer), cell in tried.items()
    ]
    lines = [{"optimizer": name, **_gain(gain)} for name, gain in found.optimizers.items() if gain.counts.n_trials]
    formats = dict.fromkeys(("refining_gain", *ENDS), ".2f")
    return Card(
        title="Does tuning beyond learning rate and weight decay pay?",
        text=(_answer(findings, len(tried)), HOW),
        tables=(
            DataTable(stem="refining_by_optimizer", frame=pd.DataFrame(lines), formats=formats),
            DataTable(stem="refining", frame=pd.DataFrame(rows), formats=formats),
        ),
    )


def _gain(gain: Estimate) -> dict[str, float]:
    return {"refining_gain": or_nan(gain.value), "from": or_nan(gain.lo), "to": or_nan(gain.hi)}


def _answer(findings: Findings, tried: int) -> str:
    found = findings.refining
    gains = [each.gain.value for each in found.cells.values() if each.gain.value is not None]
    text = f"On average over the {tried} cells that were refined: {shown(found.grid)}."
    if gains:
        text += f" Half of the cells gain less than {median(gains):.2f}."
    if found.over_backbones.value is not None:
        text += f" For backbones like these: {shown(found.over_backbones)}."
    return (
        f"{text} {found.calls} of {tried} cells gain, each by its own 95 % interval; where none does, "
        f"about {tried / 40:.1g} would by chance."
    )
