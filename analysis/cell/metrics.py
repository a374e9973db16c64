"""Every metric of a cell: one row each, in the order of the report. To add one: one function, one row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from bocb_tune.analysis.cell import crosschecks as x
from bocb_tune.analysis.cell import sensitivity as s
from bocb_tune.analysis.core.estimate import Estimate
from bocb_tune.analysis.landscape.fit import Landscape

WORTSMAN = "Wortsman et al. 2023, arXiv:2309.14322, section 2.2"
HUTTER = "Hutter, Hoos & Leyton-Brown 2014 (functional ANOVA), by quadrature"
WATANABE = "Watanabe et al. 2023, arXiv:2304.10255 (PED-ANOVA), a cross-check"
WANG = "Wang & Aitchison 2024, arXiv:2405.13698"
OWN = "this project"
CURVED = "points/decade^2"


@dataclass(frozen=True, slots=True)
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


def _at(e: float) -> tuple[Metric, ...]:
    """Width of the good region at a coarser tolerance."""
    volume = partial(s.near_optimal_volume, epsilon=e)
    decades = partial(s.usable_decades_lr, epsilon=e)
    at, words = f"at_{e:g}", f"{e:g} points"
    return (
        Metric("B2", f"near_optimal_volume_{at}", f"near-optimal volume, {words}", "", "higher", OWN, volume),
        Metric("B3", f"usable_decades_lr_{at}", f"usable decades of lr, {words}", "decades", "higher", OWN, decades),
    )


# fmt: off
METRICS: tuple[Metric, ...] = (
    Metric("B1", "lr_star", "best lr", "lr", "", OWN, s.lr_star),
    Metric("B1", "wd_star", "best wd", "weight decay", "", OWN, s.wd_star),
    Metric("B1", "zero_decay_probability", "P(wd = 0 is best)", "", "", OWN, s.zero_decay_probability),
    Metric("B1", "expected_score", "expected score at the best point", "points", "higher", OWN, s.best_score),
    Metric("B2", "near_optimal_volume", "near-optimal volume", "", "higher", OWN, s.near_optimal_volume),
    Metric("B2", "random_trials_needed", "random trials needed", "trials", "lower", OWN, s.random_trials_needed),
    Metric("B3", "usable_decades_lr", "usable decades of lr", "decades", "higher", OWN, s.usable_decades_lr),
    Metric("B3", "usable_decades_lr_profile", "usable decades of lr, wd retuned", "decades", "higher", OWN,
           s.usable_decades_lr_profile),
    Metric("B3", "usable_decades_wd", "usable decades of wd", "decades", "higher", OWN, s.usable_decades_wd),
    Metric("B3", "usable_decades_wd_profile", "usable decades of wd, lr retuned", "decades", "higher", OWN,
           s.usable_decades_wd_profile),
    *(metric for epsilon in COARSER for metric in _at(epsilon)),
    Metric("B4", "curvature_lr", "curvature along lr", CURVED, "lower", OWN, s.curvature_lr),
    Metric("B4", "curvature_wd", "curvature along wd", CURVED, "lower", OWN, s.curvature_wd),
    Metric("B5", "curvature_correlation", "lr-wd correlation of the curvature", "", "", WANG, s.curvature_correlation),
    Metric("B5", "anisotropy", "anisotropy", "", "", WANG, s.anisotropy),
    Metric("B5", "orientation", "flat direction", "degrees", "", WANG, s.orientation),
    Metric("B6", "edge_probability", "P(optimum at an edge)", "", "lower", OWN, s.edge_probability),
    Metric("B7", "divergence_margin", "divergence margin", "decades", "higher", OWN, s.divergence_margin),
    Metric("B7", "divergence_margin_10", "margin to 10 % divergence", "decades", "higher", OWN,
           s.divergence_margin_10),
    Metric("B7", "diverging_share", "share of the space that diverges", "", "lower", OWN, s.diverging_share),
    Metric("C1", "lr_sensitivity", "lr sensitivity", "points", "lower", WORTSMAN, s.lr_sensitivity),
    Metric("C1", "lr_sensitivity_window", "lr sensitivity, 3 decades", "points", "lower", WORTSMAN,
           s.lr_sensitivity_window),
    Metric("C2", "prior_mean_regret", "cost of a random setting", "points", "lower", OWN, s.prior_mean_regret),
    Metric("C7", "lr_variance_share", "variance due to lr", "", "", HUTTER, s.lr_variance_share),
    Metric("C7", "wd_variance_share", "variance due to wd", "", "", HUTTER, s.wd_variance_share),
    Metric("C7", "lr_variance_share_top", "variance due to lr, better half", "", "", HUTTER, s.lr_variance_share_top),
    Metric("C7", "wd_variance_share_top", "variance due to wd, better half", "", "", HUTTER, s.wd_variance_share_top),
    Metric("C8", "lr_importance", "cross-check: importance of lr (PED-ANOVA)", "", "", WATANABE, x.lr_importance),
    Metric("C8", "wd_importance", "cross-check: importance of wd (PED-ANOVA)", "", "", WATANABE, x.wd_importance),
)
# fmt: on


def measure(cell: Landscape) -> dict[str, Estimate]:
    """All metrics of a cell, by key."""
    return {metric.key: metric.compute(cell) for metric in METRICS}
