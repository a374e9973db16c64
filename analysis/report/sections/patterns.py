"""The section on patterns in the trained weights."""

from __future__ import annotations

import pandas as pd

from bocb_tune.analysis.findings.collect import Findings
from bocb_tune.analysis.findings.weights import BEYOND_ADDITIVE
from bocb_tune.analysis.patterns.spectra import RISKY
from bocb_tune.analysis.patterns.summary import PATTERNS, RunPatterns
from bocb_tune.analysis.report.cards.columns import heading
from bocb_tune.analysis.report.cards.values import MOST_OPEN, Card, DataTable, NotApplicable, or_nan
from bocb_tune.analysis.report.plots.of_patterns import START, exponent_bars, ridges

P_CLEAR = 0.05
BEYOND = "score beyond additive, of viable cells"


def weights(findings: Findings) -> Card | NotApplicable:
    """Tabulate the spectra of the final weights of each cell's best trial."""
    title = "Patterns in the trained weights"
    if not findings.patterns:
        return NotApplicable(
            title=title, reason="only for a run folder and on request: `bocb-tune analyze RUN --patterns`"
        )
    layers = [row for run in findings.patterns for row in _layers(run)]
    frame = pd.DataFrame([_medians(run) for run in findings.patterns])
    formats = {str(column): ".3g" for column in frame.columns[3:]}
    text = (
        "Median over the layers of the model of each cell's best trial; every layer is in "
        "tables/patterns_by_layer.csv. One seed each: differences between optimizers are descriptions, not inferences. "
        "Convolutions are flattened to matrices; norms, biases and depthwise convolutions are left out. Rows 'at the "
        "start' are the weights that the best trial of a backbone began with, random or pre-trained."
    )
    related = _associations(findings)
    bars = exponent_bars(findings)
    return Card(
        title=title,
        text=(text, *([_related_words(findings)] if related else []), *findings.pattern_notes),
        figures=(*(() if bars is None else (bars,)), *ridges(findings)),
        folded=len(findings.table.backbones) > MOST_OPEN,
        tables=(
            *related,
            DataTable(stem="patterns", frame=frame, formats=formats),
            DataTable(stem="patterns_by_layer", frame=pd.DataFrame(layers), only_file=True),
        ),
    )


def _associations(findings: Findings) -> tuple[DataTable, ...]:
    if not findings.associations:
        return ()
    rows = [
        {
            "pattern": heading(each.pattern)[0],
            "measure": _measure(each.measure),
            "rho": or_nan(each.rho.value),
            "from": or_nan(each.rho.lo),
            "to": or_nan(each.rho.hi),
            "p": or_nan(each.p),
            "p_holm": or_nan(each.p_holm),
            "cells": each.rho.counts.n_trials,
            "why_not": "" if each.rho.reason is None else each.rho.reason.sentence,
        }
        for each in findings.associations
    ]
    formats = dict.fromkeys(("rho", "from", "to"), "+.2f") | {"p": ".3f", "p_holm": ".3f"}
    frame = pd.DataFrame(rows)
    if not frame["why_not"].any():
        frame = frame.drop(columns="why_not")
    return (DataTable(stem="pattern_associations", frame=frame, formats=formats),)


def _measure(key: str) -> str:
    """Name a measure of the cells; the tolerance of usable decades is that of the whole report."""
    return BEYOND if key == BEYOND_ADDITIVE else heading(key.partition("_at_")[0])[0]


def _related_words(findings: Findings) -> str:
    """Say whether the weights tell how sensitive or how coupled a cell is."""
    made = [each for each in findings.associations if each.p_holm is not None]
    if not made:
        reasons = sorted({each.rho.reason.sentence for each in findings.associations if each.rho.reason})
        return f"Whether the weights tell how sensitive a cell is cannot be said: {'; '.join(reasons)}."
    clear = [each for each in made if each.p_holm is not None and each.p_holm < P_CLEAR]
    named = [f"{heading(each.pattern)[0]} with {_measure(each.measure)} ({each.rho.value:+.2f})" for each in clear]
    found = f"{len(clear)} of {len(made)}: {'; '.join(named)}. They are no causes" if clear else f"none of {len(made)}"
    return (
        "Do the weights tell how sensitive or how coupled a cell is? Rank correlations within backbones that are "
        f"significant after correction for their number (Holm): {found}. The unit of inference is the optimizer, of "
        f"which there are {len(findings.table.optimizers)}."
    )


def _medians(run: RunPatterns) -> dict[str, object]:
    values = {pattern.key: run.summary(pattern.key).value for pattern in PATTERNS}
    values["alpha_within"] = run.share_within("alpha", *RISKY).value
    numbers = {key: or_nan(value) for key, value in values.items()}
    return {"backbone": run.backbone, "optimizer": _who(run), "layers": len(run.layers), **numbers}


def _who(run: RunPatterns) -> str:
    return START if run.is_start else run.optimizer


def _layers(run: RunPatterns) -> list[dict[str, object]]:
    return [
        {
            "backbone": run.backbone,
            "optimizer": _who(run),
            "trial": run.trial,
            "layer": layer.name,
            "depth": layer.depth,
            **{key: estimate.value for key, estimate in layer.estimates.items()},
        }
        for layer in run.layers
    ]
