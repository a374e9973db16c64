"""The landscapes are what their docstring says, and a run of the task is a pure function of its trial."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
from ruamel.yaml import YAML

import bocb_tune.search_spaces
from bocb_tune.core.errors import Diverged
from bocb_tune.core.types import Measurement, TrialSpec
from bocb_tune.optimizers import OPTIMIZERS
from bocb_tune.tasks import TASKS, get_task
from bocb_tune.tasks import synthetic as landscapes
from bocb_tune.tasks.synthetic import FLOOR, OPTIMA, SHAPES, clean_score, divergence_epoch, truth
from bocb_tune.training.checkpoint import Checkpoints
from bocb_tune.training.context import Context, Ranks
from tests.support.trials import synthetic_trial

CELLS = list(itertools.product(SHAPES, OPTIMA))


def run(trial: TrialSpec, context: Context | None = None) -> list[Measurement]:
    return list(get_task("synthetic").run(trial, context or Context()))


def score(backbone: str, optimizer: str, u: float = 0.0, v: float = 0.0, share: float = 1.0) -> float:
    """Points, u and v decades from the planted optimum."""
    planted = truth(backbone, optimizer)
    lr, weight_decay = planted.lr * 10**u, planted.weight_decay * 10**v
    return clean_score(backbone, optimizer, lr=lr, weight_decay=weight_decay, share=share)


def test_every_optimizer_has_a_landscape() -> None:
    assert set(OPTIMA) == set(OPTIMIZERS)


@pytest.mark.parametrize(("backbone", "optimizer"), CELLS)
def test_the_planted_optimum_is_the_optimum(backbone: str, optimizer: str) -> None:
    best = truth(backbone, optimizer).score
    assert score(backbone, optimizer) == pytest.approx(best)
    around = [(u, v) for u in (-1, -0.1, 0, 0.1, 1) for v in (-1, -0.1, 0, 0.1, 1) if (u, v) != (0, 0)]
    assert all(FLOOR < score(backbone, optimizer, u, v) < best < 100 for u, v in around)


@pytest.mark.parametrize(("backbone", "optimizer"), CELLS)
def test_the_optimum_lies_well_inside_the_search_space(backbone: str, optimizer: str) -> None:
    folder = Path(bocb_tune.search_spaces.__file__).parent
    space = YAML(typ="safe").load(folder / f"{optimizer}.yaml")
    planted = truth(backbone, optimizer)
    for name in ("lr", "weight_decay"):
        low, high, value = space[name]["low"], space[name]["high"], getattr(planted, name)
        assert low * 10**0.5 <= value <= high / 10**0.5, name
    assert abs(math.log10(planted.lr / space["default"]["lr"])) > 0.1
    assert pytest.approx(space["weight_decay"]["low"] / 10) == OPTIMA[optimizer][2]


def test_no_decay_counts_as_a_decade_below_the_range() -> None:
    without = clean_score("bowl", "sgd", lr=0.01, weight_decay=0.0, share=1.0)
    assert without == clean_score("bowl", "sgd", lr=0.01, weight_decay=1e-7, share=1.0)


def test_curves_rise_and_cross() -> None:
    """Early on a smaller learning rate looks better than the planted one, which wins in the end."""
    early, late = 1 / 27, 1.0
    assert score("cliff", "adam", -0.5, share=early) > score("cliff", "adam", 0.0, share=early)
    assert score("cliff", "adam", -0.5, share=late) < score("cliff", "adam", 0.0, share=late)
    curve = [score("bowl", "sgd", 0.3, share=epoch / 9) for epoch in range(1, 10)]
    assert curve == sorted(curve)


def test_the_interaction_is_not_additive() -> None:
    """Two-way residuals of heights are non-zero where they are planted, and lr* moves with the pair."""
    heights = {cell: math.log(truth(*cell).score / (100 - truth(*cell).score)) for cell in CELLS}
    for (backbone, optimizer), height in heights.items():
        assert height - SHAPES[backbone].height == pytest.approx(truth(backbone, optimizer).interaction)
    assert len({truth(*cell).interaction for cell in CELLS}) > 3
    moved = {
        optimizer: math.log10(truth("shifted", optimizer).lr / truth("bowl", optimizer).lr) for optimizer in OPTIMA
    }
    assert len({round(shift, 6) for shift in moved.values()}) > 2


def test_half_of_the_trials_diverge_at_the_cliff() -> None:
    cliff = truth("bowl", "sgd").divergence_lr

    def diverged(lr: float) -> float:
        return sum(divergence_epoch(synthetic_trial(lr=lr, seed=seed)) is not None for seed in range(400)) / 400

    assert diverged(cliff) == pytest.approx(0.5, abs=0.08)
    assert diverged(cliff * 10**0.12) == pytest.approx(1 / (1 + math.exp(-1)), abs=0.08)
    assert diverged(cliff / 10**0.8) < 0.02
    assert diverged(cliff * 10**0.8) > 0.98


def test_the_farther_beyond_the_cliff_the_sooner() -> None:
    cliff = truth("bowl", "sgd").divergence_lr
    epochs = [divergence_epoch(synthetic_trial(lr=cliff * 10**beyond, budget=27)) for beyond in (0.7, 1.0, 2.0)]
    assert None not in epochs
    assert epochs == sorted(epochs, reverse=True)
    assert epochs[-1] == 1


def test_a_divergence_ends_the_trial_within_its_epoch() -> None:
    trial = synthetic_trial(lr=truth("bowl", "sgd").divergence_lr * 10**0.7, budget=27)
    expected = divergence_epoch(trial)
    assert expected is not None
    measurements = get_task("synthetic").run(trial, Context())
    assert [next(measurements).budget for _ in range(1, expected)] == list(range(1, expected))
    with pytest.raises(Diverged, match="synthetic divergence at lr") as error:
        next(measurements)
    assert error.value.budget == expected


def test_a_run_is_a_pure_function_of_its_trial() -> None:
    assert run(synthetic_trial()) == run(synthetic_trial())
    scores = {run(trial)[-1].score for trial in (synthetic_trial(), synthetic_trial(seed=1), synthetic_trial(lr=0.031))}
    assert len(scores) == 3


def test_the_first_scores_ever_recorded() -> None:
    """Bit for bit, in every process and release: journals hold them."""
    assert [m.score for m in run(synthetic_trial(budget=3))] == [82.84744386904613, 85.3449180685182, 86.6118916993649]


def test_noise_moves_scores_by_its_sd() -> None:
    quiet = run(synthetic_trial(noise=0.0))[-1].score
    assert quiet == pytest.approx(truth("bowl", "sgd").score)
    loud = [run(synthetic_trial(noise=2.0, seed=seed, budget=1))[-1].score - quiet for seed in range(300)]
    sd = math.sqrt(sum(x * x for x in loud) / len(loud))
    assert sd == pytest.approx(2.0 * math.sqrt(1 + 0.5**2), rel=0.15)


def test_scores_stay_between_the_floor_and_100() -> None:
    assert run(synthetic_trial(noise=1e6, seed=1))[0].score in (FLOOR, 100.0)
    assert get_task("synthetic").objective({"name": "synthetic"}, {}).floor == FLOOR


def test_epochs_sleep_and_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(landscapes.time, "sleep", slept.append)
    measurements = run(synthetic_trial(budget=3, epoch_s=0.25))
    assert slept == [0.25] * 3
    assert [m.elapsed_s for m in measurements] == [0.25, 0.5, 0.75]
    assert [m.score for m in measurements] == [m.score for m in run(synthetic_trial(budget=3))]


def test_a_resume_yields_the_whole_curve_and_sleeps_only_for_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(landscapes.time, "sleep", slept.append)
    trial, context = synthetic_trial(budget=9), Context(checkpoints=Checkpoints(tmp_path / "trial"), checkpoint_every=2)
    first = get_task("synthetic").run(trial, context)
    assert [next(first).budget for _ in range(5)] == [1, 2, 3, 4, 5]
    first.close()
    slept.clear()
    assert run(trial, context) == run(trial)
    assert len(slept) == 5 + 9  # epochs 5 to 9 after the checkpoint of epoch 4; then a whole run without checkpoints


def test_a_damaged_checkpoint_starts_afresh(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "synthetic.json").write_text('{"epo')
    assert len(run(synthetic_trial(budget=2), Context(checkpoints=Checkpoints(tmp_path)))) == 2
    assert "cannot be read" in caplog.text


def test_only_rank_0_writes(tmp_path: Path) -> None:
    other = Context(ranks=Ranks(rank=1, world_size=2), checkpoints=Checkpoints(tmp_path))
    measurements = run(synthetic_trial(budget=1), other)
    assert list(tmp_path.iterdir()) == []
    assert measurements[0].metrics["world_size"] == 2


@pytest.mark.parametrize(
    ("backbone", "optimizer", "message"),
    [
        ("bowll", "sgd", "backbone 'bowll'; did you mean 'bowl'"),
        ("bowl", "sgdd", "optimizer 'sgdd'; did you mean 'sgd"),
    ],
)
def test_unknown_names_are_refused(backbone: str, optimizer: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run(synthetic_trial(backbone, optimizer))


def test_tasks_are_found_by_name() -> None:
    assert get_task("synthetic").backbones() == tuple(SHAPES)
    assert TASKS["synthetic"].options == {"noise": 0.5, "epoch_s": 0.0}
    with pytest.raises(ValueError, match="unknown task 'sintetic'; did you mean 'synthetic'"):
        get_task("sintetic")
