"""Comparison of the optimizer of a pre-training with that of the fine-tuning.

Rows of the matrix are backbones, each from several pre-trainings; columns are optimizers of the fine-tuning.
    gap of a row          value with the optimizer of its pre-training - value with the best other one
    home advantage        effect of both being the same optimizer, fitted by least squares beside a main effect of each
                          pre-training and each optimizer, within each backbone, averaged over backbones
So neither an optimizer that is good everywhere nor a pre-training that is good for everything counts as an advantage.
A gap is about what to do, and counts both. With repeated seeds, from draws of the true values (`posterior.py`); in
grids too small for these around each cell's own mean, for what is linear in the values; without seeds, plug-in and
labelled so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from bocb_tune.analysis.core.arrays import Array
from bocb_tune.analysis.core.estimate import Estimate, Reason
from bocb_tune.analysis.coupling.posterior import posterior_values
from bocb_tune.analysis.matrix.noise import Noise
from bocb_tune.analysis.matrix.resample import NUM_DRAWS, SEED, interval
from bocb_tune.analysis.matrix.twoway import Matrix, fit_refusal
from bocb_tune.analysis.names.look import optimizer_key
from bocb_tune.analysis.sources.table import Pretraining

DRAWS = "draws of the true values, noise by cell"
PLUG_IN = "plug-in, includes noise"
FACTORS = ("backbone", "pretraining", "optimizer")
"""Axes of a block."""
SMALLEST_BLOCK = (1, 2, 2)
PAIR = 2
"""Optimizers among which the best other one is known beforehand, so that a gap is a plain difference."""
Drawn = Array | Reason
"""Draws of the true values [draws, rows, optimizers], or why there are none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """One row: staying with the optimizer of the pre-training against leaving it."""

    row: str
    own: str
    """Optimizer of the pre-training, as the grid spells it."""
    other: str
    """The best of the others, by its value."""
    gap: Estimate
    """Points; below 0 where leaving is better."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeanGap:
    """Average gap of the rows that one optimizer pre-trained."""

    own: str
    rows: int
    gap: Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """Share of one factor, or of an interaction, in all variation of a block."""

    factors: tuple[str, ...]
    share: Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """Everything about pre-training and fine-tuning of one grid."""

    gaps: tuple[Gap, ...]
    """Gaps of the rows whose pre-training's optimizer is in the grid and has a value."""
    without_gap: tuple[str, ...]
    """The other rows."""
    mean_gap: Estimate
    """Average over all gaps, which may be of opposite signs."""
    mean_gaps: tuple[MeanGap, ...]
    """Average by optimizer of the pre-training."""
    home_advantage: Estimate
    block: tuple[tuple[str, ...], tuple[str, ...]]
    """Backbones and pre-trainings that make a complete block; empty if none do."""
    terms: tuple[Term, ...]
    """Shares in the block."""


def transfer(
    values: Matrix,
    noise: Noise | None,
    rows: Sequence[str],
    optimizers: Sequence[str],
    pretrainings: Mapping[str, Pretraining],
) -> Transfer:
    """Compare pre-training and fine-tuning.

    Args:
        values: [rows, optimizers], points, NaN where missing.
        noise: None if the cells were not repeated.
        pretrainings: start of each row that has one.
    """
    drawn = _drawn(values, noise)
    singly = _drawn_singly(values, noise) if noise is not None and isinstance(drawn, Reason) else drawn
    of_gaps = singly if len(optimizers) == PAIR else drawn
    own = _own_columns(rows, optimizers, pretrainings)
    places = [place for place in range(len(rows)) if _has_gap(values[place], own[place])]
    gaps = tuple(_gap(values, of_gaps, rows, optimizers, place, own[place]) for place in places)
    made = [row for row in rows if row in pretrainings and pretrainings[row].optimizer]
    block = _block(values, rows, pretrainings)
    return Transfer(
        gaps=gaps,
        without_gap=tuple(row for row in made if row not in {gap.row for gap in gaps}),
        mean_gap=_mean_gap(values, of_gaps, [(place, own[place]) for place in places]),
        mean_gaps=tuple(_mean_gaps(values, of_gaps, optimizers, places, own)),
        home_advantage=_home_advantage(values, singly, block, own),
        block=(tuple(block), tuple(pretrainings[rows[place]].name for place in next(iter(block.values()), []))),
        terms=tuple(_terms(values, drawn, block)),
    )


