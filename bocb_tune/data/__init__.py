"""The datasets there are: a literal table, the cheap checks of a user's options, and loading on demand."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bocb_tune.core.names import unknown

if TYPE_CHECKING:
    from bocb_tune.data.base import Dataset
    from bocb_tune.data.contents import Contents, ImageSource, Reader


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetRow:
    """One dataset: all that is known of it without looking at the disk."""

    name: str
    description: str
    source: str
    target: str = ""
    """`module:object`, a `bocb_tune.data.contents.Reader`; empty if there is nothing to read."""
    holds: Literal["labelled images", "annotated images", "landscapes"] = "labelled images"
    """Kind of data, which a task has to take to be trained on it."""
    channels: int = 3
    image_size: int | None = None
    """Height and width of its images in pixels; None: the option `image_size`."""
    num_classes: int | None = None
    """None: the option `classes`, or else what is on the disk."""
    train_images: int | None = None
    """Images published for training, before some are held out; None: what is on the disk."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Each option with its default."""
    required: tuple[str, ...] = ()
    """Options that have no default: None in `options`."""
    free: tuple[str, ...] = ("root", "download", "max_pixels")
    """Options that change no result, and so are no part of a trial's identity."""
    augments: tuple[str, ...] = ("none",)
    """Values of a recipe's `augment` it can be trained with."""

    @property
    def is_decoded(self) -> bool:
        """Whether its images are decoded, by processes of their own, while they are trained on."""
        return "max_pixels" in self.options


HELD_OUT: dict[str, Any] = {"validate_on": "val", "val_share": 0.1, "split_seed": 0}
"""Options of datasets without validation images: some are held out of the training images, or with `validate_on: test`,
as in many published tables, the test images are validated on."""

MAX_PIXELS: dict[str, Any] = {"max_pixels": 178_956_970}
"""Largest image that is decoded: Pillow's limit against files made to fill the memory (twice `MAX_IMAGE_PIXELS`)."""


def _cifar(name: str, classes: int, pickled: str, binary: str) -> DatasetRow:
    return DatasetRow(
        name=name,
        description=f"60,000 colour 32x32 images in {classes} classes; ROOT/{pickled} or ROOT/{binary}",
        source="Krizhevsky 2009, https://www.cs.toronto.edu/~kriz/cifar.html",
        target=f"bocb_tune.data.cifar:{name}",
        image_size=32,
        num_classes=classes,
        train_images=50_000,
        options={"root": None, "download": False, **HELD_OUT},
        required=("root",),
        augments=("none", "flip_shift", "flip_crop"),
    )


def _half_of_digits(name: str, classes: str, counts: str) -> DatasetRow:
    return DatasetRow(
        name=name,
        description=f"the digits {classes} of `digits`, to pre-train on one half and fine-tune on the other; {counts}",
        source="as digits",
        target=f"bocb_tune.data.digits:{name}",
        channels=1,
        num_classes=5,
        options={"image_size": 32, "split_seed": 0},
        augments=("none", "shift"),
    )


