"""The published tables give the numbers they are known to give, to the digits stated, and the claims their verdicts."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import rankdata, spearmanr

from bocb_tune.analysis.core.estimate import Estimate, Reason
from bocb_tune.analysis.coupling.claims import claims
from bocb_tune.analysis.coupling.shares import coupling_indices, interaction_shares, line_shares
from bocb_tune.analysis.coupling.structure import (
    Version,
    generalisation,
    leave_one_out,
    null_singular_share,
    version,
    versions,
)
from bocb_tune.analysis.coupling.viable import failures, floored, led_by_failures, median_polish, viable_coupling
from bocb_tune.analysis.matrix.concordance import agreement, agreement_by_class, concordance, critical_difference
from bocb_tune.analysis.matrix.contrasts import Contrast, sgd_on_classical
from bocb_tune.analysis.matrix.standings import num_near_best, regret, spread, top
from bocb_tune.analysis.matrix.twoway import Matrix, decompose
from bocb_tune.analysis.names.look import backbone_class
from bocb_tune.analysis.names.table import METAFORMER
from bocb_tune.analysis.sources.paper import PUBLISHED, published
from bocb_tune.analysis.tuning.drift import drift, lr_variance, modal_setting

VERSIONS = """
all                             | 10066.9 | 5634.2 | 10357.4 | .3975 | .6477 | 5.356 | .600 |  .03 | .86
-AdaGrad                        |  9506.2 | 1111.5 |  5801.8 | .3533 | .8392 | 4.119 | .706 | 8.07 | .005
-AdaGrad,LARS                   |  9784.2 |  447.7 |  2042.5 | .1664 | .8202 | 2.515 | .617 | 2.28 | .13
-AdaGrad,AdaDelta,RMSProp       |  8476.3 | 1017.9 |  5303.1 | .3584 | .8390 | 4.177 | .768 | 9.52 | .002
floored                         | 11020.3 |  615.5 |   849.2 | .0680 | .5798 | 1.534 | .482 |  .56 | .46
logit                           |    33.3 |   13.3 |    23.1 | .3307 | .6338 |  .253 | .575 | 2.85 | .09
ranks                           |       0 | 5803.5 |  7491.6 | .5635 | .5635 | 4.555 | .425 |  nan | nan
"""
"""SS_backbone, SS_optimizer, SS_interaction, share of total, share of the optimizer's effect, rms interaction, share of
the first singular direction, Tukey's F and its p."""

