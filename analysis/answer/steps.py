"""Steps to do next, and what cannot be said with what it would take."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence

from bocb_tune.analysis.answer.coupling import why_unknown
from bocb_tune.analysis.answer.values import Basis, Contest, Limit, Standing, Step
from bocb_tune.analysis.cell.sensitivity import EDGE_PROBABILITY, edge_of
from bocb_tune.analysis.core.estimate import Reason
from bocb_tune.analysis.findings.collect import Findings, at_tolerance
from bocb_tune.analysis.landscape.fit import MIN_COMPLETED, MIN_TRIALS, Landscape, NoLandscape
from bocb_tune.analysis.matrix.best import half_width
from bocb_tune.analysis.matrix.concordance import MIN_CONCORDANCE_SHAPE
from bocb_tune.analysis.matrix.exact import backbones_needed
from bocb_tune.analysis.matrix.twoway import MIN_SHARE_SHAPE
from bocb_tune.analysis.sources.table import IN_WORDS
from bocb_tune.core.names import listed
from bocb_tune.core.types import TrialStatus

FEWEST_SEEDS = 3
MOST_SEEDS = 20
"""More fresh seeds than this are not worth asking for."""
MOST_NAMED = 6


def steps_of(
    findings: Findings, contests: Sequence[Contest], source: str, options: Sequence[str] = ()
) -> tuple[Step, ...]:
    """Say what would add most to what is known; the surest first."""
    if findings.table.source.kind == "paper":
        return tuple(_recommend(findings, source, options))
    again = f"bocb-tune run {shlex.quote(f'{source}/spec.yaml')} --out {shlex.quote(source)}" * _is_run(findings)
    found = [
        *_unfinished(findings, again),
        *_untrained(contests),
        *_wider(findings, again),
        *_seeds(findings, contests, again),
        *_trials(findings, again),
        *_backbones(findings),
        *_recommend(findings, source, options),
    ]
    return tuple(found)


def limits_of(findings: Findings, contests: Sequence[Contest]) -> tuple[Limit, ...]:
    """Say what cannot be said, why, and what it would take."""
    return (
        *_untested(findings, contests),
        *_landscapes(findings),
        *_widths(findings),
        *_coupling(findings),
        *_others(findings),
    )


def _is_run(findings: Findings) -> bool:
    return findings.table.source.kind == "run"


def _unfinished(findings: Findings, again: str) -> Iterator[Step]:
    running = sum(cell.counts.get(TrialStatus.running, 0) for cell in findings.cells)
    failed = sum(cell.counts.get(s, 0) for cell in findings.cells for s in (TrialStatus.failed, TrialStatus.oom))
    if again and (running or failed or findings.missing):
        counts = {"trials not finished": running, "failed": failed, "cells without a score": len(findings.missing)}
        what = ", ".join(f"{name}: {count}" for name, count in counts.items() if count)
        why = f"Run the same experiment again ({what}). Finished trials are kept."
        yield Step(why=why, do=again)


def _untrained(contests: Sequence[Contest]) -> Iterator[Step]:
    """Ask for trainings that learn something, before anything is compared."""
    if contests and all(contest.is_lost for contest in contests):
        why = "Every cell fails. Before comparing: check data and labels, train longer, or search other learning rates."
        yield Step(why=why, do="")


def _wider(findings: Findings, again: str) -> Iterator[Step]:
    """Find the ranges at whose end the optimum of a cell lies."""
    ends: dict[tuple[str, str, str], list[str]] = {}
    for cell in findings.cells:
        model, share = findings.model(cell).model, findings.model(cell).estimates["edge_probability"].value
        edge = edge_of(model) if isinstance(model, Landscape) and (share or 0.0) > EDGE_PROBABILITY else None
        if edge and cell.optimizer in findings.table.spaces:
            end, axis = edge.split(" ", maxsplit=1)
            ends.setdefault((cell.optimizer, axis.replace(" ", "_"), end), []).append(cell.backbone)
    for (optimizer, name, end), backbones in ends.items():
        dim = findings.table.spaces[optimizer][name]
        key, value = ("low", dim.low / 10) if end == "lowest" else ("high", dim.high * 10)
        where = f"{optimizer} on {listed(backbones, MOST_NAMED)}"
        why = f"The best {IN_WORDS[name]} of {where} lies at the {end[:-3]} end of its range: extend it and run again."
        do = _set(again, f"search_spaces.{optimizer}.{name}.{key}={yaml_number(value)}")
        yield Step(why=f"{why} Finished trials are kept, new ones are added.", do=do)


def _set(again: str, setting: str) -> str:
    """Give the command that runs again with another setting; none where the source is no run."""
    return f"{again} --set {shlex.quote(setting)}" if again else ""


def yaml_number(value: float) -> str:
    """Write a number so that YAML reads it as one: 1e-07 without a point would be a text."""
    text = f"{value:.4g}"
    return re.sub(r"^(-?\d+)e", r"\1.0e", text)


def _seeds(findings: Findings, contests: Sequence[Contest], again: str) -> Iterator[Step]:
    """Ask for fresh seeds, where they would tell the best from the next or where there are few."""
    seeds = [cell.best.counts.n_seeds for cell in findings.cells if cell.best.value is not None]
    fresh = any(c.basis is Basis.seeds for contest in contests for c in contest.contenders)
    at_most = max(seeds, default=0) if fresh else 0
    needed = {n: contest for contest in contests if (n := seeds_to_tell(findings, contest))}
    count = min(needed, default=FEWEST_SEEDS)
    if needed and at_most >= 2:
        contest = needed[count]
        assert contest.best is not None
        rival = contest.of(Standing.tied)[0]
        why = (
            f"{count} fresh seeds a cell would tell {contest.best.optimizer} from {rival.optimizer} on "
            f"{contest.backbone}, if they differ by the {rival.behind.value:.2f} points seen."
        )
    elif seeds and at_most < FEWEST_SEEDS:
        least = f"fewer than {FEWEST_SEEDS} fresh seeds" if fresh else "no fresh seeds"
        why = f"The cells have {least} at their best setting: repeat it, so that differences can be tested."
    else:
        return
    yield Step(why=why, do=_set(again, f"repeats.best={count}"))


def seeds_to_tell(findings: Findings, contest: Contest) -> int | None:
    """Count the fresh seeds a cell with which the difference seen between the best and the next would be significant.

    None where nothing is tied, noise is not known, or it would take more than `MOST_SEEDS`.
    """
    noise, rivals = findings.grid.noise, contest.of(Standing.tied)
    if noise is None or contest.best is None or not rivals or contest.backbone is None:
        return None
    row = findings.table.backbones.index(contest.backbone)
    places = [findings.table.optimizers.index(c.optimizer) for c in (contest.best, rivals[0])]
    variance = float(sum(noise.run_variance[row, place] for place in places))
    gap, comparisons = rivals[0].behind.value or 0.0, max(len(contest.contenders) - 1, 1)
    for count in range(FEWEST_SEEDS, MOST_SEEDS + 1):
        if gap > half_width(variance / count, 2 * (count - 1), comparisons):
            return count
    return None


def _trials(findings: Findings, again: str) -> Iterator[Step]:
    """Ask for more trials, where cells lack a model for want of them."""
    short = {key: shortfall(model) for key, model in findings.landscapes.items() if isinstance(model, NoLandscape)}
    lacking = {"/".join(key): count for key, count in short.items() if count}
    if not lacking:
        return
    most, trials = max(lacking.values()), max(cell.n_trials for cell in findings.cells)
    why = (
        f"{len(lacking)} of {len(findings.cells)} cells have too few trials for a model of their landscape "
        f"({listed(sorted(lacking), MOST_NAMED)}): add {most} or more to each cell."
    )
    yield Step(why=why, do=_set(again, f"budget.trials_per_cell={trials + most}"))


def shortfall(model: NoLandscape) -> int:
    """Count the trials that a cell lacks for a model, 0 where it is not for want of them that it has none."""
    counts = model.counts
    if model.reason is Reason.TOO_FEW_TRIALS:
        return max(MIN_TRIALS - counts.n_trials, 0)
    return max(MIN_COMPLETED - counts.n_completed, 0) if model.reason is Reason.TOO_FEW_COMPLETED else 0


def _backbones(findings: Findings) -> Iterator[Step]:
    count, needed = len(findings.table.backbones), _needed(findings)
    if _is_run(findings) and 1 < count < needed:
        why = (
            f"To say more than for these {count} backbones, add {needed - count} or more: a test over "
            f"backbones needs {needed}."
        )
        yield Step(why=why, do="")


def _recommend(findings: Findings, source: str, options: Sequence[str]) -> Iterator[Step]:
    if len(findings.table.optimizers) > 1 and findings.best is not None:
        name = shlex.quote(findings.best.backbone)
        command = " ".join(
            ["bocb-tune recommend", shlex.quote(source), f"--backbone {name} --trials 16", *map(shlex.quote, options)]
        )
        yield Step(why="Ask which optimizer to use for a given number of trials, and where to search:", do=command)


def _untested(findings: Findings, contests: Sequence[Contest]) -> Iterator[Limit]:
    untested = [str(each.backbone) for each in contests if len(each.contenders) > 1 and not each.is_tested]
    if untested:
        which = "any backbone" if len(untested) == len(contests) else listed(untested, MOST_NAMED)
        yield Limit(
            what=f"Whether optimizers differ by more than noise on {which}",
            why="cells have one score each, and no model" if findings.grid.noise is None else "some have one score",
            needs="two or more seeds at the best setting of each cell",
        )


def _landscapes(findings: Findings) -> Iterator[Limit]:
    """Give the limits of cells without a model, one for each reason."""
    by_reason: dict[Reason, list[str]] = {}
    lacking: dict[Reason, int] = {}
    for key, model in findings.landscapes.items():
        if isinstance(model, NoLandscape):
            by_reason.setdefault(model.reason, []).append("/".join(key))
            lacking[model.reason] = max(lacking.get(model.reason, 0), shortfall(model))
    for reason, cells in by_reason.items():
        every = len(cells) == len(findings.cells)
        where = "any cell" if every else f"{len(cells)} of {len(findings.cells)} cells ({listed(cells, MOST_NAMED)})"
        yield Limit(
            what=f"How sensitive {where} {'is' if every else 'are'} to learning rate and weight decay",
            why=reason.sentence,
            needs=_what_a_landscape_takes(reason, lacking[reason]),
        )


def _widths(findings: Findings) -> Iterator[Limit]:
    """Name the cells that have a model, but no width of the good region."""
    key = at_tolerance("usable_decades_lr", findings.tolerance)
    refused = {
        "/".join(name): cell.estimates[key].reason
        for name, cell in findings.models.items()
        if isinstance(cell.model, Landscape) and cell.estimates[key].value is None
    }
    for reason in dict.fromkeys(refused.values()):
        cells = [name for name, why in refused.items() if why is reason]
        where = f"{len(cells)} cell{'s' * (len(cells) > 1)} ({listed(cells, MOST_NAMED)})"
        if reason is not None:
            yield Limit(
                what=f"How far the learning rate may be off in {where}",
                why=reason.sentence,
                needs="more fresh seeds or trials there, or a wider `--tolerance`",
            )


def _what_a_landscape_takes(reason: Reason, lacking: int) -> str:
    if lacking:
        kind = "more completed trials" if reason is Reason.TOO_FEW_COMPLETED else "more trials"
        return f"{lacking} {kind} in each of these cells"
    known = {
        Reason.NO_SPACE: "the ranges that were searched: `--space FILE`",
        Reason.NOT_SEARCHED: f"{MIN_TRIALS} trials of different settings in each cell",
        Reason.SURROGATE_POOR: "more trials, or less noise: the model did not predict trials left out of it",
        Reason.DEGENERATE_VARIANCE: "settings whose scores differ by more than noise",
    }
    return known.get(reason, f"{MIN_TRIALS} trials over the range, {MIN_COMPLETED} of them completed, in each cell")


def _coupling(findings: Findings) -> Iterator[Limit]:
    verdict = findings.grid.verdict
    rows, columns = MIN_SHARE_SHAPE
    if verdict.share.value is None and verdict.test is None:
        yield Limit(
            what="Whether there is a backbone-optimizer interaction",
            why=why_unknown(verdict),
            needs=f"{rows} backbones and {columns} optimizers, {columns} cells of each that do not fail",
        )
    elif verdict.test is None:
        yield Limit(
            what="Whether the backbone-optimizer interaction is more than noise",
            why="no cell was repeated with fresh seeds",
            needs="two or more seeds at the best setting of each cell",
        )


def _needed(findings: Findings) -> int:
    return backbones_needed(max(len(findings.table.optimizers) - 1, 1))


def _others(findings: Findings) -> Iterator[Limit]:
    """Say what a grid of few backbones leaves open of others."""
    rows, columns = MIN_CONCORDANCE_SHAPE
    backbones, optimizers = findings.matrix.shape
    if optimizers < 2:
        return
    needed = _needed(findings)
    if backbones < needed:
        yield Limit(
            what="Which optimizer is best on other backbones",
            why=f"a test over backbones cannot be significant with {backbones}",
            needs=f"{needed} backbones",
        )
    if findings.kendall_w.value is None and (backbones < rows or optimizers < columns):
        yield Limit(
            what="How far backbones agree on the order of the optimizers",
            why=f"the grid is {backbones} x {optimizers}",
            needs=f"{rows} backbones and {columns} optimizers",
        )
