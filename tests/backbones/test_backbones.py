"""The backbones of the table: what was published of them, what they take, and what they say to all else."""

from __future__ import annotations

import copy
import importlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.layers import DropPath
from timm.utils import reparameterize_model
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from bocb_tune.analysis.names.look import backbone_class
from bocb_tune.analysis.names.table import CLASSICAL, METAFORMER, MODERN
from bocb_tune.backbones import (
    BACKBONES,
    FULL,
    SMALL,
    BackboneRow,
    adapted,
    build_backbone,
    list_backbones,
    require_batch,
    traits,
)
from bocb_tune.cli.catalog import catalog
from bocb_tune.spec.environment import models
from bocb_tune.spec.grid import plan_grid
from bocb_tune.spec.model import SpecError, load_spec
from bocb_tune.tasks import get_task
from bocb_tune.tasks.classification import build_training
from bocb_tune.training.context import Context, Ranks
from tests.support.trials import digits_trial

ALL = sorted(BACKBONES)
QUICKEST = {"mobilenetv2", "repvgg_a1", "identityformer_s12", "caformer_s12", "mlp_mixer_small"}
"""Convolutions and attention, changed stems and enlarged images, in seconds."""


def slow_but(quick: Iterable[str], names: Iterable[str] = ALL) -> list[Any]:
    """Every name, all but the `quick` ones slow."""
    return [pytest.param(name, marks=[] if name in quick else [pytest.mark.slow]) for name in names]


def build(name: str, image_size: int = 32, **changes: Any) -> nn.Module:
    torch.manual_seed(0)
    return build_backbone(name, **{"num_classes": 7, "in_chans": 3, "image_size": image_size} | changes)


def on_meta(name: str, image_size: int, **changes: Any) -> nn.Module:
    with torch.device("meta"):
        return build(name, image_size, **changes)


def counts(model: nn.Module, image_size: int) -> tuple[float, float]:
    """Millions of parameters, and billions of an image's multiplications in convolutions, linear maps and attention."""
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as flops:
        model.eval()(torch.zeros(1, 3, image_size, image_size))
    return sum(parameter.numel() for parameter in model.parameters()) / 1e6, flops.get_total_flops() / 2e9


def published_form(name: str, **changes: Any) -> nn.Module:
    """timm's model, on the meta device."""
    if BACKBONES[name].module:
        importlib.import_module(BACKBONES[name].module)
    with torch.device("meta"):
        model: nn.Module = timm.create_model(BACKBONES[name].model, **changes)
    return model


# What was published


MERGED = {"unireplknet_tiny"}
"""Published are the counts of the form in use, whose branches are merged."""


@pytest.mark.parametrize("name", [name for name in ALL if not BACKBONES[name].source.startswith("derived")])
def test_counts_are_the_published_ones(name: str) -> None:
    model, row = published_form(name), BACKBONES[name]
    if name in MERGED:
        model = reparameterize_model(model)
    assert counts(model, FULL) == pytest.approx((row.params_m, row.macs_g), rel=0.01)


DEPTHS, WIDTHS, SIDES = (2, 2, 6, 2), (64, 128, 320, 512), (56, 28, 14, 7)


def s12(attention: tuple[bool, ...]) -> tuple[float, float]:
    """Counts of an S12 MetaFormer with an MLP head, by hand after arXiv:2210.13452, sections 2 and 3."""
    params, macs = 7 * 7 * 3 * 64 + 64 + 64, 7 * 7 * 3 * 64 * 56**2
    for before, width, side in zip(WIDTHS, WIDTHS[1:], SIDES[1:], strict=False):
        params += before + 9 * before * width + width
        macs += 9 * before * width * side**2
    for i, (depth, width, tokens) in enumerate(zip(DEPTHS, WIDTHS, (side**2 for side in SIDES), strict=True)):
        mixer = 4 * width**2 + (0 if attention[i] else 49 * 2 * width)
        products = 2 * tokens**2 * width if attention[i] else 0
        own = 2 * width + 2 + (0 if attention[i] else 2) + (2 * width if i > 1 else 0)  # norms, StarReLU, scales
        params += depth * (mixer + 8 * width**2 + own)
        macs += depth * (tokens * (mixer + 8 * width**2) + products)
    head = 512 * 2048 + 2048 * 1000
    return (params + 2 * 512 + head + 2048 + 2 * 2048 + 1000) / 1e6, (macs + head) / 1e9


@pytest.mark.parametrize(
    ("name", "attention"),
    [
        ("convformer_s12", (False, False, False, False)),
        ("attentionformer_s12", (True, True, True, True)),
        ("caformer_s12", (False, False, True, True)),
    ],
)
def test_counts_that_were_not_found(name: str, attention: tuple[bool, ...]) -> None:
    row = BACKBONES[name]
    assert (row.params_m, row.macs_g) == pytest.approx(s12(attention), abs=5e-4)
    assert counts(published_form(name), FULL) == pytest.approx(s12(attention), rel=1e-6)


