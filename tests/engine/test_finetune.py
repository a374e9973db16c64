"""Pre-training and fine-tuning end to end: a run's kept models are the weights that another run starts from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from bocb_tune.analysis.patterns.checkpoints import read_weights
from bocb_tune.analysis.sources.load import load
from bocb_tune.cli.launch import cell_plans, claim_folder, objective_of, starting_weights
from bocb_tune.cli.weights import find_starts, keep_weights
from bocb_tune.core.kept import kept_models
from bocb_tune.core.types import Phase, TrialRecord, TrialStatus
from bocb_tune.spec.environment import PLANNED
from bocb_tune.spec.model import load_spec
from tests.support.command import bocb
from tests.support.processes.runs import Run, count_lines, records_in
from tests.support.simulated import Simulation

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
SMALL = (
    "backbones=[test_resnet]",
    "optimizers=[sgd, adamw]",
    "budget.epochs=2",
    "budget.trials_per_cell=1",
    "search.design=0",
    "search.asha=null",
    "repeats.best=0",
    "recipe={base: digits, warmup_epochs: 0}",
)
PLAIN = "recipe={base: digits, augment: none, warmup_epochs: 0}"
FEW = "name: shapes, images: 8, held_out: 4"


def simulated(name: str, folder: Path, *overrides: str) -> dict[str, TrialRecord]:
    """The records of a small run of a shipped experiment, trained in this process."""
    spec = load_spec(EXPERIMENTS / f"{name}.yaml", [*SMALL, *overrides], PLANNED)
    starts = find_starts(spec, folder, pytest.fail, file=name)
    claim_folder(spec, folder)
    keep_weights(starts, folder)
    cells = cell_plans(spec, folder=folder)
    return Simulation(folder, cells, objective=objective_of(spec), checkpoints=True).run()


def test_kept_models_are_fine_tuned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = simulated("pretrain_digits", tmp_path / "first", "optimizers=[adamw]")
    assert {record.status for record in first.values()} <= {TrialStatus.completed, TrialStatus.diverged}
    assert {kept.cell.cell.key for kept in kept_models(tmp_path / "first")} == {"test_resnet/adamw"}
    starts = f"pretrained={{adamw: '{tmp_path / 'first'}:*/adamw', scratch: scratch}}"
    second = simulated("finetune_digits", tmp_path / "second", starts)
    table = load(str(tmp_path / "second"))
    assert table.backbones == ("test_resnet@adamw", "test_resnet@scratch")
    assert table.optimizers == ("sgd", "adamw")
    assert len(table.trials) == len(second) == 4
    defaults = {r.cell.row: r for r in second.values() if r.phase == Phase.default and r.cell.optimizer == "adamw"}
    tuned, random = defaults["test_resnet@adamw"], defaults["test_resnet@scratch"]
    assert tuned.seed == random.seed
    assert tuned.measurements[0].metrics["train_loss"] < random.measurements[0].metrics["train_loss"]
    assert tuned.score is not None
    assert tuned.score > 60

    before = {id: starting_weights(tmp_path / "second", id) for id in (tuned.id, random.id)}
    given = load_file(tmp_path / "second" / "pretrained" / "test_resnet@adamw.safetensors")
    shared = [name for name in given if name in before[tuned.id] and not name.startswith("fc.")]
    assert len(shared) > 10
    assert all(np.array_equal(before[tuned.id][name], given[name].numpy()) for name in shared)
    assert not all(np.array_equal(before[random.id][name], given[name].numpy()) for name in shared)

    assert bocb(monkeypatch, "trial", "--from", tmp_path / "second", "--id", tuned.id, "--keep") == 0
    monkeypatch.undo()
    assert records_in(tmp_path / "second")[tuned.id].score == tuned.score


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("shapes_detection", f"{{{FEW}, image_size: 64}}"),
        pytest.param("shapes_pose", f"{{{FEW}}}", marks=pytest.mark.slow),
    ],
)
def test_what_a_network_on_a_backbone_began_with_holds_the_pretraining(tmp_path: Path, name: str, data: str) -> None:
    simulated("shapes_pretrain", tmp_path / "first", "optimizers=[sgd]", "budget.epochs=1", PLAIN)
    starts = f"pretrained={{sgd: '{tmp_path / 'first'}:*/sgd'}}"
    options = (
        "optimizers=[sgd]",
        "budget.epochs=1",
        f"dataset={data}",
        "recipe={base: shapes, batch_size: 4, warmup_epochs: 0}",
    )
    (record,) = simulated(name, tmp_path / "second", starts, *options).values()
    found = starting_weights(tmp_path / "second", record.id)
    given = load_file(tmp_path / "second" / "pretrained" / "test_resnet@sgd.safetensors")
    stem = next(value.numpy() for tensor, value in given.items() if tensor.endswith("weight") and value.ndim > 1)
    assert any(value.shape == stem.shape and np.array_equal(value, stem) for value in found.values())
    kept = {tensor for path in (tmp_path / "second" / "checkpoints").rglob("*.pt") for tensor in read_weights(path)}
    assert kept <= set(found)


@pytest.mark.slow
@pytest.mark.ray
def test_a_fine_tuning_that_is_killed_goes_on(tmp_path: Path) -> None:
    simulated("pretrain_digits", tmp_path / "first")
    pretrained = f"pretrained={{sgd: '{tmp_path / 'first'}:*/sgd', adamw: '{tmp_path / 'first'}:*/adamw'}}"
    options = [word for override in (*SMALL, "repeats.best=2", pretrained) for word in ("--set", override)]
    spec, folder = EXPERIMENTS / "finetune_digits.yaml", tmp_path / "second"
    run = Run(spec, folder, *options)
    try:
        assert run.wait_until(lambda: count_lines(folder) >= 10)
        run.kill("driver")
        run.wait()
    finally:
        run.close()
    before = {key: record for key, record in records_in(folder).items() if record.status.is_result}
    assert before
    (tmp_path / "first").rename(tmp_path / "gone")
    again = Run(spec, folder, *options)
    try:
        assert again.wait() == 0, again.output
        assert "goes on with the weights that it keeps" in again.output
    finally:
        again.close()
    after = records_in(folder)
    assert len(after) == 4 * 3
    assert {key: record.score for key, record in after.items() if key in before} == {
        key: record.score for key, record in before.items()
    }
