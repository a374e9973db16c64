"""The answer in words: sentences that say no more than the numbers carry."""

from __future__ import annotations

import numpy as np

from bocb_tune.analysis.findings.collect import Findings, at_tolerance
from bocb_tune.analysis.matrix.cells import FRESH_SEEDS, ONLY_POINT, CellSummary
from bocb_tune.analysis.report.sections.values import why


def answer(findings: Findings) -> tuple[str, ...]:
    """Best cell, how much the optimizer matters, how much of that is the pairing, whether backbones agree."""
    if findings.best is None:
        return ("No cell has a value yet: no trial has reached its full budget.",)
    return (
        _best(findings, findings.best),
        *_optimizer(findings),
        _interaction(findings),
        *_agreement(findings),
        *_sensitivity(findings),
    )


def _best(findings: Findings, cell: CellSummary) -> str:
    setting = f" at lr {cell.lr:.3g}, weight decay {cell.weight_decay:.3g}" if not np.isnan(cell.lr) else ""
    score = f"{cell.value:.2f} {findings.table.objective.unit}"
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
    names, means, unit = findings.table.optimizers, matrix.mean(axis=0), findings.table.objective.unit
    low, high = int(means.argmin()), int(means.argmax())
    gain = float(np.mean(matrix.max(axis=1) - np.median(matrix, axis=1)))
    over = f"Averaged over {len(matrix)} backbone{'s' * (len(matrix) > 1)}"
    return (
        f"{over}, the optimizers range from {means[low]:.2f} ({names[low]}) to {means[high]:.2f} ({names[high]}), "
        f"{means[high] - means[low]:.2f} {unit} apart. Within a backbone the best optimizer is on average {gain:.2f} "
        f"{unit} above the median one.",
    )


def _interaction(findings: Findings) -> str:
    share, total = findings.interaction_share, findings.interaction_share_total
    if share.value is None or total.value is None:
        return f"How much depends on the pairing of backbone and optimizer cannot be said: {why(share)}."
    shape = " x ".join(map(str, findings.matrix.shape))
    text = (
        f"{100 * share.value:.1f} % of the variation an optimizer causes is specific to the backbone it meets "
        f"(interaction share; {100 * total.value:.1f} % of all variation), over {shape} cells, "
        f"{findings.counts.n_trials} trials."
    )
    if share.lo is None or share.hi is None:
        return (
            f"{text} This is a plug-in value: it includes seed noise, which tends to make it too large, and it has no "
            "interval here."
        )
    return f"{text} Noise is taken off; 95 % interval {100 * share.lo:.0f} to {100 * share.hi:.0f} %."


def _agreement(findings: Findings) -> tuple[str, ...]:
    w = findings.kendall_w
    if w.value is None or findings.ranks is None:
        return ()
    mean = findings.ranks.ranks.mean(axis=0)
    first = findings.table.optimizers[int(mean.argmin())]
    return (
        f"The backbones agree on the order of the optimizers with Kendall's W = {w.value:.2f} "
        f"(0: no agreement, 1: full agreement). {first} has the best mean rank, {mean.min():.2f} of {len(mean)}.",
    )


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
