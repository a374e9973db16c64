"""Every shipped optimizer and backbone, one row per name: its family or class, its colour and marker, its other names.

Families and classes are declared before looking at any result. Optimizers: the four groups of arXiv:2410.06373,
section 2. Backbones: classical convolutional networks; MetaFormers (arXiv:2210.13452: one block layout, the token mixer
exchanged); all later ones are modern. A family or class has its range of hues, within which the colours were placed as
far apart as they go in CIELAB; markers go round by lightness, so that equal markers are told apart in grey.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

FIXED_LR = "fixed lr, momentum gradient"
ADAPTIVE_LR = "adaptive lr, momentum gradient"
ESTIMATED_LR = "estimated lr, momentum gradient"
PLAIN_GRADIENT = "adaptive lr, current gradient"
CLASSICAL, MODERN, METAFORMER = "classical", "modern", "metaformer"
PRIMARY, ISOTROPIC = frozenset({"alexnet", "vgg13"}), frozenset({"deit_small", "mlp_mixer_small"})
"""Keys of the classical networks before residual connections, and of the modern ones of one resolution throughout, as
arXiv:2410.06373 has them."""
ATTENTION = frozenset({"attentionformer_s12", "caformer_s12"})
"""Keys of the MetaFormers whose token mixer is attention, in some stages at least."""
OTHER = "other"
"""Family or class of a name that is not known, and of optimizers that the paper does not place."""


@dataclass(frozen=True, slots=True)
class Name:
    """One optimizer or backbone."""

    key: str
    """Name in experiment files."""
    group: str
    """Family of an optimizer, class of a backbone."""
    color: str
    """Hex colour in figures."""
    marker: str
    """Matplotlib marker in figures."""
    aliases: tuple[str, ...] = ()
    """Other names: the paper's abbreviation, the usual spelling, timm's model."""


def plain(name: str) -> str:
    """Strip a name of case, spaces and punctuation: `SGD-M` and `sgd_m` are one."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


# fmt: off
OPTIMIZERS: tuple[Name, ...] = (
    Name("sgd", FIXED_LR, "#14467a", "^", ("SGD-M",)),
    Name("sgdp", FIXED_LR, "#58c4f7", "o"),
    Name("lion", FIXED_LR, "#248ef2", "D"),
    Name("adam", ADAPTIVE_LR, "#fe7664", "<"),
    Name("adamax", ADAPTIVE_LR, "#f7820c", ">"),
    Name("nadam", ADAPTIVE_LR, "#e9af7d", "D"),
    Name("adamw", ADAPTIVE_LR, "#920624", "v"),
    Name("lamb", ADAPTIVE_LR, "#8a751a", "d"),
    Name("radam", ADAPTIVE_LR, "#6c3402", "D"),
    Name("adamp", ADAPTIVE_LR, "#e81303", "X"),
    Name("adan", ADAPTIVE_LR, "#deb717", "s"),
    Name("adabound", ESTIMATED_LR, "#1ebeb8", "*"),
    Name("lars", ESTIMATED_LR, "#236801", "p"),
    Name("adafactor", ESTIMATED_LR, "#006549", ">"),
    Name("adabelief", ESTIMATED_LR, "#11bf78", "p"),
    Name("novograd", ESTIMATED_LR, "#7fc03e", "X"),
    Name("sophia", ESTIMATED_LR, "#95b57a", "P", ("Sophia-H",)),
    Name("adagrad", PLAIN_GRADIENT, "#c5b8b9", "^"),
    Name("adadelta", PLAIN_GRADIENT, "#473c3b", "o"),
    Name("rmsprop", PLAIN_GRADIENT, "#707c80", "o"),
    Name("ademamix", OTHER, "#ff226e", "s"),
    Name("cautious_adamw", OTHER, "#1438c6", "<", ("C-AdamW",)),
    Name("mars", OTHER, "#b282fe", "v"),
    Name("muon", OTHER, "#a75c76", "P"),
    Name("prodigy", OTHER, "#b5117c", "*"),
    Name("schedulefree_adamw", OTHER, "#5f267e", "s", ("AdamW-ScheduleFree",)),
    Name("schedulefree_sgd", OTHER, "#ef4be3", "^", ("SGD-ScheduleFree",)),
    Name("soap", OTHER, "#ff94e0", "d"),
)
BACKBONES: tuple[Name, ...] = (
    Name("alexnet", CLASSICAL, "#1479c6", "s"),
    Name("vgg13", CLASSICAL, "#3f2e88", "<", ("vgg13_bn",)),
    Name("resnet50", CLASSICAL, "#1d6eef", "o", ("R-50",)),
    Name("resnet101", CLASSICAL, "#147282", "d", ("R-101",)),
    Name("densenet121", CLASSICAL, "#0fc9fa", "d", ("DN-121",)),
    Name("mobilenetv2", CLASSICAL, "#9e99bd", "<", ("MobV2", "mobilenetv2_100")),
    Name("efficientnet_b0", CLASSICAL, "#473c5c", "*", ("Eff-B0",)),
    Name("repvgg_a1", CLASSICAL, "#b79dfe", "p", ("RVGG-A1",)),
    Name("deit_small", MODERN, "#fb221f", "^", ("DeiT-S", "deit_small_patch16_224")),
    Name("mlp_mixer_small", MODERN, "#f3801f", ">", ("MLP-S", "MLP-Mixer-S", "mixer_s16_224")),
    Name("swin_tiny", MODERN, "#d8ae0b", "*", ("Swin-T", "swin_tiny_patch4_window7_224")),
    Name("convnext_tiny", MODERN, "#ddaa71", "P", ("CNX-T", "ConvNeXt-T")),
    Name("convnextv2_tiny", MODERN, "#f63f6a", "v", ("CNXV2-T", "ConvNeXtV2-T")),
    Name("moganet_small", MODERN, "#850305", ">", ("Moga-S", "MogaNet-S")),
    Name("unireplknet_tiny", MODERN, "#b4636b", "D", ("URLK-T", "UniRepLKNet-T")),
    Name("transnext_tiny", MODERN, "#754c04", "P", ("TNX-T", "TransNeXt-T")),
    Name("identityformer_s12", METAFORMER, "#8ac649", "X", ("IF-12",)),
    Name("poolformerv2_s12", METAFORMER, "#1c6801", "X", ("PFV2-12",)),
    Name("convformer_s12", METAFORMER, "#0ad39a", "s", ("CF-12",)),
    Name("attentionformer_s12", METAFORMER, "#314725", "p", ("AF-12",)),
    Name("caformer_s12", METAFORMER, "#9dc2a4", "o", ("CAF-12",)),
)
# fmt: on

CLASS_OF_BEGINNING: dict[str, tuple[str, ...]] = {
    CLASSICAL: ("alexnet", "vgg", "resnet", "densenet", "mobilenetv2", "efficientnet", "repvgg"),
    MODERN: ("deit", "vit", "mlpmixer", "mixer", "swin", "convnext", "moganet", "unireplknet", "transnext"),
    METAFORMER: ("identityformer", "poolformer", "convformer", "attentionformer", "randformer", "caformer"),
}
"""Beginnings of the names, timm's, of other sizes of the same architectures."""
