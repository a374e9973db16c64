"""Keypoints of a data set: their names, which of them a mirror swaps, and how exactly each can be placed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bocb_tune.core.names import listed, unknown
from bocb_tune.data.coco.annotations import Annotations

COCO_SIGMAS: dict[str, float] = {
    "nose": 0.026,
    "left_eye": 0.025,
    "right_eye": 0.025,
    "left_ear": 0.035,
    "right_ear": 0.035,
    "left_shoulder": 0.079,
    "right_shoulder": 0.079,
    "left_elbow": 0.072,
    "right_elbow": 0.072,
    "left_wrist": 0.062,
    "right_wrist": 0.062,
    "left_hip": 0.107,
    "right_hip": 0.107,
    "left_knee": 0.087,
    "right_knee": 0.087,
    "left_ankle": 0.089,
    "right_ankle": 0.089,
}
"""Spread of where people place each keypoint of COCO, in units of the object's size (https://cocodataset.org, keypoint
evaluation; as in pycocotools' `Params.setKpParams`)."""

SIDES = (("left", "right"), ("right", "left"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Joints:
    """Keypoints that a model finds."""

    names: tuple[str, ...]
    mirrored: tuple[int, ...]
    """Place of the keypoint that each becomes in a mirrored image."""
    sigmas: tuple[float, ...]
    labels: tuple[int, ...]
    """Classes that have these keypoints."""


def joints_of(annotations: Annotations, options: Mapping[str, Any]) -> Joints:
    """Return the keypoints of a data set.

    Args:
        annotations: of the training split.
        options: of the task: `sigmas` and `flip_pairs`, None where they are to be known from the names.

    Raises:
        ValueError: naming the file, if it has no keypoints or not the same for all classes, or the option that is
            missing or wrong.
    """
    named = {label: names for label, names in enumerate(annotations.keypoint_names) if names}
    if not named or not annotations.keypoints.any():
        file = "person_keypoints_train2017.json" if "instances" in annotations.path.name else "another file"
        raise ValueError(
            f"{annotations.path}: no category has 'keypoints' that some annotation labels, and the task 'pose' learns "
            f"these; name a file that holds them by the data set's options, such as {file}"
        )
    (first, names), *others = named.items()
    for label, other in others:
        if other != names:
            raise ValueError(
                f"{annotations.path}: the keypoints of categories {annotations.classes[first]!r} and "
                f"{annotations.classes[label]!r} differ, and one model finds the same of all; keep categories alike"
            )
    return Joints(
        names=names,
        mirrored=_mirrored(names, options["flip_pairs"]),
        sigmas=_sigmas(names, options["sigmas"]),
        labels=tuple(named),
    )


def _sigmas(names: Sequence[str], given: Sequence[float] | None) -> tuple[float, ...]:
    if given is None and tuple(names) == tuple(COCO_SIGMAS):
        return tuple(COCO_SIGMAS.values())
    if given is None:
        raise ValueError(
            f"task 'pose' knows how exactly COCO's 17 keypoints can be placed, and not the {len(names)} of this data "
            f"set ({listed(names, 6)}); give its option sigmas, a number for each in this order, such as 0.05 (COCO's "
            "are 0.025 for an eye to 0.107 for a hip)"
        )
    if len(given) != len(names):
        raise ValueError(
            f"option 'sigmas' of task 'pose' has {len(given)} numbers; this data set has {len(names)} keypoints "
            f"({listed(names, 6)}), so give as many"
        )
    return tuple(map(float, given))


def _mirrored(names: Sequence[str], pairs: Sequence[Sequence[str]] | None) -> tuple[int, ...]:
    partners = _named_pairs(names) if pairs is None else {}
    if pairs is None and not partners:
        raise ValueError(
            f"the keypoints ({listed(names, 6)}) do not say by 'left' and 'right' in their names which of them a "
            "mirror swaps; give the option flip_pairs of task 'pose', such as [[a, b]], or [] if none"
        )
    for pair in pairs or ():
        for name, other in (pair, pair[::-1]):
            if name not in names:
                raise unknown("keypoint in option 'flip_pairs' of task 'pose'", name, names)
            if partners.setdefault(name, other) != other:
                raise ValueError(f"option 'flip_pairs' of task 'pose' names {name!r} twice; a mirror swaps it once")
    return tuple(names.index(partners.get(name, name)) for name in names)


def _named_pairs(names: Sequence[str]) -> dict[str, str]:
    """Return the keypoint on the other side of each that has a side in its name."""
    others = {name: name.replace(side, other) for name in names for side, other in SIDES if side in name}
    return {name: other for name, other in others.items() if other in names}
