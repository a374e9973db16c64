"""What a reader should know before believing a number: health checks, first on the page."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bocb_tune.analysis.cells import FRESH_SEEDS, CellSummary, at_full_budget
from bocb_tune.analysis.estimate import Reason
from bocb_tune.analysis.findings import Findings
from bocb_tune.analysis.landscape import NoLandscape
from bocb_tune.analysis.sensitivity import EDGE_PROBABILITY, EPSILON
from bocb_tune.analysis.table import CELL
from bocb_tune.space import Dim
from bocb_tune.types import Phase, TrialStatus

# A best point nearer than this to an end of its range may well have its optimum beyond it.
EDGE_DECADES = 0.2
# With fewer fresh seeds than this a cell's value is one draw, not a mean.
FEWEST_SEEDS = 3
# Of the ten best trials this many in one outer fifth of a range say that the range is off.
TOP_TRIALS, MOST_OF_TOP = 10, 8
MANY_DIVERGED = 0.3
# Pooled over the cells, in standard errors.
AUDIT_Z = 2.5
# Completed trials that ended early, and the band of points they ended in.
FEWEST_EARLY, EARLY_BAND = 5, 1.0
# Cells or messages a check lists one by one before it only counts.
MOST_LISTED = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One remark on the data."""

    name: str
    level: str
    """`problem` (numbers are missing or suspect), `caution` (read them with care) or `note`."""
    message: str
    cell: str | None = None
    """`backbone/optimizer`, where it is about one cell."""


def run_checks(findings: Findings) -> tuple[Check, ...]:
    """All remarks, the gravest first."""
    order = ("problem", "caution", "note")
    found = [check for look in CHECKS for check in look(findings)]
    return tuple(sorted(found, key=lambda check: order.index(check.level)))


def incomplete_matrix(findings: Findings) -> Iterator[Check]:
    if missing := findings.missing:
        text = (
            f"{len(missing)} of {len(findings.cells)} cells have no value yet ({_listed(missing)}): no decomposition."
        )
        yield Check(name="incomplete_matrix", level="problem", message=text)


def failed_trials(findings: Findings) -> Iterator[Check]:
    """One remark per message, with the cells it struck."""
    trials = findings.table.trials
    failed = trials[trials["status"].isin([TrialStatus.failed, TrialStatus.oom])]
    kinds = failed.groupby(["status", "message"])
    for (status, message), group in list(kinds)[:MOST_LISTED]:
        cells = _listed(sorted(set(group["backbone"] + "/" + group["optimizer"])))
        yield Check(
            name="failed_trials",
            level="problem",
            message=f"{len(group)} {status} in {cells}: {message or 'no message'}",
        )
    if len(kinds) > MOST_LISTED:
        text = f"{len(kinds) - MOST_LISTED} more kinds of failure are in tables/trials.csv."
        yield Check(name="failed_trials", level="problem", message=text)


def garbled_lines(findings: Findings) -> Iterator[Check]:
    lines = findings.table.garbled
    if lines:
        text = f"{len(lines)} journal line(s) could not be read and are left out: {_listed(lines)}."
        yield Check(name="garbled_lines", level="problem", message=text)


def edge_of_range(findings: Findings) -> Iterator[Check]:
    """Best points that lie near an end of the range they were searched in."""
    for cell in findings.cells:
        for name, value in (("lr", cell.lr), ("weight_decay", cell.weight_decay)):
            dims = findings.table.spaces.get(cell.optimizer)
            if dims is None or math.isnan(value):
                continue
            distance = dims[name].edge_distance(value)
            if distance < EDGE_DECADES:
                where = f"{distance:.2f} decades from the edge" if distance >= 0 else f"{-distance:.2f} decades outside"
                text = f"best {name} {value:.3g} is {where} of its range {dims[name]}: the optimum may lie beyond."
                yield Check(name="edge_of_range", level="caution", message=text, cell=cell.key)


