"""The report folder: complete, self-contained, safe for any name, the same for the same source."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bocb_tune import search_spaces
from bocb_tune.analysis.cell.metrics import METRICS
from bocb_tune.analysis.core.estimate import Reason
from bocb_tune.analysis.findings.collect import Findings, find
from bocb_tune.analysis.names.quantities import QUANTITIES
from bocb_tune.analysis.report import figures, plots, write
from bocb_tune.analysis.report.sections import SECTIONS, Card, NotApplicable
from bocb_tune.analysis.report.sections.tuning import sensitivity
from bocb_tune.analysis.report.write import analyze
from bocb_tune.analysis.sources.load import load
from tests.support.fakes import FakeRun, write_run

HOSTILE = ("<script>alert(1)</script>", "\"quoted\" & 'single'", "two\nlines", "../../escape", "$x_2$ {{ 7*7 }}", "a,b")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return analyze(str(write_run(tmp_path_factory.mktemp("run"), FakeRun(trials=8))))


def test_the_folder_holds_what_it_should(page: Path) -> None:
    folder = page.parent
    assert page.name == "report.html"
    assert folder.name == "report"
    pictures = {
        "winners",
        "failures-apart",
        "cell-matrix",
        "interaction",
        "overview",
        *(f"{kind}-0{n}" for kind in ("landscape", "curves") for n in (1, 2, 3)),
    }
    assert {path.name for path in (folder / "figures").iterdir()} == {
        f"{n}{s}" for n in pictures for s in (".svg", ".png")
    }
    tables = {
        "winners",
        "best_points",
        "recommendations",
        "cell_matrix",
        "counts_by_phase",
        "counts_by_status",
        "decomposition",
        "trials",
        "paper_ranking",
        "training_loss",
    }
    assert {path.stem for path in (folder / "tables").iterdir()} == tables
    assert len(pd.read_csv(folder / "tables" / "best_points.csv")) == 9


def test_metrics_follow_the_schema(page: Path) -> None:
    metrics = json.loads((page.parent / "metrics.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)
    parts = {
        "schema",
        "source",
        "objective",
        "grid",
        "backbones",
        "optimizers",
        "cells",
        "recommendation",
        "refused_in_every_cell",
        "checks",
    }
    assert set(metrics) == parts
    assert metrics["objective"] == {
        "metric": "top1",
        "mode": "max",
        "floor": 1.0,
        "unit": "points",
        "point": 1.0,
    }
    cell = metrics["cells"]["vit_tiny/sgd"]
    own = {"best", "interaction", "counts", "landscape", "checks", "search", "cross_checks", "refined"}
    assert set(cell) == own | {metric.key for metric in METRICS}
    assert cell["search"]["trials"] == 9
    assert cell["search"]["observed"]["64"]["reason"] in ("NOT_IID", "BUDGET_EXCEEDS_DATA")
    assert set(metrics["recommendation"]) == {"general", "leave_one_backbone_out", "per_backbone"}
    assert (cell["lr_star"]["status"], cell["lr_star"]["reason"]) == ("refused", "NO_SPACE")
    fields = [
        "value",
        "lo",
        "hi",
        "level",
        "unit",
        "n_trials",
        "n_completed",
        "n_stopped",
        "n_diverged",
        "n_seeds",
        "method",
        "status",
        "reason",
    ]
    assert set(metrics["grid"]["kendall_w"]) == set(fields)
    assert metrics["grid"]["kendall_w"]["status"] == "refused"
    assert metrics["grid"]["kendall_w"]["reason"] == "TOO_FEW_BACKBONES"
    assert 0 < metrics["grid"]["interaction_share"]["value"] < 1


def test_the_page_stands_alone(page: Path) -> None:
    """Nothing is fetched: all links lead into the folder or the page, namespaces aside."""
    html = page.read_text(encoding="utf-8")
    outside = [
        url for url in re.findall(r'(?:src|href)="([^"]*)"', html) if not re.match(r"#|tables/|data:image/png", url)
    ]
    assert outside == []
    assert html.count("<script") == 1
    assert "@import" not in html
    labels = re.findall(r'role="img" aria-label="([^"]*)"', html)
    assert len(labels) == html.count('role="img"')
    assert len(labels) >= 11
    assert all(len(label) > 10 for label in labels)
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"', html)) <= set(ids)


def codes_in(page: Path) -> set[str]:
    """Codes of refusals that a page shows."""
    return set(re.findall(r"\w+", page.read_text(encoding="utf-8"))) & set(Reason)


def test_refusals_are_sentences(page: Path) -> None:
    metrics = (page.parent / "metrics.json").read_text(encoding="utf-8")
    assert set(re.findall(r"\w+", metrics)) & set(Reason)
    assert codes_in(page) == set()


def test_a_cell_says_once_why_it_has_no_landscape(page: Path) -> None:
    cells = page.read_text(encoding="utf-8").split('id="cells"')[1]
    assert cells.count("<dd>none: ") == 9


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Page of a table of trials; those of one optimizer carry no landscape, since its space is not known."""
    folder, rng = tmp_path_factory.mktemp("searched"), np.random.default_rng(0)
    u, v = rng.uniform(-5, -2, 120), rng.uniform(-4, 0, 120)
    u[60:] = rng.uniform(-3.4, -3.1, 60)
    score = 80 - 8 * (u + 3.3) ** 2 - (v + 1.5) ** 2 + rng.normal(0, 0.2, 120)
    names = {"backbone": ["a", "b"] * 60, "optimizer": ["adamw"] * 60 + ["sgd"] * 60}
    pd.DataFrame(names | {"lr": 10**u, "weight_decay": 10**v, "score": score}).to_csv(folder / "t.csv", index=False)
    return analyze(str(folder / "t.csv"), folder / "report", [Path(search_spaces.__file__).with_name("adamw.yaml")])


