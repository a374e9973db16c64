"""Way from the findings to the answer."""

from __future__ import annotations

from bocb_tune.analysis.answer.contests import contests_of
from bocb_tune.analysis.answer.coupling import coupling_sentences
from bocb_tune.analysis.answer.order import order_of
from bocb_tune.analysis.answer.reaches import reaches_of
from bocb_tune.analysis.answer.steps import limits_of, steps_of
from bocb_tune.analysis.answer.values import Answer, Conclusion
from bocb_tune.analysis.findings.collect import Findings


def answer_of(findings: Findings, source: str) -> Answer:
    """Say what was found.

    Args:
        source: as the user named it, for the commands to type next.
    """
    contests, overall, backbones = contests_of(findings)
    names, objective = (findings.table.backbones, findings.table.optimizers), findings.table.objective
    conclusions = tuple(
        Conclusion(
            statement=claim.statement,
            verdict=str(claim.verdict),
            held=sum(check.holds for check in claim.checks),
            checks=len(claim.checks),
        )
        for claim in findings.grid.claims
    )
    return Answer(
        contests=contests,
        overall=overall,
        overall_backbones=backbones,
        same_order=order_of(findings),
        coupling=coupling_sentences(findings.grid.verdict, names) if findings.best is not None else (),
        unit="" if objective.is_bounded else f"One point is {objective.point:.3g} {objective.unit}",
        tolerance=findings.tolerance,
        reaches=reaches_of(findings),
        steps=steps_of(findings, contests, source),
        limits=limits_of(findings, contests) if findings.best is not None else (),
        conclusions=conclusions,
        num_cells=len(findings.cells),
    )
