"""The S12 MetaFormers (arXiv:2210.13452) that timm lacks, from timm's blocks.

IdentityFormer-S12 is the paper's. ConvFormer and CAFormer begin at S18 there, and attention in all four stages is not
in it: here they have the depths of S12, and all else as ConvFormer-S18 and CAFormer-S18.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.metaformer import (
    Attention,
    GroupNorm1NoBias,
    LayerNorm2dNoBias,
    LayerNormNoBias,
    MetaFormer,
    SepConv,
)
from torch import nn

CFG = {"first_conv": "stem.conv", "pool_size": (7, 7), "paper_ids": "arXiv:2210.13452"}
CONVOLUTION, ATTENTION = (SepConv, LayerNorm2dNoBias), (Attention, LayerNormNoBias)
"""Token mixer of a stage, and the norm that goes with it."""

default_cfgs = generate_default_cfgs(
    {
        "identityformer_s12": {**CFG, "classifier": "head.fc"},
        "convformer_s12": {**CFG, "classifier": "head.fc.fc2"},
        "attentionformer_s12": {**CFG, "classifier": "head.fc.fc2"},
        "caformer_s12": {**CFG, "classifier": "head.fc.fc2"},
    }
)


@register_model  # type: ignore[untyped-decorator]
def identityformer_s12(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Build IdentityFormer-S12: no token mixer at all, and a linear head."""
    stages = [(nn.Identity, GroupNorm1NoBias)] * 4
    return _s12("identityformer_s12", pretrained, stages, use_mlp_head=False, **kwargs)


@register_model  # type: ignore[untyped-decorator]
def convformer_s12(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Build ConvFormer-S12: separable convolutions in all stages."""
    return _s12("convformer_s12", pretrained, [CONVOLUTION] * 4, **kwargs)


@register_model  # type: ignore[untyped-decorator]
def attentionformer_s12(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Build AttentionFormer-S12: attention in all stages; its cost in the first grows with the fourth power of the
    image's height.
    """
    return _s12("attentionformer_s12", pretrained, [ATTENTION] * 4, **kwargs)


@register_model  # type: ignore[untyped-decorator]
def caformer_s12(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Build CAFormer-S12: separable convolutions in the first two stages, attention in the last two."""
    return _s12("caformer_s12", pretrained, [CONVOLUTION] * 2 + [ATTENTION] * 2, **kwargs)


def _s12(
    name: str, pretrained: bool, stages: Sequence[tuple[type[nn.Module], type[nn.Module]]], **kwargs: Any
) -> nn.Module:
    mixers, norms = zip(*stages, strict=True)
    model: nn.Module = build_model_with_cfg(
        MetaFormer,
        name,
        pretrained,
        feature_cfg={"out_indices": (0, 1, 2, 3), "flatten_sequential": True},
        depths=(2, 2, 6, 2),
        dims=(64, 128, 320, 512),
        token_mixers=mixers,
        norm_layers=norms,
        **kwargs,
    )
    return model
