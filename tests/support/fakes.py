"""Run folders as the engine leaves them, made in milliseconds: an analytic landscape, the real journal writer."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bocb_tune.core.journal import FOLDER, JournalWriter, end_event, header, measure_event, start_event
from bocb_tune.core.types import Cell, Measurement, Objective, Phase, TrialSpec, TrialStatus, derive_seed

OBJECTIVE = Objective(metric="top1", unit="points", floor=1.0)
SPEC = """\
name: fake
search_spaces:
  adamw:
    lr: {low: 1e-5, high: 1e-1}
    weight_decay: {low: 1e-4, high: 1.0, zero: 0.15}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeRun:
    """What to write."""

    backbones: tuple[str, ...] = ("resnet18", "vit_tiny", "convnext_atto")
    optimizers: tuple[str, ...] = ("sgd", "adamw", "lamb")
    trials: int = 24
    """Design and search trials of a cell."""
    epochs: int = 9
    repeats: int = 3
    seed: int = 0
    unfinished: tuple[str, ...] = ()
    """Keys of cells whose first trial is still running, and which have nothing else."""
    settings: dict[str, Any] = field(default_factory=dict)


def write_run(folder: Path, run: FakeRun | None = None) -> Path:
    """Write a run folder and return it."""
    run = run or FakeRun()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "spec.yaml").write_text(SPEC, encoding="utf-8")
    for backbone in run.backbones:
        for optimizer in run.optimizers:
            _write_cell(folder, run, Cell(task="fake", dataset="none", backbone=backbone, optimizer=optimizer))
    return folder


def _write_cell(folder: Path, run: FakeRun, cell: Cell) -> None:
    rng = np.random.default_rng(derive_seed(run.seed, cell.key))
    writer = JournalWriter(folder / FOLDER / f"{cell.stem}.jsonl", header(cell, OBJECTIVE, run.settings))
    if cell.key in run.unfinished:
        _write_start(writer, _trial(run, cell, Phase.default, 0, {"lr": 1e-3, "weight_decay": 0.05}))
    else:
        _write_trials(writer, run, cell, rng)
    writer.close()


def _write_trials(writer: JournalWriter, run: FakeRun, cell: Cell, rng: np.random.Generator) -> None:
    scores: list[tuple[float, dict[str, float]]] = []
    for index in range(run.trials + 1):
        drawn = {"lr": 10 ** rng.uniform(-5, -1), "weight_decay": 10 ** rng.uniform(-4, 0) * (rng.random() > 0.15)}
        hparams = drawn if index else {"lr": 1e-3, "weight_decay": 0.05}
        phase = Phase.default if index == 0 else Phase.design if index <= run.trials // 3 else Phase.search
        score = _play(writer, _trial(run, cell, phase, index, hparams), rng, competes=index > 0)
        if score is not None:
            scores.append((score, hparams))
    best = max(scores, key=lambda pair: pair[0])[1]
    for index in range(run.repeats):
        _play(writer, _trial(run, cell, Phase.repeat, index, best), rng, competes=False)


def _trial(run: FakeRun, cell: Cell, phase: Phase, index: int, hparams: dict[str, float]) -> TrialSpec:
    rungs = tuple(budget for budget in (1, 3, 9) if budget < run.epochs)
    seed = derive_seed(run.seed, cell.key, str(phase), index)
    return TrialSpec(
        cell=cell, phase=phase, index=index, hparams=hparams, seed=seed, budget=run.epochs, settings={}, rungs=rungs
    )


def _write_start(writer: JournalWriter, trial: TrialSpec) -> None:
    writer.append(start_event(trial, attempt=1, time=0.0, provenance={}), durable=False)


def _play(writer: JournalWriter, trial: TrialSpec, rng: np.random.Generator, competes: bool) -> float | None:
    """Write one trial from start to end; its score if it completed."""
    _write_start(writer, trial)
    peak = _peak(trial) + rng.normal(0, 0.3)
    if competes and rng.random() < 0.02:
        return _end(writer, trial, TrialStatus.failed, None, 0, "RuntimeError: a worker died")
    last = trial.budget if not competes or peak > 65 else 3 if peak > 45 else 1
    if trial.hparams["lr"] > 0.03 * rng.uniform(0.7, 1.4):
        return _end(writer, trial, TrialStatus.diverged, OBJECTIVE.floor, 1, "loss is not finite")
    score = OBJECTIVE.floor
    for epoch in range(1, min(last, trial.budget) + 1):
        score = max(1.0, peak * (1 - 0.6 * math.exp(-3 * epoch / trial.budget)) + rng.normal(0, 0.5))
        measured = Measurement(budget=epoch, metrics={"score": score, "train_loss": 1.0}, elapsed_s=float(epoch))
        writer.append(measure_event(trial.id, measured), durable=False)
    if last < trial.budget:
        _end(writer, trial, TrialStatus.stopped, score, last, "")
        return None
    return _end(writer, trial, TrialStatus.completed, score, trial.budget, "")


def _end(
    writer: JournalWriter, trial: TrialSpec, status: TrialStatus, score: float | None, budget: int, message: str
) -> float | None:
    event = end_event(trial.id, status, score=score, budget=budget, elapsed_s=float(budget), message=message)
    writer.append(event, durable=False)
    return score if status is TrialStatus.completed else None


def _peak(trial: TrialSpec) -> float:
    """A bowl over the logarithms, moved by the cell; weight decay 0 is a decade below the range."""
    shift = derive_seed(trial.cell.key) % 7 / 7 - 0.5
    u = math.log10(trial.hparams["lr"]) + 2.7 + shift
    v = math.log10(trial.hparams["weight_decay"] or 1e-5) + 1.5 - shift
    return 82 + 6 * shift - 7 * u**2 - 1.2 * v**2
