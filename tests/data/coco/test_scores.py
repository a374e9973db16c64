"""Average precision: what pycocotools says of the same results by hand, exactly, from one rank and from two."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bocb_tune.data.coco.scores import COLUMNS, average_precision, ground_truth
from bocb_tune.tasks.average_precision import AveragePrecision, merged
from bocb_tune.training.context import Ranks
from tests.data.coco.made import by_hand, guesses, image, make_coco, shapes, thing, without
from tests.data.coco.made import load_coco as load
from tests.support.processes.ranks import on_two_ranks

KINDS = ("bbox", "segm", "keypoints")
SIGMAS = {"keypoints": (0.05, 0.1, 0.07, 0.03)}
DRAWN = {"images": 1, "held_out": 24, "image_size": 96}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "shared"
    home.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(home))


def expected(stats: np.ndarray, kind: str) -> dict[str, float]:
    """Statistics of pycocotools under our names, in points; those of no object are -1 there."""
    return {name: 100 * float(stats[at]) for name, at in COLUMNS[kind].items() if stats[at] >= 0}


def scorer_of(kind: str) -> AveragePrecision:
    part = shapes(**DRAWN).images("val", masks=kind == "segm").part
    return AveragePrecision(part=part, kinds=(kind,), sigmas=SIGMAS.get(kind))


def scored(kind: str, ranks: Ranks, folder: Path) -> dict[str, float]:
    """Scores of made-up results, of which each rank has its images; the first one is a rank's that has it twice."""
    found = guesses(shapes(**DRAWN), 5, kind)
    scorer = scorer_of(kind)
    for place, (image_id, results) in enumerate(found.items()):
        if place % ranks.world_size == ranks.rank or place == 0:
            scorer.add(image_id, results)
    if ranks.rank == 0:
        dumped = [result for results in found.values() for result in results]
        (folder / f"{kind}.json").write_text(json.dumps(dumped))
    return scorer.scores(ranks)


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_those_of_pycocotools_by_hand(kind: str, tmp_path: Path) -> None:
    found = scored(kind, Ranks(), tmp_path)
    file = shapes(**DRAWN).parts["val"].annotations.path
    stats = by_hand(file, tmp_path / f"{kind}.json", kind, SIGMAS.get(kind))
    assert found == expected(stats, kind)
    assert 1 < found["ap"] < 99  # neither nothing nor all is found


def rank_main(ranks: Ranks, folder: Path) -> None:
    """One of two ranks: leaves its scores in `folder`."""
    import tempfile

    tempfile.tempdir = str(folder / "shared")
    (folder / f"{ranks.rank}.json").write_text(json.dumps({kind: scored(kind, ranks, folder) for kind in KINDS}))


def test_two_ranks_score_what_one_does(tmp_path: Path) -> None:
    on_two_ranks(rank_main, tmp_path)
    one = {kind: scored(kind, Ranks(), tmp_path) for kind in KINDS}
    assert [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)] == [one, one]


def test_results_are_merged_by_image() -> None:
    first, second = {4: [{"score": 0.1}], 9: [{"score": 0.2}]}, {4: [{"score": 0.3}], 1: [{"score": 0.4}]}
    assert [result["score"] for result in merged([first, second])] == [0.4, 0.1, 0.2]


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_found_scores_nothing(kind: str) -> None:
    assert scorer_of(kind).scores(Ranks()) == {"ap": 0, "ap50": 0, "ap75": 0}


def perfect(dataset: Any) -> list[dict[str, Any]]:
    images = dataset.images("val")
    found = []
    for target in map(images.target, range(len(images))):
        for label, (x, y, right, bottom) in zip(target["labels"].tolist(), target["boxes"].tolist(), strict=True):
            entry = {"image_id": target["image_id"], "category_id": dataset.category_ids[label], "score": 0.5}
            found.append(entry | {"bbox": [x, y, right - x, bottom - y]})
    return found


def test_what_a_file_leaves_unsaid_does_not_keep_it_from_being_scored(tmp_path: Path) -> None:
    bare = [without(thing(0, number), "id", "area", "iscrowd") for number in (1, 2)]
    dataset = load("coco", make_coco(tmp_path, [image(1), image(2)], bare), "cpu")
    part = dataset.parts["val"]
    found = average_precision(ground_truth(part), perfect(dataset), "bbox", image_ids=[1, 2])
    assert found == pytest.approx({"ap": 100, "ap50": 100, "ap75": 100, "ap_small": 100})


def test_images_that_are_not_there_do_not_count(tmp_path: Path) -> None:
    options = make_coco(tmp_path, [image(1), image(2)], [thing(1, 1), thing(2, 2)])
    (tmp_path / "val2017" / "2.png").unlink()
    dataset = load("coco", options, "cpu")
    scorer = AveragePrecision(part=dataset.parts["val"], kinds=("bbox",))
    scorer.add(1, [result for result in perfect(dataset) if result["image_id"] == 1])
    assert scorer.scores(Ranks())["ap"] == pytest.approx(100)