BACKBONES = """
AlexNet  | 63.12 |  3.19 |  3.21 | 2.93 | 2.65 | 2.58 | 1 | 3.23 | 2.40 |  7.97 | Adamax 67.30    |  +3.07
VGG-13   | 74.78 |  3.58 |  2.42 | 1.89 | 1.56 | 1.39 | 0 | 0.87 | 1.24 |  4.26 | SGDP 77.56      |  +2.85
R-50     | 76.53 |  3.88 |  2.80 | 2.22 | 2.00 | 1.87 | 0 | 0.86 | 1.89 |  6.28 | AdaBelief 80.53 |  +3.03
DN-121   | 75.91 |  3.04 |  2.04 | 1.52 | 1.29 | 1.20 | 1 | 1.08 | 1.54 |  5.81 | Adan 79.33      |  +1.22
MobV2    | 73.82 |  6.49 |  2.27 | 1.77 | 1.52 | 1.41 | 1 | 1.26 | 1.70 |  7.50 | AdaBound 78.76  |  +0.97
Eff-B0   | 77.70 |  3.92 |  1.61 | 1.65 | 1.84 | 1.85 | 0 | 1.08 | 1.29 |  5.65 | AdaBound 79.88  |  +1.53
RVGG-A1  | 73.95 |  3.61 |  1.73 | 1.02 | 0.82 | 0.71 | 1 | 0.96 | 1.05 |  4.12 | AdamP 77.67     |  -0.21
DeiT-S   | 70.94 |  4.24 |  3.41 | 3.17 | 2.47 | 1.76 | 3 | 2.46 | 3.17 | 12.80 | Adan 76.33      |  -9.75
MLP-S    | 72.13 |  3.20 |  2.15 | 1.62 | 1.47 | 1.62 | 0 | 0.73 | 1.84 |  7.48 | LAMB 74.98      |  -2.68
Swin-T   | 80.67 |  2.90 |  1.72 | 0.90 | 1.04 | 1.12 | 0 | 1.07 | 1.32 |  5.95 | LAMB 83.47      |  -1.83
CNX-T    | 78.13 |  7.77 |  7.39 | 7.04 | 2.20 | 1.24 | 5 | 1.35 | 6.98 | 23.40 | Adan 84.65      | -22.27
CNXV2-T  | 81.48 |  4.19 |  1.35 | 0.69 | 0.59 | 0.56 | 1 | 0.38 | 0.97 |  3.03 | LAMB 84.93      |  -1.12
Moga-S   | 81.29 | 11.21 | 10.78 | 2.42 | 2.05 | 2.05 | 2 | 0.82 | 2.78 | 10.53 | Adan 86.46      |  -7.20
URLK-T   | 80.75 | 10.34 |  9.81 | 5.12 | 1.78 | 1.35 | 2 | 1.48 | 5.34 | 25.61 | Adan 86.75      |  -2.42
TNX-T    | 85.48 |  1.60 |  1.31 | 0.78 | 0.55 | 0.55 | 1 | 0.29 | 0.63 |  2.35 | AdamW 87.51     |  -0.71
IF-12    | 76.58 |  4.46 |  1.38 | 0.63 | 0.57 | 0.66 | 1 | 0.51 | 1.06 |  4.68 | Adan 80.59      |  -1.60
PFV2-12  | 77.57 |  4.72 |  1.55 | 0.93 | 1.07 | 1.22 | 1 | 1.48 | 1.61 |  6.83 | Adan 83.23      |  -2.92
CF-12    | 84.18 |  2.74 |  1.25 | 0.72 | 0.63 | 0.76 | 0 | 0.69 | 0.82 |  2.85 | Adan 85.58      |  -1.56
AF-12    | 81.96 |  3.14 |  1.56 | 1.12 | 0.84 | 0.69 | 0 | 0.79 | 0.91 |  3.79 | Adan 83.51      |  +0.74
CAF-12   | 80.31 |  6.83 |  1.56 | 0.92 | 0.86 | 0.90 | 1 | 0.44 | 1.10 |  5.30 | Adan 84.89      |  -1.80
"""
"""Mean; coupling: plain, without AdaGrad, without AdaGrad and LARS, floored, among viable cells; failures, scale of the
median polish, sd and range without the worst, best optimizer, SGD family against Adam family."""

OPTIMIZERS = """
SGD-M     | 76.89 |  -0.47 |  5.09 |  4.87 | 1.49 | 3 | 11.75 |  4 |  4.30 | 24.56
SGDP      | 77.18 |  -0.18 |  4.76 |  4.57 | 1.93 | 2 | 11.55 |  4 |  4.01 | 23.40
LION      | 78.38 |  +1.02 |  1.74 |  2.09 | 1.36 | 0 | 10.88 |  3 |  2.82 |  5.30
Adam      | 78.37 |  +1.01 |  1.68 |  1.78 | 0.87 | 0 | 12.18 |  0 |  2.83 |  5.98
Adamax    | 78.39 |  +1.03 |  1.65 |  1.85 | 1.43 | 0 | 11.70 |  1 |  2.81 |  5.81
NAdam     | 78.38 |  +1.01 |  1.74 |  1.82 | 1.23 | 0 | 10.97 |  1 |  2.82 |  6.81
AdamW     | 79.33 |  +1.97 |  1.93 |  2.00 | 0.97 | 0 |  6.28 |  7 |  1.86 |  4.97
LAMB      | 80.28 |  +2.92 |  1.48 |  1.59 | 0.80 | 0 |  3.48 | 14 |  0.91 |  3.34
RAdam     | 78.38 |  +1.02 |  1.66 |  1.74 | 0.73 | 0 | 11.47 |  0 |  2.82 |  5.61
AdamP     | 79.67 |  +2.30 |  2.23 |  2.24 | 1.43 | 0 |  5.45 | 11 |  1.53 |  7.03
Adan      | 80.55 |  +3.18 |  2.01 |  2.01 | 1.15 | 0 |  3.10 | 16 |  0.65 |  3.45
AdaBound  | 77.84 |  +0.47 |  2.58 |  2.35 | 2.28 | 1 | 11.40 |  4 |  3.36 | 12.69
LARS      | 72.53 |  -4.84 | 14.41 | 14.07 | 1.54 | 3 | 13.30 |  0 |  8.67 | 53.20
AdaFactor | 78.75 |  +1.39 |  1.80 |  1.98 | 0.81 | 0 |  9.93 |  2 |  2.44 |  5.12
AdaBelief | 79.45 |  +2.09 |  1.61 |  1.67 | 1.17 | 0 |  6.65 |  7 |  1.74 |  5.67
NovoGrad  | 77.75 |  +0.39 |  2.09 |  2.15 | 2.07 | 0 | 12.68 |  3 |  3.45 |  7.95
Sophia    | 78.87 |  +1.51 |  1.72 |  1.78 | 0.76 | 0 |  9.10 |  2 |  2.32 |  5.34
AdaGrad   | 62.71 | -14.66 | 15.48 |   nan | 2.03 | 9 | 18.55 |  0 | 18.49 | 46.80
AdaDelta  | 77.31 |  -0.05 |  2.17 |  2.08 | 1.40 | 2 | 13.75 |  1 |  3.88 | 10.89
RMSProp   | 76.25 |  -1.12 |  4.91 |  4.75 | 1.30 | 1 | 15.85 |  0 |  4.95 | 25.61
"""
"""Mean, main effect; coupling: plain, without AdaGrad, among viable cells; failures, mean rank, backbones in the top
four, mean and worst regret."""

