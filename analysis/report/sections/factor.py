"""Several runs of one grid: how much of the score, and of the coupling, moves with what they differ in."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from bocb_tune.analysis.answer.sentences import part
from bocb_tune.analysis.checks.check import Check
from bocb_tune.analysis.core.bootstrap import Refused
from bocb_tune.analysis.core.estimate import Estimate
from bocb_tune.analysis.coupling.factor import COUPLING, MOVING, FactorSplit
from bocb_tune.analysis.findings.factor import Several
from bocb_tune.analysis.report.cards.values import Card, DataTable, in_full, or_nan
from bocb_tune.analysis.report.plots.values import Strip
from bocb_tune.analysis.report.sections.first import FirstScreen
from bocb_tune.core.names import listed

MOST_NAMED = 6


def first_screen(found: Several) -> FirstScreen:
    """Say what the runs differ in, and what moves with it."""
    checks = _checks(found)
    told = [f"{name}: {level}." for name, level in zip(found.names, found.levels, strict=True) if name != level]
    return FirstScreen(
        parts=(*part(f"What the runs differ in: {found.factor}", told), *part("What moves with it", _moves(found))),
        tables=(),
        figures=(_ranks(found),),
        checks=checks,
        num_checks=len(checks),
        folded=(),
    )


def sections(found: Several) -> tuple[Card, ...]:
    """Show the split and the means."""
    means = pd.DataFrame(found.values.mean(axis=0), columns=list(found.names))
    means.insert(0, "optimizer", list(found.optimizers))
    text = f"Mean score over {len(found.backbones)} backbones, points."
    style = dict.fromkeys(found.names, ".2f")
    table = DataTable(stem="means_by_run", frame=means, formats=style, are_names=True)
    cards = [Card(title="Mean of each optimizer in each run", text=(text,), tables=(table,))]
    return (*_split(found), *cards)


def _split(found: Several) -> tuple[Card, ...]:
    if isinstance(found.split, Refused):
        return ()
    rows = [
        {
            "source": name.replace("factor", found.factor),
            "share_of_total": or_nan(each.value),
            "from_90": or_nan(each.lo),
            "to_90": or_nan(each.hi),
        }
        for name, each in found.split.variance_shares.items()
    ]
    first, moving = next(iter(found.split.variance_shares.values())), MOVING.replace("factor", found.factor)
    text = (
        f"Share of all variation of the cells' values that each effect has; {first.level:.0%} intervals "
        f"({first.method}). '{COUPLING}' is the coupling that all runs have in common, "
        f"'{moving}' that which is not the same in all of them."
    )
    formats = dict.fromkeys(("share_of_total", "from_90", "to_90"), ".3f")
    table = DataTable(stem="variance_shares", frame=pd.DataFrame(rows), formats=formats)
    return (Card(title="Where the variation comes from", text=(text,), tables=(table,)),)


def _moves(found: Several) -> tuple[str, ...]:
    split = found.split
    if isinstance(split, Refused):
        return (f"Not told apart: {in_full(split.reason, split.detail)}.",)
    return (
        f"Of the coupling of backbone and optimizer {_share(split.share_that_moves)} moves with {found.factor}; the "
        "rest is the same in all runs.",
        *_order(split),
    )


def _order(split: FactorSplit) -> tuple[str, ...]:
    if split.order_flips.value is None:
        return ("Whether the order of the optimizers flips is not known: too few repeated seeds.",)
    lines = [
        f"Two optimizers change their order, in the mean over backbones, with a probability of "
        f"{_share(split.order_flips)} from one run to another."
    ]
    if split.same_best.value is not None:
        lines.append(f"The best optimizer is the same in all runs with a probability of {split.same_best.value:.2f}.")
    return tuple(lines)


def _share(estimate: Estimate) -> str:
    if estimate.value is None:
        return "an unknown share"
    if estimate.lo is None or estimate.hi is None:
        return f"{estimate.value:.2f} (no interval: too few repeated seeds)"
    return f"{estimate.value:.2f} ({estimate.level:.0%} CI {estimate.lo:.2f} to {estimate.hi:.2f})"


def _checks(found: Several) -> tuple[Check, ...]:
    if not found.left_out:
        return ()
    count = len(found.left_out)
    message = (
        f"{count} backbone{'s' * (count > 1)} or optimizers without a score in every run, left out: "
        f"{listed(list(found.left_out), MOST_NAMED)}."
    )
    return (Check(name="unmatched", level="caution", message=message),)


def _ranks(found: Several) -> Strip:
    """Draw the rank of each optimizer's mean in each run."""
    ranks = rankdata(-found.values.mean(axis=0), axis=0).T
    order = np.argsort(ranks.mean(axis=0), kind="stable")
    return Strip(
        stem="ranks-by-run",
        title="Rank of each optimizer in each run",
        caption=f"One marker a run, of the mean over {len(found.backbones)} backbones; thick bar: mean of the runs.",
        alt="; ".join(f"{found.optimizers[i]} {', '.join(f'{rank:g}' for rank in ranks[:, i])}" for i in order),
        optimizers=tuple(found.optimizers[index] for index in order),
        backbones=found.names,
        values=ranks[:, order],
        summary=ranks.mean(axis=0)[order],
        axis="rank of the mean score (1 = best)",
    )
