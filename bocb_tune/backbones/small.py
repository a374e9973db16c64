"""Changes to a fresh model so that small images are not shrunk to nothing: CIFAR stems, or larger images.

All with a new stem but VGG lose their first reduction by 4, so that images of 32 pixels end as features of 4 x 4. New
layers are initialised as their family initialises its own.
"""

from __future__ import annotations

from typing import Any

from timm.layers import ClassifierHead
from torch import Tensor, nn
from torch.nn import functional


def resize(model: nn.Module, size: int) -> None:
    """Have the model resize its images [batch, channels, height, width] to `size` pixels, bicubically.

    By a hook rather than a module around it: parameters keep their names, and timm's tools still know the model.
    """

    def resized(_: nn.Module, inputs: tuple[Tensor]) -> Tensor:
        return functional.interpolate(inputs[0], size=(size, size), mode="bicubic", antialias=inputs[0].shape[2] > size)

    model.register_forward_pre_hook(resized)


def resnet(model: Any) -> None:
    """Give a 3 x 3 stem of stride 1 without pooling (timm's ResNet)."""
    model.conv1, model.maxpool = _stem(model.conv1), nn.Identity()
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")


def densenet(model: Any) -> None:
    """Give a 3 x 3 stem of stride 1, and nothing after it: each dense layer begins with a norm (timm's DenseNet)."""
    features = model.features
    features.conv0, features.norm0, features.pool0 = _stem(features.conv0), nn.Identity(), nn.Identity()
    nn.init.kaiming_normal_(features.conv0.weight)


def convnext(model: Any) -> None:
    """Give a 3 x 3 stem of stride 1 (timm's ConvNeXt, V1 and V2)."""
    model.stem[0] = _truncated_normal(_stem(model.stem[0]))


def metaformer(model: Any) -> None:
    """Give a 3 x 3 stem of stride 1 (timm's MetaFormer)."""
    model.stem.conv = _truncated_normal(_stem(model.stem.conv))


def inverted_residuals(model: Any) -> None:
    """Give stem and second stage stride 1 (timm's EfficientNet, which MobileNetV2 is one of)."""
    _unstride(model.conv_stem, model.blocks[1][0].conv_dw)


def repvgg(model: Any) -> None:
    """Give stem and first stage stride 1 (timm's RepVGG)."""
    for block in (model.stem, model.stages[0][0]):
        _unstride(block.conv_kxk.conv, block.conv_1x1.conv)


def pyramid(model: Any) -> None:
    """Give both convolutions of the stem stride 1 (MogaNet and UniRepLKNet)."""
    _unstride(*(layer for layer in model.stages[0].embed if isinstance(layer, nn.Conv2d)))


def vgg(model: Any) -> None:
    """Take logits straight from the pooled features: the three layers for 7 x 7 of them would see copies
    (timm's VGG)."""
    model.pre_logits = nn.Identity()
    model.head = ClassifierHead(model.num_features, model.num_classes)
    model.head_hidden_size = model.num_features
    nn.init.normal_(model.head.fc.weight, std=0.01)
    nn.init.zeros_(model.head.fc.bias)


def _stem(conv: nn.Conv2d) -> nn.Conv2d:
    return nn.Conv2d(conv.in_channels, conv.out_channels, 3, padding=1, bias=conv.bias is not None)


def _truncated_normal(conv: nn.Conv2d) -> nn.Conv2d:
    nn.init.trunc_normal_(conv.weight, std=0.02)
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    return conv


def _unstride(*convolutions: nn.Conv2d) -> None:
    for convolution in convolutions:
        assert convolution.stride == (2, 2)
        convolution.stride = (1, 1)
