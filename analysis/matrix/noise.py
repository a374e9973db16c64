"""Noise of each cell's value: one model, used by every share, test, rank and interval of the matrix.

Two or three seeds say little about a cell's own variance, and cells do differ: an optimizer may be noisier, a cell
unstable. So variances of single runs s[b, o]^2 are moderated (Smyth, Stat. Appl. Genet. Mol. Biol. 2004): those of all
cells are modelled as draws from a scaled inverse chi-square distribution, whose location may differ by backbone and by
optimizer, and each cell's own estimate is averaged with it. A cell with one seed gets the variance that the others
suggest. How much variances differ is estimated from the logarithms of s^2 by the moments of DerSimonian & Laird
(Controlled Clinical Trials 1986).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import digamma, polygamma

from bocb_tune.analysis.core.arrays import Flags
from bocb_tune.analysis.matrix.twoway import Matrix
from bocb_tune.analysis.matrix.weighted import weighted_residuals

MIN_DF = 3
"""Degrees of freedom of all seeds together below which the noise is unknown."""
COPIES = 1e-4
"""Least variance as a share of the mean: smaller ones come from seeds whose scores were rounded to the same number."""
LEAST_SPREAD = 1e-3
"""Variance of log variances that counts as none."""
_DF = np.geomspace(0.2, 2000, 2000)
_SPREAD: Matrix = polygamma(1, _DF / 2)
CELLS = (-2, -1)
"""Axes of backbones and optimizers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """Spread of the runs that cell values are means of, for one matrix or a stack of them."""

    seeds: Matrix
    """Runs averaged in each cell [..., backbones, optimizers]; 0 where there is no value."""
    own: Matrix
    """Variance of each cell's runs (ddof 1), points squared; 0 where there are fewer than two."""
    expected: Matrix
    """Variance of a run as suggested by the other cells."""
    expected_df: Matrix
    """Degrees of freedom that this suggestion is worth [..., 1, 1]; large where cells do not differ."""

    @property
    def cell_df(self) -> Matrix:
        """Degrees of freedom of each cell's own variance."""
        return np.maximum(self.seeds - 1, 0)

    @property
    def run_variance(self) -> Matrix:
        """Moderated variance of a single run of each cell."""
        df = self.cell_df
        return np.asarray((self.expected_df * self.expected + df * self.own) / (self.expected_df + df))

    @property
    def cell_variance(self) -> Matrix:
        """Variance of each cell's value; 0 where there is none."""
        return np.where(self.seeds > 0, self.run_variance / np.maximum(self.seeds, 1), 0.0)

    @property
    def precision(self) -> Matrix:
        """1 / `cell_variance`; 0 where a cell has no value."""
        return np.where(self.seeds > 0, np.maximum(self.seeds, 1) / self.run_variance, 0.0)

    @property
    def df(self) -> int:
        """Degrees of freedom of all seeds."""
        return int(self.cell_df.sum())

    @property
    def sd(self) -> float:
        """Standard deviation of single runs, pooled over cells, points."""
        return float(np.sqrt(np.sum(self.cell_df * self.own) / self.df))

    def part(self, rows: Flags, columns: Flags, kept: Flags) -> Noise:
        """Select the noise of some rows and columns, without the cells that are not `kept` [backbones, optimizers]."""
        seeds = np.where(kept, self.seeds, 0)[np.ix_(rows, columns)]
        own, expected = (each[np.ix_(rows, columns)] for each in (self.own, self.expected))
        return Noise(seeds=seeds, own=own, expected=expected, expected_df=self.expected_df)


def seed_noise(own: Matrix, seeds: Matrix) -> Noise | None:
    """Estimate the noise of a matrix; None where too few cells were repeated.

    Args:
        own: variance of the runs of each cell [backbones, optimizers], ddof 1; ignored where there are fewer than two.
        seeds: runs of each cell; 0 where there is no value. A value that is not a mean of runs counts as one.
    """
    own = np.where(seeds > 1, own, 0.0)
    # Repeats that are all equal are copies and carry no information on noise.
    if np.maximum(seeds - 1, 0).sum() < MIN_DF or not own.any():
        return None
    return moderated(own, seeds)


def moderated(own: Matrix, seeds: Matrix) -> Noise:
    """Moderate the variances of matrices [..., backbones, optimizers], given the numbers of seeds."""
    df = np.maximum(seeds - 1, 0)
    known, some = df > 0, np.maximum(df, 1)
    pooled = _sum(df * own) / _sum(df)
    logs = np.where(known, np.log(np.maximum(own / pooled, COPIES)) - digamma(some / 2) + np.log(some / 2), 0.0)
    error = polygamma(1, some / 2)
    spread = _spread_left(logs, np.where(known, 1 / error, 0.0))
    weight = np.where(known, 1 / (error + spread), 0.0)
    mean = _sum(weight * logs) / _sum(weight)
    log_expected = mean + _of_lines(logs - mean, weight, -1) + _of_lines(logs - mean, weight, -2)
    df0 = np.interp(-spread, -_SPREAD, _DF)
    # Correction for the bias of the mean logarithm of an inverse chi-square.
    expected = pooled * np.exp(log_expected + digamma(df0 / 2) - np.log(df0 / 2))
    return Noise(seeds=seeds, own=own, expected=expected, expected_df=df0)


def _sum(cells: Matrix | Flags) -> Matrix:
    return np.asarray(np.sum(cells, axis=CELLS, keepdims=True))


def _spread_left(logs: Matrix, weight: Matrix) -> Matrix:
    """Estimate the variance of log variances beyond rows, columns and estimation error [..., 1, 1]."""
    count = _sum(weight > 0)
    df = np.maximum(count - sum(logs.shape[-2:]) + 1, 1)
    whole = _sum(weight)
    room = (whole - _sum(weight**2) / whole) * df / np.maximum(count - 1, 1)
    left = _sum(weight * weighted_residuals(logs, weight) ** 2)
    return np.asarray(np.maximum((left - df) / np.maximum(room, np.finfo(float).tiny), LEAST_SPREAD))


def _of_lines(logs: Matrix, weight: Matrix, axis: int) -> Matrix:
    """Estimate each row's or column's deviation, shrunken by its error; `axis` runs along the cells of one."""
    precision = weight.sum(axis=axis, keepdims=True)
    known, some = precision > 0, np.maximum(precision, np.finfo(float).tiny)
    means = (weight * logs).sum(axis=axis, keepdims=True) / some
    whole = _sum(precision)
    centre = _sum(precision * means) / whole
    excess = _sum(precision * (means - centre) ** 2) - (_sum(known) - 1)
    room = np.maximum(whole - _sum(precision**2) / whole, np.finfo(float).tiny)
    between = np.maximum(excess / room, 0.0)
    return np.asarray(np.where(known, between / (between + 1 / some), 0.0) * (means - centre))
