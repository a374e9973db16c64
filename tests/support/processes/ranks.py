"""Two real processes that train together over gloo, as ranks of one training."""

from __future__ import annotations

from collections.abc import Callable
from multiprocessing import set_forkserver_preload
from pathlib import Path

import torch
from torch.multiprocessing import start_processes

from bocb_tune.training.context import Ranks

WORLD_SIZE = 2
PRELOADED = ("bocb_tune.analysis.report.preload", "bocb_tune.tasks.detection", "tests.support.processes.ranks")
"""Slow to import: by these tests, and by the analysis, which forks from the same process."""


def on_two_ranks(body: Callable[[Ranks, Path], None], folder: Path) -> None:
    """Call a function of a module in two processes of one group.

    They are forked from a process that has imported what is slow, once for all tests of a session.
    """
    set_forkserver_preload(list(PRELOADED))
    start_processes(_rank, (body, folder), nprocs=WORLD_SIZE, start_method="forkserver")


def _rank(rank: int, body: Callable[[Ranks, Path], None], folder: Path) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=WORLD_SIZE)
    body(Ranks(rank=rank, world_size=WORLD_SIZE, local_rank=rank), folder)
    torch.distributed.destroy_process_group()
