"""The command of timm's training script (`train.py` of its repository) that comes nearest to a trial."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from bocb_tune.core.space import arguments, own_part
from bocb_tune.training.recipes import DEFAULTS, Recipe

OPTIMIZERS: dict[str, str] = {
    "sgd": "momentum",  # timm's `sgd` has Nesterov's momentum
    "lion": "lion",
    "adam": "adam",
    "adamax": "adamax",
    "nadam": "nadam",
    "adamw": "adamw",
    "lamb": "lamb",
    "radam": "radam",
    "adan": "adan",
    "adafactor": "adafactor",
    "novograd": "novograd",
    "adagrad": "adagrad",
    "adadelta": "adadelta",
    "rmsprop": "rmsprop",
}
"""Name of timm for what an optimizer is here: of the same class and arguments. Others differ, or are not there."""

FOLDERS = ("imagefolder", "imagenet")
"""Data sets that timm reads from the same folder."""


class NoCommandError(ValueError):
    """A trial that timm's training script cannot repeat, and why."""


def timm_command(
    model: str, optimizer: str, hparams: Mapping[str, float], settings: Mapping[str, Any], num_classes: int, epochs: int
) -> str:
    """Write the command for one trial; `settings` are those of the trial.

    Raises:
        NoCommandError: where a part of it has no counterpart.
    """
    dataset, recipe = settings["dataset"], Recipe(**settings["recipe"])
    if dataset["name"] not in FOLDERS:
        raise NoCommandError(f"timm's training script does not read the data set {dataset['name']} as it is read here")
    if optimizer not in OPTIMIZERS:
        raise NoCommandError(f"timm's script has no {optimizer} of the same class and arguments")
    for name, value in settings.get("backbone", {}).items():
        if name != "model":
            raise NoCommandError(f"the backbone differs from timm's ({name}: {value})")
    if "pretrained" in settings:
        raise NoCommandError("it begins with other weights than timm's, whose loading differs")
    workers = settings.get("workers", 1)
    start = f"torchrun --nproc-per-node={workers} train.py" if workers > 1 else "python train.py"
    size = recipe.image_size or dataset["image_size"]
    words: list[Any] = ["--data-dir", "DATA", "--train-split", "train", "--val-split", "val", "--model", model]
    words += ["--num-classes", num_classes, "--img-size", size, "--epochs", epochs]
    words += ["--lr", f"{hparams['lr']:g}", "--weight-decay", f"{hparams['weight_decay']:g}"]
    words += _optimizer_words(optimizer, arguments(settings["optimizer"], own_part(hparams)))
    words += _recipe_words(recipe, hparams["lr"], workers)
    return shlex.join([*shlex.split(start), *map(str, words)])


def _optimizer_words(optimizer: str, fixed: Mapping[str, Any]) -> list[Any]:
    words: list[Any] = ["--opt", OPTIMIZERS[optimizer], "--momentum", fixed.get("momentum", 0)]
    if "betas" in fixed:
        words += ["--opt-betas", *fixed["betas"]]
    if "eps" in fixed:
        words += ["--opt-eps", fixed["eps"]]
    rest = {name: value for name, value in fixed.items() if name not in ("momentum", "betas", "eps")}
    return words + (["--opt-kwargs", *(f"{name}={value}" for name, value in rest.items())] if rest else [])


def _recipe_words(recipe: Recipe, lr: float, workers: int) -> list[Any]:
    if recipe.warmup_epochs != int(recipe.warmup_epochs):
        raise NoCommandError(f"timm's script warms up over whole epochs, and the recipe over {recipe.warmup_epochs:g}")
    for name in ("frozen_stages", "linear_probe", "frozen_norm", "lr_steps"):
        if getattr(recipe, name, DEFAULTS.get(name)) != DEFAULTS.get(name):
            raise NoCommandError(f"timm's script has no counterpart of the recipe's {name}")
    images = recipe.batch_size // workers // recipe.accumulation
    words: list[Any] = ["--batch-size", images, "--grad-accum-steps", recipe.accumulation]
    words += ["--sched", "cosine", "--sched-on-updates", "--min-lr", f"{recipe.min_lr_ratio * lr:g}"]
    words += ["--warmup-epochs", int(recipe.warmup_epochs), "--warmup-lr", 0, "--warmup-prefix"]
    words += ["--smoothing", recipe.label_smoothing, "--drop-path", recipe.drop_path]
    words += ["--mixup", recipe.mixup, "--cutmix", recipe.cutmix, "--crop-pct", recipe.eval_crop]
    words += ["--interpolation", recipe.interpolation, "--train-interpolation", recipe.interpolation]
    return words + _augment_words(recipe) + _switches(recipe)


def _augment_words(recipe: Recipe) -> list[Any]:
    if recipe.augment == "none":
        return ["--no-aug"]
    words: list[Any] = ["--scale", recipe.crop_min_area, 1.0, "--color-jitter", recipe.color_jitter]
    words += ["--reprob", recipe.erase, "--remode", "pixel", "--aug-repeats", _repeats(recipe)]
    if recipe.rand_augment:
        layers, std = recipe.rand_augment_layers, recipe.rand_augment_std
        words += ["--aa", f"rand-m{recipe.rand_augment:g}-n{layers}-mstd{std:g}-inc1"]
    return words


def _repeats(recipe: Recipe) -> int:
    return recipe.repeated_augment if recipe.repeated_augment > 1 else 0


AUTOCAST = {"bf16": "bfloat16", "fp16": "float16"}
"""Types of autocast by the precision of a recipe, as timm names them; fp32 has none."""


def _switches(recipe: Recipe) -> list[Any]:
    words: list[Any] = ["--mixup-switch-prob", recipe.switch_prob] if recipe.mixup and recipe.cutmix else []
    words += ["--clip-grad", recipe.clip_grad] if recipe.clip_grad else []
    words += ["--layer-decay", recipe.layer_decay] if recipe.layer_decay < 1 else []
    words += ["--bce-loss"] if recipe.loss == "bce" else []
    words += ["--model-ema", "--model-ema-decay", recipe.ema_decay] if recipe.ema_decay else []
    words += ["--model-ema-warmup"] if recipe.ema_warmup else []
    words += ["--amp", "--amp-dtype", AUTOCAST[recipe.precision]] if recipe.precision in AUTOCAST else []
    words += ["--channels-last"] if recipe.channels_last else []
    words += ["--torchcompile"] if recipe.compile else []
    return words + (["--grad-checkpointing"] if recipe.grad_checkpointing else [])
