"""A kept model as files that others load: safetensors, timm's configuration, and a card."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bocb_tune.backbones import BACKBONES, adapted, build_backbone
from bocb_tune.backbones.weights import WeightsError, digest_of, read_weights
from bocb_tune.core.files import write_atomically
from bocb_tune.core.kept import KeptModel
from bocb_tune.data import DATASETS, image_size, load_dataset, num_classes
from bocb_tune.export.card import Exported, card, label_names, on_onnx
from bocb_tune.export.onnx import ONNX, write_onnx
from bocb_tune.training.recipes import Recipe

WEIGHTS = "model.safetensors"
CONFIGURATION = "config.json"
CARD = "README.md"


def export(kept: KeptModel, data_options: Mapping[str, Any], folder: Path, run: str, *, as_onnx: bool = False) -> Path:
    """Write a kept model into a folder of its own.

    Args:
        kept: of a classification run.
        data_options: options of the data set that say where it is.
        folder: is made; files of an earlier export in it are replaced.
        run: name of the run, for the card.
        as_onnx: write the model as an ONNX file too.

    Returns:
        The folder.

    Raises:
        WeightsError: if the checkpoint cannot be read, its weights do not fit the cell's model, or ONNX has no
            counterpart of an operation.
        OSError: if the folder cannot be written.
    """
    exported = _built(kept, data_options)
    folder.mkdir(parents=True, exist_ok=True)
    _write(exported, kept, folder)
    (folder / ONNX).unlink(missing_ok=True)
    text = card(kept, exported, run)
    if as_onnx:
        text += on_onnx(write_onnx(exported, folder).name)
    write_atomically(folder / CARD, lambda file: file.write(text.encode(errors="backslashreplace")))
    return folder


def _built(kept: KeptModel, data_options: Mapping[str, Any]) -> Exported:
    settings, backbone = kept.cell.settings, kept.cell.cell.backbone
    if kept.cell.cell.task != "classification":
        raise WeightsError(f"{kept.journal}: is of the task {kept.cell.cell.task}; only classifiers are exported")
    name, options = _dataset(settings, data_options)
    weights = read_weights(kept.checkpoint)
    classes = len(label_names(kept)) or num_classes(name, options)
    row = BACKBONES.get(backbone)
    wanted = Recipe(**settings["recipe"]).image_size
    size = image_size(name, options, wanted)
    change = adapted(backbone, size, wanted)
    model = build_backbone(
        backbone,
        num_classes=classes,
        in_chans=DATASETS[name].channels,
        image_size=size,
        resized_to=wanted,
    )
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise WeightsError(f"{kept.checkpoint}: holds another model than {backbone}: {error}") from error
    mean, std = _normalisation(name, options)
    return Exported(
        model=model.eval(),
        backbone=backbone,
        num_classes=classes,
        channels=DATASETS[name].channels,
        architecture=row.model if row else backbone,
        module=row.module if row else "",
        by_timm="small" not in change,
        image_size=size,
        resized_to=wanted,
        seen=change.get("image_size", size),
        mean=mean,
        std=std,
        digest=digest_of(weights),
    )


def _dataset(settings: Mapping[str, Any], data_options: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    options = {**settings["dataset"], **data_options}
    return options.pop("name"), options


def _normalisation(name: str, options: Mapping[str, Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    try:
        dataset = load_dataset(name, options, "cpu")
    except ValueError:  # the data are elsewhere
        return (), ()
    return dataset.mean, dataset.std


def _write(exported: Exported, kept: KeptModel, folder: Path) -> None:
    import timm.models
    from safetensors.torch import save_file

    if not exported.by_timm:
        tensors = {name: value.contiguous() for name, value in exported.model.state_dict().items()}
        save_file(tensors, folder / WEIGHTS)
        (folder / CONFIGURATION).unlink(missing_ok=True)
        return
    timm.models.save_for_hf(
        exported.model,
        str(folder),
        model_config=_own(exported, kept),
        safe_serialization=True,
        data_config=_images(exported, kept.cell.settings),
    )


def _own(exported: Exported, kept: KeptModel) -> dict[str, Any]:
    """Replace what timm's configuration of the architecture says of weights that are not these."""
    labels = label_names(kept)
    of_weights = {"tag": "", "license": "", "num_classes": exported.num_classes}
    return {"pretrained_cfg": of_weights} | ({"label_names": list(labels)} if labels else {})


def _images(exported: Exported, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Say how images are given to the model, in timm's words."""
    size, recipe = exported.seen, Recipe(**settings["recipe"])
    decoded = DATASETS[settings["dataset"]["name"]].is_decoded
    given = {
        "input_size": (exported.channels, size, size),
        "crop_pct": recipe.eval_crop if decoded else 1.0,
        "interpolation": recipe.interpolation if decoded else "bicubic",
    }
    return given | ({"mean": exported.mean, "std": exported.std} if exported.mean else {})
