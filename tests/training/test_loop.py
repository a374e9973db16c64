"""The loop: what is trained on, that a resume changes nothing, and how a trial ends early."""

from __future__ import annotations

import itertools
import math
import random
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from bocb_tune.core.errors import Diverged, Left, OutOfMemory
from bocb_tune.core.files import LATEST
from bocb_tune.core.storage import Folder
from bocb_tune.core.types import Measurement, TrialSpec
from bocb_tune.data import files, resolve_options
from bocb_tune.optimizers import OPTIMIZERS
from bocb_tune.tasks import classification, get_task
from bocb_tune.training import pauses
from bocb_tune.training.checkpoint import BEFORE, Checkpoints
from bocb_tune.training.context import Context, Ranks
from bocb_tune.training.distributed import all_reduce, gather_objects, require_same
from bocb_tune.training.loop import catch_out_of_memory, fit
from bocb_tune.training.recipes import Recipe
from bocb_tune.training.schedule import epoch_order, epoch_plan, lr_factor
from tests.support.processes.ranks import on_two_ranks
from tests.support.trials import QUICK, Toy, digits_trial, make_folder

TIMES = ("images_per_s", "seconds", "peak_memory_gib")
RESUMED = ("sgd", "adamw", "lamb", "soap", "sophia", "prodigy", "schedulefree_adamw")
"""Optimizers unlike one another in what a resume must restore; that all keep their state is tested with them."""


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every backbone is a Toy."""
    monkeypatch.setattr(classification, "build_backbone", lambda *_, **__: Toy())


@pytest.fixture
def smooth_toy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Toy whose loss is a mean over images: neither normalisation over the batch nor dropout."""
    monkeypatch.setattr(classification, "build_backbone", lambda *_, **__: Toy(dropout=0.0, norm=False))


def run(trial: TrialSpec, folder: Path | None = None, **context: Any) -> list[Measurement]:
    checkpoints = Checkpoints(folder) if folder else None
    return list(get_task("classification").run(trial, Context(checkpoints=checkpoints, **context)))


def trained(trial: TrialSpec, folder: Path, **context: Any) -> dict[str, Any]:
    """The final checkpoint."""
    run(trial, folder, **context)
    state = Checkpoints(folder).load()
    assert state is not None
    return state


def timeless(measurements: list[Measurement]) -> list[dict[str, float]]:
    return [{k: v for k, v in m.metrics.items() if k not in TIMES} for m in measurements]


def assert_same(actual: Any, expected: Any) -> None:
    """Bitwise equality of nested states."""
    if isinstance(expected, dict):
        assert actual.keys() == expected.keys()
        for key, value in expected.items():
            assert_same(actual[key], value)
    elif isinstance(expected, (list, tuple)):
        assert len(actual) == len(expected)
        for a, e in zip(actual, expected, strict=True):
            assert_same(a, e)
    elif torch.is_tensor(expected):
        assert torch.equal(actual, expected)
    else:
        assert actual == expected


# What each step sees


@pytest.mark.parametrize(
    ("step", "factor"),
    [(0, 0.25), (3, 1.0), (4, 1.0), (8, 0.1 + 0.9 * (1 + math.cos(math.pi / 4)) / 2), (12, 0.55), (20, 0.1)],
)
def test_the_schedule_at_known_steps(step: int, factor: float) -> None:
    assert lr_factor(step, total=20, warmup=4, min_ratio=0.1) == pytest.approx(factor)


def test_the_schedule_without_warmup_starts_at_the_peak_and_falls() -> None:
    factors = [lr_factor(step, total=50, warmup=0, min_ratio=0.0) for step in range(50)]
    assert factors[0] == 1.0
    assert factors == sorted(factors, reverse=True)
    assert 0 < factors[-1] < 0.01


def test_the_order_is_a_pure_function_of_seed_and_epoch() -> None:
    torch.manual_seed(0)
    order = epoch_order(100, seed=1, epoch=2)
    torch.manual_seed(1)
    assert torch.equal(order, epoch_order(100, seed=1, epoch=2))
    assert order.sort().values.tolist() == list(range(100))
    assert not torch.equal(order, epoch_order(100, seed=2, epoch=2))
    assert not torch.equal(order, epoch_order(100, seed=1, epoch=3))


