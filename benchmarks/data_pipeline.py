"""Images a second of the data pipelines, each against what one would otherwise use, in one run.

Small images: raw 32x32 images in memory, augmented in batch by one CPU thread, against timm's `create_loader` over the
same images as PIL ones with one worker process. Once with crop, flip and normalisation (recipe `cifar_torch`; target:
at least 10 times), once with RandAugment, erasing, mixup and CutMix as well (`cifar_deit`; at least 5 times). timm's
crop is replaced by the padded crop of CIFAR, as DeiT's code does for 32x32 images.

Large images: JPEGs of ImageNet's mean size, 500x375 and about 110 kB, from one packed file against the same in class
folders (target: at least 1), page cache warm, one process. Once bytes alone, once decoded, cropped and normalised.

Repetitions of the sides alternate, so that both see the same state of the machine. Takes about three minutes.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch
from machine import show, spread
from PIL import Image, ImageFilter
from timm.data import Mixup, create_loader
from torch.utils.data import Dataset
from torchvision.transforms import RandomCrop

from bocb_tune.augment import image_transform
from bocb_tune.data.arrays import Arrays, Rows
from bocb_tune.data.cifar import VARIANTS
from bocb_tune.data.files import load_files
from bocb_tune.data.layout import scan
from bocb_tune.data.pack import pack
from bocb_tune.data.parts import ImageSource
from bocb_tune.tasks.classification import Pictures
from bocb_tune.training.context import Context, Ranks
from bocb_tune.training.recipes import RECIPES
from bocb_tune.training.schedule import epoch_order, epoch_plan

Side = Callable[[int], int]
"""One repetition, by its number; returns the images it went through."""


def rates(ours: Side, theirs: Side, repetitions: int) -> tuple[list[float], list[float]]:
    """Images/s of both sides, by repetition; one of each warms up and is left out."""
    pairs = [(_rate(ours, number), _rate(theirs, number)) for number in range(repetitions + 1)][1:]
    first, second = zip(*pairs, strict=True)
    return list(first), list(second)


def _rate(side: Side, number: int) -> float:
    start = time.perf_counter()
    images = side(number)
    return images / (time.perf_counter() - start)


def row(what: str, ours: list[float], theirs: list[float], target: float) -> list[str]:
    ratio = statistics.median(ours) / statistics.median(theirs)
    return [what, spread(ours, 0), spread(theirs, 0), f"{ratio:.2f}", f"{target:g}", str(len(ours))]


# Small images

VARIANT = VARIANTS["cifar100"]


class PilImages(Dataset[Any]):
    """The images as torchvision's CIFAR dataset gives them to timm."""

    transform: Any = None

    def __init__(self, images: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> None:
        self.images, self.labels = images.transpose(0, 2, 3, 1), labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.transform(Image.fromarray(self.images[index])), int(self.labels[index])


def pixels(count: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8), rng.integers(0, VARIANT.num_classes, count)


def in_memory(recipe_name: str, count: int) -> Side:
    recipe = RECIPES[recipe_name]
    images, labels = map(torch.from_numpy, pixels(count))
    dataset = Arrays(
        num_classes=VARIANT.num_classes,
        in_chans=3,
        image_size=32,
        mean=VARIANT.mean,
        std=VARIANT.std,
        splits={"train": Rows(images=images, labels=labels, rows=torch.arange(count))},
    )
    pictures = Pictures(dataset, recipe, Context())

    def run(number: int) -> int:
        plan = epoch_plan(epoch_order(count, 0, number), recipe, Ranks())
        return sum(len(x) for x, _ in pictures.train([piece for step in plan for piece in step], number))

    return run


def pil_loader(recipe_name: str, count: int) -> Side:
    recipe = RECIPES[recipe_name]
    policy = f"rand-m{recipe.rand_augment:g}-mstd{recipe.rand_augment_std:g}-inc1" if recipe.rand_augment else None
    loader = create_loader(
        PilImages(*pixels(count)),
        input_size=(3, 32, 32),
        batch_size=recipe.batch_size,
        is_training=True,
        use_prefetcher=False,
        auto_augment=policy,
        color_jitter=None,
        re_prob=recipe.erase,
        re_mode="pixel",
        mean=VARIANT.mean,
        std=VARIANT.std,
        num_workers=1,
        persistent_workers=True,
    )
    steps = loader.dataset.transform.transforms
    steps[0] = RandomCrop(32, padding=4)
    for operation in (operation for step in steps for operation in getattr(step, "ops", ())):
        if operation.name == "PosterizeIncreasing":  # timm's comes to 0 bits at times, which Pillow refuses
            operation.level_fn = lambda level, _: (max(1, 4 - int(level / 10 * 4)),)
    mix = _timm_mixup(recipe_name) if recipe.mixes else None

    def run(number: int) -> int:
        del number
        batches: Iterable[Any] = (mix(*batch) if mix else batch for batch in loader)
        return sum(len(x) for x, _ in batches)

    return run


def _timm_mixup(recipe_name: str) -> Mixup:
    recipe = RECIPES[recipe_name]
    return Mixup(
        mixup_alpha=recipe.mixup,
        cutmix_alpha=recipe.cutmix,
        switch_prob=recipe.switch_prob,
        label_smoothing=recipe.label_smoothing,
        num_classes=VARIANT.num_classes,
    )


# Large images


def make_jpegs(root: Path, count: int) -> Path:
    """Blurred noise under fine noise, which compresses to about as many bytes as photographs do."""
    rng = np.random.default_rng(0)
    for number in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)).resize((500, 375))
        fine = Image.fromarray(rng.integers(0, 256, (375, 500, 3), dtype=np.uint8)).filter(ImageFilter.BoxBlur(1))
        folder = root / "train" / f"n{number % 10:08d}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.blend(coarse, fine, 0.6).save(folder / f"{number}.JPEG", quality=95)
    return root


