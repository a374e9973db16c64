"""The grid: every pair once, planned or skipped; and what it costs, against counting by hand."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bocb_tune.core.types import Phase
from bocb_tune.engine.policy import rung_budgets
from bocb_tune.profiling.cost import competing_share, cost
from bocb_tune.spec.experiment_file import Asha
from bocb_tune.spec.grid import plan_grid
from bocb_tune.spec.model import ExperimentSpec, load_spec

TEXT = """\
name: tiny
task: {name: synthetic, noise: 2}
dataset: synthetic
backbones: [bowl, ridge]
optimizers: [sgd, adamw, lion]
recipe: {base: digits, batch_size: 32}
budget: {epochs: 9, trials_per_cell: 20}
search: {design: 7, audit: 0.25, asha: {grace: 1, reduction_factor: 3}}
repeats: {best: 2, default: 1}
resources: {workers: 2}
search_spaces: {sgd: {fixed: {momentum: 0.8}}}
"""


@pytest.fixture
def spec(tmp_path: Path) -> ExperimentSpec:
    path = tmp_path / "x.yaml"
    path.write_text(TEXT)
    return load_spec(path)


def test_every_pair_once_in_the_order_of_the_file(spec: ExperimentSpec) -> None:
    grid = plan_grid(spec)
    keys = ["bowl/sgd", "bowl/adamw", "bowl/lion", "ridge/sgd", "ridge/adamw", "ridge/lion"]
    assert [planned.cell.key for planned in grid.cells] == keys
    assert grid.skipped == ()


def test_settings_are_resolved_and_plain(spec: ExperimentSpec) -> None:
    planned = plan_grid(spec).cells[0]
    assert planned.settings == json.loads(json.dumps(planned.settings))
    assert planned.settings["task"] == {"noise": 2.0, "epoch_s": 0.0}
    assert planned.settings["dataset"] == {"name": "synthetic"}
    assert planned.settings["recipe"]["batch_size"] == 32
    assert planned.settings["recipe"]["label_smoothing"] == spec.recipe.label_smoothing
    assert planned.settings["optimizer"] == {"momentum": 0.8}
    assert planned.settings["workers"] == 2
    assert planned.space is spec.search_spaces["sgd"]


@pytest.mark.parametrize(
    ("only", "keys"),
    [
        ("*/sgd", ["bowl/sgd", "ridge/sgd"]),
        ("bowl/*", ["bowl/sgd", "bowl/adamw", "bowl/lion"]),
        ("ridge/lion", ["ridge/lion"]),
        ("*/[al]*", ["bowl/adamw", "bowl/lion", "ridge/adamw", "ridge/lion"]),
    ],
)
def test_only_skips_the_rest_with_the_reason(spec: ExperimentSpec, only: str, keys: list[str]) -> None:
    grid = plan_grid(spec, only)
    assert [planned.cell.key for planned in grid.cells] == keys
    assert {skipped.reason for skipped in grid.skipped} == {f"not matched by --only {only}"}
    assert sorted(keys + [skipped.cell.key for skipped in grid.skipped]) == sorted(
        planned.cell.key for planned in plan_grid(spec).cells
    )


def test_only_that_matches_nothing_is_refused(spec: ExperimentSpec) -> None:
    with pytest.raises(
        ValueError, match=r"^--only 'sgd' matches no cell, written BACKBONE/OPTIMIZER; there are bowl/sgd, bowl/adamw, "
    ):
        plan_grid(spec, "sgd")


def test_cost_by_hand(spec: ExperimentSpec) -> None:
    """6 cells of 1 + 7 + 12 + 3 trials; rungs at 1 and 3 of 9 epochs; a competing trial takes 1 + 2/3 + 6/9 epochs."""
    planned = cost(spec, plan_grid(spec))
    assert planned.trials == {Phase.default: 6, Phase.design: 42, Phase.search: 72, Phase.refine: 0, Phase.repeat: 18}
    assert planned.total_trials == 138
    assert planned.rungs == (1, 3)
    assert planned.epochs_worst == 138 * 9
    assert planned.epochs_expected == pytest.approx(24 * 9 + 114 * (0.25 * 9 + 0.75 * (1 + 2 / 3 + 6 / 9)))
    assert planned.checkpoints == 6


def test_without_early_stopping_the_worst_is_expected(spec: ExperimentSpec) -> None:
    free = replace(spec, search=spec.search.model_copy(update={"asha": None}))
    planned = cost(free, plan_grid(free))
    assert planned.rungs == ()
    assert planned.epochs_expected == pytest.approx(planned.epochs_worst)


def test_cost_is_proportional_to_the_cells_that_are_not_skipped(spec: ExperimentSpec) -> None:
    whole, part = cost(spec, plan_grid(spec)), cost(spec, plan_grid(spec, "*/sgd"))
    assert part.total_trials * 3 == whole.total_trials
    assert part.epochs_expected * 3 == pytest.approx(whole.epochs_expected)


@given(st.integers(1, 9), st.integers(2, 5), st.integers(1, 200))
def test_share_of_a_competing_trial_against_counting_the_survivors(grace: int, factor: int, epochs: int) -> None:
    rungs = rung_budgets(grace, factor, epochs)
    trials = factor ** len(rungs)
    spent, alive = 0, trials
    for epoch in range(1, epochs + 1):
        spent += alive
        alive = alive // factor if epoch in rungs else alive
    assert competing_share(rungs, factor, epochs) == pytest.approx(spent / (trials * epochs))


def test_a_longer_grace_costs_more(spec: ExperimentSpec) -> None:
    graced = replace(spec, search=spec.search.model_copy(update={"asha": Asha(grace=3)}))
    assert cost(graced, plan_grid(graced)).epochs_expected > cost(spec, plan_grid(spec)).epochs_expected
