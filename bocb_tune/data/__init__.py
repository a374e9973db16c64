"""The datasets there are: a literal table, the cheap checks of a user's options, and loading on demand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bocb_tune.core.names import unknown

if TYPE_CHECKING:
    from bocb_tune.data.base import Dataset
    from bocb_tune.data.layout import Layout


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetRow:
    """One dataset."""

    name: str
    description: str
    source: str
    options: Mapping[str, Any] = field(default_factory=dict)
    """Each option with its default."""
    required: tuple[str, ...] = ()
    """Options that have no default: None in `options`."""
    free: tuple[str, ...] = ()
    """Options that change no result, and so are no part of a trial."""
    augments: tuple[str, ...] = ("none",)
    """Values of a recipe's `augment` it can be trained with."""


HELD_OUT: dict[str, Any] = {"validate_on": "val", "val_share": 0.1, "split_seed": 0}
"""Options of datasets without validation images: some are held out of the training images, or with `validate_on: test`,
as in many published tables, the test images are validated on."""


def _cifar(name: str, classes: int, pickled: str, binary: str) -> DatasetRow:
    return DatasetRow(
        name=name,
        description=f"60,000 colour 32x32 images in {classes} classes; ROOT/{pickled} or ROOT/{binary}",
        source="Krizhevsky 2009, https://www.cs.toronto.edu/~kriz/cifar.html",
        options={"root": None, "download": False, **HELD_OUT},
        required=("root",),
        free=("download",),
        augments=("none", "flip_shift"),
    )


DATASETS: dict[str, DatasetRow] = {
    "digits": DatasetRow(
        name="digits",
        description="1,797 grey 8x8 images of handwritten digits in 10 classes, resized; split 1,197 / 300 / 300",
        source="UCI Optical Recognition of Handwritten Digits (Alpaydin & Kaynak 1998), bundled with scikit-learn",
        options={"image_size": 32, "split_seed": 0},
        augments=("none", "shift"),
    ),
    "cifar10": _cifar("cifar10", 10, "cifar-10-batches-py", "cifar-10-batches-bin"),
    "cifar100": _cifar("cifar100", 100, "cifar-100-python", "cifar-100-binary"),
    "imagenet": DatasetRow(
        name="imagenet",
        description="ImageNet-1K in ROOT/train/<class> and ROOT/val/<class>, or ROOT packed into one file",
        source="ILSVRC 2012, arXiv:1409.0575, https://www.image-net.org",
        # As many images are held out as there are in val.
        options={"root": None, "image_size": 224, "classes": 1000, **HELD_OUT, "val_share": 0.04},
        required=("root",),
        augments=("none", "flip_crop"),
    ),
    "imagefolder": DatasetRow(
        name="imagefolder",
        description="ROOT/train/<class>/<image>, and optionally ROOT/val and ROOT/test; or ROOT packed into one file",
        source="your own folder",
        options={"root": None, "image_size": 224, "val_share": 0.1, "split_seed": 0, "loader_workers": 4},
        required=("root",),
        augments=("none", "flip_crop"),
    ),
    "huggingface": DatasetRow(
        name="huggingface",
        description="a dataset of images and class labels that Hugging Face's datasets saved to the folder ROOT",
        source="your own, or https://huggingface.co/datasets; needs bocb-tune[hf]",
        options={"root": None, "image_size": 224, "image_column": "", "label_column": "", **HELD_OUT},
        required=("root",),
        augments=("none", "flip_crop"),
    ),
    "synthetic": DatasetRow(
        name="synthetic",
        description="no images: the landscapes of the synthetic task",
        source="analytic",
    ),
}


