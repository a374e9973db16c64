"""The datasets there are: a literal table, the cheap checks of a user's options, and loading on demand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bocb_tune.names import unknown

if TYPE_CHECKING:
    from bocb_tune.data.base import Dataset


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
    augments: tuple[str, ...] = ("none",)
    """Values of a recipe's `augment` it can be trained with."""


DATASETS: dict[str, DatasetRow] = {
    "digits": DatasetRow(
        name="digits",
        description="1,797 grey 8x8 images of handwritten digits in 10 classes, resized; split 1,197 / 300 / 300",
        source="UCI Optical Recognition of Handwritten Digits (Alpaydin & Kaynak 1998), bundled with scikit-learn",
        options={"image_size": 32, "split_seed": 0},
        augments=("none", "shift"),
    ),
    "imagefolder": DatasetRow(
        name="imagefolder",
        description="ROOT/train/<class>/<image>, and optionally ROOT/val and ROOT/test in the same layout",
        source="your own folder",
        options={"root": None, "image_size": 224, "val_share": 0.1, "split_seed": 0, "loader_workers": 4},
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
        _check_value(name, option, value)
    if "root" in resolved:
        # Worker processes have working directories of their own: a relative path would lead elsewhere there.
        resolved["root"] = str(Path(resolved["root"]).expanduser().absolute())
    return resolved


_LOWEST = {"image_size": 8, "split_seed": 0, "loader_workers": 0}


def _check_value(name: str, option: str, value: Any) -> None:
    if option in _LOWEST:
        valid, wanted = type(value) is int and value >= _LOWEST[option], f"a whole number, at least {_LOWEST[option]}"
    elif option == "val_share":
        valid, wanted = isinstance(value, float) and 0 < value < 1, "a share between 0 and 1"
    else:
        valid, wanted = isinstance(value, str), "the path of a folder"
    if not valid:
        raise ValueError(f"option {option!r} of dataset {name!r} is {value!r}; it must be {wanted}")


def check_dataset(name: str, options: Mapping[str, Any]) -> None:
    """Everything about a dataset that can be wrong and is cheap to see (layout, no decoding). Raises ValueError."""
    resolved = resolve_options(name, options)
    if name == "imagefolder":
        from bocb_tune.data.layout import scan

        scan(resolved)


def num_classes(name: str, options: Mapping[str, Any]) -> int:
    """Number of classes, without reading an image."""
    resolved = resolve_options(name, options)
    if name == "imagefolder":
        from bocb_tune.data.layout import scan

        return len(scan(resolved).classes)
    assert name == "digits", f"dataset {name!r} has no classes"
    return 10


def load_dataset(name: str, options: Mapping[str, Any], device: str) -> Dataset:
    """The dataset, kept in the process from one trial to the next. `device` is where in-memory images are put."""
    resolved = resolve_options(name, options)
    if name == "imagefolder":
        from bocb_tune.data.folders import load_folder

        return load_folder(tuple(sorted(resolved.items())), device)
    assert name == "digits", f"dataset {name!r} has no images"
    from bocb_tune.data.digits import load_digits

    return load_digits(resolved["image_size"], resolved["split_seed"], device)
