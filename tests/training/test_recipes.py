"""Recipes: what they hold, what a trial keeps of them, and that each of their fields acts."""

from __future__ import annotations

import math
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.data.mixup import mixup_target
from timm.loss import BinaryCrossEntropy, SoftTargetCrossEntropy
from torch import Tensor, nn
from torch.nn import functional

from bocb_tune.core.types import TrialSpec, digest
from bocb_tune.optimizers import OPTIMIZERS, build_optimizer, param_groups
from bocb_tune.optimizers.interfaces import SecondOrder
from bocb_tune.optimizers.layers import lr_shares
from bocb_tune.tasks import classification, get_task
from bocb_tune.tasks.classification import build_training
from bocb_tune.training.checkpoint import Checkpoints
from bocb_tune.training.context import Context, Ranks
from bocb_tune.training.loop import fit
from bocb_tune.training.losses import LOSSES, binary_cross_entropy, cross_entropy
from bocb_tune.training.recipes import DEFAULTS, DESCRIPTIONS, PUBLISHED_EPOCHS, RECIPES, Recipe, recipe_settings
from bocb_tune.training.schedule import epoch_order, epoch_plan, repeated
from tests.augment.test_augment import colour_images
from tests.support.trials import digits_trial, make_folder

DOCS = Path(__file__).parents[2] / "docs" / "RECIPES.md"

# What a trial keeps

FIRST = {
    "batch_size": 64,
    "accumulation": 1,
    "precision": "fp32",
    "clip_grad": 0.0,
    "warmup_epochs": 0.5,
    "min_lr_ratio": 0.0,
    "label_smoothing": 0.1,
    "drop_path": 0.0,
    "augment": "shift",
    "ema_decay": 0.0,
    "channels_last": False,
    "compile": False,
}
"""`digits` as the first release wrote it into journals."""


def test_settings_of_the_first_release_keep_their_ids() -> None:
    assert recipe_settings(RECIPES["digits"]) == FIRST
    assert digest(recipe_settings(RECIPES["digits"])) == digest(FIRST) == "82e3fb004fae6ca3"
    large = {"batch_size": 1024, "precision": "bf16", "warmup_epochs": 5.0, "augment": "flip_crop"}
    assert recipe_settings(RECIPES["imagenet"]) == {**FIRST, **large, "channels_last": True}


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_settings_give_the_recipe_back(name: str) -> None:
    settings = recipe_settings(RECIPES[name])
    assert Recipe(**settings) == RECIPES[name]
    assert {key for key in settings if key not in FIRST} == {
        key for key, value in asdict(RECIPES[name]).items() if key not in FIRST and value != DEFAULTS[key]
    }


def test_every_field_is_told_apart() -> None:
    base = replace(RECIPES["rsb_a1"], crop_min_area=0.5, color_jitter=0.1, erase=0.1, layer_decay=0.9)
    base = replace(base, ema_decay=0.9, ema_warmup=True, compile=True, image_size=96)
    off = {"switch_prob": 0.25, "rand_augment_std": 1.0, "rand_augment_layers": 3, "compile_mode": "reduce-overhead"}
    off |= {"tf32": False, "deterministic": True, "grad_checkpointing": True, "frozen_stages": 1}
    off |= {"linear_probe": True, "frozen_norm": True, "lr_steps": (3,)}
    ids = {digest(recipe_settings(base))}
    for name in (entry.name for entry in fields(Recipe) if entry.name not in FIRST):
        changes = {name: off.get(name, DEFAULTS[name])} | ({"layer_decay": 1.0} if name == "linear_probe" else {})
        ids.add(digest(recipe_settings(replace(base, **changes))))
    assert len(ids) == 1 + len(fields(Recipe)) - len(FIRST)


# The table


def test_every_recipe_is_described() -> None:
    assert set(RECIPES) == set(DESCRIPTIONS)
    assert set(PUBLISHED_EPOCHS) == set(RECIPES) - {"digits", "imagenet", "shapes"}


