"""What optimizers need of the loop: curvature, an average to be judged at, a schedule of their own; and a new one."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from bocb_tune.cli import main as cli
from bocb_tune.optimizers import OPTIMIZERS, OptimizerRow, build_optimizer
from bocb_tune.optimizers.interfaces import Averaging, SecondOrder, hutchinson
from bocb_tune.spec import space_file as spaces
from bocb_tune.tasks import classification, get_task
from bocb_tune.training.checkpoint import Checkpoints
from bocb_tune.training.context import Context
from tests.support.trials import Toy, digits_trial


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every backbone is a Toy."""
    monkeypatch.setattr(classification, "build_backbone", lambda *_, **__: Toy())


def test_the_estimate_is_exact_where_the_hessian_is_diagonal() -> None:
    """u * Hu = h u^2 for each u, and so h on average; a parameter that the loss does not know has none."""
    parameters = [
        nn.Parameter(torch.randn(50, dtype=torch.double)),
        nn.Parameter(torch.ones(3)),
        nn.Parameter(torch.ones(2)),
    ]
    curvature = torch.linspace(-1, 4, 50, dtype=torch.double)

    def loss() -> torch.Tensor:
        return (curvature * parameters[0].square()).sum() / 2 + parameters[1].sum()

    torch.manual_seed(3)
    first, linear, unknown = hutchinson(loss, parameters)
    torch.manual_seed(3)
    torch.testing.assert_close(first, curvature * torch.randn_like(parameters[0]).square())
    assert (linear.abs().max(), unknown.abs().max()) == (0, 0)
    mean = torch.stack([hutchinson(loss, parameters)[0] for _ in range(2000)]).mean(0)
    torch.testing.assert_close(mean, curvature, rtol=0.15, atol=0.01)
    assert parameters[0].grad is None


def test_sophia_is_its_formula() -> None:
    """Two steps: h and m are means; where h is small or negative the step is lr."""
    weight = nn.Linear(4, 1, bias=False).double()
    optimizer = build_optimizer(
        weight, "sophia", lr=0.1, weight_decay=0.5, betas=(0.9, 0.8), gamma=0.5, update_period=2
    )
    assert isinstance(optimizer, SecondOrder)
    p, m, h = weight.weight.detach().clone(), torch.zeros(1, 4).double(), torch.zeros(1, 4).double()
    gradient, diagonal = torch.tensor([[1.0, -2, 3, -4]]).double(), torch.tensor([[100.0, 20, 1e-3, -5]]).double()
    for step in range(4):
        weight.weight.grad = gradient * (step + 1)
        assert optimizer.curvature_due == (step % 2 == 0)
        m = 0.9 * m + 0.1 * gradient * (step + 1)
        if step % 2 == 0:
            optimizer.observe([diagonal])
            h = 0.8 * h + 0.2 * diagonal
        p = p * (1 - 0.1 * 0.5) - 0.1 * (m / (0.5 * h).clamp(min=1e-12)).clamp(-1, 1)
        optimizer.step()
        torch.testing.assert_close(weight.weight.detach(), p)


def test_sophia_does_not_step_without_its_estimate() -> None:
    model = nn.Linear(2, 1)
    optimizer = build_optimizer(model, "sophia", lr=0.1, weight_decay=0.0)
    model.weight.grad, model.bias.grad = torch.ones(1, 2), torch.ones(1)
    with pytest.raises(RuntimeError, match=r"estimate of the curvature at this step: call observe\(\) before step"):
        optimizer.step()


