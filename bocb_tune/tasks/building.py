"""Parts of a training that the tasks on images build alike: data, model and optimizer of a trial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from bocb_tune.backbones.features import FeatureMaps, feature_maps
from bocb_tune.backbones.pretrained import start_from, verified
from bocb_tune.core.space import arguments
from bocb_tune.core.types import TrialSpec, derive_seed
from bocb_tune.data import DATASETS
from bocb_tune.optimizers import build_optimizer
from bocb_tune.training.context import Context
from bocb_tune.training.device import set_memory_strides
from bocb_tune.training.freeze import freeze, require_own_statistics
from bocb_tune.training.recipes import Recipe, unheeded
from bocb_tune.training.rng import seed_all


def data_and_recipe(trial: TrialSpec) -> tuple[str, dict[str, Any], Recipe]:
    """Return the name of a trial's dataset, the dataset's options, and a recipe that suits it.

    Raises:
        ValueError: if it does not.
    """
    name, options = named({**trial.settings["dataset"], **trial.data_options})
    recipe = Recipe(**trial.settings["recipe"])
    require_suits(recipe, name)
    return name, options, recipe


def require_suits(recipe: Recipe, dataset: str) -> None:
    """Check that a recipe's augmentation suits a dataset.

    Raises:
        ValueError: naming the field that does not.
    """
    augments = DATASETS[dataset].augments
    if recipe.augment not in augments:
        valid = " or ".join(repr(augment) for augment in augments)
        raise ValueError(f"recipe field 'augment' is {recipe.augment!r}; dataset {dataset!r} can take {valid}")
    for name, message in unheeded(recipe, DATASETS[dataset].is_decoded):
        raise ValueError(f"recipe field {name!r} {message}; dataset {dataset!r} is in memory")


def named(dataset: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Separate the name of a dataset from its options."""
    return dataset["name"], {option: value for option, value in dataset.items() if option != "name"}


def maps_of(trial: TrialSpec, strides: Sequence[int], recipe: Recipe) -> FeatureMaps:
    """Build the backbone of a trial for its feature maps, on the CPU, as it is before its first step."""
    seed_all(derive_seed(trial.seed, "model"))

    def prepare(backbone: nn.Module) -> None:
        start(backbone, trial)
        freeze(backbone, recipe)

    return feature_maps(trial.cell.backbone, strides, drop_path=recipe.drop_path, prepare=prepare)


def start(model: nn.Module, trial: TrialSpec) -> None:
    """Put the weights of its pre-training into a fresh model.

    Raises:
        ValueError: if they are not there, are others, or do not fit.
    """
    digest = trial.settings.get("pretrained")
    if digest is not None:
        start_from(model, verified(trial.weights, digest))


def placed(model: nn.Module, recipe: Recipe, device: str) -> nn.Module:
    """Put a model on its device, in the recipe's layout of memory.

    Raises:
        ValueError: if the recipe asks for gradient checkpointing and the model has none.
    """
    layout = memory_format(recipe, device)
    model = model.to(device=device, memory_format=layout)  # type: ignore[call-overload]
    if layout is torch.channels_last:
        set_memory_strides(model)
    if recipe.grad_checkpointing:
        _checkpoint(model)
    return model


def _checkpoint(model: nn.Module) -> None:
    try:
        model.set_grad_checkpointing(True)  # type: ignore[operator]
    except (AttributeError, AssertionError, RuntimeError) as error:
        raise ValueError(
            f"recipe field 'grad_checkpointing' is True, but {type(model).__name__} has none; leave it at False, "
            "or give this backbone a recipe of its own"
        ) from error


def memory_format(recipe: Recipe, device: str) -> torch.memory_format:
    """Return the layout of images and convolutions in memory: the recipe's, but for bf16 on a CPU."""
    if not recipe.channels_last:
        return torch.contiguous_format
    # There oneDNN 3.12 (torch 2.14) writes beyond its memory: in a strided 1 x 1 convolution of RGB images (RepVGG),
    # and in depthwise ones with dilation (MogaNet), whose trainings then go on with spoilt numbers.
    broken = recipe.precision == "bf16" and torch.device(device).type == "cpu"
    return torch.contiguous_format if broken else torch.channels_last


def optimizer_of(model: nn.Module, trial: TrialSpec, recipe: Recipe) -> Optimizer:
    """Build the optimizer of a trial.

    Raises:
        ValueError: if it needs statistics of BatchNorm that the recipe keeps as they are.
    """
    given = {"layer_decay": recipe.layer_decay, **arguments(trial.settings["optimizer"], trial.hparams)}
    optimizer = build_optimizer(model, trial.cell.optimizer, **given)
    require_own_statistics(model, optimizer, trial.cell.optimizer, recipe)
    return optimizer


def validation_plan(own: Tensor, recipe: Recipe, context: Context) -> Sequence[Tensor]:
    """Split a rank's share of the validation images [images] into batches, as large as those of a training pass."""
    per_rank = recipe.batch_size // context.ranks.world_size // recipe.accumulation
    return torch.split(own, max(1, per_rank // context.micro_batch_divisor)) if len(own) else ()
