"""Backbones written from their papers: published sizes, theory of their parts, what timm's tools expect."""

from __future__ import annotations

import io
import itertools
from copy import deepcopy
from functools import cache
from typing import Any

import pytest
import timm
import torch
from timm.layers import DropPath
from timm.models import group_parameters, reparameterize_model
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from bocb_tune.backbones import moganet, transnext, unireplknet
from bocb_tune.optimizers import param_groups

PUBLISHED = {
    "moganet_small": (25.3, 4.97),
    "unireplknet_tiny": (31.0, 4.9),
    "transnext_tiny": (28.2, 5.7),
}
"""Millions of parameters and G multiply-accumulates at 224: the READMEs of github.com/Westlake-AI/MogaNet (386b548),
AILab-CVC/UniRepLKNet (b5677d8, merged form) and DaiShiResearch/TransNeXt (c8a9974), as in their papers' tables."""

BLOCKS = {"moganet_small": 19, "unireplknet_tiny": 27, "transnext_tiny": 21}
WIDTHS = {
    "moganet_small": [64, 128, 320, 512],
    "unireplknet_tiny": [80, 160, 320, 640],
    "transnext_tiny": [72, 144, 288, 576],
}
ONE_POSITION = {
    "moganet_small": (".spatial.1.contrast.scale.",),
    "unireplknet_tiny": (),
    "transnext_tiny": (".attn.query.", ".attn.position."),
}
"""Parameters of the last stage that a map of one position, as at 32 pixels, gives no gradient."""

every_backbone = pytest.mark.parametrize("name", sorted(PUBLISHED))


def build(name: str, size: int = 64, **arguments: Any) -> Any:
    """A model with ten classes for images of one size, drawn from seed 0."""
    torch.manual_seed(0)
    if timm.get_pretrained_cfg(name).fixed_input_size:
        arguments["img_size"] = size
    return timm.create_model(name, **{"num_classes": 10, **arguments})


@cache
def built(name: str) -> Any:
    """The one that tests share, for 64 pixels and in evaluation: not to be changed."""
    return build(name).eval()


def images(size: int, *, batch: int) -> torch.Tensor:
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(1))


@every_backbone
def test_parameters_and_multiply_accumulates_are_the_published_ones(name: str) -> None:
    """Counted: convolutions (a depthwise one with one kernel a channel), linear layers and matrix products."""
    with torch.device("meta"):
        model = reparameterize_model(timm.create_model(name), inplace=True).eval()
        with FlopCounterMode(display=False) as counter:
            model(torch.empty(1, 3, 224, 224))
    millions, giga = PUBLISHED[name]
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, rel=0.01)
    assert counter.get_total_flops() / 2e9 == pytest.approx(giga, rel=0.01)


@pytest.mark.parametrize("size", [32, 64, pytest.param(224, marks=pytest.mark.slow)])
@every_backbone
def test_gradients_reach_every_parameter(name: str, size: int) -> None:
    model = deepcopy(built(name)).train()
    x = images(size, batch=4 if size == 32 else 2)
    logits = model(x)
    assert logits.shape == (len(x), 10)
    assert logits.isfinite().all()
    F.cross_entropy(logits, torch.arange(len(x))).backward()
    gradients = {key: p.grad for key, p in model.named_parameters()}
    assert all(grad is not None and grad.isfinite().all() for grad in gradients.values())
    unreached = {key for key, grad in gradients.items() if grad is not None and not grad.any()}
    last_stage = {key for key in gradients if key.startswith("stages.3")}
    silent = {key for key in last_stage if any(part in key for part in ONE_POSITION[name])}
    assert unreached == (silent if size == 32 else set())


@every_backbone
def test_a_seed_draws_the_same_model_and_its_state_survives_a_file(name: str) -> None:
    model, again, x = built(name), build(name).eval(), images(32, batch=1)
    assert torch.equal(model(x), again(x))
    for parameter in again.parameters():
        nn.init.zeros_(parameter)
    assert not torch.equal(model(x), again(x))
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    again.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(model(x), again(x))


@every_backbone
def test_bf16_autocast_stays_near_full_precision(name: str) -> None:
    x = images(64, batch=2)
    with torch.no_grad():
        full = built(name)(x)
        with torch.autocast("cpu", torch.bfloat16):
            half = built(name)(x)
    assert half.isfinite().all()
    assert (half - full).norm() < 0.05 * full.norm()


