"""`plan --measure`: sums by hand, the search for the largest batch, memory that runs out, and one real measurement."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bocb_tune.cli import main as cli
from bocb_tune.cli.render import measured_lines
from bocb_tune.data.decode import decode
from bocb_tune.profiling.cost import cost
from bocb_tune.profiling.dry_run import fits, largest_batch, load_of, state_share, weights_bytes
from bocb_tune.profiling.load import Load
from bocb_tune.profiling.loading import Loading
from bocb_tune.profiling.measure import Measured, epoch_seconds, measure, totals, train_images, warnings
from bocb_tune.spec.grid import plan_grid
from bocb_tune.spec.model import ExperimentSpec, load_spec
from tests.support.cells import GRID
from tests.support.trials import make_folder

TINY = """\
name: tiny
task: classification
dataset: {name: digits, image_size: 16}
backbones: [test_vit, test_resnet]
optimizers: [sgd, adamw]
recipe: {base: digits, batch_size: 32}
budget: {epochs: 9, trials_per_cell: 20}
"""


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return path


def row(backbone: str, **changes: Any) -> Measured:
    found: dict[str, Any] = {
        "optimizer": "adamw",
        "batch": 100,
        "seconds_per_epoch": 36.0,
        "seconds_range": (30.0, 45.0),
        "decoding_seconds": None,
        "peak_memory_gib": 1.0,
        "largest_batch": 400,
        "weights_gib": 0.1,
    }
    return Measured(backbone=backbone, **found | changes)


@given(st.integers(1, 300), st.integers(0, 2000), st.integers(1, 1000))
def test_the_largest_batch_fits_and_the_next_does_not(start: int, room: int, limit: int) -> None:
    asked: list[int] = []

    def fits(batch: int) -> bool:
        asked.append(batch)
        return batch <= room

    found = largest_batch(start, start <= room, fits, limit)
    assert found <= room
    if start <= room:
        assert found % start == 0
        assert 2 * found > min(room, limit)
        assert max(asked, default=0) <= limit
    else:
        assert asked == sorted(asked, reverse=True)
        assert all(batch % 2 == 0 and batch < start for batch in asked)
        assert not [batch for batch in asked if found < batch <= room]


@pytest.mark.parametrize(
    ("start", "room", "found"),
    [(100, 99, 50), (100, 49, 24), (100, 5, 2), (100, 1, 0), (100, 100, 100), (100, 399, 200), (1, 0, 0), (3, 2, 0)],
)
def test_the_largest_batch_by_hand(start: int, room: int, found: int) -> None:
    assert largest_batch(start, start <= room, lambda batch: batch <= room, 1000) == found


@pytest.mark.parametrize(("optimizer", "copies"), [("sgd", 1), ("adamw", 2), ("adan", 4), ("adafactor", 0)])
def test_state_by_hand(optimizer: str, copies: int) -> None:
    """Momentum; two moments; Adan's three and the gradient before; rows and columns alone."""
    spec = load_spec(GRID)
    (planned,) = plan_grid(spec, f"resnet50/{optimizer}").cells
    assert state_share(planned) == pytest.approx(copies, abs=0.05)


def test_images_are_counted_or_published(tiny: Path) -> None:
    assert train_images(load_spec(tiny)) == (1197, True)
    nowhere = ["dataset.root=/nowhere/at/all"]
    assert train_images(load_spec(GRID, nowhere)) == (45_000, False)
    assert train_images(load_spec(GRID, [*nowhere, "dataset.validate_on=test"])) == (50_000, False)
    imagenet = load_spec(GRID.with_name("imagenet_grid.yaml"), nowhere)
    assert train_images(imagenet) == (round(1_281_167 * 0.96), False)
    folder = ["dataset={name: imagefolder, root: /nowhere/at/all}", "recipe={base: rsb_a2}", "resources.workers=1"]
    with pytest.raises(
        ValueError, match=r"^--measure needs to know the number of images, but the data are not on this"
    ):
        train_images(load_spec(GRID, folder))


def test_totals_by_hand() -> None:
    """Two backbones x one optimizer, one of them out of memory: 36 s an epoch, two ranks, weights and momentum."""
    spec = load_spec(GRID, ["resources.workers=2", "dataset.root=/nowhere/at/all"])
    grid = plan_grid(spec, "[rd]e[si]*t*/sgd")
    assert [planned.cell.backbone for planned in grid.cells] == ["resnet50", "deit_small"]
    planned = cost(spec, grid)
    rows = [row("resnet50"), row("deit_small", seconds_per_epoch=None, seconds_range=None, largest_batch=64)]
    found = totals(spec, grid, planned, rows)
    assert found.device_hours == pytest.approx(planned.epochs_expected / 2 * 36 * 2 / 3600)
    assert found.device_hours_range == pytest.approx([found.device_hours * end / 36 for end in (30, 45)])
    assert found.device_hours_worst == pytest.approx(planned.epochs_worst / 2 * 36 * 2 / 3600)
    assert found.checkpoint_gib == pytest.approx(0.1 * 2, rel=0.05)
    assert list(warnings(grid, rows, "a GPU")) == [
        "the 1 cells of deit_small do not fit into the memory of a GPU: a rank sees 100 images at a time, and 64 fit; "
        "raise accumulation in its recipe, or resources.workers"
    ]


