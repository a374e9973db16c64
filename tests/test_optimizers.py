"""One contract for every row of OPTIMIZERS."""

from __future__ import annotations

import importlib
import inspect
import io
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn

from bocb_tune.optimizers import OPTIMIZERS, build_optimizer, param_groups

LR = 1e-2
DECAY = 0.1

every_optimizer = pytest.mark.parametrize("name", sorted(OPTIMIZERS))


class Toy(nn.Module):
    """A matrix, a bias, a norm's scale and an embedding that the model exempts by name."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(8, 4, generator=generator))
        self.bias = nn.Parameter(torch.randn(4, generator=generator))
        self.scale = nn.Parameter(torch.ones(4))
        self.pos_embed = nn.Parameter(torch.randn(1, 3, 4, generator=generator))

    def no_weight_decay(self) -> set[str]:
        return {"pos_embed"}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x @ self.weight + self.bias) * self.scale + self.pos_embed.mean((0, 1))


def one_step(name: str, *, lr: float = LR, weight_decay: float = 0.0, grad: float | None, **fixed: Any) -> Toy:
    """A Toy after one step with a constant gradient (None: drawn at random)."""
    model = Toy()
    optimizer = build_optimizer(model, name, lr=lr, weight_decay=weight_decay, **fixed)
    for index, parameter in enumerate(model.parameters()):
        generator = torch.Generator().manual_seed(index)
        random = torch.randn(parameter.shape, generator=generator)
        parameter.grad = random if grad is None else torch.full_like(parameter, grad)
    optimizer.step()
    return model


@every_optimizer
def test_the_row_tells_the_truth_about_the_class(name: str) -> None:
    row = OPTIMIZERS[name]
    module, attribute = row.target.split(":")
    arguments = inspect.signature(getattr(importlib.import_module(module), attribute)).parameters
    assert row.name == name
    assert row.source
    assert set(row.takes) <= set(arguments) - {"lr", "weight_decay", "params"}


@every_optimizer
def test_descends_a_quadratic(name: str) -> None:
    model = Toy()
    optimizer = build_optimizer(model, name, lr=LR, weight_decay=1e-4)
    x = torch.randn(64, 8, generator=torch.Generator().manual_seed(1))
    losses = []
    for _ in range(200):
        loss = (model(x) - 1).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


@every_optimizer
def test_the_first_step_is_proportional_to_lr(name: str) -> None:
    start = Toy().weight.detach()
    small = one_step(name, lr=1e-4, grad=None).weight.detach() - start
    large = one_step(name, lr=1e-3, grad=None).weight.detach() - start
    torch.testing.assert_close(large, 10 * small, rtol=2e-2, atol=1e-6)
    assert small.abs().min() > 0


SHRUNK = {
    # p after one step without a gradient, as a multiple of p; momentum 0.9 for sgdp
    "sgd": 1 - LR * DECAY,
    "sgdp": 1 - LR * DECAY / (1 - 0.9) * 0.1,  # a zero gradient is orthogonal to the weight: wd_ratio
    "lion": 1 - LR * DECAY,
    "adamw": 1 - LR * DECAY,
    "lamb": 1 - LR,  # the trust ratio |p| / |decay p| cancels the decay when there is nothing else in the update
    "adan": 1 / (1 + LR * DECAY),
}


@every_optimizer
def test_what_decay_does_to_a_weight_without_gradient(name: str) -> None:
    fixed = {"momentum": 0.9} if name in ("sgd", "sgdp") else {}
    start = Toy().weight.detach()
    weight = one_step(name, weight_decay=DECAY, grad=0.0, **fixed).weight.detach()
    # Adam normalises decay p away to its sign
    expected = start - LR * start.sign() if name == "adam" else SHRUNK[name] * start
    torch.testing.assert_close(weight, expected, rtol=1e-5, atol=1e-5)


@every_optimizer
def test_the_kind_of_decay(name: str) -> None:
    """Coupled decay passes through the optimizer's state; decoupled decay leaves the state of an undecayed twin."""
    states = []
    for weight_decay in (0.0, DECAY):
        model = Toy()
        optimizer = build_optimizer(model, name, lr=LR, weight_decay=weight_decay, **momentum(name))
        model.weight.grad = torch.ones_like(model.weight)
        optimizer.step()
        states.append([v for v in optimizer.state[model.weight].values() if torch.is_tensor(v)])
    coupled = any(not torch.equal(a, b) for a, b in zip(*states, strict=True))
    assert coupled == (OPTIMIZERS[name].decay == "coupled_l2")