def test_a_page_of_landscapes_shows_no_code_and_defines_its_headings(searched: Path) -> None:
    assert codes_in(searched) == set()
    html = unescape(searched.read_text(encoding="utf-8"))
    for key in ("lr_star", "near_optimal_volume", "prior_mean_regret"):
        assert f'title="{QUANTITIES[key].hint}">{QUANTITIES[key].name}</th>' in html
        assert f'title="{QUANTITIES[key].hint}">{QUANTITIES[key].name}</dt>' in html
    assert html.count(f"<dd>none: {Reason.NO_SPACE.sentence}</dd>") == 2


def test_a_column_without_a_value_is_left_out_and_explained_once(searched: Path) -> None:
    findings = find(load(str(searched.parent.parent / "t.csv"), [Path(search_spaces.__file__).with_name("adamw.yaml")]))
    for cell in findings.models.values():
        assert isinstance(cell.estimates, dict)
        cell.estimates["lr_sensitivity"] = replace(
            cell.estimates["lr_sensitivity"], value=None, reason=Reason.PRIOR_MISMATCH
        )
    card = sensitivity(findings)
    assert isinstance(card, Card)
    assert "lr_sensitivity" in card.tables[0].frame
    assert "lr_sensitivity" not in card.tables[0].on_page
    assert sum(Reason.PRIOR_MISMATCH.sentence in line for line in card.text) == 1


@pytest.fixture(scope="module")
def paper_findings() -> Findings:
    return find(load("paper:cifar100"))


def test_the_page_of_the_published_table_is_small_and_in_words(
    tmp_path: Path, paper_findings: Findings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write, "find", lambda *_: paper_findings)
    page = analyze("paper:cifar100", tmp_path)
    assert codes_in(page) == set()
    text = page.read_text(encoding="utf-8")
    assert len(re.findall(r"<[a-z]", text)) <= 10_000
    assert page.stat().st_size <= 3_000_000
    assert len(pd.read_csv(tmp_path / "tables" / "best_points.csv")) == 400


def test_the_same_source_gives_the_same_page(page: Path, tmp_path: Path) -> None:
    again = analyze(str(page.parent.parent), tmp_path / "again")
    assert again.read_bytes() == page.read_bytes()


