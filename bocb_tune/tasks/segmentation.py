"""Instance segmentation by Mask R-CNN (arXiv:1703.06870): torchvision's heads, anchors and pyramid on any backbone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import paste_masks_in_image
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from bocb_tune.backbones.features import FeatureMaps, MapPyramid, OnMaps
from bocb_tune.core.types import TrialSpec
from bocb_tune.data.coco.dataset import Coco
from bocb_tune.data.coco.outlines import outline_of
from bocb_tune.tasks import TASKS
from bocb_tune.tasks.average_precision import PrecisionTask
from bocb_tune.tasks.scenes import Detector, Found, Ready, boxes_of, build_training
from bocb_tune.training.context import Context
from bocb_tune.training.loop import Training

STRIDES = TASKS["segmentation"].strides
"""Strides of the maps taken of a backbone: P2 to P5."""
LEVELS = (4, 8, 16, 32, 64)
RATIOS = (0.5, 1.0, 2.0)
BOX_MAP = 7
"""Height and width of the map that boxes are judged by (arXiv:1703.06870, section 3)."""
HIDDEN = 4
"""Width of the two hidden layers of the box head, in units of the pyramid's channels: 1024 of 256."""
PASTED = 64
"""Masks put into the image at a time: each is as large as that."""


class Segmentation(PrecisionTask):
    """The task; `options` of its row say the size of the images, of the anchors and of the pyramid."""

    def training(self, trial: TrialSpec, context: Context) -> Training:
        return build_training(trial, context, MASK_RCNN)


class MaskNet(OnMaps, MaskRCNN):  # type: ignore[misc]
    """torchvision's Mask R-CNN, with what timm's tools ask of a model."""

    maps_at = "backbone.maps"


def mask_rcnn(maps: FeatureMaps, dataset: Coco, options: Mapping[str, Any]) -> nn.Module:
    """Build Mask R-CNN on a backbone; with 256 channels all is as torchvision has it."""
    channels, classes, proposals = options["channels"], 1 + dataset.num_classes, options["proposals"]
    hidden = HIDDEN * channels
    model = MaskNet(
        MapPyramid(maps, STRIDES, channels, LastLevelMaxPool()),
        rpn_anchor_generator=anchors(options["anchor_scale"]),
        rpn_pre_nms_top_n_train=2 * proposals,
        rpn_pre_nms_top_n_test=proposals,
        rpn_post_nms_top_n_train=2 * proposals,
        rpn_post_nms_top_n_test=proposals,
        box_batch_size_per_image=options["rois"],
        box_head=TwoMLPHead(channels * BOX_MAP**2, hidden),
        box_predictor=FastRCNNPredictor(hidden, classes),
        mask_head=MaskRCNNHeads(channels, (channels,) * 4, 1),
        mask_predictor=MaskRCNNPredictor(channels, channels, classes),
    )
    model.transform = Ready(dataset)
    return model


def anchors(scale: float) -> AnchorGenerator:
    """Build the anchors: one size a level, `scale` strides wide (arXiv:1612.03144, section 4.1)."""
    return AnchorGenerator(tuple((int(scale * stride),) for stride in LEVELS), (RATIOS,) * len(LEVELS))


def masks_of(found: Found, size: tuple[int, int]) -> list[dict[str, Any]]:
    """Write boxes and masks as COCO's results have them: masks as run lengths of the whole image."""
    parts = [part for part in torch.split(torch.arange(len(found["boxes"])), PASTED) if len(part)]
    encoded = [one for part in parts for one in _encoded(found["masks"][part], found["boxes"][part], size)]
    return [box | {"segmentation": mask} for box, mask in zip(boxes_of(found, size), encoded, strict=True)]


def _encoded(maps: Tensor, boxes: Tensor, size: tuple[int, int]) -> list[dict[str, Any]]:
    """Put maps [n, 1, m, m] of boxes into an image, and encode them."""
    pasted = (paste_masks_in_image(maps, boxes, size)[:, 0] > 0.5).to(torch.uint8)
    return [outline_of(each.numpy()) for each in pasted]


MASK_RCNN = Detector(strides=STRIDES, build=mask_rcnn, kinds=("segm", "bbox"), first_label=1, results=masks_of)
