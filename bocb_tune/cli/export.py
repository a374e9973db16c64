"""The models of a run, written for others to load."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from bocb_tune.cli.busy import busy, warn
from bocb_tune.cli.launch import FolderError
from bocb_tune.core.files import SPEC_FILE
from bocb_tune.core.kept import KeptModel, NotKeptError, journals_of, kept_model, kept_models
from bocb_tune.core.names import plain
from bocb_tune.core.progress import say
from bocb_tune.data import free_options
from bocb_tune.spec.model import load_spec

MODELS = "models"
"""Folder of a run that its models are written into."""


def export_run(folder: Path, cells: Sequence[str], out: Path | None, *, as_onnx: bool = False) -> None:
    """Write the kept models of a run, a folder each, and print the folders.

    Args:
        folder: the run.
        cells: keys of the cells; none for all that have a model, the others being named.
        out: the folder of these folders.
        as_onnx: write ONNX files too.

    Raises:
        ValueError: if it is no run folder, or a cell that was asked for, or all of them, have no model.
        OSError: if the folder cannot be written.
    """
    if not (folder / SPEC_FILE).exists():
        raise FolderError(f"{folder} is no run folder: it has no {SPEC_FILE}")
    dataset = load_spec(folder / SPEC_FILE).dataset
    kept = [kept_model(folder, key) for key in cells] if cells else _all_kept(folder)
    with busy(f"exporting {folder}"):
        from bocb_tune.export.model import export
        from bocb_tune.export.onnx import require_onnx

        if as_onnx:
            require_onnx()
        for number, model in enumerate(kept, start=1):
            say(f"model {number} of {len(kept)}, {model.cell.cell.key}")
            place = (out or folder / MODELS) / model.cell.cell.stem
            export(model, free_options(dataset.name, dataset.options), place, folder.resolve().name, as_onnx=as_onnx)
            print(plain(str(place)), flush=True)
    print(f"{len(kept)} model(s); each has a README.md that says how to load it", file=sys.stderr)


def _all_kept(folder: Path) -> list[KeptModel]:
    kept = list(kept_models(folder))
    missing = sorted({path.stem for path in journals_of(folder)} - {model.journal.stem for model in kept})
    reasons = [_reason(folder, stem.replace("__", "/")) for stem in missing]
    if not kept:
        raise NotKeptError("\n".join(reasons))
    for reason in reasons:
        warn(f"left out: {reason}")
    return kept


def _reason(folder: Path, key: str) -> str:
    try:
        kept_model(folder, key)
    except NotKeptError as error:
        return str(error)
    raise AssertionError(key)
