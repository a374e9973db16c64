"""`TrialTable`: what every source is turned into before anything is computed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bocb_tune.analysis.names.look import ordered_backbones, ordered_optimizers
from bocb_tune.core.space import Dim
from bocb_tune.core.types import Objective

Dims = Mapping[str, Dim]
"""Range of `lr` and, where it was searched, of `weight_decay`."""

CELL = ["backbone", "optimizer"]
HYPERPARAMETERS = ("lr", "weight_decay")
IN_WORDS = {"lr": "learning rate", "weight_decay": "weight decay"}
MEASURED = ("train_loss", "step_s", "state_mib")
"""Last mean training loss, median seconds of an optimizer step, and MiB of the optimizer's state; of a run, or of a
table that has such columns."""
TRIAL_COLUMNS = [
    *CELL,
    "trial",
    "phase",
    "status",
    "lr",
    "weight_decay",
    "seed",
    "score",
    "budget",
    "max_budget",
    "elapsed_s",
    "audit",
    "message",
    *MEASURED,
]
REFINED_COLUMNS = [*TRIAL_COLUMNS, "own"]
CURVE_COLUMNS = [*CELL, "trial", "budget", "score"]

# Fewer distinct scores than this are multiples of some common share by chance.
MIN_DISTINCT_SCORES = 10
MOST_IMAGES = 100_000
MOST_SCORES = 500
ROUNDED = 1e-6
"""Largest relative error of a score that was written as a decimal number."""


class SourceError(ValueError):
    """A source that cannot be analysed as it stands; the message says where, what and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Origin of the trials."""

    kind: str
    """`run`, `table` or `paper`."""
    name: str
    """Name, as shown in the report's title."""
    sha256: str
    """SHA-256 of the bytes that were read."""
    citation: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pretraining:
    """Weights that the trainings of a row of the grid started from."""

    backbone: str
    """Name of the backbone without them."""
    name: str
    """Name of the pre-training."""
    optimizer: str
    """Name of the optimizer it was made by; empty for random weights, or where it is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialTable:
    """Trials of a grid, one row each, and their curves; sorted, so the order of the source's rows has no effect."""

    trials: pd.DataFrame
    """`TRIAL_COLUMNS`; numbers are NaN where not known, texts empty; `score` in points, as the objective says;
    `audit` for a trial drawn, before it started, to be exempt from stopping."""
    curves: pd.DataFrame
    """`CURVE_COLUMNS`, one row per measurement."""
    objective: Objective
    """`floor` is NaN if the source does not say what a diverged trial scores."""
    source: Source
    backbones: tuple[str, ...]
    """Rows of the grid, also those without a trial yet."""
    optimizers: tuple[str, ...]
    """Columns of the grid."""
    notes: tuple[str, ...] = ()
    """Remarks on what was detected, converted or left out while reading."""
    cautions: tuple[str, ...] = ()
    """Remarks that a reader must know beside the answer: what was inferred, and what is not told apart."""
    garbled: tuple[str, ...] = ()
    """Journal lines that could not be read, as file:line: why."""
    refined: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=REFINED_COLUMNS))
    """Trials that moved what is the optimizer's own at a best point, and repeats of the refined best: no part of
    `trials`, since landscapes are of learning rate and weight decay alone. `REFINED_COLUMNS`, `own` being JSON."""
    rungs: Mapping[tuple[str, str], tuple[int, ...]] = field(default_factory=dict)
    """Budgets at which the trials of a cell competed, by (backbone, optimizer)."""
    spaces: Mapping[str, Dims] = field(default_factory=dict)
    """Ranges of `lr` and `weight_decay`, by optimizer, where known."""
    num_images: float = math.inf
    """Images a score is the share of, where the scores show it: their binomial noise is known then."""
    pretrainings: Mapping[str, Pretraining] = field(default_factory=dict)
    """Start of each row that has one; empty where no row starts from other weights than random ones."""
    validated_on_test: bool = False
    """Whether the scores, by which settings are selected, are of test data."""

    def shown_trials(self) -> pd.DataFrame:
        """Return the trials with the metric itself, under its name where it is not the score."""
        if self.objective.is_score:
            return self.trials
        shown = self.trials.assign(score=self.objective.shown(self.trials["score"]))
        return shown.rename(columns={"score": self.objective.metric})


def granularity(scores: NDArray[np.float64]) -> float:
    """Find the smallest number of images (at most 100,000) that every finite score, in points, is a share of.

    Infinity where there is none, where a score is outside 0..100, or for fewer than 10 distinct scores. Rounding to d
    decimals looks like 10**(d + 2) images: only a caller who knows that nothing was rounded can tell.
    """
    shares = np.unique(scores[np.isfinite(scores)]) / 100
    if len(shares) < MIN_DISTINCT_SCORES or shares[0] < 0 or shares[-1] > 1:
        return math.inf
    images = np.arange(1, MOST_IMAGES + 1)
    for share in shares[:: -(-len(shares) // MOST_SCORES)]:
        correct = share * images
        images = images[np.abs(correct - np.round(correct)) <= ROUNDED * correct]
    return float(images[0]) if len(images) else math.inf


def make_table(
    trials: pd.DataFrame,
    curves: pd.DataFrame,
    *,
    objective: Objective,
    source: Source,
    notes: tuple[str, ...] = (),
    cautions: tuple[str, ...] = (),
    garbled: tuple[str, ...] = (),
    refined: pd.DataFrame | None = None,
    rungs: Mapping[tuple[str, str], tuple[int, ...]] | None = None,
    spaces: Mapping[str, Dims] | None = None,
    cells: tuple[tuple[str, str], ...] = (),
    num_images: float = math.inf,
    validated_on_test: bool = False,
    pretrainings: Mapping[str, Pretraining] | None = None,
) -> TrialTable:
    """Sort the rows and name the axes; `cells` adds (backbone, optimizer) pairs that have no trial yet."""
    trials = trials.reindex(columns=TRIAL_COLUMNS)
    numbers = {name: trials[name].astype(float) for name in ("elapsed_s", *MEASURED)}
    trials = trials.assign(audit=trials["audit"].eq(True), **numbers)
    return TrialTable(
        trials=trials.sort_values([*CELL, "trial"], ignore_index=True),
        curves=curves[CURVE_COLUMNS].sort_values([*CELL, "trial", "budget"], ignore_index=True),
        objective=objective,
        source=source,
        backbones=ordered_backbones([*trials["backbone"].unique(), *(backbone for backbone, _ in cells)]),
        optimizers=ordered_optimizers([*trials["optimizer"].unique(), *(optimizer for _, optimizer in cells)]),
        notes=notes,
        cautions=cautions,
        garbled=garbled,
        **({} if refined is None else {"refined": refined.sort_values([*CELL, "trial"], ignore_index=True)}),
        rungs=rungs or {},
        spaces=spaces or {},
        num_images=num_images,
        validated_on_test=validated_on_test,
        pretrainings=pretrainings or {},
    )
