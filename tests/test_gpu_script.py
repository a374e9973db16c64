"""`make gpu` on the CPU: the same table, of small models; and the training half without the engine's packages."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ALONE = """
import sys
for package in "ray optuna pydantic ruamel orjson pandas matplotlib sklearn scipy typer rich".split():
    sys.modules[package] = None  # an import of it fails
from bocb_tune.profiling.load import Load
from bocb_tune.training.recipes import Recipe
recipe = Recipe(batch_size=8)
load = Load(backbone="test_vit", optimizer="adamw", recipe=recipe, image_size=32, channels=3, num_classes=10)
(measured,) = load.epochs(load.training("cpu", 2), "cpu", 1)
print(measured.metrics["train_loss"])
"""


def test_training_needs_none_of_the_engines_packages() -> None:
    done = subprocess.run([sys.executable, "-c", ALONE], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 0 < float(done.stdout) < 10


@pytest.mark.slow
def test_the_script_is_rehearsed() -> None:
    done = subprocess.run([sys.executable, "benchmarks/gpu.py"], cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    assert "failed" not in done.stdout, done.stdout
    for what in (
        "compiled",
        "matrix product",
        "augmentation of cifar_deit",
        "checkpoint of",
        "at a time",
        "step of soap",
    ):
        assert what in done.stdout, what
