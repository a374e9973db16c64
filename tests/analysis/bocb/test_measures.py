"""The paper's measures give its printed numbers on its tables, known ones on planted grids, and refusals elsewhere."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy.stats import rankdata, spearmanr

from bocb_tune.analysis.bocb.choices import Choices
from bocb_tune.analysis.bocb.claims import GREY, TableVerdict, published_table, resampled
from bocb_tune.analysis.bocb.claims_of_paper import paper_claims
from bocb_tune.analysis.bocb.computation import computation_of, pareto_front
from bocb_tune.analysis.bocb.distance import distances, is_grid, mean_distances, steps_of
from bocb_tune.analysis.bocb.failures import by_equation, by_median, refusal
from bocb_tune.analysis.bocb.planned import contrast_of, paper_class, planned_contrasts
from bocb_tune.analysis.bocb.ranking import WeightedRanking, rank_optimizers, weighted_total
from bocb_tune.analysis.bocb.training_loss import LossStory, loss_story
from bocb_tune.analysis.core.bootstrap import Refused
from bocb_tune.analysis.core.estimate import Estimate, Reason
from bocb_tune.analysis.matrix.cells import summarise_cells
from bocb_tune.analysis.sources import paper
from bocb_tune.analysis.sources.table import CURVE_COLUMNS, Source, TrialTable, make_table
from bocb_tune.core.types import Objective

Matrix = NDArray[np.float64]
RANKING = paper.ranking().set_index("optimizer")
WEIGHTS = {"performance": 0.4, "settings": 0.2, "coupling": 0.2, "computation": 0.2}


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def known(estimate: Estimate) -> float:
    assert estimate.value is not None, estimate.reason
    return estimate.value


def test_failures_of_the_published_table() -> None:
    grid = published_table("cifar100")
    marks = paper.marks("cifar100")
    grey = marks[marks["mark"].isin(GREY)]
    as_marked = np.zeros(grid.values.shape, bool)
    for backbone, optimizer in zip(grey["backbone"], grey["optimizer"], strict=True):
        as_marked[grid.backbones.index(backbone), grid.place(optimizer)] = True
    found = by_median(grid.values)
    assert by_equation(grid.values, 3.0).sum() == 258
    assert as_marked.sum() == 50
    assert ((found & as_marked).sum(), (found & ~as_marked).sum()) == (49, 2)


def test_failures_by_hand() -> None:
    values = np.array([[10.0, 9.5, 9.0, 8.5, 1.0], [5.0, 5.0, 5.0, 5.0, 5.0], [9.0, np.nan, 8.9, np.nan, 1.0]])
    assert by_equation(values, 3.0).tolist() == [[False, False, False, True, True], [False] * 5, [False] * 5]
    assert by_median(values).tolist() == [[False, False, False, False, True], [False] * 5, [False] * 5]
    assert refusal(values, in_points=False) is Reason.NOT_IN_POINTS
    assert refusal(values[:, :3], in_points=True) is Reason.TOO_FEW_OPTIMIZERS


def published_places() -> tuple[Matrix, Matrix, tuple[str, ...]]:
    frame = paper.settings()
    lr, decay = (frame.pivot(index="backbone", columns="optimizer", values=name) for name in ("lr", "wd"))
    return lr.to_numpy(float), decay.to_numpy(float), tuple(lr.columns)


def test_distances_are_those_of_the_published_ranks() -> None:
    """By the mode of each optimizer; by the mode of each backbone, as the text has it, hardly."""
    lr, decay, optimizers = published_places()
    steps = steps_of((lr, decay), (lr.ravel(), decay.ravel()), 1.0)
    ranks = [RANKING["settings"][name] for name in optimizers]
    of_optimizers, of_backbones = (distances(steps, axis).mean(axis=0) for axis in (0, 1))
    assert spearmanr(of_optimizers, ranks).statistic == pytest.approx(0.90, abs=0.005)
    assert spearmanr(of_backbones, ranks).statistic == pytest.approx(0.276, abs=0.001)
    assert np.median(distances(steps, 0)) == 1.0


def test_overall_rank_follows_from_the_published_parts() -> None:
    """In the order of the table where sums are equal."""
    total = weighted_total({name: RANKING[name].to_numpy(float) for name in WEIGHTS}, WEIGHTS)
    assert (rankdata(total, method="ordinal") == RANKING["overall"]).sum() == 16
    assert (rankdata(total, method="min") == RANKING["overall"]).sum() == 17


def test_performance_ranks_are_those_of_the_means() -> None:
    grid = published_table("cifar100")
    own = rankdata(-grid.values.mean(axis=0))
    assert spearmanr(own, [RANKING["performance"][name] for name in grid.optimizers]).statistic == pytest.approx(
        0.97, abs=0.005
    )


def test_the_mark_is_a_failure_somewhere_for_eighteen_of_twenty() -> None:
    grid = published_table("cifar100")
    marks = by_median(grid.values).any(axis=0)
    published = [bool(RANKING["coupling"][name]) for name in grid.optimizers]
    assert {n for n, own, his in zip(grid.optimizers, marks, published, strict=True) if own != his} == {
        "AdaBelief",
        "RAdam",
    }


def test_distance_by_hand() -> None:
    lr = np.array([[0.1, 1.0], [0.1, 1.0], [0.1, 0.01], [1.0, 1.0]])
    decay = np.zeros((4, 2))
    steps = steps_of((lr, decay), (np.array([0.01, 0.1, 1.0]), np.array([0.0])), 1.0)
    assert distances(steps, 0).tolist() == [[0, 0], [0, 0], [0, 2], [1, 0]]
    assert distances(steps, 1).tolist() == [[0, 1], [0, 1], [1, 0], [0, 0]]
    found = mean_distances(steps, rng())
    assert [known(each) for each in found.optimizers] == [0.25, 0.5]
    assert [each.reason for each in found.backbones] == [Reason.TOO_FEW_OPTIMIZERS] * 4
    assert found.optimizers[0].lo == 0.0
    assert known(found.optimizers[0]) < (found.optimizers[0].hi or 0)


def test_continuous_settings_are_counted_in_steps_of_equal_ratio() -> None:
    lr = np.array([[1e-3, 1e-2, 1e-1, np.nan]])
    decay = np.array([[1e-2, 0.0, 1e-2, 1e-2]])
    steps = steps_of((lr, decay), None, 1 / 3)
    np.testing.assert_array_equal(steps.lr, [[-9, -6, -3, np.nan]])
    assert steps.weight_decay.tolist() == [[-6, -7, -6, -6]]


def test_a_grid_is_few_values_used_often() -> None:
    assert is_grid(np.array([0.1, 0.2, 0.5]), 12)
    assert not is_grid(np.arange(24.0), 30)
    assert not is_grid(np.arange(50.0), 1000)


def planted(cells: list[dict[str, Any]]) -> TrialTable:
    same = {"phase": "search", "status": "completed"}
    trials = pd.DataFrame([{**same, "trial": str(number), **cell} for number, cell in enumerate(cells)])
    return make_table(
        trials,
        pd.DataFrame(columns=CURVE_COLUMNS),
        objective=Objective(metric="top1", unit="points", floor=1.0),
        source=Source(kind="run", name="planted", sha256=""),
    )


def grid_of(function: Any, backbones: int = 4, optimizers: tuple[str, ...] = ("sgd", "adamw", "lion")) -> TrialTable:
    return planted(
        [
            {"backbone": f"b{b}", "optimizer": name, "lr": 0.1, "weight_decay": 0.0, **function(b, o)}
            for b in range(backbones)
            for o, name in enumerate(optimizers)
        ]
    )


def test_computation_is_relative_to_sgd() -> None:
    table = grid_of(lambda b, o: {"score": 50.0, "step_s": (1 + b) * (1 + o / 2), "state_mib": 10.0 * (1 + o)})
    found = computation_of(table)
    assert found.reference == "sgd"
    assert [known(each) for each in found.step] == pytest.approx([1.0, 2.0, 1.5])  # in the order of the table of names
    assert [known(each) for each in found.state] == pytest.approx([1.0, 3.0, 2.0])
    assert table.optimizers == ("sgd", "lion", "adamw")
    assert found.total.tolist() == pytest.approx([1.0, 2.5, 1.75])
    nothing = computation_of(grid_of(lambda _, __: {"score": 50.0}))
    assert {each.reason for each in nothing.step} == {Reason.NOT_MEASURED}


def test_nothing_beats_what_is_on_the_front() -> None:
    score, cost = np.array([80.0, 79, 81, 70, np.nan]), np.array([1.0, 1, 2, 0.5, 0.1])
    assert pareto_front(score, cost).tolist() == [True, False, True, True, False]


def ranking_of(values: Matrix, weights: tuple[float, ...] = tuple(WEIGHTS.values())) -> WeightedRanking | Refused:
    steps = steps_of((np.full(values.shape, np.nan),) * 2, None, 1.0)
    failed = np.zeros(values.shape, bool)
    return rank_optimizers(values, failed, steps, np.full(values.shape[1], np.nan), weights, rng())


def test_a_part_that_is_not_known_leaves_its_weight_to_the_others() -> None:
    found = ranking_of(np.array([[3.0, 2, 1]] * 5))
    assert isinstance(found, WeightedRanking)
    assert found.left_out == ("settings", "computation")
    assert found.weights == pytest.approx({"performance": 2 / 3, "coupling": 1 / 3})
    assert found.overall.tolist() == [1, 2, 3]
    assert found.p_first.tolist() == [1, 0, 0]
    none = ranking_of(np.array([[3.0, 2, 1]] * 5), (0, 1, 0, 1))
    assert isinstance(none, Refused)
    assert none.reason is Reason.NOT_MEASURED


def test_equal_scores_share_the_first_place() -> None:
    found = ranking_of(np.full((4, 2), 60.0))
    assert isinstance(found, WeightedRanking)
    assert found.overall.tolist() == [1, 1]
    assert found.p_first.tolist() == [0.5, 0.5]


def test_few_complete_backbones_are_not_ranked() -> None:
    values = np.array([[3.0, 2], [3, 2], [3, np.nan]])
    found = ranking_of(values)
    assert isinstance(found, Refused)
    assert "2 of 3" in found.detail


def test_the_first_is_as_sure_as_its_backbones_are_alike() -> None:
    """One backbone of five decides: it is drawn at least once with probability 1 - .8 ** 5."""
    values = np.array([[10.0, 0.0]] + [[0.0, 1.0]] * 4)
    found = ranking_of(values)
    assert isinstance(found, WeightedRanking)
    assert found.p_first[0] == pytest.approx(1 - 0.8**5, abs=0.04)


def test_classes_are_the_papers() -> None:
    assert [paper_class(name) for name in ("AlexNet", "R-50", "CAF-12", "mine")] == [
        "primary CNN",
        "classical CNN",
        "modern",
        "other",
    ]


def test_a_planted_contrast_is_found_and_corrected() -> None:
    backbones = ("resnet50", "densenet121", "mobilenetv2", "repvgg_a1", "swin_tiny", "convnext_tiny", "deit_small")
    optimizers = ("sgd", "sgdp", "adamw", "adam")
    values = rng().normal(70, 0.1, (7, 4))
    values[:4, :2] += 5
    found = {(each.category, each.where): each for each in planned_contrasts(values, backbones, optimizers, rng())}
    each = found["fixed lr, momentum gradient", "classical CNN"]
    assert known(each.psi) == pytest.approx(5, abs=0.3)
    assert each.psi.lo is not None
    assert each.psi.lo > 4
    assert each.p == pytest.approx(1 / 35)
    assert each.p_holm is not None
    assert each.p_holm > 1 / 35
    assert found["fixed lr, momentum gradient", "primary CNN"].psi.reason is Reason.TOO_FEW_BACKBONES
    assert found["adaptive lr, current gradient", "modern"].psi.reason is Reason.TOO_FEW_OPTIMIZERS
    values[0, 0] = np.nan
    assert planned_contrasts(values, backbones, optimizers, rng())[1].psi.reason is Reason.INCOMPLETE_MATRIX
    only = planned_contrasts(values, backbones, ("sgd", "sgdp", "lion", "sgd"), rng())
    assert {each.psi.reason for each in only} == {Reason.TOO_FEW_OPTIMIZERS}


def test_a_contrast_needs_two_on_each_side() -> None:
    inside = np.array([True, False, False])
    estimate, p = contrast_of(np.arange(3.0), inside, ~inside, rng())
    assert (estimate.reason, p) == (Reason.TOO_FEW_BACKBONES, None)


def test_training_loss_of_the_same_story() -> None:
    table = grid_of(lambda b, o: {"score": 50.0 + b + 3 * o, "train_loss": 10 ** -(1 + b / 10 + o / 5)})
    found = loss_story(table, summarise_cells(table), rng())
    assert isinstance(found, LossStory)
    assert known(found.agreement) == 1.0
    assert found.best_alike == (4, 4)
    assert known(found.share) == pytest.approx(0, abs=1e-9)
    np.testing.assert_allclose(found.values[0], [1.0, 1.4, 1.2])


def test_training_loss_of_another_story() -> None:
    table = grid_of(lambda b, o: {"score": 50.0 + b + 3 * o, "train_loss": 10.0 ** (o / 5 + (b * o) % 2)})
    found = loss_story(table, summarise_cells(table), rng())
    assert isinstance(found, LossStory)
    assert known(found.agreement) < 0
    assert known(found.share) > 0.1


def test_without_a_training_loss_there_is_no_story() -> None:
    table = grid_of(lambda _, __: {"score": 50.0})
    found = loss_story(table, summarise_cells(table), rng())
    assert isinstance(found, Refused)
    assert found.reason is Reason.NOT_MEASURED


@pytest.mark.parametrize(
    "wrong",
    [
        {"gap": 0.0},
        {"step": -1.0},
        {"weights": (1.0,)},
        {"weights": (0.0,) * 4},
        {"weights": (1, 1, 1, -1)},
        {"components": 0},
    ],
)
def test_choices_without_meaning_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"--{next(iter(wrong))}"):
        replace(Choices(), **wrong)


def test_verdicts_on_the_points() -> None:
    found = {point.statement: point for claim in paper_claims() for point in claim.points}
    verdicts = {statement: str(point.verdict) for statement, point in found.items()}
    assert [claim.number for claim in paper_claims()] == list(range(1, 12))
    assert verdicts["No failure by the grey marks"] == "supports"
    assert "9 of 21" in found["No failure by Eq. 1 as printed"].evidence
    assert verdicts["DeiT-S with LARS is marked as a failure"] == "contradicts"
    assert "8.31 points" in found["DeiT-S with SGD-M is marked as a failure"].evidence
    assert verdicts["CAF-12 has a low distance"] == "cannot tell"
    assert "1.15 steps" in found["R-50 has a low distance"].evidence
    assert verdicts["MetaFormers spread less than the other modern backbones"] == "cannot tell"
    assert verdicts["DeiT-S spreads more than R-50"] == "supports"
    assert verdicts["AdamW is among the first 3 on cifar100"] == "cannot tell"
    assert sum(verdict == "supports" for verdict in verdicts.values()) == 25
    assert sum(verdict == "contradicts" for verdict in verdicts.values()) == 3


def test_a_share_of_replicates_is_judged_at_both_ends() -> None:
    shares = {share: resampled("s", "e", share, "of").verdict for share in (0.95, 0.94, 0.06, 0.05)}
    assert list(shares.values()) == [
        TableVerdict.supports,
        TableVerdict.cannot_tell,
        TableVerdict.cannot_tell,
        TableVerdict.contradicts,
    ]
