"""Columns of a metric that is no score: a table's file and its excerpt on the page hold the metric itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from bocb_tune.analysis.findings.collect import find
from bocb_tune.analysis.report.cards.values import Card
from bocb_tune.analysis.report.sections.cells import best_points
from bocb_tune.analysis.sources.load import load
from tests.support.tables import write

SEARCH = [f"a,b,{loss},{10.0**-place}" for place, loss in enumerate((0.9, 0.8, 0.7, 0.6, 0.5))]
SEEDS = [f"a,b,{loss},0.0001" for loss in (0.52, 0.54, 0.56)]


def test_best_points_of_losses_are_losses_in_the_file_and_on_the_page(tmp_path: Path) -> None:
    table = load(write(tmp_path / "t.csv", "backbone,optimizer,val_loss,lr", *SEARCH, *SEEDS))
    card = best_points(find(table))
    assert isinstance(card, Card)
    (shown,) = card.tables
    for frame in (shown.frame, shown.on_page):
        row = frame.iloc[0]
        assert row["score"] == pytest.approx(0.54)
        assert row["selected_score"] == pytest.approx(0.5)
        assert row["sd"] == pytest.approx(0.02)
        assert row["from"] < row["score"] < row["to"]
        assert row["to"] - row["score"] == pytest.approx(4.3027 * 0.02 / 3**0.5, rel=1e-3)