def _drawn(values: Matrix, noise: Noise | None) -> Drawn:
    """Draw the true values, NaN where a cell has none; or say why they cannot be drawn."""
    if noise is None:
        return Reason.TOO_FEW_REPLICATES
    if reason := fit_refusal(values):
        return reason
    draws = posterior_values(values, noise, np.random.default_rng(SEED))
    return np.where(np.isfinite(values), draws, np.nan)


def _drawn_singly(values: Matrix, noise: Noise) -> Array:
    """Draw the true values around each cell's mean [draws, rows, optimizers], its variance moderated and unknown."""
    rng = np.random.default_rng(SEED)
    df = np.broadcast_to(noise.expected_df + noise.cell_df, values.shape)
    variance = noise.cell_variance * df / rng.chisquare(df, (NUM_DRAWS, *values.shape))
    return np.asarray(values + np.sqrt(variance) * rng.standard_normal(variance.shape))


def _own_columns(
    rows: Sequence[str], optimizers: Sequence[str], pretrainings: Mapping[str, Pretraining]
) -> list[int | None]:
    """Find the column of the optimizer that each row was pre-trained by."""
    columns = {optimizer_key(name): place for place, name in enumerate(optimizers)}
    made = (pretrainings[row].optimizer if row in pretrainings else "" for row in rows)
    return [columns.get(optimizer_key(name)) if name else None for name in made]


def _has_gap(values: Matrix, own: int | None) -> bool:
    return own is not None and bool(np.isfinite(values[own]) and np.isfinite(np.delete(values, own)).any())


def _gap(
    values: Matrix, drawn: Drawn, rows: Sequence[str], optimizers: Sequence[str], place: int, own: int | None
) -> Gap:
    assert own is not None
    others = np.where(np.arange(len(optimizers)) == own, -np.inf, np.nan_to_num(values[place], nan=-np.inf))
    gap = _estimate(_staying(values[place], own), drawn, lambda draws: _staying(draws[:, place], own))
    return Gap(row=rows[place], own=optimizers[own], other=optimizers[int(others.argmax())], gap=gap)


def _staying(values: Array, own: int) -> Array:
    """Return the own value less that of the best other [...] of values [..., optimizers]."""
    return np.asarray(values[..., own] - np.nanmax(np.delete(values, own, axis=-1), axis=-1))


def _mean_gap(values: Matrix, drawn: Drawn, places: Sequence[tuple[int, int | None]]) -> Estimate:
    if not places:
        return Estimate(value=None, unit="points", reason=Reason.TOO_FEW_OPTIMIZERS)

    def mean(of: Array) -> Array:
        gaps = [_staying(of[..., place, :], own) for place, own in places if own is not None]
        return np.asarray(np.mean(gaps, axis=0))

    return _estimate(mean(values), drawn, mean)


def _mean_gaps(
    values: Matrix, drawn: Drawn, optimizers: Sequence[str], places: Sequence[int], own: Sequence[int | None]
) -> Iterator[MeanGap]:
    for column, name in enumerate(optimizers):
        rows = [(place, column) for place in places if own[place] == column]
        if rows:
            yield MeanGap(own=name, rows=len(rows), gap=_mean_gap(values, drawn, rows))


def _estimate(point: Array, drawn: Drawn, of: Callable[[Array], Array], unit: str = "points") -> Estimate:
    """Give the median of a number over draws with its interval; without draws the plug-in value and why."""
    if isinstance(drawn, Reason):
        return Estimate(value=float(point), unit=unit, method=PLUG_IN, reason=drawn)
    found = of(drawn)
    low, high = interval(found)
    return Estimate(value=float(np.median(found)), lo=low, hi=high, unit=unit, method=DRAWS)


Block = dict[str, list[int]]
"""Rows of each backbone, in the order of the same pre-trainings."""