def test_counts_of_mixer_by_hand() -> None:
    """arXiv:2105.01601, Table 1: 8 layers, 196 patches of 16 x 16, width 512, MLPs of 256 and 2,048."""
    layer = 2 * 196 * 256 * 512 + 2 * 512 * 2048 * 196
    macs = 8 * layer + 196 * 768 * 512 + 512 * 1000
    assert BACKBONES["mlp_mixer_small"].macs_g == pytest.approx(macs / 1e9, abs=5e-4)


def test_families_are_those_of_the_analysis() -> None:
    assert {backbone_class(name) for name in ALL} == {CLASSICAL, MODERN, METAFORMER}
    assert {name: row.family for name, row in BACKBONES.items()} == {name: backbone_class(name) for name in ALL}


# What they take


def awaken(model: nn.Module) -> nn.Module:
    """Without the zeros that some families begin with, through which no gradient passes."""
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(std=0.02)
    return model


def require_learnable(name: str, image_size: int) -> None:
    model = awaken(build(name, image_size))
    logits = model(torch.randn(2, 3, image_size, image_size))
    functional.cross_entropy(logits, torch.tensor([1, 2])).backward()
    assert logits.shape == (2, 7)
    assert logits.isfinite().all()
    unreached = [key for key, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert unreached == []


@pytest.mark.parametrize("name", sorted(QUICKEST))
def test_gradients_reach_every_parameter(name: str) -> None:
    require_learnable(name, 32)


@pytest.mark.slow
@pytest.mark.parametrize("image_size", [32, 64, 224])
@pytest.mark.parametrize("name", ALL)
def test_gradients_reach_every_parameter_at_every_size(name: str, image_size: int) -> None:
    require_learnable(name, image_size)


@pytest.mark.parametrize("name", ["resnet50", "densenet121", "vgg13"])
def test_features_of_a_small_image(name: str) -> None:
    """32 pixels end as 4 x 4 features where a stem is changed, and as one where only VGG's classifier is."""
    features = on_meta(name, 32).forward_features(torch.zeros(1, 3, 32, 32, device="meta"))  # type: ignore[operator]
    assert features.shape[-1] == (1 if name == "vgg13" else 4)


STEMS = [name for name in ALL if BACKBONES[name].reshape and name != "vgg13"]


@pytest.mark.parametrize("name", slow_but({"mobilenetv2", "repvgg_a1", "resnet50", "convnext_tiny"}, STEMS))
def test_a_small_image_costs_as_much_as_one_four_times_as_high(name: str) -> None:
    """What is lost is a reduction by 4, so all but the stem sees what it sees of an image of 128 pixels."""
    _, small = counts(on_meta(name, 32), 32)
    _, published = counts(published_form(name, num_classes=7), 128)
    assert small == pytest.approx(published, rel=0.12)


def test_small_images_are_enlarged() -> None:
    model, seen = build("deit_small", 32), []
    model.patch_embed.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))  # type: ignore[union-attr, operator]
    images = torch.randn(2, 3, 32, 32)
    model(images)
    copy.deepcopy(model)(images)  # as the averaged weights are
    expected = functional.interpolate(images, size=(224, 224), mode="bicubic")
    assert [torch.equal(images, expected) for images in seen] == [True, True]


@pytest.mark.parametrize(
    ("name", "image_size", "change"),
    [
        ("resnet50", SMALL, {"small": True}),
        ("resnet50", SMALL + 1, {}),
        ("deit_small", 32, {"model": "deit_small_patch16_224", "image_size": 224}),
        ("deit_small", 96, {"model": "deit_small_patch16_224"}),
        ("vgg13", 32, {"model": "vgg13_bn", "small": True}),
        ("vgg13_bn", 32, {}),
        ("test_vit", 32, {}),
    ],
)
def test_what_is_changed_is_told(name: str, image_size: int, change: dict[str, Any]) -> None:
    assert adapted(name, image_size) == change


SPEC = """
name: sizes
task: classification
dataset: {{name: digits, image_size: {size}}}
backbones: [{backbones}]
optimizers: [sgd]
recipe: digits
budget: {{epochs: 2, trials_per_cell: 9}}
search: {{design: 4, asha: null}}
"""