def resolve_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Every option of the dataset, defaults filled in and `root` absolute.

    ValueError: unknown dataset or option, missing or bad value.
    """
    if name not in DATASETS:
        raise unknown("dataset", name, DATASETS)
    row = DATASETS[name]
    for option in options:
        if option not in row.options:
            raise unknown(f"option of dataset {name!r}", option, row.options)
    resolved = {**row.options, **options}
    for option in row.required:
        if resolved[option] is None:
            raise ValueError(f"dataset {name!r} needs the option {option!r}")
    for option, value in resolved.items():
        valid, wanted = _VALUES[option]
        if not valid(value):
            raise ValueError(f"option {option!r} of dataset {name!r} is {value!r}; it must be {wanted}")
    if "root" in resolved:
        # Worker processes have working directories of their own: a relative path would lead elsewhere there.
        resolved["root"] = str(Path(resolved["root"]).expanduser().absolute())
    return resolved


def settings_of(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """What a trial keeps of its dataset: the name, and the resolved options that can change its result."""
    return {"name": name, **{key: value for key, value in options.items() if key not in DATASETS[name].free}}


Rule = tuple[Callable[[Any], bool], str]


def _whole(least: int) -> Rule:
    return lambda value: type(value) is int and value >= least, f"a whole number, at least {least}"


_COLUMN: Rule = (lambda value: isinstance(value, str), "the name of a column, or '' to have it found")

_VALUES: dict[str, Rule] = {
    "root": (lambda value: isinstance(value, str), "the path of a folder"),
    "download": (lambda value: isinstance(value, bool), "true or false"),
    "image_size": _whole(8),
    "classes": _whole(2),
    "split_seed": _whole(0),
    "loader_workers": _whole(0),
    "val_share": (lambda value: isinstance(value, float) and 0 < value < 1, "a share between 0 and 1"),
    "validate_on": (lambda value: value in ("val", "test"), "'val' or 'test'"),
    "image_column": _COLUMN,
    "label_column": _COLUMN,
}
"""Whether a value of an option is valid, and what it must be."""


def check_dataset(name: str, options: Mapping[str, Any]) -> None:
    """Everything about a dataset that can be wrong and is cheap to see (layout, no decoding). Raises ValueError.

    With `download`, this is also where a dataset is fetched: worker processes never do.
    """
    resolved = resolve_options(name, options)
    if resolved.get("download"):
        from bocb_tune.data.cifar import download

        download(name, Path(resolved["root"]))
    if name in _CIFAR:
        from bocb_tune.data.cifar import read_cifar

        read_cifar(name, resolved)
    elif "root" in resolved:
        _layout(name, resolved)


_CIFAR = {"cifar10": 10, "cifar100": 100}
"""Datasets in memory, and how many classes they have."""


def _layout(name: str, resolved: Mapping[str, Any]) -> Layout:
    if name == "huggingface":
        from bocb_tune.data.hf import scan_table

        return scan_table(resolved)
    from bocb_tune.data.layout import scan

    return scan(resolved)


def num_classes(name: str, options: Mapping[str, Any]) -> int:
    """Number of classes, without reading an image."""
    resolved = resolve_options(name, options)
    if name == "huggingface":
        return len(_layout(name, resolved).classes)
    if name == "imagefolder":
        from bocb_tune.data.layout import class_names

        return len(class_names(Path(resolved["root"])))
    known = {"digits": 10, **_CIFAR}
    assert name in known or name == "imagenet", f"dataset {name!r} has no classes"
    classes: int = resolved["classes"] if name == "imagenet" else known[name]
    return classes


def image_size(name: str, options: Mapping[str, Any]) -> int:
    """Height and width of its images in pixels."""
    size: int = resolve_options(name, options).get("image_size", 32)  # CIFAR's, the only ones that come in one size
    return size


def load_dataset(name: str, options: Mapping[str, Any], device: str) -> Dataset:
    """The dataset, kept in the process from one trial to the next. `device` is where in-memory images are put."""
    return _load(name, tuple(sorted(resolve_options(name, options).items())), device)


@lru_cache(maxsize=8)
def _load(name: str, options: tuple[tuple[str, Any], ...], device: str) -> Dataset:
    resolved = dict(options)
    if name == "digits":
        from bocb_tune.data.digits import load_digits

        return load_digits(resolved["image_size"], resolved["split_seed"], device)
    if name in _CIFAR:
        from bocb_tune.data.arrays import load_arrays

        return load_arrays(name, resolved, device)
    assert "root" in resolved, f"dataset {name!r} has no images"
    from bocb_tune.data.files import load_files

    return load_files(_layout(name, resolved), resolved, device)