@every_backbone
def test_arguments_are_honoured(name: str) -> None:
    with torch.device("meta"):
        model = build(name, num_classes=7, in_chans=1, drop_path_rate=0.2)
        assert model(torch.empty(2, 1, 64, 64)).shape == (2, 7)
        model.reset_classifier(3)
        assert model.forward_head(torch.empty(2, WIDTHS[name][-1], 2, 2)).shape == (2, 3)
        with pytest.raises(TypeError, match="no_such"):
            build(name, no_such=1)
    assert model.get_classifier().out_features == 3
    rates = [m.drop_prob for m in model.modules() if isinstance(m, DropPath)]
    assert rates == sorted(rates)
    assert sorted(set(rates)) == pytest.approx([0.2 * i / (BLOCKS[name] - 1) for i in range(BLOCKS[name])])


def test_weights_that_do_not_exist_are_refused() -> None:
    with pytest.raises(RuntimeError, match="No pretrained"), torch.device("meta"):
        timm.create_model("moganet_small", pretrained=True)


@pytest.mark.parametrize(
    ("name", "size"), [("moganet_small", (45, 70)), ("unireplknet_tiny", (45, 70)), ("transnext_tiny", (64, 96))]
)
def test_features_of_the_four_stages(name: str, size: tuple[int, int]) -> None:
    with torch.device("meta"):
        model = build(name, features_only=True)
        features = model(torch.empty(1, 3, *size))
    sides = [tuple(-(-side // stride) for side in size) for stride in (4, 8, 16, 32)]
    assert [tuple(f.shape) for f in features] == [(1, w, *hw) for w, hw in zip(WIDTHS[name], sides, strict=True)]
    assert model.feature_info.channels() == WIDTHS[name]
    assert model.feature_info.reduction() == [4, 8, 16, 32]
    assert len(list(model.parameters())) == len(list(built(name).stages.parameters()))


@every_backbone
def test_layer_decay_sees_a_layer_in_every_block(name: str) -> None:
    """And one in the head; what stands between blocks belongs to one of its neighbours."""
    model = built(name)
    layer = group_parameters(model, model.group_matcher(), reverse=True)
    depths = [layer[key] for key, _ in model.named_parameters()]
    assert depths == sorted(depths)
    assert set(depths) == set(range(BLOCKS[name] + 1))


@every_backbone
def test_undecayed_are_the_parameters_that_the_authors_exempt(name: str) -> None:
    """In TransNeXt's code by name; in all three those of one dimension (scales, norms, biases)."""
    model = built(name)
    shapes = {key: p.ndim for key, p in model.named_parameters()}
    words = (".query.embedding", ".temperature", ".position.", ".local_bias") if name == "transnext_tiny" else ()
    expected = {key for key, ndim in shapes.items() if ndim == 1 or any(word in key for word in words)}
    names = {id(p): key for key, p in model.named_parameters()}
    assert {names[id(p)] for p in param_groups(model, 0.1)[1]["params"]} == expected
    assert all(any(word in key for key in shapes) for word in words)


# MogaNet


@pytest.mark.parametrize(("channel", "reach"), [(0, 5), (1, 13), (3, 13), (4, 23), (7, 23)])
def test_each_order_sees_as_far_as_its_kernels(channel: int, reach: int) -> None:
    """5 x 5 alone; then dilation 2 widens it by 8 and 7 x 7 at dilation 3 by 18."""
    x = torch.zeros(1, 8, 31, 31, requires_grad=True)
    moganet.MultiOrder(8)(x)[0, channel, 15, 15].backward()
    assert x.grad is not None
    rows = x.grad[0, channel].any(1).nonzero()
    assert rows[-1] - rows[0] + 1 == reach
    assert not x.grad[0, :channel].any()
    assert not x.grad[0, channel + 1 :].any()


def test_a_contrast_adds_the_scaled_difference_from_the_average() -> None:
    contrast = moganet.FeatureContrast(2, nn.AdaptiveAvgPool2d(1))
    nn.init.constant_(contrast.scale.gamma, 0.5)
    x = torch.tensor([[[[1.0, 3.0]], [[5.0, 5.0]]]])
    assert torch.equal(contrast(x), torch.tensor([[[[0.5, 3.5]], [[5.0, 5.0]]]]))


# UniRepLKNet


def test_the_merged_kernel_does_what_its_branches_do() -> None:
    """Equation 1 of the paper, with batch statistics that are not those of a new model."""
    torch.manual_seed(0)
    block = unireplknet.DilatedReparam(3).double()
    for norm in (m for m in block.modules() if isinstance(m, nn.BatchNorm2d)):
        for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
            assert tensor is not None
            nn.init.uniform_(tensor, 0.5, 2)
    x = torch.randn(2, 3, 17, 20, dtype=torch.double)
    apart = block.eval()(x)
    merged = reparameterize_model(nn.Sequential(block))
    assert [type(m) for m in merged] == [nn.Conv2d]
    torch.testing.assert_close(merged(x), apart)


def test_branches_reach_no_further_than_the_large_kernel() -> None:
    for kernel, dilation in unireplknet.BRANCHES:
        assert kernel % 2 == 1
        assert dilation * (kernel - 1) + 1 <= unireplknet.LARGE


# TransNeXt


@pytest.mark.parametrize(("ratio", "unit"), [(1, (4, 6)), (2, (4, 6)), (2, (28, 28)), (1, (1, 1))])
def test_offsets_are_distances_to_the_centres_of_cells(ratio: int, unit: tuple[int, int]) -> None:
    """sign(d) log2(1 + |d|) / log2(8) of the distance d in units of 8 images (log-CPB, arXiv:2111.09883)."""
    grid = transnext.make_grid(4, 6, ratio, unit, torch.device("cpu"))
    axes = [torch.arange(float(side)) for side in (4, 6)]
    centres = [F.adaptive_avg_pool1d(axis[None], len(axis) // ratio)[0] for axis in axes]
    queries, keys = torch.cartesian_prod(*axes), torch.cartesian_prod(*centres)
    distance = 8 * (queries[:, None] - keys[None]) / torch.tensor([max(side - 1, 1) for side in unit])
    expected = distance.sign() * (distance.abs() + 1).log2() / 3
    torch.testing.assert_close(grid.offsets[grid.index], expected)
    assert len(grid.offsets) == (8 - ratio) * (12 - ratio)


def attend(
    attention: transnext.AggregatedAttention, x: torch.Tensor, grid: transnext.StageGrid, token: int
) -> torch.Tensor:
    """What one token receives from each head, by loops over its keys: the paper's definition."""
    height, width, dim = x.shape[1:]
    y0, x0 = divmod(token, width)
    window = list(itertools.product((-1, 0, 1), repeat=2))
    inside = [
        (i, y0 + dy, x0 + dx) for i, (dy, dx) in enumerate(window) if 0 <= y0 + dy < height and 0 <= x0 + dx < width
    ]
    features = attention.pool_norm(attention.pool(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)).reshape(-1, dim)
    keys = [x[0, y, x1] for _, y, x1 in inside] + list(features)
    received = []
    for head in range(attention.heads):
        part = slice(head * dim // attention.heads, (head + 1) * dim // attention.heads)
        unit = F.normalize(attention.query.project(x[0, y0, x0])[part], dim=0)
        length = F.softplus(attention.query.temperature[head, 0]) * torch.tensor(float(len(keys))).log()
        query = (unit + attention.query.embedding[head, 0]) * length
        pairs = [attention.key_value(key).chunk(2) for key in keys]
        scores = torch.stack([query @ F.normalize(key[part], dim=0) for key, _ in pairs])
        local = attention.local_bias[head, 0, [i for i, _, _ in inside]]
        weights = (scores + torch.cat([local, attention.position(grid)[head, token]])).softmax(0)
        learned = unit @ attention.local_tokens[head] + attention.local_offset[head, 0]
        learned = torch.cat([learned[[i for i, _, _ in inside]], torch.zeros(len(features))])
        received.append(sum((w * value[part] for w, (_, value) in zip(weights + learned, pairs, strict=True))))
    projected: torch.Tensor = attention.project(torch.cat(received))
    return projected


def test_aggregated_attention_is_its_definition() -> None:
    torch.manual_seed(0)
    attention = transnext.AggregatedAttention(8, 2, 2)
    for parameter in attention.parameters():
        nn.init.normal_(parameter, std=0.7)
    x = torch.randn(1, 4, 6, 8)
    grid = transnext.make_grid(4, 6, 2, (4, 6), x.device)
    expected = torch.stack([attend(attention, x, grid, token) for token in range(24)])
    torch.testing.assert_close(attention(x, grid).reshape(24, 8), expected)


def test_transnext_runs_at_sizes_it_was_not_built_for_and_refuses_broken_cells() -> None:
    model = built("transnext_tiny")
    assert model(torch.randn(1, 3, 32, 96)).isfinite().all()
    with pytest.raises(ValueError, match="multiples of 32 pixels, not 72 x 10; nearest: 64 x 32"):
        model(torch.randn(1, 3, 72, 10))


def test_the_built_size_is_the_unit_of_positions() -> None:
    small, large = built("transnext_tiny"), build("transnext_tiny", 224).eval()
    assert all(torch.equal(*pair) for pair in zip(small.parameters(), large.parameters(), strict=True))
    assert not torch.equal(small(images(64, batch=1)), large(images(64, batch=1)))
