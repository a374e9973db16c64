"""Feature maps of a backbone: what detectors and pose networks take of it in place of logits.

The model stays timm's, with timm's names of its parameters, so that weights, frozen stages and layer decay mean the
same as for a classifier; only its head is taken away.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from timm.layers import LayerNorm2d
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock

from bocb_tune.backbones import NoDropPath, drops_paths, layers_of, registered

PLAIN = 16
"""Stride of backbones without stages that a simple feature pyramid is built on: that of ViTs with patches of 16."""
PROBE = 64, 96
"""Height and width in pixels of the images a backbone is tried on: no size that it was published with."""


class NoMaps(ValueError):
    """A backbone has no feature maps that a pyramid can be built on."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"backbone {name!r} gives no feature maps of images of any size: {why}; take another backbone")


class FeatureMaps(nn.Module):
    """A backbone without its head: images [batch, 3, height, width] to a list of maps [batch, channels[i],
    height / strides[i], width / strides[i]], the finest first.

    A backbone that pools without padding (AlexNet) sees no last row and column of a map: they are filled with zeros.
    """

    def __init__(
        self, body: nn.Module, indices: Sequence[int], channels: Sequence[int], strides: Sequence[int]
    ) -> None:
        super().__init__()
        self.body = body
        self.indices, self.channels, self.strides = list(indices), tuple(channels), tuple(strides)

    def forward(self, images: Tensor) -> list[Tensor]:
        maps: list[Tensor] = self.body.forward_intermediates(  # type: ignore[operator]
            images, indices=self.indices, intermediates_only=True
        )
        height, width = images.shape[-2:]
        sizes = [(height // stride, width // stride) for stride in self.strides]
        return [_completed(each, size) for each, size in zip(maps, sizes, strict=True)]


def _completed(each: Tensor, size: tuple[int, int]) -> Tensor:
    """Fill up a map [..., height, width] to `size`, below and on the right."""
    below, right = size[0] - each.shape[-2], size[1] - each.shape[-1]
    return each if below == right == 0 else functional.pad(each, (0, right, 0, below))


def feature_maps(
    name: str,
    strides: Sequence[int],
    *,
    drop_path: float = 0.0,
    prepare: Callable[[nn.Module], object] = lambda _: None,
) -> FeatureMaps:
    """Build a backbone that gives maps of RGB images whose sides are multiples of 32.

    Weights are drawn from torch's global generator.

    Args:
        name: as of `build_backbone`.
        strides: of the maps; a backbone without stages gives its last map alone, at stride PLAIN.
        drop_path: rate of stochastic depth at the last block.
        prepare: is given the model with its head, before that is taken away: to load weights, or to freeze stages.

    Raises:
        ValueError: for an unknown name, a `drop_path` that the backbone cannot take, or one that gives no such maps.
    """
    model = _whole(name, drop_path)
    prepare(model)
    taps = _taps(name, model, strides)
    indices = [index for index, _, _ in taps]
    try:
        model.prune_intermediate_layers(indices, prune_norm=True, prune_head=True)  # type: ignore[operator]
        maps = FeatureMaps(model, indices, [width for _, width, _ in taps], [stride for _, _, stride in taps])
        _require_maps(maps)
    except (TypeError, ValueError, RuntimeError, AssertionError, AttributeError, IndexError) as error:
        raise NoMaps(name, str(error).strip().partition("\n")[0] or type(error).__name__) from error
    return maps


def _whole(name: str, drop_path: float) -> nn.Module:
    """Build the classifier, for images of any size where timm has a switch for that."""
    import timm

    model_name = registered(name)
    published = timm.get_pretrained_cfg(model_name)
    fixed = published is not None and published.fixed_input_size
    rate = {"drop_path_rate": drop_path} if drop_path else {}
    for free in ({"dynamic_img_size": True}, {"strict_img_size": False}, {}) if fixed else ({},):
        try:
            model: nn.Module = timm.create_model(model_name, pretrained=False, **rate, **free)
        except TypeError as error:
            if "drop_path_rate" in str(error):
                raise NoDropPath(name, drop_path) from error
            continue
        if drop_path and not drops_paths(model):
            raise NoDropPath(name, drop_path)
        return model
    raise NoMaps(name, "timm cannot build it")


def _taps(name: str, model: nn.Module, strides: Sequence[int]) -> list[tuple[int, int, int]]:
    """Find the maps to take: place among timm's, channels and stride of each."""
    known = list(getattr(model, "feature_info", ()))
    last = {info["reduction"]: (index, info["num_chs"], info["reduction"]) for index, info in enumerate(known)}
    if last.keys() >= set(strides):
        return [last[stride] for stride in strides]
    if last.keys() == {PLAIN}:
        return [last[PLAIN]]
    has = ", ".join(map(str, last)) or "none"
    raise NoMaps(name, f"maps at strides {', '.join(map(str, strides))} are needed, or at {PLAIN} alone; it has {has}")


@torch.no_grad()
def _require_maps(maps: FeatureMaps) -> None:
    """Try one forward pass, which tells what no table does; leaves no trace in the model."""
    found = maps.eval()(torch.zeros(1, 3, *PROBE))
    maps.train()
    widths = tuple(each.shape[1] for each in found)
    if widths != maps.channels:
        raise ValueError(f"its maps have {widths} channels, not {maps.channels}")


class MapPyramid(nn.Module):
    """A backbone and a feature pyramid on its maps: images to maps of `out_channels` by level, the finest first.

    The pyramid is torchvision's (arXiv:1612.03144), or on a backbone without stages the simple one.
    """

    def __init__(self, maps: FeatureMaps, strides: Sequence[int], out_channels: int, extra: ExtraFPNBlock) -> None:
        super().__init__()
        self.maps, self.out_channels = maps, out_channels
        self.fpn: nn.Module = (
            SimplePyramid(maps.channels[0], strides, out_channels, extra)
            if maps.strides == (PLAIN,)
            else FeaturePyramidNetwork(list(maps.channels), out_channels, extra_blocks=extra)
        )

    def forward(self, images: Tensor) -> Mapping[str, Tensor]:
        levels: Mapping[str, Tensor] = self.fpn(OrderedDict((str(i), each) for i, each in enumerate(self.maps(images))))
        return levels


class SimplePyramid(nn.Module):
    """The simple feature pyramid of ViTDet (arXiv:2203.16527, section 3 and appendix A.2): every level from one map."""

    def __init__(self, width: int, strides: Sequence[int], out_channels: int, extra: ExtraFPNBlock) -> None:
        super().__init__()
        self.levels = nn.ModuleList(_level(width, stride, out_channels) for stride in strides)
        self.extra_blocks = extra

    def forward(self, x: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Take the map of stride PLAIN and give one for each stride, and those of the extra blocks."""
        (last,) = x.values()
        maps, names = [level(last) for level in self.levels], list(map(str, range(len(self.levels))))
        maps, names = self.extra_blocks(maps, [last], names)
        return OrderedDict(zip(names, maps, strict=True))


def _level(width: int, stride: int, out_channels: int) -> nn.Sequential:
    """Build what makes a map of `stride` of one of stride PLAIN."""
    half, quarter = width // 2, width // 4
    rescaled: dict[int, tuple[list[nn.Module], int]] = {
        PLAIN // 4: (
            [_doubling(width, half), LayerNorm2d(half), nn.GELU(), _doubling(half, quarter)],
            quarter,
        ),
        PLAIN // 2: ([_doubling(width, half)], half),
        PLAIN: ([], width),
        PLAIN * 2: ([nn.MaxPool2d(2)], width),
    }
    layers, inside = rescaled[stride]
    layers += [nn.Conv2d(inside, out_channels, 1, bias=False), LayerNorm2d(out_channels)]
    layers += [nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False), LayerNorm2d(out_channels)]
    return nn.Sequential(*layers)


def _doubling(in_channels: int, out_channels: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(in_channels, out_channels, 2, stride=2)


class OnMaps:
    """Mixin of a model on feature maps: what timm's tools and `build_optimizer` ask of a model."""

    maps_at: str
    """Name of the `FeatureMaps` within the model."""

    def group_matcher(self, coarse: bool = False) -> Callable[[str], int]:
        """Return a function from a parameter's name to its layer: those of the backbone, then all else as one."""
        prefix, body = self._body()
        layers = layers_of(body, coarse=coarse)
        last = max(layers.values()) + 1
        return lambda name: layers.get(name.removeprefix(prefix), last) if name.startswith(prefix) else last

    def no_weight_decay(self) -> set[str]:
        """Name the parameters that the backbone's authors exempt from weight decay."""
        prefix, body = self._body()
        exempt: Any = getattr(body, "no_weight_decay", set)()
        return {f"{prefix}{name}" for name in exempt}

    def _body(self) -> tuple[str, nn.Module]:
        assert isinstance(self, nn.Module)
        name = f"{self.maps_at}.body"
        return f"{name}.", self.get_submodule(name)
