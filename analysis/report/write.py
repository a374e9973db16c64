"""The report folder of a source: one HTML file, and the same numbers as JSON, CSV, SVG and PNG."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray

from bocb_tune.analysis.answer.as_json import to_json as answer_json
from bocb_tune.analysis.answer.compose import answer_of
from bocb_tune.analysis.answer.sentences import Part, parts_of
from bocb_tune.analysis.bocb.choices import DEFAULT, Choices
from bocb_tune.analysis.core.cache import FOLDER
from bocb_tune.analysis.findings import comparison
from bocb_tune.analysis.findings.collect import Findings, find
from bocb_tune.analysis.findings.comparison import differing
from bocb_tune.analysis.findings.factor import compare_several
from bocb_tune.analysis.findings.metrics_file import to_json
from bocb_tune.analysis.patterns.summary import RunPatterns
from bocb_tune.analysis.report.cards.values import CellPage
from bocb_tune.analysis.report.figures import Drawing
from bocb_tune.analysis.report.kept import kept_in
from bocb_tune.analysis.report.plots import Plot
from bocb_tune.analysis.report.sections import SECTIONS, Card, NotApplicable, pages
from bocb_tune.analysis.report.sections.comparison import first_screen as comparison_screen
from bocb_tune.analysis.report.sections.comparison import sections as comparison_sections
from bocb_tune.analysis.report.sections.factor import first_screen as several_screen
from bocb_tune.analysis.report.sections.factor import sections as several_sections
from bocb_tune.analysis.report.sections.first import FirstScreen, first_screen
from bocb_tune.analysis.sources.conditions import conditions
from bocb_tune.analysis.sources.load import load
from bocb_tune.analysis.sources.stated import NOTHING_STATED, Stated
from bocb_tune.analysis.sources.table import SourceError, TrialTable
from bocb_tune.core.progress import say

MOST_DRAWN = 60
"""Most cells whose figures are repeated on their own pages; with more cells there are links instead."""
Cards = Sequence[Card | NotApplicable]
Start = Callable[[Path, str], dict[str, NDArray[np.floating]]]
"""Builds the tensors that a trial of a run folder began with, by its id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The page written, and what its first screen says."""

    page: Path
    parts: tuple[Part, ...]
    """The answer."""
    remarks: tuple[Part, ...]
    """Facts to know before believing it."""


def analyze(
    source: str,
    out: Path | None = None,
    spaces: Sequence[Path] = (),
    patterns: bool = False,
    stated: Stated = NOTHING_STATED,
    choices: Choices = DEFAULT,
    start: Start | None = None,
) -> Path:
    """Write the report folder of a source, as `report`, and return its page."""
    return report(source, out, spaces, patterns, stated, choices, start).page


def report(
    source: str,
    out: Path | None = None,
    spaces: Sequence[Path] = (),
    patterns: bool = False,
    stated: Stated = NOTHING_STATED,
    choices: Choices = DEFAULT,
    start: Start | None = None,
) -> Report:
    """Read a source and write its report folder.

    Args:
        source: a run folder (finished or not), a CSV, TSV or Parquet trial table, or one of `paper:cifar100`,
            `paper:imagenet`, `paper:coco`.
        out: the report folder; by default `report` inside a run folder, or in the current folder for a table. Its
            `figures` and `tables` are overwritten, nothing is deleted; its `cache` holds results for the next analysis,
            and may be deleted at any time.
        spaces: search spaces that the trials of a table were drawn from, files or folders.
        patterns: whether to read the kept checkpoints of a run for the spectra of their weights.
        stated: meaning of the scores of a table, where its file does not say it.
        choices: numbers that the paper's measures leave open.
        start: builds the weights that a trial of a run folder began with, by its id, to stand beside what it ended
            with; the analysis itself builds no models.

    Raises:
        ValueError: if the source or the search space cannot be read; the message says where and what to do.
    """
    folder = out or (Path(source) / "report" if Path(source).is_dir() else Path("report"))
    say("reading the trials")
    table = load(source, spaces, folder / FOLDER, stated)
    say("modelling the cells")
    findings = find(table, folder / FOLDER, choices)
    if patterns:
        found, notes = _patterns(source, table, choices.components, start)
        findings = replace(findings, patterns=found, pattern_notes=notes)
    answer = answer_of(findings, source)
    first = first_screen(findings, answer)
    with Drawing(folder / "figures", (*table.backbones, *table.optimizers)) as drawing:
        drawing.start(first.figures)
        cards = list(_cards(findings, drawing))
        checks = [check.to_json() for card in cards if isinstance(card, Card) for check in card.checks]
        values = to_json(findings) | {"checks": checks}
        values["grid"]["answer"] = answer_json(answer)
        cells = pages(findings, _figures(cards), source)
        page = _write(folder, table, first, cards, cells, values, drawing)
    return Report(page=page, parts=parts_of(answer), remarks=first.remarks)


def _cards(findings: Findings, drawing: Drawing) -> Iterator[Card | NotApplicable]:
    """Make each section; its figures are drawn while the next sections are made."""
    for section in SECTIONS:
        say(f"section {section.__name__.replace('_', ' ')}")
        card = section(findings)
        if card is not None:
            drawing.start(card.figures if isinstance(card, Card) else ())
            yield card


def _figures(cards: Cards) -> Iterator[Plot]:
    return (plot for card in cards if isinstance(card, Card) for plot in card.figures)


def compare_runs(sources: Sequence[str], out: Path | None = None) -> Report:
    """Compare two runs of a grid cell by cell, or split the scores of more of them by what they differ in.

    Raises:
        ValueError: as `analyze_pair` and `analyze_several`.
    """
    return analyze_pair(sources[0], sources[1], out) if len(sources) == 2 else analyze_several(sources, out)


def analyze_pair(first: str, second: str, out: Path | None = None) -> Report:
    """Compare two runs of a grid and write the report folder, by default `comparison` in the current folder.

    Raises:
        ValueError: as `report`, and if the two have nothing to compare.
    """
    sides = []
    for source in (first, second):
        say(f"reading and modelling {source}")
        kept = kept_in(source)
        sides.append(find(load(source, (), kept), kept))
    found = comparison.compare_findings(sides[0], sides[1], differing(sides, (conditions(first), conditions(second))))
    screen, cards = comparison_screen(found), comparison_sections(found)
    table = sides[1].table
    table = replace(table, source=replace(table.source, name=f"{found.names[0]} -> {found.names[1]}"))
    names = (*table.backbones, *table.optimizers)
    return _compared(out, table, names, screen, cards, comparison.to_json(found))


def analyze_several(sources: Sequence[str], out: Path | None = None) -> Report:
    """Split the scores of three or more runs of a grid by what they differ in; `comparison` by default.

    Raises:
        ValueError: as `report`, and if they differ in several things or have nothing to compare.
    """
    tables = []
    for source in sources:
        say(f"reading {source}")
        tables.append(load(source, (), kept_in(source)))
    found = compare_several(tables, [conditions(source) for source in sources])
    screen, cards = several_screen(found), several_sections(found)
    table = replace(tables[0], source=replace(tables[0].source, name=" | ".join(found.names)))
    return _compared(out, table, (*found.names, *found.optimizers), screen, cards, found.to_json())


def _compared(
    out: Path | None,
    table: TrialTable,
    names: tuple[str, ...],
    screen: FirstScreen,
    cards: Cards,
    numbers: dict[str, Any],
) -> Report:
    """Write the report folder of a comparison, in whose figures these backbones, optimizers or runs have a look."""
    folder = out or Path("comparison")
    with Drawing(folder / "figures", names) as drawing:
        drawing.start([*screen.figures, *_figures(cards)])
        page = _write(folder, table, screen, cards, (), numbers, drawing)
    return Report(page=page, parts=screen.parts, remarks=screen.remarks)


def _patterns(
    source: str, table: TrialTable, components: int, start: Start | None
) -> tuple[tuple[RunPatterns, ...], tuple[str, ...]]:
    """Compute the patterns of every kept checkpoint, and of the start of the best one of each backbone.

    Returns:
        The patterns, and why some starts are missing.
    """
    from bocb_tune.analysis.patterns.checkpoints import find_kept, patterns_at_start, patterns_of

    kept = find_kept(Path(source), table) if table.source.kind == "run" else ()
    if not kept:
        raise SourceError(f"{source}: no kept checkpoint of a completed trial, so there are no weights to read")
    found, notes = [], []
    for number, each in enumerate(kept, start=1):
        say(f"weights of {each.backbone}/{each.optimizer}, checkpoint {number} of {len(kept)}")
        found.append(patterns_of(each, components))
    best = {each.backbone: each for each in sorted(kept, key=lambda each: each.score)}
    for each in best.values():
        if start is None:
            break
        say(f"weights that {each.backbone} began with")
        try:
            found.append(patterns_at_start(each, start(Path(source), each.trial), components))
        except (ValueError, OSError) as error:
            notes.append(f"{each.backbone}: the weights it began with cannot be built here: {error}")
    return tuple(found), tuple(notes)


def _write(
    folder: Path,
    table: TrialTable,
    first: FirstScreen,
    cards: Cards,
    cells: Sequence[CellPage],
    values: dict[str, Any],
    drawing: Drawing,
) -> Path:
    (folder / "tables").mkdir(parents=True, exist_ok=True)
    (folder / "metrics.json").write_bytes(orjson.dumps(values, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    table.shown_trials().to_csv(folder / "tables" / "trials.csv", index=False)
    for each in (*first.tables, *(each for card in cards if isinstance(card, Card) for each in card.tables)):
        each.frame.to_csv(folder / "tables" / f"{each.stem}.csv", index=False)
    page = folder / "report.html"
    page.write_text(_page(table, first, cards, cells, drawing), encoding="utf-8")
    return page


def _page(table: TrialTable, first: FirstScreen, cards: Cards, cells: Sequence[CellPage], drawing: Drawing) -> str:
    loader = PackageLoader("bocb_tune.analysis.report", "templates")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("report.html").render(
        table=table,
        first=first,
        cards=[card for card in cards if isinstance(card, Card)],
        not_applicable=[card for card in cards if isinstance(card, NotApplicable)],
        cells=cells,
        most_drawn=MOST_DRAWN,
        pictures={stem: [Markup(svg) for svg in svgs] for stem, svgs in drawing.pictures().items()},
        zip=zip,
    )
