"""The grids that ship: they check and plan where there are no data and no GPU, and their cells train."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from bocb_tune.backbones import BACKBONES
from bocb_tune.cli.launch import cell_plans
from bocb_tune.core.types import Phase, TrialStatus
from bocb_tune.optimizers.published import PUBLISHED
from bocb_tune.profiling.cost import cost
from bocb_tune.spec.environment import LOCAL, data, missing_data, models, present_data
from bocb_tune.spec.grid import plan_grid
from bocb_tune.spec.model import ExperimentSpec, SpecError, load_spec
from bocb_tune.training.recipes import PUBLISHED_EPOCHS
from tests.support.cells import GRID, TRAINS, cifar_grid, outcomes, written
from tests.support.command import bocb
from tests.support.datasets import make_cifar
from tests.support.paper_recipes import ours, published, rows
from tests.support.processes.runs import Run, records_in

RECIPES_PAGE = GRID.parents[1] / "docs" / "RECIPES.md"
IMAGENET = GRID.with_name("imagenet_grid.yaml")
ALL = load_spec(GRID)

ONE_OF_EACH = {
    "alexnet": "sgd",
    "vgg13": "adabound",
    "resnet50": "lars",
    "densenet121": "sgdp",
    "mobilenetv2": "adan",
    "efficientnet_b0": "rmsprop",
    "repvgg_a1": "adadelta",
    "deit_small": "lamb",
    "mlp_mixer_small": "adafactor",
    "swin_tiny": "adamw",
    "convnext_tiny": "lion",
    "convnextv2_tiny": "nadam",
    "moganet_small": "adamp",
    "unireplknet_tiny": "adabelief",
    "transnext_tiny": "adam",
    "identityformer_s12": "novograd",
    "poolformerv2_s12": "sophia",
    "convformer_s12": "radam",
    "attentionformer_s12": "adamax",
    "caformer_s12": "adagrad",
}


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> ExperimentSpec:
    """The CIFAR-100 grid on generated files."""
    return cifar_grid(tmp_path_factory.mktemp("data") / "cifar100")


def test_the_cifar_grid_is_the_published_one() -> None:
    assert set(ALL.backbones) == BACKBONES.keys() - {"resnet101"}
    assert set(ALL.optimizers) == {row.name for row in PUBLISHED}
    assert (len(ALL.backbones), len(ALL.optimizers), ALL.budget.epochs) == (20, 20, 200)
    assert {ALL.recipe_of(name)[1].batch_size for name in ALL.backbones} == {100}


@pytest.mark.parametrize("backbone", ALL.backbones)
def test_a_backbone_is_trained_as_published(backbone: str) -> None:
    """Every value of the paper's tables A1 and A3, and the image that the backbone sees."""
    recipe = ALL.recipe_of(backbone)[1]
    assert ours(recipe) == published(backbone)
    (planned, *_) = plan_grid(ALL, f"{backbone}/*").cells
    change = planned.settings.get("backbone", {})
    assert ("image_size" in change, "small" in change) == ((True, False) if recipe.image_size else (False, True))


def test_the_page_sets_the_papers_settings_beside_ours() -> None:
    page = RECIPES_PAGE.read_text(encoding="utf-8").splitlines()
    assert [row for row in rows(ALL) if row not in page] == []


OLD = """\
name: old
task: classification
dataset: {name: cifar100, root: /data/cifar100}
backbones: [resnet50, deit_small, convnext_tiny]
optimizers: [sgd, adamw]
recipe: {base: cifar_torch, by_backbone: {deit_small: cifar_deit}}
budget: {epochs: 200, trials_per_cell: 64}
resources: {gpus_per_worker: 1}
"""
OLD_IDS = {
    "resnet50/sgd": ("b70a17ce854c6756", "0384921b287cda9d"),
    "resnet50/adamw": ("521458f0bb18e9b9", "52142332e5abe912"),
    "deit_small/sgd": ("7f5ac3ea78bad21b", "326fa7695a1a2d5d"),
    "deit_small/adamw": ("9a7fab335ce846f9", "c11c238e0bd983e0"),
    "convnext_tiny/sgd": ("746827567c2e9fee", "6196aec1ec25f14e"),
    "convnext_tiny/adamw": ("6885059a034da613", "2342902a2100f256"),
}
"""Of the default trial, and of a search trial, as a release wrote them that had neither sizes nor `own` ranges."""


