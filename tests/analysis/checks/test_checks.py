"""Every health check fires where it should, once, and stays silent on a healthy grid."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bocb_tune.analysis.cell.metrics import measure
from bocb_tune.analysis.cell.tuning_curves import tuning_curve
from bocb_tune.analysis.checks.check import MOST_LISTED, Check
from bocb_tune.analysis.checks.run import CHECKS, run_checks
from bocb_tune.analysis.findings.collect import Findings, find
from bocb_tune.analysis.landscape.fit import Landscape
from bocb_tune.analysis.sources.load import load
from bocb_tune.analysis.sources.table import Dims, Source, TrialTable, make_table
from bocb_tune.core.space import Dim
from bocb_tune.core.types import Objective
from tests.support.coverage.landscapes import bowl, exact
from tests.support.fakes import FakeRun, write_run

Row = dict[str, Any]
DIMS: Dims = {
    "lr": Dim(name="lr", low=1e-5, high=1.0),
    "weight_decay": Dim(name="weight_decay", low=1e-6, high=0.1),
}
KEYS = tuple((backbone, optimizer) for backbone in ("a", "b") for optimizer in ("x", "y"))
OBJECTIVE = Objective(metric="top1", unit="points", floor=1.0)


def cell(backbone: str, optimizer: str) -> list[Row]:
    """Twelve trials around the middle of the ranges and three fresh seeds at the best of them."""
    base = {"backbone": backbone, "optimizer": optimizer, "status": "completed", "budget": 9.0, "max_budget": 9.0}
    high = 60.0 + ord(backbone) % 7 + 2 * (ord(optimizer) % 5)
    points = [
        {"lr": 10 ** (-2.5 + step / 4), "weight_decay": 10 ** (-3.5 + step / 4), "score": high - step**2}
        for step in range(-6, 6)
    ]
    seeds = [{**points[6], "score": high + noise, "phase": "repeat"} for noise in (-0.2, 0.0, 0.3)]
    rows = [base | {"phase": "search"} | point for point in [*points, *seeds]]
    return [row | {"trial": f"{backbone}{optimizer}{place}"} for place, row in enumerate(rows)]


def table(rows: list[Row] | None = None, spaces: Mapping[str, Dims] | None = None, **rest: Any) -> TrialTable:
    rows = [row for key in KEYS for row in cell(*key)] if rows is None else rows
    frame = pd.DataFrame([{"audit": False, "message": "", "seed": None} | row for row in rows])
    curves = frame[["backbone", "optimizer", "trial", "budget", "score"]]
    source = Source(kind="table", name="t", sha256="")
    spaces = dict.fromkeys("xy", DIMS) if spaces is None else spaces
    return make_table(frame, curves, objective=OBJECTIVE, source=source, spaces=spaces, **rest)


def with_landscapes(findings: Findings, centre: tuple[float, float] = (-2.5, -3.5)) -> Findings:
    """The same with a landscape in every cell, known exactly, as high as the cell's own score."""
    fitted = exact(lambda u, v: bowl(u, v, centre), nodes=41)
    curve, estimates, top = tuning_curve(fitted), measure(fitted), float(fitted.mean[fitted.best_node])
    gaps = {(cell.backbone, cell.optimizer): (cell.best.value or top) - top for cell in findings.cells}
    landscapes = {key: replace(fitted, mean=fitted.mean + gaps[key]) for key in findings.models}
    models = {
        key: replace(model, model=landscapes[key], estimates=estimates, curve=curve)
        for key, model in findings.models.items()
    }
    return replace(findings, models=models, landscapes=landscapes)


@cache
def healthy() -> Findings:
    return with_landscapes(find(table()))


def changed(**values: Any) -> Callable[[Row], Row]:
    """Some fields of a row replaced."""
    return lambda row: row | values


def edited(which: Callable[[Row], bool], edit: Callable[[Row], Row], **rest: Any) -> Findings:
    rows = [edit(row) if which(row) else row for key in KEYS for row in cell(*key)]
    return with_landscapes(find(table(rows, **rest)))


