"""What Ray's documentation shows for tuning a distributed training: each Tune trial starts a TorchTrainer of its own.

https://docs.ray.io/en/latest/train/user-guides/hyperparameter-optimization.html
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray
from ray import tune

from bocb_tune.cli.progress import output_to
from bocb_tune.core.types import TrialSpec

SCALING = {"num_workers": 2, "resources_per_worker": {"CPU": 0.99}}
"""Not quite a CPU each: the Tune trial that waits for the workers holds a little too, and must fit beside them."""


def train(config: dict[str, Any]) -> None:
    """One rank of one trial: the same generator that the engine drives, without checkpoints."""
    import ray.train
    import torch

    from bocb_tune.tasks import get_task
    from bocb_tune.training.context import Context, Ranks

    torch.set_num_threads(1)
    context = ray.train.get_context()
    ranks = Ranks(
        rank=context.get_world_rank(), world_size=context.get_world_size(), local_rank=context.get_local_rank()
    )
    trial = TrialSpec.from_json(config["trial"])
    for measurement in get_task(trial.cell.task).run(trial, Context(ranks=ranks)):
        ray.train.report(dict(measurement.metrics))


def tune_trial(config: dict[str, Any]) -> None:
    """One Tune trial."""
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.tune.integration.ray_train import TuneReportCallback

    TorchTrainer(
        train,
        train_loop_config={"trial": config["trial"]},
        scaling_config=ScalingConfig(**SCALING),
        run_config=RunConfig(storage_path=config["storage"], callbacks=[TuneReportCallback()]),
    ).fit()


def run_all(trials: Sequence[TrialSpec]) -> int:
    """Run the trials one after the other on a Ray of their own; returns how many reported their last epoch."""
    options = {"include_dashboard": False, "logging_level": "ERROR", "log_to_driver": False}
    ray.init(address="local", num_cpus=os.cpu_count(), **options)
    with tempfile.TemporaryDirectory(prefix="bocb-tune-bench-") as storage, output_to(Path(storage) / "ray.log"):
        results = tune.Tuner(
            tune.with_resources(tune_trial, {"cpu": 0.01}),
            param_space={"trial": tune.grid_search([trial.to_json() for trial in trials]), "storage": storage},
            tune_config=tune.TuneConfig(metric="score", mode="max", max_concurrent_trials=1),
            run_config=tune.RunConfig(storage_path=storage, verbose=0),
        ).fit()
        ray.shutdown()
    whole = [result for result in results if result.metrics and result.metrics.get("training_iteration") == 3]
    return len(whole)
