"""The tasks there are: a literal table, and nothing imported before it is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bocb_tune.backbones.table import FULL
from bocb_tune.core.names import unknown
from bocb_tune.data import image_size
from bocb_tune.tasks.base import Task

Rule = tuple[Callable[[Any, Mapping[str, Any]], bool], str]
"""Whether a value of an option is valid beside the other options, and what it must be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRow:
    """One task."""

    target: str
    """`module:Class`, a class that takes no arguments and is a `Task`."""
    description: str
    takes: str
    """Kind of data that it takes (`holds` of its row in `bocb_tune.data.DATASETS`)."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Each option with its default."""
    rules: Mapping[str, Rule] = field(default_factory=dict)
    """Rule of each option that does not take every value."""
    strides: tuple[int, ...] = ()
    """Strides of the feature maps that it takes of a backbone; empty where it takes logits."""
    ignores: tuple[str, ...] = ()
    """Fields of a recipe that have no effect on it, and so must stand at their default."""
    examples: str = ""
    """`module:function` that counts what it is trained on, given dataset, its options and the task's, where this is not
    images; it raises ValueError if it cannot be trained on these data."""
    once: str = ""
    """Operator of its models that has no second derivative; empty where all have one."""

    @property
    def has_models(self) -> bool:
        """Whether it trains models, which can begin with weights of another training."""
        return self.takes != "landscapes"

    @property
    def has_maps(self) -> bool:
        """Whether it takes feature maps of a backbone, of images of any size, and not its logits."""
        return bool(self.strides)


OF_LABELS = (
    *("label_smoothing", "loss", "mixup", "cutmix", "switch_prob", "rand_augment", "rand_augment_std"),
    *("rand_augment_layers", "erase", "crop_min_area", "color_jitter", "eval_crop", "interpolation", "image_size"),
)
"""Fields of a recipe that act on images with one label each, or on images cropped to a square."""
OF_ONE_SHAPE = ("compile", "compile_mode", "grad_checkpointing")
"""Fields of a recipe that act on networks whose shapes do not change from batch to batch."""


def _at_least(least: float) -> Rule:
    return lambda value, _: value >= least, f"at least {least:g}"


_ON_SCENES: dict[str, Any] = {"shorter": 800, "longer": 1333, "shorter_from": 0, "channels": 256}
_RULES_ON_SCENES: dict[str, Rule] = {
    "shorter": _at_least(32),
    "longer": (lambda value, options: value >= options["shorter"], "at least as large as shorter"),
    "shorter_from": (
        lambda value, options: value == 0 or 32 <= value < options["shorter"],
        "0 (no multi-scale training), or at least 32 and below shorter",
    ),
    "channels": (lambda value, _: value >= 8, "at least 8"),
    "anchor_scale": _at_least(1),
}
"""Options of the tasks on whole images: side in pixels that the shorter side of an image becomes, unless the longer one
would become larger than that; least shorter side in training; channels of the feature pyramid; side of the smallest
anchors, in strides of their level. Of segmentation alone: boxes that the first stage proposes of an image in
validation, twice as many in training; boxes of an image that the second stage learns from."""

_SIDE: Rule = (lambda value, _: value >= 32 and value % 32 == 0, "a multiple of 32 pixels")
_RULES_OF_POSE: dict[str, Rule] = {
    "height": _SIDE,
    "width": _SIDE,
    "channels": _at_least(8),
    "sigma": (lambda value, _: 0 < value <= 8, "above 0, and 8 pixels of a heat map at most"),
    "scale": (lambda value, _: 0 <= value < 1, "0 (off) or below 1"),
    "turn": (lambda value, _: 0 <= value <= 90, "0 (off) to 90 degrees"),
    "flip_pairs": (
        lambda value, _: value is None or _are_lists(value, str, 2),
        "pairs of names of keypoints, such as [[left_eye, right_eye]]",
    ),
    "sigmas": (
        lambda value, _: value is None or (_are_numbers(value) and min(value) > 0),
        "a list of positive numbers, one for each keypoint",
    ),
}
"""Options of the task `pose`: height and width of a crop in pixels; channels of the deconvolutions; standard deviation
of a peak in pixels of the heat map, which is a fourth as large; variation of scale and turn (degrees) in training;
whether to average with mirrored images in validation; keypoints that a mirror swaps, None: by `left` and `right` in
their names; how exactly each can be placed, None: as COCO's 17."""


