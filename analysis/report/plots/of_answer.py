"""The three figures of the first screen: winners, sensitivity against score, interaction with failures apart."""

from __future__ import annotations

import numpy as np

from bocb_tune.analysis.answer.sentences import decades, interval
from bocb_tune.analysis.answer.values import Answer, Contest, Standing
from bocb_tune.analysis.core.arrays import Array
from bocb_tune.analysis.core.estimate import points
from bocb_tune.analysis.findings.collect import Findings
from bocb_tune.analysis.report.plots.values import Heatmap, Intervals, Plot, ReachScatter, Winners

MOST_DESCRIBED = 12
"""Most rows or cells that a text alternative lists."""


def answer_figures(findings: Findings, answer: Answer) -> tuple[Plot, ...]:
    """Make those figures for which there are values."""
    found: list[Plot | None] = [winners(findings, answer), reach_scatter(answer), failures_apart(findings, answer)]
    return tuple(plot for plot in found if plot is not None)


def winners(findings: Findings, answer: Answer) -> Winners | None:
    """Show scores with their intervals, one row per backbone."""
    table = findings.table
    if all(contest.best is None for contest in answer.contests):
        return None
    places = [{c.optimizer: c for c in contest.contenders} for contest in answer.contests]
    rows = [[row[name] for name in table.optimizers] for row in places]
    score = table.objective.score
    ends = np.array(
        [
            [[np.nan if end is None else score(end) for end in (c.score.value, c.score.lo, c.score.hi)] for c in row]
            for row in rows
        ],
        dtype=float,
    )
    best = [contest.best for contest in answer.contests]
    return Winners(
        stem="winners",
        title="Best optimizer on each backbone",
        caption="Large: the best; filled: not significantly worse, or within the tolerance where nothing can be "
        "tested; hollow: worse. Bars: 95 %. An arrow: below the axis.",
        alt=" ".join(_row(contest) for contest in answer.contests[:MOST_DESCRIBED]),
        backbones=table.backbones,
        optimizers=table.optimizers,
        value=ends[..., 0],
        lo=np.fmin(ends[..., 1], ends[..., 2]),
        hi=np.fmax(ends[..., 1], ends[..., 2]),
        best=tuple(-1 if each is None else table.optimizers.index(each.optimizer) for each in best),
        tied=np.array([[c.standing in (Standing.best, Standing.tied, Standing.near) for c in row] for row in rows]),
        failed=np.array([[c.standing is Standing.fails for c in row] for row in rows]),
        unit=table.objective.label,
        metric=table.objective,
    )


def _row(contest: Contest) -> str:
    each = [f"{c.optimizer} {interval(c.score)}" for c in contest.contenders[:MOST_DESCRIBED]]
    return f"{contest.backbone}: {'; '.join(each)}."


def reach_scatter(answer: Answer) -> ReachScatter | None:
    """Show sensitivity against score, for the cells that have both."""
    behind = {(c.backbone, each.optimizer): each.behind.value for c in answer.contests for each in c.contenders}
    known = [
        (reach, gap)
        for reach in answer.reaches
        if reach.of_best.value is not None and (gap := behind.get((reach.backbone, reach.optimizer))) is not None
    ]
    if not known:
        return None
    missing = answer.num_cells - len(known)
    without = f" Not shown: {missing} of {answer.num_cells} cells for which this is not known." if missing else ""
    within = points(answer.tolerance)
    return ReachScatter(
        stem="sensitivity-score",
        title="Sensitivity and score",
        caption=f"Right: the learning rate may be further off (decades within {within} of the backbone's best, bars "
        f"95 %). Up: nearer to the backbone's best score.{without}",
        alt="; ".join(f"{r.key}: {decades(r.of_best)}, {gap:.2f} points behind" for r, gap in known[:MOST_DESCRIBED])
        + ".",
        backbones=tuple(reach.backbone for reach, _ in known),
        optimizers=tuple(reach.optimizer for reach, _ in known),
        behind=np.array([gap for _, gap in known], float),
        decades=Intervals.of(reach.of_best for reach, _ in known),
        tolerance=answer.tolerance,
    )


def failures_apart(findings: Findings, answer: Answer) -> Heatmap | None:
    """Show the interaction among viable cells, failures marked but not coloured.

    Without an interaction the distance from the best is shown.
    """
    table, verdict = findings.table, findings.grid.verdict
    values, failed = verdict.viability.values, verdict.viability.is_failed
    if not np.isfinite(values).any() or len(table.optimizers) < 2:
        return None
    shown, is_interaction = _shown(findings, answer)
    count = int(failed.sum())
    marked = f" Cross: fails ({count} of {failed.size})." if count else " No cell fails."
    significant = None if verdict.test is None or not is_interaction else verdict.test.significant_cells
    what = (
        "Score of a viable cell beyond the contributions of its backbone and its optimizer, in points."
        if is_interaction
        else "Points from the best of the backbone; too few cells are left to estimate interaction."
    )
    return Heatmap(
        stem="failures-apart",
        title="Coupling, failures apart" if is_interaction else "Distance from the best, failures apart",
        caption=what + marked,
        rows=table.backbones,
        columns=table.optimizers,
        values=shown,
        unit="points",
        signed=is_interaction,
        faint=None if significant is None else ~significant,
        failed=failed,
        numbered=len(table.optimizers) <= MOST_DESCRIBED,
    )


def _shown(findings: Findings, answer: Answer) -> tuple[Array, bool]:
    """Take the interaction of the viable cells if it could be estimated, else the distance from the best of the row."""
    verdict = findings.grid.verdict
    if verdict.interaction is not None:
        return verdict.interaction, True
    rows = [{c.optimizer: c.behind.value for c in contest.contenders} for contest in answer.contests]
    behind = np.array([[row[name] for name in findings.table.optimizers] for row in rows], dtype=float)
    return np.where(np.isfinite(verdict.viability.values), -behind, np.nan), False
