"""Every metric of a cell: one row each, in the order of the report. To add one: one function, one row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from bocb_tune.analysis import sensitivity as s
from bocb_tune.analysis.estimate import Estimate
from bocb_tune.analysis.landscape import Landscape

WORTSMAN = "Wortsman et al. 2023, arXiv:2309.14322, section 2.2"
HUTTER = "Hutter, Hoos & Leyton-Brown 2014 (functional ANOVA), by quadrature"
WANG = "Wang & Aitchison 2024, arXiv:2405.13698"
OWN = "this project"


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One number per cell."""

    tag: str
    """Of the catalogue, such as B2."""
    key: str
    """Name in `metrics.json`."""
    name: str
    """As the report shows it."""
    unit: str
    better: str
    """`higher`, `lower`, or empty where neither is."""
    source: str
    compute: Callable[[Landscape], Estimate]


COARSER = (2.0, 5.0, 10.0)
"""Points of tolerance beside the usual one, for grids whose seeds differ by more."""


def _at(epsilon: float) -> tuple[Metric, ...]:
    """Width of the good region at a coarser tolerance."""
    return (
        Metric(
            tag="B2",
            key=f"near_optimal_volume_at_{epsilon:g}",
            name=f"near-optimal volume, {epsilon:g} points",
            unit="",
            better="higher",
            source=OWN,
            compute=partial(s.near_optimal_volume, epsilon=epsilon),
        ),
        Metric(
            tag="B3",
            key=f"usable_decades_lr_at_{epsilon:g}",
            name=f"usable decades of lr, {epsilon:g} points",
            unit="decades",
            better="higher",
            source=OWN,
            compute=partial(s.usable_decades_lr, epsilon=epsilon),
        ),
    )


METRICS: tuple[Metric, ...] = (
    Metric(tag="B1", key="lr_star", name="best lr", unit="lr", better="", source=OWN, compute=s.lr_star),
    Metric(tag="B1", key="wd_star", name="best wd", unit="weight decay", better="", source=OWN, compute=s.wd_star),
    Metric(
        tag="B1",
        key="zero_decay_probability",
        name="P(wd = 0 is best)",
        unit="",
        better="",
        source=OWN,
        compute=s.zero_decay_probability,
    ),
    Metric(
        tag="B1",
        key="expected_score",
        name="expected score at the best point",
        unit="points",
        better="higher",
        source=OWN,
        compute=s.best_score,
    ),
    Metric(
        tag="B2",
        key="near_optimal_volume",
        name="near-optimal volume",
        unit="",
        better="higher",
        source=OWN,
        compute=s.near_optimal_volume,
    ),
    Metric(
        tag="B2",
        key="random_trials_needed",
        name="random trials needed",
        unit="trials",
        better="lower",
        source=OWN,
        compute=s.random_trials_needed,
    ),
    Metric(
        tag="B3",
        key="usable_decades_lr",
        name="usable decades of lr",
        unit="decades",
        better="higher",
        source=OWN,
        compute=s.usable_decades_lr,
    ),
    Metric(
        tag="B3",
        key="usable_decades_lr_profile",
        name="usable decades of lr, wd retuned",
        unit="decades",
        better="higher",
        source=OWN,
        compute=s.usable_decades_lr_profile,
    ),
    Metric(
        tag="B3",
        key="usable_decades_wd",
        name="usable decades of wd",
        unit="decades",
        better="higher",
        source=OWN,
        compute=s.usable_decades_wd,
    ),
    Metric(
        tag="B3",
        key="usable_decades_wd_profile",
        name="usable decades of wd, lr retuned",
        unit="decades",
        better="higher",
        source=OWN,
        compute=s.usable_decades_wd_profile,
    ),
    *(metric for epsilon in COARSER for metric in _at(epsilon)),
    Metric(
        tag="B4",
        key="curvature_lr",
        name="curvature along lr",
        unit="points/decade^2",
        better="lower",
        source=OWN,
        compute=s.curvature_lr,
    ),
    Metric(
        tag="B4",
        key="curvature_wd",
        name="curvature along wd",
        unit="points/decade^2",
        better="lower",
        source=OWN,
        compute=s.curvature_wd,
    ),
    Metric(
        tag="B5",
        key="curvature_correlation",
        name="lr-wd correlation of the curvature",
        unit="",
        better="",
        source=WANG,
        compute=s.curvature_correlation,
    ),
    Metric(tag="B5", key="anisotropy", name="anisotropy", unit="", better="", source=WANG, compute=s.anisotropy),
    Metric(
        tag="B5",
        key="orientation",
        name="flat direction",
        unit="degrees",
        better="",
        source=WANG,
        compute=s.orientation,
    ),
    Metric(
        tag="B6",
        key="edge_probability",
        name="P(optimum at an edge)",
        unit="",
        better="lower",
        source=OWN,
        compute=s.edge_probability,
    ),
    Metric(
        tag="B7",
        key="divergence_margin",
        name="divergence margin",
        unit="decades",
        better="higher",
        source=OWN,
        compute=s.divergence_margin,
    ),
    Metric(
        tag="B7",
        key="divergence_margin_10",
        name="margin to 10 % divergence",
        unit="decades",
        better="higher",
        source=OWN,
        compute=s.divergence_margin_10,
    ),
    Metric(
        tag="B7",
        key="diverging_share",
        name="share of the space that diverges",
        unit="",
        better="lower",
        source=OWN,
        compute=s.diverging_share,
    ),
    Metric(
        tag="C1",
        key="lr_sensitivity",
        name="lr sensitivity",
        unit="points",
        better="lower",
        source=WORTSMAN,
        compute=s.lr_sensitivity,
    ),
    Metric(
        tag="C1",
        key="lr_sensitivity_window",
        name="lr sensitivity, 3 decades",
        unit="points",
        better="lower",
        source=WORTSMAN,
        compute=s.lr_sensitivity_window,
    ),
    Metric(
        tag="C2",
        key="prior_mean_regret",
        name="cost of a random setting",
        unit="points",
        better="lower",
        source=OWN,
        compute=s.prior_mean_regret,
    ),
    Metric(
        tag="C7",
        key="lr_variance_share",
        name="variance due to lr",
        unit="",
        better="",
        source=HUTTER,
        compute=s.lr_variance_share,
    ),
    Metric(
        tag="C7",
        key="wd_variance_share",
        name="variance due to wd",
        unit="",
        better="",
        source=HUTTER,
        compute=s.wd_variance_share,
    ),
    Metric(
        tag="C7",
        key="lr_variance_share_top",
        name="variance due to lr, better half",
        unit="",
        better="",
        source=HUTTER,
        compute=s.lr_variance_share_top,
    ),
    Metric(
        tag="C7",
        key="wd_variance_share_top",
        name="variance due to wd, better half",
        unit="",
        better="",
        source=HUTTER,
        compute=s.wd_variance_share_top,
    ),
)


def measure(cell: Landscape) -> dict[str, Estimate]:
    """All metrics of a cell, by key."""
    return {metric.key: metric.compute(cell) for metric in METRICS}