@every_optimizer
def test_no_decayed_share_is_independent_of_lr(name: str) -> None:
    start = Toy().weight.detach()
    shrunk = [one_step(name, lr=lr, weight_decay=DECAY, grad=0.0).weight.detach() - start for lr in (1e-4, 1e-3)]
    assert OPTIMIZERS[name].decay != "decoupled_independent"
    assert shrunk[1].norm() / shrunk[0].norm() == pytest.approx(10, rel=1e-2)


@every_optimizer
def test_undecayed_parameters_stay_without_gradient(name: str) -> None:
    model, start = one_step(name, weight_decay=DECAY, grad=0.0), Toy()
    for exempt in ("bias", "scale", "pos_embed"):
        assert torch.equal(getattr(model, exempt), getattr(start, exempt)), exempt
    assert not torch.equal(model.weight, start.weight)


@every_optimizer
def test_state_makes_a_bitwise_round_trip(name: str) -> None:
    def steps(model: Toy, optimizer: torch.optim.Optimizer, seeds: range) -> None:
        for seed in seeds:
            for parameter in model.parameters():
                parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed))
            optimizer.step()

    def build() -> tuple[Toy, torch.optim.Optimizer]:
        model = Toy()
        return model, build_optimizer(model, name, lr=LR, weight_decay=DECAY)

    whole, whole_optimizer = build()
    steps(whole, whole_optimizer, range(6))
    first, first_optimizer = build()
    steps(first, first_optimizer, range(3))
    file = io.BytesIO()
    torch.save([first.state_dict(), first_optimizer.state_dict()], file)
    file.seek(0)
    weights, state = torch.load(file, weights_only=True)
    second, second_optimizer = build()
    second.load_state_dict(weights)
    second_optimizer.load_state_dict(state)
    steps(second, second_optimizer, range(3, 6))
    for parameter, expected in zip(second.parameters(), whole.parameters(), strict=True):
        assert torch.equal(parameter, expected)


@every_optimizer
def test_works_under_bf16_autocast(name: str) -> None:
    model = Toy()
    optimizer = build_optimizer(model, name, lr=LR, weight_decay=DECAY)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(torch.randn(16, 8))
        loss = (output - 1).square().mean()
    loss.backward()
    optimizer.step()
    assert model.weight.dtype == torch.float32
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())


@every_optimizer
def test_an_argument_it_does_not_take_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=rf"unknown argument of optimizer '{name}' 'nestorov'.*known: ") as error:
        build_optimizer(Toy(), name, lr=LR, weight_decay=0.0, nestorov=True)
    assert all(argument in str(error.value) for argument in OPTIMIZERS[name].takes)


@every_optimizer
def test_every_argument_it_takes_is_taken(name: str) -> None:
    model = Toy()
    optimizer = build_optimizer(model, name, lr=LR, weight_decay=0.0)
    for argument in OPTIMIZERS[name].takes:
        again = build_optimizer(model, name, lr=LR, weight_decay=0.0, **{argument: optimizer.defaults[argument]})
        assert again.defaults == optimizer.defaults


def momentum(name: str) -> dict[str, float]:
    return {"momentum": 0.9} if name == "sgd" else {}


def test_lamb_without_decay_has_no_trust_ratio() -> None:
    """As the row's note says: what is compared with decay 0 is Adam, unless `always_adapt`."""
    start = Toy().weight.detach()
    moved = one_step("lamb", grad=0.01).weight.detach() - start
    adapted = one_step("lamb", grad=0.01, always_adapt=True).weight.detach() - start
    assert moved.norm() == pytest.approx(LR * moved.numel() ** 0.5, rel=1e-3)
    assert adapted.norm() == pytest.approx(LR * start.norm().item(), rel=1e-3)


def test_groups_hold_each_trainable_parameter_once() -> None:
    model = Toy()
    model.scale.requires_grad_(False)
    decayed, undecayed = param_groups(model, DECAY)
    assert [p is model.weight for p in decayed["params"]] == [True]
    assert {id(p) for p in undecayed["params"]} == {id(model.bias), id(model.pos_embed)}
    assert (decayed["weight_decay"], undecayed["weight_decay"]) == (DECAY, 0.0)


def test_an_empty_group_is_left_out() -> None:
    assert [group["weight_decay"] for group in param_groups(nn.LayerNorm(4), DECAY)] == [0.0]


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"unknown optimizer 'adamww'; did you mean 'adamw'\? \(known: adam, adamw"):
        build_optimizer(Toy(), "adamww", lr=LR, weight_decay=0.0)


def test_the_tables_import_no_torch() -> None:
    modules = "bocb_tune.optimizers, bocb_tune.recipes, bocb_tune.data, bocb_tune.tasks, bocb_tune.backbones"
    code = f"import sys, {modules}; assert not {{'torch', 'timm', 'numpy', 'sklearn'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
