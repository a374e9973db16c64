"""`python -m bocb_tune.data.pack FOLDER FILE.zip`: the images of a folder in one file, for `bocb_tune.data.packed`.

`cd FOLDER && zip -0 -r FILE.zip train val` makes one that serves as well.
"""

from __future__ import annotations

import os
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

from bocb_tune.data.layout import read_parts

USAGE = "usage: python -m bocb_tune.data.pack FOLDER FILE.zip"


def pack(folder: Path, path: Path) -> int:
    """Packs the images of a folder; returns how many. ValueError: the layout is not right, or the file exists."""
    if path.exists():
        raise ValueError(f"{path} exists; give another name, or remove it")
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}")
    _, parts = read_parts(folder)
    names = [images.name(index) for images in parts.values() for index in range(len(images.labels))]
    draft = path.with_name(f"{path.name}.part")
    with zipfile.ZipFile(draft, "w", zipfile.ZIP_STORED, strict_timestamps=False) as archive:
        for name in names:
            archive.write(name, os.path.relpath(name, folder))
    draft.replace(path)
    return len(names)


def main(arguments: Sequence[str]) -> int:
    """Returns the exit code."""
    if len(arguments) != 2:
        print(USAGE, file=sys.stderr)
        return 2
    try:
        number = pack(Path(arguments[0]), Path(arguments[1]))
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{arguments[1]}: {number} images")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
