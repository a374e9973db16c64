"""Reading an annotation file as large as COCO's train2017: the first process of a node, and every later one.

The file is made up: 118,000 images, 860,000 objects with boxes, polygons of 8 to 44 corners and crowds as run lengths,
about as many bytes as COCO's. Seconds and peak memory are of a process of its own each time. Target: 20 s and 4 GiB for
the first; the later ones map what it left in the node's cache.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
import orjson
from harness import fresh
from machine import show, spread

IMAGES, OBJECTS, CLASSES = 118_000, 860_000, 80
WIDTH, HEIGHT = 640, 480
POLYGONS = [np.random.default_rng(corners).uniform(5, 400, 2 * corners).round(2).tolist() for corners in range(8, 45)]
"""Outlines to take in turns."""


def write(path: Path, images: int, objects: int) -> None:
    """Write the file piece by piece, so that making it needs no more memory than reading it."""
    random = np.random.default_rng(0)
    with path.open("wb") as file:
        file.write(b'{"images":[')
        _join(file, (_image(number) for number in range(images)))
        file.write(b'],"annotations":[')
        _join(file, (_object(random, number, images) for number in range(objects)))
        names = [{"id": 1 + number, "name": f"class {number}"} for number in range(CLASSES)]
        file.write(b'],"categories":' + orjson.dumps(names) + b"}")


def _join(file: IO[bytes], entries: Iterator[dict[str, object]]) -> None:
    for number, entry in enumerate(entries):
        file.write((b"," if number else b"") + orjson.dumps(entry))


def _image(number: int) -> dict[str, object]:
    place = f"http://images.example.org/train2017/{number:012}.jpg"
    return {
        **{"license": 1, "file_name": f"{number:012}.jpg", "coco_url": place, "flickr_url": place},
        **{"height": HEIGHT, "width": WIDTH, "date_captured": "2013-11-14 11:18:45", "id": number},
    }


def _object(random: np.random.Generator, number: int, images: int) -> dict[str, object]:
    width, height, x, y = random.uniform(5, 200, 4).round(2).tolist()
    crowd = number % 86 == 0
    runs = {"size": [HEIGHT, WIDTH], "counts": [WIDTH * HEIGHT - 100, 100]}
    return {
        **{"segmentation": runs if crowd else [POLYGONS[number % len(POLYGONS)]], "area": width * height / 2},
        **{"iscrowd": int(crowd), "image_id": int(random.integers(images)), "bbox": [x, y, width, height]},
        **{"category_id": 1 + number % CLASSES, "id": number},
    }


def read(path: str, cache: str, outlines: bool) -> tuple[float, float, float]:
    """Read in this process: seconds, seconds of CPU, and peak memory in GiB beyond that of an empty process."""
    tempfile.tempdir = cache
    from bocb_tune.data.coco.annotations import read_annotations

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, cpu = time.perf_counter(), time.process_time()
    assert read_annotations(Path(path), outlines=outlines).boxes.sum() > 0  # reads every page of them
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu
    return seconds, cpu_seconds, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20


def rows(path: Path, outlines: bool, repetitions: int) -> Iterator[list[str]]:
    """Rows of the table: the first process, and a later one."""
    pairs = []
    for _ in range(repetitions):
        with tempfile.TemporaryDirectory() as cache:
            pairs.append([fresh(read, str(path), cache, outlines) for _ in range(2)])
    for place, name in enumerate(("first of a node", "every later one")):
        runs = [pair[place] for pair in pairs]
        what = f"{name}, {'with' if outlines else 'without'} outlines"
        seconds, cpu, memory = (list(values) for values in zip(*runs, strict=True))
        yield [what, spread(seconds, 2), spread(cpu, 2), spread(memory, 2), str(len(runs))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small file, once: a smoke test, not a measurement")
    parser.add_argument("--repetitions", type=int, default=3)
    arguments = parser.parse_args()
    quick, repetitions = arguments.quick, 1 if arguments.quick else arguments.repetitions
    with tempfile.TemporaryDirectory(prefix="bocb-tune-bench-") as folder:
        path = Path(folder) / "instances.json"
        share = 100 if quick else 1
        write(path, IMAGES // share, OBJECTS // share)
        found = [row for outlines in (False, True) for row in rows(path, outlines, repetitions)]
        size = path.stat().st_size / 2**20
    title = f"Reading {IMAGES // share:,} images and {OBJECTS // share:,} objects, {size:,.0f} MiB of JSON"
    show(f"{title}; target for the first: <= 20 s and 4 GiB", ["process", "s", "CPU s", "GiB", "n"], found)


if __name__ == "__main__":
    main()
