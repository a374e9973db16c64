"""The classification task: what is measured, that every knob of a recipe acts, and what bad settings say."""

from __future__ import annotations

import math
import shutil
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from bocb_tune.backbones import build_backbone, list_backbones
from bocb_tune.core.types import Measurement, TrialSpec
from bocb_tune.data import load_dataset
from bocb_tune.tasks import classification, get_task
from bocb_tune.tasks.building import memory_format
from bocb_tune.tasks.classification import Pictures, build_training
from bocb_tune.training.context import Context, Ranks
from bocb_tune.training.loop import fit
from bocb_tune.training.recipes import DESCRIPTIONS, RECIPES, Recipe
from tests.augment import test_augment
from tests.support.trials import QUICK, Toy, digits_trial, make_folder
from tests.training import test_recipes


def run(trial: TrialSpec) -> list[Measurement]:
    return list(get_task("classification").run(trial, Context()))


def trained(trial: TrialSpec) -> tuple[nn.Module, dict[str, float]]:
    """The model after training, and the last metrics."""
    training = build_training(trial, Context())
    return training.model, dict(list(fit(training, trial, Context()))[-1].metrics)


def weights(model: nn.Module) -> torch.Tensor:
    return nn.utils.parameters_to_vector(model.parameters()).detach()


def test_a_trial_measures_what_it_promises() -> None:
    first, last = run(digits_trial(budget=2))
    promised = {"score", "train_loss", "val_loss", "lr", "images_per_s", "seconds", "world_size"}
    promised |= {"peak_memory_gib", "optimizer_state_mib"}
    assert set(first.metrics) == promised
    assert set(last.metrics) == promised | {"test_score"}
    assert (first.budget, last.budget) == (1, 2)
    assert last.elapsed_s == pytest.approx(first.metrics["seconds"] + last.metrics["seconds"])
    assert 0 < last.metrics["lr"] < first.metrics["lr"] < 1e-3
    assert last.metrics["images_per_s"] >= 1024 / last.metrics["seconds"]
    assert 0.05 < last.metrics["peak_memory_gib"] < 8


def test_the_state_of_an_optimizer_is_measured() -> None:
    """Adam keeps two numbers a weight, SGD with momentum one, and a count of steps or two."""
    fixed = {"adamw": {}, "sgd": {"momentum": 0.9}}
    trials = {name: digits_trial(optimizer=name, budget=1, fixed=own) for name, own in fixed.items()}
    found = {name: run(trial)[-1].metrics["optimizer_state_mib"] for name, trial in trials.items()}
    count = weights(build_training(trials["sgd"], Context()).model).numel()
    assert found["sgd"] == pytest.approx(4 * count / 2**20, rel=0.01)
    assert found["adamw"] == pytest.approx(2 * found["sgd"], rel=0.05)


def test_digits_are_learnt() -> None:
    assert run(digits_trial("test_efficientnet", lr=5e-3, batch_size=64, budget=2))[-1].score > 80