@pytest.mark.parametrize(
    ("world_size", "accumulation", "divisor"), [(1, 1, 1), (1, 4, 1), (2, 2, 1), (3, 1, 2), (2, 1, 5)]
)
def test_a_step_sees_the_same_images_however_they_are_shared_out(
    world_size: int, accumulation: int, divisor: int
) -> None:
    order, recipe = epoch_order(100, seed=0, epoch=1), Recipe(batch_size=24, accumulation=accumulation)
    plans = [epoch_plan(order, recipe, Ranks(rank=rank, world_size=world_size), divisor) for rank in range(world_size)]
    assert [len(plan) for plan in plans] == [4] * world_size
    for step in range(4):
        seen = torch.cat([piece for plan in plans for piece in plan[step]])
        assert torch.equal(seen, order[24 * step : 24 * (step + 1)])
    largest = max(len(piece) for piece in plans[0][0])
    assert largest == 24 // world_size // accumulation // divisor


@pytest.mark.parametrize(
    ("recipe", "world_size", "message"),
    [
        (Recipe(batch_size=200), 1, "'batch_size' is 200, more than the 100 training images"),
        (Recipe(batch_size=25), 2, "'batch_size' is 25; with 2 ranks and accumulation 1 .* multiple of 2, such as 24"),
        (Recipe(batch_size=20, accumulation=4), 2, "multiple of 8, such as 16"),
    ],
)
def test_a_batch_that_cannot_be_shared_out_is_refused(recipe: Recipe, world_size: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        epoch_plan(torch.arange(100), recipe, Ranks(world_size=world_size))


# A resume changes nothing


def interrupted(trial: TrialSpec, folder: Path, stops: list[int]) -> dict[str, Any]:
    """The final checkpoint of a trial that was stopped after each of these epochs, in a process that went on living."""
    for stop in stops:
        generator = get_task("classification").run(trial, Context(checkpoints=Checkpoints(folder)))
        assert [next(generator).budget for _ in range(stop)] == list(range(1, stop + 1))
        generator.close()
        torch.manual_seed(stop), random.seed(stop), np.random.seed(stop)
    return trained(trial, folder)


def without_times(state: dict[str, Any]) -> dict[str, Any]:
    """A state, its curve without what a clock or the machine decides."""
    return state | {"curve": timeless([Measurement.from_json(line) for line in state["curve"]])}


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize(
    "optimizer", [pytest.param(name, marks=() if name in RESUMED else pytest.mark.slow) for name in OPTIMIZERS]
)
def test_a_resume_is_bitwise_equal(tmp_path: Path, optimizer: str) -> None:
    recipe: dict[str, Any] = {
        "ema_decay": 0.9,
        "accumulation": 2,
        "warmup_epochs": 1.5,
        "clip_grad": 1.0,
        "label_smoothing": 0.1,
    }
    trial = digits_trial(optimizer=optimizer, lr=1e-3, budget=4, **recipe)
    whole = trained(trial, tmp_path / "whole")
    for number, stops in enumerate([[1, 3], [2]]):
        resumed = interrupted(trial, tmp_path / str(number), stops)
        assert_same(without_times(resumed), without_times(whole))


@pytest.mark.parametrize("backbone", ["test_vit", "test_efficientnet"])
def test_a_resume_of_a_real_backbone_is_bitwise_equal(tmp_path: Path, backbone: str) -> None:
    trial = digits_trial(backbone, budget=3, drop_path=0.3, ema_decay=0.9, precision="bf16")
    resumed = interrupted(trial, tmp_path / "resumed", [1])
    assert_same(without_times(resumed), without_times(trained(trial, tmp_path / "whole")))


# Within an epoch


def leaving_after(steps: int) -> dict[str, Any]:
    """What a context must hold for a trial to be left after so many steps."""
    taken = itertools.count(1)
    last = 0

    def after_step() -> None:
        nonlocal last
        last = next(taken)

    return {"after_step": after_step, "must_leave": lambda: last >= steps}


def left_and_resumed(trial: TrialSpec, folder: Path, stops: list[int]) -> dict[str, Any]:
    """The final checkpoint of a trial that was left after so many steps each time, with no checkpoint of an epoch."""
    for stop in stops:
        with pytest.raises(Left):
            run(trial, folder, checkpoint_every=1000, **leaving_after(stop))
        torch.manual_seed(stop), random.seed(stop), np.random.seed(stop)
    return trained(trial, folder, checkpoint_every=1000)


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize(
    "optimizer", [pytest.param(name, marks=() if name in RESUMED else pytest.mark.slow) for name in OPTIMIZERS]
)
def test_a_trial_left_at_any_step_goes_on_bitwise(tmp_path: Path, optimizer: str) -> None:
    """Sampler position, generators, optimizer, average and mixing are as if nothing had happened."""
    recipe: dict[str, Any] = {
        "ema_decay": 0.9,
        "ema_warmup": True,
        "accumulation": 2,
        "warmup_epochs": 1.5,
        "clip_grad": 1.0,
        "mixup": 0.8,
        "cutmix": 1.0,
    }
    trial = digits_trial(optimizer=optimizer, lr=1e-3, budget=3, **recipe)
    whole = trained(trial, tmp_path / "whole")
    draw = random.Random(optimizer)
    for number in range(3):
        stops = [draw.randint(1, 7) for _ in range(draw.randint(1, 3))]
        # of four steps an epoch, the last is never left after: validation follows, and the next epoch's first step
        stops = stops if sum(stops) < 8 else [stops[0]]
        resumed = left_and_resumed(trial, tmp_path / str(number), stops)
        assert_same(without_times(resumed), without_times(whole))


@pytest.mark.parametrize("backbone", ["test_vit", "test_efficientnet"])
def test_a_real_backbone_left_within_an_epoch_goes_on_bitwise(tmp_path: Path, backbone: str) -> None:
    trial = digits_trial(backbone, budget=2, drop_path=0.3, ema_decay=0.9)
    resumed = left_and_resumed(trial, tmp_path / "resumed", [2, 3])
    assert_same(without_times(resumed), without_times(trained(trial, tmp_path / "whole")))


def test_images_from_files_go_on_where_they_were_without_decoding_the_others_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_folder(tmp_path / "data", {"train/a": 24, "train/b": 24})
    dataset = {"name": "imagefolder", "root": str(root), "image_size": 32, "val_share": 0.25, "loader_workers": 0}
    options = {
        **resolve_options("imagefolder", {k: v for k, v in dataset.items() if k != "name"}),
        "name": "imagefolder",
    }
    recipe = {"batch_size": 6, "augment": "flip_crop", "mixup": 0.8, "erase": 0.3}
    trial = digits_trial("test_vit", budget=1, dataset=options, **recipe)
    whole = trained(trial, tmp_path / "whole")
    resumed_folder = tmp_path / "resumed"
    with pytest.raises(Left):
        run(trial, resumed_folder, **leaving_after(4))
    decoded = itertools.count()
    sound = files.decode
    monkeypatch.setattr(files, "decode", lambda *given: (next(decoded), sound(*given))[1])
    assert_same(without_times(trained(trial, resumed_folder)), without_times(whole))
    assert next(decoded) == 2 * 6 + 12  # two steps of six that were left, and those to validate on


@pytest.mark.usefixtures("toy")
def test_a_trial_killed_at_any_step_loses_no_more_than_a_step(tmp_path: Path) -> None:
    """A checkpoint after every step: whatever comes next, it goes on from the last one."""
    trial = digits_trial(budget=2)
    whole = trained(trial, tmp_path / "whole")
    for killed in range(1, 9):
        folder, taken, left = tmp_path / str(killed), itertools.count(1), itertools.count(1)

        def kill(taken: Iterator[int] = taken, killed: int = killed) -> None:
            if next(taken) == killed:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run(trial, folder, checkpoint_every_s=0.0, after_step=kill)
        resumed = trained(trial, folder, after_step=lambda left=left: next(left))
        assert_same(without_times(resumed), without_times(whole))
        # the step it was killed in is done again; at an epoch's end that is the last, since its checkpoint comes later
        assert next(left) - 1 == 8 - killed + 1


@pytest.mark.usefixtures("toy")
def test_a_resume_yields_the_whole_curve(tmp_path: Path) -> None:
    trial = digits_trial(budget=4)
    generator = get_task("classification").run(trial, Context(checkpoints=Checkpoints(tmp_path), checkpoint_every=2))
    first = [next(generator) for _ in range(3)]
    generator.close()
    state = Checkpoints(tmp_path).load()
    assert state is not None
    assert [line["budget"] for line in state["curve"]] == [1, 2]
    second = run(trial, tmp_path)
    assert second[:2] == first[:2]
    assert [m.budget for m in second] == [1, 2, 3, 4]
    assert all(a.elapsed_s < b.elapsed_s for a, b in itertools.pairwise(second))
    assert run(trial, tmp_path) == second


@pytest.mark.usefixtures("toy")
def test_the_checkpoint_of_an_epoch_is_there_before_the_next_ones_measurement(tmp_path: Path) -> None:
    curve: list[dict[str, Any]] = []
    for measurement in get_task("classification").run(digits_trial(), Context(checkpoints=Checkpoints(tmp_path))):
        state = Checkpoints(tmp_path).load()
        curve.append(measurement.to_json())
        assert (state["curve"] if state else []) in (curve, curve[:-1])
    state = Checkpoints(tmp_path).load()
    assert state is not None
    assert state["curve"] == curve


class SlowFolder(Folder):
    """A folder whose files take until `go` to be written."""

    go = threading.Event()

    def write(self, name: str, content: bytes | memoryview) -> None:
        assert self.go.wait(10)
        super().write(name, content)


def test_a_checkpoint_is_written_while_training_goes_on_and_of_the_state_as_it_was(tmp_path: Path) -> None:
    checkpoints, weights = Checkpoints(SlowFolder(tmp_path)), torch.zeros(3)
    SlowFolder.go.clear()
    checkpoints.save({"x": weights})
    weights += 1
    assert not list(tmp_path.iterdir())
    SlowFolder.go.set()
    state = checkpoints.load()
    assert state is not None
    assert state["x"].tolist() == [0.0, 0.0, 0.0]


def damage(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "bit":  # within the values of the tensor, where torch does not look
        content[content.index(np.float32(7).tobytes() * 8) + 5] ^= 1
    path.write_bytes(content[:100] if how == "half" else b"" if how == "empty" else content)


def epoch_in(checkpoints: Checkpoints) -> int | None:
    state = checkpoints.load()
    return state["epoch"] if state else None


@pytest.mark.parametrize("how", ["half", "empty", "bit"])
def test_a_damaged_checkpoint_is_left_for_the_one_before_with_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    checkpoints = Checkpoints(tmp_path / "trial")
    assert epoch_in(checkpoints) is None
    for epoch in (1, 2, 3):
        checkpoints.save({"epoch": epoch, "x": torch.full((100,), 7.0)})
    assert epoch_in(checkpoints) == 3
    damage(tmp_path / "trial" / LATEST, how)
    assert caplog.text == ""
    assert epoch_in(checkpoints) == 2
    assert f"checkpoint {tmp_path}/trial/{LATEST} is damaged" in caplog.text
    damage(tmp_path / "trial" / BEFORE, how)
    assert epoch_in(checkpoints) is None


@pytest.mark.parametrize(("keep", "left"), [(True, [LATEST]), (False, None)])
def test_of_a_trial_that_ends_one_checkpoint_stays_or_none(tmp_path: Path, keep: bool, left: list[str] | None) -> None:
    checkpoints = Checkpoints(tmp_path / "trial")
    for epoch in (1, 2):
        checkpoints.save({"epoch": epoch})
    checkpoints.close(keep=keep)
    folder = tmp_path / "trial"
    assert ([path.name for path in folder.iterdir()] if folder.exists() else None) == left


def test_a_checkpoint_that_cannot_be_written_is_an_error_of_the_trial(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    checkpoints = Checkpoints(tmp_path / "file" / "trial")
    checkpoints.save({"x": 1})
    with pytest.raises(OSError, match="file"):
        checkpoints.save({"x": 2})


def test_a_save_that_fails_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save({"x": 1})
    with pytest.raises(AttributeError):
        checkpoints.save({"x": lambda: None})
    assert checkpoints.load() == {"x": 1}
    assert [path.name for path in tmp_path.iterdir()] == [LATEST]


# Micro-batches


@pytest.mark.usefixtures("smooth_toy")
@pytest.mark.parametrize(("accumulation", "divisor"), [(4, 1), (1, 2), (2, 3)])
def test_accumulation_changes_nothing(tmp_path: Path, accumulation: int, divisor: int) -> None:
    whole = trained(digits_trial("toy", "sgd", lr=0.1), tmp_path / "whole")
    parts = digits_trial("toy", "sgd", lr=0.1, accumulation=accumulation)
    shared_out = trained(parts, tmp_path / "parts", micro_batch_divisor=divisor)
    for name, weight in whole["model"].items():
        torch.testing.assert_close(shared_out["model"][name], weight, rtol=1e-4, atol=1e-5)


# Ends before the end


@pytest.mark.usefixtures("smooth_toy")
def test_a_huge_learning_rate_diverges_within_the_epoch() -> None:
    with pytest.raises(Diverged, match=r"training loss became (nan|inf) by step \d+ in epoch 1") as error:
        run(digits_trial("toy", "sgd", lr=1e30, fixed={"momentum": 0.9}))
    assert error.value.budget == 1


@pytest.mark.usefixtures("toy")
def test_a_divergence_ends_a_long_epoch_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """Within the epoch, not at its end: a tenth of it after the first bad loss at the latest."""
    seen: list[int] = []
    original = classification.Pictures.loss

    def loss(self: classification.Pictures, model: nn.Module, batch: Any) -> torch.Tensor:
        seen.append(len(seen))
        return original(self, model, batch) * (math.nan if len(seen) == 100 else 1.0)

    monkeypatch.setattr(classification.Pictures, "loss", loss)
    with pytest.raises(Diverged):
        run(digits_trial(batch_size=8))
    assert len(seen) == 112  # 149 steps an epoch, looked at every 14


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize("where", ["val_loss", "parameters"])
def test_a_divergence_seen_only_at_the_end_of_the_epoch(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    def poisoned_evaluate(_self: object, _model: nn.Module, _last: bool) -> dict[str, float]:
        return {"score": 10.0, "val_loss": math.inf}

    def poisoned_step(self: torch.optim.SGD) -> None:
        self.param_groups[0]["params"][0].data.fill_(math.nan)

    if where == "val_loss":
        monkeypatch.setattr(classification.Pictures, "evaluate", poisoned_evaluate)
    else:
        monkeypatch.setattr(torch.optim.SGD, "step", poisoned_step)
    message = {"val_loss": "validation loss is inf in epoch 1", "parameters": "norm of the parameters is nan after"}
    with pytest.raises(Diverged, match=message[where]):
        run(digits_trial(optimizer="sgd", batch_size=1024))


class Hungry(Toy):
    """Runs out of memory for more than 64 images at a time."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) > 64:
            raise torch.OutOfMemoryError(f"CUDA out of memory for {len(x)} images")
        return super().forward(x)


def test_out_of_memory_surfaces_and_a_smaller_micro_batch_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classification, "build_backbone", lambda *_, **__: Hungry())
    with pytest.raises(OutOfMemory, match="CUDA out of memory for 128 images") as error:
        run(digits_trial(batch_size=128))
    assert error.value.budget == 1
    assert error.value.__context__ is None
    assert len(run(digits_trial(batch_size=128), micro_batch_divisor=2)) == 2


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), OutOfMemory),
        (MemoryError(), OutOfMemory),
        (RuntimeError("shapes do not match"), RuntimeError),
    ],
)
def test_which_errors_are_out_of_memory(error: Exception, expected: type[Exception]) -> None:
    def measurements() -> Iterator[Measurement]:
        yield Measurement(budget=3, metrics={}, elapsed_s=0.0)
        raise error

    generator = catch_out_of_memory(measurements())
    assert next(generator).budget == 3
    with pytest.raises(expected) as raised:
        next(generator)
    assert type(raised.value) is expected
    assert getattr(raised.value, "budget", 4) == 4


# Ranks


def test_one_rank_needs_no_process_group() -> None:
    assert all_reduce([1.5, -2], "sum", Ranks()) == [1.5, -2]
    assert gather_objects("x", Ranks()) == ["x"]
    require_same(3, "step", Ranks())


SCENARIOS: dict[str, dict[str, Any]] = {
    "whole": {"recipe": {"ema_decay": 0.5, "accumulation": 2}},
    "resumed": {"recipe": {"ema_decay": 0.5, "accumulation": 2}, "stop": 1},
    "paused": {"recipe": {"ema_decay": 0.5, "accumulation": 2}, "leave_after": (1, 4)},
    "smooth": {"toy": {"dropout": 0.0, "norm": False}},
    "diverged": {"lr": 1e30},
    "curved": {"lr": 1e-3, "optimizer": "sophia", "fixed": {"gamma": 100.0}},
}
"""What two ranks do, one after the other in the same two processes, as a warm worker group does."""


def rank_main(ranks: Ranks, folder: Path) -> None:
    """One of two ranks: leaves what it saw of each scenario in `folder`."""
    vars(pauses)["AGREE_S"] = 0.0  # after every step, however quick they are
    for name, scenario in SCENARIOS.items():
        torch.save(rank_outcome(ranks, folder / name, **scenario), folder / f"{name}{ranks.rank}.pt")


def rank_outcome(
    ranks: Ranks,
    folder: Path,
    lr: float = 0.1,
    toy: dict[str, Any] | None = None,
    stop: int = 0,
    recipe: dict[str, Any] | None = None,
    optimizer: str = "sgd",
    fixed: dict[str, Any] | None = None,
    leave_after: tuple[int, ...] = (),
) -> dict[str, Any]:
    vars(classification)["build_backbone"] = lambda *_, **__: Toy(**(toy or {}))
    trial = digits_trial("toy", optimizer, lr=lr, fixed=fixed, **(recipe or {}))
    context = Context(ranks=ranks, checkpoints=Checkpoints(folder))
    if stop:
        generator = get_task("classification").run(trial, context)
        [next(generator) for _ in range(stop)]
        generator.close()
        torch.distributed.barrier()
    for number, steps in enumerate(leave_after):
        # only one rank hears of it, another one each time
        leave = replace(context, **leaving_after(steps if ranks.rank == number % 2 else 10_000))
        with pytest.raises(Left):
            list(get_task("classification").run(trial, leave))
        torch.manual_seed(ranks.rank)
    training = classification.build_training(trial, context)
    curve: list[Measurement] = []
    try:
        curve.extend(fit(training, trial, context))
    except Diverged as error:
        return {"diverged": error.message}
    return {"model": training.model.state_dict(), "curve": [m.to_json() for m in curve]}


@pytest.fixture(scope="module")
def ranks_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two real processes went through all scenarios over gloo."""
    folder = tmp_path_factory.mktemp("ranks")
    on_two_ranks(rank_main, folder)
    return folder


def outcomes(folder: Path, name: str) -> list[dict[str, Any]]:
    """What rank 0 and rank 1 saw."""
    return [torch.load(folder / f"{name}{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.mark.parametrize("name", ["whole", "curved"])
def test_two_ranks_are_one_training(ranks_folder: Path, name: str) -> None:
    first, second = outcomes(ranks_folder, name)
    assert_same(first["model"], second["model"])
    assert first["curve"] == second["curve"]
    assert [m["metrics"]["world_size"] for m in first["curve"]] == [2, 2]
    state = Checkpoints(ranks_folder / name).load()
    assert state is not None
    assert not torch.equal(state["rng"][0]["torch"], state["rng"][1]["torch"])


@pytest.mark.parametrize("name", ["resumed", "paused"])
def test_two_ranks_resume_bitwise(ranks_folder: Path, name: str) -> None:
    whole, resumed = outcomes(ranks_folder, "whole")[0], outcomes(ranks_folder, name)[0]
    assert_same(resumed["model"], whole["model"])
    assert_same(without_times(resumed)["curve"], without_times(whole)["curve"])


@pytest.mark.usefixtures("smooth_toy")
def test_two_ranks_equal_one(tmp_path: Path, ranks_folder: Path) -> None:
    first, _ = outcomes(ranks_folder, "smooth")
    whole = trained(digits_trial("toy", "sgd", lr=0.1), tmp_path)
    for name, weight in whole["model"].items():
        torch.testing.assert_close(first["model"][name], weight, rtol=1e-4, atol=1e-5)
    for key in ("score", "val_loss", "test_score", "train_loss", "lr"):
        one, two = (lines[-1]["metrics"][key] for lines in (whole["curve"], first["curve"]))
        assert two == pytest.approx(one, rel=1e-4), key


def test_two_ranks_diverge_together(ranks_folder: Path) -> None:
    first, second = outcomes(ranks_folder, "diverged")
    assert first == second
    assert "training loss became" in first["diverged"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_gpu_trains_and_resumes(tmp_path: Path, precision: str) -> None:
    trial = digits_trial(
        "test_efficientnet", budget=3, precision=precision, channels_last=True, ema_decay=0.9, clip_grad=1.0
    )
    context = Context(ranks=Ranks(device="cuda:0"), checkpoints=Checkpoints(tmp_path))
    generator = get_task("classification").run(trial, context)
    first = next(generator)
    generator.close()
    measurements = list(get_task("classification").run(trial, context))
    assert measurements[0] == first
    assert len(measurements) == 3
    assert measurements[-1].metrics["train_loss"] < first.metrics["train_loss"]
    assert 0 < first.metrics["peak_memory_gib"] < 4


assert QUICK.batch_size == 256, "numbers of steps above count on it"