def _are_lists(value: Any, kind: type, length: int) -> bool:
    return isinstance(value, list) and all(
        isinstance(one, list) and len(one) == length and all(isinstance(each, kind) for each in one) for one in value
    )


def _are_numbers(value: Any) -> bool:
    return isinstance(value, list) and value != [] and all(type(one) in (int, float) for one in value)


TASKS: dict[str, TaskRow] = {
    "classification": TaskRow(
        target="bocb_tune.tasks.classification:Classification",
        description="image classification; score: top-1 accuracy on the validation split, in points",
        takes="labelled images",
    ),
    "detection": TaskRow(
        target="bocb_tune.tasks.detection:Detection",
        description="object detection by RetinaNet; score: average precision of boxes (COCO's AP), in points",
        takes="annotated images",
        strides=(8, 16, 32),
        options={**_ON_SCENES, "anchor_scale": 4.0},
        rules=_RULES_ON_SCENES,
        ignores=(*OF_LABELS, *OF_ONE_SHAPE),
    ),
    "segmentation": TaskRow(
        target="bocb_tune.tasks.segmentation:Segmentation",
        description="instance segmentation by Mask R-CNN; score: average precision of masks (COCO's AP), in points",
        takes="annotated images",
        strides=(4, 8, 16, 32),
        options={**_ON_SCENES, "anchor_scale": 8.0, "proposals": 1000, "rois": 512},
        rules={**_RULES_ON_SCENES, "proposals": _at_least(16), "rois": _at_least(4)},
        ignores=(*OF_LABELS, *OF_ONE_SHAPE),
        once="RoIAlign",
    ),
    "pose": TaskRow(
        target="bocb_tune.tasks.pose.task:Pose",
        description="keypoints in heat maps of each object's box; score: AP by object keypoint similarity, in points",
        takes="annotated images",
        strides=(32,),
        options={
            **{"height": 256, "width": 192, "channels": 256, "sigma": 2.0, "scale": 0.3, "turn": 40.0},
            **{"flip_test": True, "flip_pairs": None, "sigmas": None},
        },
        rules=_RULES_OF_POSE,
        examples="bocb_tune.tasks.pose.task:count_objects",
        ignores=(*OF_LABELS, *OF_ONE_SHAPE),
    ),
    "synthetic": TaskRow(
        target="bocb_tune.tasks.synthetic:Synthetic",
        description="analytic landscapes with a known optimum, noise, crossing curves and a divergence cliff",
        takes="landscapes",
        options={"noise": 0.5, "epoch_s": 0.0},
    ),
}


def count_examples(row: TaskRow, dataset: str, options: Mapping[str, Any], task_options: Mapping[str, Any]) -> int:
    """Count what a task with `examples` is trained on; options as given.

    Raises:
        ValueError: if it cannot be trained on these data.
    """
    module, attribute = row.examples.split(":")
    count: int = getattr(importlib.import_module(module), attribute)(dataset, options, {**row.options, **task_options})
    return count


def seen_size(task: str, dataset: str, options: Mapping[str, Any], wanted: int = 0) -> int:
    """Return height and width in pixels of the images that a backbone is built for; 0 if there are none.

    Args:
        task: its name; backbones that give maps of images of any size are built for FULL.
        dataset: its name.
        options: those given of the dataset.
        wanted: the size that a recipe asks for, if it does.
    """
    return FULL if TASKS[task].has_maps else image_size(dataset, options, wanted)


def get_task(name: str) -> Task:
    """Return the task called `name`.

    Raises:
        ValueError: with the nearest name, if there is none.
    """
    if name not in TASKS:
        raise unknown("task", name, TASKS)
    module, attribute = TASKS[name].target.split(":")
    task: Task = getattr(importlib.import_module(module), attribute)()
    return task
