"""Sections of the comparison of two runs."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from bocb_tune.analysis.checks.remark import Check
from bocb_tune.analysis.core.estimate import Estimate
from bocb_tune.analysis.findings.comparison import Comparison, Difference
from bocb_tune.analysis.report.sections.values import Card, DataTable, NotApplicable, or_nan, shown


def sections(found: Comparison) -> tuple[Card | NotApplicable, ...]:
    """The report of a comparison."""
    return (_words(found), _checks(found), _lines(found), _cells(found))


def _words(found: Comparison) -> Card:
    first, second = found.names
    pairs = (("Interaction share", found.interaction_share), ("of all variation", found.interaction_share_total))
    shares = tuple(
        f"{name}: {shown(pair.first)} in {first}, {shown(pair.second)} in {second}, change {shown(pair.change)}."
        for name, pair in pairs
    )
    text = f"From {first} to {second} the cells change by {shown(found.overall)} on average ({found.overall.method})."
    return Card(title="The answer in words", text=(text, *shares))


def _checks(found: Comparison) -> Card:
    lists = (
        (f"only in {found.names[0]}", found.only_first),
        (f"only in {found.names[1]}", found.only_second),
        ("without a value in one of the two", found.without_value),
    )
    checks = [
        Check(
            name="unmatched", level="caution", message=f"{len(names)} cell(s) {what} are left out: {', '.join(names)}."
        )
        for what, names in lists
        if names
    ]
    checks += [Check(name="settings", level="caution", message=note) for note in found.notes]
    return Card(title="Checks", text=() if checks else ("Nothing to remark.",), checks=tuple(checks))


def _lines(found: Comparison) -> Card:
    return Card(
        title="Change by backbone and by optimizer",
        text=("Mean of the paired changes of the cells, points; interval over the cells of the line.",),
        tables=(_changes("backbone", found.backbones), _changes("optimizer", found.optimizers)),
    )


def _changes(kind: str, changes: Mapping[str, Estimate]) -> DataTable:
    rows = [{kind: name, **_numbers(change)} for name, change in changes.items()]
    return DataTable(stem=f"change_by_{kind}", frame=pd.DataFrame(rows), formats=_FORMATS)


def _cells(found: Comparison) -> Card:
    rows = [
        {"backbone": key[0], "optimizer": key[1], **_sides(pair), **_numbers(pair.change)}
        for key, pair in found.cells.items()
    ]
    table = DataTable(stem="change_by_cell", frame=pd.DataFrame(rows), formats=_FORMATS)
    return Card(title="Change of each cell", tables=(table,))


_FORMATS = dict.fromkeys(("first", "second", "change", "from", "to"), ".2f")


def _sides(pair: Difference) -> dict[str, float | None]:
    return {"first": pair.first.value, "second": pair.second.value}


def _numbers(change: Estimate) -> dict[str, float]:
    value = {"change": change.value, "from": change.lo, "to": change.hi}
    return {name: or_nan(number) for name, number in value.items()}
