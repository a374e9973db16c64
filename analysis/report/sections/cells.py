"""Sections on single cells: best points, trials over their settings, learning curves, and a page each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pandas as pd

from bocb_tune.analysis.cell.metrics import METRICS
from bocb_tune.analysis.cell.modelling import CellModel
from bocb_tune.analysis.core.estimate import Estimate, of_metric, points
from bocb_tune.analysis.findings.collect import Findings
from bocb_tune.analysis.landscape.fit import NoLandscape
from bocb_tune.analysis.report import plots
from bocb_tune.analysis.report.cards.values import (
    Card,
    CellPage,
    DataTable,
    NotApplicable,
    figure_card,
    has_landscape,
    in_full,
    or_nan,
    shown,
    why,
    with_metric,
)
from bocb_tune.analysis.report.plots import Plot
from bocb_tune.analysis.report.plots.values import Curves, Landscapes, Profiles
from bocb_tune.analysis.report.sections.trials import Trials
from bocb_tune.analysis.sources.table import CELL

PANELS: Mapping[type[Plot], str] = {
    Landscapes: "landscape",
    Profiles: "score over learning rate",
    Curves: "learning curves",
}
"""Figures of a backbone with one panel per cell, and the title of a panel on the cell's page."""
MOST_ROWS, MOST_OF_BACKBONE = 100, 5
"""Most cells that a table lists on the page; with more, the number listed for each backbone."""


def best_points(findings: Findings) -> Card | NotApplicable:
    title = "Best point of each cell"
    if findings.best is None:
        return NotApplicable(title=title, reason=why(findings.cells[0].best))
    rows = [
        {
            "backbone": cell.backbone,
            "optimizer": cell.optimizer,
            "score": cell.value,
            "from": or_nan(cell.best.lo),
            "to": or_nan(cell.best.hi),
            "sd": cell.sd,
            "lr": cell.lr,
            "weight_decay": cell.weight_decay,
            "lr_of_model": or_nan(findings.model(cell).estimates["lr_star"].value),
            "wd_of_model": or_nan(findings.model(cell).estimates["wd_star"].value),
            "seeds": cell.best.counts.n_seeds,
            "selected_score": cell.selected_score,
            "score_of_model": or_nan(findings.model(cell).estimates["expected_score"].value),
            "how": cell.best.method.split(",")[0].split(" at ")[0].removeprefix("mean of ") or why(cell.best),
        }
        for cell in findings.cells
    ]
    frame = pd.DataFrame(rows).sort_values(
        ["backbone", "score"], ascending=[True, False], kind="stable", ignore_index=True
    )
    formats = {"lr": ".3g", "weight_decay": ".3g", "score": ".2f", "sd": ".2f", "selected_score": ".2f"}
    formats |= {"lr_of_model": ".3g", "wd_of_model": ".3g", "from": ".2f", "to": ".2f", "score_of_model": ".2f"}
    text = (
        "The score is the mean of fresh seeds at the best setting that a trial had, where there are any; the selected "
        "score is the best observed one, biased upwards by having been selected."
    )
    if frame["from"].notna().any():
        text += (
            " Intervals are from a cell's own seeds; those of the answer take the noise from all cells, which three "
            "seeds alone tell badly."
        )
    if has_landscape(findings):
        text += (
            " The model's best setting uses all trials and differs from that of the best trial, which noise picks; "
            "both are good where the landscape is flat between them."
        )
    excerpt = frame.dropna(axis="columns", how="all")
    if len(frame) > MOST_ROWS:
        excerpt = excerpt.groupby("backbone", sort=False).head(MOST_OF_BACKBONE)
        text += f" The page shows the best {MOST_OF_BACKBONE} of each backbone, the file all {len(frame)}."
    table = DataTable(stem="best_points", frame=frame, formats=formats, excerpt=excerpt)
    table = with_metric(findings, table, ("score", "selected_score", "score_of_model"), (("from", "to"),), ("sd",))
    return Card(title=title, text=(text,), tables=(table,))


