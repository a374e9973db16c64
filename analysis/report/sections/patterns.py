"""The section on patterns in the trained weights."""

from __future__ import annotations

import pandas as pd

from bocb_tune.analysis.findings.collect import Findings
from bocb_tune.analysis.patterns.spectra import RISKY
from bocb_tune.analysis.patterns.summary import PATTERNS, RunPatterns
from bocb_tune.analysis.report.cards.values import MOST_OPEN, Card, DataTable, NotApplicable, or_nan
from bocb_tune.analysis.report.plots.of_patterns import START, exponent_bars, ridges


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
        "start' are the random initialisation of the same backbone, with the seed of its best cell."
    )
    bars = exponent_bars(findings)
    return Card(
        title=title,
        text=(text, *findings.pattern_notes),
        figures=(*(() if bars is None else (bars,)), *ridges(findings)),
        folded=len(findings.table.backbones) > MOST_OPEN,
        tables=(
            DataTable(stem="patterns", frame=frame, formats=formats),
            DataTable(stem="patterns_by_layer", frame=pd.DataFrame(layers), only_file=True),
        ),
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