SETTINGS = """
SGD-M     |    0.05 |  5 | 0.343 | 1.70 |   0.0001 |  9
SGDP      |     0.1 |  5 | 0.393 | 1.70 |   0.0001 | 11
LION      | 0.00005 |  6 | 0.250 | 1.00 | 0.000000 | 12
Adam      |  0.0005 |  6 | 0.236 | 0.70 | 0.000000 | 14
Adamax    |   0.001 |  7 | 0.179 | 0.70 |   0.0001 |  8
NAdam     |  0.0005 |  7 | 0.222 | 0.70 | 0.000000 | 13
AdamW     |  0.0005 |  8 | 0.213 | 0.78 |     0.05 | 14
LAMB      |   0.005 | 12 | 0.100 | 0.70 |     0.05 |  8
RAdam     |   0.001 |  6 | 0.300 | 1.00 | 0.000000 | 12
AdamP     |   0.001 |  5 | 0.279 | 0.70 |     0.05 | 10
Adan      |   0.002 |  6 | 0.263 | 1.00 |     0.05 | 10
AdaBound  |   0.005 |  4 | 0.744 | 1.70 |   0.0001 |  5
LARS      |     0.6 |  3 | 0.268 | 1.00 | 0.000001 | 11
AdaFactor |  0.0005 |  9 | 0.136 | 0.60 |     0.01 |  8
AdaBelief |   0.005 |  8 | 0.212 | 0.70 |     0.01 |  6
NovoGrad  |   0.002 |  6 | 0.212 | 0.60 | 0.000000 |  5
Sophia    |  0.0001 |  5 | 0.357 | 1.00 |      0.1 |  6
AdaGrad   |  0.0001 |  6 | 0.392 | 1.00 | 0.000000 |  7
AdaDelta  |       2 |  5 | 0.169 | 1.30 | 0.000000 | 11
RMSProp   |  0.0005 |  9 | 0.186 | 0.70 | 0.000000 | 13
"""
"""Most frequent lr, on how many of 14 backbones, mean and largest distance from it in decades; most frequent weight
decay, those up to 1e-6 being none, and on how many."""

VERDICTS = {
    "Classical convolutional networks couple with SGD": "yes",
    "CNX-T, Moga-S, URLK-T, DeiT-S are strongly coupled": "mostly",
    "TNX-T, CNXV2-T, CAF-12 are weakly coupled": "mostly",
    "Adan is robust": "yes",
    "LAMB is robust": "yes",
    "AdamW is robust": "partly",
    "AdaGrad gives trivial results": "yes",
    "RMSProp gives trivial results": "yes",
    "AdaDelta gives trivial results": "partly",
}
Names = tuple[str, ...]


@cache
def matrix(name: str) -> tuple[Matrix, Names, Names]:
    table = published(name)
    scores = table.trials.pivot(index="backbone", columns="optimizer", values="score")
    return scores.loc[list(table.backbones), list(table.optimizers)].to_numpy(), table.backbones, table.optimizers


