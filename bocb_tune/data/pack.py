"""`python -m bocb_tune.data.pack FOLDER FILE.zip`: the images of a folder in one file, for `bocb_tune.data.packed`.

`cd FOLDER && zip -0 -r FILE.zip train val` makes one that serves as well.
"""

from __future__ import annotations

import os
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

from bocb_tune.data.contents import printable
from bocb_tune.data.layout import read_parts
from bocb_tune.data.parts import Stored

USAGE = "usage: python -m bocb_tune.data.pack FOLDER FILE.zip"


def pack(folder: Path, path: Path) -> Stored:
    """Pack the images of a folder; returns what was found there.

    Raises:
        ValueError: if the layout is wrong, or the file exists.
    """
    if path.exists():
        raise ValueError(f"{path} exists; give another name, or remove it")
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}")
    stored = read_parts(folder)
    draft = path.with_name(f"{path.name}.part")
    with zipfile.ZipFile(draft, "w", zipfile.ZIP_STORED, strict_timestamps=False) as archive:
        for name in (images.name(index) for images in stored.parts.values() for index in range(len(images.labels))):
            archive.write(name, _in_archive(os.path.relpath(name, folder)))
    draft.replace(path)
    return stored


def _in_archive(name: str) -> str:
    if printable(name) != name:
        raise ValueError(f"{printable(name)} is no Unicode, as names in a packed file must be; rename it")
    return name


def main(arguments: Sequence[str]) -> int:
    """Run the command; returns the exit code."""
    if len(arguments) != 2:
        print(USAGE, file=sys.stderr)
        return 2
    try:
        stored = pack(Path(arguments[0]), Path(arguments[1]))
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{arguments[1]}: {sum(len(images.labels) for images in stored.parts.values())} images")
    for group in stored.left_out:
        print(f"left out: {group}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
