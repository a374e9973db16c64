"""The backbones of arXiv:2410.06373 and ResNet-101 as a literal table. Needs neither torch nor timm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Family = Literal["classical", "modern", "metaformer"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BackboneRow:
    """One backbone: which model it is, what was published of it, and what small images do to it."""

    model: str
    """Its name in timm."""
    module: str = ""
    """Registers it with timm when imported; empty for timm's own."""
    family: Family
    """Group of columns in the results table of arXiv:2410.06373."""
    params_m: float
    macs_g: float
    """Millions of parameters and billions of multiplications, published for 1,000 classes and 224 pixels."""
    source: str
    """Source of both counts; `derived` where none were found."""
    small: str
    """Handling of images of at most `SMALL` pixels, with its source."""
    no_maps: str = ""
    """Reason why it gives no feature maps of images of any size, as detection needs them; empty: it does."""
    reshape: str = ""
    """`module:function` that makes the fresh model fit for small images; empty: images are enlarged to `FULL`."""


SMALL = 64
"""Height in pixels up to which images count as small: CIFAR's 32, Tiny ImageNet's 64."""
FULL = 224
"""Height in pixels at which all of these were published."""

_TORCHVISION = "torchvision, metadata of its weights"
_METAFORMER = "arXiv:2210.13452, table of sail-sg/metaformer"
_S12 = "derived: ConvFormer-S18 and CAFormer-S18 of arXiv:2210.13452 with the depths of S12"

_ENLARGED = "enlarged to 224, as in OpenMixup's CIFAR-100 benchmark of transformers"
_POOLFORMER = "3x3 stem of stride 1, as PoolFormer's in OpenMixup's configs of cifar100/advanced"
_STRIDES = "its first two strides of 2 become 1"

