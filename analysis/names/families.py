"""Families of optimizers and classes of backbones, declared before looking at any result.

Optimizers: the four groups of arXiv:2410.06373, section 2. Backbones: classical convolutional networks; MetaFormers
(arXiv:2210.13452: one block layout, the token mixer exchanged); all later ones are modern.
"""

from __future__ import annotations

import re

FIXED_LR = "fixed lr, momentum gradient"
ADAPTIVE_LR = "adaptive lr, momentum gradient"
ESTIMATED_LR = "estimated lr, momentum gradient"
PLAIN_GRADIENT = "adaptive lr, current gradient"
CLASSICAL, MODERN, METAFORMER = "classical", "modern", "metaformer"
OTHER = "other"
"""Of a name that is not known."""

_OPTIMIZERS = {
    FIXED_LR: ("sgd", "sgdm", "sgdp", "lion"),
    ADAPTIVE_LR: ("adam", "adamax", "nadam", "adamw", "lamb", "radam", "adamp", "adan"),
    ESTIMATED_LR: ("adabound", "lars", "adafactor", "adabelief", "novograd", "sophia"),
    PLAIN_GRADIENT: ("adagrad", "adadelta", "rmsprop"),
}
_BACKBONES = {
    CLASSICAL: (
        *("alexnet", "vgg", "r50", "r101", "resnet", "dn121", "densenet"),
        *("mobv2", "mobilenetv2", "effb0", "efficientnet", "rvgg", "repvgg"),
    ),
    MODERN: (
        *("deit", "vit", "mlps", "mlpmixer", "mixer", "swin", "cnx", "convnext", "mogas", "moganet"),
        *("urlk", "unireplknet", "tnx", "transnext"),
    ),
    METAFORMER: (
        *("if12", "identityformer", "pfv2", "poolformer", "cf12", "convformer"),
        *("af12", "attentionformer", "randformer", "caf12", "caformer"),
    ),
}
"""How names begin, those of the paper's tables and of timm."""

SGD_FAMILY = ("sgd", "sgdm", "sgdp")
"""LION, though it too has a fixed lr, bounds each step by its sign: no gradient descent in the sense of the claim."""
ADAM_FAMILY = _OPTIMIZERS[ADAPTIVE_LR]


def plain(name: str) -> str:
    """A name without case, spaces and punctuation: `SGD-M` and `sgd_m` are one."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def optimizer_family(name: str) -> str:
    """Family of an optimizer, `other` if not known."""
    return next((family for family, names in _OPTIMIZERS.items() if plain(name) in names), OTHER)


def backbone_class(name: str) -> str:
    """Class of a backbone, `other` if not known."""
    return next((kind for kind, starts in _BACKBONES.items() if plain(name).startswith(starts)), OTHER)
