"""One contract for every row of OPTIMIZERS."""

from __future__ import annotations

import importlib
import inspect
import io
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from bocb_tune.analysis.names.look import optimizer_family
from bocb_tune.optimizers import OPTIMIZERS, build_optimizer, param_groups
from bocb_tune.optimizers.interfaces import Averaging, SecondOrder, hutchinson
from bocb_tune.spec.space_file import load_space
from bocb_tune.training.context import Ranks
from bocb_tune.training.distributed import average
from tests.support.processes.ranks import on_two_ranks

LR = 1e-2
DECAY = 0.1
ITERATES = ("z", "p0")
"""State that holds weights, not gradients."""
ROUGH = {
    "sophia": "its curvature is estimated from one piece of the batch, with random probes",
    "soap": "where few gradients were seen, rounding decides on the basis that it works in",
}
"""Optimizers whose steps are no continuous function of the batch's mean gradient."""

every_optimizer = pytest.mark.parametrize("name", OPTIMIZERS)


class ToyNet(nn.Module):
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

    def forward(self, x: Tensor) -> Tensor:
        return (x @ self.weight + self.bias) * self.scale + self.pos_embed.mean((0, 1))


class Layers(nn.Sequential):
    def group_matcher(self, coarse: bool = False) -> dict[str, str]:  # noqa: ARG002
        return {"stem": r"^0", "blocks": r"^(\d+)"}


def build(model: nn.Module, name: str, lr: float = LR, weight_decay: float = DECAY, **changes: Any) -> Optimizer:
    """With the fixed arguments of the shipped search space, and changes to them."""
    return build_optimizer(model, name, lr=lr, weight_decay=weight_decay, **{**load_space(name).fixed, **changes})


def step(optimizer: Optimizer) -> None:
    """A step along the gradients there are; the curvature, where one is due, is 1 everywhere."""
    if isinstance(optimizer, SecondOrder) and optimizer.curvature_due:
        optimizer.observe([torch.ones_like(p) for group in optimizer.param_groups for p in group["params"]])
    optimizer.step()


def random_gradients(model: nn.Module, seed: int = 0, zero: Iterable[str] = ()) -> None:
    for index, (name, parameter) in enumerate(model.named_parameters()):
        generator = torch.Generator().manual_seed(1000 * seed + index)
        gradient = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
        parameter.grad = torch.zeros_like(gradient) if name in zero else gradient


def first_move(name: str, *, lr: float = LR, weight_decay: float = 0.0, zero: Iterable[str] = ()) -> ToyNet:
    """A ToyNet in double precision after the first step that moves anything."""
    model = ToyNet().double()
    optimizer = build(model, name, lr, weight_decay)
    for _ in range(1 if OPTIMIZERS[name].first_step == "linear" else 2):
        random_gradients(model, zero=zero)
        step(optimizer)
    return model


def loss_of(model: nn.Module, x: Tensor) -> Tensor:
    loss: Tensor = (model(x) - 1).square().mean() / 20
    return loss


def images(seed: int = 1) -> Tensor:
    return torch.randn(64, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.double)


def train(model: nn.Module, optimizer: Optimizer, pieces: list[Tensor], steps: int, ranks: Ranks) -> None:
    """Steps on the mean loss over `pieces`, as the training loop takes them."""
    bare = model.module if isinstance(model, DistributedDataParallel) else model
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for _ in range(steps):
        optimizer.zero_grad()
        for piece in pieces:
            (loss_of(model, piece) / len(pieces)).backward()  # type: ignore[no-untyped-call]
        if isinstance(optimizer, SecondOrder) and optimizer.curvature_due:
            optimizer.observe(average(hutchinson(lambda: loss_of(bare, pieces[-1]), parameters), ranks))
        optimizer.step()


@every_optimizer
def test_the_row_tells_the_truth_about_the_class(name: str) -> None:
    row = OPTIMIZERS[name]
    module, attribute = row.target.split(":")
    arguments = set(inspect.signature(getattr(importlib.import_module(module), attribute)).parameters)
    assert row.name == name
    assert row.source
    assert set(row.takes) <= arguments - {"lr", "weight_decay", "params"}
    assert set(row.always) <= arguments - set(row.takes)


@every_optimizer
def test_families_are_those_of_the_analysis(name: str) -> None:
    assert OPTIMIZERS[name].family == optimizer_family(name)


