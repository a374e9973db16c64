"""Device of a trial: its numerical precision, its choice of kernels, and the transfer of batches to it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from bocb_tune.training.recipes import Recipe


def prepare(device: torch.device, recipe: Recipe, *, shapes_vary: bool = False) -> None:
    """Set what torch keeps for the whole process: a warm worker trains one trial after another.

    cuDNN selects its kernels by timing them at the first batch of each shape, which is done once only where shapes do
    not change from batch to batch.

    Raises:
        ValueError: if the device cannot compute in the recipe's precision.
    """
    _require_precision(device, recipe)
    # torch 2.9 brought another pair of switches, which torch.compile refuses to see mixed with these
    torch.set_float32_matmul_precision("high" if recipe.tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = recipe.tf32
    torch.backends.cudnn.benchmark = not (recipe.deterministic or shapes_vary)
    torch.backends.cudnn.deterministic = recipe.deterministic
    if recipe.deterministic and device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # CUDA's manual, cuBLAS, "Results reproducibility"
    torch.use_deterministic_algorithms(recipe.deterministic, warn_only=True)


def _require_precision(device: torch.device, recipe: Recipe) -> None:
    if recipe.precision == "auto":
        raise ValueError(
            "recipe field 'precision' is 'auto', which an experiment resolves; give 'bf16', 'fp16' or 'fp32'"
        )
    if recipe.precision == "fp16" and device.type == "cpu":
        raise ValueError("recipe field 'precision' is 'fp16', which needs a GPU; on the CPU use 'bf16' or 'fp32'")
    if recipe.precision == "bf16" and device.type == "cuda" and not _has_bf16(device):
        raise ValueError(
            f"recipe field 'precision' is 'bf16', which {torch.cuda.get_device_name(device)} has no units for; "
            "use 'fp16' or 'fp32'"
        )


def _has_bf16(device: torch.device) -> bool:
    with torch.cuda.device(device):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))


CONTEXT_GIB = 0.6
"""Memory that a process takes of a GPU before its first tensor, in GiB; our own choice, not measured."""


def limit_memory(device: torch.device, share: float) -> None:
    """Keep this process to its share of a GPU's memory, so that trials on one GPU cannot exhaust each other's."""
    if device.type == "cuda" and 0 < share < 1:
        total = torch.cuda.get_device_properties(device).total_memory / 2**30
        torch.cuda.set_per_process_memory_fraction(max(share - CONTEXT_GIB / total, 0.01), device)


def autocast(device: torch.device, recipe: Recipe) -> torch.autocast:
    """Build the autocast context of the recipe's precision, for a forward pass and its loss."""
    dtype = torch.float16 if recipe.precision == "fp16" else torch.bfloat16
    return torch.autocast(device.type, dtype=dtype, enabled=recipe.precision != "fp32")


def sent_ahead(batches: Iterator[Any], send: Callable[[Any], Any], device: torch.device) -> Iterator[Any]:
    """Send batches to a GPU on a stream of its own, each while the one before it is trained on."""
    if device.type != "cuda":
        yield from map(send, batches)
        return
    side, ready = torch.cuda.Stream(device), None  # type: ignore[no-untyped-call]
    for batch in batches:
        with torch.cuda.stream(side):
            coming = send(batch)
        if ready is not None:
            yield ready
        main = torch.cuda.current_stream(device)
        main.wait_stream(side)
        for tensor in _tensors(coming):
            tensor.record_stream(main)
        ready = coming
    if ready is not None:
        yield ready


def _tensors(batch: Any) -> Iterator[Tensor]:
    """Yield the tensors of a batch, whatever lists and mappings they stand in."""
    if isinstance(batch, Tensor):
        yield batch
    elif isinstance(batch, (tuple, list, Mapping)):
        for part in batch.values() if isinstance(batch, Mapping) else batch:
            yield from _tensors(part)


def set_memory_strides(model: torch.nn.Module) -> None:
    """Give every convolution weight the strides of channels-last memory, also where a side of length 1 leaves a choice.

    Gradients come in these strides; where the weights differ, DistributedDataParallel copies each gradient once more.
    """
    for parameter in model.parameters():
        if parameter.ndim == 4:
            _, channels, height, width = parameter.shape
            strides = (channels * height * width, 1, width * channels, channels)
            parameter.data = _restrided(parameter.data, strides)


def _restrided(tensor: Tensor, strides: tuple[int, ...]) -> Tensor:
    return torch.empty_strided(tensor.shape, strides, dtype=tensor.dtype, device=tensor.device).copy_(tensor)


def peak_memory_gib(device: torch.device) -> float:
    """Measure peak memory in GiB: of the trial's tensors on a GPU, of the whole process so far on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    import resource
    import sys

    unit = 1 if sys.platform == "darwin" else 2**10  # getrusage(2): bytes there, KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def state_mib(optimizer: torch.optim.Optimizer) -> float:
    """Give the MiB of the tensors that an optimizer keeps of its parameters: moments, factors, averages."""
    kept = [value for state in optimizer.state.values() for value in state.values()]
    return sum(each.numel() * each.element_size() for each in kept if isinstance(each, torch.Tensor)) / 2**20
