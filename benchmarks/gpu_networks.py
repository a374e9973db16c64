"""What `benchmarks/gpu.py` trains: on a GPU what people train, on the CPU a rehearsal of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from bocb_tune.profiling.load import Load
from bocb_tune.training.recipes import RECIPES, Recipe

SGD = {"lr": 0.01, "weight_decay": 5e-4}


@dataclass(frozen=True, kw_only=True)
class Network:
    """One of the networks, its load, and how many steps make an epoch of half a second or more."""

    name: str
    load: Load
    steps: int
    compiled: bool = True
    """Whether it is compiled too, which takes its time."""
    ready: bool
    """Whether its batches lie ready, as those of images from files do; otherwise they are augmented on the device."""


@dataclass(frozen=True, kw_only=True)
class Bench:
    """The device, and how large the work is made for it."""

    device: str
    networks: tuple[Network, ...]
    side: int
    """Of the square matrices whose product gives the device's rate."""
    packed: Load
    packed_steps: int
    together: tuple[int, ...]
    optimizers: Load

    @property
    def cifar(self) -> Network:
        return self.networks[-1]


def gpu_bench() -> Bench:
    """The sizes that people train."""
    plain = Recipe(batch_size=256, tf32=False)
    small = replace(RECIPES["cifar_torch"], batch_size=512, precision="fp32", tf32=False, channels_last=False)
    cifar = Load(
        backbone="resnet50", optimizer="sgd", recipe=small, image_size=32, channels=3, num_classes=100, hparams=SGD
    )
    large = {"recipe": plain, "image_size": 224, "channels": 3, "num_classes": 1000}
    deit = Load(backbone="deit_small", optimizer="adamw", **large)
    return Bench(
        device="cuda:0",
        networks=(
            Network(name="ResNet-50", load=Load(backbone="resnet50", optimizer="sgd", **large), steps=4, ready=True),
            Network(name="DeiT-S", load=deit, steps=4, ready=True),
            Network(name="CIFAR ResNet-50", load=cifar, steps=20, ready=False),
        ),
        side=8192,
        packed=replace(cifar, recipe=replace(small, batch_size=100, precision="bf16", tf32=True, channels_last=True)),
        packed_steps=100,
        together=(1, 2, 4, 8),
        optimizers=Load(
            backbone="deit_small", optimizer="adamw", **large | {"recipe": replace(plain, precision="bf16")}
        ),
    )


def cpu_bench() -> Bench:
    """The same table, small."""
    plain = Recipe(batch_size=8, tf32=False)
    small = {"recipe": plain, "image_size": 32, "channels": 3, "num_classes": 10}
    cifar = Load(
        backbone="test_resnet", optimizer="sgd", **small | {"recipe": replace(plain, augment="flip_shift")}, hparams=SGD
    )
    resnet = Load(backbone="test_resnet", optimizer="sgd", **small)
    return Bench(
        device="cpu",
        networks=(
            Network(name="test_resnet", load=resnet, steps=2, ready=True, compiled=False),
            Network(name="test_vit", load=Load(backbone="test_vit", optimizer="adamw", **small), steps=2, ready=True),
            Network(name="test_resnet, augmented", load=cifar, steps=3, ready=False, compiled=False),
        ),
        side=256,
        packed=cifar,
        packed_steps=3,
        together=(1, 2),
        optimizers=Load(backbone="test_vit", optimizer="adamw", **small),
    )


SWITCHES: tuple[tuple[str, dict[str, object]], ...] = (
    ("fp32", {}),
    ("TF32", {"tf32": True}),
    ("bf16", {"tf32": True, "precision": "bf16"}),
    ("bf16, channels last", {"tf32": True, "precision": "bf16", "channels_last": True}),
    ("bf16, channels last, compiled", {"tf32": True, "precision": "bf16", "channels_last": True, "compile": True}),
)
"""Each adds to the one before."""
