"""The published tables must give the published-table numbers, to half a unit of the last digit."""

from __future__ import annotations

import csv
from pathlib import Path

import orjson
import pytest

from bocb_tune.analysis.findings.collect import Findings, find
from bocb_tune.analysis.findings.metrics_file import refused_in_all, to_json
from bocb_tune.analysis.sources.load import load
from bocb_tune.analysis.sources.table import SourceError

GOLDEN = Path(__file__).parents[2] / "golden"


@pytest.fixture(scope="module")
def cifar100() -> Findings:
    return find(load("paper:cifar100"))


def test_cifar100_decomposition(cifar100: Findings) -> None:
    parts = cifar100.decomposition
    assert parts is not None
    assert parts.mean == pytest.approx(77.3632, abs=5e-5)
    sums = (parts.ss_backbone, parts.ss_optimizer, parts.ss_interaction)
    assert sums == pytest.approx((10066.9, 5634.2, 10357.4), abs=0.05)
    assert cifar100.interaction_share.value == pytest.approx(0.6477, abs=5e-5)
    assert cifar100.interaction_share_total.value == pytest.approx(0.3975, abs=5e-5)


def test_cifar100_concordance(cifar100: Findings) -> None:
    assert cifar100.ranks is not None
    assert cifar100.kendall_w.value == pytest.approx(0.4365, abs=5e-5)
    assert cifar100.ranks.chi2 == pytest.approx(165.9, abs=0.05)
    assert cifar100.ranks.df == 19


def test_cifar100_margins(cifar100: Findings) -> None:
    """Means, best optimizers and mean ranks of every backbone and optimizer, as worked out independently."""
    found = to_json(cifar100)
    with (GOLDEN / "cifar100_margins.csv").open() as file:
        for row in csv.DictReader(file):
            entry = found[row["axis"]][row["name"]]
            assert entry["mean"] == pytest.approx(float(row["mean"]), abs=0.00501), row
            if row["axis"] == "backbones":
                assert entry["best_optimizer"] == row["best_optimizer"]
            else:
                assert entry["mean_rank"] == pytest.approx(float(row["mean_rank"]), abs=0.00501), row


@pytest.mark.parametrize(
    ("backbone", "optimizer", "points"),
    [
        ("Moga-S", "LARS", -43.20),
        ("URLK-T", "LARS", -34.88),
        ("CAF-12", "AdaGrad", -27.56),
        ("Moga-S", "AdaGrad", 16.39),
    ],
)
def test_cifar100_largest_interactions(cifar100: Findings, backbone: str, optimizer: str, points: float) -> None:
    cell = to_json(cifar100)["cells"][f"{backbone}/{optimizer}"]
    assert cell["interaction"]["value"] == pytest.approx(points, abs=0.005)


def test_an_unreplicated_share_says_that_it_includes_noise(cifar100: Findings) -> None:
    share = to_json(cifar100)["grid"]["interaction_share"]
    assert share["method"] == "plug-in, includes noise"
    assert (share["lo"], share["hi"], share["reason"]) == (None, None, "TOO_FEW_REPLICATES")


def test_imagenet_has_too_few_backbones() -> None:
    findings = find(load("paper:imagenet"))
    assert findings.matrix.shape == (2, 20)
    assert findings.interaction_share.reason == "TOO_FEW_BACKBONES"
    assert findings.interaction_share.value is None
    assert findings.best is not None


def test_coco_columns() -> None:
    findings = find(load("paper:coco"))
    assert findings.matrix.shape == (11, 20)
    assert findings.kendall_w.value == pytest.approx(0.717, abs=5e-4)
    assert findings.interaction_share_total.value == pytest.approx(0.118, abs=5e-4)


def test_what_every_cell_is_refused_is_said_once(cifar100: Findings) -> None:
    """The published tables have one trial a cell: nothing of a landscape is known of any."""
    values = to_json(cifar100)
    once = values["refused_in_every_cell"]
    assert once["lr_star"]["reason"] == "NOT_SEARCHED"
    assert once["search"]["observed"]["4"]["status"] == "refused"
    whole = {key for key, value in once.items() if "status" in value}
    assert [key for cell in values["cells"].values() for key in cell if key in whole] == []
    assert len(orjson.dumps(values)) < 1_000_000


def test_what_one_cell_is_refused_stays_with_it() -> None:
    refused, known = {"status": "refused", "reason": "R", "n_trials": 1}, {"status": "ok", "value": 1.0}
    cells = [{"a": refused | {"n_trials": n}, "b": known if n else refused, "c": {"d": refused}} for n in range(3)]
    once = {"status": "refused", "reason": "R"}
    assert refused_in_all(cells) == {"a": once, "c": {"d": once}}
    assert cells == [{"b": known if n else refused, "c": {}} for n in range(3)]
    assert refused_in_all(cells[:1]) == {}


def test_an_unknown_table_names_the_nearest() -> None:
    with pytest.raises(
        SourceError, match=r"paper:cifar10: .*known: cifar100, imagenet, coco.*did you mean paper:cifar100"
    ):
        load("paper:cifar10")
