"""The section on trials: the value of a number of them, and the results of each search."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from statistics import mode

import numpy as np
import pandas as pd

from bocb_tune.analysis.cell.tuning_curves import CPE_TRIALS, LONGEST, SIZES
from bocb_tune.analysis.core.bootstrap import Refused
from bocb_tune.analysis.core.estimate import Estimate, of_metric
from bocb_tune.analysis.findings.collect import Findings
from bocb_tune.analysis.report.cards.values import Card, DataTable, NotApplicable, or_nan, why_none, with_metric
from bocb_tune.analysis.report.plots.of_coupling import tuning_curves
from bocb_tune.analysis.report.plots.of_findings import score_label
from bocb_tune.analysis.report.plots.values import TuningPanel

FOUND = (
    "Found: the cell's score after its own search. Random: the score that as many random trials on the landscape "
    f"(at most {LONGEST}) would have found; the difference is the gain of the sampler. Reported: the best score "
    "the search saw, beside what random search would have reported; both are biased upwards. Early: the curve averaged "
    f"over 1 to {CPE_TRIALS} trials, with the largest weight on early ones (Sivaprasad et al. 2020, arXiv:1910.11758)."
)


def budget(findings: Findings) -> Card | NotApplicable:
    """Show tuning curves, the results of the searches, and ranks by number of trials."""
    title = "What a budget of trials buys"
    panels = [_panel(findings, name) for name in findings.table.backbones]
    known = tuple(panel for panel in panels if np.isfinite(panel.value).any() or np.isfinite(panel.found).any())
    if not any(np.isfinite(panel.value).any() for panel in panels):
        return NotApplicable(title=title, reason=why_none(findings))
    ranked, ranks = _ranks(findings)
    plot = replace(
        tuning_curves(findings.table.optimizers, known, score_label(findings)), metric=findings.table.objective
    )
    return Card(
        title=title,
        text=(FOUND, _observed(findings), *ranked),
        tables=(_found(findings), *ranks, _whole_curves(findings)),
        figures=(plot,),
    )


def _panel(findings: Findings, backbone: str) -> TuningPanel:
    optimizers = findings.table.optimizers
    rows = [_numbers(_modelled(findings, backbone, optimizer)) for optimizer in optimizers]
    value, lo, hi = np.moveaxis(np.array(rows), -1, 0)
    seen = [[or_nan(e.value) for e in findings.searches[backbone, optimizer].observed] for optimizer in optimizers]
    n = np.array(SIZES, float)
    return TuningPanel(
        title=backbone,
        n=n,
        value=value,
        lo=lo,
        hi=hi,
        observed=np.array(seen),
        found=np.array([_found_alone(findings, backbone, optimizer) for optimizer in optimizers]),
    )


def _found_alone(findings: Findings, backbone: str, optimizer: str) -> tuple[float, float]:
    """Return trials and score of a cell without a model, whose curve would otherwise be missing without notice."""
    search = findings.searches[backbone, optimizer]
    if findings.models[backbone, optimizer].curve is not None or search.found.value is None or not search.trials:
        return np.nan, np.nan
    return float(search.trials), search.found.value


def _modelled(findings: Findings, backbone: str, optimizer: str) -> list[Estimate]:
    curve = findings.models[backbone, optimizer].curve
    return [Estimate(value=None)] * len(SIZES) if curve is None else [curve.at(size) for size in SIZES]


def _numbers(estimates: Iterable[Estimate]) -> list[tuple[float, float, float]]:
    return [(or_nan(e.value), or_nan(e.lo), or_nan(e.hi)) for e in estimates]


def _observed(findings: Findings) -> str:
    """Say in how many cells the trials themselves give a curve."""
    found = [search.observed for search in findings.searches.values()]
    refused = [estimates[0].reason for estimates in found if estimates[0].value is None]
    if not refused:
        return "The curves of the trials themselves, which are independent draws, are dots in the figure."
    commonest = mode(refused)
    assert commonest is not None
    return (
        f"{len(refused)} of {len(found)} cells have no curve of the trials themselves, most of them because "
        f"{commonest.sentence}."
    )


def _found(findings: Findings) -> DataTable:
    rows = [
        {
            "backbone": backbone,
            "optimizer": optimizer,
            "trials": search.trials,
            "epochs": search.epochs,
            "found": or_nan(search.found.value),
            "found_from": or_nan(search.found.lo),
            "found_to": or_nan(search.found.hi),
            "random": or_nan(search.random.value),
            "random_from": or_nan(search.random.lo),
            "random_to": or_nan(search.random.hi),
            "reported": search.reported,
            "random_reported": or_nan(search.random_reported.value),
            "early": or_nan(search.early.value),
        }
        for (backbone, optimizer), search in findings.searches.items()
    ]
    ends = (("found_from", "found_to"), ("random_from", "random_to"))
    scores = ("found", "random", "reported", "random_reported", "early")
    formats = {"epochs": ".0f"} | dict.fromkeys((*scores, *ends[0], *ends[1]), ".2f")
    table = with_metric(findings, DataTable(stem="searches", frame=pd.DataFrame(rows), formats=formats), scores, ends)
    return replace(table, excerpt=table.frame.dropna(axis="columns", how="all"))


def _whole_curves(findings: Findings) -> DataTable:
    """Tabulate every curve, modelled and observed."""
    names = ("random", "random_lo", "random_hi", "observed", "observed_lo", "observed_hi")
    objective = findings.table.objective

    def of(estimates: Iterable[Estimate]) -> list[tuple[float, float, float]]:
        return _numbers(of_metric(estimate, objective) for estimate in estimates)

    rows = [
        (backbone, optimizer, size, *modelled, *observed)
        for (backbone, optimizer), search in findings.searches.items()
        for size, modelled, observed in zip(
            SIZES, of(_modelled(findings, backbone, optimizer)), of(search.observed), strict=True
        )
    ]
    frame = pd.DataFrame(rows, columns=["backbone", "optimizer", "trials", *names])
    return DataTable(stem="tuning_curves", frame=frame, only_file=True)


def _ranks(findings: Findings) -> tuple[tuple[str, ...], tuple[DataTable, ...]]:
    """Describe the ranks of the optimizers by number of trials, in sentences and as a table."""
    ranks = findings.tuning.ranks
    if isinstance(ranks, Refused):
        return (f"No ranks by budget: {ranks.detail}.",), ()
    frame = pd.DataFrame({"optimizer": ranks.optimizers})
    for place, size in enumerate(SIZES):
        frame[f"rank_at_{size}"] = [ranks.ranks[name][place].value for name in ranks.optimizers]
    formats = {f"rank_at_{size}": ".2f" for size in SIZES}
    told = tuple(f"From {c.trials} trials on {c.behind} ranks before {c.ahead}." for c in ranks.crossings)
    return told, (DataTable(stem="ranks_by_budget", frame=frame, formats=formats),)
