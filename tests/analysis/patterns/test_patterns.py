"""Parameter patterns on spectra whose answers are known, and checkpoints that are read or refused."""

from __future__ import annotations

import math
import pickle
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pandas as pd
import powerlaw
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from bocb_tune.analysis.bocb.choices import Choices
from bocb_tune.analysis.core.estimate import Estimate, Reason
from bocb_tune.analysis.patterns.checkpoints import find_kept, patterns_of, read_weights
from bocb_tune.analysis.patterns.spectra import Layer, energy, fit_probability, fit_tail, layers_of
from bocb_tune.analysis.patterns.summary import PATTERNS, LayerPatterns, Pattern, RunPatterns, contrast, measure
from bocb_tune.analysis.report.cards.values import Card
from bocb_tune.analysis.report.plots.values import Bars, Ridges
from bocb_tune.analysis.report.sections.patterns import weights
from bocb_tune.analysis.report.write import analyze
from bocb_tune.analysis.sources.load import load
from bocb_tune.analysis.sources.table import SourceError, TrialTable
from bocb_tune.tasks.classification import build_training
from bocb_tune.training.checkpoint import Checkpoints
from bocb_tune.training.context import Context
from bocb_tune.training.loop import fit
from tests.support.fakes import FakeRun, write_run
from tests.support.trials import digits_trial

Array = NDArray[np.float64]
COMPUTE = {pattern.key: pattern.compute for pattern in PATTERNS}


def save(folder: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint, and wait until it is there."""
    checkpoints = Checkpoints(folder)
    checkpoints.save(state)
    checkpoints.close()


def layer(weight: Array, **rest: Any) -> Layer:
    return Layer(name="w.weight", depth=0.0, weight=weight, **rest)


def rotation(size: int, seed: int) -> Array:
    q: Array = np.linalg.qr(np.random.default_rng(seed).normal(size=(size, size)))[0]
    return q


def with_singular_values(values: list[float] | Array, shape: tuple[int, int], seed: int = 0) -> Layer:
    core = np.zeros(shape)
    np.fill_diagonal(core[: len(values), : len(values)], values)
    return layer(rotation(shape[0], seed) @ core @ rotation(shape[1], seed + 1))


def gaussian(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape)


def known(estimate: Estimate) -> float:
    assert estimate.value is not None, estimate.reason
    return estimate.value


PARETO = (1 - (np.arange(1, 501) - 0.5) / 500) ** (-1 / 1.5)
"""Midpoints of a power law with exponent 2.5."""


def test_the_exponent_of_a_power_law_is_found() -> None:
    tail = fit_tail(PARETO)
    assert tail.alpha == pytest.approx(2.5025, abs=5e-5)
    assert tail.distance == pytest.approx(0.002, abs=1e-6)
    assert (tail.size, tail.start) == (500, pytest.approx(PARETO[0]))
    assert tail.se == pytest.approx(1.5025 / math.sqrt(500), abs=1e-5)


def test_a_spectrum_that_is_a_power_law_gives_its_exponent() -> None:
    values = np.sqrt(PARETO[::4])
    found = COMPUTE["alpha"](with_singular_values(values, (125, 140)))
    assert known(found) == pytest.approx(fit_tail(PARETO[::4]).alpha)
    assert found.reason is None
    assert found.lo is not None
    assert found.hi is not None
    assert found.lo < known(found) < found.hi


def test_kernel_positions_are_pooled() -> None:
    """Every position of the kernel has the same matrix, so its spectrum is that matrix's, repeated."""
    one = with_singular_values(np.sqrt(PARETO[::4]), (125, 140)).weight
    (conv,) = layers_of({"conv.weight": np.repeat(one[:, :, None], 4, axis=2).reshape(125, 140, 2, 2)})
    pooled = COMPUTE["alpha_by_position"](conv)
    assert known(pooled) == pytest.approx(fit_tail(np.repeat(PARETO[::4], 4)).alpha)
    assert "of 500" in pooled.method
    linear = layer(one)
    assert COMPUTE["alpha_by_position"](linear) == COMPUTE["alpha"](linear)


def test_a_tail_above_a_body_that_is_none_is_found() -> None:
    rng = np.random.default_rng(0)
    starts = []
    for _ in range(20):
        body, above = rng.random(300), rng.random(200) ** -0.5
        tail = fit_tail(np.concatenate([body, above]))
        starts.append(tail.start)
        assert abs(tail.alpha - 3) < 5 * tail.se
    assert np.median(starts) == pytest.approx(1, abs=0.15)


def test_untrained_matrices_are_the_negative_control() -> None:
    exponents = [known(COMPUTE["alpha"](layer(gaussian(256, 256, seed=seed)))) for seed in range(3)]
    assert min(exponents) > 5


def test_a_spectrum_that_is_no_power_law_is_flagged_and_still_given() -> None:
    flat = with_singular_values(np.linspace(1, 2, 400), (400, 400))
    found = COMPUTE["alpha"](flat)
    assert found.reason == Reason.NOT_POWER_LAW
    assert found.value is not None


@pytest.mark.slow
def test_the_test_of_fit_rejects_true_power_laws_no_more_often_than_it_says() -> None:
    rng = np.random.default_rng(0)
    probabilities = []
    for _ in range(100):
        values = rng.random(100) ** (-1 / 1.5)
        probabilities.append(fit_probability(values, fit_tail(values), rng))
    assert np.mean(np.array(probabilities) < 0.1) < 0.1 + 2 * math.sqrt(0.09 / 100)


KNOWN = with_singular_values([4.0, 2.0, 1.0], (16, 12))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("stable_rank", 1.3125),
        ("entropy", 0.608056),
        ("effective_rank", 1.95037),
        ("frobenius_norm", 4.582576),
        ("rms", 4.582576 / math.sqrt(16 * 12)),
        ("spectral_norm", 4.0),
        ("pca_energy_1_uncentred", 16 / 21),
        ("pca_energy_5_uncentred", 1.0),
        ("pca_energy_tenth_uncentred", 20 / 21),
    ],
)
def test_a_known_spectrum_has_known_statistics(key: str, value: float) -> None:
    assert known(COMPUTE[key](KNOWN)) == pytest.approx(value, rel=2e-6)


