"""The published tables of Li et al., "Unveiling the Backbone-Optimizer Coupling Bias", arXiv:2410.06373.

The facts lie in `published/`; where they come from and their quirks are in the README there.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from bocb_tune.analysis.sources.table import (
    CURVE_COLUMNS,
    TRIAL_COLUMNS,
    Pretraining,
    Source,
    SourceError,
    TrialTable,
    make_table,
)
from bocb_tune.core.types import Objective, TrialStatus

PUBLISHED = Path(__file__).parent / "published"
CITATION = (
    "S. Li et al., Unveiling the Backbone-Optimizer Coupling Bias in Visual Representation Learning, arXiv:2410.06373"
)


def published(name: str) -> TrialTable:
    """Read one published table: one score per cell, no seeds, no curves.

    Raises:
        SourceError: if there is no such table.
    """
    if name not in TABLES:
        near = difflib.get_close_matches(name, TABLES, n=1)
        hint = f"; did you mean paper:{near[0]}?" if near else ""
        raise SourceError(f"paper:{name}: no such published table (known: {', '.join(TABLES)}){hint}")
    scores, objective, files = TABLES[name]()
    rows = scores[["backbone", "model", "pretraining"]].drop_duplicates() if "pretraining" in scores else pd.DataFrame()
    return make_table(
        _as_trials(scores),
        pd.DataFrame(columns=CURVE_COLUMNS),
        objective=objective,
        source=Source(kind="paper", name=f"paper:{name}", sha256=_hash_of(files), citation=CITATION),
        pretrainings={
            row: Pretraining(backbone=model, name=name, optimizer=RECIPES.get(name, name))
            for row, model, name in rows.itertuples(index=False, name=None)
        },
        notes=("One published number per cell: how many seeds and trials stand behind it is not known.",),
    )


RECIPES = {"A1": "LAMB", "A2": "LAMB", "A3": "LAMB"}
"""Optimizer of a pre-training that the table calls by its recipe (arXiv:2110.00476, table 2)."""

Table = tuple[pd.DataFrame, Objective, tuple[str, ...]]


def _cifar100() -> Table:
    files = ("cifar100_accuracy.csv", "cifar100_hyperparameters.csv")
    accuracy, hparams = (pd.read_csv(PUBLISHED / file) for file in files)
    scores = accuracy.merge(hparams, on=["optimizer", "backbone"], how="left", validate="one_to_one")
    scores = scores.rename(columns={"top1": "score", "wd": "weight_decay"})
    return scores, Objective(metric="top1", unit="points", floor=1.0), files


def _imagenet() -> Table:
    scores = pd.read_csv(PUBLISHED / "imagenet_accuracy.csv").rename(columns={"top1": "score"})
    return scores, Objective(metric="top1", unit="points", floor=0.1), ("imagenet_accuracy.csv",)


def _coco() -> Table:
    """Put a column of the published table (task, backbone, its pre-training) in the place of a backbone."""
    scores = pd.read_csv(PUBLISHED / "coco_transfer.csv").rename(columns={"ap": "score"})
    scores["model"] = scores["task"] + " " + scores["backbone"]
    scores["backbone"] = scores["model"] + " (" + scores["pretraining"] + ")"
    return scores, Objective(metric="ap", unit="points", floor=0.0), ("coco_transfer.csv",)


def ranking() -> pd.DataFrame:
    """Read the published ranking (Table 4): one row per optimizer, one column per part."""
    return pd.read_csv(PUBLISHED / "cifar100_ranking.csv")


def settings() -> pd.DataFrame:
    """Read the published settings: `optimizer`, `backbone`, `lr`, `wd`, also of two backbones without a score."""
    return pd.read_csv(PUBLISHED / "cifar100_hyperparameters.csv")


def marks(table: str) -> pd.DataFrame:
    """Read the colours of the cells of a published table: `backbone`, `pretraining`, `optimizer`, `mark`."""
    found = pd.read_csv(PUBLISHED / "cell_marks.csv")
    return found[found["table"] == table].drop(columns="table")


TABLES: dict[str, Callable[[], Table]] = {"cifar100": _cifar100, "imagenet": _imagenet, "coco": _coco}


def _as_trials(scores: pd.DataFrame) -> pd.DataFrame:
    """Add every column of a trial table; what was not published is empty."""
    trials = scores.reindex(columns=TRIAL_COLUMNS)
    trials["trial"], trials["status"] = "published", str(TrialStatus.completed)
    trials["phase"] = trials["message"] = ""
    numbers = ["lr", "weight_decay", "score", "budget", "max_budget"]
    return trials.astype(dict.fromkeys(numbers, float)).astype({"seed": "Int64"})


def _hash_of(files: tuple[str, ...]) -> str:
    return hashlib.sha256(b"".join((PUBLISHED / file).read_bytes() for file in files)).hexdigest()