def test_names_are_shown_not_obeyed(tmp_path: Path) -> None:
    rows = [{"backbone": b, "optimizer": o, "score": 50 + len(b), "lr": 0.1} for b in HOSTILE for o in HOSTILE]
    pd.DataFrame(rows).to_csv(tmp_path / "t<i>.csv", index=False)
    page = analyze(str(tmp_path / "t<i>.csv"), tmp_path / "out")
    html = page.read_text(encoding="utf-8")
    assert html.count("<script") == 1
    assert "&lt;script&gt;alert(1)" in html
    assert "49 {{" not in html
    assert "{{ 7*7 }}" in html
    assert {path.name for path in tmp_path.iterdir()} == {"t<i>.csv", "out"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"figures", "tables", "metrics.json", "report.html"}
    Balanced().feed(html)


class Balanced(HTMLParser):
    """Fails where a tag closes that is not the last one opened."""

    VOID = ("meta", "br", "hr", "img", "link", "input")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:  # noqa: ARG002
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("shape", [(1, 1), (1, 3), (3, 1), (2, 6)])
def test_any_shape_of_grid_gives_a_report(tmp_path: Path, shape: tuple[int, int]) -> None:
    names = [f"n{index}" for index in range(6)]
    run = FakeRun(
        backbones=tuple(names[: shape[0]]), optimizers=tuple(names[: shape[1]]), trials=3, epochs=2, repeats=0
    )
    page = analyze(str(write_run(tmp_path, run)))
    assert page.stat().st_size > 10_000


def test_a_run_without_a_single_result_gives_a_report(tmp_path: Path) -> None:
    run = FakeRun(backbones=("a",), optimizers=("b",), unfinished=("a/b",))
    html = analyze(str(write_run(tmp_path, run))).read_text(encoding="utf-8")
    assert "No cell has a score yet" in html
    assert Reason.TOO_FEW_COMPLETED.sentence in html


def test_a_section_without_data_says_why(paper_findings: Findings) -> None:
    sections = {section.__name__: section(paper_findings) for section in SECTIONS}
    reasons = {name: card.reason for name, card in sections.items() if isinstance(card, NotApplicable)}
    assert reasons["landscape"] == "only one setting per cell is known"
    assert reasons["curves"] == "the source has no measurements along the budget"
    assert Reason.NOT_SEARCHED.sentence in reasons["sensitivity"]
    fitted = {"sensitivity", "profiles", "alone", "variance", "cross_checks", "budget", "carry_over"}
    assert set(reasons) == {"landscape", "curves", "weights", "training_loss", *fitted}
    told = sections["drift"]
    assert isinstance(told, Card)
    assert "89.2% is due to the optimizer, 2.6% to the backbone and 8.2% to the pairing" in told.text[1]
    matrix = sections["matrix"]
    assert isinstance(matrix, Card)
    assert "from 0.55 (without LARS) to 0.84 (without AdaGrad) when one optimizer" in matrix.text[-2]
    assert isinstance(sections["conclusions"], Card)


def test_what_is_about_the_paper_stands_in_no_other_report(page: Path) -> None:
    assert "paper&#39;s conclusions" not in page.read_text(encoding="utf-8")


def test_figures_show_what_the_trials_were(tmp_path: Path) -> None:
    findings = find(load(str(write_run(tmp_path, FakeRun(trials=10)))))
    shown = plots.landscapes(findings)
    assert sum(len(panel.status) for figure in shown for panel in figure.panels) == len(findings.table.trials)
    assert all(panel.is_default.sum() == 1 for figure in shown for panel in figure.panels)
    assert all(panel.is_best.any() for figure in shown for panel in figure.panels)
    heat = plots.score_heatmap(findings)
    assert heat.values[0].mean() >= heat.values[-1].mean()
    assert heat.values[:, 0].mean() >= heat.values[:, -1].mean()


def test_importing_the_package_is_cheap() -> None:
    code = "import sys, bocb_tune.analysis; print({'pandas', 'matplotlib', 'scipy', 'torch', 'ray'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_a_plot_nobody_can_draw_is_our_mistake() -> None:
    with pytest.raises(NotImplementedError):
        figures.draw(plots.Plot(stem="s", title="t", caption="c"))
