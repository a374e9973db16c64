"""The answer in words: sentences that say no more than the numbers carry."""

from __future__ import annotations

import numpy as np

from bocb_tune.analysis.coupling.verdict import listed
from bocb_tune.analysis.findings.collect import Findings, at_tolerance
from bocb_tune.analysis.matrix.cells import FRESH_SEEDS, ONLY_POINT, CellSummary
from bocb_tune.analysis.matrix.concordance import Concordance
from bocb_tune.analysis.matrix.exact import rank_gap


def answer(findings: Findings) -> tuple[str, ...]:
    """Best cell, how much the optimizer matters, how much of that is the pairing, whether backbones agree."""
    if findings.best is None:
        return ("No cell has a value yet: no trial has reached its full budget.",)
    return (
        _best(findings, findings.best),
        *_optimizer(findings),
        *findings.grid.verdict.sentences(),
        *_agreement(findings),
        *_sensitivity(findings),
    )


def _best(findings: Findings, cell: CellSummary) -> str:
    setting = f" at lr {cell.lr:.3g}, weight decay {cell.weight_decay:.3g}" if not np.isnan(cell.lr) else ""
    score = findings.table.objective.text(cell.value)
    return f"The best cell is {cell.optimizer} on {cell.backbone}{setting}: {score}, {_how(cell)}."


def _how(cell: CellSummary) -> str:
    if FRESH_SEEDS in cell.best.method or ONLY_POINT in cell.best.method:
        spread = f", sd {cell.sd:.2f}" if not np.isnan(cell.sd) else ""
        kind = "fresh " if FRESH_SEEDS in cell.best.method else ""
        return f"the mean of {cell.best.counts.n_seeds} {kind}seed{'s' * (cell.best.counts.n_seeds > 1)}{spread}"
    return "the best observed score, biased upwards by having been selected"


def _optimizer(findings: Findings) -> tuple[str, ...]:
    """Range of the optimizers' means over a complete matrix, and what the choice is worth within a backbone."""
    matrix = findings.matrix
    if findings.missing or matrix.shape[1] < 2:
        return ()
    names, means, text = findings.table.optimizers, matrix.mean(axis=0), findings.table.objective.number
    low, high = int(means.argmin()), int(means.argmax())
    gain = float(np.mean(matrix.max(axis=1) - np.median(matrix, axis=1)))
    over = f"Averaged over {len(matrix)} backbone{'s' * (len(matrix) > 1)}"
    return (
        f"{over}, the optimizers range from {text(means[low])} ({names[low]}) to {text(means[high])} "
        f"({names[high]}), {means[high] - means[low]:.2f} points apart. Within a backbone the best optimizer is on "
        f"average {gain:.2f} points better than the median one.",
    )


def _agreement(findings: Findings) -> tuple[str, ...]:
    grid = findings.grid
    w = findings.kendall_w if grid.true_agreement.value is None else grid.true_agreement
    if w.value is None or findings.ranks is None:
        return ()
    span = "" if w.lo is None or w.hi is None else f", 95 % interval {w.lo:.2f} to {w.hi:.2f}"
    noise = "seed noise included" if w is findings.kendall_w else "seed noise taken out"
    return (
        f"The backbones agree on the order of the optimizers with Kendall's W = {w.value:.2f}{span} "
        f"({noise}; 0: no agreement, 1: full agreement). {_first(findings, findings.ranks)}",
    )


def _first(findings: Findings, ranks: Concordance) -> str:
    """Who has the best mean rank, and from whom that tells it apart."""
    mean, names = ranks.ranks.mean(axis=0), findings.table.optimizers
    first, gap = int(mean.argmin()), rank_gap(*ranks.ranks.shape)
    behind = [names[o] for o in np.argsort(mean) if mean[o] - mean[first] > gap]
    head = f"{names[first]} has the best mean rank, {mean[first]:.2f} of {len(mean)}"
    over = f"over {len(findings.matrix)} backbones"
    if behind:
        return f"{head}, and {over} is better than {listed(behind)} beyond doubt."
    return f"{head}; {over} it is not better than any other beyond doubt, which takes {gap:.1f} ranks more."


def _sensitivity(findings: Findings) -> tuple[str, ...]:
    """The cells that forgive most and least in their learning rate."""
    key = at_tolerance("usable_decades_lr", findings.tolerance)
    found = {name: cell.estimates[key] for name, cell in findings.models.items()}
    known = {"/".join(name): e for name, e in found.items() if e.value is not None and e.lo is not None}
    if not known:
        return ()
    ordered = sorted(known, key=lambda name: known[name].value or 0.0)
    told = [
        f"{'at least ' if known[name].reason else ''}{known[name].value:.1f} decades "
        f"({known[name].lo:.1f} to {known[name].hi:.1f}) in {name}"
        for name in dict.fromkeys((ordered[0], ordered[-1]))
    ]
    points = f"{findings.tolerance:g} point{'s' * (findings.tolerance != 1)}"
    return (
        f"Learning rates within {points} of the best span from {' to '.join(told)}, over the {len(known)} of "
        f"{len(found)} cells where that can be told.",
    )