DATASETS: dict[str, DatasetRow] = {
    "digits": DatasetRow(
        name="digits",
        description="1,797 grey 8x8 images of handwritten digits in 10 classes, resized; split 1,197 / 300 / 300",
        source="UCI Optical Recognition of Handwritten Digits (Alpaydin & Kaynak 1998), bundled with scikit-learn",
        target="bocb_tune.data.digits:reader",
        channels=1,
        num_classes=10,
        options={"image_size": 32, "split_seed": 0},
        augments=("none", "shift"),
    ),
    "digits_0to4": _half_of_digits("digits_0to4", "0 to 4", "901 images; split 601 / 150 / 150"),
    "digits_5to9": _half_of_digits("digits_5to9", "5 to 9", "896 images; split 596 / 150 / 150"),
    "cifar10": _cifar("cifar10", 10, "cifar-10-batches-py", "cifar-10-batches-bin"),
    "cifar100": _cifar("cifar100", 100, "cifar-100-python", "cifar-100-binary"),
    "imagenet": DatasetRow(
        name="imagenet",
        description="ImageNet-1K in ROOT/train/<class> and ROOT/val/<class>, or ROOT packed into one file",
        source="ILSVRC 2012, arXiv:1409.0575, https://www.image-net.org",
        target="bocb_tune.data.folders:reader",
        train_images=1_281_167,  # arXiv:1409.0575, table 2
        # As many images are held out as there are in val.
        options={"root": None, "image_size": 224, "classes": 1000, **HELD_OUT, "val_share": 0.04, **MAX_PIXELS},
        required=("root",),
        augments=("none", "flip_crop"),
    ),
    "imagefolder": DatasetRow(
        name="imagefolder",
        description="ROOT/train/<class>/<image>, and optionally ROOT/val and ROOT/test; or ROOT packed into one file",
        source="your own folder",
        target="bocb_tune.data.folders:reader",
        options={
            "root": None,
            "image_size": 224,
            "val_share": 0.1,
            "split_seed": 0,
            "loader_workers": 4,
            **MAX_PIXELS,
        },
        required=("root",),
        augments=("none", "flip_crop"),
    ),
    "huggingface": DatasetRow(
        name="huggingface",
        description="a dataset of images and class labels that Hugging Face's datasets saved to the folder ROOT",
        source="your own, or https://huggingface.co/datasets; needs bocb-tune[hf]",
        target="bocb_tune.data.hf:reader",
        options={"root": None, "image_size": 224, "image_column": "", "label_column": "", **HELD_OUT, **MAX_PIXELS},
        required=("root",),
        augments=("none", "flip_crop"),
    ),
    "coco": DatasetRow(
        name="coco",
        description="images with boxes, masks or keypoints in COCO's format: ROOT/train2017, ROOT/annotations/*.json",
        source="arXiv:1405.0312, https://cocodataset.org, or your own in its format",
        target="bocb_tune.data.coco.reader:reader",
        holds="annotated images",
        options={
            "root": None,
            "train_images": "train2017",
            "train_annotations": "annotations/instances_train2017.json",
            "val_images": "val2017",
            "val_annotations": "annotations/instances_val2017.json",
            "loader_workers": 4,
            **MAX_PIXELS,
        },
        free=("root", "max_pixels", "loader_workers"),
        required=("root",),
        augments=("none", "flip"),
    ),
    "shapes": DatasetRow(
        name="shapes",
        description="discs, diamonds and triangles drawn on noise, with boxes, masks and four keypoints each",
        source="drawn by bocb_tune.data.coco.shapes",
        target="bocb_tune.data.coco.shapes:reader",
        holds="annotated images",
        options={"image_size": 128, "images": 400, "held_out": 100, "draw_seed": 0, "loader_workers": 0, **MAX_PIXELS},
        free=("max_pixels", "loader_workers"),
        augments=("none", "flip"),
    ),
    "single_shapes": DatasetRow(
        name="single_shapes",
        description="one of these shapes an image, its class the label, to pre-train backbones on",
        source="as shapes",
        target="bocb_tune.data.coco.single:reader",
        num_classes=3,
        options={"image_size": 32, "images": 3000, "held_out": 300, "draw_seed": 0},
        augments=("none", "flip_shift"),
    ),
    "synthetic": DatasetRow(
        name="synthetic",
        description="no images: the landscapes of the synthetic task",
        source="analytic",
        holds="landscapes",
    ),
}


def resolve_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return every option of the dataset, defaults filled in and `root` absolute.

    Raises:
        ValueError: for an unknown dataset or option, and for a missing or bad value.
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
        valid, wanted = _VALUES.get(option, _ANYTHING)
        if not valid(value):
            raise ValueError(f"option {option!r} of dataset {name!r} is {value!r}; it must be {wanted}")
    if "root" in resolved:
        # Worker processes have working directories of their own: a relative path would lead elsewhere there.
        resolved["root"] = str(Path(resolved["root"]).expanduser().absolute())
    return resolved


