"""Run folders that keep a model, written without training one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bocb_tune.backbones import build_backbone
from bocb_tune.cli.launch import cell_plans, claim_folder, objective_of
from bocb_tune.core.types import Measurement, Phase, TrialStatus
from bocb_tune.engine.store import RunStore
from bocb_tune.spec.model import load_spec

SPEC = """\
name: kept
task: classification
dataset: {name: digits, image_size: 32}
backbones: [BACKBONE]
optimizers: [OPTIMIZER]
recipe: {base: digits, batch_size: 256, warmup_epochs: 0}
budget: {epochs: 1, trials_per_cell: 1}
search: {design: 0, asha: null}
repeats: {best: 0, default: 2}
"""


def make_model(backbone: str, seed: int = 0) -> nn.Module:
    """A model for digits with weights and running statistics that no initialisation gives, as after a training."""
    torch.manual_seed(seed)
    model = build_backbone(backbone, num_classes=10, in_chans=1, image_size=32)
    with torch.no_grad():
        for value in model.state_dict().values():
            if value.is_floating_point():
                value.add_(0.05 * torch.rand(value.shape))
    return model.eval()


def keep_model(
    folder: Path,
    state: dict[str, Any] | None,
    *,
    backbone: str = "test_resnet",
    optimizer: str = "adamw",
    seeds: Sequence[float | None] = (),
) -> str:
    """Write a run of one cell whose only trial scored 80, its checkpoint (none for None) and repeats, diverged where
    None. The trial's id."""
    folder.mkdir(parents=True)
    spec_file = folder.parent / f"{folder.name}.yaml"
    spec_file.write_text(SPEC.replace("BACKBONE", backbone).replace("OPTIMIZER", optimizer))
    spec = load_spec(spec_file)
    claim_folder(spec, folder)
    (plan,) = cell_plans(spec)
    store = RunStore(folder, (plan,), objective_of(spec), {})
    trial = plan.trial(Phase.default, 0, plan.space.default)
    repeats = [plan.trial(Phase.repeat, place, plan.space.default, seed=place) for place in range(len(seeds))]
    for each, score in zip([trial, *repeats], [80.0, *seeds], strict=True):
        store.start(each)
        if score is None:
            store.end(each, TrialStatus.diverged, budget=1)
        else:
            store.measure(each, Measurement(budget=1, metrics={"score": score, "val_loss": 1.0}, elapsed_s=1.0))
            store.end(each, TrialStatus.completed)
    store.close()
    if state is not None:
        path = folder / "checkpoints" / trial.id / "latest.pt"
        path.parent.mkdir(parents=True)
        torch.save(state, path)
    return trial.id