def test_trials_of_old_files_keep_their_ids(tmp_path: Path) -> None:
    path = tmp_path / "old.yaml"
    path.write_text(OLD)
    cells = cell_plans(load_spec(path))
    searched = {"lr": 0.01, "weight_decay": 0.0}
    ids = {
        cell.cell.key: (
            cell.trial(Phase.default, 0, cell.space.default).id,
            cell.trial(Phase.search, 3, searched).id,
        )
        for cell in cells
    }
    assert ids == OLD_IDS


SIZES = """\
name: sizes
task: classification
dataset: {name: digits, image_size: 32}
backbones: [test_vit, resnet50, deit_small]
optimizers: [sgd]
recipe:
  base: digits
  by_backbone:
    resnet50: {base: digits, image_size: 48}
    deit_small: {base: digits, image_size: 64}
budget: {epochs: 2, trials_per_cell: 9}
"""


def test_a_backbone_may_see_images_of_a_size_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "sizes.yaml"
    path.write_text(SIZES)
    cells = plan_grid(load_spec(path, checks=[models])).cells
    assert [cell.settings.get("backbone") for cell in cells] == [
        None,
        {"image_size": 48, "small": True},
        {"model": "deit_small_patch16_224", "image_size": 64},
    ]
    assert [cell.settings["recipe"].get("image_size") for cell in cells] == [None, 48, 64]


def test_a_size_that_a_backbone_cannot_take_is_refused_where_it_was_given(tmp_path: Path) -> None:
    path = tmp_path / "sizes.yaml"
    path.write_text(SIZES.replace("image_size: 64", "image_size: 8"))
    with pytest.raises(SpecError) as caught:
        load_spec(path, checks=[models])
    (found,) = map(str, caught.value.problems)
    assert found.startswith(f"{path}:10: recipe.by_backbone.deit_small.image_size: backbone 'deit_small' cannot take")
    assert "of 8 pixels" in found
    assert "give its recipe another image_size, such as 224" in found


def test_the_imagenet_grid_is_the_published_one() -> None:
    grid = load_spec(IMAGENET)
    assert grid.optimizers == ALL.optimizers
    assert {name: grid.recipe_of(name)[0] for name in grid.backbones} == {"resnet50": "rsb_a2", "deit_small": "deit"}
    assert {PUBLISHED_EPOCHS[grid.recipe_of(name)[0]] for name in grid.backbones} == {grid.budget.epochs} == {300}


@pytest.mark.parametrize(("path", "trainings"), [(GRID, 27), (IMAGENET, 8)])
def test_a_cell_costs_what_the_file_says(path: Path, trainings: int) -> None:
    grid = load_spec(path)
    planned = cost(grid, plan_grid(grid))
    assert round(planned.epochs_expected / planned.cells / grid.budget.epochs) == trainings
    assert str(trainings) in path.read_text(encoding="utf-8")
    warm_up = max(grid.recipe_of(name)[1].warmup_epochs for name in grid.backbones)
    assert planned.rungs[0] > warm_up


@pytest.mark.parametrize(("path", "cells", "place"), [(GRID, 400, "data/cifar100"), (IMAGENET, 40, "data/imagenet")])
def test_a_grid_plans_without_its_data_and_says_what_to_put_where(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    path: Path,
    cells: int,
    place: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert bocb(monkeypatch, "plan", path, "--json") == 0
    out, err = capsys.readouterr()
    assert len(json.loads(out)["cells"]) == cells
    (warning,) = [line for line in err.splitlines() if "dataset.root: the data are not on this machine" in line]
    assert warning.startswith("warning: ")
    assert str(tmp_path / place) in warning


def test_data_laid_out_wrongly_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "cifar-100-python").mkdir()
    with pytest.raises(SpecError, match=r"dataset.root: .*cifar-100-python lacks train, test"):
        load_spec(GRID, [f"dataset.root={tmp_path}"], checks=[present_data])


def test_missing_data_are_an_error_of_a_run(tmp_path: Path) -> None:
    missing = [f"dataset.root={tmp_path / 'nowhere'}"]
    with pytest.raises(SpecError, match=r"dataset.root: .*nowhere holds neither cifar-100-python/ nor"):
        load_spec(GRID, missing, checks=[data])
    assert data in LOCAL
    assert missing_data(load_spec(GRID, missing, checks=[present_data]))


