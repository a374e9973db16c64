"""The answer in words: one list of parts, which the page, the terminal and Markdown lay out each in its way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bocb_tune.analysis.answer.values import Answer, Basis, Contender, Contest, Reach, Standing
from bocb_tune.analysis.core.estimate import Estimate, points
from bocb_tune.core.names import listed

NEXT, LIMITS = "What to do next", "What cannot be said"
MOST_NAMED = 5
MOST_BACKBONES = 6
"""Backbones that are told one by one in words; of more it is counted who is best."""
BASES = {
    Basis.seeds: "by repeated seeds",
    Basis.model: "by the model of its landscape",
    Basis.selected: "the best observed score, biased upwards",
    Basis.floor: "every trial diverged",
    Basis.unknown: "no score yet",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A sentence, and what to type, if anything."""

    text: str
    code: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Lines under a heading."""

    title: str
    lines: tuple[Line, ...]


def parts_of(answer: Answer) -> tuple[Part, ...]:
    """Say everything the answer holds, in order; parts without a line are left out."""
    if all(contest.best is None for contest in answer.contests):
        coupling = part("Backbone-optimizer coupling", answer.coupling)
        return (*part("Best optimizer", (answer.no_score,)), *coupling, *_next(answer))
    return (
        *part("Best optimizer", winners(answer)),
        *part("Backbone-optimizer coupling", answer.coupling),
        *part("Fine-tuning by another optimizer than the pre-training", answer.transfer),
        *part("Sensitivity to the learning rate", sensitivity(answer)),
        *_next(answer),
        *part(LIMITS, limits(answer)),
    )


def terminal(parts: Sequence[Part]) -> list[str]:
    """Lay parts out as plain lines."""
    lines = []
    for part in parts:
        lines.append(f"{part.title}:")
        for line in part.lines:
            lines.append(f"  {' '.join(line.text.split())}")
            lines += [f"      {line.code}"] * bool(line.code)
    return lines


def markdown(parts: Sequence[Part]) -> str:
    """Lay parts out as Markdown; what comes from names of the source is escaped."""
    blocks = []
    for part in parts:
        items = [f"- {_escaped(line.text)}" + _block(line.code) * bool(line.code) for line in part.lines]
        blocks.append(f"## {part.title}\n\n" + "\n".join(items))
    return "\n\n".join(blocks) + "\n"


def _block(code: str) -> str:
    """Put code on lines of its own, fenced so that no backtick in it ends the fence."""
    return f"\n\n  ````\n  {' '.join(code.split())}\n  ````\n"


def winners(answer: Answer) -> tuple[str, ...]:
    """Say who is best on each backbone and over the grid; the obvious first."""
    told = tuple(_on_backbone(contest) for contest in answer.contests if contest.best is not None or contest.is_lost)
    each = _counted(answer) if len(told) > MOST_BACKBONES else told
    unit = (f"{answer.unit}.",) if answer.unit else ()
    return (*_no_difference(answer), *_dominating(answer), *_overall(answer), *each, *answer.same_order, *unit)


def _no_difference(answer: Answer) -> tuple[str, ...]:
    """Say so where no optimizer is better than another on any backbone."""
    pairs = [each for contest in answer.contests for each in contest.contenders]
    tied = [each for each in pairs if each.standing is Standing.tied]
    best = [each for each in pairs if each.standing is Standing.best]
    if not tied or len(tied) + len(best) < len(pairs):
        return ()
    return ("On no backbone do the optimizers differ significantly.",)


def _counted(answer: Answer) -> tuple[str, ...]:
    """Count how often each optimizer is best, where backbones are too many to be told one by one."""
    best = [contest.best.optimizer for contest in answer.contests if contest.best is not None]
    counts = sorted({name: best.count(name) for name in best}.items(), key=lambda item: -item[1])
    each = ", ".join(f"{name} on {count}" for name, count in counts)
    tested = (
        f"significantly on {_num_won(answer)}"
        if any(c.is_tested for c in answer.contests)
        else "differences are not tested"
    )
    lost = [contest.backbone or "" for contest in answer.contests if contest.is_lost]
    fails = f" Every optimizer fails on {listed(lost, MOST_NAMED)}." if lost else ""
    return (f"Best optimizer on each of {len(best)} backbones: {each}; {tested}. The table names them.{fails}",)


def _num_won(answer: Answer) -> int:
    """Count the backbones on which the best is significantly better than all others."""
    return sum(contest.is_significant for contest in answer.contests)


def _dominating(answer: Answer) -> tuple[str, ...]:
    """Say the obvious: one optimizer is best everywhere."""
    name, count = answer.dominating, len(answer.contests)
    if name is None:
        return ()
    leads = [contest.lead.value for contest in answer.contests]
    low, high = (f"{end([lead for lead in leads if lead is not None]):.2f}" for end in (min, max))
    where = "on both backbones" if count == 2 else f"on all {count} backbones"
    margin = f"by {low if low == high else f'{low} to {high}'} points over the next best"
    won = _num_won(answer)
    if won == count:
        return (f"{name} wins {where}, {margin}, significantly on each.",)
    if all(contest.is_won for contest in answer.contests):
        return (f"{name} wins {where}, {margin}: the others fail, or are significantly worse.",)
    if not all(contest.is_tested for contest in answer.contests):
        return (f"{name} has the best score {where}, {margin}; not tested.",)
    on = f"significantly on {won} of them" if won else "significantly on none"
    return (f"{name} has the best score {where}, {margin}, {on}.",)


def _overall(answer: Answer) -> tuple[str, ...]:
    contest = answer.overall
    if contest is None or contest.best is None:
        return ()
    count, best = len(answer.overall_backbones), contest.best
    kept = " on which all optimizers have a score" if count < len(answer.contests) else ""
    first = f"{best.optimizer} is best on average over the {count} backbones{kept}: {interval(best.score)}"
    return (". ".join([first, *_rivals(contest)]) + ".",)


def _on_backbone(contest: Contest) -> str:
    return f"{contest.backbone}: {_lost(contest) if contest.is_lost else _best(contest)}"


def _lost(contest: Contest) -> str:
    """Name the best score where every optimizer fails."""
    first, count = contest.contenders[0], len(contest.of(Standing.fails))
    every = "the only optimizer fails" if count == 1 else f"all {count} optimizers fail"
    return f"{every}; the best score is {interval(first.score)} by {first.optimizer}."


def _best(contest: Contest) -> str:
    best = contest.best
    assert best is not None
    return ". ".join([f"{best.optimizer} {interval(best.score)}, {_how(best)}", *_rivals(contest)]) + "."


def _how(contender: Contender) -> str:
    seeds = contender.score.counts.n_seeds
    if contender.basis is Basis.seeds:
        return f"mean of {seeds} seed{'s' * (seeds != 1)}"
    return BASES[contender.basis]


def _rivals(contest: Contest) -> list[str]:
    """Say who ties with the best, and who fails."""
    tied, near = contest.of(Standing.tied), contest.of(Standing.near)
    failed, unknown = contest.of(Standing.fails), contest.of(Standing.unknown)
    told = []
    if tied:
        told.append(f"Not significantly worse: {_with_gap(tied)}")
    if near:
        told.append(f"Within the tolerance, not tested: {_with_gap(near)}")
    names = listed([each.optimizer for each in failed], MOST_NAMED)
    if failed and len(failed) == len(contest.contenders) - 1:
        told.append(f"All others fail: {names}")
    elif contest.is_won:
        told.append("All others are significantly worse" + f"; {names} {_fail(failed)}" * bool(failed))
    elif failed:
        told.append(f"{names} {_fail(failed)}")
    if unknown:
        told.append(f"No score yet: {listed([each.optimizer for each in unknown], MOST_NAMED)}")
    return told


def _fail(failed: Sequence[Contender]) -> str:
    return "fail" if len(failed) > 1 else "fails"


def _with_gap(contenders: Sequence[Contender]) -> str:
    return listed([f"{each.optimizer} (by {_gap(each)})" for each in contenders], MOST_NAMED)


def _gap(contender: Contender) -> str:
    """Write how far one is behind, with the unit where scores have another."""
    behind = contender.behind
    return f"{behind.value or 0.0:.2f}" + f" {behind.unit}" * (behind.unit != contender.score.unit)


def sensitivity(answer: Answer) -> tuple[str, ...]:
    """Name the cells that forgive most and least, measured from the best of their backbone."""
    known = [each for each in answer.reaches if each.of_best.value is not None]
    if not known:
        return ()
    within = points(answer.tolerance)
    inside = sorted((each for each in known if _width(each) > 0), key=_width, reverse=True)
    never = [each.key for each in known if _width(each) <= 0]
    head = (
        f"Width of the range of learning rates within {within} of the backbone's best (known in {len(known)} of "
        f"{answer.num_cells} cells)"
    )
    lines = [f"{head}: largest in {_told(inside[0])}; smallest in {_told(inside[-1])}."] if len(inside) > 1 else []
    if len(inside) == 1:
        lines = [f"{head}: {_told(inside[0])}."]
    if never:
        flat = [each for each in known if _width(each) <= 0 and (each.of_own.value or 0) > 0]
        named = listed([_own(each) for each in flat] if flat else never, MOST_NAMED)
        own = f", however flat: {named}" if flat else f": {named}"
        cells = "1 cell never comes" if len(never) == 1 else f"{len(never)} cells never come"
        lines.append(f"{cells} within {within} of the backbone's best{own}.")
    return tuple(lines)


def _width(reach: Reach) -> float:
    return reach.of_best.value or 0.0


def _told(reach: Reach) -> str:
    """Say the width from the backbone's best, and from its own where that differs."""
    text = f"{reach.key}, {decades(reach.of_best)}"
    own = reach.of_own.value
    differs = own is not None and abs(own - _width(reach)) > 0.05
    return f"{text}, or {own:.1f} from the cell's own best" if differs else text