def documented() -> dict[str, dict[str, str]]:
    """The table of docs/RECIPES.md, by field and recipe."""
    section = DOCS.read_text(encoding="utf-8").split("## The values\n")[1].split("\n## ")[0]
    head, *rows = (
        [cell.strip().strip("`") for cell in line.split("|")[1:-1]]
        for line in section.splitlines()
        if line.startswith("| ") and not line.startswith("| ---")
    )
    return {row[0]: dict(zip(head[1:], row[1:], strict=True)) for row in rows}


def test_the_documented_table_is_the_code() -> None:
    """Every value of every recipe; an empty cell is the default."""
    table = documented()
    assert table.pop("epochs") == {name: str(PUBLISHED_EPOCHS.get(name, "")) for name in RECIPES}
    assert list(table) == [entry.name for entry in fields(Recipe)]
    for name, recipe in RECIPES.items():
        for field, value in asdict(recipe).items():
            expected = "" if value == DEFAULTS[field] else f"{value:g}" if isinstance(value, float) else str(value)
            assert table[field][name] == expected, (name, field)


# Values that nothing would heed

UNHEEDED: list[tuple[dict[str, Any], str, str]] = [
    ({"rand_augment": 9.0}, "rand_augment", "0.0 unless augment is 'flip_shift' or 'flip_crop'"),
    ({"augment": "shift", "erase": 0.25}, "erase", "0.0 unless augment is 'flip_shift' or 'flip_crop'"),
    ({"augment": "flip_shift", "rand_augment_std": 1.0}, "rand_augment_std", "0.5 unless rand_augment is on"),
    ({"augment": "flip_crop", "rand_augment_layers": 3}, "rand_augment_layers", "2 unless rand_augment is on"),
    ({"mixup": 0.8, "switch_prob": 0.1}, "switch_prob", "0.5 unless both mixup and cutmix are on"),
    ({"augment": "flip_shift", "crop_min_area": 0.5}, "crop_min_area", "0.08 unless augment is 'flip_crop'"),
    ({"color_jitter": 0.4}, "color_jitter", "0.0 unless augment is 'flip_crop'"),
    ({"compile_mode": "reduce-overhead"}, "compile_mode", "'default' unless compile is on"),
    ({"lr_steps": (8, 11), "min_lr_ratio": 0.1}, "min_lr_ratio", "0.0 unless lr_steps is empty"),
    ({"linear_probe": True, "frozen_norm": True}, "frozen_norm", "False unless linear_probe is off"),
]


@pytest.mark.parametrize(("given", "name", "valid"), UNHEEDED, ids=[name for _, name, _ in UNHEEDED])
def test_a_field_that_nothing_would_heed_is_refused(given: dict[str, Any], name: str, valid: str) -> None:
    with pytest.raises(ValueError, match=f"^recipe field '{name}' is {given[name]!r}; it must be {valid}$"):
        Recipe(batch_size=8, **given)


@pytest.mark.parametrize(
    ("name", "value", "valid"),
    [
        ("loss", "mse", r"one of \('ce', 'bce'\)"),
        ("layer_decay", 0.0, "above 0, and 1 \\(off\\) at most"),
        ("layer_decay", 1.5, "above 0, and 1 \\(off\\) at most"),
        ("mixup", -0.1, "0 or a positive number"),
        ("cutmix", math.inf, "0 or a positive number"),
        ("switch_prob", 1.5, "between 0 and 1"),
        ("repeated_augment", 0, "1 \\(off\\) or more"),
        ("image_size", 7, r"0 \(the dataset's own\) or at least 8 pixels"),
        ("rand_augment", 11.0, "0 \\(off\\) to 10"),
        ("rand_augment_std", math.nan, "0 or a positive number"),
        ("rand_augment_layers", 16, "1 to 15"),
        ("erase", 1.1, "between 0 and 1"),
        ("crop_min_area", 0.0, "above 0 and at most 1"),
        ("color_jitter", -0.1, "between 0 and 1"),
        ("eval_crop", 0.0, "above 0 and at most 1"),
        ("interpolation", "nearest", r"one of \('bilinear', 'bicubic'\)"),
    ],
)
def test_a_field_out_of_range_is_refused(name: str, value: Any, valid: str) -> None:
    base = {"batch_size": 8, "augment": "flip_crop", "rand_augment": 9.0, "mixup": 0.8, "cutmix": 1.0}
    with pytest.raises(ValueError, match=f"^recipe field '{name}' is {value!r}; it must be {valid}$"):
        Recipe(**{**base, name: value})