class Always(nn.Module):
    """Says class 3 whatever it sees, with logit 2."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.full((len(images), 10), 0.0, device=images.device).index_fill(1, torch.tensor(3), 2.0)


@pytest.mark.parametrize("batch_size", [7, 300, 1000])
def test_the_score_counts_each_image_once(batch_size: int) -> None:
    digits = load_dataset("digits", {}, "cpu")
    _, labels = next(digits.batches("val", [torch.arange(300)]))
    metrics = Pictures(digits, Recipe(batch_size=batch_size, label_smoothing=0.1), Context()).evaluate(Always(), False)
    right = (labels == 3).sum().item()
    assert metrics["score"] == pytest.approx(100 * right / 300)
    loss = math.log(9 + math.exp(2)) - 2 * right / 300  # without smoothing, whatever the recipe
    assert metrics["val_loss"] == pytest.approx(loss, rel=1e-5)


def test_the_trial_before_changes_nothing() -> None:
    """Warm workers serve one trial after another."""
    alone = run(digits_trial(seed=1, drop_path=0.3, budget=1))[0].metrics
    run(digits_trial("test_convnext", "lion", seed=2, budget=1))
    after = run(digits_trial(seed=1, drop_path=0.3, budget=1))[0].metrics
    assert [alone[key] for key in ("train_loss", "val_loss")] == [after[key] for key in ("train_loss", "val_loss")]


def test_the_seed_moves_initialisation_and_order() -> None:
    starts = [weights(build_training(digits_trial(seed=seed), Context()).model) for seed in (0, 0, 1)]
    assert torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[0], starts[2])


# Recipes

TURNED: dict[str, Any] = {
    "batch_size": 128,
    "accumulation": 4,
    "precision": "bf16",
    "clip_grad": 0.01,
    "warmup_epochs": 0.5,
    "min_lr_ratio": 0.5,
    "label_smoothing": 0.1,
    "drop_path": 0.5,
    "augment": "none",
    "image_size": 48,
}
"""Fields that change what is learnt, off their value in QUICK."""
OTHERWISE = {
    "ema_decay",
    "ema_warmup",
    "channels_last",
    "compile",
    "compile_mode",
    "tf32",
    "deterministic",
    "grad_checkpointing",
    "frozen_stages",
    "linear_probe",
    "frozen_norm",
    "lr_steps",
    *test_recipes.TURNED,
    *test_augment.TURNED,
    "eval_crop",
}


@pytest.fixture(scope="module")
def plain() -> torch.Tensor:
    return weights(trained(digits_trial(budget=1))[0])


def test_every_field_is_turned() -> None:
    assert set(TURNED) | OTHERWISE == {field.name for field in fields(Recipe)}
    assert all(getattr(QUICK, name) != value for name, value in TURNED.items())


@pytest.mark.parametrize("name", sorted(TURNED))
def test_turning_a_field_changes_the_training(plain: torch.Tensor, name: str) -> None:
    turned = weights(trained(digits_trial(budget=1, **{name: TURNED[name]}))[0])
    assert not torch.equal(turned, plain)


def test_averaged_weights_are_validated_and_not_trained_on(plain: torch.Tensor) -> None:
    model, metrics = trained(digits_trial(budget=1, ema_decay=0.999))
    _, raw = trained(digits_trial(budget=1))
    assert torch.equal(weights(model), plain)
    assert metrics["train_loss"] == raw["train_loss"]
    assert metrics["val_loss"] > raw["val_loss"] + 0.1  # after four steps the average is still the start


def test_an_average_that_warms_up_soon_leaves_the_initial_weights() -> None:
    _, raw = trained(digits_trial(budget=1))
    constant, warm = (
        trained(digits_trial(budget=1, ema_decay=0.9999, ema_warmup=warmup))[1]["val_loss"] for warmup in (False, True)
    )
    assert abs(warm - raw["val_loss"]) < 0.5 * (constant - raw["val_loss"])


def test_memory_layout_of_bf16_on_a_cpu() -> None:
    """Where oneDNN's kernels for channels last write beyond their memory; a GPU keeps the recipe's."""
    recipe = Recipe(batch_size=2, channels_last=True, precision="bf16")
    assert memory_format(recipe, "cpu") is torch.contiguous_format
    assert memory_format(recipe, "cuda:1") is torch.channels_last
    assert memory_format(replace(recipe, precision="fp32"), "cpu") is torch.channels_last


@pytest.mark.parametrize("channels_last", [False, True])
def test_memory_layout(channels_last: bool) -> None:
    training = build_training(digits_trial("test_resnet", channels_last=channels_last), Context())
    kernels = [p for p in training.model.parameters() if p.ndim == 4 and p.shape[1] > 1 and p.shape[-1] > 1]
    assert kernels
    assert all(p.is_contiguous(memory_format=torch.channels_last) == channels_last for p in kernels)


def test_images_are_laid_out_as_the_model(tmp_path: Path) -> None:
    root = make_folder(tmp_path, {"train/a": 3, "train/b": 3})
    options = {"root": str(root), "image_size": 16, "val_share": 0.5, "loader_workers": 0}
    for channels_last in (False, True):
        recipe = Recipe(batch_size=2, channels_last=channels_last)
        pictures = Pictures(load_dataset("imagefolder", options, "cpu"), recipe, Context())
        images, _ = next(pictures.train([torch.arange(2)], 0))
        assert images.is_contiguous(memory_format=torch.channels_last) == channels_last


def test_compile_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[tuple[nn.Module, str]] = []
    monkeypatch.setattr(nn.Module, "compile", lambda model, mode: compiled.append((model, mode)))
    trained(digits_trial(budget=1, batch_size=1024))
    assert compiled == []
    model, _ = trained(digits_trial(budget=1, batch_size=1024, compile=True))
    assert compiled == [(model, "default")]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the compiler's own
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_a_compiled_model_learns_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classification, "build_backbone", lambda *_, **__: Toy(dropout=0.0))
    _, metrics = trained(digits_trial(budget=1, compile=True, ema_decay=0.5))
    _, plain = trained(digits_trial(budget=1, ema_decay=0.5))
    assert metrics["train_loss"] == pytest.approx(plain["train_loss"], rel=1e-3)


def test_the_table_of_recipes() -> None:
    assert set(RECIPES) == set(DESCRIPTIONS)
    run(digits_trial(budget=1, **{field.name: getattr(RECIPES["digits"], field.name) for field in fields(Recipe)}))


@pytest.mark.parametrize(
    ("name", "value", "valid"),
    [
        ("batch_size", 0, "at least 1"),
        ("accumulation", 3, r"a divisor of batch_size \(256\)"),
        ("precision", "fp8", "one of .*'bf16'"),
        ("clip_grad", -1.0, "0 \\(off\\) or a positive norm"),
        ("warmup_epochs", -1.0, "0 or more epochs"),
        ("warmup_epochs", math.nan, "0 or more epochs"),
        ("min_lr_ratio", 1.1, "between 0 and 1"),
        ("label_smoothing", 1.0, "at least 0 and below 1"),
        ("drop_path", 1.0, "at least 0 and below 1"),
        ("augment", "flips", "one of .*'flip_crop'"),
        ("ema_decay", 1.0, "0 \\(off\\) or below 1"),
    ],
)
def test_a_recipe_out_of_range_is_refused(name: str, value: Any, valid: str) -> None:
    with pytest.raises(ValueError, match=f"recipe field '{name}' is {value!r}; it must be {valid}"):
        digits_trial(**{name: value})


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"augment": "flip_crop"}, "'augment' is 'flip_crop'; dataset 'digits' can take 'none' or 'shift'"),
        ({"precision": "fp16"}, "'precision' is 'fp16', which needs a GPU; on the CPU use 'bf16' or 'fp32'"),
        ({"warmup_epochs": 2.0}, "'warmup_epochs' is 2; it must be below the budget of 2 epochs"),
        ({"batch_size": 2048}, "'batch_size' is 2048, more than the 1197 training images"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(recipe: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run(digits_trial(**recipe))


# Image folders


def test_a_folder_is_trained_on(tmp_path: Path) -> None:
    root = make_folder(tmp_path, {"train/a": 12, "train/b": 12, "train/c": 12})
    options = {"root": str(root), "image_size": 32, "val_share": 0.25, "split_seed": 0, "loader_workers": 1}
    dataset = {"name": "imagefolder", **options}
    measurements = run(digits_trial(dataset=dataset, batch_size=9, augment="flip_crop", budget=2))
    assert [set(m.metrics) & {"score", "test_score"} for m in measurements] == [{"score"}] * 2  # there is no ROOT/test
    assert all(m.score in {100 * k / 9 for k in range(10)} for m in measurements)
    objective = get_task("classification").objective(dataset, {})
    assert (objective.metric, objective.unit, objective.floor) == ("top1", "points", pytest.approx(100 / 3))


def test_the_floor_is_chance() -> None:
    assert get_task("classification").objective({"name": "digits"}, {}).floor == 10


# Backbones


def test_backbones_are_those_of_timm() -> None:
    names = list(get_task("classification").backbones())
    assert names == list_backbones()
    assert {"resnet50", "test_vit"} <= set(names)


@pytest.mark.parametrize("name", ["test_vit", "test_resnet", "test_convnext", "test_efficientnet"])
def test_a_backbone_takes_size_and_channels(name: str) -> None:
    model = build_backbone(name, num_classes=7, in_chans=1, image_size=48)
    assert model.training
    assert model(torch.zeros(2, 1, 48, 48)).shape == (2, 7)


def test_looking_at_the_size_leaves_no_trace() -> None:
    model = build_backbone("test_resnet", num_classes=7, in_chans=1, image_size=32)
    counts = [buffer.item() for name, buffer in model.named_buffers() if name.endswith("num_batches_tracked")]
    assert counts
    assert set(counts) == {0}
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("name", "image_size", "drop_path", "message"),
    [
        ("test_vitt", 32, 0.0, "unknown backbone 'test_vitt'; did you mean 'test_vit'"),
        ("test_vit", 30, 0.0, "backbone 'test_vit' cannot take images of 30 pixels"),
        ("vgg11", 32, 0.1, "backbone 'vgg11' has no stochastic depth and cannot take drop_path_rate 0.1; set"),
    ],
)
def test_what_a_backbone_cannot_be_is_refused(name: str, image_size: int, drop_path: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_backbone(name, num_classes=7, in_chans=1, image_size=image_size, drop_path=drop_path)


def test_ranks_default_to_one_process_on_the_cpu() -> None:
    assert Context().ranks == Ranks(rank=0, world_size=1, local_rank=0, device="cpu")
