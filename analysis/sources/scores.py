"""Values of a metric, whatever its sign and unit -> scores in points, of which more is better."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace

import pandas as pd

from bocb_tune.analysis.sources.columns import Column
from bocb_tune.analysis.sources.stated import Stated, with_tolerance
from bocb_tune.analysis.sources.table import CELL, SourceError, TrialTable
from bocb_tune.core.types import Direction, Objective, TrialStatus

Refuse = Callable[["pd.Series[bool]", str], None]
"""Raises SourceError naming the first row where the first is true, and why (the second)."""
FAILED_RUNS = 5.0
"""Points up to which scores are of runs that learnt next to nothing."""


def direction_of(column: Column, stated: Stated, path: object) -> Direction:
    """Decide which way the metric is better.

    Raises:
        SourceError: if neither its name nor the user says.
    """
    if stated.direction is not None:
        return Direction(stated.direction)
    if column.direction is None:
        raise SourceError(
            f"{path}: nothing says which way column {column.name!r} is better; add --direction max or --direction min"
        )
    return column.direction


def read_scores(
    rows: pd.DataFrame, column: Column, direction: Direction, stated: Stated, refuse: Refuse
) -> tuple[pd.DataFrame, Objective, str]:
    """Return rows with scores in points, what these mean, and the sentence that says how they were read.

    Args:
        rows: of the file, `score` in the unit of its column.
        column: that of the score.
        direction: which way it is better.
        stated: what the user says.
        refuse: raises the error of a row.
    """
    unit = "amount" if column.is_amount(direction) and column.unit is None else _unit(rows, column, stated, refuse)
    factor = 100.0 if unit == "fraction" else 1.0
    metric = factor * rows["score"]
    best = metric[_is_final(rows)]
    best = (best if best.notna().any() else metric).agg(str(direction))
    name = re.sub(r"[^\w%/.@() -]", "", column.name).strip()
    bounded = unit != "amount"
    objective = Objective(
        metric=name,
        unit="points" if bounded else column.metric or name,
        floor=math.nan,
        direction=direction,
        origin=100.0 if bounded and direction is Direction.min else 0.0,
    )
    objective = with_tolerance(objective, float(best), stated.tolerance)
    if stated.chance is not None:
        objective = _with_floor(objective, factor * stated.chance)
    return rows.assign(score=objective.score(metric)), objective, _how(objective, unit, column, stated)


def _with_floor(objective: Objective, chance: float) -> Objective:
    floor = float(objective.score(chance))
    if objective.is_bounded and not 0 <= floor <= 100:
        raise SourceError(f"--chance {chance:g} lies outside 0..100, where {objective.metric} lies")
    return replace(objective, floor=floor)


def _how(objective: Objective, unit: str, column: Column, stated: Stated) -> str:
    """Say how the scores were read, for the reader of the report."""
    way = "smaller is better" if objective.direction is Direction.min else "larger is better"
    said = "as stated" if stated.direction else "by its name"
    if not objective.is_bounded:
        point = f"one point of score is {objective.point:.3g}" + ("" if stated.tolerance else ", 1 % of the best value")
        return f"Column {column.name!r} taken as it is, {said} {way}; {point}."
    kind = "points of 0..100" if unit == "points" else "fractions and shown as points of 0..100"
    if objective.direction is Direction.min:
        return f"Column {column.name!r} read as {kind}, {said} {way}."
    return f"Scores read as {kind}, larger being better."


def _unit(rows: pd.DataFrame, column: Column, stated: Stated, refuse: Refuse) -> str:
    """Decide between `points`, `fraction` and `amount`: by the column's name, else by all scores and by chance."""
    low, high = rows["score"].min(), rows["score"].max()
    if column.unit:
        top = 1 if column.unit == "fraction" else 100
        outside = (rows["score"] < 0) | (rows["score"] > top)
        refuse(outside, f"lies outside 0..{top}, though its column is named after {column.unit}")
        return column.unit
    if low < 0 or high > 100:
        return "amount"
    if high > 1:
        refuse(_mixed(rows, stated.chance), _MIXED)
        return "points"
    return "points" if stated.chance is not None and stated.chance > 1 else "fraction"


_MIXED = (
    "may be a fraction of 1, while others are points of 0..100: write all alike, or, if all are points, name the "
    "column 'score (points)'"
)


def _mixed(rows: pd.DataFrame, chance: float | None) -> pd.Series[bool]:
    """Find final scores below 1 that as fractions would be among the better half, while none is just above 1.

    Runs that fail score near chance, which may be below 1 (0.1 for ImageNet); as fractions they would be bad runs, and
    where many fail some score a little above chance.
    """
    score = rows["score"].where(_is_final(rows))
    points = score[score > 1]
    if chance is not None or len(points) == 0 or (points <= FAILED_RUNS).any():
        return pd.Series(False, index=rows.index)
    as_fraction = 100 * score.where((score > 0) & (score < 1))
    return as_fraction.between(points.median(), points.max())


def _is_final(rows: pd.DataFrame) -> pd.Series[bool]:
    """Find rows at the end of a trial that reached its full budget, as far as is known."""
    whole = rows["status"].isin([str(TrialStatus.completed), "ended", ""]) & ~(rows["budget"] < rows["max_budget"])
    last = ~rows.sort_values("budget", kind="stable").duplicated([*CELL, "trial"], keep="last")
    final: pd.Series[bool] = whole & last
    return final


def recounted(table: TrialTable, tolerance: str | None) -> TrialTable:
    """Return the table of a run with its scores in points of the tolerance.

    Raises:
        SourceError: as `with_tolerance`.
    """
    old = table.objective
    done = table.trials["status"] == TrialStatus.completed
    scores = table.trials["score"][done] if done.any() else table.trials["score"]
    if tolerance is None and (old.is_bounded or scores.isna().all()):
        return table
    new = with_tolerance(old, float(old.shown(scores.max())), tolerance)
    return replace(in_points_of(table, new.point), objective=replace(new, floor=old.point / new.point * old.floor))


def in_points_of(table: TrialTable, point: float) -> TrialTable:
    """Return the table with its scores counted in points that are worth so much of the metric."""
    size = table.objective.point / point
    if size == 1:
        return table
    return replace(
        table,
        trials=table.trials.assign(score=size * table.trials["score"]),
        curves=table.curves.assign(score=size * table.curves["score"]),
        objective=replace(table.objective, point=point, floor=size * table.objective.floor),
    )
