"""The first screen: the answer in sentences, its table, three figures, and the most important checks."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from bocb_tune.analysis.answer.sentences import BASES, LIMITS, NEXT, Part, part, parts_of
from bocb_tune.analysis.answer.values import Answer, Contest, Standing
from bocb_tune.analysis.checks.check import Check
from bocb_tune.analysis.checks.run import run_checks
from bocb_tune.analysis.findings.collect import Findings
from bocb_tune.analysis.report.cards.values import DataTable, or_nan
from bocb_tune.analysis.report.plots import Plot
from bocb_tune.analysis.report.plots.of_answer import answer_figures
from bocb_tune.analysis.sources.columns import NOT_USED
from bocb_tune.core.names import listed

MOST_NAMED = 6
MOST_CHECKS = 4
"""Most checks on the first screen, besides what is not used; the section of checks has all."""
REMARKS = "Before believing it"
VERDICTS = {"yes": "holds", "mostly": "mostly holds", "partly": "partly holds", "no": "does not hold"}


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstScreen:
    """The part of the page that a reader sees before scrolling."""

    parts: tuple[Part, ...]
    tables: tuple[DataTable, ...]
    figures: tuple[Plot, ...]
    checks: tuple[Check, ...]
    num_checks: int
    """Number of all checks."""
    folded: tuple[str, ...] = (LIMITS,)
    """Titles of parts that are folded."""

    @property
    def remarks(self) -> tuple[Part, ...]:
        """Checks as a part of the answer, for the terminal and for Markdown."""
        return part(REMARKS, [check.message for check in self.checks])

    @property
    def figures_before(self) -> int:
        """Position of the part, from 1, before which figures and tables stand: what to do next, or the end."""
        titles = [part.title for part in self.parts]
        return titles.index(NEXT) + 1 if NEXT in titles else len(titles) + 1


def first_screen(findings: Findings, answer: Answer) -> FirstScreen:
    """Make the first screen of a source."""
    checks = run_checks(findings)
    grave = [check for check in checks if check.level in ("problem", "caution")]
    unused = [check for check in checks if check.message.startswith(NOT_USED)]
    return FirstScreen(
        parts=parts_of(answer),
        tables=(*_conclusions(answer), *_winners(answer)),
        figures=answer_figures(findings, answer),
        checks=(*grave[:MOST_CHECKS], *unused),
        num_checks=len(checks),
    )


def _winners(answer: Answer) -> tuple[DataTable, ...]:
    contests = [contest for contest in answer.contests if contest.best is not None]
    if not contests:
        return ()
    frame = pd.DataFrame([_row(contest) for contest in contests])
    style = ".2f" if not answer.unit else ".4g"
    formats = dict.fromkeys(("score", "from", "to"), style) | {"lead": ".2f"}
    shown = frame.loc[:, [name for name in frame if frame[name].notna().any() and (frame[name] != "").any()]]
    return (DataTable(stem="winners", frame=frame, formats=formats, excerpt=shown),)


def _row(contest: Contest) -> dict[str, object]:
    best = contest.best
    assert best is not None
    tied = contest.of(Standing.tied, Standing.near)
    return {
        "backbone": contest.backbone,
        "best_optimizer": best.optimizer,
        "score": or_nan(best.score.value),
        "from": or_nan(best.score.lo),
        "to": or_nan(best.score.hi),
        "judged_by": BASES[best.basis].removeprefix("by "),
        "lead": or_nan(contest.lead.value),
        "tied_with" if contest.is_tested else "within_tolerance": _named([each.optimizer for each in tied]),
        "fails": _named([each.optimizer for each in contest.of(Standing.fails)]),
    }


def _named(names: list[str]) -> str:
    return listed(names, MOST_NAMED)


def _conclusions(answer: Answer) -> tuple[DataTable, ...]:
    """Tabulate the verdicts on the paper's conclusions, for its own table."""
    if not answer.conclusions:
        return ()
    rows = [
        {
            "conclusion": each.statement,
            "on_this_table": VERDICTS[each.verdict],
            "checks_that_hold": f"{each.held} of {each.checks}",
        }
        for each in answer.conclusions
    ]
    return (DataTable(stem="conclusions", frame=pd.DataFrame(rows)),)
