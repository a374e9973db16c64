"""Object detection by RetinaNet (arXiv:1708.02002): torchvision's head, anchors and pyramid on any backbone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from bocb_tune.backbones.features import FeatureMaps, MapPyramid, OnMaps
from bocb_tune.core.types import TrialSpec
from bocb_tune.data.coco.dataset import Coco
from bocb_tune.tasks import TASKS
from bocb_tune.tasks.average_precision import PrecisionTask
from bocb_tune.tasks.scenes import Detector, Ready, boxes_of, build_training
from bocb_tune.training.context import Context
from bocb_tune.training.loop import Training

STRIDES = TASKS["detection"].strides
"""Strides of the maps taken of a backbone: P3 to P5; P6 and P7 follow from them (section 4)."""
LEVELS = (8, 16, 32, 64, 128)
OCTAVES = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))
"""Sizes of anchors at a level, in units of the smallest (section 4)."""
RATIOS = (0.5, 1.0, 2.0)


class Detection(PrecisionTask):
    """The task; `options` of its row say the size of the images, of the anchors and of the pyramid."""

    def training(self, trial: TrialSpec, context: Context) -> Training:
        return build_training(trial, context, RETINANET)


class Retina(OnMaps, RetinaNet):  # type: ignore[misc]
    """torchvision's RetinaNet, with what timm's tools ask of a model."""

    maps_at = "backbone.maps"


def retinanet(maps: FeatureMaps, dataset: Coco, options: Mapping[str, Any]) -> nn.Module:
    """Build RetinaNet on a backbone."""
    channels = options["channels"]
    pyramid = MapPyramid(maps, STRIDES, channels, LastLevelP6P7(channels, channels))
    model = Retina(pyramid, num_classes=dataset.num_classes, anchor_generator=anchors(options["anchor_scale"]))
    model.transform = Ready(dataset)
    return model


def anchors(scale: float) -> AnchorGenerator:
    """Build the anchors: at each level the smallest of an aspect ratio is `scale` strides wide."""
    sizes = tuple(tuple(int(scale * stride * octave) for octave in OCTAVES) for stride in LEVELS)
    return AnchorGenerator(sizes, (RATIOS,) * len(sizes))


RETINANET = Detector(strides=STRIDES, build=retinanet, kinds=("bbox",), results=boxes_of)
