"""Pre-training and fine-tuning end to end: a run's kept models are the weights that another run starts from."""

from __future__ import annotations

from pathlib import Path

import pytest

from bocb_tune.analysis.sources.load import load
from bocb_tune.cli.launch import cell_plans, claim_folder, objective_of
from bocb_tune.cli.weights import find_starts, keep_weights
from bocb_tune.core.kept import kept_models
from bocb_tune.core.types import Phase, TrialRecord, TrialStatus
from bocb_tune.spec.environment import PLANNED
from bocb_tune.spec.model import load_spec
from tests.support.command import bocb
from tests.support.processes import Run, count_lines, records_in
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

    assert bocb(monkeypatch, "trial", "--from", tmp_path / "second", "--id", tuned.id, "--keep") == 0
    monkeypatch.undo()
    assert records_in(tmp_path / "second")[tuned.id].score == tuned.score


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
