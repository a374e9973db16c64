"""The sections of a report, each a function of the findings: a `Card`, or `NotApplicable` with its reason."""

from collections.abc import Callable

from bocb_tune.analysis.findings import Findings
from bocb_tune.analysis.sections.cells import best_points, curves, landscape, pages
from bocb_tune.analysis.sections.coupling import conclusions, coupling, matrix, order
from bocb_tune.analysis.sections.overview import counts, health, in_words, methods
from bocb_tune.analysis.sections.patterns import weights
from bocb_tune.analysis.sections.tuning import (
    alone,
    budget,
    carry_over,
    profiles,
    recommendation,
    sensitivity,
    variance,
)
from bocb_tune.analysis.sections.values import Card, NotApplicable

SECTIONS: tuple[Callable[[Findings], Card | NotApplicable], ...] = (
    in_words,
    health,
    recommendation,
    sensitivity,
    matrix,
    coupling,
    order,
    conclusions,
    landscape,
    profiles,
    alone,
    variance,
    budget,
    carry_over,
    weights,
    best_points,
    curves,
    counts,
    methods,
)

__all__ = ["SECTIONS", "Card", "NotApplicable", "pages"]