@every_optimizer
def test_descends_at_its_default(name: str) -> None:
    model, x, ranks = ToyNet().double(), images(), Ranks()
    optimizer = build(model, name, **load_space(name).default)
    start = loss_of(model, x).item()
    train(model, optimizer, [x], 100, ranks)
    if isinstance(optimizer, Averaging):
        optimizer.eval()
    assert loss_of(model, x).item() < 0.995 * start


@every_optimizer
def test_what_lr_does_to_the_first_step(name: str) -> None:
    start = ToyNet().double()
    small, large = first_move(name, lr=1e-4), first_move(name, lr=1e-3)
    for before, less, more in zip(start.parameters(), small.parameters(), large.parameters(), strict=True):
        torch.testing.assert_close(more - before, 10 * (less - before), rtol=1e-3, atol=1e-15)
        assert (less - before).abs().min() > 0


@every_optimizer
def test_nothing_moves_before_the_first_move(name: str) -> None:
    model, start = ToyNet().double(), ToyNet().double()
    optimizer = build(model, name)
    random_gradients(model)
    step(optimizer)
    assert torch.equal(model.weight, start.weight) == (OPTIMIZERS[name].first_step == "none")


@every_optimizer
def test_the_schedule_is_obeyed(name: str) -> None:
    """A learning rate of zero stops all motion, unless the optimizer owns its schedule."""
    model = ToyNet().double()
    optimizer = build(model, name)
    for seed in range(3):
        random_gradients(model, seed)
        step(optimizer)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    before = model.weight.detach().clone()
    random_gradients(model, 3)
    step(optimizer)
    assert torch.equal(model.weight, before) == (OPTIMIZERS[name].schedule == "recipe")


def shrunk(share: float) -> Callable[[Tensor], Tensor]:
    return lambda p: -share * p


def signed(length: float) -> Callable[[Tensor], Tensor]:
    """Decay that is normalised to its sign."""
    return lambda p: -length * p.sign()


NADAM_MU = [0.9 * (1 - 0.5 * 0.96 ** (0.004 * t)) for t in (1, 2)]
PLAIN = shrunk(LR * DECAY)
MOVED: dict[str, Callable[[Tensor], Tensor]] = {
    # what the first move does to a weight that has no gradient
    "sgdp": shrunk(LR * DECAY / (1 - 0.9) * 0.1),  # a zero gradient is orthogonal to the weight: wd_ratio
    "adam": signed(LR),
    "adamax": signed(LR),
    "nadam": signed(LR * (1 + NADAM_MU[1] * 0.1 / (1 - NADAM_MU[0] * NADAM_MU[1]))),
    "lamb": shrunk(LR),  # the trust ratio |p| / |decay p| cancels the decay when there is nothing else in the update
    "adamp": shrunk(LR * DECAY * 0.1),
    "adan": lambda p: p / (1 + LR * DECAY) - p,
    "adabound": signed(LR),
    "lars": shrunk(LR * 1e-3),  # trust_coefficient |p| / |decay p| cancels the decay likewise
    "adagrad": signed(LR),
    "adadelta": lambda p: -LR * (1e-6 / (0.1 * (DECAY * p) ** 2 + 1e-6)).sqrt() * DECAY * p,
    "rmsprop": signed(LR / (1 - 0.99) ** 0.5),
    "prodigy": shrunk(LR * DECAY * 1e-6),  # the step size starts at d0
}


@every_optimizer
def test_what_decay_does_to_a_weight_without_gradient(name: str) -> None:
    start = ToyNet().double().weight.detach()
    moved = first_move(name, weight_decay=DECAY, zero=["weight"]).weight.detach() - start
    torch.testing.assert_close(moved, MOVED.get(name, PLAIN)(start), rtol=1e-4, atol=1e-14)


@every_optimizer
def test_the_kind_of_decay(name: str) -> None:
    """Coupled decay passes through the optimizer's state; decoupled decay leaves the state of an undecayed twin."""
    states = []
    for weight_decay in (0.0, DECAY):
        model = ToyNet()
        optimizer = build(model, name, LR, weight_decay)
        for _ in range(2):
            random_gradients(model)
            step(optimizer)
            model.load_state_dict(ToyNet().state_dict())
        state = optimizer.state[model.weight]
        states.append([v for key, v in state.items() if torch.is_tensor(v) and key not in ITERATES])
    coupled = any(not torch.equal(a, b) for a, b in zip(*states, strict=True))
    assert coupled == (OPTIMIZERS[name].decay == "coupled_l2")


