"""Findings on coupling: cells that fail, the share of interaction among the rest, its significance, and its carriers.

`answer/` puts them into sentences.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bocb_tune.analysis.core.arrays import Flags, Index
from bocb_tune.analysis.core.estimate import Estimate, Reason
from bocb_tune.analysis.coupling.failures import FailedCell, Names, Viability
from bocb_tune.analysis.coupling.interaction_test import NUM_NULL, InteractionTest, interaction_test
from bocb_tune.analysis.coupling.posterior import CHAINS, posterior_values
from bocb_tune.analysis.coupling.shares import plug_in_shares, shares_of_draws
from bocb_tune.analysis.coupling.viable import enough
from bocb_tune.analysis.matrix.resample import interval
from bocb_tune.analysis.matrix.twoway import MIN_SHARE_SHAPE, Matrix, effects, fit_refusal

Places = tuple[Index, Index]
"""Indices of some rows and columns [rows, 1], [1, columns]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Carrier:
    """A backbone or optimizer with its part in the interaction of the viable cells."""

    name: str
    share: Estimate
    """Share of the interaction's sum of squares."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CouplingVerdict:
    """Findings on one matrix [backbones, optimizers]."""

    viability: Viability
    left_out: tuple[str, ...]
    """Backbones and optimizers with fewer than three viable cells, which take no part in the rest."""
    share: Estimate
    """Interaction as a share of the optimizer's effect, among viable cells."""
    share_total: Estimate
    """Interaction as a share of all variation."""
    test: InteractionTest | None
    """Test on the viable cells, its `p_cell` at their places in the matrix; None without repeated seeds."""
    interaction: Matrix | None
    """Interaction of viable cells in points [backbones, optimizers], NaN elsewhere; None where nothing is known."""
    draws: Matrix | None
    """Draws of the true values of viable cells [draws, backbones, optimizers], NaN elsewhere; None without repeated
    seeds."""
    lines: tuple[Carrier, ...]
    """The backbone and the optimizer with the largest parts; empty where no interaction is shown."""
    cells: tuple[str, ...]
    """Keys of the cells that deviate beyond noise by themselves, the most certain first."""

    @property
    def failed(self) -> tuple[FailedCell, ...]:
        return self.viability.failed

    @property
    def is_shown(self) -> bool:
        """Whether an interaction among viable cells is beyond noise."""
        return self.test is not None and self.test.is_significant


def judge(
    viability: Viability,
    names: tuple[Names, Names],
    rng: np.random.Generator,
    *,
    num_null: int = NUM_NULL,
    chains: int = CHAINS,
) -> CouplingVerdict:
    """Judge a matrix: which cells fail, how much of the rest is interaction, and which row and column carry it.

    Args:
        viability: the matrix with its failures set apart.
        names: of backbones and of optimizers.
        rng: of the test and the draws.
        num_null: matrices of pure noise that the test draws.
        chains: of the draws of the true values.
    """
    known = np.isfinite(viability.values)
    rows, columns = enough(known)
    inside = np.flatnonzero(rows)[:, None], np.flatnonzero(columns)[None]
    values = viability.values[inside]
    left_out = tuple(name for line, kept in zip(names, (rows, columns), strict=True) for name in np.array(line)[~kept])
    reason = Reason.INCOMPLETE_MATRIX if 0 in values.shape else fit_refusal(values, MIN_SHARE_SHAPE)
    test = draws = None
    if reason:
        share = total = Estimate(value=None, reason=reason)
    elif viability.noise is None:
        share, total = plug_in_shares(values)
    else:
        noise = viability.noise.part(rows, columns, known)
        test = interaction_test(values, noise, rng, num_null)
        draws = posterior_values(values, noise, rng, chains)
        share, total = shares_of_draws(values, draws, test)
        test, draws = test.placed(known.shape, inside), _spread(draws, known, inside)
    is_known = test is not None or share.value is not None
    return CouplingVerdict(
        viability=viability,
        left_out=left_out,
        share=share,
        share_total=total,
        test=test,
        interaction=_spread(effects(values)[3][None], known, inside)[0] if is_known else None,
        draws=draws,
        lines=_carriers(values, inside, names, draws) if share.value is not None and _may_carry(test) else (),
        cells=() if test is None else _beyond_noise(test, names),
    )


def _may_carry(test: InteractionTest | None) -> bool:
    return test is None or test.is_significant


def _carriers(values: Matrix, inside: Places, names: tuple[Names, Names], draws: Matrix | None) -> tuple[Carrier, ...]:
    """Find the backbone and the optimizer with the largest part of the interaction, with intervals of the draws."""
    if draws is None:
        stack = values[None]
    else:
        stack = np.where(np.isfinite(values), draws[:, inside[0], inside[1]], np.nan)
    squares = np.nan_to_num(effects(stack)[3]) ** 2
    whole = squares.sum(axis=(1, 2))
    if not np.all(whole > 0):
        return ()
    found = []
    for axis in (0, 1):
        shares = squares.sum(axis=2 - axis) / whole[:, None]
        top = int(shares.mean(axis=0).argmax())
        lo, hi = (None, None) if draws is None else interval(shares[:, top])
        share = Estimate(value=float(shares[:, top].mean()), lo=lo, hi=hi, method="part of the interaction")
        found.append(Carrier(name=names[axis][int(inside[axis].ravel()[top])], share=share))
    return tuple(found)


def _beyond_noise(test: InteractionTest, names: tuple[Names, Names]) -> tuple[str, ...]:
    places = np.argwhere(test.significant_cells)
    surest = sorted(places.tolist(), key=lambda place: float(test.p_cell[tuple(place)]))
    return tuple(f"{names[0][b]}/{names[1][o]}" for b, o in surest)


def _spread(draws: Matrix, known: Flags, inside: Places) -> Matrix:
    """Place the draws of a part [draws, some backbones, some optimizers] in the matrix."""
    whole = np.full((len(draws), *known.shape), np.nan)
    whole[:, inside[0], inside[1]] = draws
    return np.where(known, whole, np.nan)
