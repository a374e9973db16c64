"""Every metric of a cell: one row each, in the order of the report.

To add one, write one function, one row here, and its definition in `names/quantities.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from bocb_tune.analysis.cell import crosschecks as x
from bocb_tune.analysis.cell import sensitivity as s
from bocb_tune.analysis.core.estimate import Estimate
from bocb_tune.analysis.landscape.fit import Landscape
from bocb_tune.analysis.names.quantities import QUANTITIES, Quantity


@dataclass(frozen=True, slots=True)
class Metric:
    """One number per cell."""

    key: str
    """Name in `metrics.json` and in `QUANTITIES`."""
    compute: Callable[[Landscape], Estimate]

    @property
    def quantity(self) -> Quantity:
        """Name, definition, unit and source."""
        return QUANTITIES[self.key]


COARSER = (2.0, 5.0, 10.0)
"""Points of tolerance beside the usual one, for grids whose seeds differ by more."""


def _at(epsilon: float) -> tuple[Metric, ...]:
    """Return the widths of the good region at a coarser tolerance."""
    return (
        Metric(f"near_optimal_volume_at_{epsilon:g}", partial(s.near_optimal_volume, epsilon=epsilon)),
        Metric(f"usable_decades_lr_at_{epsilon:g}", partial(s.usable_decades_lr, epsilon=epsilon)),
    )


METRICS: tuple[Metric, ...] = (
    Metric("lr_star", s.lr_star),
    Metric("wd_star", s.wd_star),
    Metric("zero_decay_probability", s.zero_decay_probability),
    Metric("expected_score", s.best_score),
    Metric("near_optimal_volume", s.near_optimal_volume),
    Metric("random_trials_needed", s.random_trials_needed),
    Metric("usable_decades_lr", s.usable_decades_lr),
    Metric("usable_decades_lr_profile", s.usable_decades_lr_profile),
    Metric("usable_decades_wd", s.usable_decades_wd),
    Metric("usable_decades_wd_profile", s.usable_decades_wd_profile),
    *(metric for epsilon in COARSER for metric in _at(epsilon)),
    Metric("curvature_lr", s.curvature_lr),
    Metric("curvature_wd", s.curvature_wd),
    Metric("curvature_correlation", s.curvature_correlation),
    Metric("anisotropy", s.anisotropy),
    Metric("orientation", s.orientation),
    Metric("edge_probability", s.edge_probability),
    Metric("divergence_margin", s.divergence_margin),
    Metric("divergence_margin_10", s.divergence_margin_10),
    Metric("diverging_share", s.diverging_share),
    Metric("lr_sensitivity", s.lr_sensitivity),
    Metric("lr_sensitivity_window", s.lr_sensitivity_window),
    Metric("prior_mean_regret", s.prior_mean_regret),
    Metric("lr_variance_share", s.lr_variance_share),
    Metric("wd_variance_share", s.wd_variance_share),
    Metric("lr_variance_share_top", s.lr_variance_share_top),
    Metric("wd_variance_share_top", s.wd_variance_share_top),
    Metric("lr_importance", x.lr_importance),
    Metric("wd_importance", x.wd_importance),
)


def measure(cell: Landscape) -> dict[str, Estimate]:
    """Compute all metrics of a cell, by key."""
    return {metric.key: metric.compute(cell) for metric in METRICS}