def test_out_of_memory_is_found_and_said(monkeypatch: pytest.MonkeyPatch, tiny: Path) -> None:
    spec = load_spec(tiny)
    grid = plan_grid(spec, "test_vit/*")
    real = Load.epochs

    def small_device(load: Load, *args: Any, **kwargs: Any) -> Iterator[Any]:
        if load.recipe.batch_size > 10:
            raise torch.OutOfMemoryError("CUDA out of memory")
        yield from real(load, *args, **kwargs)

    monkeypatch.setattr(Load, "epochs", small_device)
    (found,) = measure(spec, grid)
    assert (found.seconds_per_epoch, found.peak_memory_gib) == (None, None)
    assert "2 cells of test_vit do not fit" in next(warnings(grid, [found], "CPU"))
    load = load_of(spec, grid.cells[0])
    assert [fits(load, "cpu", batch) for batch in (16, 8)] == [False, True]


def test_weights_are_those_of_the_model(tiny: Path) -> None:
    spec = load_spec(tiny)
    load = load_of(spec, plan_grid(spec).cells[0])
    assert weights_bytes(load) == 4 * sum(value.numel() for value in load.model().state_dict().values())


def test_a_plan_with_measurements(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tiny: Path
) -> None:
    monkeypatch.setattr(sys, "argv", ["bocb-tune", "plan", str(tiny), "--measure", "--json", "--only", "test_vit/*"])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    assert not exit_.value.code
    found = json.loads(capsys.readouterr().out)["measured"]
    assert (found["images"], found["counted"], found["device"][:3]) == (1197, True, "CPU")
    (only,) = found["backbones"]
    assert (only["optimizer"], only["batch"], only["largest_batch"]) == ("adamw", 32, None)
    assert only["seconds_per_epoch"] > 0
    assert only["seconds_range"][0] <= only["seconds_per_epoch"] <= only["seconds_range"][1]
    assert (only["decoding_seconds"], found["decoding"]) == (None, None)
    assert found["slots"] == os.cpu_count()
    assert found["checkpoint_gib"] == pytest.approx(only["weights_gib"] * (2 + 3), rel=0.05)


def test_the_text_says_what_was_not_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tiny: Path
) -> None:
    rows = [row("test_vit", peak_memory_gib=None, largest_batch=None)]
    monkeypatch.setattr("bocb_tune.profiling.measure.measure", lambda *_: iter(rows))
    monkeypatch.setattr(sys, "argv", ["bocb-tune", "plan", str(tiny), "--measure", "--only", "test_vit/*"])
    with pytest.raises(SystemExit):
        cli.main()
    out = capsys.readouterr().out
    assert "Peak memory and largest batch are not measured on a CPU." in out
    assert "random images in the shape of digits's" in out
    assert "Not in the times: validation" in out


@pytest.mark.parametrize(
    ("on_gpu", "found"),
    [(True, (4.0, 5.0, 8.0)), (False, (1.0 + 4, 2.0 + 5, 8.0 + 6))],
)
def test_decoding_beside_a_gpu_hides_and_beside_a_cpu_adds_up(on_gpu: bool, found: tuple[float, ...]) -> None:
    assert epoch_seconds([2.0, 1.0, 8.0], [5.0, 4.0, 6.0], on_gpu=on_gpu) == found
    assert epoch_seconds([2.0], [], on_gpu=on_gpu) == (2.0, 2.0, 2.0)
    assert epoch_seconds([], [5.0], on_gpu=on_gpu) is None


def test_the_seconds_of_an_epoch_of_loading_by_hand() -> None:
    """The first batch takes the start; 90 more images at 30 a second take 3 s."""
    loading = Loading(start_s=2.0, images_per_s=30.0)
    assert loading.epoch_s(100, 10) == pytest.approx(5.0)
    assert loading.epoch_s(10, 10) == 2.0


SLOW_S = 0.02


def slowly(*args: Any) -> Any:
    time.sleep(SLOW_S)
    return decode(*args)


def test_files_are_decoded_while_it_is_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each image takes as long to decode as it is made to, in one process."""
    root = make_folder(tmp_path / "pets", {"train/cat": 20, "train/dog": 20}, size=(16, 16))
    path = tmp_path / "pets.yaml"
    dataset = f"{{name: imagefolder, root: {root}, image_size: 32, loader_workers: 0}}"
    text = TINY.replace("{name: digits, image_size: 16}", dataset).replace("[test_vit, test_resnet]", "[test_resnet]")
    path.write_text(text.replace("batch_size: 32", "batch_size: 8, augment: none"))
    monkeypatch.setattr("bocb_tune.data.files.decode", slowly)
    spec, threads = load_spec(path), torch.get_num_threads()
    (found,) = measure(spec, plan_grid(spec, "*/sgd"))
    assert found.decoding_seconds is not None
    assert 32 * SLOW_S < found.decoding_seconds < 4 * 32 * SLOW_S
    assert found.seconds_per_epoch is not None
    assert found.seconds_per_epoch > found.decoding_seconds
    assert torch.get_num_threads() == threads
    total = totals(spec, plan_grid(spec, "*/sgd"), cost(spec, plan_grid(spec, "*/sgd")), [found])
    assert total.decoding is True


def test_files_that_are_not_here_are_said_not_to_be_in_the_times() -> None:
    spec = load_spec(GRID.with_name("imagenet_grid.yaml"), ["dataset.root=/nowhere/at/all"])
    grid = plan_grid(spec, "resnet50/sgd")
    total = totals(spec, grid, cost(spec, grid), [row("resnet50")])
    assert total.decoding is False
    assert "not on this machine" in " ".join(measured_lines(spec, total))


def test_a_task_without_models_is_refused(tiny: Path) -> None:
    tiny.write_text(TINY.replace("classification", "synthetic").replace("{name: digits, image_size: 16}", "synthetic"))
    spec: ExperimentSpec = load_spec(tiny)
    with pytest.raises(ValueError, match=r"^--measure trains classifiers, and the task is 'synthetic'; leave it out"):
        next(measure(spec, plan_grid(spec)))
