"""Health checks on settings: ranges, edges, and the landscapes fitted between them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np

from bocb_tune.analysis.cell.sensitivity import EDGE_PROBABILITY, EPSILON, edge_of
from bocb_tune.analysis.checks.check import Check, about, details, listed
from bocb_tune.analysis.core.arrays import Array
from bocb_tune.analysis.core.estimate import Reason, points
from bocb_tune.analysis.findings.collect import Findings
from bocb_tune.analysis.landscape.fit import Landscape, NoLandscape
from bocb_tune.analysis.matrix.cells import FRESH_SEEDS, CellSummary
from bocb_tune.analysis.sources.table import CELL, HYPERPARAMETERS, IN_WORDS, Dims
from bocb_tune.core.space import Dim
from bocb_tune.core.types import Phase, TrialStatus

# A best point nearer than this to an end of its range may well have its optimum beyond it.
EDGE_DECADES = 0.2
# If this many of the best trials lie in one outer fifth of a range, the range is misplaced.
TOP_TRIALS, MOST_OF_TOP = 10, 8
# Deviation of the audited trials from the model, pooled over cells, in standard errors.
AUDIT_Z = 2.5


def edge_of_range(findings: Findings) -> Iterator[Check]:
    """Find best points near an end of the range they were searched in."""
    for name in HYPERPARAMETERS:
        near = {cell.key: text for cell in findings.cells if (text := _near_edge(findings, cell, name))}
        text = (
            f"The best {name} lies near an end of the range searched, so the optimum may lie beyond: {details(near)}."
        )
        yield from about(near, name="edge_of_range", level="caution", message=text)


def _near_edge(findings: Findings, cell: CellSummary, name: str) -> str:
    """Describe where the best value lies if it is near an end of its range or outside; else return an empty text."""
    value, dims = float(getattr(cell, name)), findings.table.spaces.get(cell.optimizer)
    if dims is None or name not in dims or math.isnan(value):
        return ""
    distance = dims[name].edge_distance(value)
    if distance >= EDGE_DECADES:
        return ""
    where = f"{distance:.2f} decades from the end" if distance >= 0 else f"{-distance:.2f} decades outside"
    return f"{value:.3g}, {where} of {dims[name]}"


def optimum_at_edge(findings: Findings) -> Iterator[Check]:
    """Find cells whose fitted optimum lies at an edge of the search space, and cells where it may lie anywhere."""
    shares = {cell.key: findings.model(cell).estimates["edge_probability"].value for cell in findings.cells}
    unsure = [cell for cell in findings.cells if (shares[cell.key] or 0.0) > EDGE_PROBABILITY]
    edges = {cell.key: edge for cell in unsure if (edge := _edge(findings, cell))}
    text = (
        f"The fitted optimum lies at an edge of the search space: {details(edges)}. To look a decade further, write "
        f"`{_wider(edges, findings.table.spaces)}` and more `budget.trials_per_cell` into the experiment and run it "
        "again: the design is repeated over the wider range, the further trials search it, and what is there is kept."
    )
    yield from about(edges, name="optimum_at_edge", level="caution", message=text)
    vague = {cell.key: f"{shares[cell.key]:.2f}" for cell in unsure if cell.key not in edges}
    text = (
        "Too noisy, or too flat, to say where the optimum is; it may as well lie at an edge of the search space (with "
        f"probability): {details(vague)}. More trials or seeds would settle it."
    )
    yield from about(vague, name="optimum_unclear", level="note", message=text)


def _wider(edges: Mapping[str, str], spaces: Mapping[str, Mapping[str, Dim]]) -> str:
    """Write the line of an experiment that extends by a decade each range at whose end an optimum lies."""
    changes: dict[str, dict[str, dict[str, str]]] = {}
    for key, edge in edges.items():
        optimizer, (end, axis) = key.split("/")[-1], edge.split(" ", maxsplit=1)
        if dims := spaces.get(optimizer):
            dim = dims[axis.replace(" ", "_")]
            change = {"low": f"{dim.low / 10:g}"} if end == "lowest" else {"high": f"{dim.high * 10:g}"}
            changes.setdefault(optimizer, {}).setdefault(dim.name, {}).update(change)
    return f"search_spaces: {changes}".replace("'", "")


def _edge(findings: Findings, cell: CellSummary) -> str | None:
    fitted = findings.landscapes[cell.backbone, cell.optimizer]
    return edge_of(fitted) if isinstance(fitted, Landscape) else None


def best_in_outer_fifth(findings: Findings) -> Iterator[Check]:
    """Find cells most of whose ten best trials lie in the lowest or the highest fifth of a range."""
    trials = findings.table.trials
    completed = trials[trials["status"] == TrialStatus.completed].dropna(subset=["lr", "weight_decay", "score"])
    searched = completed[completed["phase"] != Phase.repeat]
    best = searched.sort_values("score", ascending=False, kind="stable").groupby(CELL).head(TOP_TRIALS)
    for name in HYPERPARAMETERS:
        found = {
            f"{backbone}/{optimizer}": text
            for (backbone, optimizer), top in best.groupby(CELL)
            if (text := _outer_fifth(findings.table.spaces.get(str(optimizer)), top[name].to_numpy(float), name))
        }
        text = f"Most of the {TOP_TRIALS} best trials have {name} in one outer fifth of its range: {details(found)}."
        yield from about(found, name="best_in_outer_fifth", level="caution", message=text)


def _outer_fifth(dims: Dims | None, top: Array, name: str) -> str:
    """Describe the outer fifth that holds most of a cell's best values; return an empty text if none does."""
    if dims is None or name not in dims or len(top) < TOP_TRIALS:
        return ""
    place = np.log10(top[top > 0] / dims[name].low) / dims[name].decades
    counts = {"lowest": int((place < 0.2).sum()), "highest": int((place > 0.8).sum())}
    return next((f"{count} in the {end}" for end, count in counts.items() if count >= MOST_OF_TOP), "")


