"""The trials of a cell: settings, outcome, curve, the command that repeats each, and the place of its checkpoint."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import pandas as pd

from bocb_tune.analysis.core.arrays import Index
from bocb_tune.analysis.findings.collect import Findings
from bocb_tune.analysis.matrix.cells import CellSummary
from bocb_tune.analysis.report.cards.values import DataTable, TrialList
from bocb_tune.analysis.sources.table import CELL
from bocb_tune.core.files import CHECKPOINTS
from bocb_tune.core.names import listed

MOST_TRIALS, MOST_OF_CELL = 1000, 3
"""Most trials that the page lists in all; with more, the number listed for each cell."""
MOST_POINTS = 4
"""Scores of a curve that are written out."""


class Trials:
    """Trials and curves of a table by cell."""

    def __init__(self, findings: Findings, source: str) -> None:
        """Take the findings, and the source as the user named it, which contains a run's checkpoints."""
        table = findings.table
        self._objective, self._is_run = table.objective, table.source.kind == "run"
        self._source, self._whole = source, len(table.trials) <= MOST_TRIALS
        self._trials: Mapping[tuple[str, str], pd.DataFrame] = {
            (str(b), str(o)): rows for (b, o), rows in table.trials.groupby(CELL)
        }
        curves = table.curves.dropna(subset=["score"])
        scores = curves["score"].to_numpy(float)
        places = cast("dict[tuple[str, str, str], Index]", curves.groupby([*CELL, "trial"]).indices)
        self._curves = {(str(b), str(o), str(t)): scores[rows] for (b, o, t), rows in places.items()}

    def of(self, cell: CellSummary, index: int) -> TrialList | None:
        """List the trials of one cell, best first; None if it has none."""
        rows = self._trials.get((cell.backbone, cell.optimizer))
        if rows is None:
            return None
        rows = rows.sort_values("score", ascending=False, kind="stable")
        shown = rows if self._whole else rows.head(MOST_OF_CELL)
        frame = pd.DataFrame(
            {
                "trial": shown["trial"].astype(str),
                "phase": shown["phase"],
                "lr": shown["lr"],
                "weight_decay": shown["weight_decay"],
                "seed": shown["seed"],
                "outcome": shown["status"],
                "score": self._objective.shown(shown["score"]),
                "epochs": shown["budget"],
                "scores_along_the_way": [self._curve(cell, str(trial)) for trial in shown["trial"]],
            }
        )
        frame = frame.loc[:, [name for name in frame if frame[name].notna().any() and (frame[name] != "").any()]]
        style = ".2f" if self._objective.is_bounded else ".4g"
        formats = {"lr": ".3g", "weight_decay": ".3g", "score": style, "epochs": "g"}
        left = len(rows) - len(shown)
        return TrialList(
            table=DataTable(stem=f"trials-{index:03d}", frame=frame, formats=formats),
            note=f"The best {len(shown)} of {len(rows)} trials; tables/trials.csv has all." if left else "",
            command=self._command(),
            checkpoints=self._checkpoints(rows),
        )

    def _curve(self, cell: CellSummary, trial: str) -> str:
        """Write a few scores of a trial, from its first epoch to its last."""
        scores = self._curves.get((cell.backbone, cell.optimizer, trial))
        if scores is None or len(scores) < 2:
            return ""
        places = sorted({round(k * (len(scores) - 1) / (MOST_POINTS - 1)) for k in range(MOST_POINTS)})
        return " → ".join(f"{self._objective.shown(scores[place]):.3g}" for place in places)

    def _command(self) -> str:
        """Write the command that repeats a trial; its id is in the table."""
        return f"bocb-tune trial --from {shlex.quote(self._source)} --id ID" if self._is_run else ""

    def _checkpoints(self, rows: pd.DataFrame) -> str:
        if not self._is_run:
            return ""
        folder = Path(self._source) / CHECKPOINTS
        kept = [trial for trial in rows["trial"].astype(str) if "/" not in trial and (folder / trial).is_dir()]
        return listed([f"{CHECKPOINTS}/{trial}" for trial in kept], 3)
