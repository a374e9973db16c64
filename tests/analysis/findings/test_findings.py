"""From a table of trials to landscapes, metrics and a report, on simulated cells whose truth is known."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from bocb_tune.analysis.cell.metrics import METRICS
from bocb_tune.analysis.cell.modelling import model_cells
from bocb_tune.analysis.checks.run import run_checks
from bocb_tune.analysis.findings.collect import Findings, find
from bocb_tune.analysis.findings.metrics_file import to_json
from bocb_tune.analysis.landscape.fit import NoLandscape
from bocb_tune.analysis.landscape.trials import CellTrials
from bocb_tune.analysis.report.sections import SECTIONS, Card
from bocb_tune.analysis.sources.load import load
from bocb_tune.analysis.sources.table import TrialTable
from bocb_tune.cli.main import app
from bocb_tune.core.space import Dim
from tests.support.coverage.landscapes import BOWL, RIDGE, Planted, simulate

EPOCHS = 9
DIMS = {
    "lr": Dim(name="lr", low=1e-5, high=1.0),
    "weight_decay": Dim(name="weight_decay", low=1e-6, high=0.1, zero_mass=0.15),
}
SPACE = """
lr: {low: 1.0e-5, high: 1.0}
weight_decay: {low: 1.0e-6, high: 0.1, zero: 0.15}
default: {lr: 0.01, weight_decay: 0.001}
fixed: {}
decay: coupled
source: a test
"""
CELLS: dict[tuple[str, str], tuple[Planted, int]] = {
    ("bowl", "sgd"): (BOWL, 1),
    ("bowl", "adam"): (replace(BOWL, centre=(-3.1, -3.3)), 2),
    ("ridge", "sgd"): (RIDGE, 3),
    ("ridge", "adam"): (replace(RIDGE, centre=(-2.7, -3.0)), 4),
}


def rows_of(backbone: str, optimizer: str, trials: CellTrials) -> list[dict[str, Any]]:
    """One row a record, and one for a trial that diverged before its first."""
    rows = []
    for index in range(len(trials.lr)):
        status = "diverged" if trials.diverged[index] else "completed" if trials.completed[index] else "stopped"
        own = trials.record_trial == index
        at = [*zip(trials.record_share[own], trials.record_score[own], strict=True)] or [(1 / EPOCHS, np.nan)]
        same = {"backbone": backbone, "optimizer": optimizer, "trial": f"t{index}", "status": status}
        same |= {"lr": trials.lr[index], "weight_decay": trials.weight_decay[index], "max_budget": EPOCHS}
        rows += [same | {"budget": round(EPOCHS * share), "score": score} for share, score in at]
    return rows


@pytest.fixture(scope="module")
def csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("table") / "trials.csv"
    rows = [row for key, (planted, seed) in CELLS.items() for row in rows_of(*key, simulate(planted, 45, seed))]
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def table(csv: Path) -> TrialTable:
    loaded = load(str(csv))
    objective = replace(loaded.objective, floor=1.0)
    return replace(loaded, objective=objective, spaces=dict.fromkeys(loaded.optimizers, DIMS))


@pytest.fixture(scope="module")
def findings(table: TrialTable) -> Findings:
    return find(table)


def test_every_cell_has_every_metric(findings: Findings) -> None:
    for cell in findings.models.values():
        assert not isinstance(cell.model, NoLandscape), cell.model
        assert set(cell.estimates) == {metric.key for metric in METRICS}
        assert all((e.value is None) == (e.status == "refused") for e in cell.estimates.values())
        assert all(e.reason is not None for e in cell.estimates.values() if e.value is None)


def test_the_planted_optimum_is_in_its_interval(findings: Findings) -> None:
    for (backbone, optimizer), (planted, _) in CELLS.items():
        star = findings.models[backbone, optimizer].estimates["lr_star"]
        assert star.lo is not None
        assert star.hi is not None
        assert star.lo <= 10 ** planted.centre[0] <= star.hi


def test_names_do_not_matter(table: TrialTable, findings: Findings) -> None:
    other = {"bowl": "zebra", "ridge": "ant"}
    frames = [frame.assign(backbone=frame["backbone"].map(other)) for frame in (table.trials, table.curves)]
    renamed = model_cells(replace(table, trials=frames[0], curves=frames[1], backbones=("zebra", "ant")))
    for (backbone, optimizer), cell in findings.models.items():
        assert renamed[other[backbone], optimizer].estimates == cell.estimates


def test_order_of_rows_does_not_matter(table: TrialTable, findings: Findings) -> None:
    shuffled = replace(table, trials=table.trials.sample(frac=1, random_state=0).reset_index(drop=True))
    for key, cell in model_cells(shuffled).items():
        assert cell.estimates == findings.models[key].estimates


def test_processes_change_nothing(table: TrialTable, findings: Findings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bocb_tune.analysis.cell.modelling.FEWEST_PARALLEL", 1)
    for key, cell in model_cells(table).items():
        assert cell.estimates == findings.models[key].estimates


def test_settings_cost_what_they_are_off(findings: Findings) -> None:
    """Both backbones of an optimizer have their optimum at most half a decade apart, so a transfer costs points."""
    found = findings.tuning.optimizers["sgd"].transfer
    assert not hasattr(found, "reason")
    mean = found.mean.value  # type: ignore[union-attr]
    assert mean is not None
    assert 0 < mean < 20


def test_every_section_is_filled_or_says_why(findings: Findings) -> None:
    cards = {section.__name__: section(findings) for section in SECTIONS}
    filled = {name for name, card in cards.items() if isinstance(card, Card)}
    assert {"sensitivity", "profiles", "alone", "variance", "budget", "carry_over", "landscape"} <= filled


def test_numbers_are_json(findings: Findings) -> None:
    values = json.loads(json.dumps(to_json(findings), allow_nan=False))
    cell = values["cells"]["bowl/sgd"]
    assert cell["landscape"]["status"] == "ok"
    assert 0 < cell["landscape"]["validation"]["coverage90"] <= 1
    assert (cell | values["refused_in_every_cell"])["usable_decades_lr_at_2"]["unit"] == "decades"
    search = cell["search"]
    assert search["random_reported"]["value"] >= search["random"]["value"]
    assert search["reported"] > 50
    assert cell["lr_importance"]["value"] + cell["wd_importance"]["value"] == pytest.approx(1)
    assert values["recommendation"]["per_backbone"]["bowl"]["cost"]["epochs"] > 16


def test_checks_count_what_was_stopped(findings: Findings) -> None:
    found = {check.name: check for check in run_checks(findings)}
    assert "were stopped early" in found["censored"].message
    assert "no_landscape" not in found


def test_without_its_space_a_table_has_no_landscape(csv: Path) -> None:
    found = find(replace(load(str(csv)), spaces={}))
    assert {e.reason for cell in found.models.values() for e in cell.estimates.values()} == {"NO_SPACE"}
    assert any(check.name == "no_landscape" for check in run_checks(found))


def test_commands(csv: Path, tmp_path: Path) -> None:
    """A report with a space, a recommendation, a comparison; what cannot be had ends with code 2 and a sentence."""
    (tmp_path / "sgd.yaml").write_text(SPACE)
    run = CliRunner().invoke
    space = ["--space", str(tmp_path / "sgd.yaml")]
    assert run(app, ["analyze", str(csv), "-o", str(tmp_path / "out"), *space]).exit_code == 0
    values = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert values["cells"]["bowl/sgd"]["lr_star"]["status"] == "ok"
    (inferred,) = [each["message"] for each in values["checks"] if "range searched is not stated" in each["message"]]
    assert "adam: lr" in inferred
    assert "sgd" not in inferred
    told = run(app, ["recommend", str(csv), "--backbone", "bowl", "--json"])
    assert json.loads(told.stdout)["backbone"] == "bowl"
    assert run(app, ["analyze", str(csv), str(csv), "-o", str(tmp_path / "pair")]).exit_code == 0
    changed = json.loads((tmp_path / "pair" / "metrics.json").read_text())
    assert changed["overall"]["value"] == 0
    assert run(app, ["analyze", str(csv), str(csv), *space]).exit_code == 2