def first_cell(row: Row) -> bool:
    return bool(row["backbone"] == "a" and row["optimizer"] == "x")


def first_trial(row: Row) -> bool:
    return bool(row["trial"] == "ax0")


def without(dropped: Callable[[Row], bool]) -> Findings:
    rows = [row for key in KEYS for row in cell(*key) if not dropped(row)]
    return with_landscapes(find(table(rows)))


def unclear() -> Findings:
    """The best point lies at every edge in a third of the draws, and inside in the others."""
    findings = healthy()
    vague = measure(exact(bowl, nodes=41))["edge_probability"]
    models = {
        key: replace(model, estimates=dict(model.estimates) | {"edge_probability": replace(vague, value=0.4)})
        for key, model in findings.models.items()
    }
    return replace(findings, models=models)


def off() -> Findings:
    """The model of one cell lies 20 points below its seeds."""
    findings = healthy()
    model = next(iter(findings.models.values())).model
    assert isinstance(model, Landscape)
    first = next(iter(findings.models))
    lower = replace(findings.models[first], model=replace(model, mean=model.mean - 20))
    return replace(findings, models=findings.models | {first: lower})


def noisy() -> Findings:
    """Seeds that differ by more than one point lets one see."""
    fitted = replace(exact(bowl, nodes=41), noise=1.2)
    findings = healthy()
    models = {key: replace(model, estimates=measure(fitted)) for key, model in findings.models.items()}
    return replace(findings, models=models)


def led() -> Findings:
    return replace(healthy(), grid=replace(healthy().grid, led_by_failures=True))


NARROW: Dims = {"lr": Dim(name="lr", low=1e-4, high=1.0), "weight_decay": DIMS["weight_decay"]}
SHIFTED: Dims = {"lr": Dim(name="lr", low=2.5e-3, high=250.0), "weight_decay": DIMS["weight_decay"]}
WIDE: Dims = {"lr": Dim(name="lr", low=1e-4, high=1e11), "weight_decay": DIMS["weight_decay"]}
STOPPED = {"status": "stopped", "budget": 3.0}
FIRES: dict[str, tuple[Callable[[], Findings], str]] = {
    "incomplete_matrix": (lambda: without(first_cell), "1 of 4 cells have no value yet (a/x)"),
    "failed_trials": (
        lambda: edited(
            first_cell, lambda row: row | ({"status": "oom", "message": "why"} if row["trial"] == "ax0" else {})
        ),
        "1 oom in a/x: why",
    ),
    "garbled_lines": (lambda: with_landscapes(find(table(garbled=("f:3: torn",)))), "1 journal line(s)"),
    "led_by_failures": (led, "driven by failed cells"),
    "optimum_at_edge": (lambda: with_landscapes(healthy(), (0.5, -3.5)), "{x: {lr: {high: 10}}, y: {lr: {high: 10}}}"),
    "optimum_unclear": (unclear, "a/x (0.40), a/y (0.40)"),
    "edge_of_range": (lambda: edited(first_cell, changed(), spaces={"x": SHIFTED}), "a/x (0.00316, 0.10 decades from"),
    "best_in_outer_fifth": (
        lambda: with_landscapes(find(table(spaces={"x": WIDE}))),
        "a/x (10 in the lowest)",
    ),
    "no_landscape": (lambda: find(table()), "No landscape in 4 cell(s)"),
    "model_against_seeds": (off, "more than 1 point from the fresh seeds in a/x (model "),
    "many_diverged": (
        lambda: edited(lambda row: first_cell(row) and row["score"] < 60, changed(status="diverged", score=1.0)),
        "30% of the trials diverged in a/x",
    ),
    "all_diverged": (lambda: edited(first_cell, changed(status="diverged", score=1.0)), "Every trial diverged in a/x."),
    "too_few_seeds": (
        lambda: without(lambda row: first_cell(row) and row["trial"] in ("ax12", "ax13")),
        "1 of 4 cells (a/x) have fewer than 3 fresh seeds",
    ),
    "unequal_noise": (
        lambda: edited(lambda row: first_cell(row) and row["trial"] == "ax12", changed(score=50.0)),
        "(usual sd 0.3) in a/x (sd ",
    ),
    "same_seed": (
        lambda: edited(lambda row: first_cell(row) and row["phase"] == "repeat", changed(seed=1, score=70.0)),
        "2 trial(s) have the setting, the seed and the score of another, in a/x",
    ),
    "validated_on_test": (lambda: with_landscapes(find(table(validated_on_test=True))), "on the test data"),
    "unequal_trials": (lambda: without(first_trial), "from 14 to 15"),
    "mixed_budgets": (
        lambda: edited(first_trial, changed(budget=3.0, max_budget=3.0)),
        "1 trial(s) were planned for less",
    ),
    "ended_on_success": (
        lambda: edited(lambda row: row["phase"] == "repeat", lambda row: row | {"budget": 4.0, "score": 99.5}),
        "12 completed trials ended early, all within 1 point above 99.5",
    ),
    "censored": (lambda: edited(first_trial, changed(**STOPPED)), "1 of 60 trials were stopped"),
    "unlike_ranges": (
        lambda: with_landscapes(find(table(spaces={"x": DIMS, "y": NARROW}))),
        "Ranges of learning rate differ in width (x 5.0, y 4.0 decades)",
    ),
    "tolerance": (noisy, "stated at 5 points"),
    "unfinished": (
        lambda: edited(first_trial, changed(status="running")),
        "1 trial(s) are running",
    ),
    "reading": (lambda: with_landscapes(find(table(notes=("Read so.",)))), "Read so."),
}