def test_principal_components_are_those_of_the_rows_about_their_mean() -> None:
    weight = gaussian(40, 20) @ np.diag(np.arange(1.0, 21)) + 100
    variances = np.sort(np.linalg.eigvalsh(np.cov(weight, rowvar=False)))[::-1]
    shares = np.cumsum(variances) / variances.sum()
    for key, count in (("pca_energy_1", 1), ("pca_energy_5", 5), ("pca_energy_tenth", 2)):
        assert known(COMPUTE[key](layer(weight))) == pytest.approx(shares[count - 1])
    assert known(COMPUTE["pca_components_90"](layer(weight))) == np.searchsorted(shares, 0.9) + 1
    assert known(COMPUTE["pca_energy_1_uncentred"](layer(weight))) > 0.9
    assert known(energy(layer(weight), lambda count: count)) == pytest.approx(1)


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: pattern.key)
def test_no_pattern_depends_on_the_order_of_rows_or_columns(pattern: Pattern) -> None:
    weight = gaussian(80, 60)
    rng = np.random.default_rng(0)
    shuffled = weight[rng.permutation(80)][:, rng.permutation(60)]
    one, other = (pattern.compute(layer(w)) for w in (weight, shuffled))
    assert known(one) == pytest.approx(known(other))


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: pattern.key)
def test_only_norms_know_the_scale_of_the_weights(pattern: Pattern) -> None:
    weight = gaussian(80, 60)
    factor = 3.0 if pattern.key in ("frobenius_norm", "rms", "spectral_norm") else 1.0
    assert known(pattern.compute(layer(3 * weight))) == pytest.approx(factor * known(pattern.compute(layer(weight))))


