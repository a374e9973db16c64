"""Work that falls into independent parts, spread over the cores."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

CHUNKS = 8
"""Portions a worker is given its parts in: the last ones end at nearly the same time."""
PRELOADED = ["bocb_tune.analysis.cell.modelling", "bocb_tune.analysis.page.figures", "bocb_tune.analysis.sources.load"]
"""Imported once, by the server that the workers are forked from."""

Part = TypeVar("Part")
Result = TypeVar("Result")


def spread(work: Callable[[Part], Result], parts: Sequence[Part], *, fewest: int) -> list[Result]:
    """`work` of each part, in their order; it and what it takes and gives must be picklable.

    Fewer parts than `fewest` are done here, before other processes would have started.
    """
    workers = min(os.cpu_count() or 1, len(parts))
    if len(parts) < fewest or workers < 2:
        return [work(part) for part in parts]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        return list(pool.map(work, parts, chunksize=max(1, len(parts) // (CHUNKS * workers))))