BACKBONES: dict[str, BackboneRow] = {
    "alexnet": BackboneRow(
        model="alexnet",
        module="bocb_tune.backbones.alexnet",
        family="classical",
        params_m=61.101,
        macs_g=0.714,
        source=_TORCHVISION,
        small="enlarged to 224; OpenMixup's AlexNet takes nothing else",
    ),
    "vgg13": BackboneRow(
        model="vgg13_bn",
        family="classical",
        params_m=133.054,
        macs_g=11.308,
        source=_TORCHVISION,
        small="one linear layer in place of three, as pytorch-cifar's VGG",
        reshape="bocb_tune.backbones.small:vgg",
    ),
    "resnet50": BackboneRow(
        model="resnet50",
        family="classical",
        params_m=25.557,
        macs_g=4.089,
        source=_TORCHVISION,
        small="3x3 stem of stride 1, no pooling, as OpenMixup's ResNet_CIFAR",
        reshape="bocb_tune.backbones.small:resnet",
    ),
    "resnet101": BackboneRow(
        model="resnet101",
        family="classical",
        params_m=44.549,
        macs_g=7.801,
        source=_TORCHVISION,
        small="3x3 stem of stride 1, no pooling, as OpenMixup's ResNet_CIFAR",
        reshape="bocb_tune.backbones.small:resnet",
    ),
    "densenet121": BackboneRow(
        model="densenet121",
        family="classical",
        params_m=7.979,
        macs_g=2.834,
        source=_TORCHVISION,
        small="3x3 stem of stride 1, no pooling, as OpenMixup's DenseNet_CIFAR",
        reshape="bocb_tune.backbones.small:densenet",
    ),
    "mobilenetv2": BackboneRow(
        model="mobilenetv2_100",
        family="classical",
        params_m=3.505,
        macs_g=0.301,
        source=_TORCHVISION,
        small=f"{_STRIDES}, as pytorch-cifar's MobileNetV2",
        reshape="bocb_tune.backbones.small:inverted_residuals",
    ),
    "efficientnet_b0": BackboneRow(
        model="efficientnet_b0",
        family="classical",
        params_m=5.289,
        macs_g=0.386,
        source=_TORCHVISION,
        small=f"{_STRIDES}; our choice, as MobileNetV2's",
        reshape="bocb_tune.backbones.small:inverted_residuals",
    ),
    "repvgg_a1": BackboneRow(
        model="repvgg_a1",
        family="classical",
        params_m=14.09,
        macs_g=2.64,
        source="OpenMixup, configs/classification/imagenet/repvgg (its branches apart, as while training)",
        small=f"{_STRIDES}; our choice, as MobileNetV2's",
        reshape="bocb_tune.backbones.small:repvgg",
    ),
    "deit_small": BackboneRow(
        model="deit_small_patch16_224",
        family="modern",
        params_m=22.1,
        macs_g=4.6,
        source="timm model card of deit_small_patch16_224",
        small=_ENLARGED,
    ),
    "mlp_mixer_small": BackboneRow(
        model="mixer_s16_224",
        family="modern",
        params_m=18.53,
        macs_g=3.777,
        source="timm, results/benchmark-infer-amp-nhwc-pt112-cu113-rtx3090.csv; multiplications derived",
        small="enlarged to 224, as in OpenMixup's configs of cifar100/advanced",
        no_maps="it mixes the 14 x 14 patches of 224 pixels and no other number of them",
    ),
    "swin_tiny": BackboneRow(
        model="swin_tiny_patch4_window7_224",
        family="modern",
        params_m=28.288,
        macs_g=4.491,
        source=_TORCHVISION,
        small=_ENLARGED,
    ),
    "convnext_tiny": BackboneRow(
        model="convnext_tiny",
        family="modern",
        params_m=28.589,
        macs_g=4.456,
        source=_TORCHVISION,
        small="3x3 stem of stride 1, as OpenMixup's ConvNeXt_CIFAR",
        reshape="bocb_tune.backbones.small:convnext",
    ),
    "convnextv2_tiny": BackboneRow(
        model="convnextv2_tiny",
        family="modern",
        params_m=28.6,
        macs_g=4.47,
        source="arXiv:2301.00808, table of facebookresearch/ConvNeXt-V2",
        small="3x3 stem of stride 1; our choice, as ConvNeXt's",
        reshape="bocb_tune.backbones.small:convnext",
    ),
    "moganet_small": BackboneRow(
        model="moganet_small",
        module="bocb_tune.backbones.moganet",
        family="modern",
        params_m=25.3,
        macs_g=4.97,
        source="arXiv:2211.03295, table of Westlake-AI/MogaNet",
        small=f"{_STRIDES}, as OpenMixup's MogaNet_CIFAR",
        reshape="bocb_tune.backbones.small:pyramid",
    ),
    "unireplknet_tiny": BackboneRow(
        model="unireplknet_tiny",
        module="bocb_tune.backbones.unireplknet",
        family="modern",
        params_m=31.0,
        macs_g=4.9,
        source="arXiv:2311.15599, table of AILab-CVC/UniRepLKNet (its branches merged, as it is not while training)",
        small=f"{_STRIDES}; our choice, as MogaNet's",
        reshape="bocb_tune.backbones.small:pyramid",
    ),
    "transnext_tiny": BackboneRow(
        model="transnext_tiny",
        module="bocb_tune.backbones.transnext",
        family="modern",
        params_m=28.2,
        macs_g=5.7,
        source="arXiv:2311.17132, table of DaiShiResearch/TransNeXt",
        small="enlarged to 224; our choice, as Swin-T",
    ),
    "identityformer_s12": BackboneRow(
        model="identityformer_s12",
        module="bocb_tune.backbones.metaformer",
        family="metaformer",
        params_m=11.9,
        macs_g=1.8,
        source=_METAFORMER,
        small=_POOLFORMER,
        reshape="bocb_tune.backbones.small:metaformer",
    ),
    "poolformerv2_s12": BackboneRow(
        model="poolformerv2_s12",
        family="metaformer",
        params_m=11.9,
        macs_g=1.8,
        source=_METAFORMER,
        small=_POOLFORMER,
        reshape="bocb_tune.backbones.small:metaformer",
    ),
    "convformer_s12": BackboneRow(
        model="convformer_s12",
        module="bocb_tune.backbones.metaformer",
        family="metaformer",
        params_m=19.527,
        macs_g=2.706,
        source=_S12,
        small=_POOLFORMER,
        reshape="bocb_tune.backbones.small:metaformer",
    ),
    "attentionformer_s12": BackboneRow(
        model="attentionformer_s12",
        module="bocb_tune.backbones.metaformer",
        family="metaformer",
        params_m=19.201,
        macs_g=5.59,
        source=_S12,
        small=_POOLFORMER,
        reshape="bocb_tune.backbones.small:metaformer",
    ),
    "caformer_s12": BackboneRow(
        model="caformer_s12",
        module="bocb_tune.backbones.metaformer",
        family="metaformer",
        params_m=19.239,
        macs_g=2.816,
        source=_S12,
        small=_POOLFORMER,
        reshape="bocb_tune.backbones.small:metaformer",
    ),
}
