"""A source -> its report folder: one HTML file, and the same numbers as JSON, CSV, SVG and PNG."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from bocb_tune.analysis.core.cache import FOLDER
from bocb_tune.analysis.findings import comparison
from bocb_tune.analysis.findings.collect import Findings, find
from bocb_tune.analysis.findings.metrics_file import to_json
from bocb_tune.analysis.patterns.summary import RunPatterns
from bocb_tune.analysis.report.figures import Drawing
from bocb_tune.analysis.report.sections import SECTIONS, Card, NotApplicable, pages
from bocb_tune.analysis.report.sections.comparison import sections as comparison_sections
from bocb_tune.analysis.report.sections.values import CellPage
from bocb_tune.analysis.sources.load import load
from bocb_tune.analysis.sources.stated import NOTHING_STATED, Stated
from bocb_tune.analysis.sources.table import SourceError, TrialTable
from bocb_tune.core.progress import say

Cards = Sequence[Card | NotApplicable]


def analyze(
    source: str,
    out: Path | None = None,
    spaces: Sequence[Path] = (),
    patterns: bool = False,
    stated: Stated = NOTHING_STATED,
) -> Path:
    """Read a source and write its report folder.

    Args:
        source: a run folder (finished or not), a CSV, TSV or Parquet trial table, or one of `paper:cifar100`,
            `paper:imagenet`, `paper:coco`.
        out: the report folder; `report` inside a run folder, or in the current folder for a table. Its `figures` and
            `tables` are written over, nothing is deleted; its `cache` holds what need not be computed again, and may
            be deleted at any time.
        spaces: search spaces that the trials of a table were drawn from, files or folders.
        patterns: whether to read the kept checkpoints of a run for the spectra of their weights.
        stated: what the scores of a table mean, where its file does not say it.

    Returns:
        Path of `report.html`.

    Raises:
        ValueError: if the source or the search space cannot be read; the message says where and what to do.
    """
    folder = out or (Path(source) / "report" if Path(source).is_dir() else Path("report"))
    say("reading the trials")
    table = load(source, spaces, folder / FOLDER, stated)
    say("modelling the cells")
    findings = find(table, folder / FOLDER)
    if patterns:
        findings = replace(findings, patterns=_patterns(source, table))
    with Drawing(folder / "figures", (*table.backbones, *table.optimizers)) as drawing:
        cards = list(_cards(findings, drawing))
        checks = [check.to_json() for card in cards if isinstance(card, Card) for check in card.checks]
        values = to_json(findings) | {"checks": checks}
        return _write(folder, table, cards, pages(findings), values, drawing)


def _cards(findings: Findings, drawing: Drawing) -> Iterator[Card | NotApplicable]:
    """Of each section; its figures are drawn while the next ones are made."""
    for section in SECTIONS:
        say(f"section {section.__name__.replace('_', ' ')}")
        card = section(findings)
        if card is not None:
            drawing.start(card.figures if isinstance(card, Card) else ())
            yield card


def analyze_pair(first: str, second: str, out: Path | None = None) -> Path:
    """Compare two runs of a grid and write the report folder, `comparison` in the current folder by default.

    Raises:
        ValueError: as `analyze`, and if the two have nothing to compare.
    """
    tables = load(first), load(second)
    found = comparison.compare(*tables)
    cards = comparison_sections(found)
    name = f"{found.names[0]} -> {found.names[1]}"
    table = replace(tables[1], source=replace(tables[1].source, name=name))
    folder = out or Path("comparison")
    with Drawing(folder / "figures", (*table.backbones, *table.optimizers)) as drawing:
        drawing.start([plot for card in cards if isinstance(card, Card) for plot in card.figures])
        return _write(folder, table, cards, (), comparison.to_json(found), drawing)


def _patterns(source: str, table: TrialTable) -> tuple[RunPatterns, ...]:
    from bocb_tune.analysis.patterns.checkpoints import find_kept, patterns_of

    kept = find_kept(Path(source), table) if table.source.kind == "run" else ()
    if not kept:
        raise SourceError(f"{source}: no kept checkpoint of a completed trial, so there are no weights to read")
    found = []
    for number, each in enumerate(kept, start=1):
        say(f"weights of {each.backbone}/{each.optimizer}, checkpoint {number} of {len(kept)}")
        found.append(patterns_of(each))
    return tuple(found)


def _write(
    folder: Path,
    table: TrialTable,
    cards: Cards,
    cells: Sequence[CellPage],
    values: dict[str, Any],
    drawing: Drawing,
) -> Path:
    (folder / "tables").mkdir(parents=True, exist_ok=True)
    (folder / "metrics.json").write_bytes(orjson.dumps(values, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    table.shown_trials().to_csv(folder / "tables" / "trials.csv", index=False)
    for each in (each for card in cards if isinstance(card, Card) for each in card.tables):
        each.frame.to_csv(folder / "tables" / f"{each.stem}.csv", index=False)
    page = folder / "report.html"
    page.write_text(_page(table, cards, cells, drawing), encoding="utf-8")
    return page


def _page(table: TrialTable, cards: Cards, cells: Sequence[CellPage], drawing: Drawing) -> str:
    loader = PackageLoader("bocb_tune.analysis.report", "templates")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("report.html").render(
        table=table,
        cards=cards,
        cells=cells,
        pictures={stem: Markup(svg) for stem, svg in drawing.pictures().items()},
        zip=zip,
    )
