"""What the training loop does on this machine's GPU, and what each of its switches is worth there.

At most six minutes on one NVIDIA GPU. Needs no data and no Ray: images are noise. First the tests marked `gpu`; then
one table, whose rows are printed as they are measured. Rates are images a second of whole epochs of the loop that
trains the trials, medians with their ranges over `ROUNDS` epochs after one that warms up; what is compared runs in this
one process, one after the other, or in turns where it says so. Without a GPU the same table comes from the CPU, of
small models: a rehearsal that shows that the script runs, and nothing about speed.

Three networks: ResNet-50 and DeiT-S at 224 pixels in batches of 256, and the ResNet-50 of the CIFAR grid, at 32 pixels
in batches of 512, with crop and flip on the device. Where Ray is installed, `experiments/gpu_smoke.yaml` runs through
the whole engine afterwards; where there are two GPUs, two ranks over NCCL are compared with one.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib.util
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from gpu_networks import SWITCHES, Bench, Network, cpu_bench, gpu_bench
from machine import machine, show, spread
from torch import Tensor, distributed
from torch.utils.flop_counter import FlopCounterMode

from bocb_tune.optimizers import OPTIMIZERS, build_optimizer
from bocb_tune.profiling.load import Load, step_alone
from bocb_tune.profiling.packing import Packed, packed
from bocb_tune.training.checkpoint import Checkpoints
from bocb_tune.training.context import Context, Ranks
from bocb_tune.training.device import autocast
from bocb_tune.training.loop import Batches, Training, fit
from bocb_tune.training.recipes import RECIPES

ROOT = Path(__file__).parents[1]
ROUNDS = 5
Row = tuple[str, str, str, str]
"""What, its value, what stands beside it, and the ratio of the two."""
COLUMNS = ("what", "measured", "beside", "ratio")


def training_of(network: Network, load: Load, device: str) -> Training:
    training = load.training(device, network.steps)
    return replace(training, batches=_ready_batches(load, device)) if network.ready else training


def _ready_batches(load: Load, device: str) -> Batches:
    layout = torch.channels_last if load.recipe.channels_last else torch.contiguous_format
    shape = (load.recipe.batch_size, load.channels, load.image_size, load.image_size)
    images = torch.randn(shape, device=device).to(memory_format=layout)
    labels = torch.randint(load.num_classes, shape[:1], device=device)
    return lambda plan, seed, first=0: ((images, labels) for _ in plan)  # noqa: ARG005


def bare_epoch(training: Training, device: str, steps: int) -> float:
    """Train an epoch by the loop one would write by hand around the same model, optimizer and batches; images/s."""
    recipe, model, optimizer = training.recipe, training.model, training.optimizer
    started = time.perf_counter()
    order = torch.arange(steps * recipe.batch_size)
    model.train()
    for batch in training.batches(torch.split(order, recipe.batch_size), 0):
        with autocast(torch.device(device), recipe):
            loss = training.loss(model, batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    wait(device)
    return steps * recipe.batch_size / (time.perf_counter() - started)


def wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize(device)


def free(device: str) -> None:
    gc.collect()
    torch._dynamo.reset()
    if device != "cpu":
        torch.cuda.empty_cache()


def ratio(values: Sequence[float], others: Sequence[float]) -> str:
    """Of each pair, measured one after the other."""
    return spread([a / b for a, b in zip(values, others, strict=True)])


def switches(bench: Bench, rates: dict[str, dict[str, list[float]]]) -> Iterator[Row]:
    """Each switch on after the other; with all on, the loop in turns with the bare one. Fills `rates`, by network."""
    for network in bench.networks:
        found = rates.setdefault(network.name, {})
        for name, changes in SWITCHES:
            if "compile" in changes and not network.compiled:
                continue
            in_turns = "channels_last" in changes
            load = replace(network.load, recipe=replace(network.load.recipe, **changes))
            bare: list[float] = []
            started = time.perf_counter()
            training = training_of(network, load, bench.device)
            epochs = load.epochs(training, bench.device, 1 + ROUNDS)
            next(epochs)
            first = time.perf_counter() - started
            found[name] = []
            for measured in epochs:
                found[name].append(measured.metrics["images_per_s"])
                if in_turns:
                    bare.append(bare_epoch(training, bench.device, network.steps))
            rate, base = f"{spread(found[name], 0)} images/s", statistics.median(found["fp32"])
            yield f"{network.name}: {name}", rate, "fp32", f"{statistics.median(found[name]) / base:.2f}"
            memory = f"peak memory {measured.metrics['peak_memory_gib']:.1f} GiB"
            yield f"{network.name}: {name}, from nothing to the end of the first epoch", f"{first:.1f} s", memory, ""
            if in_turns:
                yield (
                    f"{network.name}: {name}, in turns with the bare loop",
                    rate,
                    spread(bare, 0),
                    ratio(found[name], bare),
                )
            del training, epochs
            free(bench.device)


def products(bench: Bench, rates: dict[str, dict[str, list[float]]]) -> Iterator[Row]:
    """Model FLOPs utilisation, against the rate of matrix products in bf16 that this device shows."""
    rate = matrix_rate(bench)
    yield f"matrix product of side {bench.side}, bf16", f"{rate / 1e12:.3g} TFLOP/s", "", ""
    for network in bench.networks:
        if network.name not in rates:
            continue
        name, best = max(rates[network.name].items(), key=lambda entry: statistics.median(entry[1]))
        used = 3 * flops(network.load) * statistics.median(best)
        yield (
            f"{network.name}: model FLOPs utilisation ({name})",
            f"{used / 1e12:.3g} TFLOP/s",
            "",
            f"{used / rate:.3f}",
        )


def matrix_rate(bench: Bench) -> float:
    """FLOP/s of a product of random matrices."""
    a, b = (torch.randn(bench.side, bench.side, device=bench.device, dtype=torch.bfloat16) for _ in range(2))
    return float(2 * bench.side**3 / statistics.median(_seconds(lambda: a @ b, bench.device)))


def flops(load: Load) -> int:
    """Of the forward pass of one image; a training step takes three times as many."""
    with torch.device("meta"):
        model, image = load.model(), torch.empty(1, load.channels, load.image_size, load.image_size)
    with FlopCounterMode(display=False) as counter:
        model.eval()(image)
    return int(counter.get_total_flops())


def augmentation(bench: Bench, rates: dict[str, dict[str, list[float]]]) -> Iterator[Row]:
    """Augmented on the device, against what the network takes by its fastest switches."""
    network = bench.cifar
    taken = max(rates.get(network.name, {}).values(), key=statistics.median, default=[])
    for recipe in ("cifar_torch", "cifar_deit"):
        changed = replace(RECIPES[recipe], batch_size=network.load.recipe.batch_size, precision="bf16", drop_path=0.0)
        batches = replace(network.load, recipe=changed).training(bench.device, network.steps).batches
        made = []
        for seed in range(1 + ROUNDS):
            started = time.perf_counter()
            order = torch.arange(network.steps * changed.batch_size)
            for _ in batches(torch.split(order, changed.batch_size), seed):
                pass
            wait(bench.device)
            made.append(len(order) / (time.perf_counter() - started))
        beside = f"{network.name}: {spread(taken, 0)} images/s" if taken else ""
        times = f"{statistics.median(made[1:]) / statistics.median(taken):.1f}" if taken else ""
        yield (
            f"augmentation of {recipe}, an epoch of {network.steps} batches",
            f"{spread(made[1:], 0)} images/s",
            beside,
            times,
        )
    free(bench.device)


def packing(bench: Bench) -> Iterator[Row]:
    """Several trials on the device at a time, each a process."""
    alone = None
    for trials in bench.together:
        found = packed(bench.packed, bench.device, trials, steps=bench.packed_steps, epochs=ROUNDS)
        alone = found if alone is None else alone
        yield _packing_row(bench.packed, found, alone)


def _packing_row(load: Load, found: Packed, alone: Packed) -> Row:
    what = f"{found.trials} at a time of {load.backbone}, batches of {load.recipe.batch_size}"
    if found.images_per_s is None or alone.images_per_s is None:
        return what, "do not fit, or died", "", ""
    peak = f"peak of one {found.peak_memory_gib:.2f} GiB"
    return what, f"{found.images_per_s:.0f} images/s", peak, f"{found.images_per_s / alone.images_per_s:.2f}"


def optimizers(bench: Bench) -> Iterator[Row]:
    """The step of each optimizer beside the forward and backward pass of the same network; bytes of its state."""
    load, device = bench.optimizers, bench.device
    batches = _ready_batches(load, device)
    batch = next(batches([torch.arange(1)], 0))
    training = load.training(device, 1)

    def pass_both() -> None:
        with autocast(torch.device(device), load.recipe):
            loss = training.loss(training.model, batch)
        loss.backward()

    passes = _seconds(pass_both, device)
    weights = sum(p.numel() * p.element_size() for p in training.model.parameters())
    for name in OPTIMIZERS:
        optimizer = build_optimizer(training.model, name, lr=1e-6, weight_decay=0.01)
        step = _seconds(partial(step_alone, optimizer), device)
        state = sum(_bytes(entry) for entry in optimizer.state.values())
        yield (
            f"step of {name}",
            f"{spread([1e3 * value for value in step], 2)} ms",
            f"state {state / weights:.2f} of the weights' bytes",
            f"{statistics.median(step) / (statistics.median(step) + statistics.median(passes)):.3f} of the step",
        )
        del optimizer
    passes_ms = spread([1e3 * value for value in passes], 2)
    yield f"forward and backward pass of {load.backbone}, batch of {load.recipe.batch_size}", f"{passes_ms} ms", "", ""


def _bytes(entry: object) -> int:
    if isinstance(entry, Tensor):
        return entry.numel() * entry.element_size()
    if isinstance(entry, dict):
        return sum(map(_bytes, entry.values()))
    if isinstance(entry, (list, tuple)):
        return sum(map(_bytes, entry))
    return 0


def _seconds(work: Callable[[], object], device: str) -> list[float]:
    found = []
    for _ in range(2 + ROUNDS):
        wait(device)
        started = time.perf_counter()
        work()
        wait(device)
        found.append(time.perf_counter() - started)
    return found[2:]


def checkpoints(bench: Bench, rates: dict[str, dict[str, list[float]]]) -> Iterator[Row]:
    """A checkpoint, as each epoch ends with one, until it is written, beside an epoch of 50,000 images."""
    network = bench.cifar
    training = training_of(network, network.load, bench.device)
    list(network.load.epochs(training, bench.device, 1))
    state = {"model": training.model.state_dict(), "optimizer": training.optimizer.state_dict()}
    with tempfile.TemporaryDirectory() as folder:
        kept = Checkpoints(Path(folder))
        saved = _seconds(lambda: (kept.save(state), kept.wait()), bench.device)
    taken = max(rates.get(network.name, {}).values(), key=statistics.median, default=[])
    epoch = 50_000 / statistics.median(taken) if taken else float("nan")
    share = f"{statistics.median(saved) / epoch:.3f} of the epoch"
    yield f"checkpoint of {network.name}", f"{spread(saved)} s", f"epoch of 50,000 images {epoch:.2f} s", share


def ranks(bench: Bench) -> Iterator[Row]:
    """Two ranks over NCCL (on the CPU over gloo), each with the batch that one has alone."""
    backend = "gloo" if bench.device == "cpu" else "nccl"
    if backend == "nccl" and torch.cuda.device_count() < 2:
        return
    rates = []
    for world in (1, 2):
        with tempfile.TemporaryDirectory() as folder:
            torch.multiprocessing.spawn(_rank, (world, backend, bench.cifar, folder), nprocs=world)
            rates.append(float((Path(folder) / "rate").read_text()))
    what = f"{bench.cifar.name}: two ranks over {backend}, batches twice as large"
    yield what, f"{rates[1]:.0f} images/s", f"one rank {rates[0]:.0f} images/s", f"{rates[1] / rates[0]:.2f}"


def _rank(rank: int, world: int, backend: str, network: Network, folder: str) -> None:
    device = "cpu" if backend == "gloo" else f"cuda:{rank}"
    own = Ranks(rank=rank, world_size=world, local_rank=rank, device=device)
    if world > 1:
        distributed.init_process_group(backend, init_method=f"file://{folder}/meeting", rank=rank, world_size=world)
    training = network.load.training(device, world * network.steps)
    whole = replace(training.recipe, batch_size=world * training.recipe.batch_size)
    training = replace(training, recipe=whole)
    last = list(fit(training, network.load.trial(1 + ROUNDS), Context(ranks=own)))[-1]
    if rank == 0:
        (Path(folder) / "rate").write_text(str(last.metrics["images_per_s"]))
    if world > 1:
        distributed.destroy_process_group()


def tests(device: str) -> Iterator[Row]:
    """The tests marked `gpu`; on the CPU their rehearsal belongs to the test suite."""
    if device == "cpu":
        return
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-W", "default", "-p", "no:cacheprovider"]
    done = subprocess.run([*command, "tests/training/test_devices.py"], cwd=ROOT, capture_output=True, text=True)
    print(done.stdout[-6000:], done.stderr[-1000:], flush=True)
    lines = done.stdout.strip().splitlines()
    yield "tests marked gpu", lines[-1] if lines else "no output", "", ""


def engine(device: str) -> Iterator[Row]:
    """`experiments/gpu_smoke.yaml` through Ray, on files made in CIFAR's format."""
    if importlib.util.find_spec("ray") is None or device == "cpu":
        return
    sys.path.insert(0, str(ROOT))
    from tests.support.datasets import make_cifar

    with tempfile.TemporaryDirectory() as folder:
        make_cifar(Path(folder) / "cifar10", "cifar10", train=500, test=100)
        file = str(ROOT / "experiments" / "gpu_smoke.yaml")
        settings = ["--set", f"dataset.root={folder}/cifar10", "--set", f"storage={folder}"]
        started = time.perf_counter()
        done = subprocess.run([sys.executable, "-m", "bocb_tune", "run", file, *settings], cwd=ROOT)
        seconds = time.perf_counter() - started
        yield "experiments/gpu_smoke.yaml through Ray", f"exit code {done.returncode}", f"{seconds:.0f} s", ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="sections, separated by commas: " + ", ".join(SECTIONS))
    parser.add_argument("--networks", default="", help="those of the networks whose names hold this")
    options = parser.parse_args()
    chosen = [name for name in options.only.split(",") if name] or list(SECTIONS)
    bench = gpu_bench() if torch.cuda.is_available() else cpu_bench()
    bench = replace(bench, networks=tuple(network for network in bench.networks if options.networks in network.name))
    rates: dict[str, dict[str, list[float]]] = {}
    rows: list[Row] = []
    print(machine(), flush=True)
    for name in chosen:
        started = time.perf_counter()
        with _reported(name, rows):
            for row in SECTIONS[name](bench, rates):
                rows.append(row)
                print(" | ".join(row), flush=True)
        print(f"({name}: {time.perf_counter() - started:.0f} s)", flush=True)
    show(f"One process on {bench.device}; median (min-max) of {ROUNDS}", COLUMNS, rows)
    if torch.cuda.is_available():
        print(f"driver: {_driver()}; CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}")


@contextlib.contextmanager
def _reported(section: str, rows: list[Row]) -> Iterator[None]:
    """A section that fails becomes a row, and the others are still measured: a GPU is had for minutes."""
    try:
        yield
    except Exception as error:
        row = (section, "failed", f"{type(error).__name__}: {str(error)[:300]}", "")
        rows.append(row)
        print(" | ".join(row), flush=True)
        import traceback

        traceback.print_exc()
        free("cuda:0" if torch.cuda.is_available() else "cpu")


def _driver() -> str:
    command = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


SECTIONS: dict[str, Callable[[Bench, dict[str, dict[str, list[float]]]], Iterator[Row]]] = {
    "tests": lambda bench, _: tests(bench.device),
    "switches": switches,
    "products": products,
    "augmentation": augmentation,
    "checkpoints": checkpoints,
    "packing": lambda bench, _: packing(bench),
    "optimizers": lambda bench, _: optimizers(bench),
    "ranks": lambda bench, _: ranks(bench),
    "engine": lambda bench, _: engine(bench.device),
}


if __name__ == "__main__":
    main()
