"""A source -> its report folder: one HTML file, and the same numbers as JSON, CSV, SVG and PNG."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from bocb_tune.analysis.cards import SECTIONS, Card, NotApplicable
from bocb_tune.analysis.checks import run_checks
from bocb_tune.analysis.figures import render
from bocb_tune.analysis.findings import Findings, find, to_json
from bocb_tune.analysis.load import load


def analyze(source: str, out: Path | None = None, space_file: Path | None = None) -> Path:
    """Read a source and write its report folder.

    Args:
        source: a run folder (finished or not), a CSV or Parquet trial table, or one of `paper:cifar100`,
            `paper:imagenet`, `paper:coco`.
        out: the report folder; `report` inside a run folder, or in the current folder for a table. Its `figures` and
            `tables` are written over, nothing is deleted.
        space_file: search space the trials were drawn from, named after its optimizer, for tables.

    Returns:
        Path of `report.html`.

    Raises:
        ValueError: if the source or the search space cannot be read; the message says where and what to do.
    """
    findings = find(load(source, space_file))
    folder = out or (Path(source) / "report" if findings.table.source.kind == "run" else Path("report"))
    for name in ("figures", "tables"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    cards = [section(findings) for section in SECTIONS]
    _write_numbers(findings, cards, folder)
    page = folder / "report.html"
    page.write_text(_page(findings, cards, folder), encoding="utf-8")
    return page


def _write_numbers(findings: Findings, cards: list[Card | NotApplicable], folder: Path) -> None:
    values = to_json(findings) | {"checks": [asdict(check) for check in run_checks(findings)]}
    text = json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False)
    (folder / "metrics.json").write_text(text + "\n", encoding="utf-8")
    findings.table.trials.to_csv(folder / "tables" / "trials.csv", index=False)
    for table in (table for card in cards if isinstance(card, Card) for table in card.tables):
        table.frame.to_csv(folder / "tables" / f"{table.stem}.csv", index=False)


def _page(findings: Findings, cards: list[Card | NotApplicable], folder: Path) -> str:
    loader = PackageLoader("bocb_tune.analysis", "templates")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    plots = [plot for card in cards if isinstance(card, Card) for plot in card.figures]
    return environment.get_template("report.html").render(
        table=findings.table,
        cards=cards,
        pictures={plot.stem: Markup(render(plot, folder / "figures")) for plot in plots},
        zip=zip,
    )
