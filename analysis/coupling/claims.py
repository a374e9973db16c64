"""The conclusions of arXiv:2410.06373, each checked against the published table by several measures.

A verdict is counted, never written: `yes` if every check holds, `mostly` if more than half do, `partly` if some do,
`no` if none does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from bocb_tune.analysis.core.arrays import Flags
from bocb_tune.analysis.coupling.shares import Lines, coupling_indices, line_shares
from bocb_tune.analysis.coupling.viable import failures, viable_coupling
from bocb_tune.analysis.matrix.concordance import concordance
from bocb_tune.analysis.matrix.contrasts import Contrast, sgd_on_classical
from bocb_tune.analysis.matrix.standings import regret, spread
from bocb_tune.analysis.matrix.twoway import Matrix, decompose
from bocb_tune.analysis.names.look import SGD_FAMILY, backbone_class, optimizer_key
from bocb_tune.analysis.names.table import CLASSICAL

STRONGLY_COUPLED = ("CNX-T", "Moga-S", "URLK-T", "DeiT-S")
WEAKLY_COUPLED = ("TNX-T", "CNXV2-T", "CAF-12")
ROBUST = ("Adan", "LAMB", "AdamW")
TRIVIAL = ("AdaGrad", "RMSProp", "AdaDelta")
AMONG = 3
"""Number of best, or worst, optimizers by a measure that count as robust, or trivial."""
SIGNIFICANT = 0.05

Names = Sequence[str]


class Verdict(StrEnum):
    yes = "yes"
    mostly = "mostly"
    partly = "partly"
    no = "no"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One measure that supports or contradicts a claim."""

    statement: str
    """Sentence with the numbers."""
    holds: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A conclusion of the paper, and the checks on its table."""

    statement: str
    checks: tuple[Measure, ...]
    notes: tuple[str, ...] = ()
    """Further facts for a reader of the verdict."""

    @property
    def verdict(self) -> Verdict:
        share = np.mean([check.holds for check in self.checks])
        if share in (0, 1):
            return Verdict.yes if share else Verdict.no
        return Verdict.mostly if share > 0.5 else Verdict.partly


def claims(values: Matrix, backbones: Names, optimizers: Names, rng: np.random.Generator) -> tuple[Claim, ...]:
    """Check all conclusions.

    Args:
        values: complete [backbones, optimizers], points, with the paper's names.
    """
    indices = _coupling_measures(values, optimizers)
    return (
        _sgd_suits_classical(values, backbones, optimizers, rng),
        _strongly_coupled(indices, backbones),
        _weakly_coupled(indices, backbones),
        *_standing(values, optimizers),
    )


def _sgd_suits_classical(values: Matrix, backbones: Names, optimizers: Names, rng: np.random.Generator) -> Claim:
    found = sgd_on_classical(values, backbones, optimizers, rng)
    assert isinstance(found, Contrast), "the published table has every cell"
    checks = tuple(
        Measure(
            statement=f"SGD and SGDP against Adam-type optimizers: {found.inside:+.2f} points on classical networks, "
            f"{found.outside:+.2f} elsewhere; exchanging classes gives as much in {test.larger} of {test.total} ways, "
            f"counted on {scale}",
            holds=test.p < SIGNIFICANT,
        )
        for scale, test in (("points", found.on_points), ("ranks", found.on_ranks))
    )
    return Claim(
        statement="Classical convolutional networks couple with SGD",
        checks=checks,
        notes=(_exceptions(found, backbones), _best_elsewhere(values, backbones, optimizers)),
    )


def _exceptions(found: Contrast, backbones: Names) -> str:
    against = [
        f"{name} {value:+.2f}"
        for name, value in zip(backbones, found.by_backbone, strict=True)
        if (value > 0) != (backbone_class(name) == CLASSICAL)
    ]
    return f"Not on every backbone; against the rule: {', '.join(against) or 'none'}"


def _best_elsewhere(values: Matrix, backbones: Names, optimizers: Names) -> str:
    """List the classical networks whose best optimizer is of another family."""
    best = [optimizers[i] for i in values.argmax(axis=1)]
    other = [
        f"{backbone} ({optimizer})"
        for backbone, optimizer in zip(backbones, best, strict=True)
        if backbone_class(backbone) == CLASSICAL and optimizer_key(optimizer) not in SGD_FAMILY
    ]
    return f"Classical networks with another best optimizer: {', '.join(other) or 'none'}"


def _coupling_measures(values: Matrix, optimizers: Names) -> dict[str, Matrix]:
    """Measure in several ways how strongly each backbone is coupled; larger is more [backbones]."""
    worst = int(np.argmax(line_shares(decompose(values))[1]))
    failed = failures(values)
    return {
        "standard deviation without the worst": spread(values).sd,
        "coupling": _of_backbones(coupling_indices(values, None)),
        f"coupling without {optimizers[worst]}": _of_backbones(coupling_indices(np.delete(values, worst, 1), None)),
        "failures": failed.sum(axis=1).astype(float),
        "coupling among viable cells": _of_backbones(viable_coupling(values, failed, None)),
    }


def _of_backbones(lines: Lines) -> Matrix:
    return np.array([estimate.value for estimate in lines[0]], float)


def _strongly_coupled(indices: Mapping[str, Matrix], backbones: Names) -> Claim:
    inside = np.isin(backbones, STRONGLY_COUPLED)
    checks = tuple(
        Measure(
            statement=f"by {name} they come before all others: {_told(values, inside, backbones)}, "
            f"highest of the others {_highest(values, ~inside, backbones)}",
            holds=bool(values[inside].min() > values[~inside].max()),
        )
        for name, values in indices.items()
    )
    return Claim(statement=f"{', '.join(STRONGLY_COUPLED)} are strongly coupled", checks=checks)


def _weakly_coupled(indices: Mapping[str, Matrix], backbones: Names) -> Claim:
    inside = np.isin(backbones, WEAKLY_COUPLED)
    checks = tuple(
        Measure(
            statement=f"by {name} none is above the median of {np.median(values):.2f}: "
            f"{_told(values, inside, backbones)}",
            holds=bool(values[inside].max() <= np.median(values)),
        )
        for name, values in indices.items()
    )
    return Claim(statement=f"{', '.join(WEAKLY_COUPLED)} are weakly coupled", checks=checks)


def _told(values: Matrix, inside: Flags, backbones: Names) -> str:
    return ", ".join(f"{name} {value:.2f}" for name, value, told in zip(backbones, values, inside, strict=True) if told)


def _highest(values: Matrix, among: Flags, backbones: Names) -> str:
    index = int(np.argmax(np.where(among, values, -np.inf)))
    return f"{backbones[index]} {values[index]:.2f}"


def _standing(values: Matrix, optimizers: Names) -> tuple[Claim, ...]:
    cost = regret(values)
    measures = {
        "mean rank": concordance(values).ranks.mean(axis=0),
        "mean regret": cost.mean(axis=0),
        "worst regret": cost.max(axis=0),
    }
    coupling = dict(zip(optimizers, coupling_indices(values, None)[1], strict=True))
    robust = (
        Claim(
            statement=f"{name} is robust",
            checks=tuple(_best_by(measure, array, name, optimizers) for measure, array in measures.items()),
            notes=(f"Coupling of its column: {coupling[name].value:.2f} points",),
        )
        for name in ROBUST
    )
    trivial = (
        Claim(
            statement=f"{name} gives trivial results",
            checks=tuple(_worst_by(measure, array, name, optimizers) for measure, array in measures.items()),
            notes=(f"Worst on {_times_worst(values, name, optimizers)} of {len(values)} backbones",),
        )
        for name in TRIVIAL
    )
    return (*robust, *trivial)


def _best_by(measure: str, cost: Matrix, name: str, optimizers: Names) -> Measure:
    own = cost[list(optimizers).index(name)]
    place = int(np.sum(cost < own)) + 1
    return Measure(statement=f"{measure} {own:.2f}: place {place} of {len(cost)}", holds=place <= AMONG)


def _worst_by(measure: str, cost: Matrix, name: str, optimizers: Names) -> Measure:
    own = cost[list(optimizers).index(name)]
    place = int(np.sum(cost > own)) + 1
    return Measure(statement=f"{measure} {own:.2f}: place {place} of {len(cost)} from the end", holds=place <= AMONG)


def _times_worst(values: Matrix, name: str, optimizers: Names) -> int:
    return int(np.sum(values.argmin(axis=1) == list(optimizers).index(name)))
