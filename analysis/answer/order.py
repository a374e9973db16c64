"""Whether backbones agree on the order of the optimizers, and who is first by mean rank: in words."""

from __future__ import annotations

import numpy as np

from bocb_tune.analysis.findings.collect import Findings
from bocb_tune.analysis.matrix.exact import rank_gap
from bocb_tune.core.names import listed

MOST_NAMED = 6


def order_of(findings: Findings) -> tuple[str, ...]:
    """Say both, where the grid is complete and large enough."""
    grid = findings.grid
    w = findings.kendall_w if grid.true_agreement.value is None else grid.true_agreement
    if w.value is None or findings.ranks is None:
        return ()
    span = "" if w.lo is None or w.hi is None else f" (95 % CI {w.lo:.2f} to {w.hi:.2f})"
    noise = "noise of seeds included" if w is findings.kendall_w else "noise of seeds taken out"
    return (
        f"Agreement of the backbones on the order of the optimizers, Kendall's W (0: none, 1: full): {w.value:.2f}"
        f"{span}, {noise}.",
        _first(findings),
    )


def _first(findings: Findings) -> str:
    """Say who has the best mean rank, and than whom it is significantly better over backbones."""
    assert findings.ranks is not None
    mean, names = findings.ranks.ranks.mean(axis=0), findings.table.optimizers
    first, gap = int(mean.argmin()), rank_gap(*findings.ranks.ranks.shape)
    behind = [names[o] for o in np.argsort(mean) if mean[o] - mean[first] > gap]
    head = f"Over the {len(findings.matrix)} backbones {names[first]} has the best mean rank, {mean[first]:.2f}"
    if behind:
        more = f"significantly better than {listed(behind, MOST_NAMED)}"
        rest = len(names) - 1 - len(behind)
        return f"{head}: {more}" + (f"; not significantly better than the other {rest}." if rest else ".")
    return f"{head}; it is significantly better than none (that takes a difference of {gap:.1f} ranks)."