def _block(values: Matrix, rows: Sequence[str], pretrainings: Mapping[str, Pretraining]) -> Block:
    """Find the backbones with several pre-trainings, and the complete rows of the pre-trainings that all of them have.

    Random weights are no pre-training: how much better any is than none is another question.
    """
    found: dict[str, dict[str, int]] = {}
    for place, row in enumerate(rows):
        start = pretrainings.get(row)
        if start is not None and start.optimizer and np.isfinite(values[place]).all():
            found.setdefault(start.backbone, {})[start.name] = place
    several = {backbone: places for backbone, places in found.items() if len(places) > 1}
    common = set.intersection(*map(set, several.values())) if several else set()
    if len(common) < SMALLEST_BLOCK[1] or values.shape[1] < SMALLEST_BLOCK[2]:
        return {}
    first = next(iter(several.values()))
    names = [name for name in first if name in common]
    return {backbone: [places[name] for name in names] for backbone, places in several.items()}


def _home_advantage(values: Matrix, drawn: Drawn, block: Block, own: Sequence[int | None]) -> Estimate:
    """Return the advantage of the optimizers that are both a pre-training's and a fine-tuning's."""
    places = np.array(list(block.values()))
    columns = [own[place] for place in places[0]] if block else []
    same = np.array([[column == place for place in range(values.shape[1])] for column in columns], dtype=float)
    if len({column for column in columns if column is not None}) < SMALLEST_BLOCK[1] or not np.any(_centred(same)):
        return Estimate(value=None, unit="points", reason=Reason.TOO_FEW_OPTIMIZERS)
    return _estimate(advantage(values[places], same), drawn, lambda draws: advantage(draws[:, places], same))


def advantage(block: Array, same: Array) -> Array:
    """Return the least-squares effect [...] of `same` beside a main effect of every line, within each backbone.

    Args:
        block: [..., backbones, pretrainings, optimizers]
        same: 1 where pre-training and fine-tuning are by the same optimizer, else 0 [pretrainings, optimizers].
    """
    contrast = _centred(same)
    return np.asarray((block * contrast).sum(axis=(-2, -1)).mean(axis=-1) / (contrast * same).sum())


def _centred(matrix: Array) -> Array:
    """Subtract the means of both axes [pretrainings, optimizers]."""
    rows = matrix - matrix.mean(axis=-1, keepdims=True)
    return np.asarray(rows - rows.mean(axis=-2, keepdims=True))


def _terms(values: Matrix, drawn: Drawn, block: Block) -> Iterator[Term]:
    """Yield the share of each factor and each of their interactions; those of one backbone have none."""
    if not block:
        return
    places = np.array(list(block.values()))
    point = _shares(values[places])
    for factors in point:
        if factors[0] == FACTORS[0] and len(places) == 1:
            continue
        if np.isnan(point[factors]):
            yield Term(factors=factors, share=Estimate(value=None, reason=Reason.DEGENERATE_VARIANCE))
            continue
        share = _estimate(point[factors], drawn, lambda draws, key=factors: _shares(draws[:, places])[key], unit="")  # type: ignore[misc]
        yield Term(factors=factors, share=share)


def _shares(block: Array) -> dict[tuple[str, ...], Array]:
    """Return each sum of squares over their total, NaN where nothing varies."""
    squares = sums_of_squares(block)
    whole = np.sum(list(squares.values()), axis=0)
    return {
        factors: np.where(whole > 0, each / np.where(whole > 0, whole, 1), np.nan) for factors, each in squares.items()
    }


def sums_of_squares(block: Array) -> dict[tuple[str, ...], Array]:
    """Return the sum of squares [...] of every factor and interaction of complete blocks (Scheffe 1959, chapter 4).

    Args:
        block: [..., backbones, pretrainings, optimizers]
    """
    axes = dict(zip(FACTORS, (-3, -2, -1), strict=True))
    found = {}
    for size in range(1, len(FACTORS) + 1):
        for factors in combinations(FACTORS, size):
            part = block
            for factor, axis in axes.items():
                mean = part.mean(axis=axis, keepdims=True)
                part = part - mean if factor in factors else np.broadcast_to(mean, part.shape)
            found[factors] = np.asarray((part**2).sum(axis=(-3, -2, -1)))
    return found
