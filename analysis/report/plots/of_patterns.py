"""Figures of patterns in trained weights, as Figures 6 to 8 of the paper: ridges over depth, bars of exponents."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bocb_tune.analysis.findings.collect import Findings
from bocb_tune.analysis.patterns.spectra import RISKY
from bocb_tune.analysis.patterns.summary import OVER_DEPTH, RunPatterns
from bocb_tune.analysis.report.plots.values import BarPanel, Bars, Ridge, RidgePanel, Ridges

RIDGED = dict(zip(OVER_DEPTH, ("entropy of values", "L2 norm", "PCA energy", "exponent (alpha)"), strict=True))
"""Titles of the patterns that are drawn over layer depth."""
FEWEST_LAYERS = 2
START = "at the start"


def ridges(findings: Findings) -> tuple[Ridges, ...]:
    """Draw each pattern over the layers, a figure a backbone, best score first and the start last."""
    components = findings.choices.components
    found = [
        Ridges(
            stem=f"ridges-{number:02d}",
            title=backbone,
            caption="One ridge an optimizer over the layers from first to last, best score on top; grey: the weights "
            "before training. Dashed: the cell fails by the rule of the paper's grey marks. Each panel has one scale, "
            f"written below it. PCA energy of {components} components.",
            alt=f"Patterns of the weights over the layers of {backbone}.",
            panels=tuple(
                panel for key, title in RIDGED.items() if (panel := _panel(findings, backbone, key, title)).ridges
            ),
        )
        for number, backbone in enumerate(findings.table.backbones, start=1)
    ]
    return tuple(plot for plot in found if plot.panels)


def exponent_bars(findings: Findings) -> Bars | None:
    """Draw the median exponent of each cell with the quartiles over its layers; None where no layer has one."""
    runs = {(run.backbone, run.optimizer): run for run in findings.patterns if not run.is_start}
    backbones = [name for name in findings.table.backbones if any(b == name for b, _ in runs)]
    optimizers = tuple(name for name in findings.table.optimizers if any(o == name for _, o in runs))
    panels = tuple(_bars(findings, backbone, optimizers, runs) for backbone in backbones)
    if not panels or all(np.isnan(panel.value).all() for panel in panels):
        return None
    return Bars(
        stem="exponents",
        title="Exponent of the tail of the spectrum",
        caption="Median over layers; lines: quartiles. Dashed: 2 and 6, beyond which the paper calls a layer poorly "
        "trained. Hatched: the cell fails by the rule of the paper's grey marks.",
        optimizers=optimizers,
        panels=panels,
        axis="alpha",
        thresholds=RISKY,
    )


def _bars(
    findings: Findings, backbone: str, optimizers: Sequence[str], runs: dict[tuple[str, str], RunPatterns]
) -> BarPanel:
    each = [runs[backbone, name].summary("alpha") if (backbone, name) in runs else None for name in optimizers]
    value, lo, hi = (
        np.array([np.nan if e is None or getattr(e, end) is None else getattr(e, end) for e in each], float)
        for end in ("value", "lo", "hi")
    )
    failed = np.array([_fails(findings, backbone, name) for name in optimizers])
    return BarPanel(title=backbone, value=value, lo=lo, hi=hi, failed=failed)


def _panel(findings: Findings, backbone: str, key: str, title: str) -> RidgePanel:
    runs = [run for run in findings.patterns if run.backbone == backbone]
    row = findings.matrix[findings.table.backbones.index(backbone)]

    def order(run: RunPatterns) -> tuple[bool, float]:
        score = float(row[findings.table.optimizers.index(run.optimizer)])
        return run.is_start, np.inf if np.isnan(score) else -score

    kept = [(run, run.profile(key)) for run in sorted(runs, key=order)]
    return RidgePanel(
        title=title,
        ridges=tuple(
            Ridge(
                name=START if run.is_start else run.optimizer,
                depth=profile[:, 0],
                value=profile[:, 1],
                is_start=run.is_start,
                failed=not run.is_start and _fails(findings, backbone, run.optimizer),
            )
            for run, profile in kept
            if len(profile) >= FEWEST_LAYERS
        ),
    )


def _fails(findings: Findings, backbone: str, optimizer: str) -> bool:
    table = findings.table
    return bool(findings.bocb.by_median[table.backbones.index(backbone), table.optimizers.index(optimizer)])