def without(*names: str) -> Matrix:
    values, _, optimizers = matrix("cifar100")
    return values[:, [name not in names for name in optimizers]]


def rows(text: str) -> dict[str, list[str]]:
    cells = ([cell.strip() for cell in line.split("|")] for line in text.strip().splitlines())
    return {first: rest for first, *rest in cells}


def check(found: float | str | None, expected: str) -> None:
    """To half a unit of the last digit stated, or a hair more: a value may lie on the half."""
    if isinstance(found, str):
        assert found == expected
        return
    digits = len(expected.split(".")[1]) if "." in expected else 0
    assert found == pytest.approx(float(expected), abs=0.5001 * 10.0**-digits, rel=0, nan_ok=True)


def check_table(table: str, names: Names, columns: list[Any]) -> None:
    expected = rows(table)
    assert tuple(expected) == names
    for found, texts in zip(zip(*columns, strict=True), expected.values(), strict=True):
        for number, text in zip(found, texts, strict=True):
            check(number, text)


def column(estimates: tuple[Estimate, ...]) -> list[float | None]:
    assert all(estimate.reason is Reason.TOO_FEW_REPLICATES for estimate in estimates), "nothing was repeated"
    return [estimate.value for estimate in estimates]


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_versions_of_the_matrix() -> None:
    values, *_ = matrix("cifar100")
    scales = {"all" if each.name == "points" else each.name: each for each in versions(values, bounded=True)}
    for name, expected in rows(VERSIONS).items():
        found = version(name, without(*name[1:].split(","))) if name.startswith("-") else scales.pop(name)
        for number, text in zip(numbers(found), expected, strict=True):
            check(number, text)
    assert not scales


def numbers(found: Version) -> tuple[float, ...]:
    parts, tukey = found.parts, found.tukey
    squares = (parts.ss_backbone, parts.ss_optimizer, parts.ss_interaction)
    shares = (parts.share_of_total, parts.share_of_optimizer_effect, parts.rms_interaction, found.singular)
    return (*squares, *shares, tukey.f, tukey.p)


def test_backbones() -> None:
    values, backbones, optimizers = matrix("cifar100")
    failed, shape = failures(values), spread(values)
    contrast = sgd_on_classical(values, backbones, optimizers, rng())
    assert isinstance(contrast, Contrast)
    columns = [
        values.mean(axis=1),
        column(coupling_indices(values, None)[0]),
        column(coupling_indices(without("AdaGrad"), None)[0]),
        column(coupling_indices(without("AdaGrad", "LARS"), None)[0]),
        column(coupling_indices(floored(values), None)[0]),
        column(viable_coupling(values, failed, None)[0]),
        failed.sum(axis=1),
        median_polish(values).row_scale,
        shape.sd,
        shape.range,
        [f"{optimizers[row.argmax()]} {row.max():.2f}" for row in values],
        contrast.by_backbone,
    ]
    check_table(BACKBONES, backbones, columns)


def test_optimizers() -> None:
    values, _, optimizers = matrix("cifar100")
    failed, parts = failures(values), decompose(values)
    others = iter(column(coupling_indices(without("AdaGrad"), None)[1]))
    columns = [
        values.mean(axis=0),
        parts.optimizer,
        column(coupling_indices(values, None)[1]),
        [float("nan") if name == "AdaGrad" else next(others) for name in optimizers],
        column(viable_coupling(values, failed, None)[1]),
        failed.sum(axis=0),
        concordance(values).ranks.mean(axis=0),
        top(values).sum(axis=0),
        regret(values).mean(axis=0),
        regret(values).max(axis=0),
    ]
    check_table(OPTIMIZERS, optimizers, columns)


def test_published_settings() -> None:
    *_, optimizers = matrix("cifar100")
    settings = published_settings()
    references = [modal_setting(lr, decay) for lr, decay in settings]
    drifts = [drift(*pair, reference) for pair, reference in zip(settings, references, strict=True)]
    columns = [
        [reference.lr for reference in references],
        [np.sum(np.abs(each.lr) < 1e-9) for each in drifts],
        [each.mean_lr for each in drifts],
        [np.abs(each.lr).max() for each in drifts],
        [reference.weight_decay for reference in references],
        [np.sum(np.abs(each.weight_decay) < 1e-9) for each in drifts],
    ]
    check_table(SETTINGS, optimizers, columns)