@pytest.mark.parametrize("key", [p.key for p in PATTERNS if not p.key.startswith("pca") or p.key.endswith("uncentred")])
def test_spectra_are_those_of_the_transposed_matrix_too(key: str) -> None:
    weight = gaussian(80, 60)
    assert known(COMPUTE[key](layer(weight))) == pytest.approx(known(COMPUTE[key](layer(weight.T))))


@pytest.mark.parametrize(
    ("weight", "depthwise", "refused"),
    [
        (gaussian(49, 200), False, {"alpha": Reason.TOO_FEW_EIGS}),
        (gaussian(9, 200), False, {"alpha": Reason.TOO_FEW_EIGS, "pca_energy_1": Reason.TOO_FEW_EIGS}),
        (np.ones((60, 60)), False, {"alpha": Reason.TOO_FEW_EIGS, "entropy": Reason.TOO_FEW_EIGS}),
        (np.tile(gaussian(60), (60, 1)), False, {"pca_energy_1": Reason.DEGENERATE_VARIANCE}),
        (np.eye(60), False, {"alpha": Reason.TOO_FEW_EIGS}),
        (
            np.zeros((60, 60)),
            False,
            {"stable_rank": Reason.DEGENERATE_VARIANCE, "pca_energy_1_uncentred": Reason.DEGENERATE_VARIANCE},
        ),
        (
            gaussian(96, 49),
            True,
            dict.fromkeys(("alpha", "stable_rank", "entropy", "effective_rank", "pca_energy_1"), Reason.TOO_FEW_EIGS),
        ),
    ],
)
def test_what_a_matrix_cannot_say_is_refused(weight: Array, depthwise: bool, refused: Mapping[str, Reason]) -> None:
    found = measure(layer(weight, is_depthwise=depthwise)).estimates
    assert {key: (found[key].value, found[key].reason) for key in refused} == {
        key: (None, reason) for key, reason in refused.items()
    }
    assert all(found[key].value is not None for key in ("frobenius_norm", "rms", "spectral_norm"))


def test_a_model_becomes_layers() -> None:
    weights = {
        "stem.weight": gaussian(8, 3, 2, 2),
        "dw.weight": gaussian(8, 1, 3, 3),
        "norm.weight": gaussian(8),
        "pos_embed": gaussian(1, 5, 8),
        "head.weight": gaussian(10, 8),
        "head.bias": gaussian(10),
    }
    layers = layers_of(weights)
    assert [(one.name, one.depth, one.weight.shape, one.is_depthwise) for one in layers] == [
        ("stem.weight", 0.0, (8, 12), False),
        ("dw.weight", 0.5, (8, 9), True),
        ("head.weight", 1.0, (10, 8), False),
    ]
    with pytest.raises(ValueError, match=r"weights of head\.weight are not finite: the training diverged"):
        layers_of({"head.weight": np.full((2, 2), np.nan)})
    assert layers_of({}) == ()


def run_of(*values: float | None, trial: str = "t") -> RunPatterns:
    """A run whose layers have these values of every pattern."""
    layers = tuple(
        LayerPatterns(
            name=f"{place}.weight",
            depth=place / 10,
            shape=(1, 1),
            estimates={pattern.key: Estimate(value=value) for pattern in PATTERNS},
        )
        for place, value in enumerate(values)
    )
    return RunPatterns(backbone="b", optimizer="o", trial=trial, layers=layers)


def test_a_run_is_summed_up_over_its_layers() -> None:
    run = run_of(1.0, None, 2.0, 3.0, 4.0, 5.0)
    found = run.summary("rms")
    assert (found.value, found.lo, found.hi, found.level) == (3.0, 2.0, 4.0, 0.5)
    assert "5 of 6 layers" in found.method
    assert run.profile("rms").tolist() == [[0.0, 1.0], [0.2, 2.0], [0.3, 3.0], [0.4, 4.0], [0.5, 5.0]]
    assert run_of(None).summary("rms").reason == Reason.TOO_FEW_EIGS