def too_few_seeds(findings: Findings) -> Iterator[Check]:
    valued = [cell for cell in findings.cells if cell.best.value is not None and cell.best.counts.n_seeds]
    selected = [cell for cell in valued if FRESH_SEEDS not in cell.best.method]
    few = [cell for cell in valued if FRESH_SEEDS in cell.best.method and cell.best.counts.n_seeds < FEWEST_SEEDS]
    if selected:
        text = (
            f"{len(selected)} of {len(valued)} cells have no fresh seed at their best point: their scores were selected"
        )
        yield Check(name="too_few_seeds", level="caution", message=f"{text} and are biased upwards.")
    if few:
        text = f"{len(few)} cells have fewer than {FEWEST_SEEDS} fresh seeds at their best point: {_keys(few)}."
        yield Check(name="too_few_seeds", level="caution", message=text)


def unequal_trials(findings: Findings) -> Iterator[Check]:
    """Best-of-n grows with n, so unequal numbers of trials fake an effect."""
    counts = [cell.n_trials for cell in findings.cells if cell.n_trials]
    if counts and min(counts) < max(counts):
        text = f"Trials per cell range from {min(counts)} to {max(counts)}: the best of more is higher by chance."
        yield Check(name="unequal_trials", level="caution", message=text)


def mixed_budgets(findings: Findings) -> Iterator[Check]:
    trials = findings.table.trials
    shorter = int((~at_full_budget(trials, trials["max_budget"].max())).sum())
    if shorter:
        text = f"{shorter} trial(s) were planned for less than the largest full budget and give no cell its value."
        yield Check(name="mixed_budgets", level="caution", message=text)


def all_diverged(findings: Findings) -> Iterator[Check]:
    for cell in findings.cells:
        if set(cell.counts) == {TrialStatus.diverged}:
            yield Check(name="all_diverged", level="caution", message="every trial diverged.", cell=cell.key)


def led_by_failures(findings: Findings) -> Iterator[Check]:
    if findings.grid.led_by_failures:
        text = (
            "The plain coupling index of the backbones is driven by failed cells: it orders them otherwise than viable "
            "coupling does."
        )
        yield Check(name="led_by_failures", level="caution", message=text)


def optimum_at_edge(findings: Findings) -> Iterator[Check]:
    """Cells whose fitted optimum may lie beyond the search space."""
    for cell in findings.cells:
        share = findings.model(cell).estimates["edge_probability"].value
        if share is not None and share > EDGE_PROBABILITY:
            text = (
                f"the fitted optimum lies at an edge of the search space with probability {share:.2f}: extend the "
                "range by a decade there and run again; more trials are owed, none is repeated."
            )
            yield Check(name="optimum_at_edge", level="caution", message=text, cell=cell.key)


def best_in_outer_fifth(findings: Findings) -> Iterator[Check]:
    """Cells most of whose ten best trials lie in the lowest or the highest fifth of a range."""
    trials = findings.table.trials
    completed = trials[trials["status"] == TrialStatus.completed].dropna(subset=["lr", "weight_decay", "score"])
    for (backbone, optimizer), rows in completed.groupby(CELL):
        dims = findings.table.spaces.get(str(optimizer))
        top = rows[rows["phase"] != Phase.repeat].nlargest(TOP_TRIALS, "score")
        if dims is None or len(top) < TOP_TRIALS:
            continue
        for name in ("lr", "weight_decay"):
            place = [_place(dims[name], value) for value in top[name] if value > 0]
            for where, count in (("lowest", sum(p < 0.2 for p in place)), ("highest", sum(p > 0.8 for p in place))):
                if count >= MOST_OF_TOP:
                    text = f"{count} of its {TOP_TRIALS} best trials have {name} in the {where} fifth of {dims[name]}."
                    yield Check(
                        name="best_in_outer_fifth", level="caution", message=text, cell=f"{backbone}/{optimizer}"
                    )


def _place(dim: Dim, value: float) -> float:
    """Place of a positive value in its range, 0 to 1."""
    return math.log10(value / dim.low) / dim.decades


def many_diverged(findings: Findings) -> Iterator[Check]:
    many = [
        cell.key
        for cell in findings.cells
        if cell.n_trials and cell.counts.get(TrialStatus.diverged, 0) > MANY_DIVERGED * cell.n_trials
    ]
    if many:
        text = f"More than {MANY_DIVERGED:.0%} of the trials diverged in {_listed(many)}: much of the range is useless."
        yield Check(name="many_diverged", level="caution", message=text)