def unlike_ranges(findings: Findings) -> Iterator[Check]:
    """Warn of optimizers searched over ranges of different widths: shares of a range do not compare between them."""
    spaces = findings.table.spaces
    for name in HYPERPARAMETERS:
        widths = {optimizer: dims[name].decades for optimizer, dims in spaces.items() if name in dims}
        if len(widths) < 2 or max(widths.values()) - min(widths.values()) < EDGE_DECADES:
            continue
        each = ", ".join(f"{optimizer} {width:.1f}" for optimizer, width in widths.items())
        text = (
            f"Ranges of {IN_WORDS[name]} differ in width ({each} decades): shares of the search space, the cost of a "
            "random setting and tuning curves cannot be compared between these optimizers; widths in decades can."
        )
        yield Check(name="unlike_ranges", level="note", message=text)


def no_landscape(findings: Findings) -> Iterator[Check]:
    """List cells that were searched but have no landscape, by reason."""
    reasons: dict[Reason, list[str]] = {}
    for cell in findings.cells:
        model = findings.model(cell).model
        if isinstance(model, NoLandscape) and model.reason not in (Reason.NOT_SEARCHED,):
            reasons.setdefault(model.reason, []).append(cell.key)
    for reason, cells in reasons.items():
        text = f"No landscape in {len(cells)} cell(s), {listed(cells)}: {reason.sentence}."
        yield from about(cells, name="no_landscape", level="caution", message=text)


def model_against_seeds(findings: Findings) -> Iterator[Check]:
    """Find cells whose model differs from the mean of their fresh seeds by more than the report's tolerance."""
    apart, metric = {}, findings.table.objective
    for cell in findings.cells:
        model = findings.model(cell).model
        if isinstance(model, Landscape) and FRESH_SEEDS in cell.best.method and cell.best.value is not None:
            best = float(model.mean[model.best_node])
            if abs(best - cell.value) > findings.tolerance:
                apart[cell.key] = f"model {metric.number(best)}, seeds {metric.number(cell.value)}"
    text = (
        f"At its best the model is more than {points(findings.tolerance)} from the fresh seeds in {details(apart)}. "
        "The seeds were measured; figures, curves and recommendations of these cells rest on the model too."
    )
    yield from about(apart, name="model_against_seeds", level="caution", message=text)


def censored(findings: Findings) -> Iterator[Check]:
    """Count the trials that were stopped early, and say whether the audited ones contradict the model."""
    trials = findings.table.trials
    stopped = int((trials["status"] == TrialStatus.stopped).sum())
    if not stopped:
        return
    checked = [
        m.validation for m in (findings.model(cell).model for cell in findings.cells) if m.validation is not None
    ]
    audits = [found.audit_z for found in checked if found.num_audit]
    text = f"{stopped} of {len(trials)} trials were stopped early: what they would have reached is modelled."
    if not audits:
        yield Check(name="censored", level="note", message=f"{text} No audited trial tests the model there.")
        return
    pooled = sum(audits) / math.sqrt(len(audits))
    text = f"{text} Trials exempt from stopping differ from the model by z = {pooled:.1f} over {len(audits)} cells."
    level = "caution" if abs(pooled) > AUDIT_Z else "note"
    yield Check(name="censored", level=level, message=text)


def tolerance_above_usual(findings: Findings) -> Iterator[Check]:
    if findings.landscapes and findings.tolerance > max(EPSILON, findings.table.objective.tolerance):
        text = (
            f"The noise of most cells is too large to tell settings {EPSILON:g} point apart: widths of good regions "
            f"are stated at {points(findings.tolerance)}."
        )
        yield Check(name="tolerance", level="note", message=text)