def of_patterns(*runs: RunPatterns) -> SimpleNamespace:
    """Findings of one cell, as far as the section on weights asks."""
    return SimpleNamespace(
        patterns=runs,
        pattern_notes=("b: cannot be built",),
        associations=(),
        table=SimpleNamespace(backbones=("b",), optimizers=("o",)),
        matrix=np.array([[50.0]]),
        bocb=SimpleNamespace(by_median=np.array([[True]])),
        choices=SimpleNamespace(components=10),
    )


def test_the_start_stands_last_and_failures_are_marked() -> None:
    start = replace(run_of(9.0, 8.0), is_start=True)
    card = weights(cast(Any, of_patterns(start, run_of(1.0, 2.0))))
    assert isinstance(card, Card)
    assert "b: cannot be built" in card.text
    bars, ridges = card.figures
    assert isinstance(bars, Bars)
    assert isinstance(ridges, Ridges)
    assert (bars.panels[0].value.tolist(), bars.panels[0].failed.tolist()) == ([1.5], [True])
    assert [panel.title for panel in ridges.panels][-1] == "exponent (alpha)"
    assert [(ridge.name, ridge.is_start, ridge.failed) for ridge in ridges.panels[0].ridges] == [
        ("o", False, True),
        ("at the start", True, False),
    ]
    assert card.tables[0].frame["optimizer"].tolist() == ["at the start", "o"]


def test_the_report_names_the_file_that_holds_the_layers() -> None:
    start = replace(run_of(9.0, 8.0), is_start=True)
    card = weights(cast(Any, of_patterns(run_of(1.0, 2.0), run_of(3.0), start)))
    assert isinstance(card, Card)
    (layers,) = (each for each in card.tables if "layer" in each.frame.columns)
    assert len(layers.frame) == 5
    assert f"tables/{layers.stem}.csv" in " ".join(card.text)


def test_two_optimizers_are_compared_layer_by_layer() -> None:
    found = contrast([run_of(1.0, 10.0, 100.0)], [run_of(1.5, 40.0, 100.25, 7.0)], "rms")  # 0.5, 30 and 0.25 more
    assert (found.value, found.lo, found.reason) == (0.5, None, Reason.TOO_FEW_REPLICATES)
    assert "3 paired layers" in found.method
    none = contrast([run_of(1.0, None)], [run_of(None, 2.0)], "rms")
    assert (none.value, none.reason) == (None, Reason.TOO_FEW_EIGS)


def test_the_interval_of_a_contrast_is_over_seeds() -> None:
    rng = np.random.default_rng(0)
    layers = 10 ** np.linspace(0, 2, 9)
    hits = 0
    for _ in range(200):
        groups = [[run_of(*(layers + effect + rng.normal())) for _ in range(4)] for effect in (0.0, 1.0)]
        found = contrast(*groups, "rms")
        assert found.lo is not None
        assert found.hi is not None
        hits += found.lo < 1.0 < found.hi
    assert 0.90 < hits / 200 < 0.99


@pytest.fixture
def run(tmp_path: Path) -> tuple[Path, TrialTable]:
    folder = write_run(tmp_path, FakeRun(trials=2, backbones=("vit_tiny",), optimizers=("sgd", "lamb")))
    return folder, load(str(folder))


def test_the_checkpoints_of_a_run_are_found_by_their_trials(run: tuple[Path, TrialTable]) -> None:
    folder, table = run
    completed = table.trials[table.trials["status"] == "completed"]["trial"].tolist()
    unfinished = table.trials[table.trials["status"] != "completed"]["trial"].tolist()
    state = {"model": {"fc.weight": torch.ones(3, 2)}, "ema": None}
    for name in (completed[0], "0000", *unfinished[:1]):
        save(folder / "checkpoints" / name, state)
    (folder / "checkpoints" / completed[1]).mkdir()
    (kept,) = find_kept(folder, table)
    assert (kept.trial, kept.path.name) == (completed[0], "latest.pt")
    (layer,) = patterns_of(kept).layers
    assert (layer.name, layer.shape, layer.estimates["rms"].value) == ("fc.weight", (3, 2), 1.0)