@cache
def published_settings() -> list[tuple[Matrix, Matrix]]:
    """lr and weight decay of each optimizer [backbones with published settings and scores]."""
    _, backbones, optimizers = matrix("cifar100")
    frame = pd.read_csv(PUBLISHED / "cifar100_hyperparameters.csv").pivot(index="backbone", columns="optimizer")
    known = frame.loc[[name for name in backbones if name in frame.index]]
    assert len(known) == 14
    return [(known["lr"][name].to_numpy(), known["wd"][name].to_numpy()) for name in optimizers]


def test_learning_rates_vary_by_optimizer() -> None:
    found = lr_variance(np.column_stack([lr for lr, _ in published_settings()]))
    shares = 100 * np.array([found.optimizer, found.backbone, found.interaction])
    np.testing.assert_allclose(shares, [89.2, 2.6, 8.2], atol=0.05)
    check(found.rms_interaction, ".363")


def test_grid_is_led_by_failures() -> None:
    values, *_ = matrix("cifar100")
    check(values.mean(), "77.3632")
    share, total = interaction_shares(values, None, rng())
    assert (share.reason, share.lo, total.reason) == (Reason.TOO_FEW_REPLICATES, None, Reason.TOO_FEW_REPLICATES)
    polish = median_polish(values)
    check(polish.scale, ".9435")
    check(polish.l1_share, ".7088")
    plain, viable = coupling_indices(values, None)[0], viable_coupling(values, failures(values), None)[0]
    assert led_by_failures(plain, viable)
    assert not led_by_failures(viable, viable)
    check(spearmanr(column(plain), column(viable)).statistic, ".30")
    check(spearmanr(spread(values).sd, column(viable)).statistic, ".78")


@pytest.mark.parametrize(
    ("delta", "failed", "rms", "df", "share"),
    [(5, 63, "1.005", 298, ".663"), (10, 21, "1.384", 340, ".635"), (15, 15, "1.700", 346, ".708")],
)
def test_viable_cells(delta: float, failed: int, rms: str, df: int, share: str) -> None:
    values, *_ = matrix("cifar100")
    found = failures(values, delta=delta)
    parts = decompose(np.where(found, np.nan, values))
    assert (found.sum(), parts.df_interaction) == (failed, df)
    check(parts.rms_interaction, rms)
    check(parts.share_of_optimizer_effect, share)


def test_largest_cells() -> None:
    values, backbones, optimizers = matrix("cifar100")
    parts = decompose(values)
    expected = {
        ("Moga-S", "LARS"): "-43.20",
        ("URLK-T", "LARS"): "-34.88",
        ("CAF-12", "AdaGrad"): "-27.56",
        ("MobV2", "AdaGrad"): "-25.29",
        ("URLK-T", "RMSProp"): "-18.49",
        ("CNX-T", "SGD-M"): "-17.57",
        ("Moga-S", "AdaGrad"): "+16.39",
        ("Eff-B0", "AdaGrad"): "+14.89",
    }
    for (backbone, optimizer), text in expected.items():
        check(parts.interaction[backbones.index(backbone), optimizers.index(optimizer)], text)
    largest = np.sort(parts.interaction.ravel() ** 2)[::-1] / parts.ss_interaction
    assert (largest[0], largest[:20].sum()) == pytest.approx((0.18, 0.78), abs=0.005)
    of_optimizer = line_shares(parts)[1]
    assert of_optimizer[[optimizers.index(name) for name in ("AdaGrad", "LARS")]].sum() == pytest.approx(
        0.78, abs=0.005
    )


def test_share_elsewhere() -> None:
    """Resampled numbers to their simulation error."""
    values, _, optimizers = matrix("cifar100")
    found = generalisation(values, rng())
    assert (found.lo, found.hi) == pytest.approx((0.39, 0.89), abs=0.03)
    assert null_singular_share((20, 20), rng()) == pytest.approx(0.216, abs=0.004)
    by_backbone, by_optimizer = leave_one_out(values)
    named = dict(zip(optimizers, by_optimizer, strict=True))
    check(named.pop("LARS"), ".555")
    check(named.pop("AdaGrad"), ".839")
    for numbers, texts in ((list(named.values()), (".637", ".655")), (by_backbone, (".594", ".672"))):
        check(min(numbers), texts[0])
        check(max(numbers), texts[1])


