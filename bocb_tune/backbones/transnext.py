"""TransNeXt (arXiv:2311.17132): attention to the neighbours in detail and to the whole image at a glance.

Written from the paper; what it leaves open (initial values, epsilons, what decays) is as in the authors' code
(github.com/DaiShiResearch/TransNeXt, commit c8a9974), in its plain PyTorch form.

No parameter depends on the image size: positions enter through an MLP on relative coordinates, in shares of the
`img_size` the model is trained at. Sides of images are multiples of 32. At 32 pixels the last stage is one token that
attends to itself: what makes its scores (query, key, temperature, positions) gets no gradient.

Shapes: tokens [batch, height, width, dim], n = height * width of them; h heads of d = dim / h channels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from timm.layers import ClassifierHead, DropPath, calculate_drop_path_rates, to_2tuple
from timm.models import generate_default_cfgs, register_model
from torch import nn
from torch.nn import functional as F

from bocb_tune.backbones.pyramid import INPUT, Pyramid, build, depthwise, halving, init_fan_out

WINDOW = 3
EPS = 1e-6
NO_DECAY = (".temperature", ".embedding", ".local_bias", ".position.")
"""Parts of the names of parameters that the authors exempt from weight decay."""


@dataclass(frozen=True, slots=True)
class StageGrid:
    """Places of the n queries of a stage relative to its neighbours and to its k pooled keys."""

    outside: torch.Tensor
    """[n, window ** 2]: whether a neighbour of a query lies beyond the image's edge."""
    offsets: torch.Tensor
    """[p, 2]: all distances between a query and a pooled key, on a signed logarithmic scale."""
    index: torch.Tensor
    """[n, k]: which offset is that of query and key."""