def settings_of(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a trial keeps of its dataset: the name, and the resolved options that can change its result."""
    return {"name": name, **{key: value for key, value in options.items() if key not in DATASETS[name].free}}


def free_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the resolved options that change no result, such as where the data are."""
    return {key: value for key, value in options.items() if key in DATASETS[name].free}


Rule = tuple[Callable[[Any], bool], str]


def _whole(least: int) -> Rule:
    return lambda value: type(value) is int and value >= least, f"a whole number, at least {least}"


_ANYTHING: Rule = (lambda _: True, "")
_BELOW: Rule = (
    lambda value: isinstance(value, str) and not Path(value).is_absolute() and ".." not in Path(value).parts,
    "a path below the root",
)
_COLUMN: Rule = (lambda value: isinstance(value, str), "the name of a column, or '' to have it found")

_VALUES: dict[str, Rule] = {
    "root": (lambda value: isinstance(value, str), "the path of a folder"),
    "download": (lambda value: isinstance(value, bool), "true or false"),
    "image_size": _whole(8),
    "classes": _whole(2),
    "max_pixels": _whole(1),
    "split_seed": _whole(0),
    "loader_workers": _whole(0),
    "val_share": (lambda value: isinstance(value, float) and 0 < value < 1, "a share between 0 and 1"),
    "validate_on": (lambda value: value in ("val", "test"), "'val' or 'test'"),
    "image_column": _COLUMN,
    "label_column": _COLUMN,
    "train_images": _BELOW,
    "train_annotations": _BELOW,
    "val_images": _BELOW,
    "val_annotations": _BELOW,
    "images": _whole(1),
    "held_out": _whole(1),
    "draw_seed": _whole(0),
}
"""Whether a value of an option is valid, and what it must be."""


def check_dataset(name: str, options: Mapping[str, Any]) -> None:
    """Check all that can be wrong with a dataset and is cheap to see: options and layout, without decoding.

    Raises:
        ValueError: saying what is wrong.
    """
    resolve_options(name, options)
    if DATASETS[name].target:
        contents_of(name, options)


def contents_of(name: str, options: Mapping[str, Any]) -> Contents:
    """Look at what a dataset holds, without decoding; kept in the process, so that a command looks once.

    With `download`, this is also where a dataset is fetched: worker processes never do.

    Raises:
        ValueError: if an option is wrong, or the data are missing or cannot be trained on.
    """
    return _contents(name, _as_key(resolve_options(name, options)))


@lru_cache(maxsize=2)
def _contents(name: str, options: tuple[tuple[str, Any], ...]) -> Contents:
    return _reader(name).contents(dict(options))


def _as_key(resolved: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted(resolved.items()))


def _reader(name: str) -> Reader:
    module, attribute = DATASETS[name].target.split(":")
    reader: Reader = getattr(importlib.import_module(module), attribute)
    return reader


def encoded_images(name: str, options: Mapping[str, Any]) -> Mapping[str, ImageSource]:
    """Return the encoded images of a dataset by stored part; nothing where images are stored as plain numbers.

    Raises:
        ValueError: if an option is wrong, or the data are missing or cannot be trained on.
    """
    return _reader(name).sources(resolve_options(name, options)) if DATASETS[name].target else {}


def num_classes(name: str, options: Mapping[str, Any]) -> int:
    """Return the number of classes, without reading an image."""
    resolved = resolve_options(name, options)
    known: int | None = DATASETS[name].num_classes or resolved.get("classes")
    return len(contents_of(name, options).classes) if known is None else known


def image_size(name: str, options: Mapping[str, Any], wanted: int = 0) -> int:
    """Return height and width in pixels of the images it gives; 0 if it holds none.

    Args:
        name: of the dataset.
        options: those given of it.
        wanted: the size a recipe asks for, if it does: images decoded from files are cropped to it, others stay as
            they are until the backbone resizes them.
    """
    resolved = resolve_options(name, options)
    size: int = DATASETS[name].image_size or resolved.get("image_size", 0)
    return wanted if wanted and DATASETS[name].is_decoded else size


def load_dataset(name: str, options: Mapping[str, Any], device: str) -> Dataset:
    """Load the dataset, once a process: it is kept from one trial to the next. `device` is where in-memory images are
    put.
    """
    return _load(name, _as_key(resolve_options(name, options)), device)


@lru_cache(maxsize=8)
def _load(name: str, options: tuple[tuple[str, Any], ...], device: str) -> Dataset:
    return _reader(name).load(dict(options), device)