def test_concordance_is_by_class() -> None:
    values, backbones, optimizers = matrix("cifar100")
    found = agreement(values, rng())
    check(found.value, ".4365")
    assert (found.lo, found.hi) == pytest.approx((0.36, 0.58), abs=0.03)
    assert "chi2 165.9 on 19 df" in found.method
    classes = agreement_by_class(values, [backbone_class(name) for name in backbones], rng())
    assert set(classes) == {"classical", "modern", METAFORMER}
    check(classes["classical"].within.value, ".559")
    check(classes["classical"].without.value, ".655")
    check(classes["classical"].between, ".20")
    check(classes[METAFORMER].within.value, ".708")
    check(classes[METAFORMER].without.value, ".383")
    difference = critical_difference(*values.shape)
    check(difference, "6.63")
    mean = dict(zip(optimizers, concordance(values).ranks.mean(axis=0), strict=True))
    tied = {name for name in mean if mean[name] - mean["Adan"] < difference}
    assert tied == {"Adan", "LAMB", "AdamP", "AdamW", "AdaBelief", "Sophia"}


def test_sgd_contrast() -> None:
    found = sgd_on_classical(*matrix("cifar100"), rng())
    assert isinstance(found, Contrast)
    check(found.inside, "+1.78")
    check(found.outside, "-4.24")
    check(found.psi.value, "6.02")
    assert (found.on_points.larger, found.on_ranks.larger, found.on_ranks.extreme) == (2, 3, 3)
    assert found.on_points.total == found.on_ranks.total == 77520
    check(found.on_points.p_two_sided, ".009")


def test_verdicts_on_the_claims_of_the_paper() -> None:
    found = claims(*matrix("cifar100"), rng())
    assert {claim.statement: str(claim.verdict) for claim in found} == VERDICTS
    assert "RVGG-A1 -0.21, AF-12 +0.74" in found[0].notes[0]


def test_claims_are_computed() -> None:
    """On a table with the optimizers' names turned around, the claims fail."""
    values, backbones, optimizers = matrix("cifar100")
    verdicts = {claim.statement: str(claim.verdict) for claim in claims(-values, backbones, optimizers, rng())}
    assert verdicts["Adan is robust"] == verdicts["AdaGrad gives trivial results"] == "no"
    assert verdicts["Classical convolutional networks couple with SGD"] == "no"


def test_imagenet_orders() -> None:
    values, backbones, optimizers = matrix("imagenet")
    deit, resnet = (values[backbones.index(name)] for name in ("DeiT-S", "R-50"))
    small, small_backbones, small_optimizers = matrix("cifar100")
    assert small_optimizers == optimizers
    check(spearmanr(deit, small[small_backbones.index("DeiT-S")]).statistic, ".64")
    check(spearmanr(resnet, small[small_backbones.index("R-50")]).statistic, ".16")
    check(spearmanr(deit, resnet).statistic, ".80")
    summed = rankdata(-values, axis=1).sum(axis=0)
    assert [optimizers[i] for i in np.argsort(summed)[:3]] == ["Adan", "AdamW", "LAMB"]


def test_coco() -> None:
    values, _, optimizers = matrix("coco")
    parts, ranks = decompose(values), concordance(values)
    total = parts.ss_backbone + parts.ss_optimizer + parts.ss_interaction
    check(ranks.w, ".717")
    for ss, text in zip(
        (parts.ss_backbone, parts.ss_optimizer, parts.ss_interaction), (".759", ".123", ".118"), strict=True
    ):
        check(ss / total, text)
    mean = dict(zip(optimizers, ranks.ranks.mean(axis=0), strict=True))
    expected = {"Adan": "3.0", "AdamW": "3.7", "AdamP": "4.8", "LAMB": "6.3", "SGD-M": "15.8", "AdaGrad": "18.0"}
    for name, text in expected.items():
        check(mean[name], text)
    check(mean["SGDP"], "18.05")


def test_near_best() -> None:
    values, *_ = matrix("cifar100")
    within = {points: num_near_best(values, points) for points in (0, 1, 2)}
    assert (within[0] >= 1).all()
    assert (within[1] <= within[2]).all()
    np.testing.assert_array_equal(within[1], [sum(v >= row.max() - 1 for v in row) for row in values])