def read_only(source: ImageSource) -> Side:
    order = np.random.default_rng(0).permutation(len(source.labels)).tolist()

    def run(number: int) -> int:
        del number
        for index in order:
            where = source.open(index)
            content = Path(where).read_bytes() if isinstance(where, str) else where.read()
            assert content[:2] == b"\xff\xd8"
        return len(order)

    return run


def decoded(root: Path) -> Side:
    options = {"root": str(root), "image_size": 224, "loader_workers": 0, "val_share": 0.1, "split_seed": 0}
    dataset = load_files(scan(options), options, "cpu")
    transform = image_transform(RECIPES["imagenet"], 224, train=True, mean=dataset.mean, std=dataset.std)
    plan = torch.arange(dataset.count("train")).split(64)

    def run(number: int) -> int:
        return sum(len(x) for x, _ in dataset.batches("train", plan, transform=transform, seed=number))

    return run


def large(count: int, repetitions: int) -> list[list[str]]:
    with tempfile.TemporaryDirectory(prefix="bocb-tune-bench-") as place:
        root, packed = make_jpegs(Path(place) / "folder", count), Path(place) / "packed.zip"
        pack(root, packed)
        size = packed.stat().st_size / count / 1e3
        options = {"val_share": 0.1, "split_seed": 0}
        sources = [scan(options | {"root": str(where)}).parts["train"] for where in (packed, root)]
        bytes_only = rates(read_only(sources[0]), read_only(sources[1]), 3 * repetitions)
        whole = rates(decoded(packed), decoded(root), repetitions)
    what = f"JPEGs of {size:.0f} kB, packed / folders"
    return [row(f"{what}: bytes", *bytes_only, 1), row(f"{what}: decoded", *whole, 1)]


def small(count: int, repetitions: int) -> list[list[str]]:
    targets = {"cifar_torch": 10, "cifar_deit": 5}
    return [
        row(
            f"32x32, {name}, in memory / timm",
            *rates(in_memory(name, count), pil_loader(name, count), repetitions),
            goal,
        )
        for name, goal in targets.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few images: a smoke test, not a measurement")
    images, jpegs, repetitions = (1000, 50, 2) if parser.parse_args().quick else (5000, 500, 7)
    torch.set_num_threads(1)
    rows = [*small(images, repetitions), *large(jpegs, repetitions)]
    columns = ["what", "images/s", "images/s of the other", "ratio", "target", "n"]
    show("Images/s, median (min-max)", columns, rows)


if __name__ == "__main__":
    main()