def test_a_trial_keeps_what_is_changed(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(SPEC.format(size=32, backbones="resnet50, deit_small, test_vit"))
    settings = [cell.settings.get("backbone") for cell in plan_grid(load_spec(path)).cells]
    assert settings == [{"small": True}, {"model": "deit_small_patch16_224", "image_size": 224}, None]


@pytest.mark.parametrize("name", slow_but(QUICKEST | {"alexnet", "vgg13", "densenet121"}))
def test_stochastic_depth_is_honoured_or_refused(name: str) -> None:
    if name in ("alexnet", "vgg13", "densenet121"):  # no residual branch to drop
        with pytest.raises(ValueError, match=f"backbone '{name}' has no stochastic depth .* drop_path_rate 0.1; set"):
            on_meta(name, 32, drop_path=0.1)
        return
    rates = [module.drop_prob for module in on_meta(name, 32, drop_path=0.1).modules() if isinstance(module, DropPath)]
    assert max(rates) == pytest.approx(0.1, rel=0.1)
    assert rates == sorted(rates)


FLAT = {"deit_small", "mlp_mixer_small"}
"""One stage of one width."""


@pytest.mark.parametrize("name", slow_but(QUICKEST | {"alexnet"}, [name for name in ALL if name not in FLAT]))
def test_features_of_each_stage(name: str) -> None:
    model = published_form(name, features_only=True)
    features = model(torch.zeros(1, 3, FULL, FULL, device="meta"))
    channels_last = name == "swin_tiny"
    widths = [feature.shape[-1 if channels_last else 1] for feature in features]
    heights = [feature.shape[1 if channels_last else 2] for feature in features]
    assert widths == model.feature_info.channels()  # type: ignore[union-attr, operator]
    assert len(features) >= 4
    assert heights == sorted(heights, reverse=True)
    assert heights[-1] in (6, 7)


# What they say


def test_the_list_begins_with_the_table() -> None:
    names = list_backbones()
    assert names[: len(BACKBONES)] == list(BACKBONES)
    assert len(names) == len(set(names))
    assert set(timm.list_models()) <= set(names)


def test_every_row_is_described() -> None:
    rows = {row["name"]: row for row in catalog("backbones")}
    described = rows["alexnet"]["description"]
    assert described == (
        "classification, detection, segmentation, pose; classical; 61.101 M parameters, 0.714 G multiplications at 224 "
        "(torchvision, metadata of its weights); images up to 64 pixels: enlarged to 224; OpenMixup's AlexNet takes "
        "nothing else"
    )
    assert all(row.source and row.small for row in BACKBONES.values())
    assert json.dumps(rows)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet5", "unknown backbone 'resnet5'; did you mean 'resnet50'"),
        ("identityformers12", "unknown backbone 'identityformers12'; did you mean 'identityformer_s12'"),
        ("attentionformer", "unknown backbone 'attentionformer'; did you mean 'attentionformer_s12'"),
    ],
)
def test_the_nearest_name_is_suggested(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(name)


def test_an_image_too_small() -> None:
    message = (
        r"backbone 'vgg13' cannot take images of 16 pixels \(num_classes 7, in_chans 3\): .*; "
        "give the dataset another image_size, such as 224, or take another backbone"
    )
    with pytest.raises(ValueError, match=message):
        on_meta("vgg13", 16)


def test_sizes_are_checked_before_anything_runs(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(SPEC.format(size=30, backbones="test_resnet, test_vit"))
    with pytest.raises(SpecError, match=r"backbones\[1\]: backbone 'test_vit' cannot take images of 30 pixels"):
        load_spec(path, checks=[models])
    load_spec(path, ["dataset.image_size=32"], checks=[models])


def test_a_model_that_needs_weights_to_be_built_is_not_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    real = timm.create_model

    def needs_weights(*args: Any, **kwargs: Any) -> nn.Module:
        model: nn.Module = real(*args, **kwargs)
        float(next(model.parameters()).sum())
        return model

    monkeypatch.setattr(timm, "create_model", needs_weights)
    with pytest.raises(ValueError, match="meta"):
        on_meta("test_vit", 32)
    traits("test_vit", 32)


def test_a_batch_of_one_cannot_be_normalised() -> None:
    message = "backbone 'test_resnet' has BatchNorm, which cannot normalise a batch of 1: give each rank at least 2"
    with pytest.raises(ValueError, match=message):
        build_training(digits_trial("test_resnet", batch_size=4, accumulation=2), Context(ranks=Ranks(world_size=2)))
    build_training(digits_trial("test_resnet", batch_size=8, accumulation=2), Context(ranks=Ranks(world_size=2)))
    require_batch(build("test_vit"), "test_vit", 1)  # has no BatchNorm


# Adding one


THROW_AWAY = """
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import nn


class Throwaway(nn.Sequential):
    def __init__(self, num_classes=1000, in_chans=3):
        super().__init__(nn.Conv2d(in_chans, 8, 4, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(8, num_classes))


default_cfgs = generate_default_cfgs({"throwaway": {}})


@register_model
def throwaway(pretrained=False, **kwargs):
    return build_model_with_cfg(Throwaway, "throwaway", pretrained, **kwargs)
"""


def test_a_backbone_is_one_row_and_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "throwaway_backbone.py").write_text(THROW_AWAY)
    monkeypatch.syspath_prepend(tmp_path)
    row = BackboneRow(
        model="throwaway",
        module="throwaway_backbone",
        family="modern",
        params_m=0.001,
        macs_g=0.001,
        source="none",
        small="as it is",
    )
    monkeypatch.setitem(BACKBONES, "throwaway", row)
    task = get_task("classification")
    assert "throwaway" in task.backbones()
    (measured,) = task.run(digits_trial("throwaway", budget=1), Context())
    assert measured.score > 0
