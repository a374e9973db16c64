"""Several trials on one device at a time: what each takes from the others."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from queue import Empty
from typing import Any

from bocb_tune.profiling.load import Load

PATIENCE_S = 180.0
"""Seconds that processes may take to get ready, or to train: a device may be shared with others' work."""
GAIN = 1.05
"""Least factor on the throughput for which more trials at a time are worth their memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """So many trials at a time on one device."""

    trials: int
    images_per_s: float | None
    """Rate of all trials together; None: they do not fit into the memory, or one of them died."""
    peak_memory_gib: float | None = None
    """Peak of one of them."""


def packed(load: Load, device: str, trials: int, *, steps: int, epochs: int) -> Packed:
    """Train the same load in `trials` processes at once, each kept to its share of the memory.

    All wait until all have trained an epoch, so that only what runs side by side is timed: `epochs` epochs.
    """
    context = get_context("spawn")
    ready, results = context.Barrier(trials), context.Queue()
    arguments = (load, device, 1 / trials, steps, epochs, ready, results)
    processes = [context.Process(target=_train, args=arguments, daemon=True) for _ in range(trials)]
    for process in processes:
        process.start()
    found = _collect(results, processes)
    for process in processes:
        process.join(timeout=5) if len(found) == trials else process.kill()
    if len(found) < trials or any(rate is None for rate, _ in found):
        return Packed(trials=trials, images_per_s=None)
    return Packed(
        trials=trials, images_per_s=sum(rate for rate, _ in found), peak_memory_gib=max(peak for _, peak in found)
    )


def best_packing(measured: Sequence[Packed]) -> Packed | None:
    """Choose the fewest trials at a time beyond which more bring less than GAIN; None if not even one fits."""
    best, rate = None, 0.0
    for found in measured:
        if found.images_per_s is not None and found.images_per_s > GAIN * rate:
            best, rate = found, found.images_per_s
    return best


def _collect(results: Any, processes: Sequence[Any]) -> list[tuple[Any, Any]]:
    """Gather what each process found; fewer than there are processes if one died or the time is over."""
    found: list[tuple[Any, Any]] = []
    deadline = time.monotonic() + PATIENCE_S
    while len(found) < len(processes) and time.monotonic() < deadline:
        try:
            found.append(results.get(timeout=0.5))
        except Empty:
            if any(process.exitcode for process in processes):
                break
    return found


def _train(load: Load, device: str, share: float, steps: int, epochs: int, ready: Any, results: Any) -> None:
    import threading

    import torch

    from bocb_tune.core.errors import OutOfMemory
    from bocb_tune.training.device import limit_memory
    from bocb_tune.training.loop import catch_out_of_memory

    limit_memory(torch.device(device), share)
    torch.set_num_threads(max(1, int(torch.get_num_threads() * share)))
    try:
        training = catch_out_of_memory(load.epochs(load.training(device, steps), device, 1 + epochs))
        next(training)
        ready.wait(timeout=PATIENCE_S)
        started = time.perf_counter()
        *_, last = training
        seconds = time.perf_counter() - started
        results.put((steps * load.recipe.batch_size * epochs / seconds, last.metrics["peak_memory_gib"]))
    except (OutOfMemory, threading.BrokenBarrierError):
        ready.abort()
        results.put((None, None))
