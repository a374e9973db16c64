"""Health checks: what a reader should know before believing a number. They stand first on the page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from statistics import median

from bocb_tune.analysis.checks import settings
from bocb_tune.analysis.checks.check import MOST_LISTED, Check, about, details, listed
from bocb_tune.analysis.findings.collect import Findings
from bocb_tune.analysis.matrix.cells import FRESH_SEEDS, ONLY_POINT, at_full_budget
from bocb_tune.analysis.sources.table import CELL, HYPERPARAMETERS
from bocb_tune.core.types import TrialStatus, alike

# With fewer fresh seeds than this a cell's value is hardly a mean.
FEWEST_SEEDS = 3
MANY_DIVERGED = 0.3
# Factor on the median sd of seeds.
MUCH_NOISIER = 5
MOST_SAID = 300
"""Characters of a failure's message that are repeated; tables/trials.csv has it whole."""
# Number of completed trials that ended early, and the width in points of the band they ended in.
FEWEST_EARLY, EARLY_BAND = 5, 1.0


def run_checks(findings: Findings) -> tuple[Check, ...]:
    """Run all checks; return their findings, the gravest first."""
    order = ("problem", "caution", "note")
    found = [check for look in CHECKS for check in look(findings)]
    return tuple(sorted(found, key=lambda check: order.index(check.level)))


def incomplete_matrix(findings: Findings) -> Iterator[Check]:
    if missing := findings.missing:
        text = f"{len(missing)} of {len(findings.cells)} cells have no value yet ({listed(missing)}): no decomposition."
        yield Check(name="incomplete_matrix", level="problem", message=text)


def failed_trials(findings: Findings) -> Iterator[Check]:
    """Yield one check per kind of error message, quoting the first, with the cells it occurred in."""
    trials = findings.table.trials
    failed = trials[trials["status"].isin([TrialStatus.failed, TrialStatus.oom])]
    kinds = failed.groupby(["status", failed["message"].fillna("").astype(str).map(alike)])
    for (status, _), group in list(kinds)[:MOST_LISTED]:
        message = group["message"].iloc[0]
        cells = sorted(set(group["backbone"] + "/" + group["optimizer"]))
        text = f"{len(group)} {status} in {listed(cells)}: {_cut(message) or 'no message'}"
        yield from about(cells, name="failed_trials", level="problem", message=text)
    if len(kinds) > MOST_LISTED:
        text = f"{len(kinds) - MOST_LISTED} more kinds of failure are in tables/trials.csv."
        yield Check(name="failed_trials", level="problem", message=text)


def _cut(message: str) -> str:
    return message if len(message) <= MOST_SAID else f"{message[:MOST_SAID]}..."


def garbled_lines(findings: Findings) -> Iterator[Check]:
    lines = findings.table.garbled
    if lines:
        text = f"{len(lines)} journal line(s) could not be read and are left out: {listed(lines)}."
        yield Check(name="garbled_lines", level="problem", message=text)


def too_few_seeds(findings: Findings) -> Iterator[Check]:
    valued = [cell for cell in findings.cells if cell.best.value is not None and cell.best.counts.n_seeds]
    selected = [cell for cell in valued if not any(kind in cell.best.method for kind in (FRESH_SEEDS, ONLY_POINT))]
    few = [cell.key for cell in valued if FRESH_SEEDS in cell.best.method and cell.best.counts.n_seeds < FEWEST_SEEDS]
    if selected:
        text = (
            f"{len(selected)} of {len(valued)} cells have no fresh seed at their best point: their scores are the "
            "best of several trials, and biased upwards."
        )
        yield Check(name="too_few_seeds", level="caution", message=text)
    which = "All cells have" if len(few) == len(valued) else f"{len(few)} of {len(valued)} cells ({listed(few)}) have"
    text = f"{which} fewer than {FEWEST_SEEDS} fresh seeds at their best point: their scores are uncertain."
    yield from about(few, name="too_few_seeds", level="caution", message=text)