@every_optimizer
def test_no_decayed_share_is_independent_of_lr(name: str) -> None:
    start = ToyNet().double().weight.detach()
    moved = [first_move(name, lr=lr, weight_decay=DECAY, zero=["weight"]).weight - start for lr in (1e-4, 1e-3)]
    assert OPTIMIZERS[name].decay != "decoupled_independent"
    assert moved[1].norm().item() / moved[0].norm().item() == pytest.approx(10, rel=1e-2)


@every_optimizer
def test_undecayed_parameters_stay_without_gradient(name: str) -> None:
    exempt = ("bias", "scale", "pos_embed")
    model, start = first_move(name, weight_decay=DECAY, zero=exempt), ToyNet().double()
    for parameter in exempt:
        assert torch.equal(getattr(model, parameter), getattr(start, parameter)), parameter
    assert not torch.equal(model.weight, start.weight)


@every_optimizer
def test_state_makes_a_bitwise_round_trip(name: str) -> None:
    def steps(model: ToyNet, optimizer: Optimizer, seeds: range) -> None:
        if isinstance(optimizer, Averaging):
            optimizer.train()
        for seed in seeds:
            random_gradients(model, seed)
            step(optimizer)
        if isinstance(optimizer, Averaging):
            optimizer.eval()

    whole, first, second = ToyNet(), ToyNet(), ToyNet()
    whole_optimizer, first_optimizer, second_optimizer = (build(model, name) for model in (whole, first, second))
    for seeds in (range(6), range(6, 12)):
        steps(whole, whole_optimizer, seeds)
    steps(first, first_optimizer, range(6))
    file = io.BytesIO()
    torch.save([first.state_dict(), first_optimizer.state_dict()], file)
    file.seek(0)
    weights, state = torch.load(file, weights_only=True)
    second.load_state_dict(weights)
    second_optimizer.load_state_dict(state)
    steps(second, second_optimizer, range(6, 12))
    for parameter, expected in zip(second.parameters(), whole.parameters(), strict=True):
        assert torch.equal(parameter, expected)


@every_optimizer
def test_accumulated_gradients_are_those_of_the_whole_batch(name: str) -> None:
    models, x = (ToyNet().double(), ToyNet().double()), images()
    for model, pieces in zip(models, ([x], list(x.chunk(4))), strict=True):
        torch.manual_seed(0)
        train(model, build(model, name), pieces, 3, Ranks())
    if name not in ROUGH:
        torch.testing.assert_close(models[0].weight, models[1].weight, rtol=0, atol=1e-4)
    assert torch.isfinite(models[1].weight).all()
    assert not torch.equal(models[1].weight, ToyNet().double().weight)


@every_optimizer
def test_works_under_bf16_autocast(name: str) -> None:
    model = ToyNet()
    optimizer = build(model, name)
    for _ in range(2):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = loss_of(model, images().float())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        step(optimizer)
    assert all(p.dtype == torch.float32 and torch.isfinite(p).all() for p in model.parameters())
    assert not torch.equal(model.weight, ToyNet().weight)


@every_optimizer
def test_an_argument_it_does_not_take_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=rf"unknown argument of optimizer '{name}' 'nestorov'.*known: ") as error:
        build_optimizer(ToyNet(), name, lr=LR, weight_decay=0.0, nestorov=True)
    assert all(argument in str(error.value) for argument in OPTIMIZERS[name].takes)


@every_optimizer
def test_every_argument_it_takes_is_taken(name: str) -> None:
    """As a default of its groups; betas of Adafactor are their first alone."""
    optimizer = build(ToyNet(), name)
    for argument in OPTIMIZERS[name].takes:
        kept = "beta1" if (name, argument) == ("adafactor", "betas") else argument
        given = [0.5, 0.25] if kept == "beta1" else optimizer.defaults[kept]
        again = build_optimizer(ToyNet(), name, lr=LR, weight_decay=0.0, **{argument: given})
        assert again.defaults[kept] == (0.5 if kept == "beta1" else given)


def rank_main(ranks: Ranks, folder: Path) -> None:
    """One of two ranks: trains a ToyNet by every optimizer on its half of the images."""
    torch.manual_seed(ranks.rank)
    weights = {}
    for name in OPTIMIZERS:
        model = ToyNet().double()
        pieces = list(images().chunk(2)[ranks.rank].chunk(2))
        unclipped = {"gamma": 100.0} if name == "sophia" else {}  # steps of length lr would hide the curvature
        optimizer = build(model, name, **unclipped)
        train(DistributedDataParallel(model), optimizer, pieces, 3, ranks)
        weights[name] = model.weight.detach()
    torch.save(weights, folder / f"{ranks.rank}.pt")


