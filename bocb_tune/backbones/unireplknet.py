"""UniRepLKNet (arXiv:2311.15599): 13 x 13 depthwise convolutions, trained as the sum of dilated small ones.

Written from the paper; what it leaves open (initial values, where batch and where layer normalisation stands) is as in
the authors' code (github.com/AILab-CVC/UniRepLKNet, commit b5677d8). The model is in its training form, whose branches
`timm.models.reparameterize_model` merges into one kernel each; the published numbers are those of the merged form.

Takes any image size. On maps smaller than 7 positions a side (images below 112 pixels in stage 3, 224 in stage 4) the
outer taps of a kernel see only padding and get no gradient.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import reduce
from itertools import pairwise
from typing import Any, cast

import torch
from timm.layers import (
    DropPath,
    LayerNorm2d,
    LayerScale2d,
    NormMlpClassifierHead,
    SqueezeExcite,
    calculate_drop_path_rates,
)
from timm.layers.grn import GlobalResponseNorm
from timm.models import generate_default_cfgs, register_model
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from bocb_tune.backbones.pyramid import INPUT, Pyramid, build, depthwise, halving

LARGE = 13
BRANCHES = ((LARGE, 1), (5, 1), (7, 2), (3, 3), (3, 4), (3, 5))
"""(kernel, dilation) of the branches that make up a 13 x 13 convolution (the authors' code)."""


class Branch(nn.Module):
    """A depthwise convolution and its normalisation."""

    def __init__(self, dim: int, kernel: int, dilation: int) -> None:
        super().__init__()
        self.conv = depthwise(dim, kernel, dilation=dilation, bias=False)
        self.norm = nn.BatchNorm2d(dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        normed: torch.Tensor = self.norm(self.conv(x))
        return normed

    def as_large(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the kernel [dim, 1, LARGE, LARGE] and bias [dim] that do the same in evaluation (the paper's equation
        1).
        """
        conv, norm = self.conv, self.norm
        assert norm.running_mean is not None
        assert norm.running_var is not None
        statistics = (norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias)
        weight, bias = fuse_conv_bn_weights(conv.weight, conv.bias, *statistics)
        large = weight.new_zeros(len(weight), 1, LARGE, LARGE)
        edge = LARGE // 2 - conv.dilation[0] * (conv.kernel_size[0] // 2)
        taps = slice(edge, LARGE - edge, conv.dilation[0])
        large[:, :, taps, taps] = weight
        return large, bias


class DilatedReparam(nn.Module):
    """The paper's Dilated Reparam Block: a large depthwise kernel as a sum of normalised smaller and sparser ones."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.branches = nn.ModuleList(Branch(dim, kernel, dilation) for kernel, dilation in BRANCHES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mixed: torch.Tensor = reduce(torch.add, (branch(x) for branch in self.branches))
        return mixed

    @torch.no_grad()
    def fuse(self) -> nn.Conv2d:
        """Merge the branches into the one convolution that does in evaluation what they do together; timm's tools call
        this.
        """
        weights, biases = zip(*(cast(Branch, branch).as_large() for branch in self.branches), strict=True)
        fused = depthwise(self.dim, LARGE)
        fused.weight = nn.Parameter(torch.stack(weights).sum(0))
        fused.bias = nn.Parameter(torch.stack(biases).sum(0))
        return fused


class UniRepLKNetBlock(nn.Module):
    """Depthwise mixture over positions, squeeze-and-excitation, MLP with global response norm; a scaled residual."""

    def __init__(self, dim: int, mix: nn.Module, drop_path: float) -> None:
        super().__init__()
        layers = {
            "mix": mix,
            "mix_norm": nn.BatchNorm2d(dim),
            "excite": SqueezeExcite(dim, rd_channels=dim // 4),
            "expand": nn.Conv2d(dim, 4 * dim, 1),
            "act": nn.GELU(),
            "respond": GlobalResponseNorm(4 * dim, channels_last=False),
            "reduce": nn.Conv2d(4 * dim, dim, 1, bias=False),
            "reduce_norm": nn.BatchNorm2d(dim),
            "scale": LayerScale2d(dim, 1e-6),
            "drop_path": DropPath(drop_path),
        }
        self.residual = nn.Sequential(OrderedDict(layers))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mixed: torch.Tensor = x + self.residual(x)
        return mixed


def stem(in_chans: int, dim: int) -> nn.Sequential:
    """Build two convolutions of stride 2."""
    half = dim // 2
    norms = LayerNorm2d(half), LayerNorm2d(dim)
    return nn.Sequential(halving(in_chans, half), norms[0], nn.GELU(), halving(half, dim), norms[1])


def stage(embed: nn.Module, dim: int, kernels: tuple[int, ...], rates: list[float]) -> nn.Sequential:
    """Build a downsampling, then one block a kernel: 3 x 3, or large and reparameterised."""
    mixes = (DilatedReparam(dim) if kernel == LARGE else depthwise(dim, kernel, bias=False) for kernel in kernels)
    blocks = nn.Sequential(*(UniRepLKNetBlock(dim, mix, rate) for mix, rate in zip(mixes, rates, strict=True)))
    return nn.Sequential(OrderedDict(embed=embed, blocks=blocks))


class UniRepLKNet(Pyramid):
    """Four stages with one block for each of their `kernels`, and `widths` channels."""

    def __init__(
        self,
        *,
        kernels: tuple[tuple[int, ...], ...],
        widths: tuple[int, ...],
        in_chans: int = 3,
        num_classes: int = 1000,
        drop_path_rate: float = 0.0,
    ) -> None:
        embeds = [stem(in_chans, widths[0])]
        embeds += [nn.Sequential(halving(a, b), LayerNorm2d(b)) for a, b in pairwise(widths)]
        rates = calculate_drop_path_rates(drop_path_rate, [len(sizes) for sizes in kernels], stagewise=True)
        stages = [stage(*parts) for parts in zip(embeds, widths, kernels, rates, strict=True)]
        super().__init__(stages, NormMlpClassifierHead(widths[-1], num_classes), widths=widths, num_classes=num_classes)
        self.apply(_init)


def _init(module: nn.Module) -> None:
    if isinstance(module, (nn.Conv2d, nn.Linear)):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


default_cfgs = generate_default_cfgs({"unireplknet_tiny": {**INPUT, "paper_ids": "arXiv:2311.15599"}})


@register_model  # type: ignore[untyped-decorator]
def unireplknet_tiny(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Build UniRepLKNet-T: 31 M parameters, 4.9 G multiply-accumulates at 224 once merged (the authors' README)."""
    arch = {"kernels": ((3,) * 3, (LARGE,) * 3, (LARGE, 3) * 9, (LARGE,) * 3), "widths": (80, 160, 320, 640)}
    return build(UniRepLKNet, "unireplknet_tiny", pretrained, **arch, **kwargs)