def _own(reach: Reach) -> str:
    return f"{reach.key} ({reach.of_own.value:.1f} decades around its own best)"


def decades(estimate: Estimate) -> str:
    """Write a width with its interval."""
    at_least = "at least " * bool(estimate.reason)
    span = "" if estimate.lo is None or estimate.hi is None else f" (95 % CI {estimate.lo:.1f} to {estimate.hi:.1f})"
    value = estimate.value or 0.0
    width = "less than 0.1" if 0 < value < 0.05 else f"{value:.1f}"
    return f"{at_least}{width} decades{span}"


def limits(answer: Answer) -> tuple[str, ...]:
    """Say in sentences what cannot be said."""
    return tuple(f"{each.what}: {each.why}. Needs {each.needs}." for each in answer.limits)


def interval(estimate: Estimate) -> str:
    """Write a score with its interval and unit."""
    if estimate.value is None:
        return "no score"
    style = ".2f" if estimate.unit == "points" else ".4g"
    unit = "" if estimate.unit == "points" else f" {estimate.unit}"
    if estimate.lo is None or estimate.hi is None:
        return f"{estimate.value:{style}}{unit}"
    return f"{estimate.value:{style}}{unit} (95 % CI {estimate.lo:{style}} to {estimate.hi:{style}})"


def _next(answer: Answer) -> tuple[Part, ...]:
    lines = tuple(Line(text=step.why, code=step.do) for step in answer.steps)
    return (Part(title=NEXT, lines=lines),) if lines else ()


def part(title: str, lines: Sequence[str]) -> tuple[Part, ...]:
    """Put lines under a heading; none without a line."""
    return (Part(title=title, lines=tuple(Line(text=line) for line in lines)),) if lines else ()


def _escaped(text: str) -> str:
    """Escape text: names may hold what Markdown would take for markup."""
    for sign in "\\`*_[]<>#|":
        text = text.replace(sign, f"\\{sign}")
    return " ".join(text.split())
