"""The sections of a report, each a function of the findings.

A section returns a `Card`, `NotApplicable` with a reason, or None where it is about another source.
"""

from collections.abc import Callable

from bocb_tune.analysis.findings.collect import Findings
from bocb_tune.analysis.report.cards.values import Card, NotApplicable
from bocb_tune.analysis.report.sections.bocb import (
    paper_ranking,
    paper_table,
    planned,
    settings_distance,
    training_loss,
)
from bocb_tune.analysis.report.sections.budget import budget
from bocb_tune.analysis.report.sections.cells import best_points, curves, landscape, pages
from bocb_tune.analysis.report.sections.claims import conclusions
from bocb_tune.analysis.report.sections.coupling import coupling, matrix, order
from bocb_tune.analysis.report.sections.overview import counts, health, methods
from bocb_tune.analysis.report.sections.patterns import weights
from bocb_tune.analysis.report.sections.pretraining import pretraining
from bocb_tune.analysis.report.sections.refining import refining
from bocb_tune.analysis.report.sections.settings import carry_over, drift
from bocb_tune.analysis.report.sections.tuning import (
    alone,
    cross_checks,
    profiles,
    recommendation,
    sensitivity,
    variance,
)

SECTIONS: tuple[Callable[[Findings], Card | NotApplicable | None], ...] = (
    best_points,
    matrix,
    coupling,
    order,
    conclusions,
    pretraining,
    recommendation,
    sensitivity,
    landscape,
    profiles,
    alone,
    variance,
    cross_checks,
    budget,
    refining,
    carry_over,
    drift,
    paper_table,
    settings_distance,
    paper_ranking,
    planned,
    training_loss,
    weights,
    curves,
    counts,
    health,
    methods,
)

__all__ = ["SECTIONS", "Card", "NotApplicable", "pages"]