@pytest.fixture(scope="module")
def by_two_ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Tensor]]:
    """Weights by optimizer, on each of two ranks."""
    folder = tmp_path_factory.mktemp("ranks")
    on_two_ranks(rank_main, folder)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


@every_optimizer
def test_two_ranks_are_one_training(by_two_ranks: list[dict[str, Tensor]], name: str) -> None:
    first, second = (weights[name] for weights in by_two_ranks)
    assert torch.equal(first, second)
    alone = ToyNet().double()
    train(alone, build(alone, name), [images()], 3, Ranks())
    if name not in ROUGH:
        torch.testing.assert_close(first, alone.weight.detach(), rtol=0, atol=1e-4)


@every_optimizer
def test_layers_have_learning_rates_of_their_own(name: str) -> None:
    """Or are refused. The first step of a layer is proportional to its own learning rate."""
    if OPTIMIZERS[name].one_lr:
        with pytest.raises(ValueError, match=rf"'layer_decay' is 0.5, but optimizer '{name}' has one learning rate"):
            build_optimizer(ToyNet(), name, lr=LR, weight_decay=DECAY, layer_decay=0.5)
        return
    moves = []
    for layer_decay in (1.0, 0.5):
        model = Layers(nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False)).double()
        for layer in model:
            nn.init.eye_(layer.weight)
        fixed = load_space(name).fixed
        optimizer = build_optimizer(model, name, lr=LR, weight_decay=0.0, layer_decay=layer_decay, **fixed)
        for _ in range(1 if OPTIMIZERS[name].first_step == "linear" else 2):
            random_gradients(model)
            step(optimizer)
        moves.append([layer.weight.detach() - torch.eye(8) for layer in model])
    torch.testing.assert_close(moves[1][0], 0.5 * moves[0][0], rtol=1e-3, atol=1e-12)
    torch.testing.assert_close(moves[1][1], moves[0][1], rtol=1e-6, atol=1e-12)


def test_lamb_without_decay_has_no_trust_ratio() -> None:
    """As the row's note says: what is compared with decay 0 is Adam, unless `always_adapt`."""
    start = ToyNet().weight.detach()
    for always, norm in ((False, LR * start.numel() ** 0.5), (True, LR * start.norm().item())):
        model = ToyNet()
        optimizer = build_optimizer(model, "lamb", lr=LR, weight_decay=0.0, always_adapt=always)
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, 0.01)
        optimizer.step()
        assert (model.weight.detach() - start).norm() == pytest.approx(norm, rel=1e-3)


def test_groups_hold_each_trainable_parameter_once() -> None:
    model = ToyNet()
    model.scale.requires_grad_(False)
    decayed, undecayed = param_groups(model, DECAY)
    assert [p is model.weight for p in decayed["params"]] == [True]
    assert {id(p) for p in undecayed["params"]} == {id(model.bias), id(model.pos_embed)}
    assert (decayed["weight_decay"], undecayed["weight_decay"]) == (DECAY, 0.0)


def test_an_empty_group_is_left_out() -> None:
    assert [group["weight_decay"] for group in param_groups(nn.LayerNorm(4), DECAY)] == [0.0]


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"unknown optimizer 'adamww'; did you mean 'adamw'\? \(known: adabelief, ada"):
        build_optimizer(ToyNet(), "adamww", lr=LR, weight_decay=0.0)


def test_the_tables_import_no_torch() -> None:
    modules = "bocb_tune.optimizers, bocb_tune.training.recipes, bocb_tune.data, bocb_tune.tasks, bocb_tune.backbones"
    heavy = "{'torch', 'timm', 'pytorch_optimizer', 'numpy', 'sklearn'}"
    subprocess.run([sys.executable, "-c", f"import sys, {modules}; assert not {heavy} & set(sys.modules)"], check=True)


@every_optimizer
def test_the_page_says_what_the_row_says(name: str) -> None:
    """docs/OPTIMIZERS.md, column by column."""
    row, page = OPTIMIZERS[name], Path(__file__).parents[2] / "docs/OPTIMIZERS.md"
    made = f"`{row.target}`" + (f"; {row.choice}" if row.choice else "")
    cells = (name, row.family, made, row.decay, row.note or "nothing", row.source)
    assert f"| {' | '.join(cells)} |" in page.read_text(encoding="utf-8").splitlines()
