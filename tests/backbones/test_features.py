"""Feature maps of backbones: shapes, gradients, names, and pyramids on them."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch import nn
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7

from bocb_tune.backbones import BACKBONES, build_backbone, stages_of
from bocb_tune.backbones.features import FeatureMaps, MapPyramid, NoMaps, OnMaps, feature_maps
from bocb_tune.optimizers import param_groups
from bocb_tune.optimizers.layers import lr_shares
from bocb_tune.training.freeze import freeze
from bocb_tune.training.recipes import Recipe

WITH_MAPS = sorted(name for name, row in BACKBONES.items() if not row.no_maps)
QUICK = ("alexnet", "resnet50", "mobilenetv2", "deit_small", "swin_tiny", "caformer_s12", "unireplknet_tiny")
"""One of each way to give maps."""
STRIDES = (4, 8, 16, 32)


def gives_maps(name: str) -> None:
    """Maps have their strides and channels, and every parameter has a part in them."""
    torch.manual_seed(0)
    maps = feature_maps(name, STRIDES)
    found = maps(torch.randn(2, 3, 96, 128))
    assert [each.shape[1] for each in found] == list(maps.channels)
    assert [each.shape[2:] for each in found] == [(96 // stride, 128 // stride) for stride in maps.strides]
    sum(each.square().mean() for each in found).backward()
    assert [key for key, value in maps.named_parameters() if value.grad is None] == []


@pytest.mark.parametrize("name", QUICK)
def test_maps_of_one_backbone_of_each_kind(name: str) -> None:
    gives_maps(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({*WITH_MAPS} - {*QUICK}))
def test_maps_of_all_other_backbones(name: str) -> None:
    gives_maps(name)


@pytest.mark.parametrize("name", ["resnet50", "convnext_tiny", "moganet_small", "alexnet"])
def test_the_last_map_is_what_the_classifier_sees(name: str) -> None:
    torch.manual_seed(0)
    whole = build_backbone(name, num_classes=1000, in_chans=3, image_size=96).eval()
    maps = feature_maps(name, STRIDES, prepare=lambda model: model.load_state_dict(whole.state_dict())).eval()
    images = torch.randn(1, 3, 96, 96)
    with torch.no_grad():
        seen = whole.forward_features(images)  # type: ignore[operator]
        last = maps(images)[-1]
    filled = torch.zeros_like(last)  # AlexNet leaves a row and a column out
    filled[..., : seen.shape[2], : seen.shape[3]] = seen
    assert torch.equal(last, filled)


def test_parameters_keep_timms_names() -> None:
    whole = build_backbone("resnet50", num_classes=2, in_chans=3, image_size=224).state_dict()
    body = feature_maps("resnet50", STRIDES).body.state_dict()
    assert body.keys() == {name for name in whole if not name.startswith("fc.")}


def test_a_backbone_without_maps_says_why() -> None:
    with pytest.raises(NoMaps, match=r"'mlp_mixer_small' gives no feature maps of images of any size: "):
        feature_maps("mlp_mixer_small", STRIDES)
    with pytest.raises(NoMaps, match=r"maps at strides 4, 8, 16, 32 are needed, or at 16 alone; it has 32"):
        feature_maps("vit_small_patch32_224", STRIDES)


@pytest.mark.parametrize(("strides", "extra"), [((8, 16, 32), 2), (STRIDES, 1)])
@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_a_pyramid_has_a_map_for_every_stride(name: str, strides: tuple[int, ...], extra: int) -> None:
    last = LastLevelP6P7(8, 8) if extra == 2 else LastLevelMaxPool()
    pyramid = MapPyramid(feature_maps(name, strides), strides, 8, last)
    found = pyramid(torch.randn(1, 3, 64, 128))
    assert len(found) == len(strides) + extra
    assert list(found)[: len(strides)] == [str(i) for i in range(len(strides))]
    for each, stride in zip(found.values(), strides, strict=False):
        assert each.shape == (1, 8, 64 // stride, 128 // stride)


class Summed(OnMaps, nn.Module):
    """Maps and a head."""

    maps_at = "maps"

    def __init__(self, maps: FeatureMaps) -> None:
        super().__init__()
        self.maps, self.head = maps, nn.Conv2d(maps.channels[-1], 1, 1)


def test_layers_of_the_body_decay_and_the_head_does_not() -> None:
    model = Summed(feature_maps("test_vit", STRIDES))
    shares = {name: lr_shares(model, 0.5)[value] for name, value in model.named_parameters()}
    assert shares["head.weight"] == shares["head.bias"] == 1.0
    body = OrderedDict((name, share) for name, share in shares.items() if name.startswith("maps."))
    assert max(body.values()) == 0.5
    assert min(body.values()) == shares["maps.body.patch_embed.proj.weight"]
    assert shares["maps.body.patch_embed.proj.weight"] < shares["maps.body.blocks.0.attn.qkv.weight"]


def test_what_the_authors_exempt_from_decay_stays_exempt() -> None:
    model = Summed(feature_maps("test_vit", STRIDES))
    decayed, _ = param_groups(model, 0.1)
    assert not any(value is model.maps.body.pos_embed for value in decayed["params"])


@pytest.mark.parametrize("stages", [1, 3])
def test_the_same_stages_are_frozen_as_in_a_classifier(stages: int) -> None:
    recipe = Recipe(batch_size=2, frozen_stages=stages)
    maps = feature_maps("test_resnet", STRIDES, prepare=lambda model: freeze(model, recipe))
    whole = stages_of(build_backbone("test_resnet", num_classes=2, in_chans=3, image_size=64))
    frozen = {name for name, value in maps.body.named_parameters() if not value.requires_grad}
    assert frozen == {name for name, stage in whole.items() if stage < stages}


def test_frozen_norms_keep_statistics_and_learn_scales() -> None:
    recipe = Recipe(batch_size=2, frozen_norm=True)
    maps = feature_maps("test_resnet", STRIDES, prepare=lambda model: freeze(model, recipe)).train()
    before = {name: value.clone() for name, value in maps.named_buffers()}
    maps(torch.randn(2, 3, 64, 64))[-1].sum().backward()
    assert all(torch.equal(value, before[name]) for name, value in maps.named_buffers())
    norms = [module for module in maps.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms
    assert all(norm.weight.grad is not None for norm in norms[:1])
