"""What holds on every device: the same tests on the CPU and, marked `gpu`, on an NVIDIA GPU."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from bocb_tune.augment import augmented
from bocb_tune.core.errors import OutOfMemory
from bocb_tune.core.types import Measurement
from bocb_tune.optimizers import OPTIMIZERS, build_optimizer
from bocb_tune.profiling.load import Load
from bocb_tune.profiling.packing import Packed, best_packing, packed
from bocb_tune.training import loop
from bocb_tune.training.checkpoint import Checkpoints
from bocb_tune.training.context import Context, Ranks
from bocb_tune.training.device import limit_memory, prepare
from bocb_tune.training.loop import catch_out_of_memory, fit
from bocb_tune.training.recipes import RECIPES, Recipe

MISSING = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
GPU = pytest.param("cuda:0", marks=[pytest.mark.gpu, MISSING])
DEVICES = pytest.mark.parametrize("device", ["cpu", GPU])
SMALL = Load(
    backbone="test_efficientnet",
    optimizer="adamw",
    recipe=Recipe(batch_size=16, augment="flip_shift"),
    image_size=32,
    channels=3,
    num_classes=10,
    hparams={"lr": 1e-3, "weight_decay": 0.05},
)
STEPS = 3


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """What a recipe sets for the whole process does not reach the next test."""
    yield
    prepare(torch.device("cpu"), Recipe(batch_size=1))


def with_recipe(load: Load = SMALL, **changes: Any) -> Load:
    return replace(load, recipe=replace(load.recipe, **changes))


def trained(load: Load, device: str, folder: Path, *, epochs: int = 3, stop: int = 0) -> dict[str, Any]:
    """The last checkpoint of a training, which was left after epoch `stop` and taken up again."""
    context = Context(ranks=Ranks(device=device), checkpoints=Checkpoints(folder))
    if stop:
        first = fit(load.training(device, STEPS), load.trial(epochs), context)
        for _ in range(stop):
            next(first)
        first.close()
        torch.manual_seed(99)
    assert len(list(fit(load.training(device, STEPS), load.trial(epochs), context))) == epochs
    state = Checkpoints(folder).load()
    assert state is not None
    return state


def epochs(load: Load, device: str, count: int = 2) -> list[Measurement]:
    return list(load.epochs(load.training(device, STEPS), device, count))


@DEVICES
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.filterwarnings("ignore:.*deterministic:UserWarning")
def test_a_deterministic_training_is_resumed_bit_for_bit(device: str, precision: str, tmp_path: Path) -> None:
    load = with_recipe(precision=precision, deterministic=True, ema_decay=0.9, channels_last=True)
    whole, resumed = (trained(load, device, tmp_path / str(stop), stop=stop) for stop in (0, 1))
    for name, weight in whole["model"].items():
        assert torch.equal(weight, resumed["model"][name]), name
    for name, weight in whole["ema"].items():
        assert torch.equal(weight, resumed["ema"][name]), name


@DEVICES
def test_a_resumed_training_is_near_the_whole_one(device: str, tmp_path: Path) -> None:
    precision = "bf16" if device == "cpu" else "fp16"
    load = with_recipe(precision=precision, channels_last=True, clip_grad=1.0)
    whole, resumed = (trained(load, device, tmp_path / str(stop), stop=stop) for stop in (0, 1))
    lengths = [sum(w.double().norm() ** 2 for w in state["model"].values()) for state in (whole, resumed)]
    apart = sum((w.double() - resumed["model"][n].double()).norm() ** 2 for n, w in whole["model"].items())
    assert apart <= 1e-4 * lengths[0]


@DEVICES
@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_every_optimizer_trains(device: str, name: str) -> None:
    load = replace(SMALL, optimizer=name, backbone="test_vit")
    training = load.training(device, STEPS)
    before = [parameter.detach().clone() for parameter in training.model.parameters()]
    *_, last = load.epochs(training, device, 1)
    assert math.isfinite(last.metrics["train_loss"])
    moved = [not torch.equal(*pair) for pair in zip(before, training.model.parameters(), strict=True)]
    assert any(moved)
    assert all(parameter.device == torch.device(device) for parameter in training.model.parameters())


@DEVICES
@pytest.mark.parametrize("name", sorted(row.name for row in OPTIMIZERS.values() if row.fused))
def test_the_fused_step_is_the_step(device: str, name: str) -> None:
    torch.manual_seed(0)
    models = [nn.Linear(33, 17).to(device) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    fixed: dict[str, Any] = {"momentum": 0.9} if name == "sgd" else {}
    module, attribute = OPTIMIZERS[name].target.split(":")
    kind = getattr(__import__(module, fromlist=[attribute]), attribute)
    steps = [
        kind(model.parameters(), lr=0.01, weight_decay=0.1, fused=fused, **fixed)
        for model, fused in zip(models, (True, False), strict=True)
    ]
    for step in range(5):
        inputs = torch.randn(8, 33, generator=torch.Generator().manual_seed(step)).to(device)
        for model, optimizer in zip(models, steps, strict=True):
            model(inputs).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
    for one, other in zip(*(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@DEVICES
def test_a_fused_step_is_taken_where_there_is_one(device: str) -> None:
    optimizer = build_optimizer(nn.Linear(2, 2).to(device), "adamw", lr=0.1, weight_decay=0.0)
    assert bool(optimizer.defaults["fused"]) == (device != "cpu")


@DEVICES
def test_memory_that_runs_out_is_said_and_left_behind(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    large = with_recipe(batch_size=4096)
    if device == "cpu":
        _starve_cpu(monkeypatch)
    else:
        torch.cuda.empty_cache()
        limit_memory(torch.device(device), (torch.cuda.memory_reserved() + 2**28) / torch.cuda.mem_get_info()[1])
    try:
        with pytest.raises(OutOfMemory, match="memory"):
            list(catch_out_of_memory(large.epochs(large.training(device, STEPS), device, 1)))
        assert len(epochs(SMALL, device)) == 2
    finally:
        if device != "cpu":
            torch.cuda.set_per_process_memory_fraction(1.0)


def _starve_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    real = loop._Loop._plan

    def plan(self: Any, epoch: int) -> Any:
        if self.recipe.batch_size > 100:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self, epoch)

    monkeypatch.setattr(loop._Loop, "_plan", plan)


@DEVICES
def test_averaged_weights_follow_the_raw_ones(device: str, tmp_path: Path) -> None:
    state = trained(with_recipe(ema_decay=0.5), device, tmp_path)
    names = [name for name, _ in SMALL.model().named_parameters()]
    assert any(not torch.equal(state["model"][name], state["ema"][name]) for name in names)
    assert all(torch.isfinite(state["ema"][name]).all() for name in names)


@pytest.mark.parametrize("device", [pytest.param("cpu", marks=pytest.mark.slow), GPU])
@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
@pytest.mark.filterwarnings("ignore")
def test_a_compiled_training_is_near_the_eager_one(device: str, mode: str) -> None:
    plain = replace(SMALL, backbone="test_vit")
    eager, compiled = plain, with_recipe(plain, compile=True, compile_mode=mode)
    losses = [[m.metrics["train_loss"] for m in epochs(load, device)] for load in (eager, compiled)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-2)


@DEVICES
def test_gradient_checkpointing_changes_memory_alone(device: str) -> None:
    plain = replace(SMALL, backbone="test_vit")
    losses = [
        [m.metrics["train_loss"] for m in epochs(load, device)]
        for load in (plain, with_recipe(plain, grad_checkpointing=True))
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5 if device == "cpu" else 1e-3)


@DEVICES
def test_peak_memory_is_reported(device: str) -> None:
    (measured,) = epochs(SMALL, device, 1)
    assert 0.0 < measured.metrics["peak_memory_gib"] < 64


@DEVICES
@pytest.mark.parametrize("recipe", ["cifar_torch", "cifar_deit"])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "lion"])
def test_no_step_waits_for_the_device(
    device: str, recipe: str, optimizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step enqueues work; only the looks at the loss wait, which lie between steps."""
    real, taken = loop._Loop._optimizer_step, []

    def watched(self: Any, *arguments: Any) -> Any:
        taken.append(1)
        torch.cuda.set_sync_debug_mode("error" if device != "cpu" and len(taken) > STEPS else "default")
        try:
            return real(self, *arguments)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    if device != "cpu":
        monkeypatch.setattr(loop._Loop, "_optimizer_step", watched)
    changed = replace(RECIPES[recipe], batch_size=64, precision="bf16", drop_path=0.0, channels_last=True)
    load = replace(SMALL, optimizer=optimizer, recipe=changed)
    assert len(epochs(load, device, 3)) == 3