def test_of_several_checkpoints_of_a_cell_the_best_trials_is_read(run: tuple[Path, TrialTable]) -> None:
    folder, table = run
    completed = table.trials[table.trials["status"] == "completed"]
    for name in completed["trial"]:
        save(folder / "checkpoints" / name, {"model": {"fc.weight": torch.ones(3, 2)}, "ema": None})
    best = completed.loc[completed.groupby(["backbone", "optimizer"])["score"].idxmax()]
    assert len(completed) > len(best) == 2
    assert {kept.trial for kept in find_kept(folder, table)} == set(best["trial"])


def keep_all(folder: Path, table: TrialTable) -> None:
    """Give every completed trial a checkpoint of two layers."""
    state = {"a.weight": torch.randn(60, 60), "b.weight": torch.randn(12, 12)}
    for name in table.trials.loc[table.trials["status"] == "completed", "trial"]:
        save(folder / "checkpoints" / name, {"model": state, "ema": None})


def test_what_a_backbone_began_with_stands_beside_what_it_ended_with(run: tuple[Path, TrialTable]) -> None:
    folder, table = run
    keep_all(folder, table)
    asked: list[str] = []

    def start(path: Path, trial: str) -> dict[str, Array]:
        assert path == folder
        asked.append(trial)
        return {"a.weight": gaussian(60, 60), "b.weight": np.ones((12, 12))}

    page = analyze(str(folder), patterns=True, choices=Choices(components=3), start=start)
    rows = pd.read_csv(page.parent / "tables" / "patterns.csv")
    assert sorted(rows["optimizer"]) == ["at the start", "lamb", "sgd"]
    completed = table.trials[table.trials["status"] == "completed"]
    assert asked == [completed.loc[completed["score"].idxmax(), "trial"]]
    layers = pd.read_csv(page.parent / "tables" / "patterns_by_layer.csv")
    assert {"value_entropy", "pca_energy_top", "alpha"} <= set(layers)
    assert "PCA energy of 3 components" in page.read_text(encoding="utf-8")


def test_a_start_that_cannot_be_built_is_said(run: tuple[Path, TrialTable]) -> None:
    folder, table = run
    keep_all(folder, table)

    def start(path: Path, trial: str) -> dict[str, Array]:  # noqa: ARG001
        raise ValueError("the data are elsewhere")

    text = analyze(str(folder), patterns=True, start=start).read_text(encoding="utf-8")
    assert "vit_tiny: the weights it began with cannot be built here: the data are elsewhere" in text


def test_weights_are_those_that_were_scored(tmp_path: Path) -> None:
    plain, averaged = ({"fc.weight": torch.full((2, 2), value), "steps": torch.tensor(3)} for value in (1.0, 2.0))
    latest = tmp_path / "latest.pt"
    save(tmp_path, {"model": plain, "ema": None, "rng": [torch.zeros(3, dtype=torch.uint8)]})
    assert read_weights(latest)["fc.weight"].mean() == 1
    save(tmp_path, {"model": plain, "ema": averaged})
    weights = read_weights(latest)
    assert list(weights) == ["fc.weight"]
    assert weights["fc.weight"].mean() == 2


def test_safetensors_and_half_precision_are_read(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"fc.weight": torch.full((2, 3), 0.5, dtype=torch.bfloat16)}, path)
    weights = read_weights(path)
    assert weights["fc.weight"].tolist() == [[0.5] * 3] * 2