@pytest.mark.parametrize("steps", [(11, 8), (0, 8), (8, 8)])
def test_steps_of_the_learning_rate_ascend(steps: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"^recipe field 'lr_steps' is \[.*\]; it must be whole epochs, ascending"):
        Recipe(batch_size=8, lr_steps=steps)


# Mixing in pairs


def test_an_odd_batch_that_is_to_be_mixed_is_refused() -> None:
    recipe = Recipe(batch_size=100, mixup=0.8, accumulation=2)
    message = (
        "mixup and cutmix pair images, and a batch_size of 100 leaves an odd number, 25, to each of 2 workers x 2 "
        "accumulation steps; the nearest that suits is 96"
    )
    with pytest.raises(ValueError, match=message):
        epoch_plan(torch.arange(1000), recipe, Ranks(world_size=2))
    assert epoch_plan(torch.arange(1000), replace(recipe, mixup=0.0), Ranks(world_size=2))


@pytest.mark.parametrize("divisor", [2, 4, 8, 100])
def test_cutting_micro_batches_leaves_pairs(divisor: int) -> None:
    (step,) = epoch_plan(torch.arange(50), Recipe(batch_size=50, cutmix=1.0), Ranks(), divisor)
    assert torch.equal(torch.cat(step), torch.arange(50))
    assert {len(piece) % 2 for piece in step} == {0}
    assert max(len(piece) for piece in step) <= max(50 / divisor + 1, 2)


# Repeated augmentation


