"""The comparison of two runs: their differences, then the changes of their results."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from bocb_tune.analysis.answer.sentences import Part, part
from bocb_tune.analysis.checks.check import Check
from bocb_tune.analysis.core.estimate import Estimate
from bocb_tune.analysis.findings.comparison import Comparison, Key, PairedValue
from bocb_tune.analysis.report.cards.values import Card, DataTable, or_nan, shown
from bocb_tune.analysis.report.plots import Plot
from bocb_tune.analysis.report.plots.values import Strip
from bocb_tune.analysis.report.sections.first import FirstScreen
from bocb_tune.core.names import listed

MOST_DIFFERING, MOST_NAMED = 12, 6
"""Most differences between the specs on the first screen, and most cells named in a sentence."""


def first_screen(found: Comparison) -> FirstScreen:
    """Make the first screen: differences between the runs, and changes of their results."""
    checks = _checks(found)
    return FirstScreen(
        parts=parts_of(found), tables=(), figures=_figures(found), checks=checks, num_checks=len(checks), folded=()
    )


def parts_of(found: Comparison) -> tuple[Part, ...]:
    """Describe the comparison in sentences."""
    first, second = found.names
    told = list(found.notes[:MOST_DIFFERING])
    more = len(found.notes) - len(told)
    told += [f"{more} more differences are under What differs."] * (more > 0)
    same = "The recorded settings, ranges and data are the same."
    return (
        *part(f"What differs between {first} and {second}", told or [same]),
        *part(f"What changed from {first} to {second}", (*_whole(found), *_cells_told(found), *_coupling(found))),
    )


def _whole(found: Comparison) -> tuple[str, ...]:
    """Describe the change over the grid, from seeds and from landscapes."""
    cells = "the one cell of both" if len(found.cells) == 1 else f"these {len(found.cells)} cells"
    lines = [f"On {cells} the score changes by {_span(found.from_seeds)} on average."]
    if found.from_landscapes.value is not None:
        count = len(found.scores)
        lines.append(f"By the landscapes of {count} cells it changes by {_span(found.from_landscapes)} on average.")
    if found.overall.lo is not None:
        lines.append(f"For other backbones like these, the expected change is {_span(found.overall)}.")
    else:
        count = len(found.backbones)
        lines.append(f"Nothing can be inferred for other backbones from {count} backbone{'s' * (count != 1)}.")
    return tuple(lines)


def _span(estimate: Estimate) -> str:
    if estimate.lo is None or estimate.hi is None:
        return f"{estimate.value:+.2f} points (no interval: too few repeated seeds)"
    return f"{estimate.value:+.2f} points (95 % CI {estimate.lo:+.2f} to {estimate.hi:+.2f})"


def _cells_told(found: Comparison) -> tuple[str, ...]:
    """List the cells whose interval excludes zero."""
    tested = {key: pair.change for key, pair in found.cells.items() if pair.change.lo is not None}
    if not tested:
        return ("No cell has an interval: each run needs repeated seeds.",)
    beyond = {key: each for key, each in tested.items() if not (each.lo or 0) <= 0 <= (each.hi or 0)}
    if not beyond:
        return (f"In none of the {len(tested)} cells with an interval is the change significant by itself.",)
    order = sorted(beyond, key=lambda key: -abs(beyond[key].value or 0))
    each = listed([f"{'/'.join(key)} {beyond[key].value:+.2f}" for key in order], MOST_NAMED)
    chance = 0.05 * len(tested)
    return (
        f"The 95 % CI of the change excludes zero in {len(beyond)} of {len(tested)} cells, where chance alone gives "
        f"{chance:.1f}: {each}.",
    )


def _coupling(found: Comparison) -> tuple[str, ...]:
    pair, (first, second) = found.interaction_share, found.names
    if pair.first.value is None or pair.second.value is None:
        return ()
    change = pair.change
    unsure = change.lo is None or (change.lo <= 0 <= (change.hi or 0))
    verdict = "it does not differ significantly" if unsure else "it differs significantly"
    return (
        f"Of the optimizer-related variance of the same cells {shown(pair.first)} is specific to the backbone in "
        f"{first}, {shown(pair.second)} in {second}: {verdict}.",
    )


def _figures(found: Comparison) -> tuple[Plot, ...]:
    backbones, optimizers = (tuple(dict.fromkeys(key[axis] for key in found.cells)) for axis in (0, 1))
    ends = np.full((3, len(backbones), len(optimizers)), np.nan)
    for (backbone, optimizer), pair in found.cells.items():
        at = backbones.index(backbone), optimizers.index(optimizer)
        ends[(slice(None), *at)] = [or_nan(each) for each in (pair.change.value, pair.change.lo, pair.change.hi)]
    alt = "; ".join(f"{'/'.join(key)} {shown(pair.change)}" for key, pair in list(found.cells.items())[:MOST_DIFFERING])
    return (
        Strip(
            stem="change",
            title="Change of each cell",
            caption=f"From {found.names[0]} to {found.names[1]}: one marker per backbone, right is better; thin "
            "bars: 95 %, from the seeds of both runs; thick bar: mean of the optimizer.",
            alt=alt,
            optimizers=optimizers,
            backbones=backbones,
            values=ends[0],
            summary=np.nanmean(ends[0], axis=0),
            axis="change [points]",
            lo=ends[1],
            hi=ends[2],
            from_zero=True,
        ),
    )


def sections(found: Comparison) -> tuple[Card, ...]:
    """Make the rest of the page."""
    differing = Card(title="What differs", text=found.notes or ("No recorded difference.",))
    return (differing, _cells(found), *_landscapes(found), _lines(found))


def _checks(found: Comparison) -> tuple[Check, ...]:
    lists = (
        (f"only in {found.names[0]}", found.only_first),
        (f"only in {found.names[1]}", found.only_second),
        ("without a value in one of the two", found.without_value),
    )
    return tuple(
        Check(
            name="unmatched",
            level="caution",
            message=f"{len(names)} cell{'s' * (len(names) > 1)} {what}, left out: {listed(names, MOST_NAMED)}.",
        )
        for what, names in lists
        if names
    )


def _lines(found: Comparison) -> Card:
    return Card(
        title="Change by backbone and by optimizer",
        text=("Mean of the paired changes of the cells, points; interval over the cells of a row.",),
        tables=(_changes("backbone", found.backbones), _changes("optimizer", found.optimizers)),
    )


def _changes(kind: str, changes: Mapping[str, Estimate]) -> DataTable:
    rows = [{kind: name, **_numbers(change)} for name, change in changes.items()]
    return DataTable(stem=f"change_by_{kind}", frame=pd.DataFrame(rows), formats=_FORMATS)


def _cells(found: Comparison) -> Card:
    text = "Means of fresh seeds in both runs; the interval combines those of both."
    return Card(title="Change of each cell, by seeds", text=(text,), tables=(_table("change_by_cell", found.cells),))


def _landscapes(found: Comparison) -> tuple[Card, ...]:
    if not found.scores:
        return ()
    text = (
        f"Expected score at the best point of the landscape, and usable decades of learning rate within "
        f"{found.tolerance:g} points of the cell's best, where both runs have a landscape."
    )
    tables = [_table("change_of_expected_score", found.scores)]
    tables += [_table("change_of_usable_decades", found.decades)] * bool(found.decades)
    return (Card(title="Change of each cell, by landscapes", text=(text,), tables=tuple(tables)),)


def _table(stem: str, pairs: Mapping[Key, PairedValue]) -> DataTable:
    rows = [
        {
            "backbone": backbone,
            "optimizer": optimizer,
            "first": or_nan(pair.first.value),
            "second": or_nan(pair.second.value),
            **_numbers(pair.change),
        }
        for (backbone, optimizer), pair in pairs.items()
    ]
    return DataTable(stem=stem, frame=pd.DataFrame(rows), formats=_FORMATS)


_FORMATS = dict.fromkeys(("first", "second", "change", "from", "to"), ".2f")


def _numbers(change: Estimate) -> dict[str, float]:
    value = {"change": change.value, "from": change.lo, "to": change.hi}
    return {name: or_nan(number) for name, number in value.items()}
