"""MogaNet (arXiv:2211.03295): convolutions of several orders, gated, in place of attention.

Written from the paper. Where it leaves a choice open or differs from the authors' code
(github.com/Westlake-AI/MogaNet, commit 386b548), the code decides, since it gave the published numbers: activations,
normalisation by batch statistics after each stage, initial values.

Takes any image size. Below 33 pixels the last stage is one position: the average that its spatial blocks contrast
each position with is that position, so their `contrast.scale` gets no gradient.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise
from typing import Any

import torch
from timm.layers import ClassifierHead, DropPath, LayerScale2d, calculate_drop_path_rates
from timm.models import generate_default_cfgs, register_model
from torch import nn

from bocb_tune.backbones.pyramid import INPUT, Pyramid, build, depthwise, halving, init_fan_out

SCALE = 1e-5
"""Initial value of every layer scale and contrast scale (authors' code)."""


class FeatureContrast(nn.Module):
    """x + scale * (x - summary(x)): amplifies in x [batch, dim, height, width] what its summary does not say."""

    def __init__(self, dim: int, summary: nn.Module) -> None:
        super().__init__()
        self.summary = summary
        self.scale = LayerScale2d(dim, SCALE)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        contrast: torch.Tensor = self.scale(x - self.summary(x))
        return x + contrast


class MultiOrder(nn.Module):
    """Depthwise kernels of three reaches: 5 x 5 for 1/8 of the channels, then a dilated second one for 3/8 and 4/8."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.split = [dim // 8, 3 * dim // 8, dim // 2]
        self.low = depthwise(dim, 5)
        self.middle = depthwise(self.split[1], 5, dilation=2)
        self.high = depthwise(self.split[2], 7, dilation=3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        low, middle, high = self.low(x).split(self.split, dim=1)
        return torch.cat([low, self.middle(middle), self.high(high)], dim=1)


class SpatialAggregation(nn.Module):
    """Contrast with the image's average, then a gated mixture over positions (the paper's multi-order aggregation)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.embed = nn.Conv2d(dim, dim, 1)
        self.contrast = FeatureContrast(dim, nn.AdaptiveAvgPool2d(1))
        self.act = nn.SiLU()
        self.gate = nn.Sequential(nn.Conv2d(dim, dim, 1), nn.SiLU())
        self.context = nn.Sequential(MultiOrder(dim), nn.Conv2d(dim, dim, 1), nn.SiLU())
        self.project = nn.Conv2d(dim, dim, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.act(self.contrast(self.embed(x)))
        aggregated: torch.Tensor = self.project(self.gate(y) * self.context(y))
        return x + aggregated


def channel_aggregation(dim: int, hidden: int) -> nn.Sequential:
    """Build a convolutional MLP that contrasts its channels with one summary of them (the paper's channel
    aggregation)."""
    summary = nn.Sequential(nn.Conv2d(hidden, 1, 1), nn.GELU())
    layers = {
        "expand": nn.Conv2d(dim, hidden, 1),
        "mix": depthwise(hidden, 3),
        "act": nn.GELU(),
        "contrast": FeatureContrast(hidden, summary),
        "reduce": nn.Conv2d(hidden, dim, 1),
    }
    return nn.Sequential(OrderedDict(layers))


class MogaNetBlock(nn.Module):
    """Aggregation over positions, then over channels, each a normalised and scaled residual."""

    def __init__(self, dim: int, hidden: int, drop_path: float) -> None:
        super().__init__()
        spatial = (nn.BatchNorm2d(dim), SpatialAggregation(dim), LayerScale2d(dim, SCALE), DropPath(drop_path))
        channel = (nn.BatchNorm2d(dim), channel_aggregation(dim, hidden), LayerScale2d(dim, SCALE), DropPath(drop_path))
        self.spatial = nn.Sequential(*spatial)
        self.channel = nn.Sequential(*channel)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.spatial(x)
        mixed: torch.Tensor = x + self.channel(x)
        return mixed


def stem(in_chans: int, dim: int) -> nn.Sequential:
    """Build two convolutions of stride 2."""
    half = dim // 2
    norms = nn.BatchNorm2d(half), nn.BatchNorm2d(dim)
    return nn.Sequential(halving(in_chans, half), norms[0], nn.GELU(), halving(half, dim), norms[1])


def stage(embed: nn.Module, dim: int, ratio: int, rates: list[float]) -> nn.Sequential:
    """Build one block a drop-path rate, between a downsampling and a normalisation."""
    blocks = nn.Sequential(*(MogaNetBlock(dim, ratio * dim, rate) for rate in rates))
    return nn.Sequential(OrderedDict(embed=embed, blocks=blocks, norm=nn.BatchNorm2d(dim)))


class MogaNet(Pyramid):
    """Four stages of `depths` blocks, `widths` channels and MLPs `ratios` times as wide."""

    def __init__(
        self,
        *,
        depths: tuple[int, ...],
        widths: tuple[int, ...],
        ratios: tuple[int, ...],
        in_chans: int = 3,
        num_classes: int = 1000,
        drop_path_rate: float = 0.0,
    ) -> None:
        embeds = [stem(in_chans, widths[0])]
        embeds += [nn.Sequential(halving(a, b), nn.BatchNorm2d(b)) for a, b in pairwise(widths)]
        rates = calculate_drop_path_rates(drop_path_rate, list(depths), stagewise=True)
        stages = [stage(*parts) for parts in zip(embeds, widths, ratios, rates, strict=True)]
        super().__init__(stages, ClassifierHead(widths[-1], num_classes), widths=widths, num_classes=num_classes)
        self.apply(init_fan_out)


default_cfgs = generate_default_cfgs({"moganet_small": {**INPUT, "crop_pct": 0.9, "paper_ids": "arXiv:2211.03295"}})


@register_model  # type: ignore[untyped-decorator]
def moganet_small(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Build MogaNet-S: 25.3 M parameters, 4.97 G multiply-accumulates at 224 (the authors' README)."""
    arch = {"depths": (2, 3, 12, 2), "widths": (64, 128, 320, 512), "ratios": (8, 8, 4, 4)}
    return build(MogaNet, "moganet_small", pretrained, **arch, **kwargs)