def unequal_noise(findings: Findings) -> Iterator[Check]:
    """Find cells whose seeds differ much more than those of the other cells."""
    sd = {cell.key: cell.sd for cell in findings.cells if cell.sd > 0}
    usual = median(sd.values()) if sd else 0.0
    unstable = {key: f"sd {each:.1f}" for key, each in sd.items() if each > MUCH_NOISIER * usual}
    text = (
        f"Seeds at the best point differ far more than elsewhere (usual sd {usual:.1f}) in {details(unstable)}: the "
        "optimum found there is unstable."
    )
    yield from about(unstable, name="unequal_noise", level="caution", message=text)


def same_seed(findings: Findings) -> Iterator[Check]:
    """Find trials that must be copies of another under a different name."""
    trials = findings.table.trials.dropna(subset=["seed", "score"])
    repeated = trials[trials.duplicated([*CELL, *HYPERPARAMETERS, "seed", "budget", "score"])]
    cells = sorted(set(repeated["backbone"] + "/" + repeated["optimizer"]))
    text = (
        f"{len(repeated)} trial(s) have the setting, the seed and the score of another, in {listed(cells)}: they make "
        "means look surer than they are; leave the copies out."
    )
    yield from about(cells, name="same_seed", level="caution", message=text)


def unequal_trials(findings: Findings) -> Iterator[Check]:
    """Warn of unequal numbers of trials: the best of n grows with n, which fakes an effect."""
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
    cells = [cell.key for cell in findings.cells if set(cell.counts) == {TrialStatus.diverged}]
    yield from about(cells, name="all_diverged", level="caution", message=f"Every trial diverged in {listed(cells)}.")


def led_by_failures(findings: Findings) -> Iterator[Check]:
    if findings.grid.led_by_failures:
        text = (
            "The plain coupling index of the backbones is driven by failed cells: it orders the backbones differently "
            "from viable coupling, which leaves these cells out."
        )
        yield Check(name="led_by_failures", level="caution", message=text)


def many_diverged(findings: Findings) -> Iterator[Check]:
    many = [
        cell.key
        for cell in findings.cells
        if cell.n_trials and cell.counts.get(TrialStatus.diverged, 0) > MANY_DIVERGED * cell.n_trials
    ]
    text = f"More than {MANY_DIVERGED:.0%} of the trials diverged in {listed(many)}: much of the range is useless."
    yield from about(many, name="many_diverged", level="caution", message=text)


def ended_on_success(findings: Findings) -> Iterator[Check]:
    """Find runs that stopped early just above one common value: their scores are cut off there."""
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


def validated_on_test(findings: Findings) -> Iterator[Check]:
    if findings.table.validated_on_test:
        text = (
            "Settings were selected by scores on the test data, which the same scores report: they are biased upwards, "
            "the more so the more trials a cell had. Hold data out of the training set to select by."
        )
        yield Check(name="validated_on_test", level="caution", message=text)


def unfinished(findings: Findings) -> Iterator[Check]:
    running = sum(cell.counts.get(TrialStatus.running, 0) for cell in findings.cells)
    if running:
        text = f"{running} trial(s) are running or were interrupted: the run is not finished."
        yield Check(name="unfinished", level="note", message=text)


def reading(findings: Findings) -> Iterator[Check]:
    for caution in findings.table.cautions:
        yield Check(name="reading", level="caution", message=caution)
    for note in findings.table.notes:
        yield Check(name="reading", level="note", message=note)


CHECKS: tuple[Callable[[Findings], Iterator[Check]], ...] = (
    incomplete_matrix,
    failed_trials,
    garbled_lines,
    led_by_failures,
    settings.optimum_at_edge,
    settings.edge_of_range,
    settings.best_in_outer_fifth,
    settings.no_landscape,
    settings.model_against_seeds,
    many_diverged,
    all_diverged,
    too_few_seeds,
    unequal_noise,
    same_seed,
    validated_on_test,
    unequal_trials,
    mixed_budgets,
    ended_on_success,
    settings.censored,
    settings.unlike_ranges,
    settings.tolerance_above_usual,
    unfinished,
    reading,
)
