"""`pretrained:` of an experiment: rows of the grid, identities, sources, and errors with their places."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from bocb_tune.cli.launch import FolderError, cell_plans, claim_folder
from bocb_tune.cli.weights import StartError, find_starts, keep_weights, kept_weights
from bocb_tune.core.types import Cell, Phase, TrialSpec
from bocb_tune.spec.compare import compare, refusal
from bocb_tune.spec.environment import PLANNED, PLANNED_CAUTIONS
from bocb_tune.spec.grid import plan_grid
from bocb_tune.spec.model import ExperimentSpec, SpecError, dump_resolved, load_spec, resolved
from tests.support.kept import keep_model, make_model

FILE = "tuned.yaml"
TEXT = """\
name: tuned
task: classification
dataset: {name: digits_5to9, image_size: 32}
backbones: [test_resnet, test_vit]
pretrained:
  adamw: RUN:*/adamw
  given: {test_resnet: RUN.safetensors}
  scratch: scratch
optimizers: [sgd, lion]
recipe: {base: digits, warmup_epochs: 0}
budget: {epochs: 1, trials_per_cell: 1}
search: {design: 0, asha: null}
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A run that keeps a test_resnet and a test_vit, trained by AdamW."""
    run = tmp_path / "source"
    keep_model(run, {"model": make_model("test_resnet").state_dict()})
    keep_model(tmp_path / "other", {"model": make_model("test_vit").state_dict()}, backbone="test_vit")
    for folder in ("cells", "checkpoints"):
        for path in (tmp_path / "other" / folder).iterdir():
            path.rename(run / folder / path.name)
    save_file(dict(make_model("test_resnet", seed=3).state_dict()), f"{run}.safetensors")
    return run


def spec_of(tmp_path: Path, source: Path, text: str = TEXT, *, checked: bool = False) -> ExperimentSpec:
    path = tmp_path / "tuned.yaml"
    path.write_text(text.replace("RUN", str(source)))
    return load_spec(path, checks=PLANNED if checked else ())


def started(tmp_path: Path, source: Path) -> tuple[ExperimentSpec, Path]:
    """A fine-tuning run that was begun."""
    spec, folder = spec_of(tmp_path, source), tmp_path / "run"
    starts = find_starts(spec, folder, pytest.fail, file=FILE)
    claim_folder(spec, folder)
    keep_weights(starts, folder)
    return spec, folder


def test_the_identity_of_old_trials_is_what_it_was() -> None:
    """Ids of the release before there was any pre-training, worked out by it."""
    cell = Cell(task="classification", dataset="digits", backbone="test_vit", optimizer="adamw")
    trial = TrialSpec(
        cell=cell,
        phase=Phase.default,
        index=0,
        hparams={"lr": 1e-3, "weight_decay": 0.05},
        seed=1,
        budget=2,
        settings={"task": {}, "dataset": {"name": "digits"}, "recipe": {}, "optimizer": {}, "workers": 1},
    )
    assert trial.id == "f384eafa6043c9a2"
    assert (cell.key, cell.stem) == ("test_vit/adamw", "test_vit__adamw")


def test_a_row_for_each_start(tmp_path: Path, source: Path) -> None:
    grid = plan_grid(spec_of(tmp_path, source, checked=True))
    rows = ["test_resnet@adamw", "test_resnet@given", "test_resnet@scratch", "test_vit@adamw", "test_vit@scratch"]
    assert list(dict.fromkeys(planned.cell.row for planned in grid.cells)) == rows
    assert [planned.cell.key for planned in grid.cells] == [f"{row}/{o}" for row in rows for o in ("sgd", "lion")]
    assert {skipped.cell.row for skipped in grid.skipped} == {"test_vit@given"}
    assert {skipped.reason for skipped in grid.skipped} == {"no weights of 'given' are named for it"}
    only = plan_grid(spec_of(tmp_path, source), "test_vit@*/sgd")
    assert [planned.cell.key for planned in only.cells] == ["test_vit@adamw/sgd", "test_vit@scratch/sgd"]


def test_what_is_written_loads_to_the_same(tmp_path: Path, source: Path) -> None:
    spec = spec_of(tmp_path, source)
    path = tmp_path / "again.yaml"
    path.write_text(dump_resolved(spec))
    assert load_spec(path) == spec


def test_the_weights_are_part_of_the_identity_and_their_path_is_not(tmp_path: Path, source: Path) -> None:
    spec, folder = started(tmp_path, source)
    plans = {plan.cell.row: plan for plan in cell_plans(spec, "*/sgd", folder)}
    digests = {row: plan.settings.get("pretrained") for row, plan in plans.items()}
    assert digests.pop("test_resnet@scratch") is digests.pop("test_vit@scratch") is None
    assert len(set(digests.values())) == 3
    ids = {plan.trial(Phase.default, 0, plan.space.default).id for plan in plans.values()}
    assert len(ids) == 5
    moved = tmp_path / "moved"
    folder.rename(moved)
    again = {plan.cell.row: plan for plan in cell_plans(spec, "*/sgd", moved)}
    assert {plan.trial(Phase.default, 0, plan.space.default).id for plan in again.values()} == ids
    assert Path(again["test_vit@adamw"].weights).parent == moved / "pretrained"


def test_each_start_is_told_with_its_changes(tmp_path: Path, source: Path) -> None:
    spec = spec_of(tmp_path, source)
    lines = {start.row: start.line for start in find_starts(spec, tmp_path / "run", pytest.fail, file=FILE)}
    assert lines.keys() == {"test_resnet@adamw", "test_resnet@given", "test_vit@adamw"}
    assert "80.00 points" in lines["test_vit@adamw"]
    assert "head.weight, head.bias" in lines["test_vit@adamw"]
    assert "fc.weight, fc.bias" in lines["test_resnet@given"]


def test_a_run_goes_on_when_its_source_is_gone(tmp_path: Path, source: Path) -> None:
    spec, folder = started(tmp_path, source)
    before = [plan.settings for plan in cell_plans(spec, folder=folder)]
    source.rename(tmp_path / "gone")
    _forget()
    said: list[str] = []
    keep_weights(find_starts(spec, folder, said.append, file=FILE), folder)
    assert [plan.settings for plan in cell_plans(spec, folder=folder)] == before
    assert len(said) == 2
    assert all("pretrained.adamw" in line for line in said)
    with pytest.raises(StartError, match=r"pretrained\.adamw"):
        find_starts(spec, tmp_path / "fresh", said.append, file=FILE)


def test_a_source_that_changed_is_refused(tmp_path: Path, source: Path) -> None:
    spec, folder = started(tmp_path, source)
    assert kept_weights(folder).keys() == {"test_resnet@adamw", "test_resnet@given", "test_vit@adamw"}
    save_file(dict(make_model("test_resnet", seed=4).state_dict()), f"{source}.safetensors")
    _forget()
    with pytest.raises(StartError, match=r"^tuned\.yaml: pretrained\.given: .*holds other weights now"):
        find_starts(spec, folder, pytest.fail, file=FILE)


def test_weights_are_tried_at_the_size_that_the_recipe_asks_for(tmp_path: Path, source: Path) -> None:
    spec = spec_of(tmp_path, source, TEXT.replace("warmup_epochs: 0", "image_size: 64"), checked=True)
    lines = {start.row: start.line for start in find_starts(spec, tmp_path / "run", pytest.fail, file=FILE)}
    assert "pos_embed" in lines["test_vit@adamw"]
    assert "pos_embed" not in lines["test_resnet@adamw"]


def test_a_damaged_copy_is_named(tmp_path: Path, source: Path) -> None:
    spec, folder = started(tmp_path, source)
    path = folder / "pretrained" / "test_vit@adamw.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(StartError, match=r"test_vit@adamw\.safetensors"):
        cell_plans(spec, folder=folder)
    for row in ("test_resnet@given", "test_resnet@adamw", "test_vit@adamw"):
        (folder / "pretrained" / f"{row}.safetensors").unlink()
    save_file({"x": torch.ones(1)}, path)
    with pytest.raises(StartError, match=r"test_vit@adamw\.safetensors"):
        kept_weights(folder)


def _forget() -> None:
    """As another process, which has tried nothing yet."""
    from bocb_tune.spec.pretrained import fit_of

    fit_of.cache_clear()


def test_more_starts_extend_a_run(tmp_path: Path, source: Path) -> None:
    old = resolved(spec_of(tmp_path, source))
    new = resolved(spec_of(tmp_path, source, TEXT.replace("  scratch:", "  more: RUN:*/adamw\n  scratch:")))
    assert refusal(compare(old, new), "run") is None
    claim_folder(spec_of(tmp_path, source), tmp_path / "run")
    other = spec_of(tmp_path, source, TEXT.replace("warmup_epochs: 0", "warmup_epochs: 0, layer_decay: 0.7"))
    with pytest.raises(FolderError, match="layer_decay"):
        claim_folder(other, tmp_path / "run")


@pytest.mark.parametrize(
    ("old", "new", "line", "says"),
    [
        ("RUN:*/adamw", "RUN:*/sgd", 6, "unknown cell 'test_resnet/sgd'"),
        ("RUN:*/adamw", "RUN:test_vit/adamw", 6, "holds another architecture than ResNet"),
        ("RUN:*/adamw", "imagenet", 6, "'imagenet' is no source of weights"),
        ("RUN:*/adamw", "timm:none", 6, "timm has no weights 'none' of test_resnet"),
        ("  adamw: RUN", "  a__b: RUN", 6, "must be letters and digits"),
        ("{test_resnet: RUN", "{test_resnets: RUN", 7, "did you mean 'test_resnet'"),
        ("warmup_epochs: 0}", "frozen_stages: 6}", 10, "has 5 stages before its head"),
        ("warmup_epochs: 0}", "linear_probe: true, layer_decay: 0.5}", 10, "unless linear_probe is off"),
    ],
)
def test_errors_name_file_and_entry(tmp_path: Path, source: Path, old: str, new: str, line: int, says: str) -> None:
    with pytest.raises(SpecError) as error:
        spec_of(tmp_path, source, TEXT.replace(old, new, 1), checked=True)
    assert any(problem.line == line and says in problem.message for problem in error.value.problems), error.value


def test_weights_still_to_come_are_a_caution_once(tmp_path: Path, source: Path) -> None:
    said: list[str] = []
    path = tmp_path / "early.yaml"
    path.write_text(TEXT.replace("RUN.safe", "nowhere.safe").replace("RUN:", f"{source}-later:"))
    spec = load_spec(path, (), PLANNED, PLANNED_CAUTIONS, said.append)
    assert len(said) == 2
    assert all("pretrained." in line and "is not on this machine" in line for line in said)
    assert find_starts(spec, tmp_path / "run", pytest.fail, file=FILE, planned=True) == []
    with pytest.raises(StartError, match=r"^tuned\.yaml: pretrained\.adamw"):
        find_starts(spec, tmp_path / "run", pytest.fail, file=FILE)


def test_nothing_random_is_frozen(tmp_path: Path, source: Path) -> None:
    head, _, rest = TEXT.partition("pretrained:")
    text = (head + rest[rest.index("optimizers:") :]).replace("warmup_epochs: 0", "linear_probe: true")
    with pytest.raises(SpecError, match="would freeze random weights"):
        spec_of(tmp_path, source, text)


def test_a_cell_without_a_checkpoint_says_what_to_do(tmp_path: Path, source: Path) -> None:
    for path in (source / "checkpoints").glob("*/latest.pt"):
        path.unlink()
    with pytest.raises(SpecError, match=r"pretrained\.adamw.*--keep"):
        spec_of(tmp_path, source, checked=True)


def test_weights_that_are_not_finite_are_refused(tmp_path: Path, source: Path) -> None:
    state = dict(make_model("test_resnet").state_dict())
    state["fc.bias"] = torch.full_like(state["fc.bias"], torch.inf)
    torch.save(state, tmp_path / "bad.pt")
    text = TEXT.replace("RUN.safetensors", str(tmp_path / "bad.pt"))
    with pytest.raises(SpecError, match=r"pretrained\.given.*fc\.bias holds numbers that are not finite"):
        spec_of(tmp_path, source, text, checked=True)