def censored(findings: Findings) -> Iterator[Check]:
    """How much was stopped, and whether the audit contradicts the model."""
    trials = findings.table.trials
    stopped = int((trials["status"] == TrialStatus.stopped).sum())
    if not stopped:
        return
    checked = [
        m.validation for m in (findings.model(cell).model for cell in findings.cells) if m.validation is not None
    ]
    audits = [found.audit_z for found in checked if found.num_audit]
    text = f"{stopped} of {len(trials)} trials were stopped early: what they would have reached is modelled."
    if not audits:
        yield Check(name="censored", level="note", message=f"{text} No audited trial tests the model there.")
        return
    pooled = sum(audits) / math.sqrt(len(audits))
    text = f"{text} Trials exempt from stopping differ from the model by z = {pooled:.1f} over {len(audits)} cells."
    level = "caution" if abs(pooled) > AUDIT_Z else "note"
    yield Check(name="censored", level=level, message=text)


def no_landscape(findings: Findings) -> Iterator[Check]:
    """Cells that were searched and have no landscape, by reason."""
    reasons: dict[Reason, list[str]] = {}
    for cell in findings.cells:
        model = findings.model(cell).model
        if isinstance(model, NoLandscape) and model.reason not in (Reason.NOT_SEARCHED,):
            reasons.setdefault(model.reason, []).append(cell.key)
    for reason, cells in reasons.items():
        text = f"No landscape in {len(cells)} cell(s), {_listed(cells)}: {reason.sentence} ({reason})."
        yield Check(name="no_landscape", level="caution", message=text)


def tolerance_above_usual(findings: Findings) -> Iterator[Check]:
    if findings.landscapes and findings.tolerance > EPSILON:
        text = (
            f"The noise of most cells is too large to tell settings {EPSILON:g} point apart: widths of good regions "
            f"are stated at {findings.tolerance:g} points."
        )
        yield Check(name="tolerance", level="note", message=text)


def ended_on_success(findings: Findings) -> Iterator[Check]:
    """Runs that ended early right above one value: their scores are cut off there."""
    trials = findings.table.trials
    early = trials[(trials["status"] == TrialStatus.completed) & (trials["budget"] < trials["max_budget"])]
    whole = trials[(trials["status"] == TrialStatus.completed) & ~(trials["budget"] < trials["max_budget"])]
    if len(early) < FEWEST_EARLY or early["score"].max() - early["score"].min() > EARLY_BAND:
        return
    if len(whole) and whole["score"].median() > early["score"].min():
        return
    text = (
        f"{len(early)} completed trials ended early, all within {EARLY_BAND:g} point above {early['score'].min():g}: "
    )
    yield Check(name="ended_on_success", level="caution", message=f"{text}their final scores are cut off there.")


def unfinished(findings: Findings) -> Iterator[Check]:
    running = sum(cell.counts.get(TrialStatus.running, 0) for cell in findings.cells)
    if running:
        text = f"{running} trial(s) are running or were interrupted: the run is not finished."
        yield Check(name="unfinished", level="note", message=text)


def reading(findings: Findings) -> Iterator[Check]:
    for note in findings.table.notes:
        yield Check(name="reading", level="note", message=note)


CHECKS: tuple[Callable[[Findings], Iterator[Check]], ...] = (
    incomplete_matrix,
    failed_trials,
    garbled_lines,
    led_by_failures,
    optimum_at_edge,
    edge_of_range,
    best_in_outer_fifth,
    no_landscape,
    many_diverged,
    all_diverged,
    too_few_seeds,
    unequal_trials,
    mixed_budgets,
    ended_on_success,
    censored,
    tolerance_above_usual,
    unfinished,
    reading,
)


def _keys(cells: list[CellSummary]) -> str:
    return _listed([cell.key for cell in cells])


def _listed(names: list[str] | tuple[str, ...]) -> str:
    more = f" and {len(names) - MOST_LISTED} more" if len(names) > MOST_LISTED else ""
    return ", ".join(names[:MOST_LISTED]) + more
