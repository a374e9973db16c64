"""Way from the findings to the answer."""

from __future__ import annotations

from collections.abc import Sequence

from bocb_tune.analysis.answer.contests import contests_of
from bocb_tune.analysis.answer.coupling import coupling_sentences
from bocb_tune.analysis.answer.order import order_of
from bocb_tune.analysis.answer.pretraining import transfer_sentences
from bocb_tune.analysis.answer.reaches import reaches_of
from bocb_tune.analysis.answer.sentences import interval
from bocb_tune.analysis.answer.steps import limits_of, steps_of
from bocb_tune.analysis.answer.values import Answer, Conclusion, Contest
from bocb_tune.analysis.findings.collect import Findings
from bocb_tune.core.types import TrialStatus


def answer_of(findings: Findings, source: str, options: Sequence[str] = ()) -> Answer:
    """Say what was found.

    Args:
        source: as the user named it, for the commands to type next.
        options: by which the user said what the source means, for the same.
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
        transfer=_transfer(findings),
        unit="" if objective.is_bounded else f"One point is {objective.point:.3g} {objective.unit}",
        tolerance=findings.tolerance,
        reaches=reaches_of(findings),
        steps=steps_of(findings, contests, source, options),
        limits=limits_of(findings, contests) if findings.best is not None else (),
        conclusions=conclusions,
        no_score=_why_no_best(findings, contests),
        num_cells=len(findings.cells),
    )


def _transfer(findings: Findings) -> tuple[str, ...]:
    if not findings.table.pretrainings or not findings.transfer.gaps:
        return ()
    return transfer_sentences(findings.transfer)


def _why_no_best(findings: Findings, contests: Sequence[Contest]) -> str:
    """Say why no optimizer is best: every cell fails, or no trial gave its cell a score, and what became of them."""
    score, lost = findings.table.objective.score, [contest for contest in contests if contest.is_lost]
    if lost:
        every = "Every cell" if all(contest.is_lost for contest in contests) else "Every cell that has a score"
        best = max((contest.contenders[0].score for contest in lost), key=lambda each: score(each.value or 0.0))
        return f"{every} fails, so that no optimizer is best. The best score is {interval(best)}."
    counts = findings.table.trials["status"].value_counts()
    told = [f"{counts[status]} {status}" for status in TrialStatus if status in counts]
    text = f"No cell has a score yet: no trial has reached its full budget ({', '.join(told) or 'there are none'})."
    if TrialStatus.diverged in counts:
        text += " What a diverged trial scores is not known here; --chance says it."
    return text