class Harmful:
    """What a pickle can do."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("harmed"),)


def test_a_pickle_is_refused_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model": {"fc.weight": torch.ones(2, 2)}, "harm": Harmful()}, tmp_path / "latest.pt")
    with pytest.raises(
        SourceError, match=r"latest\.pt: not read: it holds objects other than tensors.*never unpickled"
    ):
        read_weights(tmp_path / "latest.pt")
    assert not Path("harmed").exists()
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Harmful()))
    with pytest.raises(SourceError, match=r"plain\.pt"):
        read_weights(tmp_path / "plain.pt")
    assert not Path("harmed").exists()


@pytest.mark.parametrize("name", ["latest.pt", "model.safetensors"])
@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04 a torn archive"])
def test_a_damaged_checkpoint_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError, match=name):
        read_weights(tmp_path / name)


def test_a_checkpoint_without_a_model_is_named(tmp_path: Path) -> None:
    for state in ({"optimizer": {}}, {"model": None}, {"model": torch.ones(2)}):
        save(tmp_path, state)
        with pytest.raises(
            SourceError, match=r"latest\.pt: holds no model; a checkpoint has its weights under 'model'"
        ):
            read_weights(tmp_path / "latest.pt")


def test_entropy_of_values_by_hand() -> None:
    """Half of the weights in the lowest bin, half in the highest: ln 2; equally many in all of 100 bins: ln 100."""
    two = layer(np.repeat([0.0, 1.0], 50).reshape(10, 10))
    assert known(COMPUTE["value_entropy"](two)) == pytest.approx(math.log(2))
    flat = layer(np.arange(10_000.0).reshape(100, 100))
    assert known(COMPUTE["value_entropy"](flat)) == pytest.approx(math.log(100))
    assert known(COMPUTE["value_entropy"](layer(7 * flat.weight - 3))) == pytest.approx(math.log(100))
    assert COMPUTE["value_entropy"](layer(np.ones((4, 4)))).reason is Reason.DEGENERATE_VARIANCE


def test_top_energy_is_of_as_many_components_as_asked_for() -> None:
    weights = layer(gaussian(40, 60))
    found = {count: known(measure(weights, count).estimates["pca_energy_top"]) for count in (1, 5, 1000)}
    assert found[1] == known(COMPUTE["pca_energy_1"](weights))
    assert found[5] == known(COMPUTE["pca_energy_5"](weights))
    assert found[1000] == pytest.approx(1.0)


def test_share_of_exponents_within_the_thresholds() -> None:
    exponents = (1.5, 2.0, 4.0, 6.0, 7.0, None)
    layers = tuple(
        LayerPatterns(name=f"{n}.weight", depth=n / 5, shape=(1, 1), estimates={"alpha": Estimate(value=value)})
        for n, value in enumerate(exponents)
    )
    run = RunPatterns(backbone="b", optimizer="o", trial="t", layers=layers)
    found = run.share_within("alpha", 2.0, 6.0)
    assert known(found) == 0.6
    assert found.method == "of 5 of 6 layers"


def trained_layers() -> list[Layer]:
    """Layers with a spectrum to fit, of a small transformer after two epochs on digits."""
    trial = digits_trial(lr=3e-3, budget=2)
    training = build_training(trial, Context())
    assert len(list(fit(training, trial, Context()))) == 2
    weights = {name: tensor.numpy() for name, tensor in training.model.state_dict().items()}
    return [each for each in layers_of(weights) if len(each.eigenvalues) >= 50]


@pytest.mark.filterwarnings("ignore::UserWarning:powerlaw")
def test_the_exponent_equals_that_of_another_package_on_the_same_tail() -> None:
    layers = trained_layers()
    assert len(layers) >= 10
    for each in layers:
        ours = fit_tail(each.eigenvalues)
        theirs = powerlaw.Fit(each.eigenvalues, xmin=ours.start, parameter_ranges={"alpha": [1.01, 20]}, verbose=False)
        assert ours.size >= 20
        assert theirs.power_law.alpha == pytest.approx(ours.alpha, rel=1e-3), each.name
