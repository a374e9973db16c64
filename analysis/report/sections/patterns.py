"""The section on patterns in the trained weights."""

from __future__ import annotations

import pandas as pd

from bocb_tune.analysis.findings.collect import Findings
from bocb_tune.analysis.patterns.summary import PATTERNS, RunPatterns
from bocb_tune.analysis.report.sections.values import Card, DataTable, NotApplicable, or_nan


def weights(findings: Findings) -> Card | NotApplicable:
    """Tabulate the spectra of the final weights of each cell's best trial."""
    title = "Patterns in the trained weights"
    if not findings.patterns:
        return NotApplicable(title=title, reason="asked for by `bocb-tune analyze RUN --patterns`, of a run's folder")
    layers = [row for run in findings.patterns for row in _layers(run)]
    frame = pd.DataFrame([_medians(run) for run in findings.patterns])
    formats = {pattern.key: ".3g" for pattern in PATTERNS}
    text = (
        "Median over the layers of the model of each cell's best trial; every layer is in "
        "tables/patterns_by_layer.csv. One seed each: differences between optimizers are descriptions, not inferences. "
        "Convolutions are flattened to matrices; norms, biases and depthwise convolutions are left out."
    )
    return Card(
        title=title,
        text=(text,),
        tables=(
            DataTable(stem="patterns", frame=frame, formats=formats),
            DataTable(stem="patterns_by_layer", frame=pd.DataFrame(layers), only_file=True),
        ),
    )


def _medians(run: RunPatterns) -> dict[str, object]:
    values = {pattern.key: run.summary(pattern.key).value for pattern in PATTERNS}
    numbers = {key: or_nan(value) for key, value in values.items()}
    return {"backbone": run.backbone, "optimizer": run.optimizer, "layers": len(run.layers), **numbers}


def _layers(run: RunPatterns) -> list[dict[str, object]]:
    return [
        {
            "backbone": run.backbone,
            "optimizer": run.optimizer,
            "trial": run.trial,
            "layer": layer.name,
            "depth": layer.depth,
            **{key: estimate.value for key, estimate in layer.estimates.items()},
        }
        for layer in run.layers
    ]