def make_grid(height: int, width: int, ratio: int, unit: tuple[int, int], device: torch.device) -> StageGrid:
    """Make the grid of a stage of height x width tokens whose coordinates are measured in shares of `unit` tokens."""
    y, offsets_y = _along(height, ratio, unit[0], device)
    x, offsets_x = _along(width, ratio, unit[1], device)
    index = y[:, None, :, None] * len(offsets_x) + x[None, :, None, :]
    inside = F.unfold(torch.ones(1, 1, height, width, device=device), WINDOW, padding=WINDOW // 2)[0].T
    return StageGrid(inside == 0, torch.cartesian_prod(offsets_y, offsets_x), index.reshape(height * width, -1))


def _along(size: int, ratio: int, unit: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Measure one axis: place of (query, key) among the distances [size, size / ratio], and the distances,
    ascending."""
    query, key = torch.arange(size, device=device), torch.arange(0, size, ratio, device=device)
    place = query[:, None] - key[None, :] + size - ratio
    distance = torch.arange(2 * size - ratio, device=device) - (size - ratio) - (ratio - 1) / 2
    scaled = 8 * distance / max(unit - 1, 1)
    return place, scaled.sign() * torch.log2(scaled.abs() + 1) / math.log2(8)


def split_heads(x: torch.Tensor, heads: int) -> torch.Tensor:
    """Split [batch, ..., h * d] into [batch, h, n, d]."""
    return x.reshape(len(x), -1, heads, x.shape[-1] // heads).transpose(1, 2)


def similarity(query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """Multiply queries [batch, h, n, d] by keys [batch, h, k, d] of unit length: [batch, h, n, k]."""
    return query @ F.normalize(key, dim=-1).mT


class Query(nn.Module):
    """Queries of unit length, and the same with a learned one added, scaled for the number of keys they meet."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.project = nn.Linear(dim, dim)
        self.embedding = nn.Parameter(nn.init.trunc_normal_(torch.empty(heads, 1, dim // heads), std=0.02))
        self.temperature = nn.Parameter(torch.full((heads, 1, 1), math.log(math.expm1(1 / 0.24))))

    def forward(self, x: torch.Tensor, log_keys: torch.Tensor | float) -> tuple[torch.Tensor, torch.Tensor]:
        """Attend from queries to keys, both [batch, h, n, d]; log_keys [n, 1] is the logarithm of how many keys a query
        meets.
        """
        unit = F.normalize(split_heads(self.project(x), len(self.temperature)), dim=-1)
        return unit, (unit + self.embedding) * F.softplus(self.temperature) * log_keys


class PositionBias(nn.Module):
    """Gain of a score from where query and key stand: [h, n, k] for a grid."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(2, 512), nn.ReLU(), nn.Linear(512, heads))

    def forward(self, grid: StageGrid) -> torch.Tensor:
        by_offset: torch.Tensor = self.mlp(grid.offsets)
        return by_offset.T[:, grid.index]


class GlobalAttention(nn.Module):
    """Every token attends to every token, by cosine; for the last stage."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = Query(dim, heads)
        self.key_value = nn.Linear(dim, 2 * dim)
        self.position = PositionBias(heads)
        self.project = nn.Linear(dim, dim)

    def forward(self, x: torch.Tensor, grid: StageGrid) -> torch.Tensor:
        _, query = self.query(x, math.log(len(grid.index)))
        key, value = split_heads(self.key_value(x), 2 * self.heads).chunk(2, dim=1)
        scores = similarity(query, key) + self.position(grid)
        attended: torch.Tensor = self.project(_merge(scores.softmax(-1) @ value, x))
        return attended


class AggregatedAttention(nn.Module):
    """Every token attends at once to its neighbours and to the image pooled into cells of `ratio` tokens a side."""

    def __init__(self, dim: int, heads: int, ratio: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = Query(dim, heads)
        self.key_value = nn.Linear(dim, 2 * dim)
        self.position = PositionBias(heads)
        self.local_bias = nn.Parameter(nn.init.trunc_normal_(torch.empty(heads, 1, WINDOW**2), std=0.0004))
        self.local_tokens = nn.Parameter(nn.init.trunc_normal_(torch.empty(heads, dim // heads, WINDOW**2), std=0.02))
        self.local_offset = nn.Parameter(torch.zeros(heads, 1, WINDOW**2))
        self.pool = nn.Sequential(nn.Conv2d(dim, dim, 1), nn.GELU(), nn.AvgPool2d(ratio))
        self.pool_norm = nn.LayerNorm(dim)
        self.project = nn.Linear(dim, dim)

    def forward(self, x: torch.Tensor, grid: StageGrid) -> torch.Tensor:
        num_keys = (~grid.outside).sum(1, keepdim=True) + grid.index.shape[1]
        unit, query = self.query(x, num_keys.log())
        local_key, local_value = self._neighbours(x)
        pooled = self.pool_norm(_channels_last(self.pool(_channels_first(x))))
        key, value = split_heads(self.key_value(pooled), 2 * self.heads).chunk(2, dim=1)

        # Products and sums, not einsum: its many tiny matrix products take up to twice as long.
        local = (query.mT.unsqueeze(3) * local_key).sum(2).mT + self.local_bias
        distant = similarity(query, key) + self.position(grid)
        weights = torch.cat([local.masked_fill(grid.outside, -math.inf), distant], dim=-1).softmax(-1)
        local = weights[..., : WINDOW**2] + unit @ self.local_tokens + self.local_offset
        mixed = (local.mT.unsqueeze(2) * local_value).sum(3).mT + weights[..., WINDOW**2 :] @ value
        attended: torch.Tensor = self.project(_merge(mixed, x))
        return attended

    def _neighbours(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Gather keys of unit length and values around a token, [batch, h, d, window ** 2, n]; zero outside."""
        key, value = self.key_value(x).chunk(2, dim=-1)
        batch, height, width, dim = x.shape
        key = F.normalize(key.reshape(batch, height, width, self.heads, -1), dim=-1).flatten(-2)
        around = F.unfold(_channels_first(torch.cat([key, value], dim=-1)), WINDOW, padding=WINDOW // 2)
        key, value = around.reshape(batch, 2 * self.heads, dim // self.heads, WINDOW**2, -1).chunk(2, dim=1)
        return key, value


class ConvGLU(nn.Module):
    """An MLP whose gate sees its neighbours; it has as many weights as an ungated one with `hidden` channels."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        hidden = 2 * hidden // 3
        self.expand = nn.Linear(dim, 2 * hidden)
        self.mix = depthwise(hidden, 3)
        self.act = nn.GELU()
        self.reduce = nn.Linear(hidden, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate, value = self.expand(x).chunk(2, dim=-1)
        gate = self.act(_channels_last(self.mix(_channels_first(gate))))
        reduced: torch.Tensor = self.reduce(gate * value)
        return reduced


class TransNeXtBlock(nn.Module):
    """Attention, then the gated MLP, each a normalised residual."""

    def __init__(self, dim: int, heads: int, ratio: int, hidden: int, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=EPS)
        self.attn = GlobalAttention(dim, heads) if ratio == 1 else AggregatedAttention(dim, heads, ratio)
        self.norm2 = nn.LayerNorm(dim, eps=EPS)
        self.mlp = ConvGLU(dim, hidden)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: torch.Tensor, grid: StageGrid) -> torch.Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x), grid))
        mixed: torch.Tensor = x + self.drop_path(self.mlp(self.norm2(x)))
        return mixed


class Stage(nn.Module):
    """Features [batch, in_dim, height, width] to [batch, dim, height / stride, width / stride]."""

    def __init__(self, embed: nn.Conv2d, blocks: list[TransNeXtBlock], ratio: int, unit: tuple[int, int]) -> None:
        super().__init__()
        dim = embed.out_channels
        self.ratio, self.unit, self.cell = ratio, unit, ratio * embed.stride[0]
        self.embed = nn.Sequential(embed)
        self.embed_norm = nn.LayerNorm(dim)
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(dim, eps=EPS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        _require_whole_cells(x.shape[2], x.shape[3], self.cell)
        x = self.embed_norm(_channels_last(self.embed(x)))
        grid = make_grid(x.shape[1], x.shape[2], self.ratio, self.unit, x.device)
        for block in self.blocks:
            x = block(x, grid)
        return _channels_first(self.norm(x))


def _require_whole_cells(height: int, width: int, cell: int) -> None:
    """Refuse images whose cells are not whole: the first stage sees pixels, and if its cells are, so are those of all
    stages.
    """
    if height % cell or width % cell:
        near = [max(1, round(side / cell)) * cell for side in (height, width)]
        sides = f"multiples of {cell} pixels, not {height} x {width}; nearest: {near[0]} x {near[1]}"
        raise ValueError(f"TransNeXt takes images whose sides are {sides}")


class TransNeXt(Pyramid):
    """Stages of `depths` blocks, `widths` channels and MLPs `ratios` times as wide; `img_size` is the trained size."""

    def __init__(
        self,
        *,
        depths: tuple[int, ...],
        widths: tuple[int, ...],
        ratios: tuple[int, ...],
        head_dim: int,
        img_size: int | tuple[int, int] = 224,
        in_chans: int = 3,
        num_classes: int = 1000,
        drop_path_rate: float = 0.0,
    ) -> None:
        embeds = [nn.Conv2d(in_chans, widths[0], 7, stride=4, padding=3)]
        embeds += [halving(a, b) for a, b in pairwise(widths)]
        rates = calculate_drop_path_rates(drop_path_rate, list(depths), stagewise=True)
        stages = []
        for i, (embed, dim, ratio, stage_rates) in enumerate(zip(embeds, widths, ratios, rates, strict=True)):
            pool = 2 ** (len(widths) - 1 - i)
            blocks = [TransNeXtBlock(dim, dim // head_dim, pool, ratio * dim, rate) for rate in stage_rates]
            height, width = (side // 2 ** (i + 2) for side in to_2tuple(img_size))
            stages.append(Stage(embed, blocks, pool, (height, width)))
        super().__init__(stages, ClassifierHead(widths[-1], num_classes), widths=widths, num_classes=num_classes)
        self.apply(init_fan_out)

    def no_weight_decay(self) -> set[str]:
        """Name the parameters that the authors exempt, besides the one-dimensional ones."""
        return {name for name, _ in self.named_parameters() if any(part in name for part in NO_DECAY)}


def _merge(heads: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Merge [batch, h, n, d] into tokens."""
    return heads.transpose(1, 2).reshape(like.shape)


def _channels_first(tokens: torch.Tensor) -> torch.Tensor:
    return tokens.permute(0, 3, 1, 2)


def _channels_last(features: torch.Tensor) -> torch.Tensor:
    return features.permute(0, 2, 3, 1)


default_cfgs = generate_default_cfgs(
    {"transnext_tiny": {**INPUT, "fixed_input_size": True, "crop_pct": 0.9, "paper_ids": "arXiv:2311.17132"}}
)


@register_model  # type: ignore[untyped-decorator]
def transnext_tiny(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Build TransNeXt-Tiny: 28.2 M parameters, 5.7 G multiply-accumulates at 224 (the authors' README)."""
    arch = {"depths": (2, 2, 15, 2), "widths": (72, 144, 288, 576), "ratios": (8, 8, 4, 4), "head_dim": 24}
    return build(TransNeXt, "transnext_tiny", pretrained, **arch, **kwargs)
