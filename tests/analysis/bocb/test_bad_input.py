"""What the paper's measures say of grids that do not carry them: a reason in its place, never a made-up number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bocb_tune.analysis.core.estimate import Reason
from bocb_tune.analysis.findings.collect import Findings, find
from bocb_tune.analysis.findings.metrics_file import to_json
from bocb_tune.analysis.names.table import OPTIMIZERS
from bocb_tune.analysis.report import figures
from bocb_tune.analysis.report.cards.values import Card, NotApplicable
from bocb_tune.analysis.report.sections import bocb as sections
from bocb_tune.analysis.sources.load import load

NINE = tuple(row.key for row in OPTIMIZERS[:9])


def examined(folder: Path, rows: list[dict[str, Any]]) -> tuple[Findings, Any]:
    """The findings of a table and its `metrics.json`."""
    pd.DataFrame(rows).to_csv(folder / "t.csv", index=False)
    findings = find(load(str(folder / "t.csv")))
    return findings, to_json(findings)


def grid(optimizers: tuple[str, ...], score: Any, without: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """Trials of four backbones, one a cell; those of some optimizers failed."""
    return [
        {
            "backbone": backbone,
            "optimizer": name,
            "score": "" if name in without else score(b, o),
            "status": "failed" if name in without else "completed",
        }
        for b, backbone in enumerate(("resnet50", "swin_tiny", "deit_small", "vgg13"))
        for o, name in enumerate(optimizers)
    ]


def drawn(findings: Findings) -> int:
    """Draw the figures of the grid as the paper shows it, and count them."""
    card = sections.paper_table(findings)
    assert isinstance(card, Card)
    with figures.look():
        return len([figures.draw(plot) for plot in card.figures])


def refused(section: Card | NotApplicable) -> str:
    assert isinstance(section, NotApplicable)
    return section.reason


def test_columns_without_any_score(tmp_path: Path) -> None:
    findings, metrics = examined(tmp_path, grid(NINE, lambda b, o: 70 + b - o / 7, without=NINE[:3]))
    assert "0 of 4 backbones have a score with every optimizer" in refused(sections.paper_ranking(findings))
    assert metrics["optimizers"]["sgd"]["overall_rank"] is None
    assert metrics["optimizers"]["sgd"]["failures_by_median"] == 0
    assert metrics["backbones"]["vgg13"]["mean_drop_worst"] is None
    assert {each["psi"]["value"] for each in metrics["grid"]["paper_contrasts"]} == {None}
    assert Reason.INCOMPLETE_MATRIX in {each["psi"]["reason"] for each in metrics["grid"]["paper_contrasts"]}
    assert metrics["grid"]["training_loss"]["reason"] == Reason.NOT_MEASURED
    assert drawn(findings) == 2


def test_equal_scores(tmp_path: Path) -> None:
    findings, metrics = examined(tmp_path, grid(("sgd", "adam", "adamw", "lamb", "adagrad"), lambda _, __: 70.0))
    assert metrics["grid"]["failures_by_equation"] == metrics["grid"]["failures_by_median"] == 0
    assert {each["overall_rank"] for each in metrics["optimizers"].values()} == {1}
    assert [each["p_first"] for each in metrics["optimizers"].values()] == pytest.approx([0.2] * 5)
    assert drawn(findings) == 2


def test_one_category_of_optimizers(tmp_path: Path) -> None:
    findings, metrics = examined(tmp_path, grid(("adam", "adamw", "nadam", "lamb"), lambda b, o: 70.0 + b + o))
    assert {each["psi"]["reason"] for each in metrics["grid"]["paper_contrasts"]} == {Reason.TOO_FEW_OPTIMIZERS}
    assert Reason.NO_SETTINGS.sentence in refused(sections.settings_distance(findings))
    assert {each["settings_distance"]["reason"] for each in metrics["optimizers"].values()} == {Reason.NO_SETTINGS}
    assert {each["step_cost"]["reason"] for each in metrics["optimizers"].values()} == {Reason.NOT_MEASURED}


def test_a_loss_has_no_failures_in_points(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [
        {"backbone": b, "optimizer": o, "val_loss": 1 + rng.random()}
        for b in ("resnet50", "swin_tiny", "vgg13")
        for o in ("sgd", "adam", "adamw", "lamb")
    ]
    findings, metrics = examined(tmp_path, rows)
    assert metrics["grid"]["failures_by_median"] is None
    assert refused(sections.paper_table(findings)) == Reason.NOT_IN_POINTS.sentence