def test_stochastic_depth_is_refused_where_the_recipe_asks_for_it() -> None:
    """In the file's own words: three of the seven classical backbones have none."""
    with pytest.raises(SpecError) as caught:
        load_spec(GRID, ["recipe.drop_path=0.1"], checks=[models])
    found = [str(problem) for problem in caught.value.problems]
    assert [text.split("'")[1] for text in found] == ["alexnet", "vgg13"]  # DenseNet has a recipe of its own
    start = "--set recipe.drop_path=0.1: recipe.drop_path: backbone 'alexnet' has no stochastic depth"
    assert found[0].startswith(start)


LONE = """\
name: lone
task: classification
dataset: {name: digits, image_size: 32}
backbones: [test_vit, test_resnet]
optimizers: [sgd]
recipe:
  base: digits
  batch_size: 4
  accumulation: 2
budget: {epochs: 2, trials_per_cell: 9}
resources: {workers: 2}
"""


def test_one_image_at_a_time_is_refused_for_batch_norm(tmp_path: Path) -> None:
    path = tmp_path / "lone.yaml"
    path.write_text(LONE)
    with pytest.raises(SpecError) as caught:
        load_spec(path, checks=[models])
    (found,) = map(str, caught.value.problems)
    assert found.startswith(f"{path}:8: recipe.batch_size: backbone 'test_resnet' has BatchNorm")
    load_spec(path, ["recipe.batch_size=8"], checks=[models])
    load_spec(path, ["backbones=[test_vit]"], checks=[models])


def test_a_value_that_is_wrong_in_itself_is_found_once(tmp_path: Path) -> None:
    path = tmp_path / "lone.yaml"
    path.write_text(LONE.replace("batch_size: 4", "batch_size: 8\n  drop_path: 2.0"))
    with pytest.raises(SpecError) as caught:
        load_spec(path, checks=[models])
    assert [problem.field for problem in caught.value.problems] == ["recipe.drop_path"]


def test_the_subset_covers_the_grid() -> None:
    assert set(ONE_OF_EACH) == set(ALL.backbones)
    assert set(ONE_OF_EACH.values()) == set(ALL.optimizers)


@pytest.mark.parametrize(("backbone", "optimizer"), ONE_OF_EACH.items())
def test_one_cell_of_each_backbone_and_optimizer_trains(spec: ExperimentSpec, backbone: str, optimizer: str) -> None:
    assert outcomes(spec, backbone, [optimizer], steps=1) == {optimizer: TRAINS}


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("backbone", ALL.backbones)
def test_all_cells_do_what_the_page_says(spec: ExperimentSpec, backbone: str) -> None:
    assert outcomes(spec, backbone, spec.optimizers) == written()[backbone]


def test_the_page_has_every_cell_and_all_take_steps() -> None:
    page = written()
    assert list(page) == list(ALL.backbones)
    assert {tuple(row) for row in page.values()} == {ALL.optimizers}
    others = {outcome for row in page.values() for outcome in row.values()} - {TRAINS}
    shares = [re.fullmatch(r"(\d+) of (\d+) weights move", outcome) for outcome in others]
    assert all(share and int(share[1]) > 0.75 * int(share[2]) for share in shares), others


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(1800)
def test_two_cells_through_the_engine_with_two_ranks(tmp_path: Path) -> None:
    """A classical and a modern one, each under its recipe, on files in CIFAR-100's format."""
    root = make_cifar(tmp_path / "cifar100", "cifar100", train=2)
    own = "{poolformerv2_s12: {base: cifar_rsb_a2_224, batch_size: 20, warmup_epochs: 0.5, image_size: 64}}"
    changes = (
        *(f"dataset.root={root}", "dataset.val_share=0.5", "recipe.batch_size=20", "recipe.image_size=96"),
        f"recipe.by_backbone={own}",
        *("budget.epochs=1", "budget.trials_per_cell=2", "search.design=1", "search.asha=null", "repeats.best=0"),
        *("repeats.default=0", "resources.workers=2", "resources.gpus_per_worker=0", "resources.cpus_per_worker=1"),
        "resources.max_slots=1",
    )
    options = [part for change in changes for part in ("--set", change)]
    run = Run(GRID, tmp_path / "run", "--only", "[mp]*[tr]v2*/adamw", *options)
    try:
        assert run.wait(1500) == 0, run.output
        records = list(records_in(run.folder).values())
    finally:
        run.close()
    assert {record.cell.key for record in records} == {"mobilenetv2/adamw", "poolformerv2_s12/adamw"}
    assert len(records) == 4
    assert {(record.status, record.world_size) for record in records} == {(TrialStatus.completed, 2)}
    assert {"score", "test_score"} <= set(records[0].measurements[-1].metrics)
