"""Datasets saved by Hugging Face's `datasets` with `save_to_disk`: an extra, `pip install bocb-tune[hf]`.

Only what is on disk is read: `load_from_disk` neither asks the hub nor runs a script.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from bocb_tune.core.names import unknown
from bocb_tune.data.contents import Contents, ImageSource, OmissionCounter, StoredPart
from bocb_tune.data.layout import Layout, layout_of
from bocb_tune.data.parts import FOLDERS, require_one_name
from bocb_tune.data.split import Indices

if TYPE_CHECKING:
    from bocb_tune.data.base import Dataset


class Tables:
    """Reads `huggingface`."""

    def contents(self, options: Mapping[str, Any]) -> Contents:
        return scan_table(options).contents()

    def sources(self, options: Mapping[str, Any]) -> Mapping[str, ImageSource]:
        return scan_table(options).parts

    def load(self, options: Mapping[str, Any], device: str) -> Dataset:
        from bocb_tune.data.files import load_files

        return load_files(scan_table(options), options, device)


reader = Tables()


@dataclass(frozen=True, slots=True, kw_only=True)
class TableImages:
    """The images of one table."""

    place: str
    table: Any
    """A `datasets.Dataset` whose image column is left encoded."""
    column: str
    labels: Indices

    def name(self, index: int) -> str:
        return f"{self.place}[{index}]"

    def stored(self) -> StoredPart:
        """Describe the images for a fingerprint. In a table they have no names: their rows, and the bytes that each
        takes within it.
        """
        from pyarrow import compute

        within = compute.struct_field(self.table.data.column(self.column), "bytes")
        sizes = compute.binary_length(within).fill_null(0).to_pylist()
        return StoredPart(labels=self.labels, names=[b"%d" % row for row in range(len(sizes))], sizes=sizes)

    def open(self, index: int) -> str | IO[bytes]:
        stored = self.table[index][self.column]
        if stored is None or (stored["bytes"] is None and stored["path"] is None):
            raise ValueError("there is no image in this row")
        path: str = stored["path"]
        return path if stored["bytes"] is None else io.BytesIO(stored["bytes"])


def scan_table(options: Mapping[str, Any]) -> Layout:
    """Look at the dataset saved in the folder `options["root"]`.

    A test split without labels (-1 throughout, as ImageNet's) is left out.

    Raises:
        ValueError: if `datasets` is not installed, there is no such dataset, its columns cannot be told apart, or its
            layout cannot be trained on.
    """
    root = Path(options["root"])
    tables = _tables(root)
    image, label = _columns(tables["train"], options, root)
    names = _class_names(tables["train"], label)
    parts: dict[str, ImageSource] = {}
    tally = OmissionCounter()
    for part, table in tables.items():
        labels = np.asarray(table[label][:], dtype=np.int64)
        if part == "test" and (labels == -1).all():
            for row in range(len(labels)):
                tally.add("without a label", f"{part}[{row}]")
            continue
        _require_labels(labels, len(names), f"{root}: {part}")
        parts[part] = TableImages(place=f"{root}:{part}", table=_encoded(table, image), column=image, labels=labels)
    return layout_of(parts, names, options, str(root), tally.left_out())


def _tables(root: Path) -> dict[str, Any]:
    try:
        import datasets
    except ImportError as error:
        raise ValueError("dataset 'huggingface' needs the package `datasets`: pip install 'bocb-tune[hf]'") from error
    try:
        loaded = datasets.load_from_disk(str(root))
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{root} is no dataset saved with `save_to_disk`: {error}") from error
    splits = loaded if isinstance(loaded, Mapping) else {"train": loaded}
    for split in splits:
        if split not in FOLDERS:
            raise unknown(f"split in {root}", split, FOLDERS)
    if "train" not in splits:
        raise ValueError(f"{root} has no split 'train', only {', '.join(splits)}")
    for part in set(FOLDERS.values()):
        require_one_name(part, [split for split in splits if FOLDERS[split] == part], str(root))
    return {FOLDERS[split]: table for split, table in splits.items()}


def _columns(table: Any, options: Mapping[str, Any], root: Path) -> tuple[str, str]:
    """Name the image and the label column: as given, or the only one of its kind."""
    import datasets

    features = table.features.items()
    images = [name for name, kind in features if isinstance(kind, datasets.Image)]
    named = [name for name, kind in features if isinstance(kind, datasets.ClassLabel)]
    whole = [name for name, kind in features if getattr(kind, "dtype", "").startswith(("int", "uint"))]
    return (
        _column(options["image_column"], images, "image_column", root),
        _column(options["label_column"], named or whole, "label_column", root),
    )


def _column(given: str, found: Sequence[str], option: str, root: Path) -> str:
    kind = option.removesuffix("_column")
    if given and given not in found:
        raise unknown(f"{kind} column in {root}", given, found)
    if not given and len(found) != 1:
        there = f"{len(found)}, {', '.join(found)}: choose with the option {option!r}" if found else "none"
        raise ValueError(f"{root} must have one {kind} column; it has {there}")
    return given or found[0]


def _class_names(table: Any, label: str) -> Sequence[str]:
    """Return the names kept with the column; whole numbers without names are classes from 0 to the largest."""
    names: Sequence[str] | None = getattr(table.features[label], "names", None)
    return names or [str(number) for number in range(int(np.max(table[label][:])) + 1)]


def _require_labels(labels: Indices, num_classes: int, place: str) -> None:
    wrong = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if len(wrong):
        raise ValueError(f"{place}[{wrong[0]}]: label {labels[wrong[0]]} is none of the {num_classes} classes")


def _encoded(table: Any, column: str) -> Any:
    """Leave images as they are stored, so that they are decoded, and faults are dealt with, as those of any other
    dataset.
    """
    import datasets

    return table.cast_column(column, datasets.Image(decode=False))
