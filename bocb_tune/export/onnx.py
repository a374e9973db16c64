"""A model as an ONNX file, for whoever runs it without torch."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from bocb_tune.backbones.weights import WeightsError
from bocb_tune.export.card import Exported

ONNX = "model.onnx"
NEEDS = ("onnx", "onnxscript")
"""Packages that torch's exporter imports."""
BATCH = 2
"""Images in the example that the graph is traced with; one is taken for a constant."""


def require_onnx() -> None:
    """Check that the packages for it are installed.

    Raises:
        WeightsError: if one is not.
    """
    if missing := [name for name in NEEDS if find_spec(name) is None]:
        raise WeightsError(f"--to onnx needs {' and '.join(missing)}: pip install 'bocb-tune[onnx]'")


def write_onnx(exported: Exported, folder: Path) -> Path:
    """Write the model with `images` [batch, channels, height, width], normalised, as input, and `logits` as output.

    Raises:
        WeightsError: if an operation of the model has no counterpart in ONNX.
    """
    import torch

    size = exported.seen
    images = torch.zeros(BATCH, exported.channels, size, size)
    try:
        program = torch.onnx.export(
            exported.model,
            (images,),
            dynamo=True,
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            verbose=False,
        )
    except torch.onnx.errors.OnnxExporterError as error:
        reason = str(error).strip().splitlines()[0]
        raise WeightsError(f"{exported.backbone} cannot be written as ONNX: {reason}; use --to weights") from error
    assert program is not None
    program.save(folder / ONNX)
    return folder / ONNX