def landscape(findings: Findings) -> Card | NotApplicable:
    title = "Landscapes: score over learning rate and weight decay"
    known = findings.table.trials.dropna(subset=["lr", "weight_decay"])
    settings = known.groupby(CELL)[["lr", "weight_decay"]].nunique().max(axis=1)
    if settings.empty:
        return NotApplicable(title=title, reason="the table has no learning rates and weight decays")
    if settings.max() < 2:
        return NotApplicable(title=title, reason="only one setting per cell is known")
    text = (
        "Colour is the score at full budget, of completed trials as of the fitted surface, on the scale of the "
        "backbone's completed trials. Stopped trials are hollow, the smaller the earlier. Weight decay 0 has its own "
        "strip below the axis. Contours: the fitted surface, where the data carry one; outlined: settings within "
        f"{points(findings.tolerance)} of its best."
    )
    return figure_card(title, text, plots.landscapes(findings, findings.landscapes))


def curves(findings: Findings) -> Card | NotApplicable:
    title = "Learning curves"
    figures = plots.learning_curves(findings)
    if not figures:
        return NotApplicable(title=title, reason="the source has no measurements along the budget")
    text = "One line per trial; stopped and diverged ones end early; black: trials at the cell's best setting."
    return figure_card(title, text, figures)


def pages(findings: Findings, figures: Iterable[Plot] = (), source: str = "") -> tuple[CellPage, ...]:
    """Make one page per cell; none for a source with a single trial in each cell, which the tables cover.

    Args:
        findings: of the grid.
        figures: those of the report, whose panels the pages refer to.
        source: as the user named it.
    """
    if max((sum(cell.counts.values()) for cell in findings.cells), default=0) < 2:
        return ()
    panels, trials = _panels(figures), Trials(findings, source)
    return tuple(_page(findings, index, panels, trials) for index in range(len(findings.cells)))


def _panels(figures: Iterable[Plot]) -> dict[tuple[str, str], list[tuple[str, str]]]:
    """Collect the panels of each cell in the figures of its backbone: title and id."""
    found: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for plot in figures:
        if not isinstance(plot, (Landscapes, Profiles, Curves)):
            continue
        for place, title in enumerate((str(panel.title) for panel in plot.panels), start=1):
            found.setdefault((plot.title, title), []).append((PANELS[type(plot)], f"{plot.stem}-p{place}"))
    return found


def _page(
    findings: Findings, index: int, panels: Mapping[tuple[str, str], list[tuple[str, str]]], trials: Trials
) -> CellPage:
    cell = findings.cells[index]
    model = findings.model(cell)
    counts = ", ".join(f"{count} {status}" for status, count in cell.counts.items()) or "no trials yet"
    best = of_metric(cell.best, findings.table.objective)
    score = f"{shown(best)}, {best.method}" if best.method else shown(best)
    rows = [("trials", counts), ("score", score), *_metrics(model, findings.stated(cell.backbone, cell.optimizer))]
    if model.model.validation is not None:
        found = model.model.validation
        text = f"error {found.rmse:.2f} points on trials left out, {found.coverage90:.0%} within their 90 % interval"
        rows.append(("model check", text))
    return CellPage(
        key=cell.key,
        anchor=f"cell-{index:03d}",
        rows=tuple(rows),
        panels=tuple(panels.get((cell.backbone, cell.optimizer), ())),
        trials=trials.of(cell, index),
    )


def _metrics(model: CellModel, stated: Mapping[str, Estimate]) -> list[tuple[str, str]]:
    """List each metric with its value as `stated`; then, once per reason, those that are unknown."""
    found = [(metric.quantity.name, stated[metric.key]) for metric in METRICS]
    if isinstance(model.model, NoLandscape):
        return [("landscape", f"none: {in_full(model.model.reason, model.model.detail)}")]
    refused: dict[str, list[str]] = {}
    for name, estimate in found:
        if estimate.value is None:
            refused.setdefault(why(estimate), []).append(name)
    known = [(name, shown(estimate)) for name, estimate in found if estimate.value is not None]
    return known + [("not known", f"{', '.join(names)}: {reason}") for reason, names in refused.items()]
