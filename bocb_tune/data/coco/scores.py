"""Average precision of detected boxes, masks and keypoints by pycocotools, in points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from bocb_tune.data.coco.json_lists import parsed
from bocb_tune.data.coco.outlines import quiet
from bocb_tune.data.coco.parts import AnnotatedPart

if TYPE_CHECKING:
    from pycocotools.coco import COCO

Kind = Literal["bbox", "segm", "keypoints"]
Result = dict[str, Any]
"""One detection as in COCO's format of results: `image_id`, `category_id`, `score`, and `bbox` (x, y, width, height),
`segmentation` (run lengths) or `keypoints`."""

FORMS: dict[Kind, str] = {"bbox": "bbox", "segm": "segmentation", "keypoints": "keypoints"}
"""Key of what is scored in a result; pycocotools takes an area from a box where a result has one beside its mask."""
COLUMNS: dict[Kind, dict[str, int]] = {
    "bbox": {"ap": 0, "ap50": 1, "ap75": 2, "ap_small": 3, "ap_medium": 4, "ap_large": 5},
    "segm": {"ap": 0, "ap50": 1, "ap75": 2, "ap_small": 3, "ap_medium": 4, "ap_large": 5},
    "keypoints": {"ap": 0, "ap50": 1, "ap75": 2, "ap_medium": 3, "ap_large": 4},
}
"""Place of each metric in `COCOeval.stats`."""


def ground_truth(part: AnnotatedPart) -> COCO:
    """Return the annotation file of a part as pycocotools has it, with what it needs and the file leaves unsaid.

    Every annotation is in it, also those that nothing is trained on, so that scores are those of the file; only those
    without an outline are not, where outlines were read.
    """
    from pycocotools.coco import COCO

    content = parsed(part.annotations.path.read_bytes(), part.annotations.path)
    known = {image["id"] for image in content["images"]}
    outlined = part.annotations.outlines is not None
    rows = [
        row for row in content["annotations"] if row["image_id"] in known and (row.get("segmentation") or not outlined)
    ]
    numbered = all("id" in row for row in rows)
    for number, row in enumerate(rows, start=1):
        row["id"] = row["id"] if numbered else number
        row.setdefault("area", row["bbox"][2] * row["bbox"][3])
        row.setdefault("iscrowd", 0)
        if "keypoints" in row:
            row.setdefault("num_keypoints", sum(visibility > 0 for visibility in row["keypoints"][2::3]))
    truth = COCO()
    truth.dataset = content | {"annotations": rows}
    with quiet():
        truth.createIndex()
    return truth


def average_precision(
    truth: COCO,
    results: Sequence[Mapping[str, Any]],
    kind: Kind,
    *,
    image_ids: Sequence[int],
    category_ids: Sequence[int] | None = None,
    sigmas: Sequence[float] | None = None,
) -> dict[str, float]:
    """Score detections, in points; a metric that no object of the truth is of (`ap_small` ...) is left out.

    Args:
        truth: of `ground_truth`.
        results: detections of all images, in COCO's format of results.
        kind: what overlap is taken of: boxes, masks or keypoints.
        image_ids: images that count.
        category_ids: categories that count; None: all.
        sigmas: spread of each keypoint in units of the object's size; None: those of COCO's 17.
    """
    from pycocotools.cocoeval import COCOeval

    counted = set(image_ids)
    keys = ("image_id", "category_id", "score", FORMS[kind])
    # copies, as pycocotools writes into them
    own = [{key: result[key] for key in keys} for result in results if result["image_id"] in counted]
    if not own:
        return dict.fromkeys(("ap", "ap50", "ap75"), 0.0)
    with quiet():
        scorer = COCOeval(truth, truth.loadRes(own), kind)
        scorer.params.imgIds = sorted(counted)
        if category_ids is not None:
            scorer.params.catIds = sorted(category_ids)
        if sigmas is not None:
            scorer.params.kpt_oks_sigmas = np.array(sigmas)
        scorer.evaluate()
        scorer.accumulate()
        scorer.summarize()
    found = {name: float(scorer.stats[at]) for name, at in COLUMNS[kind].items()}
    return {name: 100 * value for name, value in found.items() if value >= 0}
