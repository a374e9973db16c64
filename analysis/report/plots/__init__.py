"""Content of each figure, as values (`values.py`), and how it is made from findings, landscapes and arrays."""

from bocb_tune.analysis.report.plots.of_findings import (
    interaction_heatmap,
    landscapes,
    learning_curves,
    rank_dots,
    score_heatmap,
)
from bocb_tune.analysis.report.plots.values import Plot

__all__ = ["Plot", "interaction_heatmap", "landscapes", "learning_curves", "rank_dots", "score_heatmap"]
