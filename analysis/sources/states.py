"""States of a run, as trackers call them, and the status of a trial that each stands for."""

from __future__ import annotations

from bocb_tune.core.types import TrialStatus

ENDED = "ended"
"""States of a run that ended by itself or by a scheduler: which of the two, its budget says."""

STATES = {
    **{str(status): str(status) for status in TrialStatus},
    "complete": str(TrialStatus.completed),
    "done": str(TrialStatus.completed),
    "success": str(TrialStatus.completed),
    "finished": ENDED,
    "terminated": ENDED,
    "pruned": str(TrialStatus.stopped),
    "killed": str(TrialStatus.stopped),
    "preempted": str(TrialStatus.stopped),
    "paused": str(TrialStatus.stopped),
    "early_stopped": str(TrialStatus.stopped),
    "fail": str(TrialStatus.failed),
    "crashed": str(TrialStatus.failed),
    "error": str(TrialStatus.failed),
    "nan": str(TrialStatus.diverged),
    **dict.fromkeys(("pending", "waiting", "scheduled", "queued", "unfinished"), str(TrialStatus.running)),
}
"""Optuna, Ray Tune, Weights & Biases and MLflow, in lower case."""
