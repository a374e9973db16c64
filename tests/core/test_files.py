"""Files that are whole or not there, with the mode that the user's umask gives."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest
import torch

from bocb_tune.cli.launch import SPEC_FILE, claim_folder
from bocb_tune.core.files import LATEST, write_atomically
from bocb_tune.spec.model import load_spec
from bocb_tune.training.checkpoint import Checkpoints

SPEC = """\
name: small
task: synthetic
dataset: synthetic
backbones: [bowl]
optimizers: [sgd]
recipe: digits
budget: {epochs: 9, trials_per_cell: 9}
"""


@pytest.fixture(params=[0o022, 0o002, 0o077, 0o027], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def write_spec(folder: Path) -> Path:
    (folder / "small.yaml").write_text(SPEC)
    claim_folder(load_spec(folder / "small.yaml"), folder / "run")
    return folder / "run" / SPEC_FILE


def write_checkpoint(folder: Path) -> Path:
    place = folder / "checkpoints" / "0123456789abcdef"
    checkpoints = Checkpoints(place)
    checkpoints.save({"model": {"weight": torch.zeros(1)}})
    checkpoints.wait()
    return place / LATEST


@pytest.mark.parametrize("write", [write_spec, write_checkpoint])
def test_the_umask_decides_who_may_read_a_run(tmp_path: Path, umask: int, write: Callable[[Path], Path]) -> None:
    path = write(tmp_path)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail(file: IO[bytes]) -> None:
        file.write(b"new")
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        write_atomically(path, fail)
    assert [(each.name, each.read_bytes()) for each in tmp_path.iterdir()] == [("file", b"old")]