@DEVICES
@pytest.mark.parametrize("recipe", ["cifar_torch", "cifar_deit"])
def test_images_are_augmented_alike_on_every_device(device: str, recipe: str) -> None:
    plan = list(torch.arange(96).split(32))
    load = with_recipe(**{**vars_of(RECIPES[recipe]), "batch_size": 32, "precision": "fp32"})
    here, there = (
        list(augmented(load.images(where, 96), plan, load.recipe, 7, torch.device(where))) for where in ("cpu", device)
    )
    for (images, labels), (others, targets) in zip(here, there, strict=True):
        assert torch.equal(labels, targets.cpu())
        apart = (images - others.cpu()).abs()
        assert (apart > 0.02).float().mean() < 0.002  # a pixel may be rounded to the next of 256 levels


def vars_of(recipe: Recipe) -> dict[str, Any]:
    return {field.name: getattr(recipe, field.name) for field in fields(recipe)}


@DEVICES
def test_two_trials_share_a_device(device: str) -> None:
    found = packed(SMALL, device, 2, steps=2, epochs=1)
    assert found.images_per_s is not None
    assert found.images_per_s > 0


def test_the_packing_that_pays() -> None:
    rates = {1: 100.0, 2: 180.0, 4: 200.0, 8: 201.0, 16: None}
    assert best_packing([Packed(trials=n, images_per_s=rate) for n, rate in rates.items()]) == Packed(
        trials=4, images_per_s=200.0
    )
    assert best_packing([Packed(trials=1, images_per_s=None)]) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"precision": "fp16"}, "'fp16', which needs a GPU"),
        ({"precision": "auto"}, "'auto', which an experiment resolves"),
    ],
)
def test_a_precision_that_the_device_lacks_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        epochs(with_recipe(**changes), "cpu")


def test_a_model_without_gradient_checkpointing_is_named() -> None:
    load = replace(with_recipe(grad_checkpointing=True), backbone="alexnet")
    with pytest.raises(ValueError, match="'grad_checkpointing' is True, but AlexNet has none"):
        load.training("cpu", 1)