@pytest.mark.parametrize(("n", "batch", "times"), [(120, 24, 3), (100, 20, 2), (101, 10, 3), (50, 50, 1)])
def test_an_epoch_of_repeated_augmentation(n: int, batch: int, times: int) -> None:
    order = epoch_order(n, seed=0, epoch=1)
    views = repeated(order, Recipe(batch_size=batch, repeated_augment=times))
    assert len(views) == len(views.unique()) == n
    assert views.max() < times * n
    images, counts = (views % n).unique(return_counts=True)
    assert torch.equal(images, order[: math.ceil(n / times)].sort().values)
    assert counts.tolist().count(times) >= n // times
    if batch % times == 0:
        for piece in views[: n // batch * batch].split(batch):
            assert torch.equal((piece % n).unique(return_counts=True)[1], torch.full((batch // times,), times))
            shares = piece.view(times, -1)  # as `times` ranks share it
            assert all(len((share % n).unique()) == batch // times for share in shares)


# Losses


def test_binary_cross_entropy_by_hand() -> None:
    logits, labels = torch.tensor([[2.0, -1.0, 0.5], [0.0, 3.0, -2.0]]), torch.tensor([0, 2])
    softplus = functional.softplus
    yes_no = [softplus(-logits[0, 0]), softplus(logits[0, 1]), softplus(logits[0, 2])]
    yes_no += [softplus(logits[1, 0]), softplus(logits[1, 1]), softplus(-logits[1, 2])]
    assert binary_cross_entropy(logits, labels, 0.0).item() == pytest.approx(sum(yes_no).item() / 6)  # type: ignore[union-attr]
    high, low = 1 - 0.3 + 0.1, 0.1
    targets = torch.tensor([[high, low, low], [low, low, high]])
    p = logits.sigmoid()
    by_hand = -(targets * p.log() + (1 - targets) * (1 - p).log()).mean()
    assert binary_cross_entropy(logits, labels, 0.3).item() == pytest.approx(by_hand.item(), rel=1e-6)
    theirs = BinaryCrossEntropy(smoothing=0.3)(logits, labels)
    assert binary_cross_entropy(logits, labels, 0.3).item() == pytest.approx(theirs.item(), rel=1e-6)


def test_every_class_of_a_mixed_image_is_a_full_target_of_bce() -> None:
    logits, shares = torch.randn(2, 4), torch.tensor([[0.9, 0.1, 0, 0], [0, 0, 1.0, 0]])
    expected = functional.binary_cross_entropy_with_logits(logits, (shares > 0).float())
    assert binary_cross_entropy(logits, shares, 0.0).item() == pytest.approx(expected.item())


def test_cross_entropy_of_mixed_images_is_that_of_timm() -> None:
    logits, labels = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 1, 0])
    shares = mixup_target(labels, 4, lam=0.3, smoothing=0.0)
    theirs = SoftTargetCrossEntropy()(logits, mixup_target(labels, 4, lam=0.3, smoothing=0.1))
    assert cross_entropy(logits, shares, 0.1).item() == pytest.approx(theirs.item(), rel=1e-6)
    plain = functional.cross_entropy(logits, labels, label_smoothing=0.1)
    assert cross_entropy(logits, labels, 0.1).item() == plain.item()
    assert set(LOSSES) == {"ce", "bce"}


# Layer decay


def test_the_last_layer_learns_in_full_and_each_before_it_less() -> None:
    model = timm.create_model("test_vit", num_classes=3)
    shares = lr_shares(model, 0.5)
    named = {name: shares[parameter] for name, parameter in model.named_parameters()}
    depth = len(model.blocks)
    assert named["head.weight"] == 1
    for block in range(depth):
        assert named[f"blocks.{block}.attn.qkv.weight"] == 0.5 ** (depth - block)
    assert named["patch_embed.proj.weight"] == named["pos_embed"] == 0.5 ** (depth + 1)


@pytest.mark.parametrize("name", ["test_resnet", "test_convnext", "test_efficientnet"])
def test_layer_decay_leaves_the_decay_of_weights_alone(name: str) -> None:
    model = timm.create_model(name, num_classes=3)
    optimizer = build_optimizer(model, "adamw", lr=0.1, weight_decay=0.3, layer_decay=0.5)
    plain = {id(p): group["weight_decay"] for group in param_groups(model, 0.3) for p in group["params"]}
    shares = {id(parameter): share for parameter, share in lr_shares(model, 0.5).items()}
    seen = {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            seen[id(parameter)] = group["weight_decay"]
            assert group["lr"] == pytest.approx(0.1 * shares[id(parameter)])
    assert seen == plain
    assert len({group["lr"] for group in optimizer.param_groups}) > 3
    assert max(group["lr"] for group in optimizer.param_groups) == 0.1


class Bare(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 2)


def test_a_model_of_one_layer_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'layer_decay' is 0\.5, but all parameters of Bare are one layer"):
        build_optimizer(Bare(), "sgd", lr=0.1, weight_decay=0.0, layer_decay=0.5)


# Fields act, and a resume changes nothing


@pytest.fixture
def _colour(monkeypatch: pytest.MonkeyPatch) -> None:
    images = colour_images(60, classes=10)
    monkeypatch.setattr(classification, "load_dataset", lambda *_: images)


def colour_trial(budget: int = 1, **recipe: Any) -> TrialSpec:
    return digits_trial(dataset={"name": "cifar10", "root": "."}, budget=budget, **{"batch_size": 20, **recipe})


def weights_after(trial: TrialSpec) -> Tensor:
    training = build_training(trial, Context())
    list(fit(training, trial, Context()))
    return nn.utils.parameters_to_vector(training.model.parameters()).detach()


STRONG: dict[str, Any] = {
    "augment": "flip_shift",
    "rand_augment": 9.0,
    "erase": 0.25,
    "mixup": 0.8,
    "cutmix": 1.0,
    "label_smoothing": 0.1,
    "loss": "bce",
    "repeated_augment": 3,
    "layer_decay": 0.75,
    "ema_decay": 0.9,
    "drop_path": 0.1,
    "accumulation": 2,
}
TURNED: dict[str, Any] = {
    "rand_augment": 0.0,
    "rand_augment_std": 5.0,
    "rand_augment_layers": 9,
    "erase": 0.0,
    "mixup": 0.2,
    "cutmix": 0.0,
    "switch_prob": 0.9,
    "loss": "ce",
    "repeated_augment": 1,
    "layer_decay": 1.0,
}


@pytest.fixture(scope="module")
def strong() -> Tensor:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classification, "load_dataset", lambda *_: colour_images(60, classes=10))
        return weights_after(colour_trial(**STRONG))


@pytest.mark.usefixtures("_colour")
@pytest.mark.parametrize("name", sorted(TURNED))
def test_turning_a_field_changes_the_training(strong: Tensor, name: str) -> None:
    assert not torch.equal(weights_after(colour_trial(**{**STRONG, name: TURNED[name]})), strong)


@pytest.mark.usefixtures("_colour")
def test_a_resume_with_all_of_it_on_is_bitwise_equal(tmp_path: Path) -> None:
    trial = colour_trial(budget=2, **STRONG)
    whole = end_of(trial, tmp_path / "whole")
    first = get_task("classification").run(trial, Context(checkpoints=Checkpoints(tmp_path / "resumed")))
    next(first)
    first.close()
    torch.manual_seed(99)
    resumed = end_of(trial, tmp_path / "resumed")
    for part in ("model", "ema"):
        for name, value in whole[part].items():
            assert torch.equal(value, resumed[part][name]), (part, name)


def end_of(trial: TrialSpec, folder: Path) -> dict[str, Any]:
    list(get_task("classification").run(trial, Context(checkpoints=Checkpoints(folder))))
    state = Checkpoints(folder).load()
    assert state is not None
    return state


@pytest.mark.usefixtures("_colour")
@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (
            {"augment": "shift"},
            "'augment' is 'shift'; dataset 'cifar10' can take 'none' or 'flip_shift' or 'flip_crop'",
        ),
        ({"augment": "flip_crop", "color_jitter": 0.4}, "'color_jitter' is 0.4 and acts on .* files alone"),
        ({"augment": "none", "eval_crop": 0.95}, "'eval_crop' is 0.95 and acts on .* files alone; leave it at 0.875"),
        ({"augment": "none", "interpolation": "bicubic"}, "'interpolation' is 'bicubic' and acts on .* at 'bilinear'"),
    ],
)
def test_what_the_dataset_would_not_heed_is_refused(recipe: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_training(colour_trial(**recipe), Context())


def test_a_folder_is_trained_on_by_deit(tmp_path: Path) -> None:
    root = make_folder(tmp_path, {"train/a": 10, "train/b": 10, "train/c": 10})
    options = {"root": str(root), "image_size": 32, "val_share": 0.2, "split_seed": 0, "loader_workers": 0}
    changes = {**asdict(RECIPES["deit"]), "batch_size": 12, "warmup_epochs": 0.0, "precision": "fp32"}
    trial = digits_trial(dataset={"name": "imagefolder", **options}, budget=1, **changes)
    (measured,) = get_task("classification").run(trial, Context())
    assert math.isfinite(measured.metrics["train_loss"])


@pytest.mark.parametrize("optimizer", sorted(OPTIMIZERS.keys() - {"prodigy"}))
def test_every_optimizer_heeds_layer_decay(optimizer: str) -> None:
    """Weights before the last layer move less than they do without it, those of the last as much."""
    moved = [first_step(optimizer, factor) for factor in (1.0, 0.25)]
    if OPTIMIZERS[optimizer].first_step == "linear":
        assert moved[1][1] == pytest.approx(moved[0][1], rel=1e-2)
        assert moved[1][0] == pytest.approx(moved[0][0] / 4, rel=1e-2)


def first_step(optimizer: str, factor: float) -> tuple[float, float]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 4))
    model.pretrained_cfg = {"classifier": "1"}  # type: ignore[assignment]
    before = [layer.weight.detach().clone() for layer in model]  # type: ignore[union-attr, operator]
    step = build_optimizer(model, optimizer, lr=1e-2, weight_decay=0.0, layer_decay=factor)
    functional.cross_entropy(model(torch.randn(16, 8)), torch.arange(16) % 4).backward()
    if isinstance(step, SecondOrder):
        step.observe([torch.ones_like(p) for group in step.param_groups for p in group["params"]])
    step.step()
    after = [layer.weight.detach() for layer in model]  # type: ignore[union-attr]
    first, last = ((b - a).norm().item() for a, b in zip(after, before, strict=True))
    return first, last
