"""Training settings of arXiv:2410.06373 on CIFAR-100 (tables A1 and A3), and the table that sets ours beside them.

`python -m tests.support.paper_recipes` prints it for docs/RECIPES.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from bocb_tune.spec.model import ExperimentSpec, load_spec
from bocb_tune.training.recipes import Recipe
from tests.support.cells import GRID

PYTORCH: Mapping[str, Any] = {
    "warm-up": 0,
    "loss": "ce 0",
    "depth": 0,
    "views": "no",
    "EMA": "no",
    "clip": 0,
    "RandAugment": "no",
    "mixup": 0,
    "CutMix": 0,
    "erase": 0,
}
DEIT: Mapping[str, Any] = {
    "warm-up": 5,
    "loss": "ce 0.1",
    "depth": 0.1,
    "views": "yes",
    "EMA": "yes",
    "clip": 5,
    "RandAugment": "9/0.5",
    "mixup": 0.8,
    "CutMix": 1,
    "erase": 0.25,
}
CONVNEXT: Mapping[str, Any] = {**DEIT, "warm-up": 20, "clip": 0}
RSB: Mapping[str, Any] = {
    **PYTORCH,
    "warm-up": 5,
    "loss": "bce 0",
    "depth": 0.05,
    "views": "yes",
    "RandAugment": "7/0.5",
    "mixup": 0.1,
    "CutMix": 1,
}
PAPER: Mapping[str, tuple[str, Mapping[str, Any], int]] = {
    "alexnet": ("PyTorch", PYTORCH, 224),
    "vgg13": ("PyTorch", PYTORCH, 224),
    "resnet50": ("PyTorch", PYTORCH, 32),
    "densenet121": ("PyTorch", PYTORCH, 32),
    "mobilenetv2": ("PyTorch", PYTORCH, 224),
    "efficientnet_b0": ("RSB A2", RSB, 224),
    "repvgg_a1": ("PyTorch", PYTORCH, 224),
    "deit_small": ("DeiT", DEIT, 224),
    "mlp_mixer_small": ("DeiT", DEIT, 224),
    "swin_tiny": ("ConvNeXt", CONVNEXT, 224),
    "convnext_tiny": ("ConvNeXt", CONVNEXT, 32),
    "convnextv2_tiny": ("ConvNeXt", CONVNEXT, 32),
    "moganet_small": ("ConvNeXt", CONVNEXT, 32),
    "unireplknet_tiny": ("ConvNeXt", CONVNEXT, 224),
    "transnext_tiny": ("DeiT", DEIT, 224),
    "identityformer_s12": ("RSB A2", RSB, 224),
    "poolformerv2_s12": ("RSB A2", RSB, 224),
    "convformer_s12": ("RSB A2", RSB, 224),
    "attentionformer_s12": ("RSB A2", RSB, 224),
    "caformer_s12": ("RSB A2", RSB, 224),
}
"""By backbone: the setting it was trained by, its values, and the pixels it saw. Every one with flips and random crops,
resized ones at 224 pixels."""


def published(backbone: str) -> dict[str, Any]:
    """The paper's values for a backbone."""
    _, values, size = PAPER[backbone]
    return {"input": size, "crop": "shift" if size == 32 else "resized", **values}


def ours(recipe: Recipe) -> dict[str, Any]:
    """A recipe in the words of the paper's table."""
    return {
        "input": recipe.image_size or 32,
        "crop": {"flip_shift": "shift", "flip_crop": "resized"}[recipe.augment],
        "warm-up": recipe.warmup_epochs,
        "loss": f"{recipe.loss} {recipe.label_smoothing:g}",
        "depth": recipe.drop_path,
        "views": "yes" if recipe.repeated_augment > 1 else "no",
        "EMA": "yes" if recipe.ema_decay else "no",
        "clip": recipe.clip_grad,
        "RandAugment": f"{recipe.rand_augment:g}/{recipe.rand_augment_std:g}" if recipe.rand_augment else "no",
        "mixup": recipe.mixup,
        "CutMix": recipe.cutmix,
        "erase": recipe.erase,
    }


def rows(spec: ExperimentSpec) -> Iterator[str]:
    """Lines of the table: the paper's value, then ours."""
    heads = ["backbone", "the paper's setting", "our recipe", *published("alexnet")]
    yield _line(heads)
    yield _line(["---"] * len(heads))
    for backbone in spec.backbones:
        name, recipe = spec.recipe_of(backbone)
        theirs, own = published(backbone), ours(recipe)
        pairs = [f"{_text(value)}, {_text(own[key])}" for key, value in theirs.items()]
        yield _line([backbone, PAPER[backbone][0], f"`{name}`", *pairs])


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else f"{value:g}"


if __name__ == "__main__":
    print("\n".join(rows(load_spec(GRID))))