def test_nothing_is_said_of_a_healthy_grid() -> None:
    assert run_checks(healthy()) == ()


@pytest.mark.parametrize("name", FIRES)
def test_a_check_fires_once(name: str) -> None:
    build, words = FIRES[name]
    found = [check for check in run_checks(build()) if check.name == name]
    assert len(found) == 1
    assert words in found[0].message


def test_every_check_is_tried() -> None:
    """`CHECKS` holds one function a name, but for the edge's two."""
    assert len(FIRES) == len(CHECKS) + 1


def test_the_gravest_come_first() -> None:
    levels = [check.level for check in run_checks(without(first_cell))]
    assert levels == sorted(levels, key=("problem", "caution", "note").index)


def test_many_cells_are_counted_not_listed() -> None:
    many = [f"n{number}" for number in range(MOST_LISTED + 3)]
    rows = [row | {"optimizer": name, "status": "diverged"} for name in many for row in cell("a", "x")]
    (check,) = (c for c in run_checks(find(table(rows))) if c.name == "all_diverged")
    assert "and 3 more" in check.message
    assert len(check.cells) == len(many)


def test_json_names_a_single_cell() -> None:
    one = Check(name="n", level="note", message="m", cells=("a/b",)).to_json()
    assert one == {"name": "n", "level": "note", "message": "m", "cells": ["a/b"], "cell": "a/b"}
    assert "cell" not in Check(name="n", level="note", message="m", cells=("a/b", "a/c")).to_json()


def test_a_run_that_validates_on_test_data_says_so(tmp_path: Any) -> None:
    small = FakeRun(backbones=("a",), optimizers=("b",), trials=3, repeats=0)
    assert not load(str(write_run(tmp_path / "val", small))).validated_on_test
    flagged = replace(small, settings={"dataset": {"name": "d", "validate_on": "test"}})
    assert load(str(write_run(tmp_path / "test", flagged))).validated_on_test


def test_the_fixture_is_what_it_says() -> None:
    values = healthy().matrix
    assert values.shape == (2, 2)
    assert np.isfinite(values).all()
    assert not math.isnan(healthy().cells[0].sd)
