"""What refining gained: by hand, and its intervals against planted gains through the whole engine."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bocb_tune.analysis.core.estimate import Estimate, Reason
from bocb_tune.analysis.matrix.cells import summarise_cells
from bocb_tune.analysis.recommend.recommendation import Recommendation
from bocb_tune.analysis.report.recommend import with_refined
from bocb_tune.analysis.report.write import analyze
from bocb_tune.analysis.sources.load import read_journals
from bocb_tune.analysis.sources.table import REFINED_COLUMNS, TrialTable
from bocb_tune.analysis.tuning.refining import Refining, refining_of
from bocb_tune.engine.policy import Plan
from bocb_tune.tasks import synthetic
from bocb_tune.tasks.synthetic import FLOOR, OWN, SHAPES, clean_score, truth
from tests.support.simulated import Simulation, make_cells, make_plan

ONE_CELL = make_plan(design=4, search=5, refine=4, repeats_best=3)


def refined_run(folder: Path, plan: Plan = ONE_CELL) -> TrialTable:
    Simulation(folder, make_cells(plan, ("bowl",), ("sgd",))).run()
    return read_journals(folder)


def found_in(table: TrialTable) -> Refining:
    return refining_of(table, summarise_cells(table))


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> TrialTable:
    return refined_run(tmp_path_factory.mktemp("refined"))


def repeats(table: TrialTable) -> tuple[pd.DataFrame, pd.DataFrame, str]:
    """Fresh seeds at the best point and at the refined best, by seed; and what the latter has as its own."""
    (cell,) = summarise_cells(table)
    plain, refined = table.trials, table.refined
    tried = refined[refined["phase"] == "refine"]
    own = tried.loc[tried["score"].where(tried["status"] == "completed").idxmax(), "own"]
    best = plain[(plain["phase"] == "repeat") & (plain["lr"] == cell.lr) & (plain["weight_decay"] == cell.weight_decay)]
    return best.set_index("seed"), refined[refined["phase"] == "repeat"].set_index("seed"), str(own)


def test_the_gain_is_the_mean_difference_of_the_same_seeds(table: TrialTable) -> None:
    best, fresh, own = repeats(table)
    difference = (fresh["score"] - best["score"]).dropna()
    found = found_in(table).cells["bowl", "sgd"]
    assert (found.trials, dict(found.own)) == (4, json.loads(own))
    assert found.gain.value == pytest.approx(difference.mean())
    half = 4.302653 * difference.std(ddof=1) / np.sqrt(3)  # t of 2 degrees of freedom
    assert (found.gain.lo, found.gain.hi) == pytest.approx(
        (difference.mean() - half, difference.mean() + half), rel=1e-5
    )
    assert found_in(table).grid.value == found.gain.value


def test_the_order_of_the_trials_is_of_no_account(table: TrialTable) -> None:
    turned = replace(table, trials=table.trials[::-1], refined=table.refined[::-1])
    assert found_in(turned) == found_in(table)


def test_a_refined_setting_that_diverges_scores_the_floor(table: TrialTable) -> None:
    best, fresh, _ = repeats(table)
    lost = fresh["trial"].iloc[0]
    refined = table.refined.assign(status=table.refined["status"].where(table.refined["trial"] != lost, "diverged"))
    gain = found_in(replace(table, refined=refined)).cells["bowl", "sgd"].gain
    scores = fresh["score"].where(fresh["trial"] != lost, FLOOR)
    assert gain.value == pytest.approx((scores - best["score"]).dropna().mean())
    assert gain.value < -10


def test_seeds_that_only_one_side_has_are_left_out(table: TrialTable) -> None:
    best, fresh, _ = repeats(table)
    missing = fresh["trial"].iloc[0]
    kept = replace(table, refined=table.refined[table.refined["trial"] != missing])
    gain = found_in(kept).cells["bowl", "sgd"].gain
    assert gain.counts.n_seeds == 2
    difference = (fresh["score"].iloc[1:] - best["score"]).dropna()
    assert gain.value == pytest.approx(difference.mean())
    assert (gain.lo, gain.reason) == (None, Reason.TOO_FEW_REPLICATES)


def test_refusals(table: TrialTable, tmp_path: Path) -> None:
    no_seeds = replace(table, refined=table.refined[table.refined["phase"] == "refine"])
    gain = found_in(no_seeds).cells["bowl", "sgd"].gain
    assert (gain.value, gain.reason, gain.counts.n_trials) == (None, Reason.TOO_FEW_REPLICATES, 4)
    nothing = found_in(replace(table, refined=pd.DataFrame(columns=REFINED_COLUMNS)))
    assert nothing.grid.reason == nothing.cells["bowl", "sgd"].gain.reason == Reason.NOT_REFINED
    assert nothing.over_backbones.reason == Reason.NOT_REFINED
    assert nothing.calls == 0
    lost = table.refined.assign(status="diverged")
    assert found_in(replace(table, refined=lost)).cells["bowl", "sgd"].gain.reason == Reason.TOO_FEW_REPLICATES
    assert found_in(refined_run(tmp_path, make_plan(repeats_best=0, refine=2))).grid.value is None


def test_a_recommendation_names_what_gained_and_nothing_else(table: TrialTable) -> None:
    none = Estimate(value=None, unit="points")
    advice = Recommendation(backbone="bowl", trials=8, optimizer="sgd", expected=none, regret=none)
    found = found_in(table)
    cell = found.cells["bowl", "sgd"]
    for lo, own in ((0.1, cell.own), (-0.1, {})):
        gain = Estimate(value=1.0, lo=lo, hi=2.0, unit="points")
        gained = with_refined(advice, replace(found, cells={("bowl", "sgd"): replace(cell, gain=gain)}))
        assert gained.to_json()["own"] == own
        assert any("refining gained 1.00" in line for line in gained.lines()) == (lo > 0)


# Planted gains

OPTIMIZERS = tuple(OWN)
PLAN = make_plan(search=12, refine=6, repeats_best=3, repeats_default=0, sampler="random")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """What became of cells with a planted gain, or none."""

    cells: int
    held: int
    """Cells whose interval holds the truth."""
    called: int
    """Cells called a gain that have none."""
    without: int
    """Cells without a gain."""
    grids_held: int
    """Grids whose mean gain lies in its interval."""


def planted(folder: Path, grids: int, gain: float, monkeypatch: pytest.MonkeyPatch) -> Tally:
    """Runs grids of 25 cells through the engine; the truth is that of the two settings it chose."""
    every = {(backbone, optimizer): gain for backbone in SHAPES for optimizer in OPTIMIZERS}
    monkeypatch.setattr(synthetic, "OWN_GAINS", every)
    if not gain:
        monkeypatch.setattr(synthetic, "OWN", {})  # nothing that is refined matters: each true gain is 0
    hits, calls, grids_held = [], [], 0
    for seed in range(grids):
        run = folder / f"{gain}-{seed}"
        Simulation(run, make_cells(replace(PLAN, seed=seed), tuple(SHAPES), OPTIMIZERS)).run()
        table = read_journals(run)
        cells = summarise_cells(table)
        found, truths = refining_of(table, cells), []
        for cell in cells:
            mine = found.cells[cell.backbone, cell.optimizer]
            if mine.gain.value is None or cell.lr > 10**-0.5 * truth(cell.backbone, cell.optimizer).divergence_lr:
                continue  # seeds that diverge now and then make no normal differences
            at: dict[str, Any] = {"lr": cell.lr, "weight_decay": cell.weight_decay, "share": 1.0}
            truths.append(
                clean_score(cell.backbone, cell.optimizer, own=mine.own, **at)
                - clean_score(cell.backbone, cell.optimizer, **at)
            )
            assert mine.gain.lo is not None
            assert mine.gain.hi is not None
            hits.append(mine.gain.lo <= truths[-1] <= mine.gain.hi)
            calls += [mine.gains] if truths[-1] <= 0 else []
        assert found.grid.lo is not None
        assert found.grid.hi is not None
        grids_held += found.grid.lo <= np.mean(truths) <= found.grid.hi
    return Tally(cells=len(hits), held=sum(hits), called=sum(calls), without=len(calls), grids_held=grids_held)


def test_intervals_hold_planted_gains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tally = planted(tmp_path, 1, 0.4, monkeypatch)
    assert tally.cells >= 15
    assert tally.held >= 0.85 * tally.cells


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("gain", [0.0, 0.4])
def test_coverage_over_a_hundred_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gain: float) -> None:
    tally = planted(tmp_path, 6, gain, monkeypatch)
    print(tally)
    assert tally.cells >= 100
    assert tally.held >= 0.85 * tally.cells
    assert tally.called <= 0.10 * tally.without


def test_the_report_says_whether_refining_paid(tmp_path: Path) -> None:
    plan = make_plan(refine=4, repeats_best=3)
    Simulation(tmp_path / "run", make_cells(plan, ("bowl", "cliff", "ridge"), ("sgd",))).run()
    page = analyze(str(tmp_path / "run"))
    values = json.loads((page.parent / "metrics.json").read_text(encoding="utf-8"))
    found = found_in(read_journals(tmp_path / "run"))
    assert values["grid"]["refining_gain"]["value"] == pytest.approx(found.grid.value)
    assert values["grid"]["refining_gain_over_backbones"]["lo"] == pytest.approx(found.over_backbones.lo)
    assert values["optimizers"]["sgd"]["refining_gain"]["value"] == pytest.approx(found.optimizers["sgd"].value)
    assert values["cells"]["bowl/sgd"]["refined"]["own"] == dict(found.cells["bowl", "sgd"].own)
    html = page.read_text(encoding="utf-8")
    assert "Does tuning beyond learning rate and weight decay pay?" in html
    gains = [each.gain.value for each in found.cells.values() if each.gain.value is not None]
    assert f"Half of the cells gain less than {median(gains):.2f}" in html
    assert f"trials, and {len(read_journals(tmp_path / 'run').refined)} of refining" in html
    assert f"{found.calls} of 3 cells gain" in html
    assert len(pd.read_csv(page.parent / "tables" / "refining.csv")) == 3