@pytest.mark.parametrize("backbone", ["test_vit", pytest.param("test_efficientnet", marks=pytest.mark.slow)])
def test_sophia_sees_the_curvature_of_attention_and_convolutions(tmp_path: Path, backbone: str) -> None:
    trial = digits_trial(backbone, "sophia", lr=1e-4, budget=1, precision="bf16", accumulation=2)
    list(get_task("classification").run(trial, Context(checkpoints=Checkpoints(tmp_path))))
    state = Checkpoints(tmp_path).load()
    assert state is not None
    curvature = torch.cat([entry["hessian_moment"].flatten() for entry in state["optimizer"]["state"].values()])
    assert torch.isfinite(curvature).all()
    assert curvature.count_nonzero() > 0.95 * len(curvature)


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize("optimizer", ["schedulefree_sgd", "schedulefree_adamw"])
def test_an_averaging_optimizer_is_saved_at_its_average(tmp_path: Path, optimizer: str) -> None:
    """And with the statistics of BatchNorm there; its learning rate stays at the peak."""
    trial = digits_trial("toy", optimizer, lr=0.01, budget=2, warmup_epochs=1)
    measurements = list(get_task("classification").run(trial, Context(checkpoints=Checkpoints(tmp_path))))
    assert [m.metrics["lr"] for m in measurements] == [0.01, 0.01]
    state = Checkpoints(tmp_path).load()
    assert state is not None
    assert [group["train_mode"] for group in state["optimizer"]["param_groups"]] == [False, False]
    assert state["model"]["norm.num_batches_tracked"] == 4  # a whole epoch of four batches, counted anew
    model = Toy()
    model.load_state_dict(state["model"])
    again = build_optimizer(model, optimizer, lr=0.01, weight_decay=0.05)
    assert isinstance(again, Averaging)
    again.load_state_dict(state["optimizer"])
    average = model.head.weight.detach().clone()
    again.eval()
    assert torch.equal(model.head.weight, average)
    again.train()
    newest = again.state[model.head.weight]["z"]
    torch.testing.assert_close(model.head.weight.detach(), 0.9 * average + 0.1 * newest)


def test_only_those_two_average_and_own_their_schedule() -> None:
    def averages(name: str) -> bool:
        return isinstance(build_optimizer(nn.Linear(2, 2), name, lr=0.1, weight_decay=0.0), Averaging)

    assert {name for name in OPTIMIZERS if averages(name)} == {"schedulefree_sgd", "schedulefree_adamw"}
    assert {name for name, row in OPTIMIZERS.items() if row.schedule == "own"} == {
        "schedulefree_sgd",
        "schedulefree_adamw",
    }


NEW = OptimizerRow(
    name="asgd",
    target="torch.optim:ASGD",
    family="other",
    decay="coupled_l2",
    takes=("lambd", "alpha", "t0"),
    source="Polyak & Juditsky 1992",
)
SPACE = """\
lr: {low: 1e-3, high: 1}
weight_decay: {low: 1e-6, high: 1e-2, zero: 0.1}
default: {lr: 0.1, weight_decay: 1e-4}
fixed: {t0: 10.0}
decay: coupled_l2
source: Polyak & Juditsky 1992
"""
SPEC = """\
name: new
task: classification
dataset: {name: digits, image_size: 16}
backbones: [test_mambaout]
optimizers: [asgd]
recipe: digits
budget: {epochs: 1, trials_per_cell: 4}
search: {design: 2, asha: null}
"""


@pytest.fixture
def asgd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One row and one file."""
    monkeypatch.setitem(OPTIMIZERS, "asgd", NEW)
    (tmp_path / "asgd.yaml").write_text(SPACE)
    monkeypatch.setattr(spaces, "resources", SimpleNamespace(files=lambda _: tmp_path))
    for cached in (spaces.available_spaces, spaces.space_file):
        cached.cache_clear()
    yield
    for cached in (spaces.available_spaces, spaces.space_file):
        cached.cache_clear()


@pytest.mark.usefixtures("asgd")
def test_a_new_optimizer_is_one_row_and_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "spec.yml").write_text(SPEC)
    arguments: list[Any] = ["bocb-tune", "trial", tmp_path / "spec.yml", "--cell", "test_mambaout/asgd"]
    monkeypatch.setattr(sys, "argv", list(map(str, arguments)))
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    out = capsys.readouterr().out
    assert exit_.value.code in (0, None), out
    assert "epoch 1/1" in out


@pytest.mark.parametrize("name", ["lars", "muon", "sgd"])
def test_the_list_says_what_an_optimizer_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    row = OPTIMIZERS[name]
    for flag in ([], ["--json"]):
        monkeypatch.setattr(sys, "argv", ["bocb-tune", "list", "optimizers", *flag])
        with pytest.raises(SystemExit):
            cli.main()
    text, _, rows = capsys.readouterr().out.partition("\n[")
    (line,) = (line for line in text.splitlines() if line.split()[0] == name)
    for said in (row.family, row.target, row.decay, row.source):
        assert said in line
    (listed,) = (entry for entry in json.loads("[" + rows) if entry["name"] == name)
    assert (listed["note"], listed["choice"]) == (row.note, row.choice)
